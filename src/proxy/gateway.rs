//! What all requests share: the table in force, the connections to pods, who is told what became of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::{AnswerReason, Timestamp};
use crate::routing::tally::Unrouted;
use crate::routing::{AttemptOutcome, InFlight, RoutingTable};
use crate::telemetry::{AccessEntry, AccessLog};
use crate::tls::UpstreamConnectors;
use crate::traces::Traces;
use crate::wire::{self, RequestHead};

use super::connection::Client;
use super::failure::Failure;
use super::pool::Pools;
use super::request::{Asked, Request, Routed};
use super::seen::Seen;
use super::{SetAside, headers, trace};

/// The table in force: one writer, and every request reads it once.
pub type Published = Arc<ArcSwap<RoutingTable>>;

/// What a gateway needs besides the table.
#[derive(Debug)]
pub struct GatewayOptions {
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Where requests are traced, if they are.
    pub traces: Option<Traces>,
    /// Where endpoints that are set aside are told of.
    pub set_aside: mpsc::Sender<SetAside>,
    /// The count of requests that found no version.
    pub unrouted: Arc<Unrouted>,
    /// The networks of hops whose word about a client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// What TLS connections to pods are made with.
    pub connectors: Arc<UpstreamConnectors>,
}

/// Routes each request by the table in force when it came.
#[derive(Debug)]
pub struct Gateway {
    table: Published,
    pub(super) options: GatewayOptions,
    pub(super) pools: Arc<Pools>,
    /// The router is stopping: answers say that the connection ends (semantics §4.5).
    closing: AtomicBool,
    /// The router waits for no request any more: each ends as it is.
    cut: AtomicBool,
    /// Told when it begins to stop.
    pub(super) farewell: CancellationToken,
}

impl Gateway {
    /// A gateway that routes by what is published in `table`.
    #[must_use]
    pub fn new(table: Published, options: GatewayOptions) -> Self {
        Self {
            table,
            options,
            pools: Arc::default(),
            closing: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            farewell: CancellationToken::new(),
        }
    }

