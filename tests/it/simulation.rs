//! The test support itself: what it says must be what a cluster says, or the tests that rest on it mean little.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::apiserver::ApiServer;
use crate::support::cluster::{Cluster, loopback_address};

async fn cluster(fixture: &str) -> Cluster {
    let mut cluster = Cluster::new(ApiServer::start().await, loopback_address);
    cluster.load_fixture(fixture);
    cluster
}

fn endpoints(slices: &[Value]) -> Vec<Value> {
    slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default()).collect()
}

/// A request of one object; its status and body.
async fn request(api: &ApiServer, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
    let (url, body) = (format!("{}{path}", api.url()), body.to_string());
    let request = http::Request::builder().method(method).uri(url).header("Content-Type", kind);
    let request = request.body(body).unwrap();
    let send = move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.run(request).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    };
    tokio::task::spawn_blocking(send).await.unwrap()
}

#[tokio::test]
async fn every_fixture_has_its_pods_and_slices() {
    for (fixture, namespace, service, pods) in [
        ("nginx-canary.yaml", "web", "nginx-svc", 7),
        ("spring-boot.yaml", "default", "spring-boot-kubernetes", 2),
        ("testpage.yaml", "default", "testpage", 3),
        ("wordpress.yaml", "kube-example", "wordpress", 4),
    ] {
        let cluster = cluster(fixture).await;
        let slices = cluster.api.all("endpointslices", namespace);
        assert_eq!(endpoints(&slices).len(), pods, "{fixture}");
        for slice in &slices {
            assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], service);
        }
    }
}

#[tokio::test]
async fn a_named_target_port_is_the_pods_number() {
    let cluster = cluster("wordpress.yaml").await;
    let slice = &cluster.api.all("endpointslices", "kube-example")[0];
    assert_eq!(slice["ports"], json!([{"name": "web", "port": 80, "protocol": "TCP"}]));
}

#[tokio::test]
async fn pods_come_and_go_in_the_order_of_a_cluster() {
    let mut cluster = cluster("testpage.yaml").await;
    let pods = cluster.pods("default/testpage");
    let (first, path) = (&pods[0], format!("default/{}", pods[0].name));
    let conditions = |cluster: &Cluster| {
        let all = endpoints(&cluster.api.all("endpointslices", "default"));
        let mine = all.into_iter().find(|endpoint| endpoint["targetRef"]["uid"] == first.uid.as_str());
        mine.map(|endpoint| endpoint["conditions"].clone())
    };
    let now = |ready, serving, terminating| {
        Some(json!({"ready": ready, "serving": serving, "terminating": terminating}))
    };
    assert_eq!(conditions(&cluster), now(true, true, false));
    cluster.set_ready(&path, false);
    assert_eq!(conditions(&cluster), now(false, false, false));
    cluster.set_ready(&path, true);
    cluster.begin_delete(&path);
    assert_eq!(conditions(&cluster), now(false, true, true));
    assert!(
        !cluster.api.get("pods", "default", &first.name).unwrap()["metadata"]["deletionTimestamp"].is_null()
    );
    cluster.remove(&path);
    assert_eq!(conditions(&cluster), None);
    cluster.scale("default/testpage", 0);
    let empty = cluster.api.all("endpointslices", "default");
    assert_eq!((empty.len(), &empty[0]["endpoints"]), (1, &Value::Null));
    cluster.scale("default/testpage", 1);
    let slices = cluster.api.all("endpointslices", "default");
    assert_eq!((slices.len(), endpoints(&slices).len()), (1, 1));
}

#[tokio::test]
async fn slices_hold_a_hundred_and_endpoints_stay_where_they_are() {
    let mut cluster = cluster("testpage.yaml").await;
    cluster.scale("default/testpage", 250);
    let slices = cluster.api.all("endpointslices", "default");
    let mut sizes: Vec<_> = slices.iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    let place = |slices: &[Value]| -> BTreeSet<(String, String)> {
        let of = |slice: &Value| {
            let name = slice["metadata"]["name"].to_string();
            let uids =
                slice["endpoints"].as_array().unwrap().iter().map(|e| e["targetRef"]["uid"].to_string());
            uids.map(|uid| (name.clone(), uid)).collect::<Vec<_>>()
        };
        slices.iter().flat_map(of).collect()
    };
    let before = place(&slices);
    let gone = cluster.pods("default/testpage")[5].name.clone();
    cluster.remove(&format!("default/{gone}"));
    let after = place(&cluster.api.all("endpointslices", "default"));
    assert_eq!((after.len(), after.is_subset(&before)), (249, true));
}

#[tokio::test]
async fn versions_are_told_apart_by_labels() {
    let mut cluster = cluster("testpage.yaml").await;
    let old = cluster.pods("default/testpage")[0].labels["pod-template-hash"].clone();
    let new = cluster.surge("default/testpage", 1, |template| {
        template["spec"]["containers"][0]["image"] = "dean/testpage:0.9".into();
    });
    let hashes: Vec<_> =
        cluster.pods("default/testpage").into_iter().map(|p| p.labels["pod-template-hash"].clone()).collect();
    assert_eq!(hashes, [&old, &old, &old, &new].map(Clone::clone));
    cluster.create_version("default/testpage", "testpage-v2", &[("version", "v2")], 2);
    let labelled = cluster.pods("default/testpage-v2");
    assert!(labelled.len() == 2 && labelled.iter().all(|pod| pod.labels["version"] == "v2"));
    assert_eq!(endpoints(&cluster.api.all("endpointslices", "default")).len(), 6);
}

#[tokio::test]
async fn objects_can_be_written_and_conflicts_are_refused() {
    let api = ApiServer::start().await;
    api.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: web}}\n---\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: far}}");
    assert!(api.get("namespaces", "", "far").is_some());
    let (all, one) = ("/api/v1/namespaces/web/configmaps", "/api/v1/namespaces/web/configmaps/state");
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "state"}, "data": {"a": "1"}});
    assert_eq!(request(&api, "PUT", one, json, &object).await.0, 404);
    let (code, made) = request(&api, "POST", all, json, &object).await;
    assert_eq!(code, 201);
    assert_eq!(request(&api, "POST", all, json, &object).await.1["reason"], "AlreadyExists");
    let mut next = made.clone();
    next["data"]["a"] = "2".into();
    assert_eq!(request(&api, "PUT", one, json, &next).await.0, 200);
    let (code, refused) = request(&api, "PUT", one, json, &made).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    let patch = json!({"data": {"a": null, "b": "3"}});
    assert_eq!(request(&api, "PATCH", one, merge, &patch).await.1["data"], json!({"b": "3"}));
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}});
    assert_eq!(request(&api, "PATCH", one, merge, &stale).await.0, 409);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/web/leases/serinus";
    let object =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "serinus"}});
    assert_eq!(request(&api, "PATCH", lease, "application/apply-patch+yaml", &object).await.0, 201);
    assert_eq!(request(&api, "DELETE", one, json, &Value::Null).await.0, 200);
    assert_eq!(request(&api, "DELETE", one, json, &Value::Null).await.0, 404);
    assert_eq!(request(&api, "PUT", "/apis/none/v1/namespaces/web/things/x", json, &json!({})).await.0, 404);
}
