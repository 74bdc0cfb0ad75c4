//! One stream to a pod.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, StatusCode};

use super::client::Place;
use super::outbox::{Outbox, Parcel, ROOM};
use super::{INTERIMS, convert};
use crate::model::Underscores;
use crate::wire::{Fields, Length, Piece, Refused, RequestHead, ResponseHead, Upstream, UpstreamError};

/// How many trailer fields an answer may have.
const TRAILERS: usize = 128;

/// One request to a pod over HTTP/2. Dropped before its answer was read whole, it resets the stream (CANCEL).
pub struct H2Request {
    place: Place,
    sender: Option<SendRequest<Parcel>>,
    stream: Option<SendStream<Parcel>>,
    outbox: Outbox,
    /// The request has been queued whole.
    sent: bool,
    answer: Answer,
    interims: u8,
    /// The answer to HEAD has no body.
    to_head: bool,
    /// What the connection had written before the request was queued.
    before: u64,
    /// The pod wants no more of the request.
    unwanted: bool,
}

/// How far the answer is.
enum Answer {
    Unasked,
    /// The connection did not take the request.
    Untaken,
    Unsayable(Refused),
    Awaited(ResponseFuture),
    Body(RecvStream),
    Ended,
}

impl H2Request {
    pub(super) fn new(place: Place, sender: SendRequest<Parcel>) -> Self {
        Self {
            place,
            sender: Some(sender),
            stream: None,
            outbox: Outbox::default(),
            sent: false,
            answer: Answer::Unasked,
            interims: 0,
            to_head: false,
            before: 0,
            unwanted: false,
        }
    }

    /// What a failure means to the request.
    fn failed(&self, error: &h2::Error) -> UpstreamError {
        if error.is_reset() && error.is_library() {
            // `h2` found the answer malformed.
            return UpstreamError::Protocol(Refused::bad("the answer does not keep to HTTP/2"));
        }
        if !matches!(self.answer, Answer::Awaited(_)) {
            return UpstreamError::Broken;
        }
        // A GOAWAY fails those streams alone that are beyond its last one: the pod says that it did nothing for them.
        let refused = error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away();
        let unwritten = self.place.shared().pulse.written() == self.before;
        if (error.is_remote() && refused) || unwritten {
            return UpstreamError::NotTaken;
        }
        UpstreamError::NoAnswer
    }

    /// What is wrong with sending, if anything is.
    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        match &self.answer {
            Answer::Unasked | Answer::Untaken => return Poll::Ready(UpstreamError::NotTaken),
            Answer::Unsayable(refused) => return Poll::Ready(UpstreamError::Protocol(*refused)),
            Answer::Awaited(_) | Answer::Body(_) | Answer::Ended => {}
        }
        let Some(stream) = self.stream.as_mut().filter(|_| !self.unwanted) else { return Poll::Pending };
        match ready!(stream.poll_reset(cx)) {
            // What the reset means is for the answer's side to tell: a pod may answer in full and reset what it does not want
            // to read (RFC 9113 §8.1). The rest of the request is thrown away.
            Ok(_) => {
                self.unwanted = true;
                Poll::Pending
            }
            Err(error) => Poll::Ready(self.failed(&error)),
        }
    }

    /// The final head: its body is there, comes, or never was.
    fn answered(
        &mut self,
        response: http::Response<RecvStream>,
        head: &mut ResponseHead,
    ) -> Result<Length, UpstreamError> {
        let (parts, mut body) = response.into_parts();
        let told = convert::content_length(&parts.headers);
        let never = self.to_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let done = convert::response_head(&parts, never, head).map_err(UpstreamError::Protocol);
        if never || body.is_end_stream() || told == Some(0) {
            if !body.is_end_stream() {
                // Many pods end such an answer with an empty DATA frame of its own. Where it has come it is taken, and the
                // stream need not be reset.
                let _ = body.poll_data(&mut Context::from_waker(std::task::Waker::noop()));
            }
            self.answer = Answer::Ended;
            return done.map(|()| Length::None);
        }
        self.answer = Answer::Body(body);
        done.map(|()| told.map_or(Length::Unknown, Length::Exactly))
    }
}

