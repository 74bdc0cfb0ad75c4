//! Rollouts from end to end: real requests through a real router to pods that fail on demand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

mod auto;
mod command;
mod demo;
mod events;
mod hooks;
mod road;
mod service_events;
mod verbs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use serinus::cli::app::Router;
use serinus::control::RolloutView;
use serinus::demo::Testpage;
use serinus::rollout::Phase;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::eventually;
use crate::support::http::{Answer, Client};
use crate::support::stack::start_router;

/// A rollout that ends well within half a second of requests.
const SHORT: &str = "{steps: [{weight: 10, hold: 200ms}, {weight: 50, hold: 200ms}, {weight: 100, hold: 100ms}], \
                     guard: {minRequests: 10}}";
/// A rollout that goes nowhere by itself.
const LONG: &str = "{steps: [{weight: 10, hold: 1h}, {weight: 20, hold: 1h}, {weight: 100, hold: 1h}]}";

/// The pods of the route `shop`, and where its config and its state are.
struct Shop {
    stable: Testpage,
    canary: Testpage,
    folder: TempDir,
}

impl Shop {
    async fn new() -> Self {
        let stable = Testpage::start(1, "v1").await.unwrap();
        let canary = Testpage::start(2, "v2").await.unwrap();
        Self { stable, canary, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("serinus.yaml")
    }

    fn state(&self) -> Value {
        let text = std::fs::read(self.folder.path().join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// A config with this rollout, and further lines of the route; without a rollout, and without the canary's pod, where that
    /// is said.
    fn config(&self, rollout: Option<&str>, with_canary: bool, more: &str) -> String {
        let mut text = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {{file: {}}}\ndrain: {{delay: 0s, timeout: 2s}}\ndiscovery:\n  static:\n    web/svc:\n      \
             - {{address: '{}', labels: {{version: v1}}}}\n",
            self.folder.path().join("state.json").display(),
            self.stable.address(),
        );
        if with_canary {
            text += &format!("      - {{address: '{}', labels: {{version: v2}}}}\n", self.canary.address());
        }
        text += "routes:\n  - name: shop\n    service: web/svc\n    versions: [{name: v1, selector: version=v1}, \
                 {name: v2, selector: version=v2}, {name: v3, selector: version=v3}]\n";
        if let Some(rollout) = rollout {
            text += &format!("    rollout: {}\n", rollout.replacen('{', "{version: v2, ", 1));
        }
        text + more
    }

    /// Writes the config as whoever changes it does, in one step.
    fn write(&self, rollout: Option<&str>, with_canary: bool) {
        self.put(&self.config(rollout, with_canary, ""));
    }

    fn put(&self, config: &str) {
        let new = self.folder.path().join("new.yaml");
        std::fs::write(&new, config).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    async fn start(&self, rollout: &str) -> Running {
        self.write(Some(rollout), true);
        Running(start_router(self.file()).await)
    }
}

/// A router in front of the pods.
struct Running(Router);

impl Running {
    fn web(&self) -> SocketAddr {
        self.0.listeners()[0].1
    }

    /// The route's last rollout, as it is shown.
    fn view(&self) -> Option<Arc<RolloutView>> {
        self.0.control().rollouts().get("shop").cloned()
    }

    /// Waits until the rollout is as wanted, and gives it.
    async fn until(&self, what: &str, wanted: impl Fn(&RolloutView) -> bool) -> Arc<RolloutView> {
        eventually(what, || self.view().filter(|view| wanted(view))).await
    }

    async fn until_phase(&self, phase: Phase) -> Arc<RolloutView> {
        self.until(&format!("{phase:?}"), |view| view.rollout.phase == phase).await
    }

    async fn call(&self, line: &str, headers: &str, body: &Value) -> (u16, Value) {
        call(self.0.admin(), line, headers, body).await
    }

    async fn ask(&self, body: Value) -> (u16, Value) {
        self.call("POST /api/v1/routes/shop/rollout", "", &body).await
    }

    /// Asks for what must be done; the route as it is then.
    #[track_caller]
    fn does(&self, action: &str) -> impl Future<Output = Value> {
        let (action, admin) = (action.to_owned(), self.0.admin());
        async move {
            let body = json!({ "action": action });
            let (status, route) = call(admin, "POST /api/v1/routes/shop/rollout", "", &body).await;
            assert_eq!(status, 200, "{action}: {route}");
            route
        }
    }

    /// What is asked is refused for this.
    async fn refuses(&self, body: Value, status: u16, needle: &str) {
        let (got, said) = self.ask(body.clone()).await;
        let detail = said["detail"].as_str().unwrap_or_default();
        assert!(got == status && detail.contains(needle), "{body}: {got} {said}");
    }

    async fn get(&self, path: &str) -> Value {
        let answer = Client::new(self.0.admin()).get("localhost", path).await.unwrap();
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
    }

    async fn metrics(&self) -> String {
        Client::new(self.0.admin()).get("localhost", "/metrics").await.unwrap().body
    }

    /// Each revision: source, weight of v2, reason.
    async fn history(&self) -> Vec<(String, f64, String)> {
        let history = self.get("/api/v1/routes/shop/history").await;
        let revisions = history["revisions"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        revisions
            .map(|r| (text(&r["source"]), r["after"]["v2"].as_f64().unwrap(), text(&r["reason"])))
            .collect()
    }

    async fn stop(self) {
        self.0.stop().await;
    }
}

/// Asks the admin API, with JSON.
pub(crate) async fn call(admin: SocketAddr, line: &str, headers: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer: Answer = Client::new(admin).raw(request.as_bytes()).await.unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}")))
}

/// How many clients there are.
const CLIENTS: usize = 4;

/// Requests that go on until it is dropped.
pub(crate) struct Traffic {
    end: Arc<AtomicBool>,
    ok: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Some hundreds of requests a second.
    pub(crate) fn start(web: SocketAddr) -> Self {
        let mut traffic =
            Self { end: Arc::default(), ok: Arc::default(), failed: Arc::default(), clients: Vec::new() };
        for _ in 0..CLIENTS {
            let (end, ok, failed) =
                (Arc::clone(&traffic.end), Arc::clone(&traffic.ok), Arc::clone(&traffic.failed));
            traffic.clients.push(tokio::spawn(async move {
                let mut client = Client::new(web);
                while !end.load(Ordering::Relaxed) {
                    let answer = client.get("shop.example.com", "/").await;
                    let count = if answer.is_ok_and(|answer| answer.status == 200) { &ok } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            }));
        }
        traffic
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits for so many more good answers.
    pub(crate) async fn more(&self, more: u64) {
        let wanted = self.ok.load(Ordering::Relaxed) + more;
        eventually("requests are answered", || (self.ok.load(Ordering::Relaxed) >= wanted).then_some(()))
            .await;
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.clients.iter().for_each(JoinHandle::abort);
    }
}
