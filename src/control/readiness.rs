//! Whether the router is ready to take requests.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the router is ready (`/readyz`): once config, Services, slices and pods are all known, and until it stops.
#[derive(Debug, Default)]
pub struct Readiness {
    complete: AtomicBool,
    awaits_state: AtomicBool,
    stopping: AtomicBool,
}

impl Readiness {
    /// Everything is known. A later reload or a lost API server does not take that back: the last table serves.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// The replicas' common state is still to be read, or is it no longer.
    pub(super) fn await_state(&self, awaits: bool) {
        self.awaits_state.store(awaits, Ordering::Release);
    }

    /// Whether everything has been known once.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// SIGTERM came.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Why it is not ready; nothing when it is.
    #[must_use]
    pub fn hindrance(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Acquire) {
            Some("stopping")
        } else if self.awaits_state.load(Ordering::Acquire) {
            Some("waiting for the replicas' common state (`state.configMap`) to be read")
        } else if !self.complete.load(Ordering::Acquire) {
            Some("waiting for the Services, EndpointSlices and Pods that the routes name to be listed")
        } else {
            None
        }
    }
}
