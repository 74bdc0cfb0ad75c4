//! Stopping and restarting: sockets that pass from process to process, descriptors that run out, the last connections.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::process::{Process, Said, say, serinus};
use crate::support::upstream::Upstream;

/// How long something may take that needs no waiting at all.
const SOON: Duration = Duration::from_secs(8);

/// A folder with a config for one pod, and all that a router needs to hand over.
struct Place {
    folder: tempfile::TempDir,
    pod: Upstream,
}

impl Place {
    async fn new(delay: Duration, more: &str) -> Self {
        let pod = Upstream::slow((loopback_address(), 0).into(), "v1", delay).await;
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder, pod };
        place.write("127.0.0.1:0", more);
        place
    }

    fn write(&self, web: &str, more: &str) {
        let text = format!(
            "listeners: [{{name: web, address: '{web}'}}]\nadmin: {{address: '127.0.0.1:0'}}\n{more}\n\
             state: {{file: '{}'}}\n\
             discovery: {{static: {{web/svc: [{{address: '{}', labels: {{v: a}}}}]}}}}\n\
             routes: [{{name: shop, service: web/svc, versions: [{{name: v1, selector: 'v=a'}}, {{name: v2, selector: \
             'v=b', weight: 1}}]}}]\n",
            self.path("state.json").display(),
            self.pod.address,
        );
        fs::write(self.path("serinus.yaml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let [config, meeting] = ["serinus.yaml", "meeting"].map(|name| self.path(name).display().to_string());
        serinus(&["run", "--config", &config, "--handover", &meeting])
    }

    async fn start(&self) -> Process {
        Process::spawn(self.command()).await
    }

    fn fail(&self) -> Said {
        say(self.command())
    }
}

/// Clients that never stop asking, and what became of their requests.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    answered: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Load {
    /// GETs and POSTs at `address`, on new connections and on kept ones.
    fn start(self: &Arc<Self>, address: SocketAddr) -> Vec<JoinHandle<()>> {
        let get = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n".as_slice();
        let post = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody".as_slice();
        let kinds = [(get, true), (get, false), (post, true), (post, false)];
        let clients = kinds.into_iter().cycle().take(12);
        clients
            .map(|(request, kept)| {
                let load = Arc::clone(self);
                tokio::spawn(async move {
                    let mut connection = None;
                    while !load.over.load(Ordering::Relaxed) {
                        match load.ask(address, request, &mut connection).await {
                            Ok(()) => load.answered.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                load.failed.lock().unwrap().push(error);
                                0
                            }
                        };
                        if !kept {
                            connection = None;
                        }
                    }
                })
            })
            .collect()
    }

    /// One request; nothing is ever tried again.
    async fn ask(
        &self,
        address: SocketAddr,
        request: &[u8],
        connection: &mut Option<TcpStream>,
    ) -> Result<(), String> {
        let mut socket = match connection.take() {
            Some(socket) => socket,
            None => TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?,
        };
        socket.write_all(request).await.map_err(|error| format!("write: {error}"))?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"version is: v1\n") && !answer.starts_with(b"HTTP/1.1 5") {
            match socket.read_buf(&mut answer).await {
                Ok(0) => return Err(format!("closed after {:?}", String::from_utf8_lossy(&answer))),
                Ok(_) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if !answer.starts_with("http/1.1 200") {
            return Err(answer);
        }
        if !answer.contains("connection: close") {
            *connection = Some(socket);
        }
        Ok(())
    }

    /// Waits until so many more were answered.
    async fn more(&self, more: u64) {
        let then = self.answered.load(Ordering::Relaxed) + more;
        eventually("requests are answered", || (self.answered.load(Ordering::Relaxed) >= then).then_some(()))
            .await;
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }
}

fn shop(process: &Process) -> Value {
    serde_json::from_str(&process.client(&["status", "shop", "-o", "json"]).done()).unwrap()
}

