//! The phases of a request, one short function each.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::sync::mpsc;

use crate::model::{AnswerReason, FailureKind, Moment, Timestamp};
use crate::routing::tally::Unrouted;
use crate::routing::{AttemptOutcome, RoutingTable};
use crate::telemetry::{AccessEntry, AccessLog};

use super::failure::{self, ConnectFailure};
use super::headers::Hop;
use super::request::{Request, RequestId, Routed};
use super::{SetAside, answer, headers};

/// The table in force: one writer, and every request reads it once.
pub type Published = Arc<ArcSwap<RoutingTable>>;

/// How long a connection to a pod may take (semantics §4.4).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a pod may leave a request without a byte of an answer (semantics §4.4).
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection to a pod is kept idle. The shortest default of common servers is 5 s (Apache httpd, Node.js): it is
/// this side that should close first, for a request that meets the other side's close is lost if it cannot be repeated.
/// It is also how long a leaving pod may have to wait for its idle connections to end (semantics §2.3).
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a client, or a pod, may take nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many endpoints a request is tried on.
pub(super) const ATTEMPTS: usize = 4;

/// What a gateway needs besides the table.
#[derive(Debug)]
pub struct GatewayOptions {
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Where endpoints that are set aside are told of.
    pub set_aside: mpsc::Sender<SetAside>,
    /// The count of requests that found no version.
    pub unrouted: Arc<Unrouted>,
    /// The networks of hops whose word about a client counts.
    pub trusted_proxies: Vec<IpNet>,
}

/// Routes each request by the table in force when it came.
#[derive(Debug)]
pub struct Gateway {
    table: Published,
    options: GatewayOptions,
    /// The router is stopping: answers say `Connection: close` (semantics §4.5).
    pub(super) closing: Arc<AtomicBool>,
}

impl Gateway {
    /// A gateway that routes by what is published in `table`.
    #[must_use]
    pub fn new(table: Published, options: GatewayOptions) -> Self {
        Self { table, options, closing: Arc::default() }
    }

    /// Finds the route and the version; or the reason to answer at once.
    fn route(&self, header: &RequestHeader) -> Result<Routed, AnswerReason> {
        if header.method == http::Method::TRACE {
            return Err(AnswerReason::MethodNotAllowed);
        }
        let host = host_of(header)?;
        let table = self.table.load();
        let (route, _) = table.find(host, header.uri.path()).ok_or(AnswerReason::NoRoute)?;
        let choice = route.choose(|| fastrand::u64(..)).ok_or(AnswerReason::NoEndpoints)?;
        Ok(Routed::begin(route, choice))
    }

