//! Watching a cluster, against an API server that misbehaves (semantics §1, contract §2 `discovery.kubernetes`).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use serinus::kubernetes::{PERMISSIONS, Patience, WatchEvent};
use serinus::model::{ClusterChange, ClusterKind, ServiceKey};

use crate::kubernetes_events::{Posting, deed};
use crate::support::apiserver::{ApiServer, USER};
use crate::support::cluster::{Cluster, loopback_address};
use crate::support::eventually;
use crate::support::watching::{QUICK, Watching};

const NGINX: &str = "web/nginx-svc";

/// The cluster of nginx-canary: 6 pods and 1.
async fn nginx() -> Cluster {
    let mut cluster = Cluster::new(ApiServer::start().await, loopback_address);
    cluster.load_fixture("nginx-canary.yaml");
    cluster
}

fn slice(namespace: &str, name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service},
        },
        "endpoints": endpoints, "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    })
}

fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

fn pod(namespace: &str, name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"version": version}},
        "spec": {"containers": []},
    })
}

#[tokio::test]
async fn s1_1_services_slices_and_pods_are_listed_whole() {
    let cluster = nginx().await;
    cluster.api.apply(service("web", "other"));
    cluster.api.apply(slice("web", "other-1", "other", &["10.9.9.9"]));
    let watching = Watching::start(&cluster.api, &[NGINX]).await;
    let view = watching.settled(&cluster.api, &["web"]).await;

    let expected: Vec<ServiceKey> = vec![NGINX.parse().unwrap()];
    assert_eq!(view.services.keys().cloned().collect::<Vec<_>>(), expected);
    let old = cluster.pods("web/nginx-dm");
    let new = cluster.pods("web/nginx-v2");
    let mut addresses: Vec<_> = old.iter().chain(&new).map(|pod| pod.ip.to_string()).collect();
    addresses.sort();
    assert_eq!((view.addresses(), addresses.len()), (addresses, 7));
    for made in old.iter().chain(&new) {
        let pod = view.pods.values().find(|pod| pod.uid.as_ref() == made.uid).unwrap();
        assert_eq!(*pod.labels, made.labels);
        let target = view.slices.values().flat_map(|s| &s.endpoints).find(|e| e.address == made.ip).unwrap();
        let target = target.target.as_ref().unwrap();
        assert_eq!((&target.pod, target.uid.as_deref()), (&pod.key, Some(made.uid.as_str())));
    }
    assert_eq!(view.told.len(), 3, "three lists and nothing else: {:?}", view.told);
}

