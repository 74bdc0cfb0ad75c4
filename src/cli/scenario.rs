//! `serinus demo --scenario`: a rollout that goes well, or does not, told as it goes.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::control::{Control, RolloutView};
use crate::demo::{Load, Testpage};
use crate::model::Timestamp;
use crate::rollout::{Asked, Phase};
use crate::state::{Request, Source};

use super::CliError;

/// What the demo shows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Scenario {
    /// v2 begins to fail half of its answers, and is taken back.
    BadCanary,
    /// v2 is as good as v1, and gets everything in the end.
    GoodCanary,
}

/// The route of the demo.
const ROUTE: &str = "testpage";
/// How many requests a second there are.
const RATE: u32 = 400;
/// When v2 begins to fail.
const FAILS_AFTER: Duration = Duration::from_secs(4);
/// How often it is looked whether there is something to tell.
const LOOK: Duration = Duration::from_millis(20);

/// The rollout of the scenarios, in the config of the demo.
pub(super) const ROLLOUT: &str = "    rollout:\n      steps:\n        \
     - {weight: 1, hold: 10s}\n        - {weight: 10, hold: 5s}\n        - {weight: 50, hold: 5s}\n        \
     - {weight: 100, hold: 5s}\n      guard: {minRequests: 20}\n";

/// Plays a scenario to its end, which is told. Its requests go on for as long as what it gives is kept.
///
/// # Errors
/// When the rollout cannot be started, or what is told cannot be written.
pub(super) async fn play(
    scenario: Scenario,
    url: &str,
    control: &Control,
    canary: &Testpage,
    out: &mut dyn Write,
) -> Result<Load, CliError> {
    let load = Load::start(url, RATE);
    let counts = Arc::clone(load.counts());
    let request = Request {
        source: Source::Admin,
        who: Some("demo".to_owned()),
        reason: None,
        expected: None,
        at: Timestamp::from(SystemTime::now()),
    };
    writeln!(out, "{RATE} requests a second; v2 is rolled out at 1 %, 10 %, 50 % and 100 %.")?;
    let refused = |error: crate::control::ChangeError| CliError::Failed(error.to_string());
    control.ask_rollout(ROUTE, Asked::Start, request).await.map_err(refused)?;
    let began = Instant::now();
    let mut failing = None;
    let mut step = usize::MAX;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(view) = rollout(control) else { continue };
        if view.rollout.step != step {
            step = view.rollout.step;
            tell(out, began, &reason(control, &view).await)?;
        }
        if scenario == Scenario::BadCanary && failing.is_none() && began.elapsed() >= FAILS_AFTER {
            canary.set_failing(true);
            failing = Some((Instant::now(), counts.sent(), counts.failed()));
            tell(out, began, "v2 begins to fail half of its answers")?;
        }
        match view.rollout.phase {
            Phase::Running | Phase::Paused(_) => {}
            Phase::Succeeded | Phase::RolledBack | Phase::Aborted => {
                tell(out, began, &reason(control, &view).await)?;
                break;
            }
        }
    }
    if let Some((since, sent, failed)) = failing {
        let (sent, failed) = (counts.sent() - sent, counts.failed() - failed);
        writeln!(
            out,
            "That took {:.1} s. Of {sent} requests in that time, {failed} failed.",
            since.elapsed().as_secs_f64()
        )?;
        canary.set_failing(false);
    }
    writeln!(
        out,
        "`serinus rollout history {ROUTE}` has every step. The requests go on until Ctrl-C ends the demo."
    )?;
    out.flush()?;
    Ok(load)
}

fn rollout(control: &Control) -> Option<Arc<RolloutView>> {
    control.rollouts().iter().find(|(name, _)| name.as_str() == ROUTE).map(|(_, view)| Arc::clone(view))
}

/// Why it is where it is: its reason may say by now what it waits for.
async fn reason(control: &Control, view: &RolloutView) -> String {
    let last = control.history(ROUTE).await.and_then(|mut history| history.pop()?.reason);
    last.unwrap_or_else(|| view.rollout.reason.clone())
}

fn tell(out: &mut dyn Write, began: Instant, what: &str) -> std::io::Result<()> {
    writeln!(out, "{:5.1} s  {what}", began.elapsed().as_secs_f64())?;
    out.flush()
}
