//! Several router processes that share one state through an API server: nothing is lost, nothing happens twice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

mod agreement;
mod permissions;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempPath;

use crate::rollouts::{Ear, Traffic, call};
use crate::support::fleet::Fleet;
use crate::support::http::Client;
use crate::support::misbehaving::{Conduct, always};
use crate::support::process::{Process, serinus};
use crate::support::relay::Relay;
use crate::support::stack::manifest;

/// A Lease runs out after 15 s, and the machine may be busy.
const LONG: Duration = Duration::from_secs(90);
/// A rollout that goes nowhere by itself.
const STAYS: &str =
    "{version: v2, steps: [{weight: 10, hold: 1h}, {weight: 20, hold: 1h}, {weight: 100, hold: 1h}]}";
/// A rollout of short steps.
const GOES: &str = "{version: v2, steps: [{weight: 10, hold: 1s}, {weight: 20, hold: 1s}, {weight: 30, hold: 1s}, \
                    {weight: 40, hold: 1s}, {weight: 100, hold: 1s}], guard: {minRequests: 5}}";

/// A cluster, and the routers in it.
struct Group {
    fleet: Fleet,
    replicas: Vec<Replica>,
    rollout: String,
}

/// One router process, and its way to the API server.
struct Replica {
    name: String,
    process: Process,
    relay: Relay,
    file: PathBuf,
    _kubeconfig: TempPath,
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Group {
    /// So many, whose route has this rollout, or none.
    async fn start(replicas: usize, rollout: &str) -> Self {
        let fleet = Fleet::start(&manifest("nginx-canary.yaml")).await;
        let mut group = Self { fleet, replicas: Vec::new(), rollout: rollout.to_owned() };
        for number in 0..replicas {
            group.add(&format!("serinus-{number}")).await;
        }
        group
    }

    /// Starts one more, and waits until it is ready.
    async fn add(&mut self, name: &str) {
        self.begin(name).await;
        self.replicas[self.replicas.len() - 1].ready().await;
    }

    /// Starts one more.
    async fn begin(&mut self, name: &str) {
        let (process, relay, file, kubeconfig) = self.spawn(name).await;
        self.replicas.push(Replica { name: name.to_owned(), process, relay, file, _kubeconfig: kubeconfig });
    }

    /// Starts a process.
    async fn spawn(&self, name: &str) -> (Process, Relay, PathBuf, TempPath) {
        let (relay, file, kubeconfig) = self.prepare(name).await;
        (spawn(name, &file).await, relay, file, kubeconfig)
    }

    /// Its way to the API server, and its config.
    async fn prepare(&self, name: &str) -> (Relay, PathBuf, TempPath) {
        let url = self.fleet.cluster.api.url();
        let relay = Relay::to(url.trim_start_matches("http://").parse().unwrap()).await;
        let kubeconfig = self.fleet.cluster.api.kubeconfig_to(&format!("http://{}", relay.address));
        let file = self.fleet.folder.path().join(format!("{name}.yaml"));
        let text = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {{configMap: serinus/serinus-state}}\ndrain: {{delay: 0s, timeout: 5s}}\n\
             discovery: {{kubernetes: {{kubeconfig: {}}}}}\nroutes:\n  - name: shop\n    service: web/nginx-svc\n    \
             port: 80\n    versions:\n      - {{name: v1, selector: 'version!=v2'}}\n      \
             - {{name: v2, selector: version=v2, weight: 1}}\n      - {{name: v3, selector: version=v3}}\n{}",
            kubeconfig.display(),
            if self.rollout.is_empty() { String::new() } else { format!("    rollout: {}\n", self.rollout) },
        );
        std::fs::write(&file, text).unwrap();
        (relay, file, kubeconfig)
    }

    fn config_map(&self) -> Value {
        self.fleet.cluster.api.get("configmaps", "serinus", "serinus-state").expect("the ConfigMap")
    }

    /// What the replicas share of the route.
    fn shared(&self) -> Value {
        serde_json::from_str(self.config_map()["data"]["route.shop"].as_str().unwrap()).unwrap()
    }

