//! What a request costs before it is sent, and what a change costs before it is live.
//!
//! `cargo bench --bench decisions`. The aims: a decision under 200 ns, a draw under 20 ns uncontended, a recompile after one
//! pod event under 5 ms with 1,000 routes and 10,000 pods.

#![allow(missing_docs, reason = "divan's macro makes what it makes")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop at what must not be")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use serinus::model::{
    AddressType, BackendRef, Balance, ClusterChange, Cohort, Condition, Conditions, FailureKind, HashKey,
    Moment, Namespace, OnEmpty, Part, PathMatch, Pod, PodKey, PortRef, RouteSpec, Rule, Service, ServiceKey,
    ServicePort, Slice, SliceEndpoint, SlicePort, TargetRef, Test, Timestamp, Verdict, VersionSpec,
};
use serinus::routing::{AttemptOutcome, Compiler, Place, RequestView, RoutingTable, Split};
use serinus::state::{Desired, Touched};

fn main() {
    divan::main();
}

thread_local! {
    static RNG: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(1)) };
}

fn random() -> u64 {
    RNG.with_borrow_mut(|rng| rng.u64(..))
}

/// When everything here happens.
const NOW: Moment = Moment::from_millis(1_000);

/// A cluster of routes, each with a host, a Service, and pods of which every tenth is v2.
struct World {
    desired: Desired,
    compiler: Compiler,
    pods: Vec<Pod>,
    slices: Vec<Slice>,
}

impl World {
    fn new(routes: u32, pods_each: u32) -> Self {
        Self::balanced(routes, pods_each, &Balance::LeastRequest)
    }

    fn balanced(routes: u32, pods_each: u32, balance: &Balance) -> Self {
        Self::with(routes, pods_each, |spec| spec.balance = balance.clone())
    }

    /// With routes that `change` has changed.
    fn with(routes: u32, pods_each: u32, change: impl Fn(&mut RouteSpec)) -> Self {
        let namespace: Namespace = Arc::from("web");
        let mut world = World {
            desired: Desired::default(),
            compiler: Compiler::default(),
            pods: Vec::new(),
            slices: Vec::new(),
        };
        let (mut specs, mut services) = (Vec::new(), Vec::new());
        for route in 0..routes {
            let key = ServiceKey::new(Arc::clone(&namespace), format!("svc-{route}"));
            let port = ServicePort { name: Arc::from("http"), port: 80, app_protocol: None };
            services.push((key.clone(), Service { ports: vec![port], ..Service::default() }));
            let mut spec = spec(route, key.clone());
            change(&mut spec);
            specs.push(spec);
            let pods: Vec<_> = (0..pods_each).map(|i| pod(&namespace, route, i)).collect();
            world.slices.extend(
                pods.chunks(100)
                    .enumerate()
                    .map(|(n, pods)| slice(&key, n, pods, route * pods_each + 100 * n as u32)),
            );
            world.pods.extend(pods);
        }
        let mut touched = world.desired.set_routes(specs, None, Timestamp::default()).0;
        for change in [
            ClusterChange::Services(Arc::clone(&namespace), services),
            ClusterChange::Slices(Arc::clone(&namespace), world.slices.clone()),
            ClusterChange::Pods(namespace, world.pods.clone()),
        ] {
            touched.merge(world.desired.apply_cluster(change));
        }
        let table = world.compiler.compile(&world.desired, &touched, NOW);
        assert!(table.routes().iter().all(|r| r.problems.is_empty() && r.unassigned.is_empty()));
        world
    }

    fn table(&mut self) -> RoutingTable {
        self.compiler.compile(&self.desired, &Touched::default(), NOW)
    }

    fn hear(&mut self, change: ClusterChange) -> RoutingTable {
        let touched = self.desired.apply_cluster(change);
        assert!(!touched.is_empty());
        self.compiler.compile(&self.desired, &touched, NOW)
    }
}

fn spec(route: u32, service: ServiceKey) -> RouteSpec {
    let version = |name: &str, selector: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: Some(selector.parse().unwrap()),
        backend: None,
        weight: weight.map(|w| w.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    RouteSpec {
        name: format!("route-{route}").parse().unwrap(),
        hosts: vec![format!("shop-{route}.example.com").parse().unwrap()],
        paths: vec![PathMatch::prefix("/cart").unwrap(), PathMatch::prefix("/api/v1").unwrap()],
        backend: BackendRef { service, port: Some(PortRef::Number(80)) },
        versions: vec![version("v1", "version!=v2", None), version("v2", "version=v2", Some("0.1"))],
        audience: serinus::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: serinus::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    }
}

fn pod(namespace: &Namespace, route: u32, i: u32) -> Pod {
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), format!("svc-{route}")),
        ("pod-template-hash".to_owned(), "5c9f8b7d64".to_owned()),
    ]);
    if i % 10 == 9 {
        labels.insert("version".to_owned(), "v2".to_owned());
    }
    Pod {
        key: PodKey {
            namespace: Arc::clone(namespace),
            name: format!("svc-{route}-5c9f8b7d64-{i:05}").into(),
        },
        uid: format!("0b4a6a5e-0000-4000-8000-{route:06}{i:06}").into(),
        labels: Arc::new(labels),
        deleting: false,
    }
}

