//! Pods that are real servers.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::front::Io;
use crate::support::cluster::loopback_address;
use crate::support::stack::POD_PORT;

/// What a pod speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// A pod that listens until it is dropped.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    /// How many connections were made to it.
    pub(super) connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Pod {
    /// A pod that does as `serve` says with each connection.
    pub(super) async fn start<F, Fut>(tls: Option<Arc<ServerConfig>>, serve: F) -> Self
    where
        F: Fn(Box<dyn Io>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::at("127.0.0.1:0".parse().unwrap(), tls, serve).await
    }

    /// The same, at this address.
    pub(super) async fn at<F, Fut>(address: SocketAddr, tls: Option<Arc<ServerConfig>>, serve: F) -> Self
    where
        F: Fn(Box<dyn Io>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicU64>::default();
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it all that it serves.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (tls, serve) = (tls.clone(), serve.clone());
                serving.spawn(async move {
                    if let Some(io) = secured(socket, tls).await {
                        serve(io).await;
                    }
                });
            }
        });
        Self { address, connections, accepting }
    }

    /// A pod that answers requests.
    pub(super) async fn http<F, Fut, B>(speaks: Speaks, tls: Option<Arc<ServerConfig>>, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::http_at("127.0.0.1:0".parse().unwrap(), speaks, tls, answer).await
    }

    /// The same, at this address.
    pub(super) async fn http_at<F, Fut, B>(
        address: SocketAddr,
        speaks: Speaks,
        tls: Option<Arc<ServerConfig>>,
        answer: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::at(address, tls, move |io| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let io = TokioIo::new(io);
                // However it ends, the test sees it on the other side.
                let _ = match speaks {
                    Speaks::Http1 => {
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                    }
                    Speaks::Http2 => {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    }
                };
            }
        })
        .await
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn secured(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Box<dyn Io>> {
    match tls {
        None => Some(Box::new(socket)),
        Some(tls) => Some(Box::new(TlsAcceptor::from(tls).accept(socket).await.ok()?)),
    }
}

/// Where nobody listens, until somebody does: at an address that no other test has, for the system gives away a port that was
/// found to be free.
pub(super) fn nobody() -> SocketAddr {
    (loopback_address(), POD_PORT).into()
}
