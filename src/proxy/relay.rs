//! One attempt: a request goes to a pod while its answer comes back, both in one future.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::{Alarm, ClientError, Downstream, Length, Piece, Refused, ResponseHead, Upstream};

use super::failure::Failure;
use super::lasting::Lasting;
use super::mirror::Digest;
use super::replay::Body;

/// How long the parts of an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the last piece of the request to the head of the answer.
    pub(super) request: Duration,
    /// How long a pod may neither send nor take anything once it has begun.
    pub(super) pod_idle: Duration,
    /// How long one half of an upgraded connection may be silent when the other one has ended.
    pub(super) half_idle: Duration,
    /// How long a client may leave between two pieces of its request.
    pub(super) client_body: Duration,
    /// How long a client may take nothing.
    pub(super) client_write: Duration,
    /// When all must have ended.
    pub(super) end: Option<Instant>,
    /// The longest body of a request.
    pub(super) max_body: Option<u64>,
}

/// An attempt under way.
pub(super) struct Relay<'a, D, U> {
    pub(super) down: &'a mut D,
    pub(super) up: &'a mut U,
    pub(super) body: &'a mut Body,
    pub(super) limits: Limits,
    pub(super) alarm: &'a mut Alarm,
    /// How many of the kept pieces were sent.
    replayed: usize,
    /// The whole request was handed over.
    sent: bool,
    /// When it is: read once each time that it is woken, where that is asked for.
    now: Option<Instant>,
    /// When something last moved.
    moved: Instant,
    /// How much waited to be written on either side when it was last looked at.
    waiting: (usize, usize),
    /// Bytes go both ways, and each way has an end of its own.
    upgraded: bool,
    /// It lasts, until its version is taken back.
    pub(super) lasting: Option<Lasting>,
    /// Its version was taken back: the end is that of its time.
    taken_back: bool,
    /// How many bytes of the answer's body came.
    pub(super) answered: u64,
    /// Of the answer's body, where it is to be compared with that of a copy.
    pub(super) digest: Option<Digest>,
}

/// Whose turn it is while a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Done,
    AwaitsClient,
    AwaitsPod,
}

impl<'a, D: Downstream, U: Upstream> Relay<'a, D, U> {
    /// An attempt whose head was handed to `up` just now, at `begun`.
    pub(super) fn new(
        down: &'a mut D,
        up: &'a mut U,
        body: &'a mut Body,
        limits: Limits,
        alarm: &'a mut Alarm,
        begun: Instant,
    ) -> Self {
        let sent = body.length == Length::None;
        Self {
            down,
            up,
            body,
            limits,
            alarm,
            replayed: 0,
            sent,
            now: Some(begun),
            moved: begun,
            waiting: (0, 0),
            upgraded: false,
            lasting: None,
            taken_back: false,
            answered: 0,
            digest: None,
        }
    }

    /// Sends the request until the final head of the answer has come.
    pub(super) async fn head(&mut self, answer: &mut ResponseHead) -> Result<Length, Failure> {
        poll_fn(|cx| {
            loop {
                self.look();
                let sending = self.poll_send(cx)?;
                let written = self.up.poll_flush(cx).map_err(Failure::Upstream)?.is_ready();
                self.look();
                if let Poll::Ready(length) = self.up.poll_head(cx, answer).map_err(Failure::Upstream)? {
                    if !answer.is_interim() {
                        return Poll::Ready(Ok(length));
                    }
                    self.down.interim(answer);
                    let _ = self.down.poll_flush(cx).map_err(Failure::Client)?;
                    continue;
                }
                let (failure, span) = match sending {
                    Sending::Done if self.down.poll_gone(cx).is_ready() => {
                        return Poll::Ready(Err(Failure::Client(ClientError::Gone)));
                    }
                    // Handed over, and not all of it taken.
                    Sending::Done if !written => (Failure::Timeout, self.limits.pod_idle),
                    Sending::Done => (Failure::Timeout, self.limits.request),
                    Sending::AwaitsClient => (Failure::Client(ClientError::TooSlow), self.limits.client_body),
                    Sending::AwaitsPod => (Failure::Timeout, self.limits.pod_idle),
                };
                return self.overdue(cx, span, failure).map(Err);
            }
        })
        .await
    }

    /// The client asked to speak something else, and the pod agreed: bytes go both ways from here on.
    pub(super) fn upgrade(&mut self) {
        self.sent = false;
        self.upgraded = true;
        self.body.length = Length::Unknown;
        *self.body = Body::new(Length::Unknown, 0);
        self.replayed = 0;
    }