    /// The reasons of the shared history.
    fn reasons(&self) -> Vec<String> {
        let shared = self.shared();
        let history = shared["history"].as_array().unwrap();
        history.iter().map(|entry| entry["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until every replica serves the shared revision, and gives the weight of v2 in it.
    async fn agree(&self) -> f64 {
        eventually("all serve the shared revision", async || {
            let shared = self.shared();
            for replica in &self.replicas {
                let route = replica.route().await;
                if route["revision"] != shared["revision"]
                    || route["versions"][1]["weight"] != shared["weights"]["v2"]
                {
                    return None;
                }
            }
            shared["weights"]["v2"].as_f64()
        })
        .await
    }

    /// The place of the replica that takes rollouts forward, among those.
    async fn leader(&self) -> usize {
        eventually("one leads", async || {
            let lease = self.fleet.cluster.api.get("leases", "serinus", "serinus-state")?;
            let holder = lease["spec"]["holderIdentity"].as_str()?.to_owned();
            self.replicas.iter().position(|replica| replica.name == holder)
        })
        .await
    }
}

async fn spawn(name: &str, file: &std::path::Path) -> Process {
    let mut command = serinus(&["run", "--config", &file.display().to_string()]);
    command.env("POD_NAME", name);
    Process::spawn(command).await
}

async fn until_ready(process: &Process) {
    eventually("it is ready", async || {
        let answer = Client::new(process.admin).get("localhost", "/readyz").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

impl Replica {
    async fn ready(&self) {
        until_ready(&self.process).await;
    }

    async fn route(&self) -> Value {
        let answer = Client::new(self.process.admin).get("localhost", "/api/v1/routes/shop").await.unwrap();
        serde_json::from_str(&answer.body).unwrap()
    }

    async fn weigh(&self, version: &str, percent: f64, reason: &str, headers: &str) -> (u16, Value) {
        let body = json!({"weights": {version: percent}, "reason": reason});
        call(self.process.admin, "PUT /api/v1/routes/shop/weights", headers, &body).await
    }

    async fn ask(&self, action: &str) -> (u16, Value) {
        let body = json!({ "action": action });
        call(self.process.admin, "POST /api/v1/routes/shop/rollout", "", &body).await
    }

    async fn weight(&self) -> f64 {
        self.route().await["versions"][1]["weight"].as_f64().unwrap()
    }

    async fn phase(&self) -> String {
        self.route().await["rollout"]["phase"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_on_three_replicas_at_once_are_all_made_and_live_on_all() {
    const EACH: usize = 12;
    let group = Group::start(3, STAYS).await;
    assert_eq!(group.agree().await, 1.0);
    let first = group.shared()["revision"].as_u64().unwrap();
    assert_eq!(first, 1, "the config's weights are one revision, whoever was first");
    let changes = group.replicas.iter().enumerate().map(async |(place, replica)| {
        let mut revisions = Vec::new();
        for number in 0..EACH {
            // Never the same twice.
            let percent = 2.0 + (place * EACH + number) as f64 / 10.0;
            let (status, route) = replica.weigh("v2", percent, &format!("{place}-{number}"), "").await;
            assert_eq!(status, 200, "{route}");
            revisions.push(route["revision"].as_u64().unwrap());
        }
        revisions
    });
    let revisions: Vec<u64> = futures::future::join_all(changes).await.concat();
    // Somebody's answer may tell of a later one that came in the same moment.
    assert!(revisions.iter().all(|revision| *revision <= 1 + 3 * EACH as u64));
    group.agree().await;
    let shared = group.shared();
    assert_eq!(shared["revision"].as_u64(), Some(1 + 3 * EACH as u64), "none was lost, and none made twice");
    let kept: BTreeSet<_> = group.reasons().into_iter().collect();
    assert_eq!(kept.len(), 20, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_expect_the_same_revision_one_is_refused() {
    let group = Group::start(2, STAYS).await;
    group.agree().await;
    for round in 0..5 {
        let revision = group.shared()["revision"].as_u64().unwrap();
        let expects = format!("If-Match: \"{revision}\"\r\n");
        let percent = f64::from(10 + 2 * round);
        let (a, b) = tokio::join!(
            group.replicas[0].weigh("v2", percent, "a", &expects),
            group.replicas[1].weigh("v2", percent + 1.0, "b", &expects),
        );
        let mut statuses = [a.0, b.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{a:?} {b:?}");
        group.agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_later_or_again_serves_the_shared_weights() {
    let mut group = Group::start(1, STAYS).await;
    assert_eq!(group.replicas[0].weigh("v2", 7.0, "before", "").await.0, 200);
    group.add("serinus-late").await;
    // Ready means that it knows them.
    assert_eq!(group.replicas[1].weight().await, 7.0);
    for replica in std::mem::take(&mut group.replicas) {
        replica.process.signal("TERM");
        replica.process.end(LONG);
    }
    let leases = group.fleet.cluster.api.all("leases", "serinus");
    let held = leases.iter().filter(|lease| !lease["spec"]["holderIdentity"].is_null());
    assert_eq!(held.count(), 0, "they let go: {leases:?}");
    group.add("serinus-after").await;
    assert_eq!(group.replicas[0].weight().await, 7.0);
    assert_eq!(group.shared()["revision"].as_u64(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_deleted_is_written_again_as_it_was() {
    let mut group = Group::start(2, STAYS).await;
    assert_eq!(group.replicas[0].weigh("v2", 7.0, "before", "").await.0, 200);
    assert_eq!(group.agree().await, 7.0);
    group.fleet.cluster.api.delete("configmaps", "serinus", "serinus-state");
    eventually("it is written again", async || {
        group.fleet.cluster.api.get("configmaps", "serinus", "serinus-state")
    })
    .await;
    assert_eq!(group.agree().await, 7.0);
    group.add("serinus-late").await;
    assert_eq!(group.replicas[2].weight().await, 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_cut_off_catches_up_and_serves_nothing_that_was_not_asked() {
    let group = Group::start(2, STAYS).await;
    let [near, far] = [&group.replicas[0], &group.replicas[1]];
    assert_eq!(near.weigh("v2", 5.0, "before", "").await.0, 200);
    assert_eq!(group.agree().await, 5.0);
    far.relay.cut();
    for percent in [6.0, 7.0, 8.0] {
        assert_eq!(near.weigh("v2", percent, "meanwhile", "").await.0, 200);
    }
    assert_eq!(near.weight().await, 8.0);
    // It goes on with what it knows, and takes no change that it cannot share.
    let (status, refused) = far.weigh("v2", 50.0, "lonely", "").await;
    assert_eq!(status, 503, "{refused}");
    let told = refused["detail"].as_str().unwrap();
    assert!(told.contains("shared with the other replicas") && told.contains("rollout abort"), "{told}");
    assert_eq!(far.weight().await, 5.0);
    let mut client = Client::new(far.process.web);
    assert_eq!(client.get("shop.example.com", "/").await.unwrap().status, 200);
    far.relay.mend();
    let seen = eventually("it catches up", async || {
        let weight = far.weight().await;
        assert!([5.0, 6.0, 7.0, 8.0].contains(&weight), "{weight} was not asked");
        (weight == 8.0).then_some(weight)
    });
    seen.await;
    assert_eq!(group.agree().await, 8.0);
    assert!(!group.reasons().contains(&"lonely".to_owned()), "what was refused is not made later");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_5_a_canary_is_taken_back_also_by_a_replica_that_is_cut_off() {
    let group = Group::start(2, STAYS).await;
    let [near, far] = [&group.replicas[0], &group.replicas[1]];
    let (status, route) = near.ask("start").await;
    assert_eq!(status, 200, "{route}");
    assert_eq!(group.agree().await, 10.0);
    far.relay.cut();
    let (status, route) = far.ask("abort").await;
    assert_eq!(status, 200, "{route}");
    assert_eq!(far.weight().await, 0.0, "at once");
    assert_eq!(near.weight().await, 10.0, "which nobody could tell it");
    let status = far.process.client(&["status"]).done();
    assert!(status.contains("not shared with the other replicas"), "{status}");
    assert!(status.contains("\nReplicas: serinus-1 (this one"), "{status}");
    println!("{status}");
    far.relay.mend();
    assert_eq!(group.agree().await, 0.0);
    assert_eq!((near.phase().await, far.phase().await), ("aborted".to_owned(), "aborted".to_owned()));
    let aborts = group.reasons().iter().filter(|reason| *reason == "aborted").count();
    assert_eq!(aborts, 1, "{:?}", group.reasons());
    eventually("the problem is gone", async || {
        let status = far.process.client(&["status"]).done();
        (!status.contains("not shared with the other replicas")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_5_a_replica_that_does_not_lead_rolls_back_on_what_it_sees() {
    let group = Group::start(2, STAYS).await;
    let leader = group.leader().await;
    let [leads, other] = [&group.replicas[leader], &group.replicas[1 - leader]];
    assert_eq!(leads.ask("start").await.0, 200);
    assert_eq!(group.agree().await, 10.0);
    // It alone gets requests.
    let traffic = Traffic::start(other.process.web);
    traffic.more(20).await;
    for pod in group.fleet.pods_of("web/nginx-v2") {
        group.fleet.pods[&pod].behave(always(Conduct::Status(500)));
    }
    eventually("it is rolled back", async || (other.phase().await == "rolled-back").then_some(())).await;
    assert_eq!(group.agree().await, 0.0);
    assert_eq!(leads.phase().await, "rolled-back");
    let backs = group.reasons().iter().filter(|reason| reason.starts_with("rolled back: v2 failed")).count();
    assert_eq!(backs, 1, "{:?}", group.reasons());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_replicas_see_counts_together() {
    let group = Group::start(2, STAYS).await;
    assert_eq!(group.replicas[1].ask("start").await.0, 200);
    assert_eq!(group.agree().await, 10.0);
    let (a, b) =
        (Traffic::start(group.replicas[0].process.web), Traffic::start(group.replicas[1].process.web));
    a.more(100).await;
    b.more(100).await;
    for replica in &group.replicas {
        eventually("the other's requests are counted here, too", async || {
            let rollout = &replica.route().await["rollout"];
            let requests = rollout["evidence"]["stable"]["requests"].as_u64()?
                + rollout["evidence"]["canary"]["requests"].as_u64()?;
            (requests > 200).then_some(())
        })
        .await;
    }
}

/// The steps of the rollout that the shared history tells of, in order.
fn steps(reasons: &[String]) -> Vec<usize> {
    let step = |reason: &String| {
        let rest = reason.strip_prefix("rollout started: step ").or_else(|| reason.strip_prefix("step "))?;
        rest.split(' ').next()?.parse().ok()
    };
    reasons.iter().filter_map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_5_a_leader_that_is_killed_in_a_step_is_replaced_and_no_step_is_taken_twice() {
    let mut group = Group::start(3, GOES).await;
    let leader = group.leader().await;
    let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    let traffic: Vec<_> =
        others.iter().map(|place| Traffic::start(group.replicas[*place].process.web)).collect();
    assert_eq!(group.replicas[others[0]].ask("start").await.0, 200);
    eventually("the second step", async || steps(&group.reasons()).contains(&2).then_some(())).await;
    let killed = group.replicas.remove(leader);
    killed.process.signal("KILL");
    let (name, file) = (killed.name.clone(), killed.file.clone());
    drop(killed.process);
    eventually("the others take it to its end", async || {
        (group.replicas[0].phase().await == "succeeded").then_some(())
    })
    .await;
    assert_eq!(group.agree().await, 100.0);
    assert_eq!(steps(&group.reasons()), [1, 2, 3, 4, 5], "{:?}", group.reasons());
    assert_ne!(group.leader().await, 3);
    // It comes again, and is as the others are.
    let process = spawn(&name, &file).await;
    group.replicas.push(Replica { process, ..killed });
    group.replicas[2].ready().await;
    assert_eq!(group.replicas[2].weight().await, 100.0);
    drop(traffic);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_5_a_leader_that_is_cut_off_takes_nothing_forward_and_follows_the_next_one() {
    let group = Group::start(2, GOES).await;
    let leader = group.leader().await;
    let [old, new] = [&group.replicas[leader], &group.replicas[1 - leader]];
    let traffic = [Traffic::start(old.process.web), Traffic::start(new.process.web)];
    assert_eq!(new.ask("start").await.0, 200);
    let held = eventually("the second step", async || {
        let weight = old.weight().await;
        (weight > 10.0).then_some(weight)
    })
    .await;
    old.relay.cut();
    eventually("the other one takes it to its end", async || {
        let weight = old.weight().await;
        assert!(weight == held, "the one that is cut off went from {held} to {weight} by itself");
        (new.phase().await == "succeeded").then_some(())
    })
    .await;
    old.relay.mend();
    assert_eq!(group.agree().await, 100.0);
    assert_eq!(steps(&group.reasons()), [1, 2, 3, 4, 5], "{:?}", group.reasons());
    drop(traffic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_lets_go_and_the_next_one_goes_on_at_once() {
    let mut group = Group::start(2, GOES).await;
    let leader = group.leader().await;
    let traffic = Traffic::start(group.replicas[1 - leader].process.web);
    assert_eq!(group.replicas[leader].ask("start").await.0, 200);
    eventually("the second step", async || steps(&group.reasons()).contains(&2).then_some(())).await;
    let stopped = group.replicas.remove(leader);
    stopped.process.signal("TERM");
    stopped.process.end(LONG);
    eventually("the other one takes it to its end", async || {
        (group.replicas[0].phase().await == "succeeded").then_some(())
    })
    .await;
    assert_eq!(steps(&group.reasons()), [1, 2, 3, 4, 5], "{:?}", group.reasons());
    drop(traffic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_spoiled_is_written_again_by_those_who_know_it() {
    let mut group = Group::start(2, STAYS).await;
    assert_eq!(group.replicas[0].weigh("v2", 7.0, "before", "").await.0, 200);
    assert_eq!(group.agree().await, 7.0);
    for spoiled in [json!("{"), Value::Null] {
        group.fleet.cluster.api.edit("configmaps", "serinus", "serinus-state", |map| {
            let data = map["data"].as_object_mut().unwrap();
            if spoiled.is_null() {
                data.remove("route.shop");
            } else {
                data.insert("route.shop".to_owned(), spoiled);
            }
        });
        eventually("it is written again", async || {
            let map = group.config_map();
            let text = map["data"]["route.shop"].as_str()?.to_owned();
            let shared: Value = serde_json::from_str(&text).ok()?;
            (shared["revision"] == 2).then_some(())
        })
        .await;
    }
    group.add("serinus-late").await;
    assert_eq!(group.replicas[2].weight().await, 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_a_later_version_is_left_alone() {
    let group = Group::start(1, STAYS).await;
    assert_eq!(group.replicas[0].weigh("v2", 7.0, "before", "").await.0, 200);
    group.fleet.cluster.api.edit("configmaps", "serinus", "serinus-state", |map| {
        map["data"]["format"] = "2".into();
    });
    let (process, _relay, _file, _kubeconfig) = group.spawn("serinus-old").await;
    eventually("it says why it is not ready", async || {
        let answer = Client::new(process.admin).get("localhost", "/readyz").await.ok()?;
        let status = process.client(&["status"]).done();
        (answer.status == 503 && status.contains("has format 2")).then_some(())
    })
    .await;
    let answer = Client::new(process.web).get("shop.example.com", "/").await.unwrap();
    assert_eq!(answer.status, 503, "it does not know the weights");
    assert_eq!(group.replicas[0].weight().await, 7.0, "who knew them goes on");
    assert_eq!(group.config_map()["data"]["format"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_that_crosses_a_step_ends_the_rollout_all_the_same() {
    let group = Group::start(2, STAYS).await;
    let leader = group.leader().await;
    let [leads, other] = [&group.replicas[leader], &group.replicas[1 - leader]];
    assert_eq!(leads.ask("start").await.0, 200);
    assert_eq!(group.agree().await, 10.0);
    other.relay.cut();
    let revision = group.shared()["revision"].as_u64().unwrap();
    let body = json!({"action": "abort", "reason": "it smells"});
    let expects = format!("If-Match: \"{revision}\"\r\n");
    let (status, route) =
        call(other.process.admin, "POST /api/v1/routes/shop/rollout", &expects, &body).await;
    assert_eq!(status, 200, "{route}");
    assert_eq!(leads.ask("promote").await.0, 200, "which the others do not know of");
    assert_eq!(group.shared()["weights"]["v2"], 20);
    other.relay.mend();
    assert_eq!(group.agree().await, 0.0);
    assert!(group.reasons().last().unwrap().contains("it smells"), "{:?}", group.reasons());
    // The next one is another one.
    assert_eq!(leads.ask("start").await.0, 200);
    assert_eq!(group.agree().await, 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollout_does_is_told_by_one_of_them() {
    let ear = Ear::start().await;
    let hook = format!("hooks: [{}]}}", ear.hook("step, promoted, rolledBack"));
    let rollout = GOES.replace("guard: {minRequests: 5}}", &format!("guard: {{minRequests: 5}}, {hook}"));
    let group = Group::start(3, &rollout).await;
    let leader = group.leader().await;
    let traffic = group.replicas.iter().map(|replica| Traffic::start(replica.process.web));
    let traffic: Vec<_> = traffic.collect();
    assert_eq!(group.replicas[(leader + 1) % 3].ask("start").await.0, 200);
    eventually("its end", async || (group.replicas[0].phase().await == "succeeded").then_some(())).await;
    group.agree().await;
    let told = |event: &str| ear.heard().iter().filter(|note| note["event"] == event).count();
    eventually("the end is told", async || (told("promoted") > 0).then_some(())).await;
    let steps: Vec<_> = ear.heard().iter().filter_map(|note| note["step"].as_u64()).collect();
    assert_eq!((told("step"), told("promoted"), told("rolledBack")), (5, 1, 0), "{steps:?}");
    let events = group.fleet.cluster.api.all("events", "web");
    let named = |reason: &str| events.iter().filter(|event| event["reason"] == reason).count();
    assert_eq!((named("RolloutStarted"), named("RolloutStep")), (1, 4), "{events:?}");
    drop(traffic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_of_a_replica_goes_on_with_what_that_has_seen() {
    let mut group = Group::start(0, STAYS).await;
    let (_relay, file, _kubeconfig) = group.prepare("serinus-0").await;
    let meeting = group.fleet.folder.path().join("meeting").display().to_string();
    let run = || {
        let mut command = serinus(&["run", "--config", &file.display().to_string(), "--handover", &meeting]);
        command.env("POD_NAME", "serinus-0");
        command
    };
    let mut old = Process::spawn(run()).await;
    until_ready(&old).await;
    let body = json!({"action": "start"});
    assert_eq!(call(old.admin, "POST /api/v1/routes/shop/rollout", "", &body).await.0, 200);
    let traffic = Traffic::start(old.web);
    let seen = async |admin| {
        let answer = Client::new(admin).get("localhost", "/api/v1/routes/shop").await.ok()?;
        let route: Value = serde_json::from_str(&answer.body).unwrap();
        route["rollout"]["evidence"]["stable"]["requests"].as_u64()
    };
    let before =
        eventually("requests are counted", async || seen(old.admin).await.filter(|seen| *seen > 100)).await;
    drop(traffic);
    let new = Process::spawn(run()).await;
    old.wait(LONG);
    assert!(seen(new.admin).await.unwrap() >= before, "what was seen counts");
    let lease = |name: &str| group.fleet.cluster.api.get("leases", "serinus", name);
    eventually("it says that it lives, and leads", async || {
        let mine = lease("serinus-state-serinus-0")?["spec"]["holderIdentity"] == "serinus-0";
        let leads = lease("serinus-state")?["spec"]["holderIdentity"] == "serinus-0";
        (mine && leads).then_some(())
    })
    .await;
    let body = json!({"action": "promote"});
    let (status, route) = call(new.admin, "POST /api/v1/routes/shop/rollout", "", &body).await;
    assert_eq!((status, &route["versions"][1]["weight"]), (200, &json!(20)), "{route}");
    // Its configuration is that of the others.
    group.add("serinus-1").await;
    assert_eq!(group.replicas[0].weight().await, 20.0);
}
