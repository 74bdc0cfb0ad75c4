//! What is known of one request while it is served.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use crate::model::{AnswerReason, EndpointId, Moment, OnEmpty, Share};
use crate::routing::tally::RetryOutcome;
use crate::routing::{ActiveRequest, Choice, Endpoint, InFlight, Route, Version};
use crate::traces::Trace;
use crate::wire::{self, Fields, Glimpse, RequestHead};

use super::failure;
use super::mirror::Draft;

/// What is known of one request while it is served; ends with it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) started: Instant,
    /// When it had its answer, where a pod answered.
    pub(super) answered_at: Option<Instant>,
    pub(super) routed: Option<Routed>,
    /// Serinus answers it itself, and why.
    pub(super) answer: Option<AnswerReason>,
    pub(super) id: RequestId,
    /// The client behind trusted hops, where that is another than the hop before this one.
    pub(super) client: Option<IpAddr>,
    /// The status of the answer; 0 while there is none.
    pub(super) status: u16,
    /// How long it took to have the connection of its last attempt; nothing where one that waited was used.
    pub(super) connected: Option<Duration>,
    /// How long after it came a pod's answer did that is passed on.
    pub(super) first_byte: Option<Duration>,
    /// How many bytes of the answer's body came from a pod.
    pub(super) bytes: u64,
    /// No pod answered it.
    pub(super) failed: bool,
    /// Why its last attempt failed.
    pub(super) failure: Option<String>,
    /// Where it is traced.
    pub(super) trace: Option<Box<Trace>>,
    /// A copy of it is to be sent when it has been answered.
    pub(super) copy: Option<Draft>,
}

/// What was asked for, as the access log says it; empty where it is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) version: Option<wire::Version>,
    pub(super) fields: Option<&'a Fields>,
}

impl<'a> From<&'a RequestHead> for Asked<'a> {
    fn from(head: &'a RequestHead) -> Self {
        Self {
            method: head.method.as_str(),
            host: &head.authority,
            path: &head.target,
            version: Some(head.version),
            fields: Some(&head.fields),
        }
    }
}

impl<'a> From<&'a Glimpse> for Asked<'a> {
    fn from(seen: &'a Glimpse) -> Self {
        let method = seen.method.as_ref().map_or("", Method::as_str);
        Self { method, host: &seen.authority, path: &seen.target, version: None, fields: None }
    }
}

/// A request that found its route and version.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) route: Arc<Route>,
    pub(super) choice: Choice,
    /// Where it is now.
    pub(super) at: Option<InFlight>,
    /// Where it was tried, the present endpoint included.
    pub(super) tried: Tried,
    /// How many attempts there were.
    pub(super) attempts: usize,
    /// How many there may be.
    most: usize,
    /// When the present one began; the first begins with the request.
    pub(super) attempted_at: Instant,
    /// The same, as who is told of it has it.
    pub(super) attempted: Moment,
    /// The hash of what the route balances by.
    pub(super) key: Option<u64>,
    /// The cookie that its browser is given.
    pub(super) cookie: Option<String>,
    /// It counts among the route's active requests.
    pub(super) active: ActiveRequest,
    /// The last attempt met a connection that its pod had closed before: nobody's fault.
    pub(super) stale: bool,
    spilled: bool,
    /// Its version failed it, and stable goes on with it.
    shielded: bool,
    ended: bool,
}

impl Request {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            answered_at: None,
            routed: None,
            answer: None,
            id: RequestId::random(),
            client: None,
            status: 0,
            connected: None,
            first_byte: None,
            bytes: 0,
            failed: false,
            failure: None,
            trace: None,
            copy: None,
        }
    }

    /// Whether those who run the router want to know of it, whatever else they leave out: an error, a client that left, an answer that
    /// no pod gave or that broke off. That it was sent to HTTPS is neither.
    pub(super) fn went_wrong(&self) -> bool {
        let own = self.answer.is_some_and(|answer| answer != AnswerReason::Redirect);
        own || self.status >= failure::CLIENT_CLOSED || self.failure.is_some()
    }
}

impl Routed {
    /// A request of this route begins, at this version if it has room for it.
    pub(super) fn begin(route: &Arc<Route>, choice: Choice, started: Instant) -> Self {
        Self {
            route: Arc::clone(route),
            choice: route.admit(choice),
            at: None,
            tried: Tried::default(),
            attempts: 0,
            most: usize::from(route.spec.traffic.retries.attempts),
            attempted_at: started,
            attempted: Moment::default(),
            key: None,
            cookie: None,
            active: route.budget.begin(),
            stale: false,
            spilled: false,
            shielded: false,
            ended: false,
        }
    }

    /// It ended with this status, after this time; `failed` when no endpoint answered it.
    pub(super) fn end(&mut self, status: u16, took: Duration, failed: bool) {
        self.ended = true;
        let Some(version) = self.version() else { return };
        version.tally.end(self.choice.reason, status, took);
        if self.attempts > 1 {
            version.tally.retried(if failed { RetryOutcome::Failure } else { RetryOutcome::Success });
        }
    }

    pub(super) fn version(&self) -> Option<&Version> {
        self.route.versions.get(self.choice.version)
    }

    /// Moves to an endpoint that was not tried yet, if there is one.
    pub(super) fn advance(&mut self) -> Option<&Arc<Endpoint>> {
        if self.attempts > 0 {
            self.attempted_at = Instant::now();
        }
        let tried = &self.tried;
        self.attempted = Moment::of(self.attempted_at);
        let next =
            self.version()?.pick(self.key, self.attempted, |e| tried.has(&e.id), || fastrand::u64(..))?;
        self.tried.add(next.endpoint());
        self.attempts += 1;
        // The one before is left only now, so that it does not look idle to this pick.
        self.at = Some(next);
        self.at.as_ref().map(InFlight::endpoint)
    }

