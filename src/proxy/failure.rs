//! What a failure on the way to a pod means.

use pingora::{Error, ErrorSource, ErrorType};

use crate::model::{AnswerReason, FailureKind};

/// The status that metrics and the access log show when the client left before it had its answer (nginx's convention).
pub(super) const CLIENT_CLOSED: u16 = 499;

/// What a failed connect says of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectFailure {
    /// Nothing listens there: no new requests until better is heard of it (semantics §2.2).
    Refused,
    /// It may be the endpoint, or the network.
    Other,
}

pub(super) fn connect_failure(error: &Error) -> ConnectFailure {
    if *error.etype() == ErrorType::ConnectRefused { ConnectFailure::Refused } else { ConnectFailure::Other }
}

/// How an upstream failed an attempt; nothing when the fault is not its own.
#[expect(clippy::wildcard_enum_match_arm, reason = "pingora's kinds of error are many, and more may come")]
pub(super) fn upstream_failure(error: &Error) -> Option<FailureKind> {
    if *error.esource() != ErrorSource::Upstream {
        return None;
    }
    Some(match error.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout => FailureKind::Connect,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => FailureKind::Timeout,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 => {
            FailureKind::Protocol
        }
        _ => FailureKind::Reset,
    })
}

/// The answer to a request that failed for good; nothing when the client is not there to get one.
pub(super) fn answer(error: &Error) -> Option<AnswerReason> {
    if let Some(kind) = upstream_failure(error) {
        return Some(match kind {
            FailureKind::Connect => AnswerReason::ConnectFailed,
            FailureKind::Reset => AnswerReason::UpstreamReset,
            FailureKind::Timeout => AnswerReason::Timeout,
            FailureKind::Protocol => AnswerReason::UpstreamProtocol,
        });
    }
    match (error.esource(), error.etype()) {
        (
            ErrorSource::Downstream,
            ErrorType::WriteError
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed
            | ErrorType::WriteTimedout,
        ) => None,
        (ErrorSource::Downstream, _) => Some(AnswerReason::BadRequest),
        _ => Some(AnswerReason::Internal),
    }
}
