//! Webhooks: who is told, and who is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use serde_json::Value;
use serinus::rollout::Phase;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{LONG, Running, Shop, Traffic};
use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::process::{Process, serinus};
use crate::support::stack::start_router;

/// A webhook that keeps what it is sent, and answers as it is told.
pub(crate) struct Ear {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    heard: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Ear {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, heard) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<Value>>>::default());
        let (answer, into) = (Arc::clone(&status), Arc::clone(&heard));
        let app = axum::Router::new().fallback(move |body: String| {
            into.lock().unwrap().push(serde_json::from_str(&body).unwrap());
            let status = StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap();
            async move { status }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, status, heard, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn hook(&self, on: &str) -> String {
        format!("{{url: 'http://{}/in?key=secret', on: [{on}]}}", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    async fn hears(&self, count: usize) -> Vec<Value> {
        eventually("the hook is called", || Some(self.heard()).filter(|heard| heard.len() >= count)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_told_of_steps_promotion_and_rollback() {
    let (shop, ear) = (Shop::new().await, Ear::start().await);
    let hooks = format!("{{hooks: [{}], steps", ear.hook("step, promoted, rolledBack"));
    let router = shop.start(&LONG.replace("{steps", &hooks)).await;
    router.does("start").await;
    // Others may come before those that were told earlier: each is waited for.
    ear.hears(1).await;
    router.does("pause").await;
    router.does("resume").await;
    router.does("promote").await;
    ear.hears(2).await;
    router.does("promote").await;
    ear.hears(3).await;
    router.does("promote").await;
    ear.hears(4).await;
    router.does("start").await;
    ear.hears(5).await;
    router.does("abort").await;
    let heard = ear.hears(6).await;
    let said: Vec<_> = heard
        .iter()
        .map(|note| {
            let text = |key: &str| note[key].as_str().unwrap().to_owned();
            (text("event"), note["step"].as_u64().unwrap(), note["weight"].as_f64().unwrap(), text("phase"))
        })
        .collect();
    let wanted = [
        ("step", 1, 10.0, "running"),
        ("step", 2, 20.0, "running"),
        ("step", 3, 100.0, "running"),
        ("promoted", 3, 100.0, "succeeded"),
        ("step", 1, 10.0, "running"),
        ("rolledBack", 1, 0.0, "aborted"),
    ];
    let wanted =
        wanted.map(|(event, step, weight, phase)| (event.to_owned(), step, weight, phase.to_owned()));
    assert_eq!(said, wanted);
    let first = &heard[0];
    assert_eq!(
        (&first["route"], &first["version"], &first["revision"]),
        (&"shop".into(), &"v2".into(), &2.into())
    );
    assert_eq!(first["reason"], "rollout started: step 1 of 3");
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    let metrics = router.metrics().await;
    assert!(
        metrics.contains("serinus_rollout_hooks_total{event=\"step\",result=\"success\"} 4"),
        "{metrics}"
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_is_not_told_again_when_its_config_comes_back() {
    let (shop, ear) = (Shop::new().await, Ear::start().await);
    let rollout = LONG.replace("{steps", &format!("{{hooks: [{}], steps", ear.hook("step, rolledBack")));
    let router = shop.start(&rollout).await;
    router.does("start").await;
    ear.hears(1).await;
    router.does("abort").await;
    ear.hears(2).await;
    router.stop().await;
    shop.write(None, true);
    let router = Running(start_router(shop.file()).await);
    assert!(router.view().is_none(), "nobody knows its steps");
    shop.write(Some(&rollout), true);
    router.until_phase(Phase::Aborted).await;
    router.does("start").await;
    let heard = ear.hears(3).await;
    let said: Vec<_> = heard.iter().map(|note| note["event"].as_str().unwrap()).collect();
    assert_eq!(said, ["step", "rolledBack", "step"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_must_answer_2xx_before_the_next_step_begins() {
    let (shop, ear) = (Shop::new().await, Ear::start().await);
    ear.status.store(503, Ordering::Relaxed);
    let rollout = format!(
        "{{hooks: [{}], steps: [{{weight: 10, hold: 0s}}, {{weight: 20, hold: 1h}}], guard: {{minRequests: 0}}}}",
        ear.hook("gate")
    );
    let router = shop.start(&rollout).await;
    router.does("start").await;
    let said =
        format!("the gate of step 2 is closed: http://{} answered 503; it is asked again", ear.address);
    router.until("the gate is closed", |view| view.rollout.reason == said).await;
    let asked = &ear.hears(2).await[1];
    assert_eq!((&asked["event"], &asked["step"], &asked["weight"]), (&"gate".into(), &2.into(), &20.into()));
    assert_eq!(router.view().unwrap().rollout.step, 0);
    ear.status.store(204, Ordering::Relaxed);
    router.until("the gate is open", |view| view.rollout.step == 1).await;
    // Who promotes does not ask, and a verdict does not wait.
    router.does("abort").await;
    ear.status.store(404, Ordering::Relaxed);
    router.does("start").await;
    router.until("the gate is closed", |view| view.rollout.reason.contains("is closed")).await;
    router.does("promote").await;
    assert_eq!(router.view().unwrap().rollout.step, 1);
    router.does("abort").await;
    router.does("start").await;
    router.until("the gate is closed", |view| view.rollout.reason.contains("is closed")).await;
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until_phase(Phase::RolledBack).await;
    drop(traffic);
    router.stop().await;
}

/// What is behind a hook's TLS answers 204 to anything.
async fn secure_ear(authority: &Authority) -> (SocketAddr, Arc<Mutex<Vec<String>>>, AbortOnDropHandle<()>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(authority.issue(&["localhost"]).server(&["http/1.1"]));
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let into = Arc::clone(&heard);
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(socket).await else { continue };
            let mut text = Vec::new();
            while !text.ends_with(b"}") && tls.read_buf(&mut text).await.is_ok_and(|read| read > 0) {}
            into.lock().unwrap().push(String::from_utf8(text).unwrap());
            let _ = tls.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            let _ = tls.shutdown().await;
        }
    });
    (address, heard, AbortOnDropHandle::new(serving))
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_checked_against_the_authorities_of_the_system() {
    let shop = Shop::new().await;
    let authority = Authority::new("system");
    let (address, heard, _serving) = secure_ear(&authority).await;
    let roots = shop.folder.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let hook =
        format!("{{hooks: [{{url: 'https://localhost:{}/', on: [step], retries: 0}}], steps", address.port());
    shop.write(Some(&LONG.replace("{steps", &hook)), true);
    let run = |roots: &std::path::Path| {
        let mut command = serinus(&["run", "--config", &shop.file().display().to_string()]);
        command.env("SSL_CERT_FILE", roots);
        Process::spawn(command)
    };
    let process = run(&roots).await;
    process.client(&["rollout", "start", "shop"]).done();
    eventually("the hook is called", || (!heard.lock().unwrap().is_empty()).then_some(())).await;
    assert!(heard.lock().unwrap()[0].contains("\"event\":\"step\""));
    process.client(&["rollout", "abort", "shop"]).done();
    process.signal("TERM");
    process.end(super::command::SOON);

    let others = shop.folder.path().join("others.pem");
    std::fs::write(&others, Authority::new("other").pem()).unwrap();
    let process = run(&others).await;
    process.client(&["rollout", "start", "shop"]).done();
    let line = eventually("it is refused", || process.logged("hook failed")).await;
    assert!(line["error"].as_str().unwrap().contains("cannot be reached: "), "{line}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    process.signal("TERM");
    process.end(super::command::SOON);
}
