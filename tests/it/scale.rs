//! How start-up, memory, and the way from an event to the routing table grow with the number of routes, Services and pods. By hand:
//!
//! `cargo build --release && SERINUS_TEST_BINARY=target/release/serinus cargo test --test it scale:: -- --ignored --nocapture --test-threads 1`
//!
//! docs/performance.md has what it printed. Idle connections want `ulimit -n 110000`; with less there are fewer of them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::apiserver::ApiServer;
use crate::support::http::Client;
use crate::support::many_files;
use crate::support::process::Process;
use crate::support::stack::cluster_config;
use crate::support::upstream::Upstream;

/// Namespaces that the Services are spread over.
const NAMESPACES: usize = 10;
/// How long a start may take.
const LONG: Duration = Duration::from_secs(120);

/// How much of everything.
#[derive(Clone, Copy)]
struct Size {
    routes: usize,
    services: usize,
    pods_each: usize,
}

const SIZES: [Size; 4] = [
    Size { routes: 10, services: 1, pods_each: 50 },
    Size { routes: 100, services: 10, pods_each: 50 },
    Size { routes: 1_000, services: 100, pods_each: 50 },
    Size { routes: 10_000, services: 1_000, pods_each: 50 },
];

fn namespace(service: usize) -> String {
    format!("web-{}", service % NAMESPACES)
}

fn pod_name(service: usize, pod: usize) -> String {
    format!("pod-{service}-{pod}")
}

fn address(service: usize, pod: usize) -> Ipv4Addr {
    let number = u32::try_from(service * 64 + pod + 1).unwrap();
    Ipv4Addr::from(0x7f10_0000 + number)
}

fn endpoint(service: usize, pod: usize, ready: bool) -> Value {
    json!({
        "addresses": [address(service, pod).to_string()],
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": namespace(service), "name": pod_name(service, pod), "uid": pod_name(service, pod)},
    })
}

/// Services, pods and slices, of which every tenth pod is of v2.
fn populate(api: &ApiServer, size: Size) {
    for service in 0..size.services {
        let (namespace, name) = (namespace(service), format!("svc-{service}"));
        api.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 18080, "protocol": "TCP"}]},
        }));
        for pod in 0..size.pods_each {
            let version = if pod % 10 == 9 { "v2" } else { "v1" };
            api.apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": namespace, "name": pod_name(service, pod), "uid": pod_name(service, pod),
                    "labels": {"app": name, "version": version, "pod-template-hash": "5d59d67564"},
                },
            }));
        }
        let endpoints: Vec<_> = (0..size.pods_each).map(|pod| endpoint(service, pod, true)).collect();
        api.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": namespace, "name": format!("{name}-a"), "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "", "port": 18080, "protocol": "TCP"}], "endpoints": endpoints,
        }));
    }
}

fn routes(size: Size) -> String {
    let mut text = String::new();
    for route in 0..size.routes {
        let service = route % size.services;
        writeln!(
            text,
            "  - {{name: r{route}, hosts: [h{route}.example.com], service: {}/svc-{service}, port: 80, versions: [\
             {{name: v1, selector: 'version!=v2'}}, {{name: v2, selector: version=v2, weight: 1}}]}}",
            namespace(service)
        )
        .unwrap();
    }
    text
}

