//! Watching the config file: every content it has had for a moment of rest is read, the last one always.
//!
//! A thread of its own does it, so that no async thread ever waits for a disk. It is woken by the system's file
//! notifications, and looks by itself every few seconds: notifications can be missing (limits, network file systems)
//! or lost.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::errors::ConfigErrors;
use super::settings::Settings;

/// The contents of a config file, one after the other; made by [`watch`]. Dropping it ends the watching.
#[derive(Debug)]
pub struct Watch {
    contents: mpsc::Receiver<Result<Settings, ConfigErrors>>,
    wake: SyncSender<()>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Waits for the file to have other content than the last time, and reads it. The first call gives the content
    /// that the file has now. A file that is gone or cannot be read is an error, given once.
    ///
    /// Cancel safe: no content is lost when the future is dropped. Nothing is returned when the watching thread has
    /// ended, which it does not by itself.
    pub async fn next(&mut self) -> Option<Result<Settings, ConfigErrors>> {
        self.contents.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Full means that it is being woken anyway.
        let _ = self.wake.try_send(());
    }
}

/// Watches the config file at `path`, which need not exist yet.
///
/// Noticed are writes in place, files renamed over it, swaps of any symlink on the way to it (as ConfigMap mounts do),
/// and its disappearance and return.
///
/// # Errors
/// When the system cannot start a thread.
pub fn watch(path: impl Into<PathBuf>) -> io::Result<Watch> {
    start(path.into(), Timing::default(), true)
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    /// How long nothing must happen to the file before it is read: editors write in several steps.
    rest: Duration,
    /// How long that is waited for at most.
    patience: Duration,
    /// How often the file is looked at when nothing is heard.
    poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            rest: Duration::from_millis(100),
            patience: Duration::from_secs(1),
            poll: Duration::from_secs(3),
        }
    }
}

fn start(path: PathBuf, timing: Timing, notifications: bool) -> io::Result<Watch> {
    // One waiting wake-up is enough: it is read after whatever caused the next.
    let (wake, wakes) = sync_channel(1);
    let (out, contents) = mpsc::channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let places = notifications.then(|| Places { wake: wake.clone(), known: Way::default(), watcher: None });
    let follower = Follower { path, timing, wakes, stop: stop.clone(), places };
    std::thread::Builder::new().name("config-watch".to_owned()).spawn(move || follower.run(&out))?;
    Ok(Watch { contents, wake, stop })
}

/// What a look at the file found.
type Content = Result<String, ConfigErrors>;

struct Follower {
    path: PathBuf,
    timing: Timing,
    wakes: Receiver<()>,
    stop: Arc<AtomicBool>,
    places: Option<Places>,
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing happened for a while.
    Calm,
    /// Something goes on happening.
    Busy,
}

impl Follower {
    fn run(mut self, out: &mpsc::Sender<Result<Settings, ConfigErrors>>) {
        let mut seen: Option<Content> = None;
        let mut calm = true;
        while !self.stop.load(Ordering::Relaxed) {
            let mut content = self.look();
            if seen.as_ref() != Some(&content) {
                if !calm {
                    content = self.settle(content);
                }
                let name = self.path.display().to_string();
                let settings =
                    content.as_ref().map_err(Clone::clone).and_then(|text| super::parse(&name, text));
                let new = seen.as_ref() != Some(&content);
                seen = Some(content);
                // The receiver may take its time; what happens meanwhile is found by the next look.
                if new && out.blocking_send(settings).is_err() {
                    return;
                }
            }
            calm = self.wait() == Rest::Calm;
        }
    }

    /// Follows the links to the file, then reads it: a change after the reading is noticed.
    fn look(&mut self) -> Content {
        if let Some(places) = &mut self.places {
            places.follow(&self.path);
        }
        super::load_text(&self.path)
    }

