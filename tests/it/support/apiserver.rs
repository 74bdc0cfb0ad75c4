//! A loopback API server that speaks list and watch as Kubernetes does, and misbehaves on demand.
//!
//! Real: one growing resourceVersion, lists in pages of one moment, watches that replay history from a version and
//! tell an object's entry to and leaving of a selection as ADDED and DELETED, bookmarks, metadata-only answers,
//! `410 Gone` as an event and as a status, conflicts, and the texts of the usual errors. Not real: validation,
//! admission, server-side apply (a merge here), streaming lists. Events are checked as they really are, and are in both of
//! their groups; kubectl can read what there is.

mod events;
mod http;
mod store;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempPath;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use self::store::{Filter, Key, Resource, Say, Store};

/// Who the API server takes a client for.
pub(crate) const USER: &str = "system:serviceaccount:serinus:serinus";

/// One request that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) metadata_only: bool,
}

/// How it misbehaves.
#[derive(Clone, Debug)]
struct Rules {
    /// (verb, resource)
    denied: BTreeSet<(String, String)>,
    unauthorized: bool,
    /// The only token that is accepted; none for any.
    token: Option<String>,
    /// How many further requests are refused with 429, and after how many seconds they are told to come again.
    throttle: (u32, u16),
    slow: Duration,
    /// How many further writes are done and not answered.
    swallow: u32,
    /// `410 Gone` is the status of the answer instead of an event.
    gone_by_status: bool,
    /// Every watch is refused with 410, whatever it asks for.
    always_gone: bool,
    bookmark_every: Duration,
}

struct Inner {
    store: Mutex<Store>,
    rules: Mutex<Rules>,
    seen: Mutex<Vec<Seen>>,
    /// Plurals of the watches that are open.
    open: Mutex<Vec<&'static str>>,
    paused: watch::Sender<bool>,
    news: watch::Sender<()>,
}

impl Inner {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    fn slow(&self) -> Duration {
        self.rules().slow
    }

    /// The `Retry-After` of a request that is refused with 429.
    fn throttled(&self) -> Option<u16> {
        let (left, seconds) = &mut self.rules().throttle;
        *left = left.checked_sub(1)?;
        Some(*seconds)
    }

    /// Whether what was done is not answered.
    fn swallowed(&self) -> bool {
        let left = &mut self.rules().swallow;
        left.checked_sub(1).map(|fewer| *left = fewer).is_some()
    }

    fn saw(&self, request: Seen) {
        self.seen.lock().unwrap().push(request);
    }

    fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Open watches look what is new.
    fn tick(&self) {
        self.news.send_replace(());
    }

    async fn unpaused(&self) {
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    fn opened(self: &Arc<Self>, plural: &'static str) -> Open {
        self.open.lock().unwrap().push(plural);
        Open(Arc::clone(self), plural)
    }
}

/// A watch is open as long as this lives.
struct Open(Arc<Inner>, &'static str);

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap();
        if let Some(at) = open.iter().position(|plural| *plural == self.1) {
            open.remove(at);
        }
    }
}

