//! One state for several replicas: whatever the order in which they hear of each other, nothing is lost and nothing done twice.

use proptest::prelude::*;

use super::*;
use crate::model::{
    Audience, BackendRef, Balance, Guard, OnEmpty, OnFail, RolloutSpec, RolloutStep, ServiceKey, Traffic,
    VersionSpec,
};
use crate::rollout::Phase;
use crate::state::Desired;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn shop() -> RouteName {
    "shop".parse().unwrap()
}

fn spec(weight: &str) -> RouteSpec {
    let version = |name: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: None,
        backend: None,
        weight: weight.map(|weight| weight.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    let step = |weight: &str| RolloutStep {
        weight: weight.parse().unwrap(),
        hold: std::time::Duration::from_secs(1),
        pause: false,
    };
    RouteSpec {
        name: shop(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: BackendRef { service: ServiceKey::new("web", "svc"), port: None },
        versions: vec![version("v1", None), version("v2", Some(weight))],
        audience: Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: Traffic::default(),
        rollout: Some(RolloutSpec {
            canary: "v2".parse().unwrap(),
            steps: ["10", "50", "100"].map(step).to_vec(),
            guard: Guard::default(),
            on_fail: OnFail::Rollback,
            auto: false,
            abort_deadline: std::time::Duration::from_secs(30),
            hooks: Vec::new(),
        }),
        debug_headers: false,
    }
}

fn by(who: &str) -> Request {
    Request { who: Some(who.to_owned()), ..Request::of(Source::Admin, NOW) }
}

/// What the API server does: takes a write only if it is of the newest version.
#[derive(Default)]
struct Server {
    version: u64,
    there: bool,
    routes: BTreeMap<RouteName, Arc<SavedRoute>>,
    /// Every state that it had, for those who hear late.
    past: Vec<Snapshot>,
}

impl Server {
    fn snapshot(&self) -> Snapshot {
        let version = self.there.then(|| Version(self.version.to_string().into()));
        Snapshot { version, routes: self.routes.clone() }
    }

    fn write(&mut self, commit: &Commit) -> StoreNews {
        if commit.of != self.snapshot().version || commit.routes.is_empty() {
            return StoreNews::Conflict(self.snapshot());
        }
        (self.version, self.there) = (self.version + 1, true);
        self.routes.extend(commit.routes.clone());
        self.past.push(self.snapshot());
        StoreNews::Committed(Version(self.version.to_string().into()))
    }
}

/// A replica: what it knows, and the answer that is on its way to it.
struct Replica {
    shared: Shared,
    spec: Arc<RouteSpec>,
    /// A commit that the server has not seen.
    sent: Option<Commit>,
    /// Its answer, which the replica has not seen.
    answer: Option<StoreNews>,
    /// How far it has heard of the server's past.
    heard: usize,
    done: Vec<u64>,
    refused: usize,
    asked: usize,
}

impl Replica {
    fn new(spec: RouteSpec) -> Self {
        let mut shared = Shared::default();
        shared.heard(Snapshot::default());
        shared.propose(shop(), Proposal::AdoptFile, Request::of(Source::File, NOW));
        Self {
            shared,
            spec: Arc::new(spec),
            sent: None,
            answer: None,
            heard: 0,
            done: Vec::new(),
            refused: 0,
            asked: 0,
        }
    }

    fn send(&mut self) {
        let spec = &self.spec;
        let (settled, commit) = self.shared.commit(|_| Ok(spec));
        self.settle(settled);
        self.sent = commit.or(self.sent.take());
    }

    fn settle(&mut self, settled: Settled) {
        self.done.extend(settled.done);
        self.refused += settled.refused.len();
    }

    fn take(&mut self, news: StoreNews) {
        match news {
            StoreNews::Committed(version) => {
                let settled = self.shared.committed(version);
                self.settle(settled);
            }
            StoreNews::Conflict(snapshot) => drop(self.shared.conflict(snapshot)),
            StoreNews::Failed(_) => self.shared.failed(),
            StoreNews::Heard(snapshot) => drop(self.shared.heard(snapshot)),
            StoreNews::Replicas(_) | StoreNews::Unreadable => {}
        }
    }

    fn has_nothing_to_do(&self) -> bool {
        self.sent.is_none() && self.answer.is_none() && !self.shared.waits() && !self.shared.has_work()
    }
}

/// What happens next, to one of the replicas.
#[derive(Clone, Debug)]
enum Happens {
    Asks(usize, u32),
    Sends(usize),
    Arrives(usize),
    /// The answer is lost, and the replica gives it up.
    Lost(usize),
    Answers(usize),
    Hears(usize),
}

fn anything() -> impl Strategy<Value = Happens> {
    let replica = || 0..3_usize;
    prop_oneof![
        2 => (replica(), 1..1_000_000_u32).prop_map(|(r, share)| Happens::Asks(r, share)),
        3 => replica().prop_map(Happens::Sends),
        3 => replica().prop_map(Happens::Arrives),
        1 => replica().prop_map(Happens::Lost),
        3 => replica().prop_map(Happens::Answers),
        3 => replica().prop_map(Happens::Hears),
    ]
}

fn happen(server: &mut Server, replicas: &mut [Replica], what: &Happens) {
    match *what {
        Happens::Asks(r, share) => {
            let asked = BTreeMap::from([("v2".to_owned(), Share::from_millionths(share).unwrap())]);
            let replica = &mut replicas[r];
            replica.asked += 1;
            let who = format!("{r}-{}", replica.asked);
            let request =
                Request { at: Timestamp::from_millis(NOW.millis() + replica.asked as u64), ..by(&who) };
            replica.shared.propose(shop(), Proposal::Set(asked), request);
        }
        Happens::Sends(r) => replicas[r].send(),
        Happens::Arrives(r) => {
            if let Some(commit) = replicas[r].sent.take() {
                replicas[r].answer = Some(server.write(&commit));
            }
        }
        Happens::Lost(r) => {
            let replica = &mut replicas[r];
            if replica.sent.take().is_some() || replica.answer.take().is_some() {
                // It reads what there is before it tries again, as the writer does.
                replica.take(StoreNews::Failed("no answer".to_owned()));
            }
        }
        Happens::Answers(r) => {
            if let Some(answer) = replicas[r].answer.take() {
                replicas[r].take(answer);
            }
        }
        Happens::Hears(r) => {
            let replica = &mut replicas[r];
            if let Some(snapshot) = server.past.get(replica.heard) {
                replica.heard += 1;
                replica.take(StoreNews::Heard(snapshot.clone()));
            }
        }
    }
}

/// Every replica gets to the end of what it has to do.
fn quiet(server: &mut Server, replicas: &mut [Replica]) {
    for _ in 0..1_000 {
        for r in 0..replicas.len() {
            for what in [Happens::Sends(r), Happens::Arrives(r), Happens::Answers(r), Happens::Hears(r)] {
                happen(server, replicas, &what);
            }
        }
        let heard = replicas.iter().all(|replica| replica.heard == server.past.len());
        if heard && replicas.iter().all(Replica::has_nothing_to_do) {
            return;
        }
    }
    panic!("they never come to rest");
}

proptest! {
    #[test]
    fn no_change_is_lost_and_all_replicas_end_with_the_same(
        story in proptest::collection::vec(anything(), 0..80),
    ) {
        let mut server = Server::default();
        let mut replicas = [spec("1"), spec("1"), spec("1")].map(Replica::new);
        for what in &story {
            happen(&mut server, &mut replicas, what);
        }
        quiet(&mut server, &mut replicas);
        for replica in &replicas {
            prop_assert_eq!(replica.shared.route(&shop()), server.routes.get(&shop()));
            // The first is that of the config.
            prop_assert_eq!(replica.done.len(), replica.asked + 1, "each one is answered");
            prop_assert_eq!(replica.refused, 0);
        }
        let route = &server.routes[&shop()];
        let who: Vec<_> = route.history.iter().filter_map(|entry| entry.who.clone()).collect();
        let distinct: BTreeSet<_> = who.iter().collect();
        prop_assert_eq!(distinct.len(), who.len(), "none is made twice: {:?}", who);
        let mut weights = route.history.iter();
        let mut before = weights.next().map(|entry| entry.after.clone());
        for entry in weights {
            prop_assert_eq!(Some(&entry.before), before.as_ref(), "each one is made on the one before");
            before = Some(entry.after.clone());
        }
    }
}

/// A replica that has all that the server has.
fn settled(server: &mut Server) -> Replica {
    let mut replica = Replica::new(spec("1"));
    replica.heard = server.past.len();
    replica.take(StoreNews::Heard(server.snapshot()));
    quiet(server, std::slice::from_mut(&mut replica));
    replica
}

fn go_on(replica: &Replica, transition: Transition) -> Proposal {
    let rollout = replica.shared.route(&shop()).unwrap().rollout.as_ref().unwrap();
    Proposal::GoOn(rollout.place(), transition)
}

fn step_two() -> Transition {
    Transition::Step { step: 1, weight: "50".parse().unwrap(), reason: "step 2 of 3".to_owned() }
}

/// The weight of v2, and how many revisions there are.
fn at(server: &Server) -> (String, u64) {
    let route = &server.routes[&shop()];
    (route.weights["v2"].to_string(), route.revision.0)
}

#[test]
fn s5_5_two_that_take_one_step_take_it_once() {
    let mut server = Server::default();
    let mut first = settled(&mut server);
    first.shared.propose(shop(), Proposal::Ask(Asked::Start), by("a"));
    quiet(&mut server, std::slice::from_mut(&mut first));
    let mut second = settled(&mut server);
    assert_eq!(at(&server), ("10".to_owned(), 2));
    // Both think that they lead, as one that stood still may for a moment.
    for replica in [&mut first, &mut second] {
        let proposal = go_on(replica, step_two());
        replica.shared.propose(shop(), proposal, Request::of(Source::Rollout, NOW));
    }
    let mut both = [first, second];
    quiet(&mut server, &mut both);
    assert_eq!(at(&server), ("50".to_owned(), 3));
}

#[test]
fn s5_5_a_verdict_holds_in_whatever_step_it_comes_to_be_known() {
    let mut server = Server::default();
    let mut first = settled(&mut server);
    first.shared.propose(shop(), Proposal::Ask(Asked::Start), by("a"));
    quiet(&mut server, std::slice::from_mut(&mut first));
    let mut second = settled(&mut server);
    let bad = go_on(&second, Transition::RollBack("rolled back: v2 failed".to_owned()));
    assert!(bad.takes_back());
    second.shared.propose(shop(), bad, Request::of(Source::Rollout, NOW));
    // It is cut off, and the other one goes on meanwhile.
    let step = go_on(&first, step_two());
    first.shared.propose(shop(), step, Request::of(Source::Rollout, NOW));
    quiet(&mut server, std::slice::from_mut(&mut first));
    assert_eq!(at(&server).0, "50");
    quiet(&mut server, std::slice::from_mut(&mut second));
    assert_eq!(at(&server).0, "0");
    // But not one that began later.
    let old = go_on(&first, Transition::RollBack("rolled back: v2 failed".to_owned()));
    let again = Request { at: Timestamp::from_millis(9_000), ..by("a") };
    quiet(&mut server, std::slice::from_mut(&mut first));
    first.shared.propose(shop(), Proposal::Ask(Asked::Start), again);
    quiet(&mut server, std::slice::from_mut(&mut first));
    first.shared.propose(shop(), old, Request::of(Source::Rollout, NOW));
    quiet(&mut server, std::slice::from_mut(&mut first));
    assert_eq!(at(&server).0, "10");
}

#[test]
fn what_a_replica_has_seen_stays_its_own_and_is_kept() {
    let mut server = Server::default();
    let mut replica = settled(&mut server);
    replica.shared.propose(shop(), Proposal::Ask(Asked::Start), by("a"));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    let mut desired = Desired::default();
    desired.follow_routes(vec![spec("1")], None, &replica.shared, NOW);
    desired.judged(&shop()).unwrap().held_ms = 700;
    let set = BTreeMap::from([("v3".to_owned(), Share::ZERO)]);
    assert!(desired.set_weights("shop", &set, by("b")).is_err(), "there is no such version");
    // Another step of the same rollout begins its own time.
    let adopt = |desired: &mut Desired, server: &Server| {
        desired.adopt(&shop(), &server.routes[&shop()]);
        let rollout = desired.weights(&shop()).unwrap().rollout().unwrap();
        (rollout.phase, rollout.step, rollout.held_ms)
    };
    assert_eq!(adopt(&mut desired, &server), (Phase::Running, 0, 700));
    let step = go_on(&replica, step_two());
    replica.shared.propose(shop(), step, Request::of(Source::Rollout, NOW));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    assert_eq!(adopt(&mut desired, &server), (Phase::Running, 1, 0));
    assert_eq!(server.routes[&shop()].rollout.as_ref().unwrap().held_ms, 0);
}

#[test]
fn a_config_that_is_older_than_the_store_changes_nothing_until_it_changes() {
    let mut server = Server::default();
    let mut old = settled(&mut server);
    let mut new = Replica::new(spec("5"));
    new.take(StoreNews::Heard(server.snapshot()));
    new.heard = server.past.len();
    quiet(&mut server, std::slice::from_mut(&mut new));
    assert_eq!(at(&server), ("5".to_owned(), 2), "its file has other weights than those last seen in it");
    let mut both = [old, new];
    quiet(&mut server, &mut both);
    assert_eq!(at(&server).0, "5", "the one with the old file has read nothing new");
    [old, new] = both;
    assert_eq!(old.shared.route(&shop()), new.shared.route(&shop()));
}

#[test]
fn versions_are_numbers_that_grow_and_old_news_is_none() {
    let version = |text: &str| Version(text.into());
    assert!(version("100").is_later_than(&version("99")));
    assert!(!version("99").is_later_than(&version("100")) && !version("7").is_later_than(&version("7")));
    assert!(version("b").is_later_than(&version("a")), "what is no number is taken as it comes");
    let mut server = Server::default();
    let mut replica = settled(&mut server);
    let before = server.snapshot();
    let set = BTreeMap::from([("v2".to_owned(), "9".parse().unwrap())]);
    replica.shared.propose(shop(), Proposal::Set(set), by("a"));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    assert_eq!(replica.shared.heard(before), (BTreeSet::new(), BTreeSet::new()));
    assert_eq!(replica.shared.route(&shop()).unwrap().weights["v2"].to_string(), "9");
}

#[test]
fn a_store_that_was_set_back_is_followed_once_that_is_known() {
    let mut server = Server::default();
    let mut replica = settled(&mut server);
    for share in [2, 3] {
        let set = BTreeMap::from([("v2".to_owned(), Share::from_millionths(share * 10_000).unwrap())]);
        replica.shared.propose(shop(), Proposal::Set(set), by("a"));
        quiet(&mut server, std::slice::from_mut(&mut replica));
    }
    // A backup of the API server's database.
    let before = server.past[1].clone();
    (server.version, server.routes) = (2, before.routes);
    let set = BTreeMap::from([("v2".to_owned(), "7".parse().unwrap())]);
    replica.shared.propose(shop(), Proposal::Set(set), by("b"));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    assert_eq!(at(&server), ("7".to_owned(), 3));
    assert_eq!(replica.shared.route(&shop()), server.routes.get(&shop()));
}

#[test]
fn a_key_that_is_taken_out_is_written_again_unless_its_route_has_left_the_config() {
    let mut server = Server::default();
    let mut replica = settled(&mut server);
    let taken_out = |server: &mut Server| {
        server.routes.clear();
        server.version += 1;
        server.past.push(server.snapshot());
    };
    taken_out(&mut server);
    quiet(&mut server, std::slice::from_mut(&mut replica));
    assert_eq!(at(&server), ("1".to_owned(), 1));
    taken_out(&mut server);
    replica.heard = server.past.len();
    replica.shared.heard(server.snapshot());
    let gone = || WeightsError::UnknownRoute { route: "shop".to_owned(), known: Vec::new() };
    assert_eq!(replica.shared.commit(|_| Err(gone())).1, None);
    assert_eq!(replica.shared.route(&shop()), None);
    assert!(!replica.shared.has_work());
}

#[test]
fn s5_5_what_waits_behind_a_commit_that_fails_is_decided_anew() {
    let mut server = Server::default();
    let mut replica = settled(&mut server);
    replica.shared.propose(shop(), Proposal::Ask(Asked::Start), by("a"));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    let set = BTreeMap::from([("v2".to_owned(), Share::from_millionths(50_000).unwrap())]);
    let other: RouteName = "other".parse().unwrap();
    replica.shared.propose(other.clone(), Proposal::Set(set), by("b"));
    replica.send();
    let step = go_on(&replica, step_two());
    replica.shared.propose(shop(), step, Request::of(Source::Rollout, NOW));
    happen(&mut server, std::slice::from_mut(&mut replica), &Happens::Lost(0));
    quiet(&mut server, std::slice::from_mut(&mut replica));
    assert!(server.routes.contains_key(&other), "what somebody asked for is tried again");
    assert_eq!(at(&server), ("10".to_owned(), 2), "whoever leads by now takes the step, or not");
}