impl Upstream for H2Request {
    fn start(&mut self, head: &RequestHead, length: Length) {
        let Some(mut sender) = self.sender.take() else { return };
        let ends = length == Length::None;
        let request = match convert::outgoing_request(head, length, &self.place.shared().scheme) {
            Ok(request) => request,
            Err(refused) => {
                self.answer = Answer::Unsayable(refused);
                return;
            }
        };
        self.to_head = head.method == Method::HEAD;
        self.before = self.place.shared().pulse.written();
        self.sent = ends;
        self.answer = match sender.send_request(request, ends) {
            Ok((response, stream)) => {
                self.stream = Some(stream);
                Answer::Awaited(response)
            }
            Err(_) => Answer::Untaken,
        };
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        if let Poll::Ready(error) = self.poll_failed(cx) {
            return Poll::Ready(Err(error));
        }
        if self.unwanted {
            return Poll::Ready(Ok(()));
        }
        self.outbox.poll_below(cx, ROOM).map(Ok)
    }

    fn data(&mut self, data: Bytes) {
        if let Some(stream) = self.stream.as_mut().filter(|_| !self.sent && !data.is_empty()) {
            // Fails for a stream that is gone, which the next poll tells.
            let _ = stream.send_data(self.outbox.parcel(data), false);
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.sent) else { return };
        self.sent = true;
        let _ = match trailers.map(convert::outgoing_trailers).filter(|map| !map.is_empty()) {
            Some(map) => stream.send_trailers(map),
            None => stream.send_data(Parcel::end(), true),
        };
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        if let Poll::Ready(error) = self.poll_failed(cx) {
            return Poll::Ready(Err(error));
        }
        if self.unwanted {
            return Poll::Ready(Ok(()));
        }
        self.outbox.poll_written(cx).map(Ok)
    }

    fn backlog(&self) -> usize {
        self.outbox.queued()
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<Length, UpstreamError>> {
        let response = match &mut self.answer {
            Answer::Awaited(response) => response,
            Answer::Unsayable(refused) => return Poll::Ready(Err(UpstreamError::Protocol(*refused))),
            Answer::Unasked | Answer::Untaken => return Poll::Ready(Err(UpstreamError::NotTaken)),
            Answer::Body(_) | Answer::Ended => return Poll::Ready(Err(UpstreamError::Broken)),
        };
        match ready!(response.poll_informational(cx)) {
            Some(Ok(interim)) => {
                self.interims += 1;
                if self.interims > INTERIMS {
                    let what = Refused::bad("more interim answers than the limit");
                    return Poll::Ready(Err(UpstreamError::Protocol(what)));
                }
                let (parts, ()) = interim.into_parts();
                let done = convert::response_head(&parts, false, head).map_err(UpstreamError::Protocol);
                Poll::Ready(done.map(|()| Length::None))
            }
            Some(Err(error)) => Poll::Ready(Err(self.failed(&error))),
            None => match ready!(std::pin::Pin::new(response).poll(cx)) {
                Ok(response) => Poll::Ready(self.answered(response, head)),
                Err(error) => Poll::Ready(Err(self.failed(&error))),
            },
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, UpstreamError>> {
        loop {
            let body = match &mut self.answer {
                Answer::Body(body) => body,
                Answer::Ended => return Poll::Ready(Ok(None)),
                Answer::Unasked | Answer::Untaken | Answer::Unsayable(_) | Answer::Awaited(_) => {
                    return Poll::Ready(Err(UpstreamError::NoAnswer));
                }
            };
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens by what is taken, so that a slow client slows its pod down.
                    let _ = body.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(Piece::Data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(self.failed(&error))),
                None => {
                    let map = match ready!(body.poll_trailers(cx)) {
                        Ok(map) => map,
                        Err(error) => return Poll::Ready(Err(self.failed(&error))),
                    };
                    self.answer = Answer::Ended;
                    let fields = map.map(|map| convert::trailers(&map, TRAILERS, Underscores::Pass));
                    let fields = fields.transpose().map_err(UpstreamError::Protocol)?;
                    if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
                        return Poll::Ready(Ok(Some(Piece::Trailers(fields))));
                    }
                }
            }
        }
    }
}

impl Drop for H2Request {
    fn drop(&mut self) {
        let answered = matches!(self.answer, Answer::Ended);
        let done = answered && self.sent && self.outbox.queued() == 0;
        if let Some(stream) = self.stream.as_mut().filter(|_| !done) {
            // `h2` sends none for a stream that is over.
            stream.send_reset(Reason::CANCEL);
        }
    }
}

impl std::fmt::Debug for H2Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Request").field("sent", &self.sent).finish_non_exhaustive()
    }
}
