//! The gates of rollouts: asked before a step begins, again and again until they let it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::hooks::{Answer, Hooks, Note};
use crate::model::{HookEvent, RolloutSpec, RouteName, Timestamp};

/// How long after a gate said no it is asked again; after each further time twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the gates of each route's rollout said.
#[derive(Debug, Default)]
pub(super) struct Gates(HashMap<RouteName, Gate>);

#[derive(Debug)]
struct Gate {
    /// The rollout, by when it began, and the place of the step that is to begin.
    of: (Timestamp, usize),
    state: State,
    pause: Duration,
}

#[derive(Debug)]
enum State {
    /// They are being asked.
    Asked(oneshot::Receiver<Answer>),
    /// One said no, and why; they are asked again then.
    Closed(String, Instant),
    /// All have let it.
    Open,
}

impl Gates {
    /// What is still waited for before this step of the rollout that began then may begin; nothing when it may.
    pub(super) fn hindrance(
        &mut self,
        hooks: &Hooks,
        spec: &RolloutSpec,
        note: Note,
        of: (Timestamp, usize),
        now: Instant,
    ) -> Option<String> {
        if !spec.hooks.iter().any(|hook| hook.on.contains(&HookEvent::Gate)) {
            return None;
        }
        let step = of.1 + 1;
        let gate = match self.0.get_mut(&note.route) {
            Some(gate) if gate.of == of => gate,
            _ => {
                let route = note.route.clone();
                let state = State::Asked(hooks.ask(&spec.hooks, note));
                self.0.insert(route, Gate { of, state, pause: PAUSE });
                return Some(format!("the gate of step {step} is asked"));
            }
        };
        if let State::Asked(answer) = &mut gate.state {
            gate.state = match answer.try_recv() {
                Err(TryRecvError::Empty) => return Some(format!("the gate of step {step} is asked")),
                Ok(Ok(())) => State::Open,
                Ok(Err(why)) => State::Closed(why, now + gate.pause),
                Err(TryRecvError::Closed) => State::Closed("was not called".to_owned(), now + gate.pause),
            };
        }
        match &gate.state {
            State::Open => None,
            State::Closed(why, again) => {
                let said = format!("the gate of step {step} is closed: {why}; it is asked again");
                if now >= *again {
                    gate.pause = (2 * gate.pause).min(LONGEST_PAUSE);
                    gate.state = State::Asked(hooks.ask(&spec.hooks, note));
                }
                Some(said)
            }
            State::Asked(_) => None,
        }
    }

    /// Forgets what is not under way any more.
    pub(super) fn retain(&mut self, under_way: impl Fn(&RouteName) -> bool) {
        self.0.retain(|route, _| under_way(route));
    }
}
