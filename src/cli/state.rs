//! Where the weights and their history are kept, as the config says.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::config::StateStore;
use crate::control::{Begin, StateFile, StoreLink};
use crate::kubernetes::{self, Common, Ends, Release, WatchEvent};
use crate::model::Problem;
use crate::state::SavedState;
use crate::telemetry::Telemetry;

use super::app::Background;

/// What there is at the start.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) file: Option<StateFile>,
    pub(super) saved: SavedState,
    pub(super) problems: Vec<Problem>,
    /// The state is the replicas' common one.
    pub(super) common: Option<Common>,
}

/// Opens what the config names.
///
/// # Errors
/// When a state file cannot be used.
pub(super) fn open(store: &StateStore, begin: Begin) -> anyhow::Result<Opened> {
    Ok(match store {
        StateStore::Memory => {
            let problem = Problem::new(
                "weights and their history are kept in memory alone, and a restart goes back to the config's weights",
                "set `state: {file: …}`, or `state: {configMap: …}` for several replicas",
            );
            Opened { problems: vec![problem], ..Opened::default() }
        }
        // The process before has it, and what is in it comes with the hand-over.
        StateStore::File(path) if begin == Begin::AfterHandOver => {
            Opened { file: Some(StateFile::inherited(path)), ..Opened::default() }
        }
        StateStore::File(path) => {
            let (file, restored) = StateFile::open(path)?;
            let damaged = restored.damaged.map(|told| {
                Problem::new(
                    told,
                    "compare the weights with what you expect; the damaged file is kept for you to look at",
                )
            });
            let problems = damaged.into_iter().collect();
            Opened { file: Some(file), saved: restored.state, problems, common: None }
        }
        StateStore::ConfigMap(key) => {
            let common = Common { key: key.clone(), me: kubernetes::replica() };
            Opened { common: Some(common), ..Opened::default() }
        }
    })
}

/// The two ends of what goes between the control task and the store.
pub(super) fn link(heard: mpsc::Sender<WatchEvent>) -> (StoreLink, Ends) {
    // The control task has one commit under way at a time.
    let (to_store, commits) = mpsc::channel(1);
    let (say, said) = watch::channel(None);
    (StoreLink { commits: to_store, said: say }, Ends { commits, said, out: heard })
}

/// Follows the common state, and writes it.
pub(super) fn share(
    client: &kubernetes::Client,
    common: &Common,
    ends: Ends,
    telemetry: &Arc<Telemetry>,
) -> (Background, Release) {
    let store = kubernetes::share(client, common, ends, Arc::clone(telemetry));
    tracing::info!(replica = %common.me, state = %common.key, "the state is shared with the other replicas");
    (store.tasks, store.release)
}
