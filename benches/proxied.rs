//! A router on loopback between one client and ten pods. The client and the pods have threads of their own, so that what the
//! router's own thread does can be counted alone.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use serinus::model::{AccessFormat, Edge, ServiceKey, Share, StaticEndpoint, Timestamp};
use serinus::proxy::{Drain, Gateway, GatewayOptions, Listener, Server, SetAside, Shutdown, Stop};
use serinus::routing::Compiler;
use serinus::state::Desired;
use serinus::telemetry::{AccessLog, Telemetry};
use serinus::traces::Traces;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::http2;
use crate::world::{NOW, spec};

const REQUEST: &str = "GET /api/v1/items/42 HTTP/1.1\r\n\
    Host: shop-0.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\r\n";
const ANSWER_HEAD: &str = "HTTP/1.1 200 OK\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\r\n";
const BODY: usize = 1024;
/// One for each pod is enough, unless the machine stands still for so long that those that rest are closed.
const MOST_CONNECTIONS: usize = 50;

/// How often the client is to ask, and whom to tell that it has.
type Asked = mpsc::Receiver<(usize, oneshot::Sender<()>)>;

/// A router in which nothing waits: it has served requests, and has a connection to each pod.
pub(crate) struct Proxied {
    runtime: Runtime,
    ask: mpsc::Sender<(usize, oneshot::Sender<()>)>,
    /// How many connections the pods have taken.
    taken: Arc<AtomicUsize>,
    // The router runs, and its endpoints stay, for as long as these are there.
    _compiler: Compiler,
    _stop: watch::Sender<Stop>,
    _set_aside: tokio::sync::mpsc::Receiver<SetAside>,
}

impl Proxied {
    /// With a client of HTTP/1 that has had so many answers already.
    pub(crate) fn warm(requests: usize) -> Self {
        Self::with(http1_client, requests, Seen::default())
    }

    /// With a client of HTTP/2 that has had so many answers already.
    pub(crate) fn warm_http2(requests: usize) -> Self {
        Self::with(http2_client, requests, Seen::default())
    }

    /// The same as [`Self::warm`], with a line of JSON in the access log for each request.
    pub(crate) fn warm_logged(requests: usize) -> Self {
        let log = AccessLog::file(Path::new("/dev/null"), AccessFormat::Json, Share::ALL).unwrap();
        Self::with(http1_client, requests, Seen { access_log: Some(log), ..Seen::default() })
    }

    /// The same as [`Self::warm`], where requests are traced, but not these.
    pub(crate) fn warm_not_traced(requests: usize) -> Self {
        Self::with(http1_client, requests, Seen { traces: Some(traces(Share::ZERO)), ..Seen::default() })
    }

    /// The same as [`Self::warm`], where each request is traced.
    pub(crate) fn warm_traced(requests: usize) -> Self {
        Self::with(http1_client, requests, Seen { traces: Some(traces(Share::ALL)), ..Seen::default() })
    }

    fn with(client: fn(SocketAddr, &Asked), requests: usize, seen: Seen) -> Self {
        // Whom the router's thread picks is drawn from these.
        fastrand::seed(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stop, stopped) = Shutdown::new();
        let (set_aside, heard) = tokio::sync::mpsc::channel(1);
        let (taken, mut compiler) = (Arc::default(), Compiler::default());
        let gateway = gateway(&mut compiler, &taken, set_aside, seen);
        let address = runtime.block_on(serve(gateway, stopped));
        let (ask, asked) = mpsc::channel();
        thread::spawn(move || client(address, &asked));
        let mut proxied = Self { runtime, ask, taken, _compiler: compiler, _stop: stop, _set_aside: heard };
        proxied.requests(requests);
        proxied
    }

    /// The router serves so many requests, one after the other on one connection.
    pub(crate) fn requests(&mut self, requests: usize) {
        let (say, done) = oneshot::channel();
        self.ask.send((requests, say)).unwrap();
        self.runtime.block_on(done).unwrap();
        let taken = self.taken.load(Ordering::Relaxed);
        assert!(taken < MOST_CONNECTIONS, "connections are not kept: the pods have taken {taken}");
    }
}

