//! What is said of versions whose endpoints do not get the requests that they should: why, which pods, and what to do.

use std::sync::Arc;

use crate::model::{EndpointPhase, HealthCheck, OnEmpty, Problem, RouteSpec, Selector, Share, Traffic};

use super::table::{EndpointState, Member};
use super::usable::Usable;

/// How many pods of a kind are named.
const NAMED: usize = 2;

/// Why pods get no requests, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    Unready,
    Refuses,
    Ejected,
    Unhealthy,
}

impl Ailment {
    const ALL: [Self; 4] = [Self::Unready, Self::Refuses, Self::Ejected, Self::Unhealthy];

    fn of(state: EndpointState) -> Option<Self> {
        match state {
            EndpointState::Unready => Some(Self::Unready),
            EndpointState::Refused => Some(Self::Refuses),
            EndpointState::Ejected => Some(Self::Ejected),
            EndpointState::Unhealthy => Some(Self::Unhealthy),
            EndpointState::Ready | EndpointState::Draining => None,
        }
    }

    fn verb(self, one: bool) -> &'static str {
        match (self, one) {
            (Self::Unready, true) => "is not ready",
            (Self::Unready, false) => "are not ready",
            (Self::Refuses, true) => "refuses connections",
            (Self::Refuses, false) => "refuse connections",
            (Self::Ejected, true) => "is ejected, for its requests fail",
            (Self::Ejected, false) => "are ejected, for their requests fail",
            (Self::Unhealthy, true) => "fails its health checks",
            (Self::Unhealthy, false) => "fail their health checks",
        }
    }

    fn remedy(self, traffic: &Traffic) -> String {
        match self {
            Self::Unready => {
                "see why it is not ready: `kubectl describe pod` shows what its readiness probe was told".to_owned()
            }
            Self::Refuses => "see whether the application listens on the port that the Service names (kubectl logs, kubectl \
                              describe pod)"
                .to_owned(),
            Self::Ejected => "see why its requests fail (kubectl logs, and `failure` in the access log); if the pod is well, \
                              `outliers` asks too much of it"
                .to_owned(),
            Self::Unhealthy => {
                let path = traffic.health_check.as_ref().map_or("/", |HealthCheck { path, .. }| path.as_str());
                format!(
                    "see what it answers to GET {path} of `healthCheck` (kubectl logs); if the pod is well, that asks too \
                     much of it"
                )
            }
        }
    }
}

/// Some pods, by what ails them.
struct Ailing<'m> {
    groups: Vec<(Ailment, Vec<&'m Member>)>,
    all: usize,
}