/// A loopback API server. It ends when it is dropped.
pub(crate) struct ApiServer {
    inner: Arc<Inner>,
    address: SocketAddr,
    /// The task that accepts, which owns those of the connections.
    running: Option<JoinHandle<()>>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl ApiServer {
    /// An empty API server on a free loopback port.
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            store: Mutex::new(Store::new()),
            rules: Mutex::new(Rules {
                denied: BTreeSet::new(),
                unauthorized: false,
                token: None,
                throttle: (0, 0),
                slow: Duration::ZERO,
                swallow: 0,
                gone_by_status: false,
                always_gone: false,
                bookmark_every: Duration::from_secs(60),
            }),
            seen: Mutex::default(),
            open: Mutex::default(),
            paused: watch::Sender::new(false),
            news: watch::Sender::new(()),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = Some(tokio::spawn(accept(Arc::clone(&inner), listener)));
        Self { inner, address, running }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig file for it; the file goes when the path is dropped.
    pub(crate) fn kubeconfig(&self) -> TempPath {
        self.kubeconfig_to(&self.url())
    }

    /// As [`ApiServer::kubeconfig`], with another URL.
    pub(crate) fn kubeconfig_to(&self, url: &str) -> TempPath {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": "a-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        file.into_temp_path()
    }

    /// Adds or replaces the objects of a YAML text with one or more documents.
    pub(crate) fn apply_yaml(&self, yaml: &str) -> Vec<Value> {
        documents(yaml).into_iter().map(|object| self.apply(object)).collect()
    }

    /// Adds or replaces an object, and gives it as it is stored.
    pub(crate) fn apply(&self, object: Value) -> Value {
        let resource = Resource::of(&object);
        let name = object["metadata"]["name"].as_str().expect("metadata.name").to_owned();
        let namespace = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => namespace.to_owned(),
            None if resource.namespaced => "default".to_owned(),
            None => String::new(),
        };
        self.put(resource, &(namespace, name), object)
    }

    fn put(&self, resource: Resource, key: &Key, object: Value) -> Value {
        let stored = self.inner.store().put(resource, key, object);
        self.inner.tick();
        stored
    }

