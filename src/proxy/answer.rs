//! Answers that Serinus gives itself (contract §5).

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::model::AnswerReason;

use super::request::{REQUEST_ID, RequestId};

/// The header that says why Serinus answered.
pub(super) const REASON_HEADER: &str = "X-Serinus-Reason";

/// The status that goes with a reason.
pub(super) fn status(reason: AnswerReason) -> u16 {
    match reason {
        AnswerReason::NoRoute => 404,
        AnswerReason::NoEndpoints => 503,
        AnswerReason::ConnectFailed | AnswerReason::UpstreamReset | AnswerReason::UpstreamProtocol => 502,
        AnswerReason::Timeout => 504,
        AnswerReason::BadRequest => 400,
        AnswerReason::MethodNotAllowed => 405,
        AnswerReason::Internal => 500,
    }
}

/// One line for a person who sees the answer.
fn text(reason: AnswerReason) -> &'static str {
    match reason {
        AnswerReason::NoRoute => "No route takes this host and path.",
        AnswerReason::NoEndpoints => "No pod is ready to take this request.",
        AnswerReason::ConnectFailed => "No pod could be reached.",
        AnswerReason::UpstreamReset => "The pod ended the connection before it had answered.",
        AnswerReason::UpstreamProtocol => "The pod's answer was not HTTP.",
        AnswerReason::Timeout => "The pod did not answer in time.",
        AnswerReason::BadRequest => "The request is malformed.",
        AnswerReason::MethodNotAllowed => "This method is not served here.",
        AnswerReason::Internal => "The router failed; see its log.",
    }
}

/// Answers with the status and the token of `reason`. The connection is closed where a request body may be left unread,
/// or the request was not understood.
pub(super) async fn send(session: &mut Session, reason: AnswerReason, id: &RequestId) -> pingora::Result<()> {
    let body = format!("{} ({reason})\n", text(reason));
    let mut header = ResponseHeader::build(status(reason), Some(7))?;
    header.insert_header(REASON_HEADER, reason.token())?;
    header.insert_header(REQUEST_ID, id.as_str())?;
    header.insert_header("Content-Type", "text/plain; charset=utf-8")?;
    header.insert_header("Content-Length", body.len())?;
    header.insert_header("Cache-Control", "no-store")?;
    if reason == AnswerReason::MethodNotAllowed {
        header.insert_header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?;
    }
    if reason == AnswerReason::BadRequest || !session.is_body_empty() {
        session.set_keepalive(None);
    }
    let head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(header), head).await?;
    if !head {
        session.write_response_body(Some(Bytes::from(body)), true).await?;
    }
    Ok(())
}
