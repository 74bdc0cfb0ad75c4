//! The immutable table that requests are routed by.

use std::collections::HashMap;
use std::sync::Arc;

use std::time::Duration;

use crate::model::{
    Balance, ChoiceReason, EndpointPhase, Generation, Moment, Outliers, Placement, PodKey, Problem, Revision,
    RouteName, RouteSpec, SetAsideReason, Share, Traffic, VersionName,
};

use super::audience::CompiledAudience;
use super::balance::{Balancer, Question};
use super::matcher::{Matched, Matcher, RouteIndex};
use super::split::{Drawn, Place, Split};
use super::tally::Tally;
use super::users::Users;
use super::{AttemptOutcome, Endpoint, Evidence, InFlight, Mirroring, RetryBudget, Sessions, Standing};

/// Everything that routing a request needs; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    pub(super) generation: Generation,
    pub(super) matcher: Arc<Matcher>,
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) by_name: Arc<HashMap<RouteName, RouteIndex>>,
}

impl RoutingTable {
    /// Its number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The route of a request, and how it was found; see [`Matcher::find`].
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<(&Arc<Route>, Matched)> {
        let matched = self.matcher.find(host, path)?;
        self.routes.get(matched.route).map(|route| (route, matched))
    }

    /// Every route, in the order of the config.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of this name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.by_name.get(name).and_then(|index| self.routes.get(*index))
    }
}

/// A route with its versions' endpoints.
#[derive(Debug)]
pub struct Route {
    /// What was asked for.
    pub spec: Arc<RouteSpec>,
    /// The revision of the weights in force.
    pub revision: Revision,
    /// Whether its Services, their slices and pods have all been heard of. Until then it lacks endpoints without that
    /// being a problem.
    pub known: bool,
    /// Its versions, in the order of the spec: stable first.
    pub versions: Vec<Version>,
    /// Endpoints that belong to no version and get no traffic: address, pod, and whether only its labels are awaited.
    pub unassigned: Vec<Unassigned>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// How many of its requests may be repeated at once (semantics §4.3).
    pub budget: Arc<RetryBudget>,
    /// What its rollout is judged by, while one is under way.
    pub evidence: Option<Arc<Evidence>>,
    /// Which of its requests are copied.
    pub mirror: Option<Mirroring>,
    /// By the shares that are drawn.
    pub(super) split: Split,
    /// What decides before the split, where anything does.
    pub(super) audience: Option<Box<CompiledAudience>>,
}

/// An endpoint that belongs to no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unassigned {
    /// Where it is.
    pub address: std::net::SocketAddr,
    /// Its pod.
    pub pod: Option<PodKey>,
    /// Its labels have not arrived yet (semantics §1.2).
    pub labels_pending: bool,
}

/// The version of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its place in [`Route::versions`].
    pub version: usize,
    /// Why.
    pub reason: ChoiceReason,
    /// What decided, where a rollout is judged by the request.
    pub placed: Option<Placed>,
    /// What the cookie of a new browser is to hold, by which it is known from now on (semantics §3.2).
    pub new_user: Option<u64>,
}

impl Choice {
    /// The request is another version's, for its own cannot have it; a new browser stays one.
    #[must_use]
    pub fn given_to(self, version: usize) -> Self {
        Self { version, reason: ChoiceReason::Fallback, placed: None, ..self }
    }
}

/// What decided between stable and the canary of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// A step of the split.
    Drawn(Drawn),
    /// The user's point.
    User {
        /// The point, in 2^-64.
        point: u64,
        /// The canary's share of the users.
        share: Share,
    },
}

impl Placed {
    /// What a verdict has to know of it.
    #[must_use]
    pub fn placement(self) -> Placement {
        match self {
            Placed::Drawn(drawn) => drawn.placement(),
            Placed::User { point, share } => Placement::User { point, share: share.ratio() },
        }
    }
}

impl Route {
    /// The version of the next request by weight alone; `random` gives 64 random bits a call. Takes one step of the split.
    ///
    /// Nothing only when no version has a share, which a compiled route never has.
    pub fn choose(&self, mut random: impl FnMut() -> u64) -> Option<Choice> {
        let (version, drawn) = match &self.evidence {
            None => (self.split.draw(&mut random), None),
            Some(_) => self.split.draw_of_two(&mut random),
        };
        let version = version?;
        let reason = self.versions.get(version).map_or(ChoiceReason::Weight, |v| v.origin.draw(random));
        // What comes from a version without pods was not dealt out between these two.
        let drawn = drawn.filter(|_| reason == ChoiceReason::Weight);
        Some(Choice { version, reason, placed: drawn.map(Placed::Drawn), new_user: None })
    }

    /// The name of the route.
    #[must_use]
    pub fn name(&self) -> &RouteName {
        &self.spec.name
    }
}

