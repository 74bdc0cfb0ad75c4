//! An endpoint as requests see it: where it is, and what is going on there.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use std::sync::{Arc, OnceLock};

use crate::model::{EndpointId, PodKey, Protocol};

/// The connections to an endpoint, kept by who makes them.
pub trait Connections: Any + Send + Sync + fmt::Debug {
    /// Closes those that serve no request, and those that do as soon as they have ended (semantics §2.3).
    fn close_idle(&self);
}

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
    connections: OnceLock<Box<dyn Connections>>,
}

impl Endpoint {
    /// An endpoint with a clean record.
    #[must_use]
    pub fn new(id: EndpointId, pod: Option<PodKey>, protocol: Protocol) -> Self {
        Self {
            id,
            pod,
            protocol,
            in_flight: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            connections: OnceLock::new(),
        }
    }

    /// The connections to it, made at the first call. Nothing when they are of another kind.
    pub fn connections<C: Connections>(&self, make: impl FnOnce() -> C) -> Option<&C> {
        let kept: &dyn Any = self.connections.get_or_init(|| Box::new(make())).as_ref();
        kept.downcast_ref()
    }

    /// Whether connections to it are not to be kept.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is_refused()
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
