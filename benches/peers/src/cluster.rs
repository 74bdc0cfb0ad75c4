//! A small API server of a cluster: one Service with the seven pods, which can be replaced. It speaks list and watch as Serinus asks for them, takes
//! whatever is written, and knows no one: the server of the repository's tests is the one that is like the real one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::upstream::{self, PODS};

/// How often a silent watch carries a bookmark, in seconds.
const BOOKMARK: Duration = Duration::from_secs(30);
/// How long it takes until nobody listens any more.
const POLL: Duration = Duration::from_millis(50);
/// How many events are remembered at most.
const MOST_EVENTS: usize = 20_000;

/// The server. Its threads end with it, and when Serinus closes its connections.
pub(crate) struct Cluster {
    inner: Arc<Inner>,
    url: String,
}

struct Inner {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    stopped: bool,
    version: u64,
    /// The port of the pods.
    port: u16,
    /// How often each pod was replaced.
    generations: Vec<u8>,
    /// How many were replaced in all.
    replaced: u64,
    /// The pod that is on its way out: its number and generation.
    leaving: Option<(u8, u8)>,
    /// What happened: version, plural of the kind, and the line for its watches.
    events: Vec<(u64, &'static str, String)>,
}

impl Cluster {
    /// Starts it; `port` is that of the pods.
    pub(crate) fn start(port: u16) -> anyhow::Result<Self> {
        let state = State {
            stopped: false,
            version: 1,
            port,
            generations: vec![0; usize::from(PODS)],
            replaced: 0,
            leaving: None,
            events: Vec::new(),
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), news: Condvar::new() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || accept(&listener, &serving));
        Ok(Cluster { inner, url })
    }

    /// Writes a kubeconfig for it.
    pub(crate) fn kubeconfig(&self, path: &Path) -> anyhow::Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.url}}],
            "users": [{"name": "lab", "user": {"token": "a-token"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        std::fs::write(path, config.to_string()).with_context(|| path.display().to_string())
    }

    /// A new pod takes the place of one, in turn: as when a ReplicaSet rolls, it comes up and gets ready, the old one is terminating from then on, and
    /// gone at the next replacement. Four events in all.
    pub(crate) fn replace(&self) {
        let mut state = self.inner.state();
        let place = u8::try_from(state.replaced % u64::from(PODS)).unwrap_or_default();
        state.replaced += 1;
        let Some(generation) = state.generations.get_mut(usize::from(place)) else { return };
        let old = *generation;
        *generation = generation.wrapping_add(1) % upstream::GENERATIONS;
        let new = *generation;
        let pod = place + 1;
        state.tell("pods", "ADDED", |state| state.pod(pod, new, false));
        let gone = state.leaving.replace((pod, old));
        state.tell("endpointslices", "MODIFIED", State::slice);
        state.tell("pods", "MODIFIED", |state| state.pod(pod, old, true));
        if let Some((pod, generation)) = gone {
            state.tell("pods", "DELETED", |state| state.pod(pod, generation, true));
        }
        drop(state);
        self.inner.news.notify_all();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.inner.state().stopped = true;
        self.inner.news.notify_all();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, plural: &'static str, what: &str, object: impl FnOnce(&State) -> Value) {
        self.version += 1;
        let line = json!({"type": what, "object": object(self)}).to_string() + "\n";
        self.events.push((self.version, plural, line));
        // Watches have told the older ones long ago.
        if self.events.len() > MOST_EVENTS {
            self.events.drain(..MOST_EVENTS / 2);
        }
    }

    fn metadata(&self, name: &str, labels: &Value, leaving: bool) -> Value {
        let leaving = leaving.then_some("2026-01-01T00:00:00Z");
        json!({"namespace": "web", "name": name, "uid": name, "resourceVersion": self.version.to_string(), "labels": labels,
               "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": leaving})
    }

    fn pod(&self, pod: u8, generation: u8, leaving: bool) -> Value {
        let version = if pod == PODS { "v2" } else { "v1" };
        let labels = json!({"app": "shop", "version": version, "pod-template-hash": "5d59d67564"});
        let metadata = self.metadata(&name(pod, generation), &labels, leaving);
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    }

    fn service(&self) -> Value {
        json!({
            "kind": "Service", "apiVersion": "v1", "metadata": self.metadata("shop", &json!({}), false),
            "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": self.port, "protocol": "TCP"}]},
        })
    }

    fn slice(&self) -> Value {
        let labels = json!({"kubernetes.io/service-name": "shop"});
        let metadata = self.metadata("shop-a", &labels, false);
        let endpoint = |pod: u8, generation: u8, leaving: bool| {
            json!({
                "addresses": [upstream::later_address(pod, generation, self.port).ip().to_string()],
                "conditions": {"ready": !leaving, "serving": true, "terminating": leaving},
                "targetRef": {"kind": "Pod", "namespace": "web", "name": name(pod, generation), "uid": name(pod, generation)},
            })
        };
        let here =
            (1..=PODS).zip(&self.generations).map(|(pod, generation)| endpoint(pod, *generation, false));
        let leaving = self.leaving.map(|(pod, generation)| endpoint(pod, generation, true));
        let endpoints: Vec<Value> = here.chain(leaving).collect();
        json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "addressType": "IPv4",
            "ports": [{"name": "", "port": self.port, "protocol": "TCP"}], "endpoints": endpoints,
        })
    }

    /// All that there is of a kind.
    fn list(&self, plural: &str) -> Value {
        let (kind, api, items) = match plural {
            "services" => ("ServiceList", "v1", vec![self.service()]),
            "endpointslices" => ("EndpointSliceList", "discovery.k8s.io/v1", vec![self.slice()]),
            _ => {
                let here = (1..=PODS).zip(&self.generations);
                let mut pods: Vec<Value> =
                    here.map(|(pod, generation)| self.pod(pod, *generation, false)).collect();
                pods.extend(self.leaving.map(|(pod, generation)| self.pod(pod, generation, true)));
                ("PartialObjectMetadataList", "meta.k8s.io/v1", pods)
            }
        };
        let metadata = json!({"resourceVersion": self.version.to_string()});
        json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": items})
    }
}