#[tokio::test]
async fn s1_1_a_change_is_told_as_it_happens() {
    let api = ApiServer::start().await;
    api.apply(service("web", "shop"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;

    api.apply(slice("web", "shop-1", "shop", &["10.0.0.1"]));
    watching.until("an added slice", |view| view.addresses() == ["10.0.0.1"]).await;
    api.apply(slice("web", "shop-1", "shop", &["10.0.0.2"]));
    watching.until("a changed slice", |view| view.addresses() == ["10.0.0.2"]).await;
    api.delete("endpointslices", "web", "shop-1");
    watching.until("a deleted slice", |view| view.slices.is_empty()).await;

    api.apply(pod("web", "a", "v1"));
    watching.until("an added pod", |view| view.pod_names() == ["a"]).await;
    api.apply(pod("web", "a", "v2"));
    watching.until("a changed pod", |v| v.pods.values().all(|p| p.labels["version"] == "v2")).await;
    api.delete("pods", "web", "a");
    watching.until("a deleted pod", |view| view.pods.is_empty()).await;

    api.edit("services", "web", "shop", |service| service["spec"]["ports"][0]["port"] = 81.into());
    watching.until("a changed Service", |v| v.services.values().all(|s| s.ports[0].port == 81)).await;
    api.delete("services", "web", "shop");
    let view = watching.until("a deleted Service", |view| view.services.is_empty()).await;
    assert_eq!(view.lists.len(), 3, "nothing was listed twice");
}

#[tokio::test]
async fn s2_2_a_pods_deletion_timestamp_is_told_before_its_slice_says_so() {
    let mut cluster = nginx().await;
    let watching = Watching::start(&cluster.api, &[NGINX]).await;
    watching.settled(&cluster.api, &["web"]).await;
    let leaving = cluster.pods("web/nginx-v2").remove(0);
    cluster.mark_deleted(&format!("web/{}", leaving.name));
    let view = watching.until("a leaving pod", |view| view.pods.values().any(|pod| pod.deleting)).await;
    assert!(view.slices.values().flat_map(|s| &s.endpoints).all(|e| !e.conditions.terminating));
    cluster.publish("web");
    watching
        .until("a terminating endpoint", |view| {
            let endpoints = view.slices.values().flat_map(|s| &s.endpoints);
            endpoints.filter(|e| e.conditions.terminating && e.conditions.serving).count() == 1
        })
        .await;
}

#[tokio::test]
async fn a_change_that_is_none_for_routing_is_not_told() {
    let api = ApiServer::start().await;
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    let before = watching.settled(&api, &["web"]).await;
    api.edit("pods", "web", "a", |pod| pod["metadata"]["annotations"] = json!({"checked": "now"}));
    api.apply(pod("web", "b", "v1"));
    let view = watching.until("the next change", |view| view.pods.len() == 2).await;
    assert_eq!(view.told.len(), before.told.len() + 1, "{:?}", view.told);
    assert_eq!(watching.metric("serinus_watch_events_total{kind=\"pods\"}"), Some(3));
}

#[tokio::test]
async fn pods_are_asked_for_by_their_metadata_only() {
    let cluster = nginx().await;
    let watching = Watching::start(&cluster.api, &[NGINX]).await;
    watching.settled(&cluster.api, &["web"]).await;
    let requests = cluster.api.requests();
    let metadata_only = |plural: &str| {
        requests.iter().filter(|r| r.resource == plural).map(|r| r.metadata_only).collect::<Vec<_>>()
    };
    assert_eq!(metadata_only("pods"), [true, true]);
    assert_eq!(metadata_only("services"), [false, false]);
}

#[tokio::test]
async fn only_what_the_config_names_is_asked_for() {
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &["web/shop", "web/cart", "far/one"]).await;
    watching.settled(&api, &["web", "far"]).await;
    let asked: BTreeSet<_> = api
        .requests()
        .into_iter()
        .map(|r| (r.verb, r.resource, r.namespace.unwrap(), r.labels.or(r.fields).unwrap_or_default()))
        .collect();
    let mut expected = BTreeSet::new();
    for verb in ["list", "watch"] {
        let mut add = |plural, namespace: &str, selector: &str| {
            expected.insert((verb, plural, namespace.to_owned(), selector.to_owned()));
        };
        add("services", "web", "");
        add("services", "far", "metadata.name=one");
        add("endpointslices", "web", "kubernetes.io/service-name in (cart,shop)");
        add("endpointslices", "far", "kubernetes.io/service-name=one");
        add("pods", "web", "");
        add("pods", "far", "");
    }
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn the_requests_are_those_that_the_permissions_name() {
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &[NGINX]).await;
    watching.settled(&api, &["web"]).await;
    api.compact_with_status();
    api.cut_watches();
    eventually("a relist", || (api.count("list", "pods") > 1).then_some(())).await;
    let posting = Posting::start(&api, QUICK).await;
    posting.tell(deed(1)).await;
    posting.posts(1).await;
    let made: BTreeSet<_> = api.requests().iter().map(|r| (r.group, r.resource, r.verb)).collect();
    let allowed: BTreeSet<_> = PERMISSIONS
        .iter()
        .flat_map(|p| p.verbs.iter().map(|verb| (p.api_group, p.resource, *verb)))
        .collect();
    assert_eq!(made, allowed);
}

/// Lists anew after `lose`, with an object deleted, one added and one changed in between.
async fn relists_without_an_empty_moment(lose: impl AsyncFnOnce(&mut ApiServer)) {
    let mut api = ApiServer::start().await;
    api.apply(service("web", "shop"));
    for name in ["a", "b", "c"] {
        api.apply(pod("web", name, "v1"));
    }
    api.apply(slice("web", "shop-1", "shop", &["10.0.0.1", "10.0.0.2"]));
    api.apply(slice("web", "shop-2", "shop", &["10.0.0.3"]));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;

    lose(&mut api).await;
    let view = watching
        .until("what happened in between", |view| {
            view.pod_names() == ["b", "c", "d"] && view.addresses() == ["10.0.0.1", "10.0.0.2", "10.0.0.4"]
        })
        .await;
    assert!(
        view.lists.iter().filter(|(kind, _)| *kind == ClusterKind::Pods).count() > 1,
        "it was listed anew"
    );
    let fewest: Vec<_> = view.fewest.values().copied().collect();
    assert_eq!(fewest, [1, 3, 3], "there was an empty moment: {:?}", view.told);
    watching.settled(&api, &["web"]).await;
    assert!(watching.now().troubles.is_empty());
}

fn in_between(api: &ApiServer) {
    api.delete("pods", "web", "a");
    api.apply(pod("web", "d", "v1"));
    api.delete("endpointslices", "web", "shop-2");
    api.apply(slice("web", "shop-3", "shop", &["10.0.0.4"]));
}

#[tokio::test]
async fn gone_as_an_event_on_resuming_lists_anew() {
    relists_without_an_empty_moment(async |api| {
        api.stop().await;
        in_between(api);
        api.compact();
        api.restart_on_same_port().await;
    })
    .await;
}

#[tokio::test]
async fn gone_as_a_status_on_resuming_lists_anew() {
    relists_without_an_empty_moment(async |api| {
        api.stop().await;
        in_between(api);
        api.compact_with_status();
        api.restart_on_same_port().await;
    })
    .await;
}

#[tokio::test]
async fn gone_in_the_middle_of_a_watch_lists_anew_and_is_no_trouble() {
    let api = ApiServer::start().await;
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    api.expire_watches();
    let view = watching.until("another list of each", |view| view.lists.len() == 6).await;
    assert!(!view.told.iter().any(|event| matches!(event, WatchEvent::Trouble { .. })));
    assert_eq!(view.fewest[&ClusterKind::Pods], 1);
}

#[tokio::test]
async fn a_line_that_is_no_event_lists_anew() {
    let api = ApiServer::start().await;
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    for line in
        ["{\"type\":\"MODIFIED\",\"object\":\"text\"}", "{\"type\":\"NEW\",\"object\":{}}", "not json"]
    {
        let lists = api.count("list", "pods");
        api.send_line("pods", line);
        eventually("another list", || (api.count("list", "pods") > lists).then_some(())).await;
        watching.settled(&api, &["web"]).await;
    }
    api.apply(pod("web", "b", "v1"));
    watching.until("the next change", |view| view.pod_names() == ["a", "b"]).await;
}

#[tokio::test]
async fn a_cut_watch_goes_on_where_it_was_without_a_list() {
    let api = ApiServer::start().await;
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    for round in 1..=5 {
        api.cut_watches();
        eventually("the watch again", || (api.count("watch", "pods") > round).then_some(())).await;
        let name = format!("p{round}");
        api.apply(pod("web", &name, "v1"));
        watching.until("a change after the cut", |view| view.pod_names().contains(&name)).await;
        watching.settled(&api, &["web"]).await;
    }
    assert_eq!(api.count("list", "pods"), 1);
    let view = watching.now();
    assert_eq!((view.lists.len(), view.pods.len()), (3, 6));
    assert!(view.troubles.is_empty());
}

#[tokio::test]
async fn a_bookmark_moves_the_place_from_which_a_watch_resumes() {
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    // Moves the version on without an event for these watches.
    let far = api.apply(pod("far", "x", "v1"));
    api.bookmark();
    // Only who has heard the bookmark can resume from here.
    let version = far["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let resumed = eventually("a watch from the bookmark", || {
        api.cut_watches();
        api.requests().into_iter().find(|seen| seen.verb == "watch" && seen.version == version)
    });
    resumed.await;
    assert_eq!(api.count("list", "pods"), 1);
}