    async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut Request,
        reason: AnswerReason,
    ) -> pingora::Result<()> {
        ctx.answer = Some(reason);
        self.close_if_stopping(session);
        answer::send(session, reason, &ctx.id).await
    }

    /// Whether the hop before this one is trusted to speak for the client.
    fn is_trusted(&self, session: &Session) -> bool {
        let trusted = &self.options.trusted_proxies;
        !trusted.is_empty() && peer(session).is_some_and(|peer| trusted.iter().any(|net| net.contains(&peer)))
    }

    /// A request that began before the word to stop came is answered with `Connection: close` all the same.
    fn close_if_stopping(&self, session: &mut Session) {
        if self.closing.load(Ordering::Relaxed) {
            session.set_keepalive(None);
        }
    }

    /// An endpoint refused a connection: it gets no new request until better is heard of it (semantics §2.2).
    fn refused(&self, routed: &Routed) {
        let (Some(at), Some(version)) = (routed.at.as_ref(), routed.version()) else { return };
        let now = Moment::of(Instant::now());
        if let Some(reason) = version.ended(at, AttemptOutcome::Refused, Duration::ZERO, now) {
            SetAside::new(at, &routed.route, version, reason).tell(&self.options.set_aside);
        }
    }

    /// The client, as far as trusted hops tell.
    fn client(&self, session: &Session) -> Option<IpAddr> {
        let peer = peer(session)?;
        if !self.is_trusted(session) {
            return Some(peer);
        }
        Some(headers::client_behind(&session.req_header().headers, peer, &self.options.trusted_proxies))
    }

    fn log(&self, session: &Session, ctx: &Request, status: u16, took: Duration) {
        let Some(log) = &self.options.access_log else { return };
        let header = session.req_header();
        let version = ctx.routed.as_ref().and_then(Routed::version);
        log.write(&AccessEntry {
            time: Timestamp::from(SystemTime::now()),
            client: &self.client(session).map(|ip| ip.to_string()).unwrap_or_default(),
            method: header.method.as_str(),
            host: host_of(header).unwrap_or_default(),
            path: header.uri.path_and_query().map_or("", |p| p.as_str()),
            status,
            route: ctx.routed.as_ref().map(|r| r.route.name().as_str()),
            version: version.map(|v| v.name.as_str()),
            reason: ctx.routed.as_ref().map(|r| r.choice.reason.token()),
            answer: ctx.answer.map(AnswerReason::token),
            upstream: ctx.routed.as_ref().and_then(|r| r.at.as_ref()).map(|at| at.endpoint().id.to_string()),
            attempts: ctx.routed.as_ref().map_or(0, |r| u32::try_from(r.tried.count()).unwrap_or(u32::MAX)),
            duration_ms: took.as_secs_f64() * 1_000.0,
            bytes: session.body_bytes_sent(),
            request_id: ctx.id.as_str(),
        });
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request::new()
    }

    async fn early_request_filter(&self, session: &mut Session, _ctx: &mut Request) -> pingora::Result<()> {
        let downstream = session.as_downstream_mut();
        // Otherwise a next request that comes early breaks the one that is served (RFC 9112 §9.3.2).
        downstream.set_pipelining_enabled(true);
        // A client that does not read its answer would keep its connection, and the pod's, for ever.
        downstream.set_write_timeout(Some(WRITE_TIMEOUT));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Request) -> pingora::Result<bool> {
        if self.is_trusted(session)
            && let Some(id) = RequestId::kept(session.req_header())
        {
            ctx.id = id;
        }
        match self.route(session.req_header()) {
            Ok(routed) => {
                let empty = routed.version().is_none_or(|v| v.candidates().is_empty());
                ctx.routed = Some(routed);
                if empty {
                    self.answer(session, ctx, AnswerReason::NoEndpoints).await?;
                }
                Ok(empty)
            }
            Err(reason) => {
                self.answer(session, ctx, reason).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Request,
    ) -> pingora::Result<Box<HttpPeer>> {
        let endpoint = ctx.routed.as_mut().and_then(Routed::advance);
        let endpoint = endpoint.ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
        let mut peer = HttpPeer::new(endpoint.id.address, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.read_timeout = Some(READ_TIMEOUT);
        peer.options.write_timeout = Some(WRITE_TIMEOUT);
        peer.options.idle_timeout = Some(IDLE_TIMEOUT);
        Ok(Box::new(peer))
    }

    /// Nothing was sent: another endpoint may have it, whatever the method (semantics §4.1).
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(false);
        if let Some(routed) = &ctx.routed {
            if failure::connect_failure(&error) == ConnectFailure::Refused {
                self.refused(routed);
            }
            if let Some(version) = routed.version() {
                version.tally.fail(FailureKind::Connect);
                let tried = routed.tried.count();
                error.set_retry(tried < ATTEMPTS && tried < version.candidates().len());
            }
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Request,
    ) -> pingora::Result<()> {
        let hop = Hop { address: peer(session), trusted: self.is_trusted(session) };
        headers::tell_upstream(upstream, hop, "http", &ctx.id)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Request,
    ) -> pingora::Result<()> {
        headers::drop_hop_by_hop(response);
        self.close_if_stopping(session);
        if let Some(routed) = &ctx.routed
            && routed.route.spec.debug_headers
            && let Some(version) = routed.version()
        {
            response.insert_header("X-Serinus-Version", version.name.as_str())?;
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Request,
        reused: bool,
    ) -> Box<Error> {
        // Sent on a connection that the pod had closed meanwhile: repeated if that is safe (semantics §4.2).
        if !session.req_header().method.is_idempotent() || session.as_ref().retry_buffer_truncated() {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
        }
        let routed = ctx.routed.as_ref();
        if let Some(kind) = failure::upstream_failure(&error)
            && let Some(version) = routed.and_then(Routed::version)
        {
            version.tally.fail(kind);
        }
        if routed.is_none_or(|r| r.tried.count() >= ATTEMPTS) {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Request) -> FailToProxy {
        let unsent = final_status(session).is_none();
        // pingora ends the connection after a failure: the client must know, or its next request would be lost.
        session.set_keepalive(None);
        let code = match failure::answer(error).filter(|_| unsent) {
            Some(reason) => {
                // An answer that cannot be sent is the client's loss alone; the connection ends either way.
                let _ = self.answer(session, ctx, reason).await;
                answer::status(reason)
            }
            None => 0,
        };
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Request) {
        let status = final_status(session).unwrap_or(failure::CLIENT_CLOSED);
        let took = ctx.started.elapsed();
        let failed = error.is_some_and(|e| *e.esource() != pingora::ErrorSource::Downstream);
        match &mut ctx.routed {
            Some(routed) => routed.end(status, took, failed),
            None => self.options.unrouted.add(ctx.answer.unwrap_or(AnswerReason::BadRequest)),
        }
        self.log(session, ctx, status, took);
    }

    /// Failures are counted, answered with their reason and written to the access log; a line each in the log of events
    /// would let any client fill it.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Request, error: &Error) -> bool {
        tracing::debug!(%error, "request failed");
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Request,
        error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        tracing::debug!(%error, "trying another endpoint");
        true
    }
}

/// The host that was asked for. HTTP/1.0 needs none; where the target has one too, pingora has seen to it that both are the
/// same (RFC 9112 §3.2.2).
fn host_of(header: &RequestHeader) -> Result<&str, AnswerReason> {
    match header.headers.get(http::header::HOST).map(http::HeaderValue::to_str) {
        Some(Ok(host)) => Ok(host),
        None if header.version == http::Version::HTTP_10 => Ok(""),
        None | Some(Err(_)) => Err(AnswerReason::BadRequest),
    }
}

/// The status that the client got; nothing while there was at most an interim answer (RFC 9110 §15.2).
fn final_status(session: &Session) -> Option<u16> {
    let status = session.response_written()?.status;
    let interim = status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS;
    (!interim).then(|| status.as_u16())
}

/// The address of the hop before this one.
fn peer(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip().to_canonical())
}
