//! What a failure on the way to a pod means: for the client, for the pod's record, and for a further attempt.

use http::Method;

use crate::model::{AnswerReason, FailureKind};
use crate::routing::AttemptOutcome;
use crate::tls::TlsError;
use crate::wire::{ClientError, Refused, UpstreamError};

/// The status that metrics and the access log show when the client left before it had its answer (nginx's convention).
pub(super) const CLIENT_CLOSED: u16 = 499;

/// Why an attempt ended without a whole answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The client left, or sent what cannot be served.
    #[error(transparent)]
    Client(ClientError),
    /// The pod broke off, or answered what is not HTTP.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// There was no connection.
    #[error("no connection to the pod: {0}")]
    Connect(ConnectFailure),
    /// The pod took too long.
    #[error("the pod took too long")]
    Timeout,
    /// The version was taken back, and this connection lasted beyond the deadline (semantics §5.6).
    #[error("the version was taken back, and connections that last end with it")]
    TakenBack,
    /// It answered with a status for which the route tries another pod, and there is leave to.
    #[error("the pod answered {0}")]
    Status(u16),
}

/// Why there was no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    /// Nothing listens there: no new requests until better is heard of it (semantics §2.2).
    #[error("refused")]
    Refused,
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// This process has no descriptor left, which is not the pod's fault.
    #[error("the router is out of descriptors: {0}")]
    Shortage(std::io::Error),
    /// There is no TLS with the pod.
    #[error("{0}")]
    Tls(TlsError),
    /// The network, or this machine, had none to give.
    #[error("{0}")]
    Io(std::io::Error),
}

/// On which terms a request may be tried once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// No pod has seen it: whatever its method, and outside the budget, since nobody is hammered (semantics §4.1).
    NotSeen,
    /// A pod may have seen it: within the budget (semantics §4.2, §4.3).
    WithinBudget,
    /// Within the budget, from which the leave was taken already.
    Granted,
    /// Not at all.
    Never,
}

impl Failure {
    /// On which terms a request with this method may be tried once more.
    pub(super) fn again(&self, method: &Method) -> Again {
        match self {
            // Another pod would need a descriptor as well.
            Self::Connect(ConnectFailure::Shortage(_)) => Again::Never,
            Self::Connect(_) | Self::Upstream(UpstreamError::NotTaken) => Again::NotSeen,
            Self::Upstream(UpstreamError::NoAnswer) if method.is_idempotent() => Again::WithinBudget,
            Self::Status(_) => Again::Granted,
            Self::Client(_) | Self::Upstream(_) | Self::Timeout | Self::TakenBack => Again::Never,
        }
    }

    /// The same, where the further try is made by another version than the one that failed (semantics §3.4): what is safe to
    /// repeat at all is repeated, also after a pod that may still be at work, or that answered what is not HTTP.
    pub(super) fn again_elsewhere(&self, method: &Method) -> Again {
        match self {
            Self::Timeout | Self::Upstream(UpstreamError::Broken | UpstreamError::Protocol(_))
                if method.is_idempotent() =>
            {
                Again::WithinBudget
            }
            Self::Client(_)
            | Self::Connect(_)
            | Self::Upstream(_)
            | Self::Timeout
            | Self::Status(_)
            | Self::TakenBack => self.again(method),
        }
    }

    /// How the pod failed; nothing when the fault is not its own.
    pub(super) fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Client(_)
            | Self::Status(_)
            | Self::TakenBack
            | Self::Connect(ConnectFailure::Shortage(_)) => None,
            Self::Connect(_) => Some(FailureKind::Connect),
            Self::Timeout => Some(FailureKind::Timeout),
            Self::Upstream(UpstreamError::Protocol(_)) => Some(FailureKind::Protocol),
            Self::Upstream(UpstreamError::NotTaken | UpstreamError::NoAnswer | UpstreamError::Broken) => {
                Some(FailureKind::Reset)
            }
        }
    }

    /// What it is, in a fixed word.
    pub(super) fn token(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Status(_) => "status",
            Self::TakenBack => AnswerReason::TakenBack.token(),
            Self::Connect(ConnectFailure::Shortage(_)) => AnswerReason::Overloaded.token(),
            Self::Connect(_) | Self::Timeout | Self::Upstream(_) => {
                self.kind().map_or("upstream", FailureKind::token)
            }
        }
    }

    /// What it says of the pod. `reused`: the connection had served another request before.
    pub(super) fn outcome(&self, reused: bool) -> AttemptOutcome {
        match self {
            Self::Client(_) | Self::TakenBack => AttemptOutcome::Abandoned,
            Self::Connect(ConnectFailure::Refused) => AttemptOutcome::Refused,
            // This machine has no descriptor for it: nothing is known of the pod.
            Self::Connect(ConnectFailure::Shortage(_)) => AttemptOutcome::Abandoned,
            Self::Connect(_) => AttemptOutcome::Failed(FailureKind::Connect),
            // Both sides may close a kept connection at any time: nobody's fault (semantics §4.2).
            Self::Upstream(UpstreamError::NotTaken | UpstreamError::NoAnswer) if reused => {
                AttemptOutcome::Stale
            }
            Self::Upstream(UpstreamError::Protocol(_)) => AttemptOutcome::Failed(FailureKind::Protocol),
            Self::Upstream(_) => AttemptOutcome::Failed(FailureKind::Reset),
            Self::Timeout => AttemptOutcome::Failed(FailureKind::Timeout),
            Self::Status(status) => AttemptOutcome::Answered(*status),
        }
    }

    /// The answer to a request that failed for good: its status and why; nothing when nobody is there to get one.
    pub(super) fn answer(&self) -> Option<(u16, AnswerReason)> {
        match self {
            Self::Client(ClientError::Gone) => None,
            Self::Client(ClientError::TooSlow) => Some((408, AnswerReason::ClientTimeout)),
            Self::Client(ClientError::Refused(refused)) => Some(answer_to(*refused)),
            Self::Connect(ConnectFailure::Shortage(_)) => Some((503, AnswerReason::Overloaded)),
            Self::Connect(_) => Some((502, AnswerReason::ConnectFailed)),
            Self::TakenBack => Some((503, AnswerReason::TakenBack)),
            Self::Timeout | Self::Status(_) => Some((504, AnswerReason::Timeout)),
            Self::Upstream(UpstreamError::Protocol(_)) => Some((502, AnswerReason::UpstreamProtocol)),
            Self::Upstream(_) => Some((502, AnswerReason::UpstreamReset)),
        }
    }
}

/// The answer to a request that is refused for what it is.
pub(super) fn answer_to(refused: Refused) -> (u16, AnswerReason) {
    let reason = match refused.status {
        405 => AnswerReason::MethodNotAllowed,
        413 => AnswerReason::BodyTooLarge,
        414 => AnswerReason::UriTooLong,
        431 => AnswerReason::HeaderTooLarge,
        417 | 501 | 505 => AnswerReason::NotSupported,
        _ => return (400, AnswerReason::BadRequest),
    };
    (refused.status, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_no_pods_fault_and_not_tried_again() {
        let error = std::io::Error::from_raw_os_error(24);
        let failure = Failure::Connect(ConnectFailure::Shortage(error));
        assert_eq!((failure.kind(), failure.answer()), (None, Some((503, AnswerReason::Overloaded))));
        assert_eq!(failure.again(&Method::GET), Again::Never);
    }
}
