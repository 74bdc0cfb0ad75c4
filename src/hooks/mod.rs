//! The webhooks of rollouts: told what happens, or asked whether a step may begin, with POST and JSON.
//!
//! The control task only puts calls into a queue and never waits. Calls that fail are made again after a while, as often as the
//! hook asks; what becomes of them is logged, counted and told to those who listen. A hook that is slow holds up nobody: some
//! calls are made at once, and what does not fit into the queue is dropped, which is told too.

mod call;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::model::{Hook, HookEvent, Revision, RouteName, Share, Timestamp, VersionName};
use crate::telemetry::Telemetry;

/// How many calls may wait.
const QUEUE: usize = 256;
/// How many are made at once.
const AT_ONCE: usize = 16;
/// How long after a call that failed the next one comes; after each further one twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a hook is told or asked: what is sent, as JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What for.
    pub event: HookEvent,
    /// The route.
    pub route: RouteName,
    /// The version that is rolled out.
    pub version: VersionName,
    /// The step, from 1: for a gate the one that is to begin.
    pub step: usize,
    /// The version's weight in it, in percent.
    pub weight: Share,
    /// Where the rollout is in its life.
    pub phase: &'static str,
    /// Why.
    pub reason: String,
    /// The revision of the weights in force.
    pub revision: Revision,
    /// When.
    pub time: Timestamp,
}

/// What a gate said: nothing against it, or what.
pub type Answer = Result<(), String>;

/// Puts calls into the queue.
#[derive(Clone, Debug)]
pub struct Hooks {
    queue: mpsc::Sender<Order>,
    telemetry: Arc<Telemetry>,
}

/// A call that waits.
#[derive(Debug)]
enum Order {
    Tell(Hook, Arc<Note>),
    Ask(Vec<Hook>, Arc<Note>, oneshot::Sender<Answer>),
}

impl Hooks {
    /// Starts making calls; that ends when every [`Hooks`] is gone.
    #[must_use]
    pub fn start(telemetry: Arc<Telemetry>) -> Self {
        let (queue, orders) = mpsc::channel(QUEUE);
        tokio::spawn(run(orders, Arc::clone(&telemetry)));
        Self { queue, telemetry }
    }

    /// Tells those of `hooks` that are for this.
    pub fn tell(&self, hooks: &[Hook], note: Note) {
        let note = Arc::new(note);
        for hook in hooks.iter().filter(|hook| hook.on.contains(&note.event)) {
            if self.queue.try_send(Order::Tell(hook.clone(), Arc::clone(&note))).is_err() {
                self.telemetry.hook_dropped(&note.route, note.event, hook.shown());
            }
        }
    }

    /// Asks every gate of `hooks`, once: they let the step begin when all of them answer 2xx.
    #[must_use]
    pub fn ask(&self, hooks: &[Hook], note: Note) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let gates = hooks.iter().filter(|hook| hook.on.contains(&HookEvent::Gate)).cloned().collect();
        if let Err(error) = self.queue.try_send(Order::Ask(gates, Arc::new(note), reply))
            && let Order::Ask(_, _, reply) = error.into_inner()
        {
            // It is there: the receiver is returned below.
            let _ = reply.send(Err("too many calls of hooks wait".to_owned()));
        }
        answer
    }
}

async fn run(mut orders: mpsc::Receiver<Order>, telemetry: Arc<Telemetry>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(order) = orders.recv().await {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let telemetry = Arc::clone(&telemetry);
        tokio::spawn(async move {
            match order {
                Order::Tell(hook, note) => tell(&hook, &note, &telemetry, place).await,
                Order::Ask(gates, note, reply) => {
                    let answer = ask(&gates, &note, &telemetry).await;
                    drop(place);
                    // Nobody asks any more when the rollout has ended.
                    let _ = reply.send(answer);
                }
            }
        });
    }
}

/// Tells one hook, again and again as it asks.
async fn tell(hook: &Hook, note: &Arc<Note>, telemetry: &Telemetry, place: Option<OwnedSemaphorePermit>) {
    let mut pause = PAUSE;
    let mut left = hook.retries;
    loop {
        match call::post(hook, note).await {
            Ok(()) => {
                telemetry.hook_succeeded(&note.route, note.event, hook.shown());
                break;
            }
            Err(error) => telemetry.hook_failed(&note.route, note.event, hook.shown(), &error),
        }
        let Some(fewer) = left.checked_sub(1) else { break };
        left = fewer;
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    drop(place);
}

/// Asks each gate once: the first that does not let the step begin has the last word.
async fn ask(gates: &[Hook], note: &Arc<Note>, telemetry: &Telemetry) -> Answer {
    for gate in gates {
        let answer = call::post(gate, note).await;
        if let Err(error) = answer {
            telemetry.hook_failed(&note.route, note.event, gate.shown(), &error);
            return Err(format!("{} {error}", gate.shown()));
        }
        telemetry.hook_succeeded(&note.route, note.event, gate.shown());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