#[tokio::test]
async fn an_api_server_that_is_gone_changes_nothing_and_is_found_when_it_is_back() {
    let mut cluster = nginx().await;
    let watching = Watching::start(&cluster.api, &[NGINX]).await;
    let before = watching.settled(&cluster.api, &["web"]).await;

    cluster.api.stop().await;
    let gone = watching.until("trouble with each watch", |view| view.troubles.len() == 3).await;
    assert_eq!(watching.connected(), [0, 0, 0]);
    for problem in gone.troubles.values() {
        assert!(problem.message.contains("refuses connections"), "{problem}");
        assert!(problem.message.contains(&cluster.api.url()), "{problem}");
    }
    let changes =
        |events: &[WatchEvent]| events.iter().filter(|e| matches!(e, WatchEvent::Change(_))).count();
    assert_eq!(changes(&gone.told), changes(&before.told), "nothing is told while it is gone");
    assert_eq!(gone.addresses(), before.addresses());

    cluster.scale("web/nginx-v2", 3);
    cluster.api.restart_on_same_port().await;
    let back = watching.until("what happened meanwhile", |view| view.addresses().len() == 9).await;
    assert!(back.fewest.values().all(|least| *least >= 1));
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
    watching.settled(&cluster.api, &["web"]).await;
    let troubles = watching.now().told.iter().filter(|e| matches!(e, WatchEvent::Trouble { .. })).count();
    assert!(troubles <= 6, "told when it changes, not for each attempt: {troubles}");
}

