//! What a hostile client, a broken pod or a bad moment must not do.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serinus::cli::app::Router;
use serinus::model::{ChoiceReason, FailureKind};
use serinus::proxy::{Drain, Gateway, GatewayOptions, Listener, Server, Shutdown, Stop};
use serinus::telemetry::Telemetry;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::{POD_PORT, start_router};
use crate::support::upstream::Upstream;

/// A config with one route to one pod.
fn config(pod: SocketAddr) -> String {
    format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
         admin: {{address: '127.0.0.1:0'}}\n\
         drain: {{delay: 0s, timeout: 5s}}\n\
         discovery: {{static: {{web/svc: [{{address: '{pod}'}}]}}}}\n\
         routes: [{{name: shop, service: web/svc, versions: [{{name: v1}}]}}]\n"
    )
}

/// A router with one route to one pod; the folder has its config.
async fn router(pod: SocketAddr) -> (Router, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config(pod)).unwrap();
    (start_router(file).await, folder)
}

fn address(router: &Router) -> SocketAddr {
    router.listeners()[0].1
}

/// How many requests are being served.
fn active(router: &Router) -> u64 {
    router.control().table().load().routes()[0].versions[0].tally.snapshot().active
}

async fn read_to_end(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut bytes)).await;
    end.expect("the connection is closed in time").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_early_does_not_break_the_one_that_is_served() {
    let pod = Upstream::slow("127.0.0.1:0".parse().unwrap(), "v1", Duration::from_millis(300)).await;
    let (router, _folder) = router(pod.address).await;
    let mut socket = TcpStream::connect(address(&router)).await.unwrap();
    socket.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("the first is being served", || (active(&router) == 1).then_some(())).await;
    socket.write_all(b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let answers = read_to_end(socket).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!((pod.served(), pod.last().path.as_str()), (2, "/second"));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_an_interim_answer_got_none() {
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (router, _folder) = router(pod.local_addr().unwrap()).await;
    let serving = tokio::spawn(async move {
        let (mut socket, _) = pod.accept().await.unwrap();
        socket.read_u8().await.unwrap();
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        // Until the router gives up.
        let _ = socket.read_to_end(&mut rest).await;
    });
    let mut socket = TcpStream::connect(address(&router)).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    socket.write_all(head).await.unwrap();
    socket.read_u8().await.unwrap();
    drop(socket);
    eventually("the request has ended", || (active(&router) == 0).then_some(())).await;
    let requests = router.control().table().load().routes()[0].versions[0].tally.snapshot().requests;
    assert_eq!(requests, [(ChoiceReason::Weight, 499, 1)]);
    serving.await.unwrap();
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_a_connection_taken_at_the_last_moment_is_answered() {
    let pod = Upstream::start("127.0.0.1:0".parse().unwrap(), "v1").await;
    let (router, _folder) = router(pod.address).await;
    let address = address(&router);
    let mut socket = TcpStream::connect(address).await.unwrap();
    let open = router.telemetry().connections("web");
    eventually("it is taken", || (open.get() == 1).then_some(())).await;
    let stopping = tokio::spawn(router.stop());
    // A listener that closes leaves new handshakes without an answer, until it is closed.
    let at_once = Duration::from_millis(50);
    while let Ok(Ok(_)) = tokio::time::timeout(at_once, TcpStream::connect(address)).await {}
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_to_end(socket).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_2_an_endpoint_that_nobody_would_probe_is_not_set_aside() {
    let nobody = (loopback_address(), POD_PORT).into();
    let (router, _folder) = router(nobody).await;
    // A second gateway on the same table, of whose endpoints that are set aside nobody hears.
    let (set_aside, _) = mpsc::channel(1);
    let options = GatewayOptions {
        traces: None,
        access_log: None,
        set_aside,
        unrouted: Arc::default(),
        trusted_proxies: Vec::new(),
        connectors: Arc::default(),
    };
    let gateway = Gateway::new(Arc::clone(router.control().table()), options);
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::ZERO };
    let server = Server::new(gateway, Arc::new(Telemetry::new().unwrap()), drain);
    let listener = Listener::bind("second", "127.0.0.1:0", serinus::model::Edge::default()).await.unwrap();
    let mut client = Client::new(listener.address());
    let (stop, stopped) = Shutdown::new();
    let serving = tokio::spawn(server.run(vec![listener], stopped));
    let answer = client.get("a", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (502, "connect-failed"));
    assert!(!router.control().table().load().routes()[0].versions[0].members[0].endpoint.is_refused());
    stop.send_replace(Stop::Drain);
    serving.await.unwrap();
    router.stop().await;
}

#[test]
fn clients_cannot_fill_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config("127.0.0.1:1".parse().unwrap())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_serinus"));
    command.args(["run", "--log-format", "json", "--config"]).arg(&file).env_remove("RUST_LOG");
    let mut serinus = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = Vec::new();
    for line in BufReader::new(serinus.stderr.take().unwrap()).lines().map(Result::unwrap) {
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        if told["listener"] == "web" {
            let mut socket = std::net::TcpStream::connect(told["address"].as_str().unwrap()).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(socket.read(&mut [0]).unwrap(), 0, "half a head has no answer");
            assert!(Command::new("kill").arg(serinus.id().to_string()).status().unwrap().success());
        }
        log.push(line);
    }
    assert!(serinus.wait().unwrap().success());
    assert!(log.iter().all(|line| !line.contains("Fail to proxy")), "{log:#?}");
    assert!(log.last().unwrap().contains("stopped"), "{log:#?}");
}

/// A pod that answers the first request of each connection, takes the second and closes without a word; asked for `/half`
/// it closes in the middle of its answer. Gives the request lines that it saw.
async fn faithless_pod() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let saw = Arc::clone(&saw);
            tokio::spawn(async move {
                for answers in [true, false] {
                    let Some(line) = request_line(&mut socket).await else { return };
                    let half = line.contains("/half");
                    saw.lock().unwrap().push(line);
                    let answer: &[u8] = match (half, answers) {
                        (true, _) => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                        (false, true) => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                        (false, false) => return,
                    };
                    if socket.write_all(answer).await.is_err() || half {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Reads a request with its body of at most a few bytes, and gives its first line.
async fn request_line(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.lines().next().map(str::to_owned);
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn failures(router: &Router, kind: FailureKind) -> u64 {
    let snapshot = router.control().table().load().routes()[0].versions[0].tally.snapshot();
    snapshot.failures.iter().find(|(k, _)| *k == kind).map_or(0, |(_, count)| *count)
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_what_met_a_closing_connection_is_repeated_only_if_it_is_idempotent() {
    let (pod, seen) = faithless_pod().await;
    let (router, _folder) = router(pod).await;
    let mut client = Client::new(address(&router));
    for path in ["/1", "/2"] {
        assert_eq!(client.get("a", path).await.unwrap().status, 200, "{path}");
    }
    let lines = |seen: &Mutex<Vec<String>>| seen.lock().unwrap().clone();
    assert_eq!(
        lines(&seen),
        ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /2 HTTP/1.1"],
        "the second was repeated"
    );
    let post = b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let answer = client.raw(post).await.unwrap();
    assert_eq!(
        answer.status, 200,
        "what cannot be repeated gets a new connection to a pod that closes them hastily"
    );
    assert_eq!(lines(&seen).iter().filter(|line| line.starts_with("POST")).count(), 1, "never twice");
    // The answer is there a moment before its request has ended.
    eventually("none is served any more", || (active(&router) == 0).then_some(())).await;
    assert_eq!(failures(&router, FailureKind::Reset), 1);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let (pod, seen) = faithless_pod().await;
    let (router, _folder) = router(pod).await;
    let mut client = Client::new(address(&router));
    let broken = client.get("a", "/half").await.unwrap_err();
    assert!(broken.contains("closed inside a body"), "{broken}");
    assert_eq!(seen.lock().unwrap().len(), 1, "what was begun is not repeated");
    eventually("the failure is counted", || (failures(&router, FailureKind::Reset) == 1).then_some(())).await;
    eventually("nothing is active", || (active(&router) == 0).then_some(())).await;
    assert_eq!(client.get("a", "/next").await.unwrap().status, 200);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_3_idle_connections_to_a_pod_that_leaves_are_closed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (router, folder) = router(listener.local_addr().unwrap()).await;
    let mut client = Client::new(address(&router));
    let served = async {
        let (mut pod, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        assert!(pod.read(&mut head).await.unwrap() > 0);
        pod.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        pod
    };
    let (answer, mut pod) = tokio::join!(client.get("a", "/"), served);
    assert_eq!(answer.unwrap().status, 200);
    let mut byte = [0; 1];
    let open = tokio::time::timeout(Duration::from_millis(50), pod.read(&mut byte)).await;
    assert!(open.is_err(), "the connection is kept for the next request");
    let left = Instant::now();
    std::fs::write(folder.path().join("serinus.yaml"), config("127.0.0.1:9".parse().unwrap())).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), pod.read(&mut byte)).await;
    assert_eq!(end.expect("it is closed").unwrap(), 0);
    assert!(left.elapsed() < Duration::from_secs(3), "before its idle time was over: {:?}", left.elapsed());
    router.stop().await;
}
