//! The binary as its users run it: starts, signals, files and streams.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::http::{Answer, Client};
use crate::support::process::{Ending, Process, say, serinus};
use crate::support::upstream::Upstream;

/// How long something may take that needs no waiting at all.
const SOON: Duration = Duration::from_secs(8);

/// A config for these pods, with further top-level fields.
fn config(pods: &[&Upstream], more: &str) -> String {
    let mut text = format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n{more}\n\
         discovery:\n  static:\n    web/nginx-svc:\n"
    );
    for (i, pod) in pods.iter().enumerate() {
        let version = if i == 0 { "{name: nginx}" } else { "{name: nginx, version: v2}" };
        text.push_str(&format!("      - {{address: '{}', labels: {version}}}\n", pod.address));
    }
    text.push_str(
        "routes:\n  - name: shop\n    hosts: [shop.example.com]\n    service: web/nginx-svc\n    versions:\n      \
         - {name: v1, selector: 'version!=v2'}\n      - {name: v2, selector: 'version=v2', weight: 0.1}\n",
    );
    text
}

/// A v1 and a v2 pod, whose answers take this long.
async fn two_pods(delay: Duration) -> [Upstream; 2] {
    let v1 = Upstream::slow((loopback_address(), 0).into(), "v1", delay).await;
    let v2 = Upstream::slow((loopback_address(), 0).into(), "v2", delay).await;
    [v1, v2]
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("serinus.yaml");
    fs::write(&file, text).unwrap();
    file
}

async fn get(process: &Process) -> Answer {
    Client::new(process.web).get("shop.example.com", "/").await.unwrap()
}