#[tokio::test]
async fn an_api_server_that_is_down_at_start_is_waited_for() {
    let mut cluster = nginx().await;
    cluster.api.stop().await;
    let watching = Watching::start(&cluster.api, &[NGINX]).await;
    let view = watching.until("trouble", |view| view.troubles.len() == 3).await;
    assert!(view.lists.is_empty());
    cluster.api.restart_on_same_port().await;
    let view = watching.settled(&cluster.api, &["web"]).await;
    assert_eq!(view.addresses().len(), 7);
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
}

#[tokio::test]
async fn a_half_open_watch_is_found_by_its_silence() {
    let api = ApiServer::start().await;
    api.bookmark_every(Duration::from_millis(20));
    let patience =
        Patience { answer: Duration::from_millis(300), silence: Duration::from_millis(300), ..QUICK };
    let watching = Watching::start_with(api.kubeconfig(), &["web/shop"], patience).await;
    watching.settled(&api, &["web"]).await;
    let watches = api.count("watch", "pods");

    api.pause();
    let view = watching.until("trouble with each watch", |view| view.troubles.len() == 3).await;
    for problem in view.troubles.values() {
        assert!(problem.message.contains("does not answer"), "{problem}");
    }
    api.resume();
    api.apply(pod("web", "a", "v1"));
    watching.until("what happened meanwhile", |view| view.pod_names() == ["a"]).await;
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
    assert!(api.count("watch", "pods") > watches);
}

#[tokio::test]
async fn an_api_server_that_never_answers_is_told() {
    let api = ApiServer::start().await;
    api.pause();
    let patience = Patience { answer: Duration::from_millis(100), ..QUICK };
    let watching = Watching::start_with(api.kubeconfig(), &["web/shop"], patience).await;
    let view = watching.until("trouble with each list", |view| view.troubles.len() == 3).await;
    assert!(view.troubles.values().all(|problem| problem.message.contains("does not answer")), "{view:?}");
    api.resume();
    watching.until("no trouble any more", |view| view.troubles.is_empty() && view.knows("web")).await;
}

#[tokio::test]
async fn a_quiet_watch_with_bookmarks_is_left_alone() {
    let api = ApiServer::start().await;
    api.bookmark_every(Duration::from_millis(20));
    let patience = Patience { silence: Duration::from_millis(500), ..QUICK };
    let watching = Watching::start_with(api.kubeconfig(), &["web/shop"], patience).await;
    watching.settled(&api, &["web"]).await;
    // Time itself is what is tested: three times the silence that would end a watch.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(api.count("watch", "services"), 1);
}

