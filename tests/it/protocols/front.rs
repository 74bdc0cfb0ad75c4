//! A router with one route, and connections to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serinus::cli::app::Router;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::bodies::Sent;
use super::pods::Speaks;
use crate::support::certificates::Issued;
use crate::support::stack::start_router;

/// The host that certificates are for, where it is not said otherwise.
pub(super) const HOST: &str = "shop.example";

/// A connection as bytes, plain or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A router with the route `shop`, to the Service `web/svc`.
pub(super) struct Front {
    pub(super) router: Router,
    pub(super) folder: TempDir,
}

/// What its config says.
pub(super) struct Plan {
    folder: TempDir,
    /// Lines of its listener.
    pub(super) listener: Vec<String>,
    /// Address and version of each pod.
    pub(super) pods: Vec<(SocketAddr, &'static str)>,
    /// Lines of its route.
    pub(super) route: Vec<String>,
    /// Lines of the whole config.
    pub(super) top: Vec<String>,
}

impl Plan {
    /// All as it comes, to these pods.
    pub(super) fn to(pods: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            listener: Vec::new(),
            pods: pods.into_iter().map(|pod| (pod, "v1")).collect(),
            route: Vec::new(),
            top: Vec::new(),
        }
    }

    pub(super) fn listener(mut self, line: impl Into<String>) -> Self {
        self.listener.push(line.into());
        self
    }

    pub(super) fn route(mut self, line: impl Into<String>) -> Self {
        self.route.push(line.into());
        self
    }

    pub(super) fn top(mut self, line: impl Into<String>) -> Self {
        self.top.push(line.into());
        self
    }

    /// A file in the folder of the config.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder of the config, and returns where it is.
    pub(super) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// TLS towards the clients, with these certificates, and further fields of `tls`.
    pub(super) fn tls(self, certificates: &[&Issued], more: &str) -> Self {
        let mut items = String::new();
        for (i, issued) in certificates.iter().enumerate() {
            write_certificate(self.folder.path(), &i.to_string(), issued);
            let (cert, key) = (self.path(&format!("{i}.crt")), self.path(&format!("{i}.key")));
            write!(items, "{{certFile: {}, keyFile: {}}}, ", cert.display(), key.display()).unwrap();
        }
        self.listener(format!("tls: {{certificates: [{items}], {more}}}"))
    }

    /// What the file says now.
    pub(super) fn text(&self) -> String {
        config(&self.listener, &self.pods, &self.route, &self.top)
    }

    pub(super) async fn start(self) -> Front {
        let file = self.path("serinus.yaml");
        std::fs::write(&file, self.text()).unwrap();
        Front { router: start_router(file).await, folder: self.folder }
    }
}

/// A config.
pub(super) fn config(
    listener: &[String],
    pods: &[(SocketAddr, &str)],
    route: &[String],
    top: &[String],
) -> String {
    let mut text = "admin: {address: '127.0.0.1:0'}\n".to_owned();
    if !top.iter().any(|line| line.starts_with("drain:")) {
        text += "drain: {delay: 0s, timeout: 5s}\n";
    }
    for line in top {
        writeln!(text, "{line}").unwrap();
    }
    text += "listeners:\n  - name: web\n    address: '127.0.0.1:0'\n";
    for line in listener {
        writeln!(text, "    {line}").unwrap();
    }
    text += if pods.is_empty() {
        "discovery: {static: {web/svc: []}}\n"
    } else {
        "discovery:\n  static:\n    web/svc:\n"
    };
    for (address, version) in pods {
        writeln!(text, "      - {{address: '{address}', labels: {{version: {version}}}}}").unwrap();
    }
    text += "routes:\n  - name: shop\n    service: web/svc\n";
    if !route.iter().any(|line| line.starts_with("versions:")) {
        text += "    versions: [{name: v1}]\n";
    }
    for line in route {
        writeln!(text, "    {line}").unwrap();
    }
    text
}

/// Writes a certificate and its key, each in one step, as whoever renews them does.
pub(super) fn write_certificate(folder: &Path, name: &str, issued: &Issued) {
    for (end, text) in [("key", &issued.key), ("crt", &issued.chain)] {
        let new = folder.join(format!("{name}.{end}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, folder.join(format!("{name}.{end}"))).unwrap();
    }
}

impl Front {
    pub(super) fn address(&self) -> SocketAddr {
        self.router.listeners()[0].1
    }

    /// How many requests are being served.
    pub(super) fn active(&self) -> u64 {
        let table = self.router.control().table().load_full();
        table.routes()[0].versions.iter().map(|version| version.tally.snapshot().active).sum()
    }

    /// The problems that `status` shows of the route.
    pub(super) fn problems(&self) -> String {
        let table = self.router.control().table().load_full();
        table.routes()[0].problems.iter().map(|p| format!("{p}\n")).collect()
    }

    pub(super) async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// A client without TLS.
    pub(super) async fn sender(&self, speaks: Speaks) -> Sender {
        Sender::new(speaks, self.plain().await).await
    }

    /// A TLS connection that offers these protocols.
    pub(super) async fn secure(
        &self,
        config: &ClientConfig,
        name: &'static str,
        alpn: &[&str],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        connect_tls(self.address(), config, name, alpn).await
    }
}

/// A TLS connection that offers these protocols.
pub(super) async fn connect_tls(
    address: SocketAddr,
    config: &ClientConfig,
    name: &'static str,
    alpn: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = config.clone();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A client of HTTP/2 on a connection.
pub(super) async fn http2(io: impl Io + 'static) -> http2::SendRequest<Sent> {
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A client of either version; its connection ends with it.
pub(super) struct Sender {
    kind: Kind,
    _connection: AbortOnDropHandle<()>,
}

enum Kind {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

impl Sender {
    pub(super) async fn new(speaks: Speaks, io: impl Io + 'static) -> Self {
        match speaks {
            Speaks::Http1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Self { kind: Kind::Http1(sender), _connection: AbortOnDropHandle::new(connection) }
            }
            Speaks::Http2 => {
                let builder = http2::Builder::new(TokioExecutor::new());
                let (sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Self { kind: Kind::Http2(sender), _connection: AbortOnDropHandle::new(connection) }
            }
        }
    }

    pub(super) async fn send(
        &mut self,
        request: hyper::Request<Sent>,
    ) -> hyper::Result<hyper::Response<hyper::body::Incoming>> {
        match &mut self.kind {
            Kind::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Kind::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A request for [`HOST`]; in HTTP/1 its target is a path.
    pub(super) fn request(&self, method: &str, path: &str, body: Sent) -> hyper::Request<Sent> {
        let request = hyper::Request::builder().method(method);
        let request = match self.kind {
            Kind::Http1(_) => request.uri(path).header("host", HOST),
            Kind::Http2(_) => request.uri(format!("http://{HOST}{path}")),
        };
        request.body(body).unwrap()
    }
}