/// How requests are seen one by one.
#[derive(Default)]
struct Seen {
    access_log: Option<AccessLog>,
    traces: Option<Traces>,
}

/// Spans that nobody takes: what their thread does is not counted.
fn traces(sample: Share) -> Traces {
    Traces::start("http://127.0.0.1:1/v1/traces", sample, Arc::new(Telemetry::new().unwrap())).unwrap()
}

/// A gateway for one route with ten pods, of which one is v2 and gets a tenth of the requests.
fn gateway(
    compiler: &mut Compiler,
    taken: &Arc<AtomicUsize>,
    set_aside: tokio::sync::mpsc::Sender<SetAside>,
    seen: Seen,
) -> Gateway {
    let service = ServiceKey::new(Arc::from("web"), "svc-0".to_owned());
    let mut spec = spec(0, service.clone());
    spec.versions[1].weight = Some("10".parse().unwrap());
    let labels =
        |i| Arc::new(BTreeMap::from([("version".to_owned(), if i < 9 { "v1" } else { "v2" }.to_owned())]));
    let pods =
        (0..10).map(|i| StaticEndpoint { address: pod(Arc::clone(taken)), labels: labels(i) }).collect();
    let mut desired = Desired::default();
    let statics = BTreeMap::from([(service, pods)]);
    let touched = desired.set_routes(vec![spec], Some(statics), Timestamp::default()).0;
    let table = compiler.compile(&desired, &touched, NOW);
    let options = GatewayOptions {
        traces: seen.traces,
        access_log: seen.access_log,
        set_aside,
        unrouted: Arc::default(),
        trusted_proxies: Vec::new(),
        connectors: Arc::default(),
    };
    Gateway::new(Arc::new(ArcSwap::from_pointee(table)), options)
}

async fn serve(gateway: Gateway, stopped: Shutdown) -> SocketAddr {
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::ZERO };
    let server = Server::new(gateway, Arc::new(Telemetry::new().unwrap()), drain);
    let listener = Listener::bind("web", "127.0.0.1:0", Edge::default()).await.unwrap();
    let address = listener.address();
    tokio::spawn(server.run(vec![listener], stopped));
    address
}

/// Asks as often as it is told to, and looks at every answer.
fn http1_client(router: SocketAddr, asked: &Asked) {
    let mut socket = TcpStream::connect(router).unwrap();
    let mut answer = Vec::new();
    for (requests, done) in asked {
        for _ in 0..requests {
            socket.write_all(REQUEST.as_bytes()).unwrap();
            let head = read_head(&mut socket, &mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
            let begun = answer.len() - head;
            answer.resize(head + BODY, 0);
            socket.read_exact(&mut answer[head + begun..]).unwrap();
        }
        done.send(()).unwrap();
    }
}

/// The same over HTTP/2.
fn http2_client(router: SocketAddr, asked: &Asked) {
    let mut client = http2::Client::connect(router);
    for (requests, done) in asked {
        for _ in 0..requests {
            assert_eq!(client.ask(), BODY);
        }
        done.send(()).unwrap();
    }
}

/// A pod that answers everything with 1 KB, on connections that it keeps.
fn pod(taken: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Vec<_> = ANSWER_HEAD.bytes().chain([b'x'; BODY]).collect();
    thread::spawn(move || {
        for socket in listener.incoming() {
            taken.fetch_add(1, Ordering::Relaxed);
            let (mut socket, answer) = (socket.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut request = Vec::new();
                while read_head(&mut socket, &mut request) > 0 {
                    socket.write_all(&answer).unwrap();
                }
            });
        }
    });
    address
}

/// Reads into an empty `message` until its head has come; how long that is, or 0 at the connection's end.
fn read_head(socket: &mut TcpStream, message: &mut Vec<u8>) -> usize {
    message.clear();
    let mut chunk = [0; 4096];
    loop {
        let n = socket.read(&mut chunk).unwrap();
        message.extend(&chunk[..n]);
        if let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") {
            return end + 4;
        }
        if n == 0 {
            return 0;
        }
    }
}