#[tokio::test]
async fn an_object_that_does_not_decode_costs_only_itself() {
    let api = ApiServer::start().await;
    for name in ["good", "bad"] {
        api.apply(pod("web", name, "v1"));
        api.apply(slice("web", name, "shop", &[if name == "good" { "10.0.0.1" } else { "10.0.0.2" }]));
    }
    api.apply(service("web", "shop"));
    api.send_garbage_object("pods", "web", "worse", &json!({"metadata": {"labels": {"version": 2}}}));
    let watching = Watching::start(&api, &["web/shop"]).await;
    // In a list, and never known before: it is left out.
    let view = watching.until("a problem", |view| view.object_problems().len() == 1).await;
    assert_eq!(view.pod_names(), ["bad", "good"]);
    assert!(view.object_problems()[0].contains("pods web/worse does not decode"), "{view:?}");
    watching.settled(&api, &["web"]).await;

    // In an event: it stays as it was.
    api.send_garbage_object("pods", "web", "bad", &json!({"metadata": {"labels": ["v2"]}}));
    api.send_garbage_object("endpointslices", "web", "bad", &json!({"endpoints": [{"addresses": 3}]}));
    api.send_garbage_object("services", "web", "shop", &json!({"spec": {"ports": "none"}}));
    let view = watching.until("more problems", |view| view.object_problems().len() == 4).await;
    assert_eq!(view.addresses(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(view.services.values().next().unwrap().ports.len(), 1);
    let slices = &view.objects[&("web".into(), ClusterKind::EndpointSlices)];
    assert_eq!(slices[0].service, Some("web/shop".parse().unwrap()));

    // In another list: still. And the watches go on.
    api.expire_watches();
    api.apply(pod("web", "next", "v1"));
    watching.until("another list of each", |view| view.lists.len() == 6).await;
    let view = watching.until("the next change", |view| view.pod_names() == ["bad", "good", "next"]).await;
    assert_eq!(view.addresses(), ["10.0.0.1", "10.0.0.2"]);

    // Repaired or deleted: solved.
    api.delete("pods", "web", "worse");
    api.apply(pod("web", "bad", "v3"));
    api.apply(slice("web", "bad", "shop", &["10.0.0.3"]));
    api.apply(service("web", "shop"));
    let view = watching.until("no problems", |view| view.object_problems().is_empty()).await;
    watching.until("the repaired slice", |view| view.addresses() == ["10.0.0.1", "10.0.0.3"]).await;
    assert_eq!(view.fewest.values().copied().collect::<Vec<_>>(), [1, 2, 2]);
}

#[tokio::test]
async fn s1_4_an_fqdn_slice_is_a_problem_of_its_service() {
    let api = ApiServer::start().await;
    let mut fqdn = slice("web", "shop-1", "shop", &["shop.example.com"]);
    fqdn["addressType"] = "FQDN".into();
    api.apply(fqdn);
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("a problem", |view| view.object_problems().len() == 1).await;
    assert!(view.addresses().is_empty());
    let problem = &view.objects[&("web".into(), ClusterKind::EndpointSlices)][0];
    assert_eq!(problem.service, Some("web/shop".parse().unwrap()));
    api.delete("endpointslices", "web", "shop-1");
    watching.until("no problem", |view| view.object_problems().is_empty()).await;
}

#[tokio::test]
async fn problems_of_objects_are_bounded() {
    let api = ApiServer::start().await;
    for n in 0..50 {
        let labels = json!({"metadata": {"labels": {"n": n}}});
        api.send_garbage_object("pods", "web", &format!("bad-{n:02}"), &labels);
    }
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("problems", |view| !view.object_problems().is_empty()).await;
    assert_eq!(view.object_problems().len(), 33);
    assert!(view.object_problems()[32].contains("18 more pods of namespace web"), "{view:?}");
}

#[tokio::test]
async fn forbidden_says_which_permission_is_missing() {
    let api = ApiServer::start().await;
    api.deny("list", "pods");
    api.deny("watch", "endpointslices");
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("trouble", |view| view.troubles.len() == 2).await;
    let check = |kind, message: &str, remedy: &str| {
        let problem = &view.troubles[&("web".into(), kind)];
        assert!(problem.message.contains(message) && problem.message.contains(USER), "{problem}");
        assert!(problem.remedy.contains(remedy) && problem.remedy.contains("deploy/"), "{problem}");
    };
    check(ClusterKind::Pods, "list pods in namespace web (403", "kubectl auth can-i list pods -n web --as=");
    check(
        ClusterKind::EndpointSlices,
        "watch endpointslices in namespace web (403, API group \"discovery.k8s.io\")",
        "kubectl auth can-i watch endpointslices.discovery.k8s.io -n web --as=",
    );
    eventually("several attempts", || (api.count("list", "pods") > 5).then_some(())).await;
    let told = watching.now().told;
    assert_eq!(told.iter().filter(|e| matches!(e, WatchEvent::Trouble { .. })).count(), 2, "{told:?}");
    assert_eq!(watching.connected(), [1, 0, 0]);

    api.allow("list", "pods");
    api.allow("watch", "endpointslices");
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
    watching.settled(&api, &["web"]).await;
}

#[tokio::test]
async fn credentials_that_are_not_accepted_are_told() {
    let api = ApiServer::start().await;
    api.unauthorized(true);
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("trouble", |view| view.troubles.len() == 3).await;
    for problem in view.troubles.values() {
        assert!(problem.message.contains("401") && problem.remedy.contains("kubeconfig"), "{problem}");
    }
    api.unauthorized(false);
    watching.until("no trouble any more", |view| view.troubles.is_empty() && view.knows("web")).await;
}

#[tokio::test]
async fn tls_that_fails_is_told() {
    let api = ApiServer::start().await;
    let url = api.url().replace("http:", "https:");
    let watching = Watching::start_with(api.kubeconfig_to(&url), &["web/shop"], QUICK).await;
    let view = watching.until("trouble", |view| view.troubles.len() == 3).await;
    for problem in view.troubles.values() {
        assert!(problem.message.starts_with("no TLS") && problem.remedy.contains("authority"), "{problem}");
    }
}

#[tokio::test]
async fn answers_that_are_none_of_an_api_server_are_told() {
    let api = ApiServer::start().await;
    // 404 on everything, as a wrong path in the URL gives.
    let kubeconfig = api.kubeconfig_to(&format!("{}/wrong", api.url()));
    let watching = Watching::start_with(kubeconfig, &["web/shop"], QUICK).await;
    let view = watching.until("trouble", |view| view.troubles.len() == 3).await;
    for problem in view.troubles.values() {
        assert!(problem.message.contains("404") && problem.remedy.contains("URL"), "{problem}");
    }
}

#[tokio::test]
async fn listing_anew_without_end_is_trouble() {
    let api = ApiServer::start().await;
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    api.always_gone(true);
    api.cut_watches();
    let view = watching.until("trouble", |view| view.troubles.len() == 3).await;
    assert!(view.troubles.values().all(|problem| problem.message.contains("cannot be used")), "{view:?}");
    assert_eq!(view.pod_names(), ["a"]);
    api.always_gone(false);
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
}

#[tokio::test]
async fn another_service_of_a_namespace_is_added_without_an_empty_moment() {
    let api = ApiServer::start().await;
    api.apply(service("web", "not-wanted"));
    for name in ["shop", "cart"] {
        api.apply(service("web", name));
        api.apply(slice("web", name, name, &[if name == "shop" { "10.0.0.1" } else { "10.0.0.2" }]));
        api.apply(pod("web", name, "v1"));
    }
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    watching.want(&["web/shop", "web/cart"]);
    let view = watching
        .until("both", |view| view.addresses() == ["10.0.0.1", "10.0.0.2"] && view.services.len() == 2)
        .await;
    assert_eq!(view.fewest.values().copied().collect::<Vec<_>>(), [1, 1, 2]);
    watching.settled(&api, &["web"]).await;
    assert_eq!(api.count("list", "pods"), 1, "pods are not chosen by Service");
    watching.want(&["web/cart"]);
    let view =
        watching.until("one", |view| view.addresses() == ["10.0.0.2"] && view.services.len() == 1).await;
    assert_eq!(view.fewest.values().copied().collect::<Vec<_>>(), [1, 1, 2]);
}

#[tokio::test]
async fn namespaces_are_watched_and_forgotten_as_the_config_names_them() {
    let api = ApiServer::start().await;
    for namespace in ["web", "far"] {
        api.apply(service(namespace, "shop"));
        api.apply(pod(namespace, "a", "v1"));
    }
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    assert!(!watching.now().knows("far"));

    watching.want(&["web/shop", "far/shop"]);
    watching.settled(&api, &["web", "far"]).await;
    assert_eq!(api.count("list", "services"), 2, "the first namespace is left alone");

    watching.want(&["far/shop"]);
    let view = watching.until("one namespace", |view| !view.knows("web")).await;
    assert!(view.services.keys().all(|key| key.namespace.as_ref() == "far") && view.pods.len() == 1);
    assert!(view.told.contains(&WatchEvent::Change(ClusterChange::NamespaceForgotten("web".into()))));
    eventually("its watches to end", || (api.open_watches("pods") == 1).then_some(())).await;
    assert_eq!(watching.connected(), [1, 1, 1]);
    let told = view.told.len();
    api.apply(pod("web", "b", "v1"));
    api.apply(pod("far", "b", "v1"));
    let view = watching.until("a change of the other", |view| view.pods.len() == 2).await;
    assert_eq!(view.told.len(), told + 1);
}

#[tokio::test]
async fn what_is_wanted_may_change_while_the_api_server_is_gone() {
    let mut api = ApiServer::start().await;
    for name in ["shop", "cart"] {
        api.apply(service("web", name));
        api.apply(slice("web", name, name, &[if name == "shop" { "10.0.0.1" } else { "10.0.0.2" }]));
    }
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    api.stop().await;
    watching.until("trouble", |view| view.troubles.len() == 3).await;
    watching.want(&["web/shop", "web/cart", "far/x"]);
    watching.until("more trouble", |view| view.troubles.len() == 6).await;
    assert_eq!(watching.now().addresses(), ["10.0.0.1"]);
    api.restart_on_same_port().await;
    watching.until("all", |view| view.addresses() == ["10.0.0.1", "10.0.0.2"] && view.knows("far")).await;
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;
}

#[tokio::test]
async fn a_namespace_forgotten_in_trouble_does_not_hold_the_gauges_down() {
    let mut api = ApiServer::start().await;
    let watching = Watching::start(&api, &["web/shop", "far/shop"]).await;
    watching.settled(&api, &["web", "far"]).await;
    api.stop().await;
    watching.until("trouble", |view| view.troubles.len() == 6).await;
    watching.want(&["web/shop"]);
    watching.until("one namespace", |view| view.troubles.len() == 3).await;
    api.restart_on_same_port().await;
    watching.settled(&api, &["web"]).await;
}

#[tokio::test]
async fn a_slice_that_goes_to_another_service_leaves_the_first() {
    let api = ApiServer::start().await;
    api.apply(slice("web", "s", "shop", &["10.0.0.1"]));
    let watching = Watching::start(&api, &["web/shop", "web/cart"]).await;
    watching.settled(&api, &["web"]).await;
    api.apply(slice("web", "s", "cart", &["10.0.0.1"]));
    let moved = |view: &crate::support::watching::View| {
        view.slices.values().all(|slice| slice.service.name.as_ref() == "cart")
    };
    let view = watching.until("the other Service", moved).await;
    let gone = ClusterChange::SliceDeleted("web/shop".parse().unwrap(), "s".into());
    assert!(view.told.contains(&WatchEvent::Change(gone)));
    api.apply(slice("web", "s", "neither", &["10.0.0.1"]));
    watching.until("no slice", |view| view.slices.is_empty()).await;
}

#[tokio::test]
async fn long_lists_come_in_pages_and_are_told_as_one() {
    let api = ApiServer::start().await;
    for n in 0..1200 {
        api.apply(pod("web", &format!("p{n}"), "v1"));
    }
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("all pods", |view| view.pods.len() == 1200).await;
    assert_eq!(api.count("list", "pods"), 3);
    assert_eq!(view.fewest[&ClusterKind::Pods], 1200);
}

#[tokio::test]
async fn a_slow_api_server_is_slow_and_nothing_else() {
    let api = ApiServer::start().await;
    api.slow(Duration::from_millis(30));
    api.apply(pod("web", "a", "v1"));
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    api.apply(pod("web", "b", "v1"));
    let view = watching.until("a slow event", |view| view.pods.len() == 2).await;
    assert_eq!((view.lists.len(), view.troubles.len()), (3, 0));
}

#[tokio::test]
async fn a_storm_of_events_ends_in_the_right_state() {
    // The channel of these tests holds a single event.
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    for n in 0..2000 {
        api.apply(pod("web", &format!("p{}", n % 100), &format!("v{n}")));
    }
    watching
        .until("the last word on each", |view| {
            let last = view.pods.values().filter(|pod| pod.labels["version"].len() == 5);
            view.pods.len() == 100
                && last.count() == 100
                && view.pods.values().all(|p| p.labels["version"].as_str() >= "v1900")
        })
        .await;
    assert_eq!(watching.now().lists.len(), 3);
}

#[tokio::test]
async fn it_ends_when_nothing_is_wanted_any_more_or_nobody_listens() {
    let api = ApiServer::start().await;
    let mut watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    drop(watching.wanted.take());
    eventually("the end", || watching.task.is_finished().then_some(())).await;
    eventually("closed watches", || (api.open_watches("pods") == 0).then_some(())).await;
    assert_eq!(watching.connected(), [0, 0, 0]);

    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    watching.reader.abort();
    eventually("the end", || watching.task.is_finished().then_some(())).await;
}

#[tokio::test]
async fn nothing_wanted_is_nothing_watched() {
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &[]).await;
    eventually("gauges", || (watching.connected() == [1, 1, 1]).then_some(())).await;
    assert_eq!(api.requests(), []);
    watching.want(&["web/shop"]);
    watching.settled(&api, &["web"]).await;
}
