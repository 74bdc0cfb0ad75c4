//! The binary when its process lacks something: file descriptors, memory, a reader, room on the disk, a config that can be
//! read, a clock that goes forward. docs/faults.md has the table.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::clients::{Clients, Plan};
use crate::support::cluster::loopback_address;
use crate::support::http::Client;
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{eventually, many_files};

/// How many client connections press.
const CROWD: usize = 2_000;
/// How long something may take that needs no waiting at all.
const SOON: Duration = Duration::from_secs(8);

fn write_config(folder: &Path, pods: &[&Upstream], more: &str) -> PathBuf {
    let mut text = format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         drain: {{delay: 0s, timeout: 5s}}\n{more}discovery:\n  static:\n    web/svc:\n"
    );
    for (number, pod) in pods.iter().enumerate() {
        writeln!(text, "      - {{address: '{}', labels: {{v: v{}}}}}", pod.address, number + 1).unwrap();
    }
    text.push_str("routes:\n  - name: shop\n    service: web/svc\n    versions:\n      - {name: v1, selector: 'v!=v2'}\n");
    text.push_str("      - {name: v2, selector: 'v=v2', weight: 10}\n");
    let file = folder.join("serinus.yaml");
    fs::write(&file, text).unwrap();
    file
}

async fn two_pods() -> [Upstream; 2] {
    let v1 = Upstream::start((loopback_address(), 0).into(), "v1").await;
    let v2 = Upstream::start((loopback_address(), 0).into(), "v2").await;
    [v1, v2]
}

