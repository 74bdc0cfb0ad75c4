//! What a rollout does next, and what people may ask of it.

use std::time::Duration;

use super::*;
use crate::model::{AttemptClass, Counts, Guard, Placement, RolloutStep, Side, Sides, Sighting, Timestamp};
use crate::rollout::{Asked, AskedError};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn share(percent: &str) -> Share {
    percent.parse().unwrap()
}

/// 1 % for a minute, 50 % for a minute and then a promote, 100 % for a minute.
fn spec() -> RolloutSpec {
    let step = |weight, pause| RolloutStep { weight: share(weight), hold: Duration::from_secs(60), pause };
    RolloutSpec {
        canary: name("v2"),
        steps: vec![step("1", false), step("50", true), step("100", false)],
        guard: Guard::default(),
        on_fail: OnFail::Rollback,
        auto: false,
        abort_deadline: Duration::from_secs(30),
        hooks: Vec::new(),
    }
}

/// A rollout and the world around it.
struct World {
    spec: RolloutSpec,
    rollout: Rollout,
    ready: bool,
    live: bool,
    leads: bool,
    gate: Option<String>,
}

impl World {
    fn new() -> Self {
        let (spec, rollout) = (spec(), Rollout::begin(&spec(), NOW));
        Self { spec, rollout, ready: true, live: true, leads: true, gate: None }
    }

    fn next(&self) -> Transition {
        let findings = self.rollout.judge.findings(&self.spec.guard, []);
        let facts = Facts {
            stable: &name("v1"),
            findings: &findings,
            ready: self.ready,
            behind: (!self.live).then_some("serinus-1"),
            leads: self.leads,
            gate: self.gate.clone(),
        };
        step(&self.rollout, &self.spec, &facts)
    }

    /// Does what comes next; how it was.
    fn go(&mut self) -> Transition {
        let next = self.next();
        self.rollout.become_of(&next, NOW);
        next
    }

    fn ask(&mut self, asked: Asked) -> Result<Transition, AskedError> {
        let next = Rollout::ask(Some(&self.rollout), &self.spec, asked)?;
        self.rollout.become_of(&next, NOW);
        Ok(next)
    }

    /// A minute with enough requests, all well.
    fn good_minute(&mut self) {
        let counts = |requests| Counts { requests, ..Counts::default() };
        let sides = Sides { stable: counts(10_000), canary: counts(100) };
        self.rollout.judge.take(&self.spec.guard, sides, 0.01, []);
        self.rollout.held_ms += 60_000;
    }

    /// The canary fails as nothing else does.
    fn bad_second(&mut self) {
        let seen = (0..50).map(|window| Sighting {
            side: Side::Canary,
            class: AttemptClass::Error,
            at: Placement::Split { window, before: 0.0, share: 0.01, chosen: false },
        });
        let failed = Counts { requests: 50, errors: 50, slow: 0 };
        let sides = Sides { stable: Counts::default(), canary: failed };
        self.rollout.judge.take(&self.spec.guard, sides, 0.01, seen);
    }
}

fn stays(transition: &Transition, wanted: &str) {
    let Transition::Stay(why) = transition else {
        panic!("{transition:?} instead of staying because {wanted}")
    };
    assert!(why.contains(wanted), "{why}");
}

#[test]
fn a_good_canary_comes_to_the_end_step_by_step() {
    let mut world = World::new();
    stays(&world.go(), "at 1 % for 1m more");
    world.good_minute();
    assert_eq!(
        world.go(),
        Transition::Step {
            step: 1,
            weight: share("50"),
            reason: "step 2 of 3: step 1 ended well".to_owned()
        }
    );
    world.good_minute();
    let paused =
        Transition::Pause(PausedBy::Step, "step 2 of 3 ended well and waits for a promote".to_owned());
    assert_eq!(world.go(), paused);
    world.good_minute();
    stays(&world.go(), "waits for a promote");
    assert_eq!(
        world.ask(Asked::Resume),
        Err(AskedError::WaitsForPromote { step: 2 }),
        "it would pause again at once"
    );
    assert!(matches!(world.ask(Asked::Promote), Ok(Transition::Step { step: 2, .. })));
    world.good_minute();
    assert_eq!(world.go(), Transition::Succeed("all 3 steps ended well".to_owned()));
    assert_eq!(world.rollout.phase, Phase::Succeeded);
    world.bad_second();
    stays(&world.go(), "all 3 steps ended well");
}