fn slice(service: &ServiceKey, n: usize, pods: &[Pod], first: u32) -> Slice {
    let endpoint = |(pod, i): (&Pod, u32)| SliceEndpoint {
        address: Ipv4Addr::from_bits(0x0a00_0001 + first + i).into(),
        target: Some(TargetRef { pod: pod.key.clone(), uid: Some(Arc::clone(&pod.uid)) }),
        conditions: Conditions::from_api(Some(true), Some(true), Some(false)),
    };
    Slice {
        name: format!("{}-{n}", service.name).into(),
        service: service.clone(),
        address_type: AddressType::Ipv4,
        ports: vec![SlicePort { name: Arc::from("http"), port: Some(8080), app_protocol: None }],
        endpoints: pods.iter().zip(0..).map(endpoint).collect(),
    }
}

/// Route, version and endpoint of a request, as the proxy asks for them.
fn decide(table: &RoutingTable, host: &str, path: &str) -> usize {
    let (route, _) = table.find(host, path).unwrap();
    let choice = route.choose(random).unwrap();
    let in_flight = route.versions[choice.version].pick(Some(random()), NOW, |_| false, random).unwrap();
    in_flight.endpoint().in_flight() as usize + choice.version
}

// Many in a row: a router's table is in the caches as far as it is used.
#[divan::bench(args = [1, 100, 10_000], sample_size = 10_000)]
fn decision(bencher: Bencher, routes: u32) {
    let table = World::new(routes, 10).table();
    // The hosts that come in differ, as they do in life; not more of them than a router's caches would see.
    let hosts: Vec<_> = (0..64).map(|i| format!("shop-{}.example.com", i * 157 % routes)).collect();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % hosts.len();
        decide(&table, black_box(&hosts[next]), black_box("/api/v1/items/42"))
    });
}

#[divan::bench(sample_size = 10_000)]
fn decision_with_port_upper_case_and_long_path(bencher: Bencher) {
    let table = World::new(1_000, 10).table();
    let path = format!("/cart{}", "/element".repeat(30));
    bencher.bench_local(|| decide(&table, black_box("Shop-7.Example.Com:8080"), black_box(&path)));
}

/// The ways to balance, by the name in the config.
/// A browser's request, as rules and cohorts look at it.
struct Browser;

const HEADERS: [(&str, &[u8]); 8] = [
    ("host", b"shop-0.example.com"),
    ("user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", b"en-US,en;q=0.5"),
    ("accept-encoding", b"gzip, deflate, br, zstd"),
    ("referer", b"https://shop-0.example.com/items"),
    ("cookie", b"theme=dark; session=0b4a6a5e-0000-4000-8000-000000000042; _ga=GA1.1.1234567890.1234567890"),
    ("priority", b"u=0, i"),
];

impl RequestView for Browser {
    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        HEADERS.iter().any(|(other, value)| name.eq_ignore_ascii_case(other) && see(value))
    }

    fn query(&self) -> &str {
        "page=2&sort=price"
    }

    fn client(&self) -> Option<IpAddr> {
        Some([203, 0, 113, 7].into())
    }
}

/// Five rules of which none fits, one of each kind.
fn five_rules() -> Vec<Rule> {
    let header = |name: &str| Part::Header(name.to_owned());
    let to_v2 = || Verdict::Version("v2".parse().unwrap());
    let value = |part, test| Rule { conditions: vec![Condition::Value(part, test)], verdict: to_v2() };
    vec![
        value(header("x-beta"), Test::Is("yes".to_owned())),
        value(Part::Cookie("group".to_owned()), Test::matches("beta-[0-9]+").unwrap()),
        value(Part::Query("preview".to_owned()), Test::Present),
        Rule { conditions: vec![Condition::Client(vec!["10.0.0.0/8".parse().unwrap()])], verdict: to_v2() },
        Rule {
            conditions: Vec::new(),
            verdict: Verdict::Canary { by: header("x-canary"), version: "v2".parse().unwrap() },
        },
    ]
}

/// What decides, in a route that the last column says: nothing before the weight, five rules of which none fits, a user's cookie.
#[divan::bench(args = ["weight", "5 rules", "cohort"], sample_size = 10_000)]
fn decision_for_a_browser(bencher: Bencher, by: &str) {
    let key = HashKey::Cookie("session".to_owned());
    let cohort = Cohort { key, set: false, salt: "shop".to_owned() };
    let table = World::with(1, 10, |spec| match by {
        "5 rules" => spec.audience.rules = five_rules(),
        "cohort" => spec.audience.cohort = Some(cohort.clone()),
        _ => {}
    })
    .table();
    bencher.bench_local(|| {
        let (route, _) = table.find(black_box("shop-0.example.com"), black_box("/api/v1/items/42")).unwrap();
        let choice = route.choose_for(black_box(&Browser), random).unwrap();
        let in_flight = route.versions[choice.version].pick(None, NOW, |_| false, random).unwrap();
        in_flight.endpoint().in_flight() as usize + choice.version
    });
}

