//! One request, from its head to the end of its answer: routed, tried on one pod after the other, answered.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::model::{AnswerReason, Balance, Timeouts};
use crate::routing::{AttemptOutcome, RetryPermit, request_key};
use crate::wire::{
    Alarm, Downstream, Glimpse, Length, Refused, RequestHead, ResponseHead, Upstream as _, UpstreamError,
};

use super::Gateway;
use super::answer::{self, Answer};
use super::connect::{Connection, Wanted};
use super::connection::Client;
use super::failure::{self, Again, ConnectFailure, Failure};
use super::lasting::Lasting;
use super::mirror::Draft;
use super::relay::{self, Limits, Relay, TOO_LARGE};
use super::replay::Body;
use super::request::{Asked, Request, Routed};
use super::seen::{self, Seen};
use super::trace;

/// How long a request waits at most for a place in the budget of retries.
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);
/// How long one half of an upgraded connection may be silent when the other one has ended: most have nothing more to say.
const HALF_IDLE: Duration = Duration::from_secs(5);
/// How long it waits at first, and at most, before it looks again.
const BUDGET_PAUSE: Duration = Duration::from_millis(1);
const SLOWEST_BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// One request of one client.
pub(super) struct Exchange<'a, D> {
    pub(super) gateway: &'a Gateway,
    pub(super) client: &'a Client,
    pub(super) down: &'a mut D,
    pub(super) alarm: &'a mut Alarm,
}

