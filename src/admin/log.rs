//! Which lines the log has: shown, and changed while the router runs.

use axum::Json;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::{HeaderMap, StatusCode};

use crate::telemetry::{Levels, LogFilter, NotOurLog, log_filter, set_log_filter};

use super::body;
use super::guard::Who;
use super::handlers::{AnyRefusal, BodyRefusal};
use super::problem::Refused;
use super::wire::{LogChange, LogStatus, ProblemDetails};

impl From<LogFilter> for LogStatus {
    fn from(LogFilter { start, asked }: LogFilter) -> Self {
        Self { start, filter: asked }
    }
}

impl From<NotOurLog> for Refused {
    fn from(error: NotOurLog) -> Self {
        Self::new(StatusCode::CONFLICT, "not-our-log", error.to_string())
    }
}

/// Which lines the log has.
#[utoipa::path(
    get,
    path = "/api/v1/log",
    tag = "log",
    security((), ("token" = [])),
    responses(
        (status = 200, description = "What the log began with, and what was asked for since.", body = LogStatus),
        (status = 409, description = "The log is not one that Serinus began.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal
    )
)]
pub(super) async fn get_log() -> Result<Json<LogStatus>, Refused> {
    Ok(Json(log_filter().ok_or(NotOurLog)?.into()))
}

/// Changes which lines the log of this replica has, until it is asked again or ends. In force for the next line.
#[utoipa::path(
    put,
    path = "/api/v1/log",
    tag = "log",
    request_body = LogChange,
    security(("token" = []), ()),
    responses(
        (status = 200, description = "Which lines the log has now.", body = LogStatus),
        (status = 409, description = "The log is not one that Serinus began.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal, BodyRefusal
    )
)]
pub(super) async fn put_log(
    Extension(Who(who)): Extension<Who>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LogStatus>, Refused> {
    let LogChange { filter } = body::json(&headers, body).await?;
    let levels = filter.as_deref().map(Levels::parse).transpose().map_err(|errors| {
        let detail = format!("the log was not changed: {}", errors.join("; "));
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-filter", detail).with_errors(errors)
    })?;
    // Before: afterwards it may be one that is not written.
    tracing::info!(who, filter, "the log's filter is changed");
    Ok(Json(set_log_filter(levels.as_ref())?.into()))
}