const BALANCES: [&str; 4] = ["leastRequest", "roundRobin", "peakEwma", "hash"];

fn balance(name: &str) -> Balance {
    match name {
        "leastRequest" => Balance::LeastRequest,
        "roundRobin" => Balance::RoundRobin,
        "peakEwma" => Balance::PeakEwma,
        _ => Balance::Hash(HashKey::ClientIp),
    }
}

/// An endpoint of a version with this many pods, whose attempts all took some time.
fn pick(bencher: Bencher, name: &str, pods: u32) {
    let table = World::balanced(1, pods, &balance(name)).table();
    let version = &table.routes()[0].versions[0];
    for i in 0..10 * pods {
        let at = version.pick(Some(random()), NOW, |_| false, random).unwrap();
        let took = Duration::from_millis(u64::from(i % 50));
        version.ended(&at, AttemptOutcome::Answered(200), took, NOW);
    }
    bencher.bench_local(|| {
        version.pick(Some(random()), NOW, |_| false, random).map(|at| at.endpoint().in_flight())
    });
}

#[divan::bench(args = BALANCES, sample_size = 10_000)]
fn pick_of_10_pods(bencher: Bencher, name: &str) {
    pick(bencher, name, 10);
}

#[divan::bench(args = BALANCES, sample_size = 10_000)]
fn pick_of_10_000_pods(bencher: Bencher, name: &str) {
    pick(bencher, name, 10_000);
}

/// What telling of an attempt's end costs: it went well, or it failed and the endpoint may be ejected no more.
#[divan::bench(args = [true, false], sample_size = 10_000)]
fn attempt_ended(bencher: Bencher, well: bool) {
    let table = World::balanced(1, 10, &Balance::PeakEwma).table();
    let version = &table.routes()[0].versions[0];
    let at = version.pick(None, NOW, |_| false, random).unwrap();
    let outcome =
        if well { AttemptOutcome::Answered(200) } else { AttemptOutcome::Failed(FailureKind::Reset) };
    bencher.bench_local(|| version.ended(&at, black_box(outcome), Duration::from_millis(3), NOW));
}

// Long enough that the threads do meet.
#[divan::bench(threads = [1, 2], sample_size = 1_000_000)]
fn draw(bencher: Bencher) {
    let split = canary();
    bencher.bench(|| split.draw(random));
}

/// The random number alone, which is part of each draw.
#[divan::bench]
fn random_number() -> u64 {
    random()
}

fn canary() -> Split {
    Split::new([(0, 999_000, Arc::new(Place::default())), (1, 1_000, Arc::new(Place::default()))])
}

/// Everything anew: 1,000 routes, 10,000 pods.
#[divan::bench]
fn compile_1_000_routes_10_000_pods(bencher: Bencher) {
    let mut world = World::new(1_000, 10);
    let everything = Touched { everything: true, ..Touched::default() };
    bencher.bench_local(|| world.compiler.compile(&world.desired, &everything, NOW));
}

/// A pod gets a deletionTimestamp, or loses it: applied and compiled.
#[divan::bench]
fn recompile_after_one_pod_event(bencher: Bencher) {
    pod_event(bencher, World::new(1_000, 10));
}

/// The same where keys decide, and the ring of one version is made anew.
#[divan::bench(args = [10, 10_000])]
fn recompile_with_hash(bencher: Bencher, pods: u32) {
    pod_event(bencher, World::balanced(1, pods, &balance("hash")));
}

/// The same where all pods are one Service's.
#[divan::bench]
fn recompile_after_one_pod_event_10_000_pods_of_one_service(bencher: Bencher) {
    pod_event(bencher, World::new(1, 10_000));
}

fn pod_event(bencher: Bencher, mut world: World) {
    let mut pods = world.pods.clone().into_iter().cycle();
    let mut turn = 0;
    let total = world.pods.len();
    bencher.bench_local(|| {
        let pod = pods.next().unwrap();
        let deleting = (turn / total).is_multiple_of(2);
        turn += 1;
        world.hear(ClusterChange::PodApplied(Pod { deleting, ..pod }))
    });
}

/// One endpoint of a slice changes its state: applied and compiled.
#[divan::bench]
fn recompile_after_one_slice_event(bencher: Bencher) {
    let mut world = World::new(1_000, 10);
    let mut slices = world.slices.clone().into_iter().cycle();
    let mut turn = 0;
    let total = world.slices.len();
    bencher.bench_local(|| {
        let mut slice = slices.next().unwrap();
        slice.endpoints[0].conditions.terminating = (turn / total).is_multiple_of(2);
        turn += 1;
        world.hear(ClusterChange::SliceApplied(slice))
    });
}
