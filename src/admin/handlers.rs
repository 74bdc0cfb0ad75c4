//! Routes, weights, revisions, `explain`: one short function each.

use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::IntoResponses;

use crate::model::{Revision, Timestamp};
use crate::rollout::Asked;
use crate::routing::Route;
use crate::state::{Request, Source};

use super::api::Admin;
use super::body::{self, AskedChange};
use super::guard::Who;
use super::problem::Refused;
use super::wire::{
    AccessStatus, ExplainRequest, Explained, History, ProblemDetails, RolloutAction, RolloutChange,
    RouteList, RouteSeries, RouteStatus, Undo, WeightsChange,
};
use super::{explain, if_match, status};

/// The refusals that any request for the API may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the OpenAPI document only")]
pub(super) enum AnyRefusal {
    /// The token is missing or wrong.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemDetails),
    /// A web page of another origin, a foreign host on loopback, or writes without a token off loopback.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemDetails),
    /// The token file cannot be read, the router is stopping, or it took too long.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemDetails),
}

/// The refusals that a request for one route may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the OpenAPI document only")]
pub(super) enum RouteRefusal {
    /// There is no such route.
    #[response(status = 404, content_type = "application/problem+json")]
    UnknownRoute(ProblemDetails),
}

/// The refusals that a request with a body may meet.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the OpenAPI document only")]
pub(super) enum BodyRefusal {
    /// Malformed JSON, or a malformed `If-Match`.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(ProblemDetails),
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(ProblemDetails),
    /// The body is larger than 64 KiB.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemDetails),
    /// The content type is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(ProblemDetails),
    /// The JSON does not fit; `errors` has every reason.
    #[response(status = 422, content_type = "application/problem+json")]
    Unfit(ProblemDetails),
}

/// Every route, with what is asked of it, what is in force and how its versions do.
#[utoipa::path(
    get,
    path = "/api/v1/routes",
    tag = "routes",
    security((), ("token" = [])),
    responses((status = 200, description = "The routes.", body = RouteList), AnyRefusal)
)]
pub(super) async fn list_routes(State(admin): State<Arc<Admin>>) -> Result<Json<RouteList>, Refused> {
    // Ten thousand routes take a while: not on a thread that others wait for.
    let list = tokio::task::spawn_blocking(move || {
        let table = admin.control.table().load();
        let rollouts = admin.control.rollouts();
        RouteList {
            generation: table.generation().0,
            problems: admin.control.problems().iter().map(status::problem).collect(),
            replicas: admin
                .control
                .replicas()
                .as_deref()
                .map(|all| status::replicas(all, &table))
                .unwrap_or_default(),
            routes: table
                .routes()
                .iter()
                .map(|route| status::route(route, &admin.recent, &rollouts))
                .collect(),
        }
    });
    list.await.map(Json).map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the routes could not be listed")
    })
}

/// One route.
#[utoipa::path(
    get,
    path = "/api/v1/routes/{route}",
    tag = "routes",
    security((), ("token" = [])),
    params(("route" = String, Path, description = "The route's name.")),
    responses(
        (status = 200, description = "The route.", body = RouteStatus,
            headers(("ETag" = String, description = "The revision in force, for `If-Match`."))),
        AnyRefusal, RouteRefusal
    )
)]
pub(super) async fn get_route(
    State(admin): State<Arc<Admin>>,
    route: Result<Path<String>, PathRejection>,
) -> Result<Response, Refused> {
    Ok(admin.show(&*admin.route(route)?))
}