/// Waits until `/readyz` has this status.
async fn readyz(process: &Process, status: u16) {
    let deadline = Instant::now() + SOON;
    while Client::new(process.admin).get("localhost", "/readyz").await.unwrap().status != status {
        assert!(Instant::now() < deadline, "/readyz never had {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shop(process: &Process) -> Value {
    serde_json::from_str(&process.client(&["status", "shop", "-o", "json"]).done()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_sigterm_takes_connections_for_the_delay_and_ends_every_request() {
    let delay = Duration::from_secs(2);
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::from_millis(700)).await;
    let file = write(folder.path(), &config(&[&v1, &v2], "drain: {delay: 2s, timeout: 60s}"));
    let process = Process::start(&file).await;
    let web = process.web;
    readyz(&process, 200).await;
    let under_way = tokio::spawn(async move { Client::new(web).get("shop.example.com", "/").await });
    eventually("a request is under way", || v1.asked().then_some(())).await;
    process.signal("TERM");
    let told = Instant::now();
    readyz(&process, 503).await;
    assert!(told.elapsed() < delay, "unready at once");
    let answer = get(&process).await;
    assert!(told.elapsed() < delay, "the new connection came during the delay");
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{answer:?}");
    let answer = under_way.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{answer:?}");
    let (status, _) = process.end(delay + SOON);
    assert_eq!(status.code(), Some(0));
    assert!(told.elapsed() >= delay);
    assert!(TcpStream::connect(web).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_6_a_route_to_the_router_itself_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let file = write(folder.path(), &config(&[&v1, &v2], ""));
    let process = Process::start(&file).await;
    readyz(&process, 200).await;
    // The port was not known before.
    let text = config(&[&v1, &v2], "").replace(&v1.address.to_string(), &process.web.to_string());
    fs::write(folder.path().join("new.yaml"), text).unwrap();
    fs::rename(folder.path().join("new.yaml"), &file).unwrap();
    let told = format!("Service web/nginx-svc leads to Serinus itself ({})", process.web);
    let problems = eventually("it is told", || {
        let problems = shop(&process)["problems"].to_string();
        problems.contains(&told).then_some(problems)
    })
    .await;
    // The rest is as if it were not there: v1 has no pod, and v2 takes its share.
    assert!(problems.contains("version v1 of route shop has no usable pod"), "{problems}");
    let answer = get(&process).await;
    assert!(answer.status == 200 && answer.body.contains("version is: v2"), "{answer:?}");
    process.signal("TERM");
    process.end(SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::from_secs(600)).await;
    let more = "accessLog: stdout\ndrain: {delay: 60s, timeout: 60s}";
    let process = Process::start(&write(folder.path(), &config(&[&v1, &v2], more))).await;
    let web = process.web;
    let under_way = tokio::spawn(async move { Client::new(web).get("shop.example.com", "/").await });
    eventually("a request is under way", || v1.asked().then_some(())).await;
    process.signal("TERM");
    readyz(&process, 503).await;
    process.signal("INT");
    eventually("it says so", || process.logged("second signal")).await;
    let answer = under_way.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (503, "drain-timeout"));
    let (status, lines) = process.end(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(lines.len() == 1 && lines[0].contains("drain-timeout"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_idle_clients_do_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let file = write(folder.path(), &config(&[&v1, &v2], "drain: {delay: 0s, timeout: 60s}"));
    let process = Process::start(&file).await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut client = Client::new(process.web);
        let answer = client.get("shop.example.com", "/").await.unwrap();
        assert_ne!(answer.header("connection"), "close", "kept alive");
        idle.push(client);
    }
    process.signal("TERM");
    assert_eq!(process.end(SOON).0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_what_runs_longer_than_the_timeout_is_cut_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::from_secs(600)).await;
    let more = "accessLog: stdout\ndrain: {delay: 0s, timeout: 1s}";
    let process = Process::start(&write(folder.path(), &config(&[&v1, &v2], more))).await;
    let web = process.web;
    assert_eq!(Client::new(web).get("other.example.com", "/").await.unwrap().status, 404);
    let under_way = tokio::spawn(async move { Client::new(web).get("shop.example.com", "/").await });
    eventually("a request is under way", || v1.asked().then_some(())).await;
    process.signal("TERM");
    let told = Instant::now();
    eventually("it says so", || process.logged("cut at the end of drain.timeout")).await;
    assert!(told.elapsed() >= Duration::from_secs(1));
    let (status, lines) = process.end(SOON);
    assert_eq!(status.code(), Some(0));
    let answer = under_way.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (503, "drain-timeout"));
    assert_eq!(answer.header("connection"), "close");
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "both requests are in the access log: {lines:?}");
    assert_eq!((&lines[1]["status"], &lines[1]["answer"]), (&503.into(), &"drain-timeout".into()));
    assert_eq!(lines[1]["upstream"], v1.address.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_outlive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let state = format!("state: {{file: '{}'}}", folder.path().join("state.json").display());
    let file = write(folder.path(), &config(&[&v1, &v2], &state));
    let process = Process::start(&file).await;
    process.client(&["weight", "shop", "v2=30", "--reason", "more of v2"]).done();
    process.signal("KILL");
    assert_eq!(process.end(SOON).0.code(), None);
    let process = Process::start(&file).await;
    let route = shop(&process);
    assert_eq!((&route["revision"], &route["versions"][1]["weight"]), (&2.into(), &30.into()));
    let history = process.client(&["rollout", "history", "shop"]).done();
    let last = history.lines().last().unwrap();
    assert!(last.starts_with("2 ") && last.contains("v1=70 v2=30") && last.ends_with("more of v2"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_file_is_moved_aside_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let path = folder.path().join("state.json");
    fs::write(&path, "{\"format\": 1, \"rou").unwrap();
    let state = format!("state: {{file: '{}'}}", path.display());
    let process = Process::start(&write(folder.path(), &config(&[&v1, &v2], &state))).await;
    assert_eq!(get(&process).await.status, 200);
    let status = process.client(&["status"]).done();
    assert!(status.contains("was damaged") && status.contains("state.json.damaged-"), "{status}");
    let aside = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path());
    let aside = aside.into_iter().find(|p| p.to_string_lossy().contains(".damaged-")).unwrap();
    assert_eq!(fs::read_to_string(aside).unwrap(), "{\"format\": 1, \"rou");
}

/// What every line of the access log has.
const LOGGED: [&str; 15] = [
    "time",
    "client",
    "method",
    "host",
    "path",
    "status",
    "route",
    "version",
    "reason",
    "answer",
    "upstream",
    "attempts",
    "durationMs",
    "bytes",
    "requestId",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_a_line_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let more = "accessLog: stdout\ndrain: {delay: 0s, timeout: 5s}";
    // One in a million for v2, so that it is v1's turn.
    let text = config(&[&v1, &v2], more).replace("weight: 0.1", "weight: 0.0001");
    let process = Process::start(&write(folder.path(), &text)).await;
    let mut client = Client::new(process.web);
    client.get("shop.example.com", "/cart?a=b").await.unwrap();
    client.get("other.example.com", "/").await.unwrap();
    client.raw(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let addresses = [v1.address, v2.address];
    for mut pod in [v1, v2] {
        pod.terminate().await;
    }
    // A POST: a GET might meet the kept connection to v1's pod before its end has come, and count an attempt more.
    let post = b"POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(Client::new(process.web).raw(post).await.unwrap().status, 502);
    process.signal("TERM");
    let (status, lines) = process.end(SOON);
    assert_eq!(status.code(), Some(0));
    let mut lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    // As they were asked for: lines of two connections are written in any order.
    lines.sort_by_key(|line| [200, 404, 400, 502].iter().position(|status| line["status"] == *status));
    for line in &lines {
        let mut names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        // Only there where another endpoint was tried before.
        names.retain(|name| *name != "tried" || line["attempts"] == 1);
        // Only there where an attempt failed for good.
        names.retain(|name| *name != "failure" || line["status"] == 200);
        // Only there where a pod was connected to, and answered.
        names.retain(|name| !["connectMs", "firstByteMs"].contains(name) || line["status"] != 200);
        // Only there where the head was read whole.
        names.retain(|name| *name != "protocol" || line["status"] == 400);
        let mut expected = LOGGED.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(line["client"], "127.0.0.1");
    }
    let told = |line: &Value| {
        (
            line["status"].as_u64().unwrap(),
            line["route"].clone(),
            line["version"].clone(),
            line["answer"].clone(),
        )
    };
    assert_eq!(told(&lines[0]), (200, "shop".into(), "v1".into(), Value::Null));
    assert_eq!((&lines[0]["path"], &lines[0]["reason"]), (&"/cart?a=b".into(), &"weight".into()));
    assert_eq!(lines[0]["upstream"], addresses[0].to_string());
    assert!(lines[0]["bytes"].as_u64().unwrap() > 0 && lines[0]["durationMs"].as_f64().unwrap() > 0.0);
    assert_eq!(told(&lines[1]), (404, Value::Null, Value::Null, "no-route".into()));
    assert_eq!(told(&lines[2]), (400, Value::Null, Value::Null, "bad-request".into()));
    // v1's only pod takes no connection, so that its share is v2's at once (semantics §2.4), whose pod takes none either.
    assert_eq!(told(&lines[3]), (502, "shop".into(), "v2".into(), "connect-failed".into()));
    assert_eq!((&lines[3]["reason"], &lines[3]["attempts"]), (&"fallback".into(), &2.into()));
    assert_eq!(lines[3]["failure"], "no connection to the pod: refused");
    assert_eq!(lines[3]["tried"], serde_json::json!([addresses[0].to_string()]));
    // The reference names each field.
    let reference = include_str!("../../docs/operations.md");
    let sometimes = ["protocol", "tls", "pod", "tried", "failure", "connectMs", "firstByteMs", "traceId"];
    let missing: Vec<_> =
        LOGGED.iter().chain(&sometimes).filter(|field| !reference.contains(&format!("`{field}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md, Logs: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_swapped_is_in_force_and_one_that_is_gone_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let text = config(&[&v1, &v2], "");
    // As the kubelet mounts it: the file is a link through `..data`, which is swapped whole.
    let swap = |name: &str, text: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("serinus.yaml"), text).unwrap();
        let beside = folder.path().join("..data_tmp");
        symlink(name, &beside).unwrap();
        fs::rename(&beside, folder.path().join("..data")).unwrap();
    };
    swap("..1", &text);
    let file = folder.path().join("serinus.yaml");
    symlink("..data/serinus.yaml", &file).unwrap();
    let process = Process::start(&file).await;
    assert_eq!(shop(&process)["versions"][1]["weight"], 0.1);
    swap("..2", &text.replace("weight: 0.1", "weight: 20"));
    fs::remove_dir_all(folder.path().join("..1")).unwrap();
    eventually("the new weight is in force", || {
        (shop(&process)["versions"][1]["weight"] == 20).then_some(())
    })
    .await;
    fs::remove_file(&file).unwrap();
    let told = eventually("it says that the file is gone", || process.logged("config refused")).await;
    assert!(told["errors"].as_str().unwrap().contains("there is no such file"), "{told}");
    assert_eq!(get(&process).await.status, 200);
    readyz(&process, 200).await;
    let status = process.client(&["status"]).done();
    assert!(status.contains("there is no such file") && status.contains("serinus check"), "{status}");
    symlink("..data/serinus.yaml", &file).unwrap();
    eventually("the problem is gone", || {
        (!process.client(&["status"]).done().contains("there is no such file")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_loopback_without_a_token_it_runs_and_takes_no_changes() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let text = config(&[&v1, &v2], "")
        .replace("admin: {address: '127", "admin: {address: '0")
        .replace("'0.0.0.1", "'0.0.0.0");
    let mut process = Process::start(&write(folder.path(), &text)).await;
    process.admin.set_ip([127, 0, 0, 1].into());
    let said = process.client(&["weight", "shop", "v2=5"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("no `admin.tokenFile`") && said.err.contains("set `admin.tokenFile`"),
        "{said:?}"
    );
    assert_eq!(shop(&process)["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_commands_write_what_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let [v1, v2] = two_pods(Duration::ZERO).await;
    let process = Process::start(&write(folder.path(), &config(&[&v1, &v2], ""))).await;
    let json: Value = serde_json::from_str(&process.client(&["status", "-o", "json"]).done()).unwrap();
    let yaml: Value = yaml_serde::from_str(&process.client(&["status", "-o", "yaml"]).done()).unwrap();
    assert_eq!(json["routes"][0]["name"], "shop");
    assert_eq!(json["routes"][0]["versions"][1]["weight"], yaml["routes"][0]["versions"][1]["weight"]);
    let table = process.client(&["status"]).done();
    assert!(table.starts_with("ROUTE ") && table.contains("kept in memory alone"), "{table}");
    // The reader has left before the first line comes.
    for args in [&["status"][..], &["rollout", "history", "shop"], &["schema"], &["completions", "bash"]] {
        let mut command = serinus(args);
        command.env("SERINUS_ADMIN", process.admin.to_string());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command.stdout(writer).spawn().unwrap();
        drop(command);
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn schema_and_completions() {
    let schema: Value = serde_json::from_str(&say(serinus(&["schema"])).done()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good: Value = yaml_serde::from_str(include_str!("../../config/static.yaml")).unwrap();
    assert!(validator.is_valid(&good));
    assert!(!validator.is_valid(&serde_json::json!({"routes": 1})));
    for shell in ["bash", "zsh", "fish"] {
        let text = say(serinus(&["completions", shell])).done();
        assert!(text.contains("serinus") && text.contains("rollout"), "{shell}: {text}");
    }
}

#[test]
fn check_prints_every_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    let text = include_str!("../../config/static.yaml");
    fs::write(
        &file,
        text.replace("weight: 0.1", "weight: 0.00001").replace("address: 127.0.0.1:8080\n", "adress: x\n"),
    )
    .unwrap();
    let path = file.display().to_string();
    let said = say(serinus(&["check", &path]));
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert_eq!(
        said.err.replace(&path, "FILE"),
        "FILE:4:5: listeners[0].adress: unknown field: did you mean `address`?\n\
         FILE:21:17: routes[0].versions[1].weight: 0.00001 percent is finer than one in a million: use at most four \
         decimals, like 0.0001\n"
    );
    let run = say(serinus(&["run", "--config", &path]));
    assert_eq!((run.code, run.err), (Some(1), said.err), "a start says the same");
    fs::write(&file, text).unwrap();
    let said = say(serinus(&["check", &path])).done();
    assert!(said.ends_with("The config is valid: 1 route, 3 pods by hand.\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_and_ends() {
    // Addresses of its own, so that it runs beside others.
    let [web, admin] = [18080, 18081].map(|port| format!("{}:{port}", loopback_address()));
    let mut child = Ending(serinus(&["demo", "--listen", &web, "--admin", &admin]).spawn().unwrap());
    let client = |args: &[&str]| {
        let mut command = serinus(args);
        command.env("SERINUS_ADMIN", &admin);
        say(command)
    };
    eventually("the demo answers", || (client(&["status"]).code == Some(0)).then_some(())).await;
    client(&["weight", "testpage", "v2=100"]).done();
    let answer = Client::new(web.parse().unwrap()).get("any", "/").await.unwrap();
    assert_eq!((answer.status, answer.version()), (200, "v2"));
    let id = child.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains(&format!("http://{web}/")) && said.ends_with("The demo has ended.\n"), "{said}");
    assert_eq!(child.wait(SOON).code(), Some(0));
}
