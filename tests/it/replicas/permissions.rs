//! What replicas ask of the API server, and what each does without a right that it needs.

use std::collections::BTreeSet;

use serde_json::json;
use serinus::kubernetes::{PERMISSIONS, Permission, STATE_PERMISSIONS};

use super::{GOES, Group, LONG, Replica, STAYS, eventually};
use crate::rollouts::Traffic;
use crate::support::http::Client;

/// How much of a ConfigMap Serinus uses.
const LARGEST: usize = 960 * 1024;

/// Each verb of these.
fn verbs(permissions: &[Permission]) -> BTreeSet<(&'static str, &'static str, &'static str)> {
    let verbs =
        permissions.iter().flat_map(|it| it.verbs.iter().map(|verb| (it.api_group, it.resource, *verb)));
    verbs.collect()
}

impl Group {
    /// Something else in an object changes, and no watch says so, until that may.
    async fn touch_unseen(&self, plural: &str) {
        let api = &self.fleet.cluster.api;
        api.deny("watch", plural);
        api.cut_watches();
        eventually("nobody watches", async || (api.open_watches(plural) == 0).then_some(())).await;
        api.edit(plural, "serinus", "serinus-state", |object| {
            object["metadata"]["annotations"]["touched"] = json!("yes");
        });
    }

    /// Makes changes with long reasons, and has somebody fill the ConfigMap so far that another one does not fit into it.
    async fn fill(&self) {
        let reason = "x".repeat(400);
        for percent in [2.0, 3.0, 4.0] {
            assert_eq!(self.replicas[0].weigh("v2", percent, &reason, "").await.0, 200);
        }
        let api = &self.fleet.cluster.api;
        api.edit("configmaps", "serinus", "serinus-state", |object| {
            object["data"]["notes"] = json!("n".repeat(LARGEST - 1500));
        });
        // By its own writes a replica knows how large it is.
        assert_eq!(self.replicas[0].weigh("v2", 5.0, "fits", "").await.0, 200);
    }

    fn deny(&self, verb: &str, plural: &str) {
        self.fleet.cluster.api.deny(verb, plural);
    }

    fn allow(&self, verb: &str, plural: &str) {
        self.fleet.cluster.api.allow(verb, plural);
    }
}

impl Replica {
    fn status(&self) -> String {
        self.process.client(&["status"]).done()
    }

    /// Waits until `status` tells of all of these.
    async fn tells(&self, needles: &[&str]) {
        let what = format!("status tells of {needles:?}");
        eventually(&what, async || {
            let status = self.status();
            needles.iter().all(|needle| status.contains(needle)).then_some(())
        })
        .await;
    }

    /// Waits until `status` does not tell of this any more.
    async fn is_silent_about(&self, needle: &str) {
        let what = format!("status does not tell of {needle}");
        eventually(&what, async || (!self.status().contains(needle)).then_some(())).await;
    }

    /// What a request gets.
    async fn serves(&self) -> u16 {
        Client::new(self.process.web).get("shop.example.com", "/").await.unwrap().status
    }