/// Changes weights now: versions left out keep theirs, stable takes the rest. Answers the route as it is then, live.
#[utoipa::path(
    put,
    path = "/api/v1/routes/{route}/weights",
    tag = "weights",
    params(
        ("route" = String, Path, description = "The route's name."),
        ("If-Match" = Option<String>, Header, description = "Only if this revision, like `\"7\"`, is in force."),
    ),
    request_body = WeightsChange,
    security(("token" = []), ()),
    responses(
        (status = 200, description = "The route with the new weights in force.", body = RouteStatus,
            headers(("ETag" = String, description = "The revision in force, for `If-Match`."))),
        (status = 409, description = "A rollout is under way, and a third version would get a share.",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "Another revision is in force than `If-Match` names.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal, RouteRefusal, BodyRefusal
    )
)]
pub(super) async fn put_weights(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    route: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let asked: AskedChange = body::json(&headers, body).await?;
    let route = admin.route(route)?;
    let expected = if_match::expected(&headers, route.revision)?;
    let versions: Vec<&str> = route.versions.iter().map(|v| v.name.as_str()).collect();
    let shares = asked.shares(&versions).map_err(Refused::bad_weights)?;
    let request = request(who, asked.reason, expected);
    let changed = admin.control.set_weights(route.name().as_str(), shares, request).await?;
    Ok(admin.show(&changed))
}

/// The last revisions of a route's weights, the newest last.
#[utoipa::path(
    get,
    path = "/api/v1/routes/{route}/history",
    tag = "weights",
    security((), ("token" = [])),
    params(("route" = String, Path, description = "The route's name.")),
    responses(
        (status = 200, description = "The revisions.", body = History),
        AnyRefusal, RouteRefusal
    )
)]
pub(super) async fn get_history(
    State(admin): State<Arc<Admin>>,
    route: Result<Path<String>, PathRejection>,
) -> Result<Json<History>, Refused> {
    let route = admin.route(route)?;
    let name = route.name().as_str();
    let entries = admin.control.history(name).await;
    let entries = entries.ok_or_else(|| Refused::unknown_route(name, &admin.control.table().load()))?;
    let revisions = entries.into_iter().map(status::revision).collect();
    Ok(Json(History { route: name.to_owned(), revisions }))
}

/// What each version of a route had in the last quarter of an hour, in samples of five seconds: requests, errors, times.
#[utoipa::path(
    get,
    path = "/api/v1/routes/{route}/series",
    tag = "routes",
    security((), ("token" = [])),
    params(("route" = String, Path, description = "The route's name.")),
    responses(
        (status = 200, description = "The samples.", body = RouteSeries),
        AnyRefusal, RouteRefusal
    )
)]
pub(super) async fn get_series(
    State(admin): State<Arc<Admin>>,
    route: Result<Path<String>, PathRejection>,
) -> Result<Json<RouteSeries>, Refused> {
    let route = admin.route(route)?;
    // A sample of thousands of versions holds it for milliseconds.
    let series = admin.series.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Json(series.of(&route, Instant::now(), SystemTime::now())))
}

/// Whether a change with the same headers would be let through, and what it needs otherwise. Asking changes nothing.
#[utoipa::path(
    get,
    path = "/api/v1/access",
    tag = "routes",
    security((), ("token" = [])),
    responses((status = 200, description = "What one may do.", body = AccessStatus), AnyRefusal)
)]
pub(super) async fn get_access(Extension(access): Extension<AccessStatus>) -> Json<AccessStatus> {
    Json(access)
}

