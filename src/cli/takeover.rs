//! A start that takes over from the router that runs, if one does, and lets the next process take over in its turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::config::{Settings, StateStore};
use crate::control::{Control, StateFile};
use crate::proxy::Stop;
use crate::state::SavedState;

use super::app::{Router, Starting};
use super::handover::{Giver, Handed, Meeting, Place};

/// How long a new process may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Starts a router that takes over from the one that waits at `place`, if one does. It waits there for the next itself.
///
/// # Errors
/// As [`Router::start`]; and when the hand-over fails: the router that ran goes on then.
pub(super) async fn start(settings: Settings, file: PathBuf, place: &Place) -> anyhow::Result<Router> {
    let Some(mut before) = place.running().await? else {
        let meeting = place.bind()?;
        let mut router = Router::start(settings, Some(file)).await?;
        router.wait_for_next(meeting);
        return Ok(router);
    };
    let pid = before.pid();
    let goes_on = move || format!("no hand-over: the router that runs (process {pid}) goes on");
    let store = settings.state.clone();
    let starting = Starting::prepare(settings, Some(file), Some(&mut before)).await.with_context(goes_on)?;
    until_ready(&starting.control).await.with_context(goes_on)?;
    let state = match before.ready().await.with_context(goes_on)? {
        Handed::State(state) => state,
        Handed::Gone => {
            tracing::warn!(pid, "the router that ran is gone: the weights are those that it wrote last");
            written(&store)?
        }
    };
    starting.control.take_over(state).await;
    let mut router = starting.serve();
    if let Err(error) = before.taken().await {
        router.give_back().await;
        return Err(error.context(goes_on()));
    }
    router.control.thaw().await;
    tracing::info!(pid, "taken over: the process before drains");
    match place.bind() {
        Ok(meeting) => router.wait_for_next(meeting),
        Err(error) => tracing::error!("the next process cannot take over from this one: {error:#}"),
    }
    Ok(router)
}

async fn until_ready(control: &Control) -> anyhow::Result<()> {
    let ready = async {
        while control.readiness().hindrance().is_some() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(READY, ready).await.is_err() {
        let hindrance = control.readiness().hindrance().unwrap_or("busy");
        bail!("this process was not ready within {} s: {hindrance}", READY.as_secs());
    }
    Ok(())
}

/// The state that a process which is gone wrote last.
fn written(store: &StateStore) -> anyhow::Result<SavedState> {
    match store {
        // What replicas have in common is not one's to read.
        StateStore::Memory | StateStore::ConfigMap(_) => Ok(SavedState::default()),
        StateStore::File(path) => {
            let (_, restored) = StateFile::open(path)?;
            restored.damaged.iter().for_each(|told| tracing::error!("{told}"));
            Ok(restored.state)
        }
    }
}

impl Router {
    /// Lets the next process take over that comes to this meeting.
    fn wait_for_next(&mut self, meeting: Meeting) {
        let giver = Giver {
            meeting,
            sockets: std::mem::take(&mut self.to_give),
            control: self.control.clone(),
            stop: self.say_stop.clone(),
            admin_stop: self.say_admin_stop.clone(),
        };
        self.giving = Some(tokio::spawn(giver.run()));
    }

    /// Stops accepting at once: the process before goes on with the sockets.
    async fn give_back(self) {
        let names = self.listeners().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        self.say_admin_stop.send_replace(Stop::Drain);
        self.say_stop.send_replace(Stop::HandedOver(Arc::from(names)));
        self.stop().await;
    }
}
