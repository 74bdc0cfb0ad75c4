//! Kubernetes Events on a route's Service.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use serinus::demo::Testpage;
use serinus::rollout::Phase;
use tempfile::{TempDir, TempPath};

use super::{LONG, Running, Traffic};
use crate::support::apiserver::{ApiServer, documents};
use crate::support::eventually;
use crate::support::stack::{cluster_config, set_weight, start_router};

/// A Service of a cluster with a pod of each version.
struct Shop {
    api: ApiServer,
    canary: Testpage,
    _stable: Testpage,
    folder: TempDir,
    kubeconfig: TempPath,
}

impl Shop {
    async fn new() -> Self {
        let api = ApiServer::start().await;
        let (stable, canary) =
            (Testpage::start(1, "v1").await.unwrap(), Testpage::start(2, "v2").await.unwrap());
        api.apply_yaml("{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: web}, spec: {ports: [{port: 80}]}}");
        for (version, pod) in [("v1", &stable), ("v2", &canary)] {
            let address = pod.address();
            for object in documents(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {version}, namespace: web, labels: {{version: {version}}}}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {{name: svc-{version}, namespace: web, labels: {{kubernetes.io/service-name: svc}}}}\n\
                 ports: [{{name: '', port: {}, protocol: TCP}}]\n\
                 endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {version}}}}}]\n",
                address.port(),
                address.ip(),
            )) {
                api.apply(object);
            }
        }
        let kubeconfig = api.kubeconfig();
        Self { api, canary, _stable: stable, folder: tempfile::tempdir().unwrap(), kubeconfig }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("serinus.yaml")
    }

    /// A router that knows the pods.
    async fn start(&self, rollout: &str) -> Running {
        let routes = format!(
            "  - name: shop\n    service: web/svc\n    versions: [{{name: v1, selector: version=v1}}, \
             {{name: v2, selector: version=v2}}]\n    rollout: {}\n",
            rollout.replacen('{', "{version: v2, ", 1)
        );
        std::fs::write(self.file(), cluster_config(&self.kubeconfig, self.folder.path(), &routes)).unwrap();
        let router = Running(start_router(self.file()).await);
        eventually("the pods are known", || {
            let table = router.0.control().table().load_full();
            table.routes()[0].versions.iter().all(|v| v.candidates().len() == 1).then_some(())
        })
        .await;
        router
    }

    fn service(&self) -> Value {
        self.api.get("services", "web", "svc").unwrap()
    }

    /// Type, reason and action of each Event on the Service, once there are so many.
    async fn told(&self, count: usize) -> Vec<(String, String, String)> {
        let service = self.service();
        let events = eventually("the Events are there", || {
            Some(self.api.events_on(&service)).filter(|events| events.len() >= count)
        })
        .await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        events.iter().map(|e| (text(&e["type"]), text(&e["reason"]), text(&e["action"]))).collect()
    }
}

