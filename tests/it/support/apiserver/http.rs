//! Requests of a loopback API server: paths, verbs, lists, watches and the errors of the real one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until};

use super::events;
use super::store::{Filter, Key, RESOURCES, Resource, Say, merge};
use super::{Inner, Seen};

/// Which resource and object a path names.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
        [plural] => (None, *plural, None),
        [plural, name] => (None, *plural, Some(*name)),
        _ => return None,
    };
    let resource =
        RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)?;
    Some(Target {
        resource: *resource,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
    })
}

/// The parameters of a request.
#[derive(Default)]
struct Query {
    watch: bool,
    bookmarks: bool,
    limit: usize,
    token: Option<String>,
    version: Option<String>,
    labels: Option<String>,
    fields: Option<String>,
    timeout: Option<Duration>,
}

fn query(uri: &http::Uri) -> Query {
    let mut query = Query { limit: usize::MAX, ..Query::default() };
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let value = value.into_owned();
        match key.as_ref() {
            "watch" => query.watch = value == "true" || value == "1",
            "allowWatchBookmarks" => query.bookmarks = value == "true",
            "limit" => query.limit = value.parse().unwrap(),
            "continue" => query.token = Some(value),
            "resourceVersion" => query.version = Some(value),
            "labelSelector" => query.labels = Some(value),
            "fieldSelector" => query.fields = Some(value),
            "timeoutSeconds" => query.timeout = Some(Duration::from_secs(value.parse().unwrap())),
            _ => {}
        }
    }
    query
}

/// A `Status` that says what failed.
pub(super) fn failure(code: u16, reason: &str, message: impl Into<String>) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message.into(), "reason": reason, "code": code,
    })
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn refuse(code: u16, reason: &str, message: impl Into<String>) -> Response<Body> {
    answer(code, &failure(code, reason, message))
}

/// One request.
pub(super) async fn serve(
    server: Arc<Inner>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    server.unpaused().await;
    let slow = server.slow();
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    if let Some(known) = discovery(request.uri().path()) {
        return Ok(answer(200, &known));
    }
    let Some(target) = target(request.uri().path()) else {
        let body = Body::from("404 page not found\n");
        return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(body).unwrap());
    };
    let query = query(request.uri());
    let verb = match (request.method(), &target.name, query.watch) {
        (&Method::GET, _, true) => "watch",
        (&Method::GET, None, false) => "list",
        (&Method::GET, Some(_), false) => "get",
        (&Method::POST, ..) => "create",
        (&Method::PUT, ..) => "update",
        (&Method::PATCH, ..) => "patch",
        (&Method::DELETE, ..) => "delete",
        _ => return Ok(refuse(405, "MethodNotAllowed", "the server does not allow this method")),
    };
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let metadata_only = accept.contains("as=PartialObjectMetadata");
    server.saw(Seen {
        verb,
        group: target.resource.group,
        resource: target.resource.plural,
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        labels: query.labels.clone(),
        fields: query.fields.clone(),
        version: query.version.clone(),
        metadata_only,
    });
    if let Some(refusal) = admit(&server, verb, &target, request.headers()) {
        // Without that, a client that still sends would see a reset instead.
        drop(to_bytes(Body::new(request.into_body()), usize::MAX).await);
        return Ok(refusal);
    }
    Ok(match verb {
        "watch" => watch(server, &target, query, metadata_only),
        "list" => list(&server, &target, &query, metadata_only),
        _ => {
            let answer = single(&server, verb, &target, metadata_only, request).await;
            if verb != "get" && server.swallowed() {
                std::future::pending::<()>().await;
            }
            answer
        }
    })
}

/// What there is, as kubectl asks first.
fn discovery(path: &str) -> Option<Value> {
    let version = |group: &str| json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
    let resources = |group: &str| {
        let of_group = RESOURCES.iter().filter(|r| r.group == group);
        let listed = of_group.clone().map(|r| {
            json!({"name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced, "kind": r.kind,
                   "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
        });
        let listed: Vec<_> = listed.collect();
        let group_version = of_group.clone().next()?.api_version();
        Some(
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}),
        )
    };
    match path.trim_end_matches('/').split('/').skip(1).collect::<Vec<_>>().as_slice() {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let names: BTreeSet<_> =
                RESOURCES.iter().map(|r| r.group).filter(|group| !group.is_empty()).collect();
            let groups: Vec<_> = names.iter().map(|group| {
                json!({"name": group, "versions": [version(group)], "preferredVersion": version(group)})
            }).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => resources(""),
        ["apis", group, "v1"] => resources(group),
        _ => None,
    }
}

