//! Looks after the files: when the system says that something happened in their directories, and every few seconds.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::store::Store;

/// How often files are looked at when nothing is heard: notifications can be missing or lost, and certificates get old.
const POLL: Duration = Duration::from_secs(10);
/// How soon again when something is in the middle of being replaced.
const AGAIN: Duration = Duration::from_millis(250);
/// How long nothing must happen before files are read.
const REST: Duration = Duration::from_millis(100);
/// How long that is waited for at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a [`Store`] in step with its files; dropping it ends that.
#[derive(Debug)]
pub struct FileWatch {
    wake: SyncSender<()>,
    stop: Arc<AtomicBool>,
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Full means that it is being woken anyway.
        let _ = self.wake.try_send(());
    }
}

impl Store {
    /// Looks after the files from now on, on a thread of its own, so that no async thread ever waits for a disk.
    ///
    /// Noticed within a moment are writes in place, files renamed over others, and the swap of the link that a mounted Secret is
    /// replaced by; whatever else, within ten seconds.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn follow_files(self: &Arc<Self>) -> io::Result<FileWatch> {
        self.follow_files_every(POLL, true)
    }

    pub(super) fn follow_files_every(
        self: &Arc<Self>,
        poll: Duration,
        notifications: bool,
    ) -> io::Result<FileWatch> {
        let (wake, wakes) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let store = Arc::downgrade(self);
        let places =
            notifications.then(|| Places { wake: wake.clone(), known: BTreeSet::new(), watcher: None });
        let follower = Follower { store, poll, wakes, stop: Arc::clone(&stop), places };
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || follower.run())?;
        Ok(FileWatch { wake, stop })
    }
}

struct Follower {
    store: Weak<Store>,
    poll: Duration,
    wakes: Receiver<()>,
    stop: Arc<AtomicBool>,
    places: Option<Places>,
}

impl Follower {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(store) = self.store.upgrade() else { return };
            // Before the look: a change after it is heard of.
            if let Some(places) = &mut self.places {
                places.follow(store.directories());
            }
            let again = store.look();
            drop(store);
            if self.wakes.recv_timeout(if again { AGAIN } else { self.poll }).is_ok() {
                self.rest();
            }
        }
    }

    /// Waits until nothing has happened for a while: files are replaced in several steps.
    fn rest(&self) {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && !self.stop.load(Ordering::Relaxed) {
            if self.wakes.recv_timeout(REST).is_err() {
                return;
            }
        }
    }
}

/// The system's notifications from the directories of the files.
struct Places {
    wake: SyncSender<()>,
    known: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
}

impl Places {
    fn follow(&mut self, directories: BTreeSet<PathBuf>) {
        if directories == self.known && self.watcher.is_some() {
            return;
        }
        let wake = self.wake.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Opening and reading is what the follower does itself; a write that is closed was told as a change before.
            if event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_))) {
                // Full means that the follower has yet to look anyway.
                let _ = wake.try_send(());
            }
        });
        self.watcher = watcher.ok();
        if let Some(watcher) = &mut self.watcher {
            for directory in &directories {
                // One that is not there, or cannot be watched, is left to the regular look.
                let _ = watcher.watch(directory, RecursiveMode::NonRecursive);
            }
        }
        self.known = directories;
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
