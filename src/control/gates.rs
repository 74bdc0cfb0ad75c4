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
    /// What is waited for, in words.
    said: String,
}

#[derive(Debug)]
enum State {
    /// They are being asked.
    Asked(oneshot::Receiver<Answer>),
    /// One said no; they are asked again then.
    Closed(Instant),
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
                let (route, said) = (note.route.clone(), format!("the gate of step {step} is asked"));
                let state = State::Asked(hooks.ask(&spec.hooks, note));
                self.0.insert(route, Gate { of, state, pause: PAUSE, said: said.clone() });
                return Some(said);
            }
        };
        match &mut gate.state {
            State::Open => return None,
            State::Asked(answer) => match answer.try_recv() {
                Err(TryRecvError::Empty) => {}
                Ok(Ok(())) => {
                    gate.state = State::Open;
                    return None;
                }
                Ok(Err(why)) => {
                    gate.said = format!("the gate of step {step} is closed: {why}; it is asked again");
                    gate.state = State::Closed(now + gate.pause);
                }
                // The call broke off.
                Err(TryRecvError::Closed) => gate.state = State::Closed(now + gate.pause),
            },
            State::Closed(again) if now >= *again => {
                gate.pause = (2 * gate.pause).min(LONGEST_PAUSE);
                gate.state = State::Asked(hooks.ask(&spec.hooks, note));
            }
            State::Closed(_) => {}
        }
        Some(gate.said.clone())
    }

    /// Forgets what is not under way any more.
    pub(super) fn retain(&mut self, under_way: impl Fn(&RouteName) -> bool) {
        self.0.retain(|route, _| under_way(route));
    }
}
