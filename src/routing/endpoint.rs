//! An endpoint as requests see it: where it is, and what is going on there.

use std::any::Any;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::model::{EndpointId, PodKey, Protocol, UpstreamTls};

use super::Standing;

/// An endpoint: the same object in every table as long as it is the same pod at the same address, spoken to in the same way.
///
/// It is shared by all routes that lead to it. What a route thinks of it, by its own settings, is in its [`Standing`].
#[derive(Debug)]
pub struct Endpoint {
    /// Its identity.
    pub id: EndpointId,
    /// Its pod.
    pub pod: Option<PodKey>,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// TLS towards it, if any; its `server_name` is always set. Connections cannot be shared between different settings, so
    /// that they are part of what makes an endpoint.
    pub tls: Option<Arc<UpstreamTls>>,
    in_flight: AtomicU32,
    refused: AtomicBool,
    /// How many routes' versions send it requests and keep connections to it.
    users: AtomicU32,
    /// When it last came into service, in milliseconds; 0 for long ago.
    in_service_since: AtomicU64,
    leaving: AtomicBool,
    connections: OnceLock<Box<dyn Connections>>,
}

/// The open connections to an endpoint, kept with it by whoever opens them.
pub trait Connections: Any + Send + Sync + Debug {
    /// Closes those that serve no request, without waiting: the endpoint is leaving (semantics §2.3).
    fn close_idle(&self);
}

impl Endpoint {
    /// An endpoint with a clean record.
    #[must_use]
    pub fn new(
        id: EndpointId,
        pod: Option<PodKey>,
        protocol: Protocol,
        tls: Option<Arc<UpstreamTls>>,
    ) -> Self {
        Self {
            id,
            pod,
            protocol,
            tls,
            in_flight: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            users: AtomicU32::new(0),
            in_service_since: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            connections: OnceLock::new(),
        }
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

    /// The connections that are kept with it, made at the first call; no look-up by name is needed to find them. Nothing
    /// when those that were made are of another type.
    pub fn connections<C: Connections>(&self, make: impl FnOnce() -> C) -> Option<&C> {
        let kept: &dyn Any = self.connections.get_or_init(|| Box::new(make())).as_ref();
        kept.downcast_ref()
    }

    /// Whether connections to it are not worth keeping: no route sends it requests, or only as a last resort, because its
    /// pod is leaving or not ready, or because it is set aside.
    ///
    /// Its idle connections were closed when that began. Whoever puts back a connection asks after that, and closes it if
    /// the answer is yes: then none is left behind, whichever came first.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Whether any route sends it requests.
    pub(super) fn is_in_service(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 0
    }

    /// When it came into service, in milliseconds; 0 for long ago.
    pub(super) fn in_service_since(&self) -> u64 {
        self.in_service_since.load(Ordering::Relaxed)
    }

    /// A version of a route sends it requests from now on; it came up at this millisecond, or long ago (0).
    pub(super) fn enter(&self, came_up: u64) {
        if self.users.fetch_add(1, Ordering::SeqCst) == 0 {
            self.in_service_since.store(came_up, Ordering::Relaxed);
        }
        self.leaving.store(false, Ordering::SeqCst);
    }

    /// A version of a route that did sends it none any more.
    pub(super) fn exit(&self) {
        if self.users.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.leave();
        }
    }

    /// It is known and nobody sends it requests: from the first such word on it is leaving.
    pub(super) fn leave_unless_in_service(&self) {
        if !self.is_in_service() {
            self.leave();
        }
    }

    fn leave(&self) {
        // First the flag: see `is_leaving`.
        if !self.leaving.swap(true, Ordering::SeqCst)
            && let Some(connections) = self.connections.get()
        {
            connections.close_idle();
        }
    }
}

/// A request in flight at an endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Standing>);

impl InFlight {
    /// A request begins there.
    #[must_use]
    pub fn begin(at: &Arc<Standing>) -> Self {
        at.endpoint().in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(at))
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.0.endpoint()
    }

    /// How that stands with the version that the request belongs to.
    #[must_use]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Pool(AtomicUsize);

    impl Connections for Pool {
        fn close_idle(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Debug)]
    struct Another;

    impl Connections for Another {
        fn close_idle(&self) {}
    }

    fn endpoint() -> Endpoint {
        let id = EndpointId { address: ([127, 0, 0, 1], 80).into(), pod_uid: "".into() };
        Endpoint::new(id, None, Protocol::Http1, None)
    }

    #[test]
    fn connections_are_made_once_and_of_one_type() {
        let endpoint = endpoint();
        let first: *const Pool = endpoint.connections(Pool::default).unwrap();
        let second: *const Pool = endpoint.connections(|| panic!("made twice")).unwrap();
        assert_eq!(first, second);
        assert!(endpoint.connections(|| Another).is_none());
    }

    #[test]
    fn s2_3_idle_connections_are_closed_once_when_the_last_user_goes() {
        let endpoint = endpoint();
        let closed = |e: &Endpoint| e.connections(Pool::default).unwrap().0.load(Ordering::Relaxed);
        assert!(!endpoint.is_leaving() && closed(&endpoint) == 0, "new");
        endpoint.enter(0);
        endpoint.enter(0);
        endpoint.exit();
        assert!(!endpoint.is_leaving() && closed(&endpoint) == 0, "another route uses it");
        endpoint.exit();
        assert!(endpoint.is_leaving() && closed(&endpoint) == 1);
        endpoint.leave_unless_in_service();
        assert_eq!(closed(&endpoint), 1, "once");
        endpoint.enter(0);
        endpoint.leave_unless_in_service();
        assert!(!endpoint.is_leaving() && closed(&endpoint) == 1, "it is back");
        endpoint.exit();
        assert!(endpoint.is_leaving() && closed(&endpoint) == 2, "and leaves again");
    }
}