    /// Waits for a change or the time to look by oneself. Calm when a change has come to rest.
    fn wait(&self) -> Rest {
        match self.wakes.recv_timeout(self.timing.poll) {
            Ok(()) => self.rest(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Rest::Busy,
        }
    }

    /// Waits until nothing has happened for a while.
    fn rest(&self) -> Rest {
        let begin = Instant::now();
        while begin.elapsed() < self.timing.patience && !self.stop.load(Ordering::Relaxed) {
            if self.wakes.recv_timeout(self.timing.rest).is_err() {
                return Rest::Calm;
            }
        }
        Rest::Busy
    }

    /// Looks until two looks agree: without a notification nobody knows whether a writer is half way through.
    fn settle(&mut self, mut content: Content) -> Content {
        for _ in 0..10 {
            self.rest();
            let again = self.look();
            if again == content || self.stop.load(Ordering::Relaxed) {
                break;
            }
            content = again;
        }
        content
    }
}

/// A directory with an entry that decides what the file contains, and which one it is (it could be replaced).
type Directory = (PathBuf, u64, u64);

/// What decides where the file is and what it contains, as far as it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    /// The directories that hold the file and every symlink on the way to it.
    directories: BTreeSet<Directory>,
    /// The file and those symlinks.
    entries: BTreeSet<PathBuf>,
}

/// The system's notifications from every directory on the way to the file.
struct Places {
    wake: SyncSender<()>,
    known: Way,
    watcher: Option<RecommendedWatcher>,
}

impl Places {
    /// Watches the directories that matter now. What cannot be watched is left to the regular look.
    fn follow(&mut self, path: &Path) {
        // Again after each change: a link may be swapped while its directory is not watched yet.
        for _ in 0..3 {
            let way = way(path);
            if way == self.known && self.watcher.is_some() {
                return;
            }
            self.watch(&way);
            self.known = way;
        }
    }

    fn watch(&mut self, way: &Way) {
        let (wake, heard) = (self.wake.clone(), way.clone());
        // A new watcher every time: the old one may hold on to a directory that was replaced under the same name.
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| changes(event.kind) && heard.has(&event.paths)) {
                // Full means that the follower has yet to look anyway.
                let _ = wake.try_send(());
            }
        });
        self.watcher = watcher.ok();
        if let Some(watcher) = &mut self.watcher {
            for (directory, ..) in &way.directories {
                let _ = watcher.watch(directory, RecursiveMode::NonRecursive);
            }
        }
    }
}

impl Way {
    /// Whether one of these is on the way; others lie beside, as a log that is written all the time.
    fn has(&self, paths: &[PathBuf]) -> bool {
        let is_directory = |path: &PathBuf| self.directories.iter().any(|(directory, ..)| directory == path);
        paths.is_empty() || paths.iter().any(|path| self.entries.contains(path) || is_directory(path))
    }
}

/// Whether an event can mean other content; opening and reading, which the follower does itself, cannot.
fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// The way to a file, through every symlink.
fn way(path: &Path) -> Way {
    let mut found = Way::default();
    let Ok(path) = std::path::absolute(path) else { return found };
    let mut note = |directory: &Path, entry: &OsString| {
        if let Ok(metadata) = fs::metadata(directory) {
            found.directories.insert((directory.to_owned(), metadata.dev(), metadata.ino()));
            found.entries.insert(directory.join(entry));
        }
    };
    let mut at = PathBuf::from("/");
    let mut steps: VecDeque<OsString> = path.components().map(|c| c.as_os_str().to_owned()).collect();
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        match Path::new(&step).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                at.pop();
            }
            Some(Component::Normal(_)) => match fs::symlink_metadata(at.join(&step)) {
                Ok(metadata) if metadata.is_symlink() && links < 40 => {
                    links += 1;
                    note(&at, &step);
                    let Ok(target) = fs::read_link(at.join(&step)) else { break };
                    for part in target.components().rev() {
                        steps.push_front(part.as_os_str().to_owned());
                    }
                }
                Ok(metadata) if metadata.is_dir() => at.push(&step),
                // The file itself, or nothing: whatever comes next appears here.
                Ok(_) | Err(_) => {
                    note(&at, &step);
                    break;
                }
            },
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