/// Authentication and authorization.
fn admit(
    server: &Inner,
    verb: &'static str,
    target: &Target,
    headers: &http::HeaderMap,
) -> Option<Response<Body>> {
    if let Some(seconds) = server.throttled() {
        let mut refusal = refuse(429, "TooManyRequests", "too many requests, please try again later");
        refusal.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return Some(refusal);
    }
    let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if server.rules().token.as_ref().is_some_and(|wanted| token != format!("Bearer {wanted}")) {
        return Some(refuse(401, "Unauthorized", "Unauthorized"));
    }
    if server.rules().unauthorized {
        return Some(refuse(401, "Unauthorized", "Unauthorized"));
    }
    let Resource { group, plural, .. } = target.resource;
    if !server.rules().denied.contains(&(verb.to_owned(), plural.to_owned())) {
        return None;
    }
    let what = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let name = target.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let message = format!(
        "{what}{name} is forbidden: User \"{}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {place}",
        super::USER
    );
    let mut status = failure(403, "Forbidden", message);
    status["details"] = json!({"group": group, "kind": plural});
    Some(answer(403, &status))
}

fn filter(target: &Target, query: &Query) -> Result<Filter, Box<Response<Body>>> {
    let bad = |what: &str| Box::new(refuse(400, "BadRequest", format!("unable to parse {what}")));
    let labels = query.labels.as_deref().map(str::parse).transpose().map_err(|_| bad("labelSelector"))?;
    let mut fields = Vec::new();
    for pair in query.fields.iter().flat_map(|fields| fields.split(',')) {
        let (path, wanted) = pair.split_once('=').ok_or_else(|| bad("fieldSelector"))?;
        // As for most kinds; Events are searched by more.
        if path != "metadata.name" && target.resource.plural != "events" {
            return Err(bad("fieldSelector"));
        }
        fields.push((path.to_owned(), wanted.trim_start_matches('=').to_owned()));
    }
    Ok(Filter { resource: target.resource, namespace: target.namespace.clone(), labels, fields })
}

/// What of an object is told: everything, or its metadata.
fn shown(object: Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object;
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn list(server: &Inner, target: &Target, query: &Query, metadata_only: bool) -> Response<Body> {
    let filter = match filter(target, query) {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let mut store = server.store();
    let page = match &query.token {
        None => store.list(&filter, query.limit),
        Some(token) => match store.next_page(token, query.limit) {
            Some(page) => page,
            None => {
                let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
                return refuse(410, "Expired", message);
            }
        },
    };
    let asked: u64 = query.version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
    if asked > store.version() {
        return refuse(
            504,
            "Timeout",
            format!("Too large resource version: {asked}, current: {}", store.version()),
        );
    }
    drop(store);
    let items = page.items.into_iter().map(|mut object| {
        if !metadata_only && let Some(fields) = object.as_object_mut() {
            // The items of a typed list do not repeat what they are.
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        shown(object, metadata_only)
    });
    let items: Vec<Value> = items.collect();
    let (kind, api_version) = if metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        (format!("{}List", target.resource.kind), target.resource.api_version())
    };
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some(token) = page.token {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = page.remaining.into();
    }
    answer(200, &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items}))
}