    /// Whether it may be tried once more, the kind of its last failure aside.
    pub(super) fn may_go_on(&self) -> bool {
        self.attempts < self.most
    }

    /// Whether it may be, though a pod may have seen it: what stable goes on with is repeated once (semantics §3.4).
    pub(super) fn may_be_repeated(&self) -> bool {
        self.may_go_on() && !self.shielded
    }

    /// Whether every endpoint of its version was tried.
    pub(super) fn tried_all(&self) -> bool {
        self.version().is_none_or(|v| v.candidates().iter().all(|c| self.tried.has(&c.endpoint().id)))
    }

    /// No endpoint of its version takes connections, and none has seen the request: the version is empty, and its share goes
    /// to another now, as it will for later requests in a moment (semantics §2.4). False when there is none to take it.
    pub(super) fn spill(&mut self) -> bool {
        let empty = self.version().is_some_and(|version| !usable(version));
        if self.spilled || !empty || self.route.spec.on_empty != OnEmpty::Spill {
            return false;
        }
        let versions = self.route.versions.iter().enumerate();
        // Stable, else one of the others that has a share.
        let mut heirs = versions.filter(|(i, v)| (*i == 0 || v.asked > Share::ZERO) && usable(v));
        let Some((heir, version)) = heirs.next() else { return false };
        if let Some(version) = self.version() {
            version.tally.give_away();
        }
        version.tally.begin();
        self.choice = self.choice.given_to(heir);
        self.spilled = true;
        self.most += self.attempts;
        true
    }

    /// Whether stable may go on with it where its version failed it (semantics §3.4).
    pub(super) fn may_shield(&self) -> bool {
        let shields = self.route.spec.traffic.shield && self.choice.version > 0 && !self.spilled;
        shields && self.route.versions.first().is_some_and(usable)
    }

    /// Its version failed it: stable goes on with it, where the route says so. It is the version's request all the same.
    pub(super) fn shield(&mut self) -> bool {
        if !self.may_shield() {
            return false;
        }
        let (Some(version), Some(stable)) = (self.version(), self.route.versions.first()) else {
            return false;
        };
        version.tally.hand_over();
        stable.tally.take_over();
        self.choice = self.choice.given_to(0);
        (self.spilled, self.shielded) = (true, true);
        self.most = self.attempts + usize::from(self.route.spec.traffic.retries.attempts);
        true
    }
}

/// Whether some endpoint of a version takes connections, as far as is known.
fn usable(version: &Version) -> bool {
    version.candidates().iter().any(|c| !c.endpoint().is_refused())
}

impl Drop for Routed {
    /// A request that is cut off before its end (at `drain.timeout`) is not counted as active for ever.
    fn drop(&mut self) {
        if !self.ended {
            self.end(failure::CLIENT_CLOSED, Duration::ZERO, false);
        }
    }
}

/// The endpoints that a request was sent to: the first without an allocation.
#[derive(Debug, Default)]
pub(super) struct Tried {
    first: Option<Arc<Endpoint>>,
    more: Vec<Arc<Endpoint>>,
}

impl Tried {
    fn has(&self, id: &EndpointId) -> bool {
        self.first.iter().chain(&self.more).any(|tried| tried.id == *id)
    }

    fn add(&mut self, endpoint: &Arc<Endpoint>) {
        match self.first {
            None => self.first = Some(Arc::clone(endpoint)),
            Some(_) if self.has(&endpoint.id) => {}
            Some(_) => self.more.push(Arc::clone(endpoint)),
        }
    }

    /// Each but the last, in order.
    pub(super) fn before_last(&self) -> impl Iterator<Item = &Endpoint> {
        let all = self.first.iter().chain(&self.more).map(Arc::as_ref);
        all.take(self.more.len())
    }
}

/// What `X-Request-Id` says.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// 32 random hexadecimal digits.
    Own([u8; 32]),
    /// What a trusted hop said.
    Kept(String),
}

/// The header that carries a request's id.
pub(super) const REQUEST_ID: &str = "X-Request-Id";
/// A longer id from elsewhere is replaced.
const LONGEST_ID: usize = 200;

impl RequestId {
    fn random() -> Self {
        let (a, b) = (fastrand::u64(..), fastrand::u64(..));
        let mut own = [0; 32];
        for (eight, halves) in own.as_chunks_mut().0.iter_mut().zip([a, a >> 4, b, b >> 4]) {
            *eight = hexadecimal(halves);
        }
        Self::Own(own)
    }

    /// The id that a trusted hop gave the request, if it is one.
    pub(super) fn kept(fields: &Fields) -> Option<Self> {
        let id = fields.text(REQUEST_ID)?;
        let fit =
            (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        fit.then(|| Self::Kept(id.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Own(digits) => digits,
            Self::Kept(value) => value.as_bytes(),
        }
    }
}

/// The digits of the lower half of each of eight bytes, all at once.
fn hexadecimal(bytes: u64) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let halves = bytes & (0xf * EACH);
    // 1 where 10 and more are: those become letters.
    let letters = ((halves + 6 * EACH) >> 4) & EACH;
    (halves + u64::from(b'0') * EACH + letters * u64::from(b'a' - b'0' - 10)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hexadecimal_and_differ() {
        let (a, b) = (RequestId::random(), RequestId::random());
        assert!(a.as_str().len() == 32 && a.as_str().bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(&hexadecimal(0xf7e6_d5c4_b3a2_9180), b"01234567");
        assert_eq!(&hexadecimal(0x0f1e_2d3c_4b5a_6978), b"89abcdef");
    }
}