/// Goes back to the weights of a revision, or of the one before the one in force. That is a new revision.
#[utoipa::path(
    post,
    path = "/api/v1/routes/{route}/undo",
    tag = "weights",
    params(
        ("route" = String, Path, description = "The route's name."),
        ("If-Match" = Option<String>, Header, description = "Only if this revision, like `\"7\"`, is in force."),
    ),
    request_body(content = Option<Undo>, description = "May be left out; without a token the content type may not."),
    security(("token" = []), ()),
    responses(
        (status = 200, description = "The route with the weights of then in force.", body = RouteStatus,
            headers(("ETag" = String, description = "The revision in force, for `If-Match`."))),
        (status = 409, description = "There is no revision before the one in force, or a rollout is under way and a \
            third version would get a share.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "Another revision is in force than `If-Match` names.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal, RouteRefusal, BodyRefusal
    )
)]
pub(super) async fn post_undo(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    route: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let undo: Undo = body::optional_json(&headers, body).await?.unwrap_or_default();
    let route = admin.route(route)?;
    let expected = if_match::expected(&headers, route.revision)?;
    body::check_reason(undo.reason.as_deref())
        .map_err(|error| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-fields", error))?;
    let request = request(who, undo.reason, expected);
    let to = undo.to_revision.map(Revision);
    let changed = admin.control.undo(route.name().as_str(), to, request).await?;
    Ok(admin.show(&changed))
}

/// Starts, pauses, resumes, promotes or aborts the rollout that the config gives a route.
#[utoipa::path(
    post,
    path = "/api/v1/routes/{route}/rollout",
    tag = "rollouts",
    params(
        ("route" = String, Path, description = "The route's name."),
        ("If-Match" = Option<String>, Header, description = "Only if this revision, like `\"7\"`, is in force."),
    ),
    request_body = RolloutChange,
    security(("token" = []), ()),
    responses(
        (status = 200, description = "The route as it is then.", body = RouteStatus,
            headers(("ETag" = String, description = "The revision in force, for `If-Match`."))),
        (status = 409, description = "The route has no rollout, that is not to be had in its phase, or a third \
            version has a share.",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "Another revision is in force than `If-Match` names.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal, RouteRefusal, BodyRefusal
    )
)]
pub(super) async fn post_rollout(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    route: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let RolloutChange { action, full, reason } = body::json(&headers, body).await?;
    let route = admin.route(route)?;
    let expected = if_match::expected(&headers, route.revision)?;
    let bad = |error: String| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-fields", error);
    body::check_reason(reason.as_deref()).map_err(bad)?;
    let asked = match action {
        RolloutAction::Start => Asked::Start,
        RolloutAction::Pause => Asked::Pause,
        RolloutAction::Resume => Asked::Resume,
        RolloutAction::Promote if full => Asked::PromoteFull,
        RolloutAction::Promote => Asked::Promote,
        RolloutAction::Abort => Asked::Abort,
    };
    if full && action != RolloutAction::Promote {
        return Err(bad("`full` goes with `promote` alone: leave it out".to_owned()));
    }
    let request = request(who, reason, expected);
    let changed = admin.control.ask_rollout(route.name().as_str(), asked, request).await?;
    Ok(admin.show(&changed))
}

/// What a request would get, and why. Changes nothing: the split does not move.
#[utoipa::path(
    post,
    path = "/api/v1/explain",
    tag = "routes",
    security((), ("token" = [])),
    request_body = ExplainRequest,
    responses(
        (status = 200, description = "What it would get.", body = Explained),
        AnyRefusal, BodyRefusal
    )
)]
pub(super) async fn post_explain(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Explained>, Refused> {
    let asked: ExplainRequest = body::json(&headers, body).await?;
    let explained = explain::explain(&admin.control.table().load(), &asked);
    explained
        .map(Json)
        .map_err(|error| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-fields", error.to_string()))
}

/// This API as an OpenAPI 3.1 document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "document",
    security((), ("token" = [])),
    responses(
        (status = 200, description = "The document.", body = serde_json::Value),
        AnyRefusal
    )
)]
pub(super) async fn get_openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::api::document().to_owned()).into_response()
}

fn request(Who(who): Who, reason: Option<String>, expected: Option<Revision>) -> Request {
    let reason = reason.filter(|reason| !reason.is_empty());
    Request {
        source: Source::Admin,
        who: Some(who),
        reason,
        expected,
        at: Timestamp::from(SystemTime::now()),
    }
}

impl Admin {
    fn route(&self, name: Result<Path<String>, PathRejection>) -> Result<Arc<Route>, Refused> {
        let Path(name) = name.map_err(|error| {
            Refused::new(StatusCode::BAD_REQUEST, "bad-path", format!("the route's name: {error}"))
        })?;
        let table = self.control.table().load();
        table.route(&name).cloned().ok_or_else(|| Refused::unknown_route(&name, &table))
    }

    fn show(&self, route: &Route) -> Response {
        let mut response = Json(status::route(route, &self.recent, &self.control.rollouts())).into_response();
        // A number between quotes is always a header value.
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", route.revision)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
