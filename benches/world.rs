//! What the benches look at: a cluster of routes, Services and pods, and the requests that come in.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serinus::model::{
    AddressType, BackendRef, Balance, ClusterChange, Cohort, Condition, Conditions, HashKey, Moment,
    Namespace, OnEmpty, Part, PathMatch, Pod, PodKey, PortRef, RouteSpec, Rule, Service, ServiceKey,
    ServicePort, Slice, SliceEndpoint, SlicePort, TargetRef, Test, Timestamp, Verdict, VersionSpec,
};
use serinus::routing::{Compiler, Place, RequestView, RoutingTable, Split};
use serinus::state::{Desired, Touched};

thread_local! {
    static RNG: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(1)) };
}

pub(crate) fn random() -> u64 {
    RNG.with_borrow_mut(|rng| rng.u64(..))
}

/// When everything here happens.
pub(crate) const NOW: Moment = Moment::from_millis(1_000);

/// A cluster of routes, each with a host, a Service, and pods of which every tenth is v2.
pub(crate) struct World {
    pub(crate) desired: Desired,
    pub(crate) compiler: Compiler,
    pub(crate) pods: Vec<Pod>,
    pub(crate) slices: Vec<Slice>,
}

impl World {
    pub(crate) fn new(routes: u32, pods_each: u32) -> Self {
        Self::balanced(routes, pods_each, &Balance::LeastRequest)
    }

    pub(crate) fn balanced(routes: u32, pods_each: u32, balance: &Balance) -> Self {
        Self::with(routes, pods_each, |spec| spec.balance = balance.clone())
    }

    /// With routes that `change` has changed.
    pub(crate) fn with(routes: u32, pods_each: u32, change: impl Fn(&mut RouteSpec)) -> Self {
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

    /// A route alone, whose version is decided by: nothing before the weight, five rules of which none fits, a user's cookie.
    pub(crate) fn deciding_by(what: Decider) -> Self {
        Self::with(1, 10, |spec| match what {
            Decider::Weight => {}
            Decider::FiveRules => spec.audience.rules = five_rules(),
            Decider::Cohort => {
                let key = HashKey::Cookie("session".to_owned());
                spec.audience.cohort = Some(Cohort { key, set: false, salt: "shop".to_owned() });
            }
        })
    }

    pub(crate) fn table(&mut self) -> RoutingTable {
        self.compiler.compile(&self.desired, &Touched::default(), NOW)
    }

    pub(crate) fn hear(&mut self, change: ClusterChange) -> RoutingTable {
        let touched = self.desired.apply_cluster(change);
        assert!(!touched.is_empty());
        self.compiler.compile(&self.desired, &touched, NOW)
    }
}

pub(crate) fn spec(route: u32, service: ServiceKey) -> RouteSpec {
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
pub(crate) fn decide(table: &RoutingTable, host: &str, path: &str) -> usize {
    let (route, _) = table.find(host, path).unwrap();
    let choice = route.choose(random).unwrap();
    let in_flight = route.versions[choice.version].pick(Some(random()), NOW, |_| false, random).unwrap();
    in_flight.endpoint().in_flight() as usize + choice.version
}

/// The hosts that come in: they differ, as they do in life; not more of them than a router's caches would see.
pub(crate) fn hosts(routes: u32) -> Vec<String> {
    (0..64).map(|i| format!("shop-{}.example.com", i * 157 % routes)).collect()
}

/// The same for a browser's request, with all that may decide about it.
pub(crate) fn decide_for_browser(table: &RoutingTable) -> usize {
    let (route, _) = table.find(black_box("shop-0.example.com"), black_box("/api/v1/items/42")).unwrap();
    let choice = route.choose_for(black_box(&Browser), random).unwrap();
    let in_flight = route.versions[choice.version].pick(None, NOW, |_| false, random).unwrap();
    in_flight.endpoint().in_flight() as usize + choice.version
}

/// What decides which version a request gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decider {
    Weight,
    FiveRules,
    Cohort,
}

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

pub(crate) fn canary() -> Split {
    Split::new([(0, 999_000, Arc::new(Place::default())), (1, 1_000, Arc::new(Place::default()))])
}
