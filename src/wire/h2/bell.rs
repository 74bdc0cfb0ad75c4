//! Which part of a task was woken, where a task has several.
//!
//! A task is polled whole. Where one has parts that are dear to poll, and wake each other while they are polled, each gets a
//! [`Bell`]: only a part whose bell has rung is polled, and what rings while the task runs does not have it run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

/// The task, as its bells see it.
#[derive(Default)]
pub(super) struct Porch {
    task: AtomicWaker,
    /// The task runs, and looks at its bells before it rests.
    awake: AtomicBool,
}

impl Porch {
    /// The task runs; `waker` is its own.
    pub(super) fn enter(&self, waker: &Waker) {
        self.task.register(waker);
        self.awake.store(true, Ordering::SeqCst);
    }

    /// The task is about to rest: it has to look at its bells after this.
    pub(super) fn leave(&self) {
        self.awake.store(false, Ordering::SeqCst);
    }
}

/// Rung where a part is to be polled.
pub(super) struct Bell {
    rung: AtomicBool,
    porch: Arc<Porch>,
}

impl Bell {
    /// A bell that has rung: every part is polled once, to begin with.
    pub(super) fn new(porch: &Arc<Porch>) -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(true), porch: Arc::clone(porch) })
    }

    /// Has the part polled.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.porch.awake.load(Ordering::SeqCst) {
            self.porch.task.wake();
        }
    }

    /// Whether it has rung.
    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn take(&self) -> bool {
        self.has_rung() && self.rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_bell_wakes_a_task_that_rests_and_is_heard_by_one_that_runs() {
        let (porch, woken) = (Arc::<Porch>::default(), Arc::<Count>::default());
        let (one, other) = (Bell::new(&porch), Bell::new(&porch));
        assert!(one.take() && other.take() && !one.take());
        porch.enter(&Waker::from(Arc::clone(&woken)));
        Waker::from(Arc::clone(&one)).wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        assert!(one.has_rung() && one.take() && !one.has_rung() && !other.take());
        porch.leave();
        Waker::from(Arc::clone(&other)).wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(other.take() && !one.take());
    }
}
