//! Answers that Serinus gives itself (contract §5).

use bytes::Bytes;
use http::StatusCode;

use crate::model::AnswerReason;
use crate::wire::{Downstream, Length, RequestHead, ResponseHead, grpc};

use super::request::{REQUEST_ID, RequestId};

/// The header that says why Serinus answered.
pub(super) const REASON_HEADER: &str = "X-Serinus-Reason";

/// The status that goes with a reason that has but one.
pub(super) fn status(reason: AnswerReason) -> u16 {
    match reason {
        AnswerReason::NoRoute => 404,
        AnswerReason::NoEndpoints
        | AnswerReason::Overloaded
        | AnswerReason::DrainTimeout
        | AnswerReason::TakenBack => 503,
        AnswerReason::ConnectFailed | AnswerReason::UpstreamReset | AnswerReason::UpstreamProtocol => 502,
        AnswerReason::Timeout => 504,
        AnswerReason::BadRequest => 400,
        AnswerReason::MethodNotAllowed => 405,
        AnswerReason::ClientTimeout => 408,
        AnswerReason::BodyTooLarge => 413,
        AnswerReason::UriTooLong => 414,
        AnswerReason::Misdirected => 421,
        AnswerReason::HeaderTooLarge => 431,
        AnswerReason::NotSupported => 501,
        AnswerReason::Redirect => 308,
        AnswerReason::Internal => 500,
    }
}

/// One line for a person who sees the answer.
fn text(reason: AnswerReason) -> &'static str {
    match reason {
        AnswerReason::NoRoute => "No route takes this host and path.",
        AnswerReason::NoEndpoints => "No pod is ready to take this request.",
        AnswerReason::Overloaded => "The router has no descriptor left for a connection to a pod.",
        AnswerReason::DrainTimeout => "The router has stopped, and waits no longer for the pod's answer.",
        AnswerReason::TakenBack => "The version that served this was taken back.",
        AnswerReason::ConnectFailed => "No pod could be reached.",
        AnswerReason::UpstreamReset => "The pod ended the connection before it had answered.",
        AnswerReason::UpstreamProtocol => "The pod's answer was not HTTP.",
        AnswerReason::Timeout => "The pod did not answer in time.",
        AnswerReason::BadRequest => "The request is malformed.",
        AnswerReason::MethodNotAllowed => "This method is not served here.",
        AnswerReason::ClientTimeout => "The request did not come in time.",
        AnswerReason::BodyTooLarge => "The body is larger than is taken here.",
        AnswerReason::UriTooLong => "The request line is longer than is taken here.",
        AnswerReason::Misdirected => "This connection's certificate is not for this host.",
        AnswerReason::HeaderTooLarge => "The header fields are more, or longer, than is taken here.",
        AnswerReason::NotSupported => "The request asks for what is not served here.",
        AnswerReason::Redirect => "Use HTTPS.",
        AnswerReason::Internal => "The router failed; see its log.",
    }
}

/// An answer of Serinus itself.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) reason: AnswerReason,
    pub(super) id: &'a RequestId,
    /// What is wrong, where more is known than the reason tells.
    pub(super) detail: Option<&'static str>,
    /// Where the client should go.
    pub(super) location: Option<String>,
}

impl Answer<'_> {
    /// Queues it, for a request with this head as far as it is known. gRPC clients get what they understand: a status of
    /// 200, and theirs in `grpc-status` (gRPC over HTTP/2, "Responses").
    pub(super) fn queue<D: Downstream>(&self, to: Option<&RequestHead>, down: &mut D) {
        let mut head = ResponseHead::default();
        head.fields.append(REASON_HEADER, self.reason.token());
        head.fields.append(REQUEST_ID, self.id.as_str());
        head.fields.append("Cache-Control", "no-store");
        let kind = to.and_then(|head| head.fields.get("Content-Type"));
        if kind.is_some_and(grpc::is_grpc) {
            head.fields.append("Content-Type", "application/grpc");
            head.fields.append("grpc-status", grpc::grpc_status(self.status));
            head.fields.append(
                "grpc-message",
                format!("{} ({})", text(self.reason).trim_end_matches('.'), self.reason),
            );
            down.start(&head, Length::None);
            return;
        }
        head.status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        head.fields.append("Content-Type", "text/plain; charset=utf-8");
        if self.reason == AnswerReason::MethodNotAllowed {
            head.fields.append("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        if let Some(location) = &self.location {
            head.fields.append("Location", location);
        }
        let detail = self.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        let body = format!("{} ({}{detail})\n", text(self.reason), self.reason);
        down.start(&head, Length::Exactly(body.len() as u64));
        if to.is_none_or(|head| head.method != http::Method::HEAD) {
            down.data(Bytes::from(body));
        }
        down.end(None);
    }
}