    /// Asks for a change, which is refused with these words; the weight stays.
    async fn refuses(&self, needles: &[&str]) {
        let before = self.weight().await;
        let (status, refused) = self.weigh("v2", 50.0, "lonely", "").await;
        assert_eq!((status, &refused["type"]), (503, &json!("urn:serinus:problem:not-shared")), "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        for needle in needles.iter().chain(&["bind the Role of deploy/base", "nothing was changed here"]) {
            assert!(detail.contains(needle), "{needle}: {detail}");
        }
        assert_eq!(self.weight().await, before);
        assert_eq!(self.serves().await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_are_those_that_the_state_permissions_name() {
    let mut group = Group::start(2, STAYS).await;
    group.agree().await;
    group.fill().await;
    assert_eq!(group.replicas[0].weigh("v2", 6.0, "does not", "").await.0, 200);
    assert_eq!(group.shared()["history"].as_array().unwrap().len(), 2, "the last ones are kept");
    // Somebody was quicker, which is found when it is written.
    group.touch_unseen("configmaps").await;
    assert_eq!(group.replicas[0].weigh("v2", 7.0, "late", "").await.0, 200);
    group.touch_unseen("leases").await;
    let api = &group.fleet.cluster.api;
    eventually("the leader reads its Lease", async || (api.count("get", "leases") > 0).then_some(())).await;
    for replica in std::mem::take(&mut group.replicas) {
        replica.process.signal("TERM");
        replica.process.end(LONG);
    }
    let made = group.fleet.cluster.api.requests();
    let is_state = |resource: &str| STATE_PERMISSIONS.iter().any(|it| it.resource == resource);
    let (of_state, others): (Vec<_>, Vec<_>) = made.into_iter().partition(|seen| is_state(seen.resource));
    let asked: BTreeSet<_> = of_state.iter().map(|seen| (seen.group, seen.resource, seen.verb)).collect();
    assert_eq!(asked, verbs(STATE_PERMISSIONS));
    assert!(others.iter().all(|seen| verbs(PERMISSIONS).contains(&(seen.group, seen.resource, seen.verb))));
    for seen in &of_state {
        assert_eq!(seen.namespace.as_deref(), Some("serinus"), "{seen:?}");
        // What a Role can restrict by `resourceNames`.
        let by_name = seen.name.as_deref() == Some("serinus-state")
            || seen.fields.as_deref() == Some("metadata.name=serinus-state");
        assert!(by_name || seen.resource == "leases" || seen.verb == "create", "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_state_may_not_be_written_changes_are_refused_and_requests_go_on() {
    let group = Group::start(1, STAYS).await;
    let replica = &group.replicas[0];
    group.deny("patch", "configmaps");
    replica.refuses(&["cannot patch resource \"configmaps\"", "(403)"]).await;
    group.allow("patch", "configmaps");
    // What somebody else wrote cannot be looked at.
    group.touch_unseen("configmaps").await;
    group.deny("get", "configmaps");
    replica.refuses(&["cannot get resource \"configmaps\"", "(403)"]).await;
    group.allow("get", "configmaps");
    group.allow("watch", "configmaps");
    group.fill().await;
    group.deny("update", "configmaps");
    replica.refuses(&["cannot update resource \"configmaps\"", "(403)"]).await;
    group.allow("update", "configmaps");
    assert_eq!(replica.weigh("v2", 9.0, "at last", "").await.0, 200);
    assert_eq!(group.agree().await, 9.0);
    assert!(!group.reasons().contains(&"lonely".to_owned()), "{:?}", group.reasons());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_state_may_not_be_made_the_configs_weights_serve_and_it_is_told() {
    let mut group = Group::start(0, STAYS).await;
    group.deny("create", "configmaps");
    group.add("serinus-0").await;
    let replica = &group.replicas[0];
    replica.tells(&["not shared with the other replicas", "bind the Role of deploy/base"]).await;
    replica.refuses(&["cannot create resource \"configmaps\"", "(403)"]).await;
    assert_eq!(replica.weight().await, 1.0);
    group.allow("create", "configmaps");
    replica.is_silent_about("not shared").await;
    assert_eq!(group.agree().await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_not_read_the_state_is_not_ready_and_says_what_to_grant() {
    let mut group = Group::start(0, STAYS).await;
    group.deny("list", "configmaps");
    group.begin("serinus-0").await;
    let replica = &group.replicas[0];
    let role = "bind the Role of deploy/base in namespace serinus";
    replica.tells(&["to list configmaps named serinus-state in namespace serinus (403", role]).await;
    let ready = Client::new(replica.process.admin).get("localhost", "/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("state.configMap"), "{}", ready.body);
    assert_eq!(replica.serves().await, 503, "other weights than the config's may be in force");
    group.deny("watch", "configmaps");
    group.allow("list", "configmaps");
    replica.ready().await;
    assert_eq!(replica.serves().await, 200);
    // It has read them once; what others do is not heard of.
    replica.tells(&["to watch configmaps named serinus-state in namespace serinus (403", role]).await;
    assert_eq!(replica.weigh("v2", 3.0, "by itself", "").await.0, 200);
    group.allow("watch", "configmaps");
    replica.is_silent_about("configmaps").await;
    assert_eq!(group.agree().await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leases_nobody_takes_rollouts_forward_and_it_is_told() {
    for verb in ["list", "create"] {
        let mut group = Group::start(0, GOES).await;
        group.deny(verb, "leases");
        group.add("serinus-0").await;
        let replica = &group.replicas[0];
        let told = format!("to {verb} leases in namespace serinus (403");
        replica.tells(&[&told, "bind the Role of deploy/base in namespace serinus"]).await;
        assert_eq!(replica.ask("start").await.0, 200, "what is asked is done");
        let traffic = Traffic::start(replica.process.web);
        replica.waits_for_the_leader().await;
        assert_eq!(replica.weight().await, 10.0);
        group.allow(verb, "leases");
        eventually("it goes on", async || (replica.phase().await == "succeeded").then_some(())).await;
        replica.is_silent_about("leases").await;
        drop(traffic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_may_not_renew_its_lease_takes_nothing_forward_and_it_is_told() {
    // Longer than one leads without a renewal.
    const SLOW: &str =
        "{version: v2, steps: [{weight: 10, hold: 12s}, {weight: 100, hold: 1s}], guard: {minRequests: 5}}";
    let mut group = Group::start(1, SLOW).await;
    assert_eq!(group.leader().await, 0);
    group.deny("patch", "leases");
    let replica = &group.replicas[0];
    assert_eq!(replica.ask("start").await.0, 200);
    let traffic = Traffic::start(replica.process.web);
    replica.tells(&["to patch leases in namespace serinus (403", "bind the Role of deploy/base"]).await;
    replica.waits_for_the_leader().await;
    assert_eq!(replica.weight().await, 10.0);
    group.allow("patch", "leases");
    group.deny("watch", "leases");
    group.fleet.cluster.api.cut_watches();
    replica.tells(&["to watch leases in namespace serinus (403"]).await;
    group.allow("watch", "leases");
    eventually("it goes on", async || (replica.phase().await == "succeeded").then_some(())).await;
    replica.is_silent_about("leases").await;
    drop(traffic);
    // One that may not take its Lease away ends all the same, and the Lease runs out.
    group.deny("delete", "leases");
    let replica = group.replicas.remove(0);
    replica.process.signal("TERM");
    assert!(replica.process.end(LONG).0.success());
    let left = group.fleet.cluster.api.all("leases", "serinus");
    let names = left.iter().map(|lease| lease["metadata"]["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["serinus-state", "serinus-state-serinus-0"]);
}

impl Replica {
    async fn waits_for_the_leader(&self) {
        eventually("it waits for one that leads", async || {
            let reason = self.route().await["rollout"]["reason"].as_str()?.to_owned();
            (reason == "it waits for the replica that takes rollouts forward").then_some(())
        })
        .await;
    }
}
