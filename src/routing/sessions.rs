//! The connections of a version that last, and when they must have ended (semantics §5.6).

use std::any::Any;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::model::Moment;

/// They may last.
const NEVER: u64 = u64::MAX;

/// What the connections that last of one version have in common, from one end of it to the next: requests that come after it
/// was taken back have another.
#[derive(Debug)]
pub struct Sessions {
    /// In milliseconds of [`Moment`].
    end: AtomicU64,
    bell: OnceLock<Box<dyn Bell>>,
}

/// Wakes those who have such a connection; made by them.
pub trait Bell: Any + Send + Sync + Debug {
    /// They are to look when they must end.
    fn ring(&self);
}

impl Default for Sessions {
    fn default() -> Self {
        Self { end: AtomicU64::new(NEVER), bell: OnceLock::new() }
    }
}

impl Sessions {
    /// When they must have ended; nothing for never. One load: it may be asked again and again.
    #[must_use]
    pub fn end(&self) -> Option<Moment> {
        Some(self.end.load(Ordering::Relaxed)).filter(|end| *end != NEVER).map(Moment::from_millis)
    }

    /// Their bell, made at the first call. Who has asked for it and then [`Self::end`] misses nothing. Nothing when the one that
    /// was made is of another type.
    pub fn bell<B: Bell>(&self, make: impl FnOnce() -> B) -> Option<&B> {
        let bell: &dyn Any = self.bell.get_or_init(|| Box::new(make())).as_ref();
        // With the fence below: either the end is seen here, or the bell is there.
        fence(Ordering::SeqCst);
        bell.downcast_ref()
    }

    /// They must have ended by then.
    pub(super) fn end_by(&self, end: Moment) {
        self.end.store(end.millis().min(NEVER - 1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Rung(AtomicUsize);

    impl Bell for Rung {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn s5_6_the_end_is_told_to_those_who_listen() {
        let sessions = Sessions::default();
        assert_eq!(sessions.end(), None);
        sessions.bell(Rung::default).unwrap();
        sessions.end_by(Moment::from_millis(7));
        assert_eq!(sessions.end(), Some(Moment::from_millis(7)));
        assert_eq!(sessions.bell(Rung::default).unwrap().0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn s5_6_an_end_without_listeners_is_seen_by_the_next() {
        let sessions = Sessions::default();
        sessions.end_by(Moment::from_millis(u64::MAX));
        assert!(sessions.end().is_some(), "the longest time is not for ever");
    }
}
