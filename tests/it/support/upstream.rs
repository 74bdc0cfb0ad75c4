//! Pods that really listen: testpage servers on loopback addresses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as a pod got it: method, path, headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
}

/// A pod that answers `I am: IP, the version is: VERSION`.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) served: Arc<AtomicU64>,
    last: Arc<Mutex<Option<Got>>>,
    terminate: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start(address: SocketAddr, version: &str) -> Self {
        Self::slow(address, version, Duration::ZERO).await
    }

    /// As [`Upstream::start`], but every answer takes this long.
    pub(crate) async fn slow(address: SocketAddr, version: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|e| panic!("{address}: {e}"));
        let address = listener.local_addr().unwrap();
        let page: Arc<str> = format!("I am: {}, the version is: {version}\n", address.ip()).into();
        let served = Arc::new(AtomicU64::new(0));
        let last = Arc::new(Mutex::new(None));
        let (terminate, terminated) = watch::channel(false);
        let (count, remember) = (Arc::clone(&served), Arc::clone(&last));
        let accepting = tokio::spawn(async move {
            let mut stopped = terminated.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stopped.wait_for(|t| *t) => return,
                };
                let Ok((socket, _)) = accepted else { continue };
                let (page, count, remember) = (Arc::clone(&page), Arc::clone(&count), Arc::clone(&remember));
                let mut terminated = terminated.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (page, count, remember) =
                            (Arc::clone(&page), Arc::clone(&count), Arc::clone(&remember));
                        async move {
                            *remember.lock().unwrap() = Some(got(&request));
                            tokio::time::sleep(delay).await;
                            count.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, Infallible>(Response::new(page.to_string()))
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service);
                    tokio::pin!(connection);
                    let told = async { drop(terminated.wait_for(|t| *t).await) };
                    tokio::select! {
                        _ = &mut connection => return,
                        () = told => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
        });
        Self { address, served, last, terminate, accepting }
    }

    /// How many requests it has answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether a request has come, answered or not.
    pub(crate) fn asked(&self) -> bool {
        self.last.lock().unwrap().is_some()
    }

    /// The last request that came.
    pub(crate) fn last(&self) -> Got {
        self.last.lock().unwrap().clone().expect("no request came")
    }

    /// What a well-behaved server does on SIGTERM: no new connections from now on, idle ones closed, requests ended.
    pub(crate) async fn terminate(&mut self) {
        self.terminate.send_replace(true);
        let _ = (&mut self.accepting).await;
    }
}

fn got(request: &Request<Incoming>) -> Got {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        headers
            .entry(name.to_string())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    Got { method: request.method().to_string(), path, headers }
}
