//! The connections that are open: who is idle the longest, and how all of them are ended.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// A connection that was at rest for less than this is not idle: a client has this long for its first request, and for the next.
const AT_REST: Duration = Duration::from_secs(1);
/// The list is looked through for those that have ended when it has grown to twice what was left the last time, and to this
/// at least.
const LEAST: usize = 1024;

/// The connections that are open. Locked when one is added and when connections are short, never for a request.
#[derive(Debug)]
pub(super) struct Roster {
    since: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: Vec<Weak<Entry>>,
    look_through_at: usize,
}

/// What is known of a connection from outside.
#[derive(Debug)]
pub(super) struct Entry {
    since: Instant,
    /// When its task was last at work, in milliseconds since the roster began.
    moved: AtomicU64,
    /// It was at work more than once: its client has said something.
    known: AtomicBool,
    leave: CancellationToken,
    waker: OnceLock<Waker>,
    abort: OnceLock<AbortHandle>,
}

impl Default for Roster {
    fn default() -> Self {
        Self { since: Instant::now(), open: Mutex::default() }
    }
}

impl Roster {
    /// A connection that is told to leave by `leave`; it is open as long as its entry is kept.
    pub(super) fn add(&self, leave: CancellationToken) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            since: self.since,
            moved: AtomicU64::new(self.now()),
            known: AtomicBool::new(false),
            leave,
            waker: OnceLock::new(),
            abort: OnceLock::new(),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections.len() >= open.look_through_at {
            open.connections.retain(|entry| entry.strong_count() > 0);
            open.look_through_at = (2 * open.connections.len()).max(LEAST);
        }
        open.connections.push(Arc::downgrade(&entry));
        entry
    }

    /// Tells those to leave that have never said anything, then those that have been idle the longest: an eighth of all at most; returns how many there were. One that
    /// only seems idle, because it waits for a pod, leaves after its answer.
    pub(super) fn thin_out(&self) -> usize {
        let now = self.now();
        let all = self.all();
        let most = all.len().div_ceil(8);
        let mut idle: Vec<_> = all
            .into_iter()
            .filter(|entry| !entry.leave.is_cancelled())
            .map(|entry| ((entry.known.load(Ordering::Relaxed), entry.moved.load(Ordering::Relaxed)), entry))
            .filter(|((_, moved), _)| Duration::from_millis(now.saturating_sub(*moved)) >= AT_REST)
            .collect();
        idle.sort_by_key(|(key, _)| *key);
        idle.truncate(most);
        idle.iter().for_each(|(_, entry)| entry.leave.cancel());
        idle.len()
    }

    /// Has every connection look around: something that all of them share has changed.
    pub(super) fn wake(&self) {
        self.all().iter().filter_map(|entry| entry.waker.get()).for_each(Waker::wake_by_ref);
    }

    /// Ends every connection as it is.
    pub(super) fn abort(&self) {
        self.all().iter().filter_map(|entry| entry.abort.get()).for_each(AbortHandle::abort);
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.connections.iter().filter_map(Weak::upgrade).collect()
    }

    fn now(&self) -> u64 {
        milliseconds(self.since)
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    /// Polls what serves the connection, and notes that it was at work. One that waits for its client is not woken.
    pub(super) fn poll<F: Future>(&self, serving: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.moved.store(milliseconds(self.since), Ordering::Relaxed);
        // A task has one waker for all its life.
        if self.waker.get().is_none() {
            let _ = self.waker.set(cx.waker().clone());
        } else {
            self.known.store(true, Ordering::Relaxed);
        }
        serving.poll(cx)
    }

    /// What ends it as it is.
    pub(super) fn ends_by(&self, handle: AbortHandle) {
        let _ = self.abort.set(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that was last at work at this time.
    fn connection(roster: &Roster, moved: u64) -> (CancellationToken, Arc<Entry>) {
        let leave = CancellationToken::new();
        let entry = roster.add(leave.clone());
        entry.moved.store(moved, Ordering::Relaxed);
        entry.known.store(true, Ordering::Relaxed);
        (leave, entry)
    }

    fn roster(age: Duration) -> Roster {
        Roster { since: Instant::now().checked_sub(age).unwrap(), open: Mutex::default() }
    }

    #[test]
    fn the_longest_idle_leave_first_and_those_at_work_stay() {
        let roster = roster(Duration::from_secs(60));
        let (at_work, _a) = connection(&roster, 60_000);
        let connections: Vec<_> = (1..16).map(|i| connection(&roster, i * 100)).collect();
        let left = || connections.iter().filter(|(leave, _)| leave.is_cancelled()).count();
        assert_eq!((roster.thin_out(), left()), (2, 2), "an eighth of sixteen");
        assert!(connections[0].0.is_cancelled() && connections[1].0.is_cancelled());
        while roster.thin_out() > 0 {}
        assert_eq!((left(), at_work.is_cancelled()), (15, false));
    }

    #[test]
    fn who_never_said_anything_leaves_first() {
        let roster = roster(Duration::from_secs(60));
        let (served, _a) = connection(&roster, 100);
        let (silent, entry) = connection(&roster, 50_000);
        entry.known.store(false, Ordering::Relaxed);
        assert_eq!(roster.thin_out(), 1);
        assert!(silent.is_cancelled() && !served.is_cancelled());
        entry.moved.store(59_900, Ordering::Relaxed);
        assert_eq!((roster.thin_out(), served.is_cancelled()), (1, true));
    }

    #[test]
    fn those_that_ended_are_forgotten() {
        let roster = Roster::default();
        for _ in 0..10 * LEAST {
            drop(connection(&roster, 0));
        }
        assert!(roster.open.lock().unwrap().connections.len() <= LEAST);
    }

    #[tokio::test]
    async fn all_can_be_ended() {
        let roster = Roster::default();
        let entry = roster.add(CancellationToken::new());
        let task = tokio::spawn(std::future::pending::<()>());
        entry.ends_by(task.abort_handle());
        roster.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn who_is_polled_is_at_work_and_can_be_woken() {
        struct Count(AtomicU64);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let roster = roster(Duration::from_secs(60));
        let (_leave, entry) = connection(&roster, 0);
        let count = Arc::new(Count(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut serving = std::pin::pin!(std::future::pending::<()>());
        assert!(entry.poll(serving.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        assert!(entry.moved.load(Ordering::Relaxed) >= 60_000);
        roster.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