impl<D: Downstream> Exchange<'_, D> {
    /// Serves a request that passed every check of `wire`; returns when it ended.
    pub(super) async fn serve(&mut self, head: &mut RequestHead, length: Length) -> Instant {
        let (gateway, client) = (self.gateway, self.client);
        let mut request = Request::new();
        request.trace = gateway.options.traces.as_ref().and_then(|traces| trace::begin(traces, head));
        let mut entry = Entry { gateway, client, head, request, ended: false };
        if gateway.is_closing() {
            self.down.close_after();
        }
        let forwarded = {
            let forwarding = pin!(self.forward(entry.head, length, &mut entry.request));
            unless_cut(gateway, forwarding).await
        };
        let failure = match forwarded {
            Some(forwarded) => forwarded.err(),
            None => Some((answer::status(AnswerReason::DrainTimeout), AnswerReason::DrainTimeout)),
        };
        match failure {
            Some((status, reason)) if entry.request.status == 0 => {
                self.answer(status, reason, None, Some(entry.head), &mut entry.request).await;
            }
            Some((_, reason)) => {
                // What was begun is cut.
                entry.request.answer = Some(reason);
                self.down.close_after();
            }
            None => {}
        }
        entry.end()
    }

    /// Answers what is not a request that can be served; `seen` of it is logged.
    pub(super) async fn refuse(&mut self, refused: Refused, seen: &Glimpse) {
        let mut request = Request::new();
        let (status, reason) = failure::answer_to(refused);
        self.down.close_after();
        self.answer(status, reason, Some(refused.what), None, &mut request).await;
        self.gateway.ended(self.client, &seen.into(), &mut request);
    }

    /// The client began a request and did not end its head in time.
    pub(super) async fn time_out(&mut self, seen: &Glimpse) {
        let mut request = Request::new();
        let reason = AnswerReason::ClientTimeout;
        self.down.close_after();
        self.answer(answer::status(reason), reason, None, None, &mut request).await;
        self.gateway.ended(self.client, &seen.into(), &mut request);
    }

    async fn answer(
        &mut self,
        status: u16,
        reason: AnswerReason,
        detail: Option<&'static str>,
        head: Option<&RequestHead>,
        request: &mut Request,
    ) {
        request.status = status;
        request.answer = Some(reason);
        let location =
            head.filter(|_| reason == AnswerReason::Redirect).map(|head| self.client.site.location(head));
        if self.gateway.is_closing() {
            self.down.close_after();
        }
        Answer { status, reason, id: &request.id, detail, location }.queue(head, self.down);
        let patience = self.client.site.edge.write_timeout;
        // An answer that cannot be sent is the client's loss alone.
        let _ = relay::flush(self.down, self.alarm, patience).await;
    }

    /// Finds a pod for the request, and passes its answer on. What is returned is to be answered instead.
    async fn forward(
        &mut self,
        head: &mut RequestHead,
        length: Length,
        request: &mut Request,
    ) -> Result<(), (u16, AnswerReason)> {
        let own = |reason| (answer::status(reason), reason);
        if let Some(redirect) = &self.client.site.edge.redirect {
            if head.authority.is_empty() {
                // Nobody knows where to send it.
                return Err(own(AnswerReason::BadRequest));
            }
            return Err((redirect.status, AnswerReason::Redirect));
        }
        if !self.client.is_for(&head.authority) {
            return Err(own(AnswerReason::Misdirected));
        }
        let routed =
            request.routed.insert(self.gateway.route(self.client, head, request.started).map_err(own)?);
        if routed.version().is_none_or(|v| v.candidates().is_empty()) {
            return Err(own(AnswerReason::NoEndpoints));
        }
        let traffic = &routed.route.spec.traffic;
        if let (Length::Exactly(length), Some(max)) = (length, traffic.max_body)
            && length > max
        {
            return Err(failure::answer_to(TOO_LARGE));
        }
        let limits = self.limits(&traffic.timeouts, traffic.max_body);
        let mut body = Body::new(length, traffic.retries.buffer);
        if let Balance::Hash(key) = &routed.route.spec.balance {
            routed.key = request_key(&Seen { gateway: self.gateway, client: self.client, head }, key);
        }
        self.gateway.introduce(self.client, head, request);
        if let Some(routed) = request.routed.as_mut() {
            routed.cookie = seen::cookie(routed, head);
        }
        request.copy = request.routed.as_ref().and_then(|routed| Draft::begin(routed, head, &mut body));
        match self.attempts(head, &mut body, &limits, request).await {
            Ok(()) => {
                // Now that nothing of it can stand in its way.
                if let Some(copy) = request.copy.take() {
                    if let Some(trace) = &request.trace {
                        trace::whole(trace, head);
                    }
                    copy.send(self.gateway, head, &body);
                }
                Ok(())
            }
            Err(failure) => {
                request.failed = failure.kind().is_some();
                request.failure = Some(failure.to_string());
                match failure.answer().filter(|_| request.status == 0) {
                    Some(answer) => Err(answer),
                    None => {
                        if request.status == 0 {
                            request.status = failure::CLIENT_CLOSED;
                        } else {
                            // Its answer broke off: what the client saw, the log should say.
                            request.answer = failure.answer().map(|(_, reason)| reason);
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    fn limits(&self, timeouts: &Timeouts, max_body: Option<u64>) -> Limits {
        let edge = &self.client.site.edge;
        Limits {
            request: timeouts.request,
            pod_idle: timeouts.idle,
            half_idle: timeouts.idle.min(HALF_IDLE),
            client_body: edge.body_timeout,
            client_write: edge.write_timeout,
            end: timeouts.total.map(|total| Instant::now() + total),
            max_body,
        }
    }

    /// Tries one pod after the other, as far as that is safe (semantics §3.4, §4.1–§4.3).
    async fn attempts(
        &mut self,
        head: &mut RequestHead,
        body: &mut Body,
        limits: &Limits,
        request: &mut Request,
    ) -> Result<(), Failure> {
        let mut permit = None;
        loop {
            // A connection that waited is not met twice: where one was closed, others may be.
            let wanted = if request.routed.as_ref().is_some_and(|r| r.attempts > 0) {
                Wanted::New
            } else if head.method.is_idempotent() {
                Wanted::Any
            } else {
                // What cannot be repeated must not meet one that its pod is just closing (semantics §4.2).
                Wanted::New
            };
            let Err(failure) = self.attempt(head, body, limits, request, wanted, &mut permit).await else {
                return Ok(());
            };
            if let Some(trace) = &mut request.trace {
                trace::failed(trace, &failure, request.status, request.started.elapsed());
            }
            let Some(routed) = request.routed.as_mut() else { return Err(failure) };
            let shields = shields(&failure, routed, limits);
            let again = if request.status != 0 || !body.can_be_repeated() {
                Again::Never
            } else if shields {
                failure.again_elsewhere(&head.method)
            } else {
                failure.again(&head.method)
            };
            let unreachable = matches!(failure, Failure::Connect(_)) && routed.tried_all();
            let more = match again {
                Again::Never => false,
                Again::NotSeen => (routed.may_go_on() && !unreachable) || routed.spill() || routed.shield(),
                Again::Granted => true,
                Again::WithinBudget => {
                    // The leave for the attempt that just failed is given back first.
                    drop(permit.take());
                    permit = if routed.may_be_repeated() || shields { leave(routed).await } else { None };
                    permit.is_some()
                }
            };
            if more && shields && again != Again::NotSeen {
                routed.shield();
            }
            if !more {
                return Err(failure);
            }
        }
    }

    /// Sends the request to one pod, and its answer to the client.
    async fn attempt(
        &mut self,
        head: &mut RequestHead,
        body: &mut Body,
        limits: &Limits,
        request: &mut Request,
        wanted: Wanted,
        permit: &mut Option<RetryPermit>,
    ) -> Result<(), Failure> {
        let gateway = self.gateway;
        request.connected = None;
        let mut connection = connection(gateway, head, request, wanted).await?;
        let Some(routed) = request.routed.as_mut() else { return Err(Failure::Timeout) };
        let reused = connection.is_reused();
        connection.start(head, body.length);
        let mut answer = connection.room_for_head();
        // One that waited took no time to be had.
        let begun = if reused { Instant::from_std(routed.attempted_at) } else { Instant::now() };
        request.connected =
            (!reused).then(|| begun.into_std().saturating_duration_since(routed.attempted_at));
        let mut relay = Relay::new(&mut *self.down, &mut connection, body, *limits, self.alarm, begun);
        let length = match relay.head(&mut answer).await {
            Ok(length) => length,
            Err(failure) => {
                routed.stale = failure.outcome(reused) == AttemptOutcome::Stale;
                gateway.failed(&failure, routed, reused);
                return Err(failure);
            }
        };
        routed.stale = false;
        if reused && answer.status == StatusCode::REQUEST_TIMEOUT && repeatable(head, relay.body) {
            // Said to nobody: the pod took leave of an idle connection, and the request crossed it (RFC 9110 §15.5.9).
            let failure = Failure::Upstream(UpstreamError::NoAnswer);
            routed.stale = true;
            gateway.failed(&failure, routed, reused);
            return Err(failure);
        }
        let head_at = relay.now().into_std();
        let took = head_at.saturating_duration_since(routed.attempted_at);
        let status = answer.status.as_u16();
        let retries = &routed.route.spec.traffic.retries;
        let shields = status >= 500 && routed.may_shield();
        let wanted = shields || (retries.on.contains(&status) && routed.may_be_repeated());
        if wanted && repeatable(head, relay.body) {
            drop(permit.take());
            *permit = routed.active.try_retry(retries);
            if permit.is_some() {
                let failure = Failure::Status(status);
                gateway.failed(&failure, routed, reused);
                return Err(failure);
            }
        }
        request.status = status;
        request.first_byte = Some(head_at.saturating_duration_since(request.started));
        relay.digest = request.copy.as_ref().and_then(Draft::digest);
        let passed = pass_on(gateway, &mut relay, &mut answer, length, routed).await;
        request.bytes = relay.answered;
        match passed {
            Ok(()) => {
                gateway.attempted(routed, AttemptOutcome::Answered(status), took);
                if let Some(copy) = &mut request.copy {
                    copy.answered(status, took, relay.digest.take());
                }
                let now = Instant::now().into_std();
                request.answered_at = Some(now);
                if let Some(at) = &routed.at {
                    connection.keep(gateway, at.endpoint(), now, answer);
                }
                Ok(())
            }
            Err(failure) => {
                if failure.kind().is_some() {
                    // What has come is the client's, though it is not all.
                    let _ = relay::flush(self.down, self.alarm, limits.client_write).await;
                }
                gateway.failed(&failure, routed, false);
                Err(failure)
            }
        }
    }
}

/// Whether stable goes on with a request that failed so (semantics §3.4). Not where its version has not failed it: its connection
/// had been closed before, or its answer is one that the route wants another pod's instead of; nor when its time is over.
fn shields(failure: &Failure, routed: &Routed, limits: &Limits) -> bool {
    let others_turn = (routed.stale && routed.may_go_on()) || matches!(failure, Failure::Status(..500));
    let over = limits.end.is_some_and(|end| Instant::now() >= end);
    !others_turn && !over && routed.may_shield()
}

/// A connection to the next pod: one that waits, or a new one.
async fn connection(
    gateway: &Gateway,
    head: &mut RequestHead,
    request: &mut Request,
    wanted: Wanted,
) -> Result<Connection, Failure> {
    let routed = request.routed.as_mut();
    let next = routed.and_then(|routed| routed.advance().map(Arc::clone).map(|endpoint| (routed, endpoint)));
    let Some((routed, endpoint)) = next else { return Err(Failure::Connect(ConnectFailure::Refused)) };
    if head.authority.is_empty() {
        // Only HTTP/1.0 may leave it out; the pod is spoken to in HTTP/1.1.
        head.fields.set("Host", endpoint.id.address.to_string());
    }
    if let Some(trace) = &mut request.trace {
        trace::attempt(trace, routed, request.started, head);
    }
    Connection::open(gateway, &routed.route, &endpoint, wanted, routed.attempted_at).await.map_err(|error| {
        let failure = Failure::Connect(error);
        gateway.failed(&failure, routed, false);
        failure
    })
}

/// Passes an answer on whose head has come.
async fn pass_on<D: Downstream>(
    gateway: &Gateway,
    relay: &mut Relay<'_, D, Connection>,
    answer: &mut ResponseHead,
    length: Length,
    routed: &Routed,
) -> Result<(), Failure> {
    let upgraded = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    if routed.route.spec.debug_headers
        && let Some(version) = routed.version()
    {
        answer.fields.set("X-Serinus-Version", version.name.as_str());
    }
    if let Some(cookie) = &routed.cookie {
        answer.fields.append("Set-Cookie", cookie);
    }
    if gateway.is_closing() {
        relay.down.close_after();
    }
    relay.down.start(answer, length);
    if upgraded {
        relay.upgrade();
    } else if length == Length::None {
        let patience = relay.limits.client_write;
        return relay::flush(relay.down, relay.alarm, patience).await.map_err(Failure::Client);
    }
    if upgraded || is_stream(answer) {
        relay.limits.end = None;
        relay.limits.pod_idle = routed.route.spec.traffic.timeouts.upgraded_idle;
        relay.limits.client_body = relay.limits.pod_idle;
        relay.lasting = routed.version().map(|version| Lasting::one_of(&version.sessions));
    }
    relay.answer().await
}

/// Whether a request may be sent once more though a pod may have seen it (RFC 9110 §9.2.2).
fn repeatable(head: &RequestHead, body: &Body) -> bool {
    head.method.is_idempotent() && body.can_be_repeated()
}

/// The leave to repeat a request: waited for for a moment, since those who have it need it only for as long as an answer
/// takes.
async fn leave(routed: &Routed) -> Option<RetryPermit> {
    let retries = &routed.route.spec.traffic.retries;
    let mut pause = BUDGET_PAUSE;
    let until = Instant::now() + BUDGET_PATIENCE;
    loop {
        let permit = routed.active.try_retry(retries);
        if permit.is_some() || Instant::now() >= until {
            return permit;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(SLOWEST_BUDGET_PAUSE);
    }
}

/// Ends as `future` does; or with nothing, once the router waits for no request any more.
async fn unless_cut<T>(gateway: &Gateway, mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if gateway.is_cut() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// A request that is counted and logged at its end, whichever way that comes: its connection may be dropped with it.
struct Entry<'a> {
    gateway: &'a Gateway,
    client: &'a Client,
    head: &'a mut RequestHead,
    request: Request,
    ended: bool,
}

impl Entry<'_> {
    fn end(&mut self) -> Instant {
        self.ended = true;
        let now = self.gateway.ended(self.client, &Asked::from(&*self.head), &mut self.request);
        Instant::from_std(now)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cut = self.gateway.is_cut().then_some(AnswerReason::DrainTimeout);
        self.request.answer = self.request.answer.or(cut);
        if self.request.status == 0 {
            self.request.status = cut.map_or(failure::CLIENT_CLOSED, answer::status);
        }
        self.end();
    }
}

/// Whether an answer may go on for ever, with long silences: no limit on its whole time then (semantics §4.4).
fn is_stream(answer: &ResponseHead) -> bool {
    let kind = answer.fields.get("Content-Type").unwrap_or_default();
    let begins = |with: &[u8]| kind.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    begins(b"text/event-stream") || begins(b"application/grpc")
}
