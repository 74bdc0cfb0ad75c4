//! What a change touches, and what a list replaces.

use proptest::prelude::*;

use super::*;
use crate::model::ClusterChange as Change;
use crate::state::samples::{any_change, backend, deleting, key, lists, pod, pod_key, service, slice, web};
use crate::state::{Desired, Resolved};

/// Two Services: `svc` with the pods a and b, `other` with b; both lists and names are known.
fn start() -> Cluster {
    let mut cluster = Cluster::default();
    let slices = vec![
        slice("s1", "svc", "=8080", "10.0.0.1 a, 10.0.0.2 b"),
        slice("s2", "other", "=8080", "10.0.0.2 b"),
    ];
    let changes = lists(
        vec![service("svc", "=80"), service("other", "=80")],
        slices,
        vec![pod("a", "version=v1"), pod("b", "version=v2")],
    );
    changes.into_iter().for_each(|change| drop(cluster.apply(change)));
    cluster
}

/// What was touched in a line: `services: other svc; spoken of: 10.0.0.1`.
fn line(touched: &Touched) -> String {
    let mut services: Vec<_> = touched.services.iter().map(|s| s.name.to_string()).collect();
    let mut spoken_of: Vec<_> = touched.spoken_of.iter().map(ToString::to_string).collect();
    services.sort();
    spoken_of.sort();
    let mut parts = Vec::new();
    if touched.everything {
        parts.push("everything".to_owned());
    }
    if !services.is_empty() {
        parts.push(format!("services: {}", services.join(" ")));
    }
    if !spoken_of.is_empty() {
        parts.push(format!("spoken of: {}", spoken_of.join(" ")));
    }
    assert_eq!(parts.is_empty(), touched.is_empty());
    parts.join("; ")
}

#[track_caller]
fn check(change: Change, expected: &str) {
    assert_eq!(line(&start().apply(change)), expected);
}

#[test]
fn what_is_known_already_touches_nothing() {
    check(Change::PodApplied(pod("a", "version=v1")), "");
    check(Change::SliceApplied(slice("s2", "other", "=8080", "10.0.0.2 b")), "");
    let (key, service) = service("svc", "=80");
    check(Change::ServiceApplied(key, service), "");
    check(Change::PodDeleted(pod_key("nobody")), "");
    check(Change::SliceDeleted(crate::state::samples::key("svc"), "s9".into()), "");
    check(Change::ServiceDeleted(crate::state::samples::key("nobody")), "");
}

#[test]
fn a_pods_news_finds_its_services() {
    check(Change::PodApplied(pod("a", "version=v2")), "services: svc");
    check(Change::PodApplied(pod("b", "version=v1")), "services: other svc");
    check(Change::PodApplied(deleting(pod("b", "version=v2"))), "services: other svc");
    check(Change::PodDeleted(pod_key("b")), "services: other svc");
    check(Change::PodApplied(pod("stranger", "version=v2")), "");
}

#[test]
fn a_pods_news_finds_no_service_that_does_not_point_at_it_any_more() {
    let mut cluster = start();
    cluster.apply(Change::SliceApplied(slice("s1", "svc", "=8080", "10.0.0.1 a")));
    assert_eq!(line(&cluster.apply(Change::PodDeleted(pod_key("b")))), "services: other");
    cluster.apply(Change::SliceDeleted(key("other"), "s2".into()));
    assert_eq!(line(&cluster.apply(Change::PodApplied(pod("b", "version=v3")))), "");
}

#[test]
fn s2_2_only_endpoints_that_a_slice_says_something_new_of_are_spoken_of() {
    let of = |endpoints: &str| Change::SliceApplied(slice("s1", "svc", "=8080", endpoints));
    check(of("10.0.0.1 a, 10.0.0.2 b draining"), "services: svc; spoken of: 10.0.0.2");
    check(of("10.0.0.2 b, 10.0.0.1 a"), "services: svc");
    check(of("10.0.0.1 a"), "services: svc");
    check(of("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c"), "services: svc; spoken of: 10.0.0.3");
    check(of("10.0.0.1 successor, 10.0.0.2 b"), "services: svc; spoken of: 10.0.0.1");
    check(Change::SliceDeleted(key("svc"), "s1".into()), "services: svc");
}

#[test]
fn a_first_list_touches_everything_and_a_relist_only_what_differs() {
    let mut cluster = Cluster::default();
    for change in lists(vec![], vec![], vec![]) {
        assert!(!cluster.knows(&key("svc")));
        assert_eq!(line(&cluster.apply(change)), "everything");
    }
    assert!(cluster.knows(&key("svc")) && !cluster.knows(&ServiceKey::new("elsewhere", "svc")));
    for change in lists(vec![], vec![], vec![]) {
        assert_eq!(line(&cluster.apply(change)), "");
    }
    check(Change::Pods(web(), vec![pod("a", "version=v1")]), "services: other svc");
    check(Change::Pods(web(), vec![pod("a", "version=v2"), pod("b", "version=v2")]), "services: svc");
    check(Change::Slices(web(), vec![slice("s2", "other", "=8080", "10.0.0.2 b")]), "services: svc");
    check(Change::Services(web(), vec![service("svc", "=81"), service("other", "=80")]), "services: svc");
    check(Change::Services(web(), vec![service("svc", "=80")]), "services: other");
    check(Change::Pods("elsewhere".into(), vec![]), "everything");
}

