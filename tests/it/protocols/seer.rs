//! Pods that keep what came to them, answer as they are told, and hold their answers back while they are told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::bodies::{Sent, whole};
use super::pods::{Pod, Speaks};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Status and body of the answer to a path.
pub(super) type Answers = fn(&str) -> (u16, String);

pub(super) struct Seer {
    pod: Pod,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Answers,
    seen: Mutex<Vec<Seen>>,
    held: watch::Sender<bool>,
    /// How many milliseconds each answer takes.
    takes: AtomicU64,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A request that is being served; also one whose client leaves ends.
struct Running<'a>(&'a Shared);

impl<'a> Running<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seer {
    pub(super) async fn start(answers: Answers) -> Self {
        Self::that_speaks(Speaks::Http1, answers).await
    }

    pub(super) async fn that_speaks(speaks: Speaks, answers: Answers) -> Self {
        let shared = Arc::new(Shared {
            answers,
            seen: Mutex::default(),
            held: watch::channel(false).0,
            takes: AtomicU64::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let known = Arc::clone(&shared);
        let pod = Pod::http(speaks, None, move |request| answer(Arc::clone(&known), request)).await;
        Self { pod, shared }
    }

    /// One that answers 200 with `stable`.
    pub(super) async fn stable() -> Self {
        Self::start(|_| (200, "stable".to_owned())).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.pod.address
    }

    pub(super) fn connections(&self) -> u64 {
        self.pod.connections()
    }

    /// Holds its answers back from now on, or lets them go.
    pub(super) fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Takes so long for each answer from now on.
    pub(super) fn slow_down(&self, millis: u64) {
        self.shared.takes.store(millis, Ordering::SeqCst);
    }

    /// What came, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many came.
    pub(super) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many are being served.
    pub(super) fn now(&self) -> usize {
        self.shared.now.load(Ordering::SeqCst)
    }

    /// How many there were at once at most.
    pub(super) fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Sent> {
    let running = Running::begin(&shared);
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or(String::new(), ToString::to_string);
    let (status, text) = (shared.answers)(parts.uri.path());
    // One that breaks off has not come.
    if let Ok((body, _)) = whole(body).await {
        let seen = Seen { method: parts.method, path, headers: parts.headers, body };
        shared.seen.lock().unwrap().push(seen);
    }
    tokio::time::sleep(Duration::from_millis(shared.takes.load(Ordering::SeqCst))).await;
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    drop(running);
    let mut response = Response::new(Sent::whole(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// The versions of a route with one canary, in the words of the config.
pub(super) fn versions(canary: &str) -> String {
    format!(
        "versions: [{{name: v1, selector: 'version=v1'}}, {{name: v2, selector: 'version=v2', {canary}}}]"
    )
}