fn too_old(asked: u64, oldest: u64) -> Value {
    failure(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
}

fn watch(server: Arc<Inner>, target: &Target, query: Query, metadata_only: bool) -> Response<Body> {
    let filter = match filter(target, &query) {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let from: u64 = query.version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
    let (oldest, said) = {
        let store = server.store();
        (store.oldest(), store.said.len())
    };
    let super::Rules { gone_by_status: by_status, always_gone: always, .. } = server.rules().clone();
    if always || (from != 0 && from < oldest && by_status) {
        return answer(410, &too_old(from, oldest));
    }
    let (lines, body) = mpsc::channel(1);
    let stream = Stream { server, filter, query, metadata_only, from, said, lines };
    tokio::spawn(async move { stream.run().await });
    let body = futures::stream::unfold(body, |mut body| async move {
        let line: io::Result<Bytes> = body.recv().await?;
        Some((line, body))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_stream(body))
        .unwrap()
}

/// One open watch.
struct Stream {
    server: Arc<Inner>,
    filter: Filter,
    query: Query,
    metadata_only: bool,
    from: u64,
    /// What was said before it was opened is not for it.
    said: usize,
    lines: mpsc::Sender<io::Result<Bytes>>,
}

impl Stream {
    async fn run(mut self) {
        let open = self.server.opened(self.filter.resource.plural);
        let _ = self.follow().await;
        drop(open);
    }

    /// Ends with nothing when the watch is over.
    async fn follow(&mut self) -> Option<()> {
        let lines = self.lines.clone();
        let mut news = self.server.news();
        let end = self.query.timeout.map(|timeout| Instant::now() + timeout);
        let every = self.server.rules().bookmark_every;
        let mut bookmarks = interval_at(Instant::now() + every, every);
        let oldest = self.server.store().oldest();
        if self.from != 0 && self.from < oldest {
            return self.event("ERROR", too_old(self.from, oldest)).await.and(None);
        }
        if self.from == 0 {
            let (objects, version) = {
                let store = self.server.store();
                (store.find(&self.filter), store.version())
            };
            self.from = version;
            for object in objects {
                self.event("ADDED", shown(object, self.metadata_only)).await?;
            }
        }
        loop {
            news.borrow_and_update();
            self.tell().await?;
            tokio::select! {
                changed = news.changed() => changed.ok()?,
                () = lines.closed() => return None,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return None,
                _ = bookmarks.tick() => self.bookmark().await?,
            }
        }
    }

    /// Tells what is new.
    async fn tell(&mut self) -> Option<()> {
        let (events, version, said) = {
            let store = self.server.store();
            let (events, version) = store.since(&self.filter, self.from);
            (events, version, store.said.get(self.said..).unwrap_or_default().to_vec())
        };
        self.said += said.len();
        for (kind, object) in events {
            self.event(kind, shown(object, self.metadata_only)).await?;
        }
        self.from = version;
        for say in said {
            match say {
                Say::Bookmark => self.bookmark().await?,
                Say::Expired => {
                    let status = too_old(self.from, self.from + 1);
                    return self.event("ERROR", status).await.and(None);
                }
                Say::Cut => {
                    let cut = io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test");
                    return self.lines.send(Err(cut)).await.ok().and(None);
                }
                Say::Close => return None,
                Say::Mute => {
                    self.lines.closed().await;
                    return None;
                }
                Say::Line(resource, line) if resource == self.filter.resource.plural => {
                    self.line(&line).await?;
                }
                Say::Line(..) => {}
            }
        }
        Some(())
    }

    async fn bookmark(&self) -> Option<()> {
        if !self.query.bookmarks {
            return Some(());
        }
        let Resource { kind, .. } = self.filter.resource;
        let metadata = json!({"resourceVersion": self.from.to_string(), "creationTimestamp": null});
        let api_version = self.filter.resource.api_version();
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        self.event("BOOKMARK", shown(object, self.metadata_only)).await
    }

    async fn event(&self, kind: &str, object: Value) -> Option<()> {
        self.line(&json!({"type": kind, "object": object}).to_string()).await
    }

    async fn line(&self, line: &str) -> Option<()> {
        tokio::select! {
            () = self.server.unpaused() => {}
            () = self.lines.closed() => return None,
        }
        let slow = self.server.slow();
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.lines.send(Ok(Bytes::from(format!("{line}\n")))).await.ok()
    }
}

/// get, create, update, patch and delete of one object.
async fn single(
    server: &Inner,
    verb: &str,
    target: &Target,
    metadata_only: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let apply = kind.starts_with("application/apply-patch");
    if verb == "patch" && kind.starts_with("application/json-patch") {
        return refuse(415, "UnsupportedMediaType", "the test API server does not know JSON patches");
    }
    let Ok(body) = to_bytes(Body::new(request.into_body()), 1 << 22).await else {
        return refuse(413, "RequestEntityTooLarge", "limit is 4194304");
    };
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        match yaml_serde::from_slice(&body) {
            Ok(body) => body,
            Err(error) => return refuse(400, "BadRequest", error.to_string()),
        }
    };
    let Resource { plural, .. } = target.resource;
    let name = target.name.clone().or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
    let Some(name) = name else {
        return refuse(422, "Invalid", "metadata.name: Required value: name or generateName is required");
    };
    let key: Key = (target.namespace.clone().unwrap_or_default(), name.clone());
    let mut store = server.store();
    let before = store.get(target.resource, &key).cloned();
    let given = &body["metadata"]["resourceVersion"];
    let stale = before.as_ref().is_some_and(|before| {
        given.as_str().is_some_and(|given| !given.is_empty())
            && before["metadata"]["resourceVersion"] != *given
    });
    let (code, object) = match (verb, before) {
        ("create", Some(_)) => {
            return refuse(409, "AlreadyExists", format!("{plural} \"{name}\" already exists"));
        }
        ("create", None) if events::is_event(target.resource) => {
            if let Some(fault) = events::fault(&body, &key.0) {
                return refuse(422, "Invalid", format!("Event \"{name}\" is invalid: {fault}"));
            }
            let stored = store.put(target.resource, &key, body);
            store.put(events::core(), &key, events::as_core(&stored));
            (201, stored)
        }
        ("create", None) => (201, store.put(target.resource, &key, body)),
        ("patch", None) if apply => (201, store.put(target.resource, &key, body)),
        (_, None) => return refuse(404, "NotFound", format!("{plural} \"{name}\" not found")),
        ("update" | "patch", Some(_)) if stale => {
            let message = format!(
                "Operation cannot be fulfilled on {plural} \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
            );
            return refuse(409, "Conflict", message);
        }
        ("update", Some(_)) => (200, store.put(target.resource, &key, body)),
        ("patch", Some(mut object)) => {
            merge(&mut object, &body);
            (200, store.put(target.resource, &key, object))
        }
        ("delete", Some(_)) => {
            store.remove(target.resource, &key);
            (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
        }
        (_, Some(object)) => (200, object),
    };
    drop(store);
    server.tick();
    let shown = if verb == "delete" { object } else { shown(object, metadata_only) };
    answer(code, &shown)
}
