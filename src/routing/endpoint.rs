//! An endpoint as requests see it: where it is, and what is going on there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::model::{EndpointId, PodKey, Protocol};

/// An endpoint: the same object in every table as long as it is the same pod at the same address.
#[derive(Debug)]
pub struct Endpoint {
    /// Its identity.
    pub id: EndpointId,
    /// Its pod.
    pub pod: Option<PodKey>,
    /// What it speaks.
    pub protocol: Protocol,
    in_flight: AtomicU32,
    refused: AtomicBool,
}

impl Endpoint {
    /// An endpoint with a clean record.
    #[must_use]
    pub fn new(id: EndpointId, pod: Option<PodKey>, protocol: Protocol) -> Self {
        Self { id, pod, protocol, in_flight: AtomicU32::new(0), refused: AtomicBool::new(false) }
    }

    /// How many requests it is serving.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it refused a connection, and nothing better has been heard of it since (semantics §2.2).
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// It refused a connection. True when that is news.
    pub fn refuse(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// The cluster had a word about it, or a probe went through. True when it had been refused.
    pub fn forgive(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }
}

/// A request in flight at an endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// A request begins there.
    #[must_use]
    pub fn begin(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