    /// From now on connections end with their next answer.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.farewell.cancel();
    }

    /// Whether connections end with their next answer.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// From now on no request is waited for.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether no request is waited for any more.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Finds the route and the version; or the reason to answer at once.
    pub(super) fn route(
        &self,
        client: &Client,
        head: &RequestHead,
        started: Instant,
    ) -> Result<Routed, AnswerReason> {
        let table = self.table.load();
        let (route, _) = table.find(&head.authority, head.path()).ok_or(AnswerReason::NoRoute)?;
        let seen = Seen { gateway: self, client, head };
        let choice = route.choose_for(&seen, || fastrand::u64(..)).ok_or(AnswerReason::NoEndpoints)?;
        Ok(Routed::begin(route, choice, started))
    }

    /// Whether a hop is trusted to speak for its client.
    pub(super) fn is_trusted(&self, hop: IpAddr) -> bool {
        self.options.trusted_proxies.iter().any(|net| net.contains(&hop))
    }

    /// Whether a hop may say by the PROXY protocol who its client is: with `trustedProxies` those alone.
    pub(super) fn may_introduce(&self, hop: IpAddr) -> bool {
        self.options.trusted_proxies.is_empty() || self.is_trusted(hop)
    }

    /// An attempt ended: its pod's record is told, and who looks after pods that are set aside.
    pub(super) fn attempted(&self, routed: &Routed, outcome: AttemptOutcome, took: Duration) {
        let (Some(at), Some(version)) = (routed.at.as_ref(), routed.version()) else { return };
        if let (1, Some(placed), Some(evidence)) =
            (routed.attempts, routed.choice.placed, &routed.route.evidence)
        {
            evidence.record(routed.choice.version, outcome, took, || placed.placement());
        }
        let now = routed.attempted.after(took);
        if let Some(reason) = version.ended(at, outcome, took, now) {
            SetAside::new(at, &routed.route, version, reason).tell(&self.options.set_aside);
        }
    }

    /// An attempt failed. `reused`: its connection had served another request before.
    pub(super) fn failed(&self, failure: &Failure, routed: &Routed, reused: bool) {
        tracing::debug!(%failure, "an attempt failed");
        self.attempted(routed, failure.outcome(reused), routed.attempted_at.elapsed());
        if let Some(kind) = failure.kind()
            && let Some(version) = routed.version()
        {
            version.tally.fail(kind);
        }
    }

    /// The client, as far as trusted hops tell.
    pub(super) fn client_of(&self, client: &Client, head: &RequestHead) -> IpAddr {
        if self.is_trusted(client.peer) {
            headers::client_behind(&head.fields, client.peer, &self.options.trusted_proxies)
        } else {
            client.peer
        }
    }

    /// Counts a request that has ended, and writes its line; returns when that was.
    pub(super) fn ended(&self, client: &Client, asked: &Asked<'_>, request: &mut Request) -> Instant {
        let now = request.answered_at.unwrap_or_else(Instant::now);
        let took = now.saturating_duration_since(request.started);
        match &mut request.routed {
            Some(routed) => routed.end(request.status, took, request.failed),
            None => self.options.unrouted.add(request.answer.unwrap_or(AnswerReason::BadRequest)),
        }
        let log = self.options.access_log.as_ref().filter(|log| log.takes(request.went_wrong()));
        let trace = request.trace.take();
        if log.is_some() || trace.is_some() {
            let at = SystemTime::now();
            let entry = entry(client, asked, request, took, at);
            if let Some(log) = log {
                log.write(&entry);
            }
            if let (Some(traces), Some(trace)) = (&self.options.traces, trace) {
                traces.end(trace, &entry, at);
            }
        }
        now
    }

    /// Takes in what the head says of the client and the request's id, and tells the pod.
    pub(super) fn introduce(&self, client: &Client, head: &mut RequestHead, request: &mut Request) {
        let trusted = self.is_trusted(client.peer);
        if trusted {
            request.client = Some(self.client_of(client, head));
            if let Some(id) = super::request::RequestId::kept(&head.fields) {
                request.id = id;
            }
        }
        let hop = headers::Hop { address: &client.peer_name, trusted };
        headers::tell_upstream(head, hop, client.scheme(), &request.id);
    }
}

/// A request that has ended, as the access log shows it.
fn entry<'a>(
    client: &'a Client,
    asked: &Asked<'a>,
    request: &'a Request,
    took: Duration,
    at: SystemTime,
) -> AccessEntry<'a> {
    let routed = request.routed.as_ref();
    let endpoint = routed.and_then(|r| r.at.as_ref()).map(InFlight::endpoint);
    let field = |name| asked.fields.and_then(|fields| fields.get(name));
    AccessEntry {
        time: Timestamp::from(at),
        client: request.client.unwrap_or(client.peer),
        method: asked.method,
        host: asked.host,
        path: asked.path,
        protocol: asked.version.map(wire::Version::name),
        tls: client.tls(),
        status: request.status,
        route: routed.map(|r| r.route.name().as_str()),
        version: routed.and_then(Routed::version).map(|v| v.name.as_str()),
        reason: routed.map(|r| r.choice.reason.token()),
        answer: request.answer.map(AnswerReason::token),
        failure: request.failure.as_deref(),
        upstream: endpoint.map(|endpoint| endpoint.id.address),
        pod: endpoint.and_then(|endpoint| endpoint.pod.as_ref()),
        tried: routed.map(|r| r.tried.before_last().map(|e| e.id.address).collect()).unwrap_or_default(),
        attempts: routed.map_or(0, |r| u32::try_from(r.attempts).unwrap_or(u32::MAX)),
        duration_ms: millis(took),
        connect_ms: request.connected.map(millis),
        first_byte_ms: request.first_byte.map(millis),
        bytes: request.bytes,
        request_id: request.id.as_str(),
        trace_id: asked.fields.and_then(trace::parent).map(|parent| parent.trace_id()),
        referer: field("Referer"),
        user_agent: field("User-Agent"),
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}