    /// Passes the body of the answer on to its end, and whatever of the request is still to be sent.
    pub(super) async fn answer(&mut self) -> Result<(), Failure> {
        self.moved = self.now();
        let mut ended = false;
        poll_fn(|cx| {
            self.heed(cx);
            self.look();
            if !self.sent {
                match self.poll_send(cx) {
                    // The pod that answered need not take the rest.
                    Ok(_)
                    | Err(
                        Failure::Upstream(_)
                        | Failure::Timeout
                        | Failure::Connect(_)
                        | Failure::Status(_)
                        | Failure::TakenBack,
                    ) => {}
                    Err(Failure::Client(error)) => return Poll::Ready(Err(Failure::Client(error))),
                }
            }
            let _ = self.up.poll_flush(cx);
            let mut room = self.down.poll_room(cx).map_err(Failure::Client)?.is_ready();
            while !ended && room {
                match self.up.poll_body(cx).map_err(Failure::Upstream)? {
                    Poll::Ready(Some(Piece::Data(data))) => {
                        self.moved = self.now();
                        self.answered += data.len() as u64;
                        if let Some(digest) = &mut self.digest {
                            digest.add(&data);
                        }
                        self.down.data(data);
                        room = self.down.poll_room(cx).map_err(Failure::Client)?.is_ready();
                    }
                    Poll::Ready(Some(Piece::Trailers(trailers))) => {
                        self.down.end(Some(&trailers));
                        ended = true;
                    }
                    Poll::Ready(None) => {
                        self.down.end(None);
                        ended = true;
                    }
                    Poll::Pending => break,
                }
            }
            self.look();
            let flushed = self.down.poll_flush(cx).map_err(Failure::Client)?.is_ready();
            self.look();
            if ended && flushed && (self.sent || !self.upgraded) {
                return Poll::Ready(Ok(()));
            }
            if self.upgraded && flushed && (ended || self.sent) {
                // One half has ended: the other one need not be waited for as long as a conversation.
                return self.overdue(cx, self.limits.half_idle, Failure::Timeout).map(Err);
            }
            if ended || !flushed {
                let failure = Failure::Client(ClientError::TooSlow);
                return self.overdue(cx, self.limits.client_write, failure).map(Err);
            }
            if self.sent && self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::Client(ClientError::Gone)));
            }
            self.overdue(cx, self.limits.pod_idle, Failure::Timeout).map(Err)
        })
        .await
    }

    /// Looks whether what waited to be written has become less: somebody takes something.
    fn look(&mut self) {
        let now = (self.down.backlog(), self.up.backlog());
        if now.0 < self.waiting.0 || now.1 < self.waiting.1 {
            self.moved = self.now();
        }
        self.waiting = now;
    }

    /// Looks whether its version was taken back.
    fn heed(&mut self, cx: &mut Context<'_>) {
        if let Some(end) = self.lasting.as_mut().and_then(|lasting| lasting.poll_end(cx)) {
            self.lasting = None;
            self.limits.end = Some(end);
            self.taken_back = true;
        }
    }

    /// When it is, to what has been done since it was woken.
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// Ready with the failure when nothing has moved for so long, or the end has come. Else it waits, and time passes.
    fn overdue(&mut self, cx: &mut Context<'_>, span: Duration, failure: Failure) -> Poll<Failure> {
        self.now = None;
        let at = self.moved + span;
        match self.limits.end {
            Some(end) if end < at => {
                self.alarm.set(Some(end));
                let failure = if self.taken_back { Failure::TakenBack } else { Failure::Timeout };
                self.alarm.poll(cx).map(|()| failure)
            }
            _ => {
                self.alarm.set(Some(at));
                self.alarm.poll(cx).map(|()| failure)
            }
        }
    }

    /// Sends what can be sent of the request's body.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<Sending, Failure> {
        while !self.sent {
            if self.up.poll_room(cx).map_err(Failure::Upstream)?.is_pending() {
                return Ok(Sending::AwaitsPod);
            }
            if let Some(data) = self.body.kept(self.replayed) {
                self.replayed += 1;
                self.up.data(data.clone());
                continue;
            }
            if let Some(trailers) = self.body.ended() {
                self.up.end(trailers);
                self.sent = true;
                break;
            }
            match self.poll_piece(cx)? {
                Poll::Ready(()) => self.moved = self.now(),
                Poll::Pending => return Ok(Sending::AwaitsClient),
            }
        }
        Ok(Sending::Done)
    }

    /// Takes the next piece from the client.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        match self.down.poll_body(cx).map_err(Failure::Client)? {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Some(Piece::Data(data))) => {
                self.body.came(&data);
                self.replayed = self.body.kept_count();
                if self.limits.max_body.is_some_and(|max| self.body.received > max) {
                    return Err(Failure::Client(ClientError::Refused(TOO_LARGE)));
                }
                self.up.data(data);
            }
            Poll::Ready(Some(Piece::Trailers(trailers))) => self.body.end(Some(trailers)),
            Poll::Ready(None) => self.body.end(None),
        }
        Ok(Poll::Ready(()))
    }
}

/// A body that is longer than its route takes.
pub(super) const TOO_LARGE: Refused =
    Refused { status: 413, what: "the body is longer than the route takes" };

/// Writes out what is left of an answer that needs no pod.
pub(super) async fn flush<D: Downstream>(
    down: &mut D,
    alarm: &mut Alarm,
    patience: Duration,
) -> Result<(), ClientError> {
    alarm.after(patience);
    let mut waiting = usize::MAX;
    poll_fn(|cx| {
        if let Poll::Ready(flushed) = down.poll_flush(cx) {
            return Poll::Ready(flushed);
        }
        if down.backlog() < waiting {
            alarm.after(patience);
        }
        waiting = down.backlog();
        ready!(alarm.poll(cx));
        Poll::Ready(Err(ClientError::TooSlow))
    })
    .await
}
