//! Has the state written, off the control task: the newest state, as often as the disk can take it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::state::SavedState;
use crate::telemetry::Telemetry;

use super::state_file::StateFile;

/// How long after a failed write the next one comes.
const RETRY: Duration = Duration::from_secs(2);

/// How far the saving has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    /// The last state that was written.
    written: u64,
    /// The last state that could not be written, and why.
    failed: Option<(u64, String)>,
}

impl Saved {
    /// Whether it is known how it went with this state.
    pub(super) fn settled(&self, state: u64) -> bool {
        self.written >= state || self.failed.as_ref().is_some_and(|(failed, _)| *failed >= state)
    }

    /// Why the last state is not on disk.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.as_ref().map(|(_, error)| error.as_str())
    }
}

/// Hands states over to be written.
pub(super) struct Saver {
    states: watch::Sender<(u64, Arc<SavedState>)>,
}

impl Saver {
    /// Has this state written, unless it is the one before: a reload that changed no weights has nothing to write. Routes
    /// that did not change are the same objects, so that this is quick to tell.
    pub(super) fn save(&self, state: SavedState) {
        self.states.send_if_modified(|(number, newest)| {
            let news = **newest != state;
            if news {
                *number += 1;
                *newest = Arc::new(state);
            }
            news
        });
    }

    /// The number of the last state that was handed over.
    pub(super) fn last(&self) -> u64 {
        self.states.borrow().0
    }
}

/// Starts the writing; it ends, with the last state written, when the saver is gone.
/// Nothing is written while somebody else holds `pen`.
pub(super) fn start(
    file: Option<StateFile>,
    pen: Arc<Mutex<()>>,
    telemetry: Arc<Telemetry>,
) -> (Saver, watch::Receiver<Saved>) {
    let (states, newest) = watch::channel((0, Arc::default()));
    let (progress, saved) = watch::channel(Saved::default());
    match file {
        Some(file) => drop(tokio::spawn(write_all(file, pen, newest, progress, telemetry))),
        None => drop(tokio::spawn(keep_in_memory(newest, progress))),
    }
    (Saver { states }, saved)
}

async fn keep_in_memory(mut newest: watch::Receiver<(u64, Arc<SavedState>)>, progress: watch::Sender<Saved>) {
    while newest.changed().await.is_ok() {
        let number = newest.borrow_and_update().0;
        progress.send_replace(Saved { written: number, failed: None });
    }
}

async fn write_all(
    file: StateFile,
    pen: Arc<Mutex<()>>,
    mut newest: watch::Receiver<(u64, Arc<SavedState>)>,
    progress: watch::Sender<Saved>,
    telemetry: Arc<Telemetry>,
) {
    let file = Arc::new(file);
    let mut written = 0;
    loop {
        let pen = pen.lock().await;
        let (number, state) = newest.borrow_and_update().clone();
        if number > written {
            let target = Arc::clone(&file);
            let result = tokio::task::spawn_blocking(move || target.write(&state)).await;
            drop(pen);
            let error = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            match error {
                None => {
                    written = number;
                    telemetry.state_saved();
                    progress.send_replace(Saved { written, failed: None });
                }
                Some(error) => {
                    telemetry.state_not_saved(&error);
                    progress.send_replace(Saved { written, failed: Some((number, error)) });
                    // The next state, or the same one again after a while.
                    if let Ok(Err(_)) = tokio::time::timeout(RETRY, newest.changed()).await {
                        return;
                    }
                    continue;
                }
            }
        } else {
            drop(pen);
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}