async fn ok(client: &mut Client) {
    let answer = client.once(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Sets v2's weight, in percent; whether it was told to be saved or not, it is in force.
async fn weigh(process: &Process, percent: usize, reason: &str) -> Value {
    let body = format!("{{\"weights\": {{\"v2\": {percent}}}, \"reason\": \"{reason}\"}}");
    let length = body.len();
    let request = format!(
        "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = Client::new(process.admin).raw(request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn weight(process: &Process) -> Value {
    let status = process.client(&["status", "shop", "-o", "json"]).done();
    serde_json::from_str::<Value>(&status).unwrap()["versions"][1]["weight"].clone()
}

fn problems(process: &Process) -> String {
    process.client(&["status"]).done()
}

fn is_refusal(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("config refused"))
}

/// Opens connections, and sends nothing on them.
async fn crowd(process: &Process) -> Vec<TcpStream> {
    many_files();
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(process.web).await.unwrap());
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_file_descriptors_it_serves_whom_it_has_says_so_once_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods().await;
    let file = write_config(folder.path(), &[&v1, &v2], "");
    let process = Process::start_limited("ulimit -n 256", &file).await;
    let mut known: Vec<Client> = (0..8).map(|_| Client::new(process.web)).collect();
    for client in &mut known {
        ok(client).await;
    }
    let before = process.log().len();
    let crowd = crowd(&process).await;
    // Long enough for a line with each attempt to be a flood.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        for client in &mut known {
            ok(client).await;
        }
    }
    assert_eq!(weight(&process), 10, "the admin API answers");
    assert_eq!(Client::new(process.admin).get("localhost", "/livez").await.unwrap().status, 200);
    let log = process.log();
    let told: Vec<_> = log[before..].iter().filter(|line| line["level"] != "INFO").collect();
    assert!((1..=5).contains(&told.len()), "{} lines: {:?}", told.len(), told.first());
    drop(crowd);
    ok(&mut Client::new(process.web)).await;
    for client in &mut known {
        ok(client).await;
    }
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_costs_little_memory_and_no_more_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods().await;
    let process = Process::start(&write_config(folder.path(), &[&v1, &v2], "")).await;
    ok(&mut Client::new(process.web)).await;
    let alone = process.memory();
    let mut after = Vec::new();
    for _ in 0..3 {
        many_files();
        let mut clients: Vec<Client> = (0..CROWD).map(|_| Client::new(process.web)).collect();
        for client in &mut clients {
            ok(client).await;
        }
        after.push(process.memory());
    }
    let each = after[0].saturating_sub(alone) / CROWD as u64;
    println!("memory: {alone} KiB alone; {after:?} KiB with {CROWD} connections: {each} KiB for each");
    // With room to spare in 64 MiB, in a build that is not optimised.
    assert!(after[0] <= 64 * 1024 && each <= 20, "{after:?} KiB, {each} KiB for each connection");
    assert!(after[2] <= after[0] + 8 * 1024, "it grows: {after:?} KiB");
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_does_not_read_holds_up_no_request_no_weight_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods().await;
    let file = write_config(folder.path(), &[&v1, &v2], "accessLog: stdout\n");
    let mut process = Process::start(&file).await;
    // From here on both pipes fill: 64 KiB each.
    process.deafen(true);
    let mut client = Client::new(process.web);
    let path = "x".repeat(500);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut slowest = Duration::ZERO;
    for round in 0..600 {
        let begun = Instant::now();
        assert_eq!(client.once(request.as_bytes()).await.unwrap().status, 200);
        // A log line each: the reason is in it.
        weigh(&process, round % 100, &path[..400]).await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < SOON, "{slowest:?}");
    // And when the queue of the access log is full too.
    let plan = Plan { post_every: 0, ..Plan::new(process.web, 17_000) };
    let outcome = Clients::start(plan, &Arc::default()).finish().await;
    let wrong = outcome.failed_gets.iter().find(|failed| !failed.why.starts_with("the answer of another"));
    assert!(wrong.is_none() && outcome.slowest < SOON, "{wrong:?}, {:?}", outcome.slowest);
    let metrics = Client::new(process.admin).get("localhost", "/metrics").await.unwrap().body;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("serinus_access_log_dropped_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0, "{dropped:?}");
    process.signal("TERM");
    assert_eq!(process.wait(SOON).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_saved_is_told_and_saved_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods().await;
    let states = folder.path().join("states");
    fs::create_dir(&states).unwrap();
    let state = states.join("state.json");
    let more = format!("state: {{file: '{}'}}\n", state.display());
    let file = write_config(folder.path(), &[&v1, &v2], &more);
    // Who exceeds a limit of the file size gets a signal that a full disk does not send.
    let process = Process::start_limited("trap '' XFSZ", &file).await;
    weigh(&process, 20, "first").await;
    let saved = fs::read_to_string(&state).unwrap();

    // No room: files may not grow over 16 bytes.
    let limit = |most: &str| {
        let limited = Command::new("prlimit").args(["--pid", &process.id().to_string(), most]).status();
        limited.is_ok_and(|status| status.success())
    };
    if limit("--fsize=16:unlimited") {
        weigh(&process, 30, "no room").await;
        let told = eventually("it says so", || process.logged("the state was not saved")).await;
        assert!(told["error"].as_str().unwrap().contains("free space"), "{told}");
        assert!(problems(&process).contains("state"), "{}", problems(&process));
        assert_eq!(
            (weight(&process), fs::read_to_string(&state).unwrap()),
            (30.into(), saved),
            "the old state whole"
        );
        ok(&mut Client::new(process.web)).await;
        assert!(limit("--fsize=unlimited:unlimited"));
        eventually("it is saved", || fs::read_to_string(&state).unwrap().contains("no room").then_some(()))
            .await;
    } else {
        println!("skipped: a limit of the file size, for there is no prlimit here");
    }

    // No directory.
    let away = folder.path().join("away");
    fs::rename(&states, &away).unwrap();
    weigh(&process, 40, "no directory").await;
    eventually("it says so", || {
        let log = process.log();
        log.iter()
            .any(|line| line["error"].as_str().is_some_and(|e| e.contains("No such file")))
            .then_some(())
    })
    .await;
    assert_eq!(weight(&process), 40, "in force all the same");
    assert!(fs::read_to_string(away.join("state.json")).unwrap().contains("revision"), "the old state whole");
    fs::rename(&away, &states).unwrap();
    eventually("it is saved", || fs::read_to_string(&state).unwrap().contains("no directory").then_some(()))
        .await;
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_config_file_becomes_the_last_good_one_stays_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods().await;
    let file = write_config(folder.path(), &[&v1, &v2], "");
    let good = fs::read_to_string(&file).unwrap();
    let process = Process::start(&file).await;
    let mut client = Client::new(process.web);
    let bomb: String =
        (1..30).map(|n| format!("a{n}: &a{n} [*a{0},*a{0},*a{0},*a{0},*a{0},*a{0}]\n", n - 1)).collect();
    let many = "x".repeat(100);
    let contents: Vec<(&str, Vec<u8>)> = vec![
        ("truncated in the middle of a word", good.as_bytes()[..good.len() - 4].to_vec()),
        (
            "truncated after a version",
            good.as_bytes()[..good.find("      - {name: v2").unwrap() - 30].to_vec(),
        ),
        ("half of it written", good.as_bytes()[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("no text", vec![0xff, 0xfe, 0x00, 0x01]),
        ("NaN", good.replace("weight: 10", "weight: .nan").into_bytes()),
        ("endless", good.replace("weight: 10", "weight: .inf").into_bytes()),
        ("less than nothing", good.replace("weight: 10", "weight: -1").into_bytes()),
        ("a YAML bomb", format!("a0: &a0 x\n{bomb}{good}").into_bytes()),
        ("nested deeply", [vec![b'['; 100_000], good.clone().into_bytes()].concat()),
        ("huge", format!("{good}# {}\n", many.repeat(200_000)).into_bytes()),
    ];
    for (what, content) in contents {
        let refused = |process: &Process| process.log().iter().filter(|line| is_refusal(line)).count();
        let before = refused(&process);
        // Renamed into place: read whole or not at all.
        let beside = folder.path().join("beside");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, &file).unwrap();
        eventually(&format!("it is refused: {what}"), || (refused(&process) > before).then_some(())).await;
        ok(&mut client).await;
        assert_eq!(weight(&process), 10, "{what}");
        assert_eq!(
            Client::new(process.admin).get("localhost", "/readyz").await.unwrap().status,
            200,
            "{what}"
        );
        assert!(problems(&process).contains("the config file was refused"), "{what}");
    }
    fs::write(&file, good.replace("weight: 10", "weight: 25")).unwrap();
    eventually("a good one is in force", || (weight(&process) == 25).then_some(())).await;
    assert!(!problems(&process).contains("refused"), "{}", problems(&process));
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
}

/// A wall clock jumps: set by hand, by NTP, by a machine that slept. Whatever waits or measures uses the monotonic clock; the
/// wall clock is only read to be shown.
#[test]
fn the_wall_clock_is_only_shown() {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            if path.to_string_lossy().ends_with("_tests.rs") {
                continue;
            }
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            for line in text.lines().map(str::trim).filter(|line| line.contains("SystemTime::now()")) {
                // Tests may do as they like: they are indented after `mod tests`, and say so by `assert` or `let`.
                let shown = line.contains("Timestamp::from(SystemTime::now())");
                if !shown && !SHOWN.iter().any(|(file, part)| name == *file && line.contains(part)) {
                    found.push(format!("{name}: {line}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "the wall clock is read for something else than to be shown: {found:#?}");
}

/// Further places where the wall clock may be read, by file and a part of the line.
const SHOWN: &[(&str, &str)] = &[
    // When the samples of the charts were taken.
    ("src/admin/handlers.rs", "series.of("),
    // When a request ended, in its line of the access log and in its spans.
    ("src/proxy/gateway.rs", "let at = "),
    // The name of a damaged file that is kept.
    ("src/control/state_file.rs", "duration_since(UNIX_EPOCH)"),
    // Certificates begin and end by it, and so does the rest that a file must have had.
    ("src/tls/store.rs", ""),
    ("src/tls/source.rs", "assert!("),
    ("src/tls/inspect.rs", "let now"),
    ("src/cli/check.rs", "look_at_files"),
];
