//! Copies of requests (`mirror`): sent to a version's pod once the request has been answered, and their answers dropped.
//!
//! A copy begins when its request has ended, so that nothing of it can stand in that one's way: it is a task of its own, goes by
//! connections of its own, and takes no descriptor from a request. What is kept for it until then, and what is under way, is
//! bounded: beyond `maxInFlight` copies are dropped, and counted. It is never sent again, and is none of the version's requests:
//! not in its counts, not in its pods' records, not in a rollout's evidence.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::model::{MIRROR_HEADER, MirrorOutcome};
use crate::routing::{Endpoint, Likeness, MirrorPlace, Mirroring, Route};
use crate::tls::UpstreamConnectors;
use crate::wire::{Length, Piece, RequestHead, ResponseHead, Upstream, UpstreamError};

use super::Gateway;
use super::connect::{Connection, Reach, Wanted};
use super::pool::Pools;
use super::replay::Body;
use super::request::Routed;

/// The header by which a pod knows a copy. `Host` stays what it was: a pod that serves by host answers a copy as the request.
pub(super) const MIRROR: &str = MIRROR_HEADER;

/// How much of a body is compared, and of an answer to a copy read.
const COMPARED: u64 = 1 << 20;

/// A copy that is to be sent once its request has been answered.
#[derive(Debug)]
pub(super) struct Draft {
    route: Arc<Route>,
    /// Taken at once where a body is kept for it, so that what is kept is bounded.
    place: Option<MirrorPlace>,
    /// What the client was answered.
    original: Option<Original>,
    /// It was counted, or is under way.
    ended: bool,
}

/// What the client was answered.
#[derive(Debug)]
struct Original {
    status: u16,
    /// To the head of the answer.
    took: Duration,
    digest: Option<Digest>,
}

impl Draft {
    /// A draft where the request is one that is copied.
    pub(super) fn begin(routed: &Routed, head: &RequestHead, body: &mut Body) -> Option<Self> {
        let mirror = routed.route.mirror.as_ref()?;
        let spec = &mirror.spec;
        let goes_there = routed.choice.version == mirror.version;
        let is_copy = || head.fields.get(MIRROR).is_some();
        let never = mirror.never(goes_there, head.method.as_str(), !head.upgrade.is_empty(), is_copy);
        if never.is_some() || !mirror.draw(|| fastrand::u64(..)) {
            return None;
        }
        let mut draft = Self { route: Arc::clone(&routed.route), place: None, original: None, ended: false };
        if matches!(body.length, Length::Exactly(length) if length > spec.max_body) {
            draft.end(MirrorOutcome::TooLarge);
            return None;
        }
        if body.length != Length::None {
            draft.place = mirror.tally.place(spec.max_in_flight);
            // Dropped, where there is none.
            draft.place.as_ref()?;
            body.keep_at_least(spec.max_body);
        }
        Some(draft)
    }

    /// Begins the digest of the answer to the request, where it is compared.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.mirror()?.spec.compare.then(Digest::default)
    }

    /// The client has its answer.
    pub(super) fn answered(&mut self, status: u16, took: Duration, digest: Option<Digest>) {
        self.original = Some(Original { status, took, digest });
    }

    /// Sends it, and does not wait for it.
    pub(super) fn send(mut self, gateway: &Gateway, head: &RequestHead, body: &Body) {
        if let Some(sending) = self.sending(gateway, head, body) {
            self.ended = true;
            tokio::spawn(sending.run());
        }
    }

    /// The copy as it is sent; nothing where it is dropped.
    fn sending(&mut self, gateway: &Gateway, head: &RequestHead, body: &Body) -> Option<Sending> {
        let mirror = self.route.mirror.as_ref()?;
        if body.received > mirror.spec.max_body {
            self.end(MirrorOutcome::TooLarge);
            return None;
        }
        let pieces = body.all()?.to_vec();
        let original = self.original.take()?;
        let place = self.place.take().or_else(|| mirror.tally.place(mirror.spec.max_in_flight))?;
        let version = self.route.versions.get(mirror.version)?;
        let endpoint = Arc::clone(version.pick_for_copy(fastrand::u64(..))?);
        let mut head = head.clone();
        head.expects_continue = false;
        head.fields.set(MIRROR, "true");
        Some(Sending {
            route: Arc::clone(&self.route),
            endpoint,
            pools: Arc::clone(&gateway.pools),
            connectors: Arc::clone(&gateway.options.connectors),
            head,
            length: if body.length == Length::None { Length::None } else { Length::Exactly(body.received) },
            pieces,
            original,
            _place: place,
        })
    }

    fn mirror(&self) -> Option<&Mirroring> {
        self.route.mirror.as_ref()
    }

    fn end(&mut self, outcome: MirrorOutcome) {
        if let (false, Some(mirror)) = (std::mem::replace(&mut self.ended, true), self.mirror()) {
            mirror.tally.count(outcome);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.end(MirrorOutcome::Dropped);
    }
}

/// A copy under way.
struct Sending {
    route: Arc<Route>,
    endpoint: Arc<Endpoint>,
    pools: Arc<Pools>,
    connectors: Arc<UpstreamConnectors>,
    head: RequestHead,
    length: Length,
    pieces: Vec<Bytes>,
    original: Original,
    _place: MirrorPlace,
}