fn name(pod: u8, generation: u8) -> String {
    format!("shop-{pod}-{generation}")
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    while !inner.state().stopped {
        match listener.accept() {
            Ok((stream, _)) => {
                let inner = Arc::clone(inner);
                std::thread::spawn(move || {
                    // It ends when the other side does.
                    let _ = serve(stream, &inner);
                });
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// One connection.
fn serve(mut stream: TcpStream, inner: &Inner) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    while let Some((method, target)) = request(&mut stream)? {
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        if method == "GET" && ["services", "endpointslices", "pods"].contains(&plural.as_str()) {
            let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
            if value("watch=").is_some() {
                let from = value("resourceVersion=").and_then(|text| text.parse().ok()).unwrap_or(0);
                return watch(&mut stream, inner, &plural, from);
            }
            let list = inner.state().list(&plural).to_string();
            answer(&mut stream, "200 OK", &list)?;
        } else if method == "POST" {
            // Events about what was changed.
            answer(&mut stream, "201 Created", r#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#)?;
        } else {
            let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"not here","code":404}"#;
            answer(&mut stream, "404 Not Found", body)?;
        }
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())
}

/// The method and the target of the next request, whose body is read and forgotten; none at the end.
fn request(stream: &mut TcpStream) -> io::Result<Option<(String, String)>> {
    let mut head = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 || head.len() > 1 << 20 {
            return Ok(None);
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(end)) = parsed.parse(&head) else { continue };
        let length = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
        if head.len() >= end + length.unwrap_or(0usize) {
            let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
            return Ok(Some((text(parsed.method), text(parsed.path))));
        }
    }
}

/// Tells what happens, until the other side or the server ends.
fn watch(stream: &mut TcpStream, inner: &Inner, plural: &str, mut from: u64) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut spoke = Instant::now();
    loop {
        let mut state = inner.state();
        let first = state.events.partition_point(|(version, ..)| *version <= from);
        let lines: Vec<String> = state
            .events
            .get(first..)
            .unwrap_or_default()
            .iter()
            .filter(|(_, of, _)| *of == plural)
            .map(|(.., line)| line.clone())
            .collect();
        from = state.version;
        if state.stopped {
            return stream.write_all(b"0\r\n\r\n");
        }
        if lines.is_empty() && spoke.elapsed() < BOOKMARK {
            let waited = inner.news.wait_timeout(state, BOOKMARK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let bookmark = || {
            let object = json!({"metadata": {"resourceVersion": from.to_string()}, "kind": "Bookmark", "apiVersion": "v1"});
            json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
        };
        let lines = match lines.is_empty() && spoke.elapsed() >= BOOKMARK {
            true => vec![bookmark()],
            false => lines,
        };
        drop(state);
        for line in lines {
            stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?;
            spoke = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_pod_has_another_address_and_the_old_one_is_on_its_way_out() {
        let cluster = Cluster::start(8080).expect("started");
        let before = cluster.inner.state().slice();
        cluster.replace();
        let state = cluster.inner.state();
        let told: Vec<&str> = state.events.iter().map(|(_, plural, _)| *plural).collect();
        assert_eq!(told, ["pods", "endpointslices", "pods"]);
        let slice = state.slice();
        let at = |slice: &Value, pointer: &str| slice.pointer(pointer).cloned();
        let first = at(&slice, "/endpoints/0/addresses/0");
        assert!(first.is_some() && first != at(&before, "/endpoints/0/addresses/0"), "{slice}");
        assert_eq!(at(&slice, "/endpoints/7/addresses/0"), at(&before, "/endpoints/0/addresses/0"));
        assert_eq!(at(&slice, "/endpoints/7/conditions/terminating"), Some(true.into()));
        assert_eq!(at(&before, "/endpoints/7"), None);
    }
}