    /// An object.
    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner.store().get(Resource::named(plural), &(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects of a resource in a namespace.
    pub(crate) fn all(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let resource = Resource::named(plural);
        let filter =
            Filter { resource, namespace: Some(namespace.to_owned()), labels: None, fields: Vec::new() };
        self.inner.store().find(&filter)
    }

    /// All objects of a resource in every namespace.
    pub(crate) fn everywhere(&self, plural: &str) -> Vec<Value> {
        let filter =
            Filter { resource: Resource::named(plural), namespace: None, labels: None, fields: Vec::new() };
        self.inner.store().find(&filter)
    }

    /// Changes an object in place.
    pub(crate) fn edit(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(plural, namespace, name).expect("an object to edit");
        change(&mut object);
        self.put(Resource::named(plural), &(namespace.to_owned(), name.to_owned()), object);
    }

    /// Removes an object; whether there was one.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let there = self.inner.store().remove(Resource::named(plural), &key).is_some();
        self.inner.tick();
        there
    }

    /// Stores an object that no client can decode: `fields` take the place of a good object's.
    pub(crate) fn send_garbage_object(&self, plural: &str, namespace: &str, name: &str, fields: &Value) {
        let resource = Resource::named(plural);
        let key = (namespace.to_owned(), name.to_owned());
        let mut object = self.get(plural, namespace, name).unwrap_or_else(
            || json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": name}}),
        );
        store::merge(&mut object, fields);
        self.put(resource, &key, object);
    }

    /// Sends a line, as it is, on the open watches of a resource.
    pub(crate) fn send_line(&self, plural: &str, line: &str) {
        self.say(Say::Line(Resource::named(plural).plural, line.to_owned()));
    }

    /// Forgets history: who asks for a version from before is told `410 Gone`, as an event of the watch.
    pub(crate) fn compact(&self) {
        self.inner.rules().gone_by_status = false;
        self.inner.store().compact();
    }

    /// As [`ApiServer::compact`], but `410 Gone` is the status of the answer.
    pub(crate) fn compact_with_status(&self) {
        self.inner.rules().gone_by_status = true;
        self.inner.store().compact();
    }

    /// Refuses every watch with the status `410 Gone`, or no longer.
    pub(crate) fn always_gone(&self, gone: bool) {
        self.inner.rules().always_gone = gone;
    }

    /// Tells every open watch `410 Gone`, and ends it.
    pub(crate) fn expire_watches(&self) {
        self.say(Say::Expired);
    }

    /// Breaks every open watch off in the middle of an answer.
    pub(crate) fn cut_watches(&self) {
        self.say(Say::Cut);
    }

    /// Ends every open watch as when its time is up.
    pub(crate) fn close_watches(&self) {
        self.say(Say::Close);
    }

    /// Says nothing more on the watches that are open, and leaves them open: half-open connections.
    pub(crate) fn mute_watches(&self) {
        self.say(Say::Mute);
    }

    /// Refuses so many requests with 429, and says after how many seconds to come again.
    pub(crate) fn throttle(&self, requests: u32, seconds: u16) {
        self.inner.rules().throttle = (requests, seconds);
    }

    /// Accepts this token alone.
    pub(crate) fn accept_token(&self, token: &str) {
        self.inner.rules().token = Some(token.to_owned());
    }

    /// Sends a bookmark on every open watch.
    pub(crate) fn bookmark(&self) {
        self.say(Say::Bookmark);
    }

    /// How often watches that are opened from now on get a bookmark; at first every minute.
    pub(crate) fn bookmark_every(&self, every: Duration) {
        self.inner.rules().bookmark_every = every;
    }

    fn say(&self, say: Say) {
        self.inner.store().said.push(say);
        self.inner.tick();
    }

    /// Goes half-open: takes connections and requests, and sends nothing, until [`ApiServer::resume`].
    pub(crate) fn pause(&self) {
        self.inner.paused.send_replace(true);
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.inner.paused.send_replace(false);
    }

    /// Waits this long before every answer and every event.
    pub(crate) fn slow(&self, by: Duration) {
        self.inner.rules().slow = by;
    }

    /// Does so many further writes, and never answers them.
    pub(crate) fn swallow(&self, answers: u32) {
        self.inner.rules().swallow = answers;
    }

    /// The Events on an object, oldest first, as `kubectl describe` looks for them.
    pub(crate) fn events_on(&self, object: &Value) -> Vec<Value> {
        let wanted = |event: &Value, field: &str| event["involvedObject"][field] == object["metadata"][field];
        let mut events = self.all("events", object["metadata"]["namespace"].as_str().unwrap());
        events.retain(|event| {
            event["involvedObject"]["kind"] == object["kind"]
                && ["namespace", "name", "uid"].iter().all(|field| wanted(event, field))
        });
        let version =
            |event: &Value| event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        events.sort_by_key(version);
        events
    }

    /// Refuses a verb on a resource with 403; watches that are open stay.
    pub(crate) fn deny(&self, verb: &str, plural: &str) {
        self.inner.rules().denied.insert((verb.to_owned(), plural.to_owned()));
    }

    /// Takes a [`ApiServer::deny`] back.
    pub(crate) fn allow(&self, verb: &str, plural: &str) {
        self.inner.rules().denied.remove(&(verb.to_owned(), plural.to_owned()));
    }

    /// Refuses every request with 401, or no longer.
    pub(crate) fn unauthorized(&self, unauthorized: bool) {
        self.inner.rules().unauthorized = unauthorized;
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// How many requests there were of a verb on a resource.
    pub(crate) fn count(&self, verb: &str, plural: &str) -> usize {
        self.requests().iter().filter(|seen| seen.verb == verb && seen.resource == plural).count()
    }

    /// How many watches of a resource are open.
    pub(crate) fn open_watches(&self, plural: &str) -> usize {
        self.inner.open.lock().unwrap().iter().filter(|open| **open == plural).count()
    }

    /// Goes away: connections break, new ones are refused. Objects stay.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Comes back after [`ApiServer::stop`], where it was.
    pub(crate) async fn restart_on_same_port(&mut self) {
        self.stop().await;
        // Outgoing connections of other tests may hold the port for a moment.
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) if tokio::time::Instant::now() > deadline => panic!("{}: {error}", self.address),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.running = Some(tokio::spawn(accept(Arc::clone(&self.inner), listener)));
    }
}

/// Accepts until it is aborted; the connections end with it.
async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let inner = Arc::clone(&inner);
                let service = service_fn(move |request| http::serve(Arc::clone(&inner), request));
                connections.spawn(async move {
                    // Ends with an error when a test cuts it.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The documents of a YAML text.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    let documents = yaml_serde::Deserializer::from_str(yaml);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}