/// What came of a copy, as far as it has come.
#[derive(Debug, Default)]
struct Answer {
    /// The status of the answer, and how long its head took.
    head: Option<(u16, Duration)>,
    /// What is known of its body, once that has ended: nothing where it broke off.
    body: Option<Option<Digest>>,
}

impl Sending {
    async fn run(self) {
        let Some(mirror) = self.route.mirror.as_ref() else { return };
        let mut answer = Answer::default();
        // Where it takes too long, what has come by then is what there is.
        let _ = tokio::time::timeout(mirror.spec.timeout, self.exchange(&mut answer)).await;
        let Some((status, took)) = answer.head else { return mirror.tally.count(MirrorOutcome::Failed) };
        mirror.tally.count(MirrorOutcome::Sent);
        let (Some(original), Some(body)) = (&self.original.digest, answer.body) else { return };
        let likeness = if status != self.original.status {
            Likeness::OtherStatus
        } else if body.as_ref() == Some(original) {
            Likeness::Same
        } else {
            Likeness::OtherBody
        };
        mirror.tally.compared(likeness, self.original.took, took);
    }

    async fn exchange(&self, answer: &mut Answer) {
        let begun = Instant::now();
        let reach = Reach { pools: &self.pools, connectors: &self.connectors, for_copies: true };
        // What cannot be repeated must not meet a connection that its pod is just closing, as for requests.
        let wanted = if self.head.method.is_idempotent() { Wanted::Any } else { Wanted::New };
        let Ok(mut connection) = Connection::of(reach, &self.endpoint, wanted).await else { return };
        let mut to_pod = Upward::begin(&mut connection, self);
        let Ok((status, length)) = poll_fn(|cx| to_pod.poll_head(cx)).await else { return };
        answer.head = Some((status, begun.elapsed()));
        let mut digest = Digest::default();
        let whole = match length {
            Length::None => Ok(true),
            Length::Exactly(_) | Length::Unknown => poll_fn(|cx| to_pod.poll_rest(cx, &mut digest)).await,
        };
        let sent = to_pod.sent;
        answer.body = Some(whole.is_ok().then_some(digest));
        if whole.unwrap_or(false) && sent {
            connection.keep_for_copies(&self.pools, &self.endpoint);
        }
    }
}

/// A copy on its connection.
struct Upward<'a, U> {
    up: &'a mut U,
    left: std::slice::Iter<'a, Bytes>,
    /// All of it was handed over.
    sent: bool,
}

impl<'a, U: Upstream> Upward<'a, U> {
    fn begin(up: &'a mut U, sending: &'a Sending) -> Self {
        up.start(&sending.head, sending.length);
        Self { up, left: sending.pieces.iter(), sent: sending.length == Length::None }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        while !self.sent && self.up.poll_room(cx)?.is_ready() {
            match self.left.next() {
                Some(data) => self.up.data(data.clone()),
                None => {
                    self.up.end(None);
                    self.sent = true;
                }
            }
        }
        let _ = self.up.poll_flush(cx)?;
        Ok(())
    }

    /// The status of the answer, and the length of its body.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u16, Length), UpstreamError>> {
        let mut head = ResponseHead::default();
        loop {
            self.poll_send(cx)?;
            match self.up.poll_head(cx, &mut head)? {
                Poll::Ready(_) if head.is_interim() => {}
                Poll::Ready(length) => return Poll::Ready(Ok((head.status.as_u16(), length))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads the body of the answer, as far as it is compared; whether that was to its end.
    fn poll_rest(&mut self, cx: &mut Context<'_>, digest: &mut Digest) -> Poll<Result<bool, UpstreamError>> {
        // The pod that answered need not take the rest.
        let _ = self.poll_send(cx);
        loop {
            match self.up.poll_body(cx)? {
                Poll::Ready(Some(Piece::Data(data))) if !digest.add(&data) => return Poll::Ready(Ok(false)),
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What is known of a body without keeping it: the hash of its first mebibyte (64-bit FNV-1a, which takes it in any pieces), and
/// how much of that there was. Bodies that differ by chance are told apart; one that was made to look like another is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    hash: u64,
    length: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, length: 0 }
    }
}

impl Digest {
    /// Takes a piece in; false when it is full.
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        let room = usize::try_from(COMPARED - self.length).unwrap_or(usize::MAX);
        let taken = data.get(..room).unwrap_or(data);
        for byte in taken {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.length += taken.len() as u64;
        taken.len() == data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pieces: &[&[u8]]) -> Digest {
        let mut digest = Digest::default();
        pieces.iter().for_each(|piece| assert!(digest.add(piece)));
        digest
    }

    #[test]
    fn a_digest_is_of_the_bytes_and_not_of_their_pieces() {
        assert_eq!(digest(&[b"foobar"]).hash, 0x8594_4171_f739_67e8, "as its authors give it");
        assert_eq!(digest(&[b"foo", b"bar"]), digest(&[b"foobar"]));
        assert_ne!(digest(&[b"foobaz"]), digest(&[b"foobar"]));
        assert_ne!(digest(&[b""]), digest(&[b"\0"]));
    }

    #[test]
    fn a_digest_takes_no_more_than_it_compares() {
        let body = vec![7; usize::try_from(COMPARED).unwrap() + 1];
        let (mut long, mut full) = (Digest::default(), Digest::default());
        assert!(full.add(&body[1..]));
        assert!(!long.add(&body), "more than it takes");
        assert_eq!(long, full);
        assert!(!full.add(b"more") && full.add(b""));
        assert_eq!(long, full);
    }
}