impl<'m> Ailing<'m> {
    fn of(members: impl Iterator<Item = &'m Member>, traffic: &Traffic) -> Self {
        let mut groups: Vec<_> = Ailment::ALL.map(|ailment| (ailment, Vec::new())).into();
        let mut all = 0;
        for member in members {
            all += 1;
            let ailment = Ailment::of(member.state_for(traffic));
            if let Some((_, group)) = groups.iter_mut().find(|(of, _)| Some(*of) == ailment) {
                group.push(member);
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        Self { groups, all }
    }

    /// What ails them, if that is one thing for all of them.
    fn one_for_all(&self) -> Option<(Ailment, &[&'m Member])> {
        match self.groups.as_slice() {
            [(ailment, group)] if group.len() == self.all => Some((*ailment, group)),
            _ => None,
        }
    }

    /// `web/a is not ready; web/b and web/c refuse connections`.
    fn text(&self) -> String {
        if self.groups.is_empty() {
            // They were taken back since: what is said lasts until the next compile, which that brings about.
            return "just taken back".to_owned();
        }
        let said =
            self.groups.iter().map(|(of, group)| format!("{} {}", named(group), of.verb(group.len() == 1)));
        said.collect::<Vec<_>>().join("; ")
    }

    fn remedy(&self, traffic: &Traffic) -> String {
        let remedies: Vec<_> = self.groups.iter().map(|(of, _)| of.remedy(traffic)).collect();
        if remedies.is_empty() {
            // There are no pods at all, or those that there are leave.
            return "check its pods, labels and readiness with `kubectl get pods --show-labels`".to_owned();
        }
        remedies.join("; ")
    }
}

/// `web/a`, `web/a and web/b`, `web/a, web/b and 3 more`.
fn named(members: &[&Member]) -> String {
    let name = |member: &&Member| match &member.endpoint.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => member.endpoint.id.address.to_string(),
    };
    let names: Vec<_> = members.iter().take(NAMED).map(name).collect();
    match members.len().saturating_sub(names.len()) {
        0 => names.join(" and "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Those versions that requests are asked for, and that have no usable endpoint.
pub(super) fn empty_versions(
    spec: &RouteSpec,
    asked: &[Share],
    usable: &[bool],
    heirs: &Option<Vec<Share>>,
    members: &[Vec<Member>],
) -> Vec<Problem> {
    let names = |which: &dyn Fn(usize) -> bool| -> Vec<&str> {
        let versions = spec.versions.iter().enumerate().filter(|(place, _)| which(*place));
        versions.map(|(_, version)| version.name.as_str()).collect()
    };
    let inherits = |place: usize| heirs.iter().flatten().nth(place).is_some_and(|share| *share > Share::ZERO);
    let idle = |place: usize| usable.get(place) == Some(&true) && asked.get(place) == Some(&Share::ZERO);
    let (heirs, idle) = (names(&inherits), names(&idle));
    let fate = match (heirs.as_slice(), idle.as_slice()) {
        ([], [idle, ..]) if spec.on_empty == OnEmpty::Spill => {
            format!("its requests are answered 503, for {idle} has no weight that would let it have them")
        }
        ([], _) => "its requests are answered 503".to_owned(),
        (heirs, _) => format!("its share goes to {}", heirs.join(", ")),
    };
    spec.versions
        .iter()
        .zip(asked.iter().zip(usable).zip(members))
        .filter(|(_, ((asked, usable), _))| **asked > Share::ZERO && !**usable)
        .map(|(version, (_, members))| {
            let ailing = Ailing::of(members.iter(), &spec.traffic);
            let why = why_empty(&ailing, version.selector.as_ref());
            let what =
                format!("version {} of route {} has no usable pod ({why}): {fate}", version.name, spec.name);
            Problem::new(what, ailing.remedy(&spec.traffic))
        })
        .collect()
}

fn why_empty(ailing: &Ailing<'_>, selector: Option<&Selector>) -> String {
    match (ailing.all, ailing.one_for_all(), selector) {
        (0, _, Some(selector)) => format!("no pod of the Service matches `{selector}`"),
        (0, _, None) => "the Service has no pod left for it".to_owned(),
        (1, Some((of, pods)), _) => format!("its only pod {} {}", named(pods), of.verb(true)),
        (all, Some((Ailment::Unready, pods)), _) => {
            format!("none of its {all} pods is ready: {}", named(pods))
        }
        (all, Some((of, pods)), _) => format!("all its {all} pods {}: {}", of.verb(false), named(pods)),
        (all, None, _) => format!("of its {all} pods {}", ailing.text()),
    }
}

/// Those versions whose endpoints are all used because too many are set aside.
pub(super) fn panicking(spec: &RouteSpec, members: &[Vec<Member>], usable: &[Usable]) -> Vec<Problem> {
    let most = spec.traffic.outliers.most;
    let versions =
        spec.versions.iter().zip(members.iter().zip(usable)).filter(|(_, (_, usable))| usable.all_used);
    let problem = |(version, (members, _)): (&crate::model::VersionSpec, (&Vec<Member>, _))| {
        let ready = members.iter().filter(|m| m.phase == EndpointPhase::Ready);
        let ailing = Ailing::of(ready, &spec.traffic);
        Problem::new(
            format!(
                "more than {most} % of the pods of version {} of route {} are set aside ({}): all that take connections \
                 are used all the same",
                version.name,
                spec.name,
                ailing.text()
            ),
            ailing.remedy(&spec.traffic),
        )
    };
    versions.map(problem).collect()
}

/// Nothing in the whole route is usable, and what there is is used all the same.
pub(super) fn nothing_better(spec: &RouteSpec, members: &[Vec<Member>], usable: &[Usable]) -> Problem {
    let used = members.iter().zip(usable).flat_map(|(members, usable)| {
        // Both are in the same order.
        let mut candidates = usable.candidates.iter().peekable();
        members.iter().filter(move |m| candidates.next_if(|c| Arc::ptr_eq(c, &m.standing)).is_some())
    });
    let ailing = Ailing::of(used, &spec.traffic);
    let what = match ailing.one_for_all() {
        Some((Ailment::Refuses, pods)) => format!(
            "every pod of route {} refused its last connection ({}): requests are tried on them all the same, and answered \
             502 while none takes them",
            spec.name,
            named(pods)
        ),
        Some((of, pods)) => format!(
            "every pod of route {} {} ({}): requests are sent to them all the same, rather than answered 503",
            spec.name,
            of.verb(true),
            named(pods)
        ),
        None => format!(
            "every pod of route {} is set aside ({}): requests are tried on them all the same, rather than answered 503",
            spec.name,
            ailing.text()
        ),
    };
    Problem::new(what, ailing.remedy(&spec.traffic))
}