fn wanted(told: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    told.iter().map(|(kind, reason, action)| ((*kind).into(), (*reason).into(), (*action).into())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_move_of_a_rollout_is_an_event_on_the_service() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    for action in ["start", "pause", "resume", "promote"] {
        router.does(action).await;
    }
    assert_eq!(set_weight(&router.0, "shop", "{\"v2\": 30}").await.status, 200);
    for action in ["resume", "promote", "promote", "start"] {
        router.does(action).await;
    }
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until_phase(Phase::RolledBack).await;
    drop(traffic);
    router.does("start").await;
    router.does("abort").await;
    let told = shop.told(13).await;
    assert_eq!(
        told,
        wanted(&[
            ("Normal", "RolloutStarted", "Start"),
            ("Normal", "RolloutPaused", "Pause"),
            ("Normal", "RolloutResumed", "Resume"),
            ("Normal", "RolloutStep", "Step"),
            ("Normal", "WeightsChanged", "SetWeights"),
            ("Normal", "RolloutPaused", "Pause"),
            ("Normal", "RolloutResumed", "Resume"),
            ("Normal", "RolloutStep", "Step"),
            ("Normal", "RolloutSucceeded", "Succeed"),
            ("Normal", "RolloutStarted", "Start"),
            ("Warning", "RolloutRolledBack", "RollBack"),
            ("Normal", "RolloutStarted", "Start"),
            ("Normal", "RolloutAborted", "Abort"),
        ])
    );
    let events = shop.api.events_on(&shop.service());
    let note = |at: usize| events[at]["message"].as_str().unwrap();
    assert_eq!(note(0), "route shop: v2 at 10 %, step 1 of 3, revision 2: rollout started: step 1 of 3");
    assert_eq!(note(4), "route shop: v1 at 70 %, v2 at 30 %, revision 6, by admin (127.0.0.1): test");
    let (why, failed) =
        (note(10), "route shop: v2 at 0 %, step 1 of 3, revision 11: rolled back: v2 failed ");
    assert!(why.starts_with(failed), "{why}");
    assert_eq!((&events[0]["reportingComponent"], events.len()), (&"serinus".into(), 13));
    let metrics = router.metrics().await;
    assert!(metrics.contains("serinus_kubernetes_events_total{result=\"success\"} 13"), "{metrics}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_by_a_verdict_is_a_warning_and_a_restart_tells_nothing_again() {
    let shop = Shop::new().await;
    let rollout = LONG.replace("{steps", "{onFail: pause, steps");
    let router = shop.start(&rollout).await;
    router.does("start").await;
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until("paused", |view| matches!(view.rollout.phase, Phase::Paused(_))).await;
    drop(traffic);
    let before = [("Normal", "RolloutStarted", "Start"), ("Warning", "RolloutPaused", "Pause")];
    assert_eq!(shop.told(2).await, wanted(&before));
    router.stop().await;
    let router = shop.start(&rollout).await;
    router.does("abort").await;
    assert_eq!(shop.told(3).await, wanted(&[before[0], before[1], ("Normal", "RolloutAborted", "Abort")]));
    router.stop().await;
}

/// Events are no reason to stop: a rollout goes its way when they are forbidden.
#[tokio::test(flavor = "multi_thread")]
async fn where_events_are_forbidden_the_rollout_goes_on_and_the_problem_is_shown_once() {
    let shop = Shop::new().await;
    shop.api.deny("create", "events");
    let router = shop.start(LONG).await;
    for action in ["start", "promote", "promote", "promote"] {
        router.does(action).await;
    }
    let shown = || {
        let problems = router.0.control().problems();
        problems.iter().filter(|p| p.message.contains("to create events in namespace web")).count()
    };
    eventually("the problem is shown", || (shown() == 1).then_some(())).await;
    let failed = "serinus_kubernetes_events_total{result=\"failure\"} 4";
    eventually("none was taken", || router.0.telemetry().text().contains(failed).then_some(())).await;
    assert_eq!((shown(), router.view().unwrap().rollout.phase), (1, Phase::Succeeded));
    shop.api.allow("create", "events");
    assert_eq!(set_weight(&router.0, "shop", "{\"v2\": 1}").await.status, 200);
    assert_eq!(shop.told(1).await, wanted(&[("Normal", "WeightsChanged", "SetWeights")]));
    eventually("the problem is gone", || (shown() == 0).then_some(())).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_holds_up_nothing() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    shop.api.pause();
    router.does("start").await;
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until_phase(Phase::RolledBack).await;
    drop(traffic);
    assert_eq!(shop.api.events_on(&shop.service()), Vec::<Value>::new());
    shop.api.resume();
    let wanted =
        wanted(&[("Normal", "RolloutStarted", "Start"), ("Warning", "RolloutRolledBack", "RollBack")]);
    assert_eq!(shop.told(2).await, wanted);
    router.stop().await;
}

/// A Service that takes another's name is another one: Events are on the one that was there.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_on_the_service_that_is_there_now() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.does("start").await;
    assert_eq!(shop.told(1).await.len(), 1);
    let before = shop.service();
    let is_there = |there: bool| {
        let table = router.0.control().table().load_full();
        (table.routes()[0].problems.iter().any(|p| p.message.contains("does not exist")) != there)
            .then_some(())
    };
    shop.api.delete("services", "web", "svc");
    eventually("it is gone", || is_there(false)).await;
    let mut other = before.clone();
    other["metadata"] = json!({"name": "svc", "namespace": "web"});
    shop.api.apply(other);
    eventually("the other one is known", || is_there(true)).await;
    router.does("abort").await;
    assert_eq!(shop.told(1).await, wanted(&[("Normal", "RolloutAborted", "Abort")]));
    assert_eq!(shop.api.events_on(&before).len(), 1);
    router.stop().await;
}

/// `kubectl describe service` shows them, where there is a kubectl; the test says so where not.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_describe_shows_them() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.does("start").await;
    router.does("promote").await;
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until_phase(Phase::RolledBack).await;
    drop(traffic);
    shop.told(3).await;
    let (kubeconfig, home) = (shop.kubeconfig.to_path_buf(), shop.folder.path().to_owned());
    let run = move |args: &[&str]| {
        let mut command = Command::new("kubectl");
        command
            .args(["--request-timeout", "20s"])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(args)
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy");
        command.env("HOME", &home).output()
    };
    let said = tokio::task::spawn_blocking(move || {
        [
            run(&["-n", "web", "describe", "service", "svc"]),
            run(&["-n", "web", "events", "--for", "service/svc"]),
        ]
    });
    let [Ok(described), Ok(listed)] = said.await.unwrap() else {
        return println!("not tried: there is no kubectl here");
    };
    let text = String::from_utf8(described.stdout).unwrap();
    println!("{text}{}", String::from_utf8(listed.stdout).unwrap());
    let events = text.split("\nEvents:").nth(1).unwrap_or_else(|| panic!("{text}{:?}", described.stderr));
    for needle in [
        "RolloutStarted",
        "RolloutStep",
        "RolloutRolledBack",
        "serinus",
        "route shop: v2 at 10 %, step 1 of 3, revision 2: rollout started",
    ] {
        assert!(events.contains(needle), "{needle}: {text}");
    }
    router.stop().await;
}
