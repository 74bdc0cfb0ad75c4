//! TLS: new connections, each with a whole or a resumed handshake and one request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::stop;

/// How many clients there are.
const CLIENTS: usize = 8;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name that the certificate is for.
pub(crate) const NAME: &str = "shop.example.com";

/// A certificate for the peers.
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Connections that had their answer.
    pub(crate) connections: u64,
    /// Of these, those whose handshake was resumed.
    pub(crate) resumed: u64,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Certificate {
    /// Makes one (ECDSA, P-256), and writes `tls.crt`, `tls.key` and both together as `both.pem` into the folder.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(folder.join("tls.crt"), &certificate)?;
        std::fs::write(folder.join("tls.key"), &key)?;
        std::fs::write(folder.join("both.pem"), certificate + &key)?;
        Ok(Certificate { der: made.cert.der().clone() })
    }

    fn client(&self, resume: bool) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = if resume { Resumption::in_memory_sessions(32) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }

    /// Connects for so long, from a few threads, each with one connection at a time.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        resume: bool,
        length: Duration,
    ) -> anyhow::Result<Seen> {
        let configs = (0..CLIENTS).map(|_| self.client(resume)).collect::<anyhow::Result<Vec<_>>>()?;
        let begin = Instant::now();
        let each: Vec<anyhow::Result<Seen>> = std::thread::scope(|scope| {
            let threads: Vec<_> = configs
                .iter()
                .map(|config| scope.spawn(move || repeat(address, config, begin + length)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked"))))
                .collect()
        });
        let mut all = Seen { seconds: begin.elapsed().as_secs_f64(), ..Seen::default() };
        for one in each {
            let one = one?;
            all.connections += one.connections;
            all.resumed += one.resumed;
        }
        Ok(all)
    }
}

fn repeat(address: SocketAddr, config: &Arc<ClientConfig>, end: Instant) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while Instant::now() < end {
        stop::go_on()?;
        let kind = one(address, config).with_context(|| format!("a TLS connection to {address}"))?;
        seen.connections += 1;
        seen.resumed += u64::from(kind == HandshakeKind::Resumed);
    }
    Ok(seen)
}

fn one(address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<HandshakeKind> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
    let mut tls = StreamOwned::new(connection, stream);
    write!(tls, "GET /tiny HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "an answer {}", String::from_utf8_lossy(&answer));
    tls.conn.handshake_kind().context("no handshake")
}
