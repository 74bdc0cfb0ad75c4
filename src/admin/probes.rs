//! Probes and metrics: open to all, so that a kubelet and a Prometheus need no token.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::Admin;
use super::metrics;
use super::problem::Refused;
use super::wire::ProblemDetails;

/// Whether the process is alive: as long as it answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "probes",
    responses((status = 200, description = "It is.", body = String, content_type = "text/plain"))
)]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether the router takes requests: once config, Services, slices and pods are all known, and until it is told to stop.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "probes",
    responses(
        (status = 200, description = "It does.", body = String, content_type = "text/plain"),
        (status = 503, description = "It does not (yet, or any more); why.", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    ready(&admin)
}

/// The same as `/readyz`.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "probes",
    responses(
        (status = 200, description = "It is ready.", body = String, content_type = "text/plain"),
        (status = 503, description = "It is not; why.", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn healthz(State(admin): State<Arc<Admin>>) -> Response {
    ready(&admin)
}

fn ready(admin: &Admin) -> Response {
    match admin.control.readiness().hindrance() {
        None => "ok\n".into_response(),
        Some(hindrance) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {hindrance}\n")).into_response()
        }
    }
}

/// Every metric, in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "metrics",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        (status = 403, description = "A request from this machine for a foreign host (DNS rebinding).",
            body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, Refused> {
    // Ten thousand routes are some 50 MB of text: not on a thread that others wait for.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = admin.telemetry.text();
        let (table, rollouts) = (admin.control.table().load(), admin.control.rollouts());
        text.push_str(&metrics::text(&table, &rollouts, &admin.unrouted));
        let replicas = admin.control.replicas();
        text.push_str(&metrics::own(admin.control.problems().len(), replicas.as_deref()));
        text
    });
    let text = text.await.map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics could not be written")
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}
