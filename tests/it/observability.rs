//! `deploy/observability` with the tools that read it: each alert fires when it should, and a real Prometheus finds in a real router
//! all that the rules and the dashboard ask for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deploy::{build, list, one, text, top};
use crate::rollouts::{Ear, Traffic, call};
use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::fleet::Fleet;
use crate::support::http::Client;
use crate::support::process::{Ending, Process, read_all, serinus};
use crate::support::stack::manifest;

/// How long Prometheus may take to see what it should, beside other tests.
const LONG: Duration = Duration::from_secs(120);

/// Whether a tool of Prometheus is here; where it is not, that is said.
fn has(tool: &str) -> bool {
    let asked = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = asked.is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: there is no `{tool}` here. Debian has it in the package `prometheus`.");
    }
    there
}

/// Whether `promtool` is content, with what it said.
#[track_caller]
fn promtool(args: &[&str], folder: &Path) {
    let said = Command::new("promtool").args(args).current_dir(folder).output().unwrap();
    let text = [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(said.status.success(), "promtool {args:?}:\n{text}");
}

fn observability() -> Vec<Value> {
    build(&top().join("deploy/observability"))
}

/// Writes the rules as Prometheus reads them: the `spec` of the PrometheusRule.
fn write_rules(folder: &Path) -> PathBuf {
    let file = folder.join("rules.yaml");
    fs::write(&file, one(&observability(), "PrometheusRule")["spec"].to_string()).unwrap();
    file
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    let tests = top().join("deploy/observability/tests/alerts.yaml");
    let cases = fs::read_to_string(&tests).unwrap();
    let objects = observability();
    let rules = one(&objects, "PrometheusRule");
    for rule in list(rules, "/spec/groups").iter().flat_map(|group| list(group, "/rules")) {
        let Some(name) = rule["alert"].as_str() else { continue };
        let fires = format!("alertname=\"{name}\", alertstate=\"firing\"");
        assert!(cases.contains(&fires), "{}: no case in which {name} fires", tests.display());
        let waits = format!("alertname=\"{name}\", alertstate=\"pending\"");
        assert_eq!(
            cases.contains(&waits),
            rule.get("for").is_some(),
            "{}: {name} has a `for`, and a case in which it waits",
            tests.display()
        );
    }
    if !has("promtool") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_rules(folder.path());
    fs::write(folder.path().join("alerts.yaml"), cases).unwrap();
    promtool(&["check", "rules", "rules.yaml"], folder.path());
    promtool(&["test", "rules", "alerts.yaml"], folder.path());
}

/// A router with all that has a metric of its own.
struct Lab {
    fleet: Fleet,
    replicas: Vec<Process>,
    _ear: Ear,
    _kubeconfig: tempfile::TempPath,
}

impl Lab {
    async fn start() -> Self {
        let fleet = Fleet::start(&manifest("nginx-canary.yaml")).await;
        let ear = Ear::start().await;
        let kubeconfig = fleet.cluster.api.kubeconfig();
        let folder = fleet.folder.path();
        let certificate = Authority::new("tests").issue(&["shop.example.com"]);
        fs::write(folder.join("tls.crt"), &certificate.chain).unwrap();
        fs::write(folder.join("tls.key"), &certificate.key).unwrap();
        let file = folder.join("serinus.yaml");
        let config = format!(
            "listeners:\n  - {{name: web, address: '127.0.0.1:0'}}\n  \
             - {{name: tls, address: '127.0.0.1:0', tls: {{certificates: [{{certFile: {0}/tls.crt, keyFile: {0}/tls.key}}]}}}}\n\
             admin: {{address: '127.0.0.1:0'}}\nstate: {{configMap: serinus/serinus-state}}\n\
             drain: {{delay: 0s, timeout: 5s}}\ndiscovery: {{kubernetes: {{kubeconfig: {1}}}}}\nroutes:\n  - name: shop\n    \
             hosts: [shop.example.com]\n    service: web/nginx-svc\n    port: 80\n    shield: true\n    \
             mirror: {{version: v2, percent: 50}}\n    versions:\n      - {{name: v1, selector: 'version!=v2'}}\n      \
             - {{name: v2, selector: version=v2, weight: 20, maxInFlightPerPod: 50}}\n    rollout: {{version: v2, \
             steps: [{{weight: 20, hold: 1h}}, {{weight: 40, hold: 1h}}], hooks: [{2}]}}\n",
            folder.display(),
            kubeconfig.display(),
            ear.hook("step"),
        );
        fs::write(&file, config).unwrap();
        let mut replicas = Vec::new();
        for name in ["serinus-0", "serinus-1"] {
            let mut command = serinus(&["run", "--config", &file.display().to_string()]);
            command.env("POD_NAME", name);
            replicas.push(Process::spawn(command).await);
        }
        let lab = Self { fleet, replicas, _ear: ear, _kubeconfig: kubeconfig };
        for replica in &lab.replicas {
            patiently("it is ready", async || {
                let answer = Client::new(replica.admin).get("localhost", "/readyz").await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        lab
    }
}

async fn patiently<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A Prometheus that scrapes these.
struct Prometheus {
    address: SocketAddr,
    _process: Ending,
}

impl Prometheus {
    async fn start(folder: &Path, targets: &[SocketAddr]) -> Self {
        let rules = write_rules(folder);
        let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "serinus",
                "static_configs": [{"targets": targets, "labels": {"namespace": "serinus"}}],
            }],
        });
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        promtool(&["check", "config", "prometheus.yaml"], folder);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=logfmt"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Ending(command.spawn().unwrap());
        drop(read_all(process.0.stdout.take().unwrap()));
        let log = BufReader::new(process.0.stderr.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let into = Arc::clone(&lines);
        std::thread::spawn(move || log.lines().for_each(|line| into.lock().unwrap().push(line.unwrap())));
        let address = eventually("Prometheus listens", || {
            let lines = lines.lock().unwrap();
            let line = lines.iter().find(|line| line.contains("msg=\"Listening on\""))?;
            line.split("address=").nth(1)?.trim().parse().ok()
        })
        .await;
        // It listens before it can answer.
        patiently("Prometheus is ready", async || {
            let answer = Client::new(address).get("localhost", "/-/ready").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        Self { address, _process: process }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = Client::new(self.address).get("localhost", path).await.unwrap();
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// What a query gives just now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.get(&format!("/api/v1/query?query={query}")).await["result"].as_array().unwrap().clone()
    }
}

/// The queries of the dashboard: the panel's title and the query, as Grafana would send it.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in list(dashboard, "/panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(panel, "/title").to_owned(), text(target, "/expr").to_owned()));
        }
    }
    for annotation in list(dashboard, "/annotations/list") {
        found.push((text(annotation, "/name").to_owned(), text(annotation, "/expr").to_owned()));
    }
    assert!(found.len() > 30, "{found:?}");
    for (_, query) in &mut found {
        for (variable, value) in
            [("$__rate_interval", "10m"), ("$namespace", "serinus"), ("$job", ".*"), ("$route", "(shop)")]
        {
            *query = query.replace(variable, value);
        }
        assert!(!query.contains('$'), "a variable that nobody sets: {query}");
    }
    found
}

