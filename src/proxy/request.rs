//! What is known of one request while it is served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora::http::RequestHeader;

use crate::model::{AnswerReason, EndpointId, Moment};
use crate::routing::tally::RetryOutcome;
use crate::routing::{Choice, Endpoint, InFlight, Route, Version};

use super::failure;

/// What is known of one request while it is served; ends with it.
#[derive(Debug)]
pub struct Request {
    pub(super) started: Instant,
    pub(super) routed: Option<Routed>,
    /// Serinus answers it itself, and why.
    pub(super) answer: Option<AnswerReason>,
    pub(super) id: RequestId,
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
    ended: bool,
}

impl Request {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), routed: None, answer: None, id: RequestId::random() }
    }
}

impl Routed {
    /// A request of this route begins, at this version.
    pub(super) fn begin(route: &Arc<Route>, choice: Choice) -> Self {
        let routed =
            Self { route: Arc::clone(route), choice, at: None, tried: Tried::default(), ended: false };
        if let Some(version) = routed.version() {
            version.tally.begin();
        }
        routed
    }

    /// It ended with this status, after this time; `failed` when no endpoint answered it.
    pub(super) fn end(&mut self, status: u16, took: Duration, failed: bool) {
        self.ended = true;
        let Some(version) = self.version() else { return };
        version.tally.end(self.choice.reason, status, took);
        if self.tried.count() > 1 {
            version.tally.retried(if failed { RetryOutcome::Failure } else { RetryOutcome::Success });
        }
    }

    pub(super) fn version(&self) -> Option<&Version> {
        self.route.versions.get(self.choice.version)
    }

    /// Moves to an endpoint that was not tried yet, if there is one.
    pub(super) fn advance(&mut self) -> Option<&Arc<Endpoint>> {
        let tried = &self.tried;
        let now = Moment::of(Instant::now());
        let next =
            self.version()?.pick(None, now, |endpoint| tried.has(&endpoint.id), || fastrand::u64(..))?;
        self.tried.add(next.endpoint());
        // The one before is left only now, so that it does not look idle to this pick.
        self.at = Some(next);
        self.at.as_ref().map(InFlight::endpoint)
    }
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
            Some(_) => self.more.push(Arc::clone(endpoint)),
        }
    }

    /// How many attempts there were.
    pub(super) fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

/// What `X-Request-Id` says.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// 32 random hexadecimal digits.
    Own([u8; 32]),
    /// What a trusted hop said.
    Kept(HeaderValue),
}

/// The header that carries a request's id.
pub(super) const REQUEST_ID: &str = "X-Request-Id";
/// A longer id from elsewhere is replaced.
const LONGEST_ID: usize = 200;

impl RequestId {
    fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut random = fastrand::u128(..);
        Self::Own(std::array::from_fn(|_| {
            let digit = (random & 0xf) as usize;
            random >>= 4;
            DIGITS.get(digit).copied().unwrap_or(b'0')
        }))
    }

    /// The id that a trusted hop gave the request, if it is one.
    pub(super) fn kept(header: &RequestHeader) -> Option<Self> {
        let id = header.headers.get(REQUEST_ID)?;
        let fit = (1..=LONGEST_ID).contains(&id.len()) && id.to_str().is_ok();
        fit.then(|| Self::Kept(id.clone()))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Own(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Kept(value) => value.to_str().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hexadecimal_and_differ() {
        let (a, b) = (RequestId::random(), RequestId::random());
        assert!(a.as_str().len() == 32 && a.as_str().bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a.as_str(), b.as_str());
    }
}
