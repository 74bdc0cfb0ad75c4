//! Errors as problem documents (RFC 9457) that say what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::ChangeError;
use crate::routing::RoutingTable;
use crate::state::WeightsError;

use super::wire::ProblemDetails;

/// The media type of a problem document.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done: a status, a fixed token, and what to do.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    token: &'static str,
    detail: String,
    errors: Vec<String>,
    /// What `WWW-Authenticate` says.
    challenge: Option<&'static str>,
}

impl Refused {
    /// A refusal; `token` is the last part of the problem's `type`.
    pub(super) fn new(status: StatusCode, token: &'static str, detail: impl Into<String>) -> Self {
        Self { status, token, detail: detail.into(), errors: Vec::new(), challenge: None }
    }

    /// With each of several reasons.
    pub(super) fn with_errors(mut self, errors: Vec<String>) -> Self {
        self.errors = errors;
        self
    }

    /// With a challenge to authenticate.
    pub(super) fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// No route of this name.
    pub(super) fn unknown_route(route: &str, table: &RoutingTable) -> Self {
        WeightsError::UnknownRoute {
            route: route.chars().take(80).collect(),
            known: table.routes().iter().map(|r| r.name().clone()).collect(),
        }
        .into()
    }

    /// Weights that do not fit, with every reason.
    pub(super) fn bad_weights(errors: Vec<String>) -> Self {
        let detail = format!("the weights were not changed: {}", errors.join("; "));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-weights", detail).with_errors(errors)
    }
}

impl From<WeightsError> for Refused {
    fn from(error: WeightsError) -> Self {
        let text = error.to_string();
        match error {
            WeightsError::UnknownRoute { .. } => Self::new(StatusCode::NOT_FOUND, "unknown-route", text),
            WeightsError::BadWeights(errors) => Self::bad_weights(errors),
            WeightsError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "stale-revision", text),
            WeightsError::UnknownRevision { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-revision", text)
            }
            WeightsError::NothingToUndo(_) => Self::new(StatusCode::CONFLICT, "nothing-to-undo", text),
            WeightsError::NoRollout(_) => Self::new(StatusCode::CONFLICT, "no-rollout", text),
            WeightsError::Rollout(_) => Self::new(StatusCode::CONFLICT, "rollout-phase", text),
            WeightsError::ThirdVersion(_) | WeightsError::ThirdMeanwhile { .. } => {
                Self::new(StatusCode::CONFLICT, "third-version", text)
            }
        }
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::HandedOver => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "handed-over",
                "the router is handing over to a new process, and nothing was changed here: ask again in a moment, on a new \
                 connection, and the new process answers",
            ),
            error @ ChangeError::NotShared(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-shared", error.to_string())
            }
            ChangeError::Stopping => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "the router is stopping, and nothing was changed: ask another replica, or wait until it is back",
            ),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let document = ProblemDetails {
            kind: format!("urn:serinus:problem:{}", self.token),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        // Texts and a number: writing them cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response =
            (self.status, [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body)
                .into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
