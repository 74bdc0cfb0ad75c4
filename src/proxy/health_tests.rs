//! What is asked, what counts as well, and what follows from it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use tokio::net::TcpStream;

use super::*;
use crate::model::{
    BackendRef, Balance, Labels, Moment, OnEmpty, Outliers, RouteSpec, StaticEndpoint, Timestamp, Traffic,
    VersionSpec,
};
use crate::proxy::PodConnector;
use crate::routing::{Compiler, EndpointState};
use crate::state::{Desired, Touched};

/// An HTTP server that answers every request with the same bytes, which may change, and counts them.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            status: Arc::new(AtomicU16::new(200)),
            asked: Arc::default(),
        };
        let (status, asked) = (Arc::clone(&server.status), Arc::clone(&server.asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_request(&mut stream).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let status = status.load(Ordering::SeqCst);
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        server
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
    String::from_utf8(request).unwrap()
}

/// A table that is compiled anew whenever there is news of it, as by the control task.
struct World {
    desired: Desired,
    compiler: Compiler,
    table: Published,
    endpoints: Vec<SocketAddr>,
}

impl World {
    fn new(endpoints: &[SocketAddr]) -> Self {
        Self {
            desired: Desired::default(),
            compiler: Compiler::default(),
            table: Arc::new(ArcSwap::default()),
            endpoints: endpoints.to_vec(),
        }
    }

    fn publish(&mut self, health_check: Option<HealthCheck>) {
        let service = ServiceKey::new("web", "svc");
        let spec = RouteSpec {
            name: "shop".parse().unwrap(),
            hosts: Vec::new(),
            paths: Vec::new(),
            backend: BackendRef { service: service.clone(), port: None },
            versions: vec![VersionSpec {
                name: "v1".parse().unwrap(),
                selector: None,
                backend: None,
                weight: None,
                max_in_flight_per_pod: None,
            }],
            audience: crate::model::Audience::default(),
            on_empty: OnEmpty::Spill,
            balance: Balance::LeastRequest,
            traffic: Traffic {
                health_check,
                outliers: Outliers { most: 100, ..Outliers::default() },
                ..Traffic::default()
            },
            rollout: None,
            debug_headers: false,
        };
        let hand = |address: &SocketAddr| StaticEndpoint { address: *address, labels: Labels::default() };
        let statics = [(service, self.endpoints.iter().map(hand).collect())].into();
        let (touched, _) = self.desired.set_routes(vec![spec], Some(statics), Timestamp::default());
        self.compile(&touched);
    }

    fn compile(&mut self, touched: &Touched) {
        let table = self.compiler.compile(&self.desired, touched, Moment::default());
        self.table.store(Arc::new(table));
    }

    fn states(&self) -> Vec<EndpointState> {
        self.table.load().routes()[0].versions[0].members.iter().map(|m| m.state()).collect()
    }

    /// Waits until the endpoints are in these states, and compiles at each news.
    async fn until(
        &mut self,
        news: &mut tokio::sync::mpsc::UnboundedReceiver<()>,
        expected: &[EndpointState],
    ) {
        let all = async {
            while self.states() != expected {
                news.recv().await.unwrap();
                let services = [ServiceKey::new("web", "svc")].into();
                self.compile(&Touched { services, ..Touched::default() });
            }
        };
        if timeout(Duration::from_secs(20), all).await.is_err() {
            panic!("{:?}, not {expected:?}", self.states());
        }
    }
}

fn settings() -> HealthCheck {
    HealthCheck { path: "/health".to_owned(), interval: Duration::from_millis(20), ..HealthCheck::default() }
}

#[tokio::test]
async fn s2_5_pods_that_fail_their_checks_are_set_aside_until_they_do_not() {
    use EndpointState::{Ready, Unhealthy};
    let (first, second) = (Server::start().await, Server::start().await);
    let mut world = World::new(&[first.address, second.address]);
    world.publish(Some(settings()));
    let (tell, mut news) = tokio::sync::mpsc::unbounded_channel();
    let telemetry = Arc::new(Telemetry::new().unwrap());
    let checking = check_health(
        Arc::clone(&world.table),
        Arc::new(PodConnector::default()),
        telemetry,
        move |_: &[ServiceKey]| {
            let _ = tell.send(());
        },
    );
    let checking = tokio::spawn(checking);
    assert_eq!(world.states(), [Ready, Ready], "ready is healthy until it is found out");
    second.status.store(503, Ordering::SeqCst);
    world.until(&mut news, &[Ready, Unhealthy]).await;
    assert!(second.asked.load(Ordering::SeqCst) >= 3, "so many bad answers in a row");
    let tally = world.table.load().routes()[0].versions[0].tally.snapshot();
    assert_eq!(tally.set_aside.last(), Some(&(SetAsideReason::HealthCheck, 1)));
    let candidates = world.table.load().routes()[0].versions[0].candidates().len();
    assert_eq!(candidates, 1);
    second.status.store(302, Ordering::SeqCst);
    world.until(&mut news, &[Ready, Ready]).await;
    // One that comes is checked too; one that goes is left in peace.
    let third = Server::start().await;
    third.status.store(404, Ordering::SeqCst);
    world.endpoints = vec![second.address, third.address];
    world.publish(Some(settings()));
    world.until(&mut news, &[Ready, Unhealthy]).await;
    let before = first.asked.load(Ordering::SeqCst);
    // Other settings: it is well for those until found out; then without any.
    world.publish(Some(HealthCheck { unhealthy: 1_000_000, ..settings() }));
    world.until(&mut news, &[Ready, Ready]).await;
    assert!(first.asked.load(Ordering::SeqCst) <= before + 1, "one may have been under way");
    world.publish(Some(settings()));
    world.until(&mut news, &[Ready, Unhealthy]).await;
    world.publish(None);
    world.until(&mut news, &[Ready, Ready]).await;
    assert_eq!(world.table.load().routes()[0].versions[0].candidates().len(), 2);
    checking.abort();
}

/// What a check makes of an answer, and the request that it was to.
async fn check(answer: &'static [u8], settings: HealthCheck) -> (bool, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut world = World::new(&[address]);
    world.publish(Some(settings));
    let wanted = wanted_of(&world.table.load().routes()[0], &Arc::new(Semaphore::new(1)));
    let asked = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let _ = stream.write_all(answer).await;
        // Kept open, so that the answer alone decides.
        let _ = stream.read_u8().await;
        request
    };
    let connector = PodConnector::default();
    let (well, request) = tokio::join!(wanted[0].ask(&connector), asked);
    (well, request.replace(&address.to_string(), "ADDRESS"))
}