/// Processor time that a process has had, in seconds.
fn cpu(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

async fn until_ready(process: &Process) {
    let begun = Instant::now();
    loop {
        let answer = Client::new(process.admin).get("localhost", "/readyz").await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(begun.elapsed() < LONG, "never ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many pods of a route's first version are ready.
async fn ready(admin: &mut Client, route: usize) -> u64 {
    let answer = admin.get("localhost", &format!("/api/v1/routes/r{route}")).await.unwrap();
    serde_json::from_str::<Value>(&answer.body).unwrap()["versions"][0]["endpoints"]["ready"]
        .as_u64()
        .unwrap()
}

fn set_ready(api: &ApiServer, service: usize, pod: usize, ready: bool) {
    api.edit("endpointslices", &namespace(service), &format!("svc-{service}-a"), |slice| {
        slice["endpoints"][pod] = endpoint(service, pod, ready);
    });
}

fn middle(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the first lines of this file have the command"]
async fn growth_with_routes_services_and_pods() {
    println!(
        "| routes | Services | pods | ready after | processor time until then | memory | event → live, median (most) of 21 | processor at 100 events/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        let api = ApiServer::start().await;
        populate(&api, size);
        let (folder, kubeconfig) = (tempfile::tempdir().unwrap(), api.kubeconfig());
        let file = folder.path().join("serinus.yaml");
        std::fs::write(&file, cluster_config(&kubeconfig, folder.path(), &routes(size))).unwrap();
        let begun = Instant::now();
        let process = Process::start(&file).await;
        until_ready(&process).await;
        let (start, start_cpu) = (begun.elapsed(), cpu(&process));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let memory = process.memory();
        let mut admin = Client::new(process.admin);
        let mut times = Vec::new();
        let all = size.pods_each as u64 - size.pods_each as u64 / 10;
        for turn in 0..21 {
            let (service, is_ready) = (turn / 2 * 7 % size.services, turn % 2 == 1);
            let begun = Instant::now();
            set_ready(&api, service, 0, is_ready);
            let wanted = if is_ready { all } else { all - 1 };
            while ready(&mut admin, service).await != wanted {
                assert!(begun.elapsed() < LONG, "never live");
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let (median, most) = middle(times);
        let (before, begun) = (cpu(&process), Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        for turn in 0..1_000 {
            ticks.tick().await;
            set_ready(&api, turn * 13 % size.services, 1 + turn % 8, turn / 8 % 2 == 1);
        }
        let used = (cpu(&process) - before) / begun.elapsed().as_secs_f64() * 100.0;
        println!(
            "| {} | {} | {} | {:.2} s | {start_cpu:.2} s | {:.1} MiB | {median:.1} ms ({most:.1}) | {used:.1} % of a core |",
            size.routes,
            size.services,
            size.services * size.pods_each,
            start.as_secs_f64(),
            memory as f64 / 1024.0,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants many file descriptors: the first lines of this file have the command"]
async fn memory_of_idle_connections() {
    many_files();
    let pod = Upstream::start((crate::support::cluster::loopback_address(), 0).into(), "v1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    let text = format!(
        "listeners: [{{name: web, address: '0.0.0.0:0', limits: {{connections: 100000}}, timeouts: {{idle: 1h}}}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         discovery: {{static: {{web/svc: [{{address: '{}', labels: {{}}}}]}}}}\nroutes: [{{name: shop, service: web/svc, \
         versions: [{{name: v1}}]}}]\n",
        pod.address
    );
    std::fs::write(&file, text).unwrap();
    let process = Process::start(&file).await;
    println!("| idle clients | memory | a client |\n|---|---|---|");
    let mut clients = Vec::new();
    let empty = process.memory();
    println!("| 0 | {:.1} MiB | |", empty as f64 / 1024.0);
    for wanted in [1_000, 10_000, 50_000] {
        while clients.len() < wanted {
            // 20,000 ports of each address.
            let from = Ipv4Addr::from(0x7f02_0001 + u32::try_from(clients.len() / 20_000).unwrap());
            let Ok(client) = client(from, process.web.port()).await else { break };
            clients.push(client);
        }
        if clients.len() < wanted {
            println!("(no more than {} connections: raise `ulimit -n`)", clients.len());
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let memory = process.memory();
        println!(
            "| {wanted} | {:.1} MiB | {:.2} KiB |",
            memory as f64 / 1024.0,
            (memory - empty) as f64 / wanted as f64
        );
    }
}

/// A client that has had an answer, and stays.
async fn client(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let mut buffer = [0; 2048];
    let mut had = 0;
    while had == 0 {
        had = stream.read(&mut buffer).await?;
        if had == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(stream)
}