/// Sets weights one after the other until it is told to stop; gives the last that was taken, and its revision.
async fn set_weights(admin: SocketAddr, over: Arc<Load>) -> (u64, u64) {
    let (mut weight, mut last) = (1, (0, 0));
    while !over.over.load(Ordering::Relaxed) {
        weight = weight % 90 + 1;
        let body = format!("{{\"weights\": {{\"v2\": {weight}}}}}");
        let request = format!(
            "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // One that is not answered was made, or was not; it is one of the next that counts.
        let Ok(answer) = Client::new(admin).raw(request.as_bytes()).await else { continue };
        if answer.status == 200 {
            let route: Value = serde_json::from_str(&answer.body).unwrap();
            last = (weight, route["revision"].as_u64().unwrap());
        } else {
            assert!(answer.status == 503 && answer.body.contains("handing over"), "{answer:?}");
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hand_overs_under_load_lose_no_request_and_no_weight() {
    let place = Place::new(Duration::from_millis(2), "drain: {delay: 2s, timeout: 20s}").await;
    let mut running = place.start().await;
    let (web, admin) = (running.web, running.admin);
    assert_eq!(fs::metadata(place.path("meeting")).unwrap().permissions().mode() & 0o777, 0o600);
    let load = Arc::new(Load::default());
    let clients = load.start(web);
    let weights = tokio::spawn(set_weights(admin, Arc::clone(&load)));
    load.more(200).await;
    for round in 1..=3 {
        let next = place.start().await;
        assert_eq!((next.web, next.admin), (web, admin));
        eventually("the new one has taken over", || next.logged("taken over")).await;
        eventually("the old one has heard", || running.logged("handed over")).await;
        let (status, _) = running.end(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "the old one ends well");
        load.more(200).await;
        assert_eq!(load.failures(), Vec::<String>::new(), "hand-over {round}");
        running = next;
    }
    load.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (weight, revision) = weights.await.unwrap();
    let route = shop(&running);
    assert_eq!(route["versions"][1]["weight"], weight, "{route}");
    assert!(revision > 3 && route["revision"] == revision, "{revision}: {route}");
    assert_eq!(load.failures(), Vec::<String>::new());
    // What was handed over is on disk as well.
    running.signal("KILL");
    running.end(SOON);
    let next = place.start().await;
    assert_eq!(shop(&next)["revision"], revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_fails_leaves_the_old_one_in_charge() {
    let place = Place::new(Duration::ZERO, "").await;
    let mut running = place.start().await;
    let web = running.web;
    // Its second listener cannot be bound.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let good = fs::read_to_string(place.path("serinus.yaml")).unwrap();
    let second = format!(
        "[{{name: web, address: '127.0.0.1:0'}}, {{name: b, address: '{}'}}]",
        taken.local_addr().unwrap()
    );
    let bad = good.replace("[{name: web, address: '127.0.0.1:0'}]", &second);
    assert_ne!(good, bad);
    fs::write(place.path("serinus.yaml"), bad).unwrap();
    let said = place.fail();
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("goes on") && said.err.contains("another process has it"), "{said:?}");
    eventually("the old one says so", || running.logged("no hand-over, and this process goes on")).await;
    // One that is killed while it waits for its cluster.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
        silent.local_addr().unwrap()
    );
    fs::write(place.path("kubeconfig"), kubeconfig).unwrap();
    let statics = good.lines().find(|line| line.starts_with("discovery:")).unwrap();
    let cluster =
        format!("discovery: {{kubernetes: {{kubeconfig: '{}'}}}}", place.path("kubeconfig").display());
    let waits = good.replace(statics, &cluster).replace("service: web/svc", "service: web/svc, port: 80");
    let config = place.path("waits.yaml");
    fs::write(&config, waits).unwrap();
    let [config, meeting] = [config, place.path("meeting")].map(|path| path.display().to_string());
    let mut waiting = serinus(&["run", "--config", &config, "--handover", &meeting]).spawn().unwrap();
    eventually("it has the sockets", || {
        (running.times_logged("a new process is getting ready") == 2).then_some(())
    })
    .await;
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    eventually("the old one says so", || {
        (running.times_logged("no hand-over, and this process goes on") == 2).then_some(())
    })
    .await;
    fs::write(place.path("serinus.yaml"), good).unwrap();
    assert!(running.runs());
    assert_eq!(Client::new(web).get("shop", "/").await.unwrap().status, 200);
    running.client(&["weight", "shop", "v2=7"]).done();
    // And it can still hand over.
    let next = place.start().await;
    eventually("the old one has heard", || running.logged("handed over")).await;
    assert_eq!((next.web, shop(&next)["versions"][1]["weight"].as_u64()), (web, Some(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_follow_the_new_config() {
    let place = Place::new(Duration::ZERO, "drain: {delay: 0s, timeout: 5s}").await;
    let first = place.start().await;
    // By another name it is still the same socket, and the admin API moves.
    let free = SocketAddr::new(loopback_address(), 18081);
    let text = fs::read_to_string(place.path("serinus.yaml")).unwrap();
    let text =
        text.replace("name: web, address: '127.0.0.1:0'", &format!("name: shop, address: '{}'", first.web));
    let text = text.replace("admin: {address: '127.0.0.1:0'}", &format!("admin: {{address: '{free}'}}"));
    fs::write(place.path("serinus.yaml"), text).unwrap();
    let (web, admin) = (first.web, first.admin);
    let second = place.start().await;
    assert_eq!((second.web, second.admin), (web, free));
    assert_eq!(first.end(SOON).0.code(), Some(0));
    assert_eq!(Client::new(web).get("shop", "/").await.unwrap().status, 200);
    assert!(TcpStream::connect(admin).await.is_err(), "what the new config does not have is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_others_can_write_to_is_refused() {
    let place = Place::new(Duration::ZERO, "").await;
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let said = place.fail();
    assert!(said.code == Some(1) && said.err.contains("everyone may write in"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_leaves_nothing_in_the_way() {
    let place = Place::new(Duration::ZERO, "").await;
    let killed = place.start().await;
    killed.signal("KILL");
    killed.end(SOON);
    assert!(place.path("meeting").exists());
    let next = place.start().await;
    assert_eq!(Client::new(next.web).get("shop", "/").await.unwrap().status, 200);
    next.signal("TERM");
    next.signal("TERM");
    assert_eq!(next.end(SOON).0.code(), Some(0));
    assert!(!place.path("meeting").exists(), "taken away at a plain stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_whoever_is_connected_at_the_end_is_answered() {
    let place = Place::new(Duration::ZERO, "drain: {delay: 50ms, timeout: 20s}").await;
    let process = place.start().await;
    let web = process.web;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(async move {
            let mut answered = 0;
            loop {
                // From a refused connection on nobody is there; who is connected must be answered.
                let Ok(mut socket) = TcpStream::connect(web).await else { return answered };
                let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
                let mut answer = Vec::new();
                let sent = socket.write_all(request).await;
                let read = socket.read_to_end(&mut answer).await;
                assert!(
                    sent.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200"),
                    "{sent:?} {read:?} {:?}",
                    String::from_utf8_lossy(&answer)
                );
                answered += 1;
            }
        }));
    }
    eventually("requests are served", || (place.pod.served() > 100).then_some(())).await;
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

/// A router with so many descriptors.
async fn with_files(place: &Place, files: u32) -> Process {
    let mut shell = Command::new("sh");
    let run = place.command();
    shell.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(run.get_program());
    shell.args(run.get_args()).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Process::spawn(shell).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_descriptors_are_served_in_turn() {
    let place = Place::new(Duration::ZERO, "").await;
    let mut process = with_files(&place, 128).await;
    eventually("it says what is allowed", || process.logged("the limit of open files allows fewer")).await;
    let (web, admin) = (process.web, process.admin);
    // More than there are descriptors, kept open after their answer.
    let mut idle = Vec::new();
    for _ in 0..150 {
        let mut client = Client::new(web);
        assert_eq!(client.get("shop", "/").await.unwrap().status, 200);
        idle.push(client);
    }
    assert_eq!(Client::new(admin).get("localhost", "/livez").await.unwrap().status, 200);
    assert_eq!(process.times_logged("no more connections are taken at once"), 1);
    drop(idle);
    assert_eq!(Client::new(web).get("shop", "/").await.unwrap().status, 200);
    assert!(process.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_keep_probes_out() {
    let place = Place::new(Duration::ZERO, "").await;
    let process = place.start().await;
    let admin = process.admin;
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let mut socket = TcpStream::connect(admin).await.unwrap();
        socket.write_all(b"GET /livez HTTP/1.1\r\nHost: local").await.unwrap();
        open.push(socket);
    }
    for path in ["/livez", "/readyz"] {
        let mut client = Client::new(admin);
        let answer = tokio::time::timeout(Duration::from_secs(3), client.get("localhost", path)).await;
        assert_eq!(answer.expect("at once").unwrap().status, 200);
    }
}