/// One version of a route with its endpoints.
#[derive(Debug)]
pub struct Version {
    /// Its name.
    pub name: VersionName,
    /// The share asked for.
    pub asked: Share,
    /// The share that its endpoints get, after versions without a usable one gave theirs away; none where it has no usable
    /// one: what is not given away then is answered 503, and the shares sum to less than the whole.
    pub effective: Share,
    /// The share by which requests are drawn: also those that are answered 503. They sum to the whole.
    pub(super) drawn: Share,
    /// What is counted of it.
    pub tally: Arc<Tally>,
    /// What its connections that last have in common.
    pub sessions: Arc<Sessions>,
    /// All its endpoints, whatever their state.
    pub members: Vec<Member>,
    pub(super) candidates: Vec<Arc<Standing>>,
    pub(super) balancer: Balancer,
    pub(super) outliers: Outliers,
    /// How many requests it had got when the revision in force began.
    pub(super) begun_before: u64,
    pub(super) origin: Origin,
    /// Its users under the revision in force, where the route has a cohort.
    pub(super) users: Option<Arc<Users>>,
    /// How many requests it may have at once; nothing for as many as come.
    pub(super) most_in_flight: Option<u64>,
}

/// Where the requests of a version come from: its own share, or those of versions without a usable endpoint
/// (semantics §2.4). Split as exactly as the versions are.
#[derive(Debug)]
pub(super) struct Origin(Split);

impl Origin {
    const OWN: usize = 0;
    const INHERITED: usize = 1;

    pub(super) fn new(asked: Share, drawn: Share, place: Arc<Place>) -> Self {
        let own = asked.min(drawn).millionths();
        let inherited = drawn.millionths() - own;
        // The last one needs no place.
        Self(Split::new([
            (Self::OWN, u64::from(own), place),
            (Self::INHERITED, u64::from(inherited), Arc::default()),
        ]))
    }

    fn draw(&self, random: impl FnMut() -> u64) -> ChoiceReason {
        match self.0.draw(random) {
            Some(Self::INHERITED) => ChoiceReason::Fallback,
            _ => ChoiceReason::Weight,
        }
    }
}

/// An endpoint of a version, and what the cluster says of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Where it is in its life.
    pub phase: EndpointPhase,
    /// How it stands with the version.
    pub standing: Arc<Standing>,
}

/// What an endpoint is to a version, all things considered; of several, the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It refused a connection, and nothing better has been heard of it since.
    Refused,
    /// Not serving, as the cluster tells it.
    Unready,
    /// Serving and terminating.
    Draining,
    /// It failed too often, and is set aside for a while.
    Ejected,
    /// It fails the route's health checks.
    Unhealthy,
    /// It gets requests.
    Ready,
}

impl Member {
    /// What it is to its version now.
    #[must_use]
    pub fn state(&self) -> EndpointState {
        match self.phase {
            _ if self.endpoint.is_refused() => EndpointState::Refused,
            EndpointPhase::Unready => EndpointState::Unready,
            EndpointPhase::Draining => EndpointState::Draining,
            EndpointPhase::Ready if self.standing.is_ejected() => EndpointState::Ejected,
            EndpointPhase::Ready if self.standing.is_unhealthy() => EndpointState::Unhealthy,
            EndpointPhase::Ready => EndpointState::Ready,
        }
    }

    /// The same by these settings: without health checks nothing is unhealthy, whatever former ones found.
    pub(super) fn state_for(&self, traffic: &Traffic) -> EndpointState {
        let state = self.state();
        if state == EndpointState::Unhealthy && traffic.health_check.is_none() {
            EndpointState::Ready
        } else {
            state
        }
    }
}

impl Version {
    /// An endpoint for the next request: one that `tried` does not hold of, if there is one. `key` is the hash of the
    /// request's key ([`hash_key`](super::hash_key)) where the route balances by it and the request has it; `now` may be a
    /// few milliseconds old; `random` gives 64 random bits a call.
    pub fn pick(
        &self,
        key: Option<u64>,
        now: Moment,
        tried: impl Fn(&Endpoint) -> bool,
        random: impl FnMut() -> u64,
    ) -> Option<InFlight> {
        let asked = Question { key, now };
        self.balancer.pick(&self.candidates, asked, tried, random).map(InFlight::begin)
    }

    /// An attempt on an endpoint that [`Self::pick`] gave has ended; to be told once for each. `took` is the time from its
    /// begin to the head of its answer, or to its end without one.
    ///
    /// The reason when the endpoint is set aside for it: then the table must be compiled anew, and somebody must take the
    /// endpoint back when it is time.
    pub fn ended(
        &self,
        at: &InFlight,
        outcome: AttemptOutcome,
        took: Duration,
        now: Moment,
    ) -> Option<SetAsideReason> {
        if self.balancer.balance == Balance::PeakEwma {
            at.standing().took(outcome, took, now);
        }
        let reason = at.standing().ended(outcome, &self.outliers, now)?;
        self.tally.set_aside(reason);
        Some(reason)
    }

    /// The endpoints that get requests.
    #[must_use]
    pub fn candidates(&self) -> &[Arc<Standing>] {
        &self.candidates
    }

    /// Whether endpoints that are set aside get requests all the same, because they are too many.
    #[must_use]
    pub fn uses_all(&self) -> bool {
        self.balancer.all_used
    }

    /// How many requests it may have at once, by its usable endpoints; nothing for as many as come.
    #[must_use]
    pub fn most_in_flight(&self) -> Option<u64> {
        self.most_in_flight
    }

    /// How many requests it got under the revision in force.
    #[must_use]
    pub fn requests_of_revision(&self) -> u64 {
        self.tally.begun().saturating_sub(self.begun_before)
    }

    /// How many different users it got under the revision in force, to about 3 %; nothing where the route has no cohort.
    #[must_use]
    pub fn users_of_revision(&self) -> Option<f64> {
        self.users.as_ref().map(|users| users.estimate())
    }
}