/// The metrics that a query names.
fn metrics(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    let ours = |word: &&str| word.starts_with("serinus_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn words_of_a_query_that_are_metrics() {
    let query =
        "sum by (route) (rate(serinus_requests_total{code=~\"5..\"}[5m])) / process_open_fds > serinus:x:y";
    let names: Vec<_> = metrics(query).into_iter().collect();
    assert_eq!(names, ["process_open_fds", "serinus_requests_total"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_finds_what_rules_and_dashboard_ask_for() {
    if !has("prometheus") || !has("promtool") {
        return;
    }
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    let admins: Vec<_> = lab.replicas.iter().map(|replica| replica.admin).collect();
    let prometheus = Prometheus::start(folder.path(), &admins).await;
    let traffic: Vec<_> = lab.replicas.iter().map(|replica| Traffic::start(replica.web)).collect();
    patiently("both are up", async || {
        let up = prometheus.query("up{job=\"serinus\"}").await;
        (up.len() == 2 && up.iter().all(|sample| sample["value"][1] == "1")).then_some(())
    })
    .await;
    // Only now, so that Prometheus sees what they move before and after.
    let (status, answer) =
        call(admins[0], "POST /api/v1/routes/shop/rollout", "", &json!({"action": "start"})).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) =
        call(admins[0], "POST /api/v1/routes/shop/rollout", "", &json!({"action": "promote"})).await;
    assert_eq!(status, 200, "{answer}");
    for one in &traffic {
        one.more(200).await;
    }
    let answer = Client::new(lab.replicas[0].web).get("nobody.example.com", "/").await.unwrap();
    assert_eq!(answer.status, 404, "{answer:?}");

    let objects = observability();
    let dashboard = text(one(&objects, "ConfigMap"), "/data/dashboard.json");
    let queries = queries(&serde_json::from_str(dashboard).unwrap());
    let rules: Vec<_> = list(one(&objects, "PrometheusRule"), "/spec/groups")
        .iter()
        .flat_map(|group| list(group, "/rules"))
        .map(|rule| (rule.to_string(), text(rule, "/expr").to_owned()))
        .collect();
    let asked: BTreeSet<String> =
        queries.iter().chain(&rules).flat_map(|(_, query)| metrics(query)).collect();
    for metric in &asked {
        patiently(&format!("{metric} is scraped"), async || {
            (!prometheus.query(&format!("{metric}{{job=\"serinus\"}}")).await.is_empty()).then_some(())
        })
        .await;
    }
    for (panel, query) in &queries {
        // What is shown only where there is some is there as a number all the same.
        let query = query.replace(" > 0", "");
        patiently(&format!("{panel}: {query}"), async || {
            let found = prometheus.query(&query).await;
            found.iter().any(|sample| sample["value"][1] != "NaN").then_some(())
        })
        .await;
    }
    every_rule_is_evaluated(&prometheus).await;
    drop((traffic, lab.fleet));
}

/// Prometheus can evaluate each rule on what the routers say, and what is recorded is there. Two routers that do well are no reason for
/// an alert.
async fn every_rule_is_evaluated(prometheus: &Prometheus) {
    patiently("every rule is evaluated", async || {
        let groups = prometheus.get("/api/v1/rules").await;
        let rules: Vec<_> = list(&groups, "/groups").iter().flat_map(|group| list(group, "/rules")).collect();
        assert!(rules.len() > 15, "{groups}");
        for rule in &rules {
            let error = rule["lastError"].as_str().unwrap_or_default();
            assert!(error.is_empty(), "{rule}");
        }
        rules.iter().all(|rule| rule["health"] == "ok").then_some(())
    })
    .await;
    let recorded = prometheus.query("serinus:version_failures:ratio10m{route=\"shop\"}").await;
    assert_eq!(recorded.len(), 2, "one for each version: {recorded:?}");
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await;
    assert!(firing.is_empty(), "{firing:?}");
}
