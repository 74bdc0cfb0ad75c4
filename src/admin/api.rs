//! The router of the API and its OpenAPI document, made from the same list.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::Control;
use crate::routing::tally::Unrouted;
use crate::telemetry::Telemetry;

use super::events::{self, Streams};
use super::guard::{self, Gate};
use super::problem::Refused;
use super::recent::Recent;
use super::series::Series;
use super::{dashboard, handlers, log, probes};

/// How long a request may take. A change of weights waits up to two seconds for the state to be saved, and a body five
/// seconds to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the handlers need.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) control: Control,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) unrouted: Arc<Unrouted>,
    pub(super) recent: Recent,
    pub(super) series: Mutex<Series>,
    pub(super) streams: Streams,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Serinus admin API",
        description = "Routes and their weights, revisions, probes and metrics of an in-cluster canary router.\n\nShares are \
                       percentages from 0 to 100 in steps of 0.0001. Errors are problem documents (RFC 9457) that say what \
                       to do. Reads from loopback need no token; where the router has a token file, other reads and all \
                       writes need it. Without one, writes are taken from loopback only.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "routes", description = "Routes, their versions and what a request would get."),
        (name = "weights", description = "Weights and their revisions."),
        (name = "rollouts", description = "Rollouts that judge themselves."),
        (name = "events", description = "What happens, as it happens."),
        (name = "log", description = "Which lines the log has."),
        (name = "probes", description = "For a kubelet; always open."),
        (name = "metrics", description = "For Prometheus; always open."),
        (name = "dashboard", description = "The page for people, and its files; always open."),
        (name = "document", description = "This document."),
    )
)]
struct Head;

/// The paths by what they ask of a request: nothing, a host of this machine, the right to read, the right to write.
struct Paths<S = ()> {
    probes: OpenApiRouter<S>,
    open: OpenApiRouter<S>,
    reads: OpenApiRouter<S>,
    writes: OpenApiRouter<S>,
}

fn paths() -> Paths<Arc<Admin>> {
    Paths {
        probes: OpenApiRouter::new()
            .routes(routes!(probes::livez))
            .routes(routes!(probes::readyz))
            .routes(routes!(probes::healthz)),
        open: OpenApiRouter::new()
            .routes(routes!(probes::metrics))
            .routes(routes!(dashboard::get_page))
            .routes(routes!(dashboard::get_file)),
        reads: OpenApiRouter::new()
            .routes(routes!(handlers::get_openapi))
            .routes(routes!(handlers::list_routes))
            .routes(routes!(handlers::get_route))
            .routes(routes!(handlers::get_history))
            .routes(routes!(handlers::get_series))
            .routes(routes!(handlers::get_access))
            .routes(routes!(events::get_events))
            .routes(routes!(log::get_log))
            .routes(routes!(handlers::post_explain)),
        writes: OpenApiRouter::new()
            .routes(routes!(handlers::put_weights))
            .routes(routes!(handlers::post_undo))
            .routes(routes!(handlers::post_rollout))
            .routes(routes!(log::put_log)),
    }
}

/// The router with its guards.
pub(super) fn router(admin: Arc<Admin>, gate: Gate) -> Router {
    let gate = Arc::new(gate);
    let Paths { probes, open, reads, writes } = paths();
    let (router, _) = probes
        .merge(open.layer(middleware::from_fn(guard::open)))
        .merge(reads.layer(middleware::from_fn_with_state(Arc::clone(&gate), guard::read)))
        .merge(writes.layer(middleware::from_fn_with_state(gate, guard::write)))
        .split_for_parts();
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(bounded))
        .with_state(admin)
}

/// The OpenAPI 3.1 document of the admin API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let Paths { probes, open, reads, writes } = paths();
    let all =
        OpenApiRouter::with_openapi(Head::openapi()).merge(probes).merge(open).merge(reads).merge(writes);
    let mut document = all.into_openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let description = "The text in the router's `admin.tokenFile`.";
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    document
}

/// The document as it is served, made once.
pub(super) fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    // Texts and maps: writing them cannot fail.
    DOCUMENT.get_or_init(|| openapi().to_pretty_json().unwrap_or_default())
}

/// Ends requests that take too long, and says to browsers what they may do with the answers: nothing, but for the dashboard's.
async fn bounded(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(PATIENCE, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-slow",
            format!(
                "not done within {} s; a change may still come: read the route again",
                PATIENCE.as_secs()
            ),
        )
        .into_response()
    });
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The dashboard has one of its own.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

async fn unknown_path(request: Request) -> Refused {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("there is no `{path}` here; GET /openapi.json lists every path");
    Refused::new(StatusCode::NOT_FOUND, "unknown-path", detail)
}

async fn wrong_method(request: Request) -> Refused {
    let detail = format!(
        "`{}` is not for this path: the header `Allow` names the methods that are, and GET /openapi.json says what they do",
        request.method()
    );
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail)
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