#[tokio::test]
async fn s2_5_what_counts_as_well() {
    let quick = HealthCheck { timeout: Duration::from_millis(300), ..settings() };
    for (answer, expected) in [
        (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true),
        (b"HTTP/1.0 399 X\r\n\r\nbody", true),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", true),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
        (b"HTTP/1.1 099 X\r\n\r\n", false),
        (b"SSH-2.0-OpenSSH_9.6\r\n", false),
        (b"HTTP/1.1 200 OK\r\n", false),
        (b"", false),
    ] {
        let (well, _) = check(answer, quick.clone()).await;
        assert_eq!(well, expected, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn s2_5_an_answer_without_end_costs_a_bounded_head() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = 0_usize;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\na: ").await;
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {
            sent += 1024;
        }
        sent
    });
    let stream = Box::new(TcpStream::connect(address).await.unwrap());
    let error = status(stream, "/", "a").await.unwrap_err();
    assert_eq!(error.to_string(), "the head of the answer is too long");
    assert!(endless.await.unwrap() > 0, "it was cut off");
}

#[tokio::test]
async fn the_question() {
    let own = HealthCheck { host: Some("shop.example.com".to_owned()), ..settings() };
    let agent = concat!("serinus-health/", env!("CARGO_PKG_VERSION"));
    for (settings, host) in [(settings(), "ADDRESS"), (own, "shop.example.com")] {
        let (well, request) = check(b"HTTP/1.1 200 OK\r\n\r\n", settings).await;
        assert!(well);
        assert_eq!(
            request,
            format!(
                "GET /health HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            )
        );
    }
}

/// Nothing is said on the connection where it could not be understood.
#[tokio::test]
async fn s2_5_endpoints_that_speak_http_2_are_only_connected_to() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut world = World::new(&[listener.local_addr().unwrap()]);
    let spec =
        Traffic { health_check: Some(settings()), protocol: Some(Protocol::H2c), ..Traffic::default() };
    world.publish(None);
    let mut route = (*world.table.load().routes()[0].spec).clone();
    route.traffic = spec;
    let statics = [(
        ServiceKey::new("web", "svc"),
        vec![StaticEndpoint { address: world.endpoints[0], labels: Labels::default() }],
    )];
    let (touched, _) = world.desired.set_routes(vec![route], Some(statics.into()), Timestamp::default());
    world.compile(&touched);
    let wanted = wanted_of(&world.table.load().routes()[0], &Arc::new(Semaphore::new(1)));
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let connector = PodConnector::default();
    let (well, heard) = tokio::join!(wanted[0].ask(&connector), heard);
    assert_eq!((well, heard), (true, Vec::new()));
}
