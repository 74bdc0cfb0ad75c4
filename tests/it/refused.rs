//! Connections that end before their first request: counted, told in the log, and told within bounds.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::TLS12;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::certificates::Authority;
use crate::support::http::Client;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually};

/// What the log says of each.
const REFUSED: &str = "connection refused";

/// A config with a listener for TLS 1.3 alone, and one for a load balancer that is not this machine.
fn config(folder: &Path, authority: &Authority) -> String {
    let issued = authority.issue(&["shop.example"]);
    let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&cert, &issued.chain).unwrap();
    std::fs::write(&key, &issued.key).unwrap();
    format!(
        "listeners:\n\
         \x20 - name: tls\n\
         \x20   address: '127.0.0.1:0'\n\
         \x20   timeouts: {{header: 3s}}\n\
         \x20   tls: {{minVersion: '1.3', certificates: [{{certFile: {}, keyFile: {}}}]}}\n\
         \x20 - {{name: proxied, address: '127.0.0.1:0', proxyProtocol: true, timeouts: {{header: 3s}}}}\n\
         admin: {{address: '127.0.0.1:0'}}\n\
         drain: {{delay: 0s, timeout: 5s}}\n\
         trustedProxies: [192.0.2.0/24]\n\
         discovery: {{static: {{web/svc: []}}}}\n\
         routes: [{{name: shop, service: web/svc, versions: [{{name: v1}}]}}]\n",
        cert.display(),
        key.display(),
    )
}

/// Where a listener is.
fn address(process: &Process, listener: &str) -> SocketAddr {
    let log = process.log();
    let line = log.iter().find(|line| line["listener"] == listener && line["message"] == "listening");
    line.and_then(|line| line["address"].as_str()?.parse().ok()).unwrap_or_else(|| panic!("{log:#?}"))
}

/// Says something, and waits until the router has closed the connection.
async fn say(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut rest = Vec::new();
    // It may be reset.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it is closed");
}

/// The counters that are not 0: listener, reason, how many; once no connection is open any more.
async fn refused(admin: SocketAddr) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let metrics = loop {
        let metrics = Client::new(admin).get("localhost", "/metrics").await.unwrap().body;
        let mut open = metrics.lines().filter(|line| line.starts_with("serinus_active_connections{"));
        if open.all(|line| line.ends_with(" 0")) {
            break metrics;
        }
        assert!(Instant::now() < deadline, "connections are still open: {metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let counters = metrics.lines().filter_map(|line| line.strip_prefix("serinus_connections_refused_total"));
    counters.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// What the log says of the refusals for one reason.
fn told(process: &Process, reason: &str) -> Vec<Value> {
    let log = process.log();
    log.into_iter().filter(|line| line["message"] == REFUSED && line["reason"] == reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_counted_and_told_and_a_look_at_the_port_is_not() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("a"));
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config(folder.path(), &authority)).unwrap();
    let process = Process::start(&file).await;
    let (tls, proxied) = (address(&process, "tls"), address(&process, "proxied"));

    // As load balancers look whether somebody listens: a connection without a byte, closed or reset.
    for address in [tls, proxied] {
        drop(TcpStream::connect(address).await.unwrap());
        let socket = TcpStream::connect(address).await.unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(refused(process.admin).await, Vec::<String>::new());

    let get = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    say(tls, get).await;
    let old = TlsConnector::from(Arc::new(authority.client_of(&[&TLS12], None)));
    let socket = TcpStream::connect(tls).await.unwrap();
    assert!(old.connect(ServerName::try_from("shop.example").unwrap(), socket).await.is_err());
    say(tls, b"\x16\x03\x01").await;
    say(proxied, get).await;
    say(proxied, b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 80\r\n").await;
    say(proxied, b"PROXY ").await;
    assert_eq!(
        refused(process.admin).await,
        [
            "{listener=\"proxied\",reason=\"proxy-protocol\"} 1",
            "{listener=\"proxied\",reason=\"proxy-protocol-timeout\"} 1",
            "{listener=\"proxied\",reason=\"proxy-protocol-untrusted\"} 1",
            "{listener=\"tls\",reason=\"not-tls\"} 1",
            "{listener=\"tls\",reason=\"tls-incompatible\"} 1",
            "{listener=\"tls\",reason=\"tls-timeout\"} 1",
        ]
    );
    for (reason, listener, sni, error, remedy) in [
        ("not-tls", "tls", None, "plain HTTP came", "https"),
        ("tls-incompatible", "tls", Some("shop.example"), "no version of TLS", "tls.minVersion"),
        ("tls-timeout", "tls", None, "within 3s", "slow"),
        ("proxy-protocol", "proxied", None, "does not begin with a PROXY header", "load balancer"),
        ("proxy-protocol-untrusted", "proxied", None, "trustedProxies", "trustedProxies"),
        ("proxy-protocol-timeout", "proxied", None, "within 3s", "load balancer"),
    ] {
        let lines = eventually("it is told", || Some(told(&process, reason)).filter(|l| !l.is_empty())).await;
        let [line] = &lines[..] else { panic!("{lines:#?}") };
        assert_eq!((&line["listener"], &line["client"]), (&listener.into(), &"127.0.0.1".into()), "{line}");
        assert_eq!(line["sni"].as_str(), sni, "{line}");
        assert!(line["error"].as_str().unwrap().contains(error), "{line}");
        assert!(line["remedy"].as_str().unwrap().contains(remedy), "{line}");
    }
    process.signal("TERM");
    assert!(process.end(PATIENCE).0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_fill_no_log() {
    const MANY: usize = 200;
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("a"));
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config(folder.path(), &authority)).unwrap();
    let process = Process::start(&file).await;
    let tls = address(&process, "tls");
    let began = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..MANY / 4 {
                    say(tls, b"GET / HTTP/1.1\r\n\r\n").await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let counted = format!("{{listener=\"tls\",reason=\"not-tls\"}} {MANY}");
    assert_eq!(refused(process.admin).await, [counted]);
    // A line for each second that the router has seen meanwhile, the first and the last not whole.
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    // What comes after them is written after them.
    let mut socket = TcpStream::connect(tls).await.unwrap();
    socket.write_all(b"\x16").await.unwrap();
    drop(socket);
    eventually("another kind is told", || (!told(&process, "tls-handshake").is_empty()).then_some(())).await;
    let lines = told(&process, "not-tls");
    assert!((1..=most).contains(&lines.len()), "at most {most}: {lines:#?}");
    let untold: u64 = lines.iter().map(|line| line["untold"].as_u64().unwrap()).sum();
    assert!(lines.len() + usize::try_from(untold).unwrap() <= MANY, "{lines:#?}");
    process.signal("TERM");
    assert!(process.end(PATIENCE).0.success());
}