#[test]
fn i7_a_relist_never_empties() {
    let mut cluster = start();
    let before = cluster.resolve(&backend("svc"));
    assert_eq!(before.endpoints.len(), 2);
    let relists = lists(
        vec![service("svc", "=80"), service("other", "=80")],
        vec![
            slice("s1", "svc", "=8080", "10.0.0.1 a, 10.0.0.2 b"),
            slice("s2", "other", "=8080", "10.0.0.2 b"),
        ],
        vec![pod("a", "version=v1"), pod("b", "version=v2")],
    );
    for change in relists {
        assert!(cluster.apply(change).is_empty());
        assert_eq!(cluster.resolve(&backend("svc")), before);
    }
}

#[test]
fn a_slice_that_moves_to_another_service_is_taken_from_the_first_by_a_list() {
    let mut cluster = start();
    let moved = Change::Slices(
        web(),
        vec![
            slice("s1", "other", "=8080", "10.0.0.1 a, 10.0.0.2 b"),
            slice("s2", "other", "=8080", "10.0.0.2 b"),
        ],
    );
    assert_eq!(line(&cluster.apply(moved)), "services: other svc; spoken of: 10.0.0.1 10.0.0.2");
    assert!(cluster.resolve(&backend("svc")).endpoints.is_empty());
    assert_eq!(cluster.resolve(&backend("other")).endpoints.len(), 2);
}

#[test]
fn a_forgotten_namespace_leaves_nothing() {
    let mut cluster = start();
    assert_eq!(line(&cluster.apply(Change::NamespaceForgotten("elsewhere".into()))), "everything");
    assert!(cluster.knows(&key("svc")));
    assert_eq!(line(&cluster.apply(Change::NamespaceForgotten(web()))), "everything");
    assert!(!cluster.knows(&key("svc")));
    let Cluster { services, slices, pods, pointers, listed } = cluster;
    assert!(services.is_empty() && slices.is_empty() && pods.is_empty() && listed.is_empty());
    assert!(pointers.is_empty());
}

fn resolve_all(cluster: &Cluster) -> Vec<(ServiceKey, Resolved)> {
    ["svc", "other", "third"].map(|s| (key(s), cluster.resolve(&backend(&format!("{s}:80"))))).into()
}

proptest! {
    /// The promise that partial compiles rest on.
    #[test]
    fn what_is_not_touched_resolves_as_before(changes in proptest::collection::vec(any_change(), 1..40)) {
        let mut cluster = Cluster::default();
        for change in changes {
            let before = resolve_all(&cluster);
            let touched = cluster.apply(change);
            for (before, after) in before.into_iter().zip(resolve_all(&cluster)) {
                let known = touched.everything || touched.services.contains(&before.0);
                prop_assert!(known || before == after, "{touched:?} leaves out {before:?} -> {after:?}");
            }
        }
    }

    /// Nothing of objects that are gone is kept.
    #[test]
    fn pointers_are_those_of_the_slices(changes in proptest::collection::vec(any_change(), 1..40)) {
        let mut cluster = Cluster::default();
        for change in changes {
            cluster.apply(change);
            let mut expected: BTreeMap<PodKey, BTreeMap<ServiceKey, usize>> = BTreeMap::new();
            for slice in cluster.slices.values().flat_map(BTreeMap::values) {
                for target in slice.endpoints.iter().filter_map(|e| e.target.as_ref()) {
                    let services = expected.entry(target.pod.clone()).or_default();
                    *services.entry(slice.service.clone()).or_default() += 1;
                }
            }
            let services = |p: &Pointers| p.services.iter().cloned().collect();
            let kept: BTreeMap<_, _> = cluster.pointers.iter().map(|(pod, p)| (pod.clone(), services(p))).collect();
            prop_assert_eq!(kept, expected);
            prop_assert!(cluster.slices.values().all(|named| !named.is_empty()));
        }
    }
}

#[test]
fn hand_given_pods_need_no_cluster() {
    let mut desired = Desired::default();
    assert!(desired.is_complete(), "no route needs anything");
    let spec = crate::model::RouteSpec {
        name: "shop".parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: backend("svc"),
        versions: Vec::new(),
        audience: crate::model::Audience::default(),
        on_empty: crate::model::OnEmpty::Spill,
        balance: crate::model::Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    };
    desired.set_routes(vec![spec.clone()], Some(BTreeMap::new()), crate::model::Timestamp::default());
    assert!(desired.is_complete());
    desired.set_routes(vec![spec], None, crate::model::Timestamp::default());
    for change in lists(vec![], vec![], vec![]) {
        assert!(!desired.is_complete());
        desired.apply_cluster(change);
    }
    assert!(desired.is_complete());
}