#[test]
fn s5_4_fail_takes_it_back_in_any_phase() {
    let mut world = World::new();
    world.bad_second();
    // Neither a leader, nor readiness, nor a hold is waited for.
    (world.ready, world.live, world.leads) = (false, false, false);
    assert!(
        matches!(world.go(), Transition::RollBack(why) if why.starts_with("rolled back: v2 failed 50 of 50"))
    );
    assert_eq!(world.rollout.phase, Phase::RolledBack);

    let mut world = World::new();
    world.ask(Asked::Pause).unwrap();
    world.bad_second();
    assert!(matches!(world.go(), Transition::RollBack(_)), "while it is paused too");

    let mut world = World::new();
    world.spec.on_fail = OnFail::Pause;
    world.bad_second();
    assert!(matches!(world.go(), Transition::Pause(PausedBy::Verdict, _)));
    stays(&world.go(), "paused: v2 failed");
    world.ask(Asked::Resume).unwrap();
    stays(&world.go(), "at 1 % for 1m more");
    world.bad_second();
    assert!(matches!(world.go(), Transition::Pause(PausedBy::Verdict, _)), "judged anew");
}

#[test]
fn s5_4_inconclusive_never_promotes() {
    let mut world = World::new();
    world.rollout.held_ms = 3_600_000;
    stays(&world.go(), "v2 has had 0 of the 100 requests that a step needs");
}

#[test]
fn s5_5_going_forward_needs_the_lease_and_the_step_to_be_live() {
    let mut world = World::new();
    world.good_minute();
    world.leads = false;
    stays(&world.go(), "waits for the replica that takes rollouts forward");
    (world.leads, world.live) = (true, false);
    stays(&world.go(), "replica serinus-1 does not serve");
    (world.live, world.ready) = (true, false);
    stays(&world.go(), "no ready pod");
    (world.ready, world.gate) = (true, Some("the gate says no".to_owned()));
    stays(&world.go(), "the gate says no");
    world.gate = None;
    assert!(matches!(world.go(), Transition::Step { step: 1, .. }));
}

#[test]
fn people_ask_for_what_there_is() {
    let spec = spec();
    assert_eq!(Rollout::ask(None, &spec, Asked::Pause), Err(AskedError::NotActive));
    assert!(matches!(Rollout::ask(None, &spec, Asked::Start), Ok(Transition::Step { step: 0, .. })));
    let mut world = World::new();
    assert_eq!(world.ask(Asked::Start), Err(AskedError::UnderWay { step: 1, steps: 3 }));
    assert_eq!(world.ask(Asked::Resume), Err(AskedError::NotPaused));
    world.ask(Asked::Pause).unwrap();
    assert_eq!(world.ask(Asked::Pause), Err(AskedError::Paused));
    world.rollout.held_ms = 10_000;
    world.ask(Asked::Resume).unwrap();
    assert_eq!((world.rollout.step, world.rollout.held_ms), (0, 10_000), "it goes on where it was");
    world.ask(Asked::PromoteFull).unwrap();
    assert_eq!((world.rollout.step, world.rollout.held_ms), (2, 0));
    assert!(matches!(world.ask(Asked::Promote), Ok(Transition::Succeed(_))));
    assert_eq!(world.ask(Asked::Abort), Err(AskedError::NotActive));
    assert!(matches!(Rollout::ask(Some(&world.rollout), &spec, Asked::Start), Ok(Transition::Step { .. })));

    let mut world = World::new();
    assert!(matches!(world.ask(Asked::Abort), Ok(Transition::Abort(_))));
    assert_eq!(world.rollout.phase, Phase::Aborted);
}
