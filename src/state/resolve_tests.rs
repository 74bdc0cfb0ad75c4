//! From cluster objects to endpoints: semantics §1, and what §2.1 and §2.2 make of conditions.

use super::*;
use crate::model::ClusterChange;
use crate::state::samples::{backend, deleting, key, lists, pod, service, slice};

/// An endpoint in a line: `10.0.0.1:8080 a ready version=v1`.
fn line(endpoint: &ResolvedEndpoint) -> String {
    let mut words = vec![endpoint.id.address.to_string()];
    words.extend(endpoint.pod.as_ref().map(|p| p.name.to_string()));
    words.push(format!("{:?}", endpoint.phase).to_lowercase());
    if endpoint.protocol != Protocol::Http1 {
        words.push(format!("{:?}", endpoint.protocol).to_lowercase());
    }
    words.extend(endpoint.labels.iter().flat_map(|l| l.iter()).map(|(k, v)| format!("{k}={v}")));
    if endpoint.labels_pending {
        words.push("pending".to_owned());
    }
    words.join(" ")
}

#[track_caller]
fn check(changes: Vec<ClusterChange>, asked: &str, expected: &[&str]) {
    let mut cluster = Cluster::default();
    changes.into_iter().for_each(|change| drop(cluster.apply(change)));
    let resolved = cluster.resolve(&backend(asked));
    let problems = resolved.problems.iter().map(|problem| format!("! {problem}"));
    let lines: Vec<_> = resolved.endpoints.iter().map(line).chain(problems).collect();
    assert_eq!(lines, expected);
}

/// With one Service `svc` whose port is `http=80`.
#[track_caller]
fn check_slices(slices: Vec<Slice>, pods: Vec<Pod>, expected: &[&str]) {
    check(lists(vec![service("svc", "http=80")], slices, pods), "svc:80", expected);
}

#[test]
fn s1_1_all_slices_of_a_service_are_united() {
    check_slices(
        vec![
            slice("s2", "svc", "http=8080", "10.0.0.3, 10.0.0.1"),
            slice("s1", "svc", "http=8080", "10.0.0.2"),
            slice("s1-of-another", "other", "http=8080", "10.0.0.9"),
        ],
        vec![],
        &["10.0.0.1:8080 ready", "10.0.0.2:8080 ready", "10.0.0.3:8080 ready"],
    );
}

#[test]
fn s1_1_duplicates_are_kept_once_the_better_state_winning() {
    for (worse, better) in
        [("draining", "ready"), ("unready", "ready"), ("unready", "draining"), ("dying", "draining")]
    {
        for (first, second) in [(worse, better), (better, worse)] {
            check_slices(
                vec![
                    slice("s1", "svc", "http=8080", &format!("10.0.0.1 {first}")),
                    slice("s2", "svc", "http=8080", &format!("10.0.0.1 {second}")),
                ],
                vec![],
                &[&format!("10.0.0.1:8080 {better}")],
            );
        }
    }
}

#[test]
fn s1_1_of_two_pods_at_one_address_the_known_one_wins() {
    for (first, second) in [("s1", "s2"), ("s2", "s1")] {
        check_slices(
            vec![
                slice(first, "svc", "http=8080", "10.0.0.1 gone"),
                slice(second, "svc", "http=8080", "10.0.0.1 here"),
            ],
            vec![pod("here", "version=v1")],
            &["10.0.0.1:8080 here ready version=v1"],
        );
    }
}

#[test]
fn s1_1_the_same_ip_on_two_ports_is_two_endpoints() {
    check_slices(
        vec![slice("s1", "svc", "http=8080", "10.0.0.1"), slice("s2", "svc", "http=8081", "10.0.0.1")],
        vec![],
        &["10.0.0.1:8080 ready", "10.0.0.1:8081 ready"],
    );
}

#[test]
fn s1_2_labels_come_from_the_pod_that_the_slice_points_at() {
    check_slices(
        vec![slice("s1", "svc", "http=8080", "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3")],
        vec![pod("a", "version=v1"), pod("c", "version=v3")],
        &["10.0.0.1:8080 a ready version=v1", "10.0.0.2:8080 b ready pending", "10.0.0.3:8080 ready"],
    );
}

#[test]
fn s1_2_a_pod_of_the_same_name_with_another_uid_is_another_pod() {
    check_slices(
        vec![slice("s1", "svc", "http=8080", "10.0.0.1 web-0/old")],
        vec![pod("web-0/new", "version=v2")],
        &["10.0.0.1:8080 web-0 ready pending"],
    );
    let mut nameless = slice("s1", "svc", "http=8080", "10.0.0.1 web-0");
    nameless.endpoints.iter_mut().filter_map(|e| e.target.as_mut()).for_each(|t| t.uid = None);
    check_slices(
        vec![nameless],
        vec![pod("web-0/new", "version=v2")],
        &["10.0.0.1:8080 web-0 ready version=v2"],
    );
}

#[test]
fn s1_4_the_port_of_the_service_is_found_by_number_or_name() {
    let cluster = || {
        lists(
            vec![service("svc", "http=80 admin=9000")],
            vec![slice("s1", "svc", "admin=9001 http=8080", "10.0.0.1")],
            vec![],
        )
    };
    for (asked, expected) in [
        ("svc:80", "10.0.0.1:8080"),
        ("svc:http", "10.0.0.1:8080"),
        ("svc:9000", "10.0.0.1:9001"),
        ("svc:admin", "10.0.0.1:9001"),
    ] {
        check(cluster(), asked, &[&format!("{expected} ready")]);
    }
    // 8080 is a port of the pods, not of the Service.
    check(
        cluster(),
        "svc:8080",
        &["! Service web/svc has no port 8080: correct `port`: it has 80 (http), 9000 (admin)"],
    );
    check(
        cluster(),
        "svc:https",
        &["! Service web/svc has no port https: correct `port`: it has 80 (http), 9000 (admin)"],
    );
    check(
        cluster(),
        "svc",
        &[
            "! the route does not say which port of Service web/svc it means: set `port`: it has 80 (http), 9000 (admin)",
        ],
    );
}

#[test]
fn s1_4_the_only_port_need_not_be_named() {
    let slices = || vec![slice("s1", "svc", "=8080", "10.0.0.1")];
    check(lists(vec![service("svc", "=80")], slices(), vec![]), "svc", &["10.0.0.1:8080 ready"]);
    check(
        lists(vec![service("svc", "=80")], slices(), vec![]),
        "svc:81",
        &["! Service web/svc has no port 81: correct `port`: it has 80"],
    );
    check(
        lists(vec![service("svc", "")], slices(), vec![]),
        "svc",
        &["! the route does not say which port of Service web/svc it means: set `port`: it has no TCP port"],
    );
}

#[test]
fn s1_4_a_named_target_port_differs_from_slice_to_slice() {
    check_slices(
        vec![
            slice("old-pods", "svc", "http=8080", "10.0.0.1"),
            slice("new-pods", "svc", "http=9090", "10.0.0.2"),
            slice("without-it", "svc", "admin=1", "10.0.0.3"),
            slice("every-port", "svc", "http=*", "10.0.0.4"),
        ],
        vec![],
        &["10.0.0.1:8080 ready", "10.0.0.2:9090 ready"],
    );
}

#[test]
fn s1_4_app_protocols_are_honoured() {
    for (app_protocol, shown) in [
        ("kubernetes.io/h2c", "ready h2c"),
        ("grpc", "ready h2c"),
        ("kubernetes.io/ws", "ready"),
        ("example.com/unheard-of", "ready"),
    ] {
        let of_slice = slice("s1", "svc", &format!("http=8080/{app_protocol}"), "10.0.0.1");
        check_slices(vec![of_slice], vec![], &[&format!("10.0.0.1:8080 {shown}")]);
        // The Service's own, where the slice says nothing.
        let changes = lists(
            vec![service("svc", &format!("http=80/{app_protocol}"))],
            vec![slice("s1", "svc", "http=8080", "10.0.0.1")],
            vec![],
        );
        check(changes, "svc", &[&format!("10.0.0.1:8080 {shown}")]);
    }
}

#[test]
fn s1_4_one_address_per_pod_under_dual_stack() {
    check_slices(
        vec![
            slice("a-v6", "svc", "http=8080", "fd00::1 a, fd00::2 b"),
            slice("b-v4", "svc", "http=8080", "10.0.0.1 a"),
        ],
        vec![pod("a", ""), pod("b", "")],
        &["10.0.0.1:8080 a ready", "[fd00::2]:8080 b ready"],
    );
}

#[test]
fn s1_4_fqdn_slices_are_refused_with_a_problem() {
    let mut names = slice("names", "svc", "http=8080", "");
    names.address_type = AddressType::Fqdn;
    check_slices(
        vec![names, slice("s1", "svc", "http=8080", "10.0.0.1")],
        vec![],
        &[
            "10.0.0.1:8080 ready",
            "! EndpointSlice web/names has names (FQDN) for addresses, which get no traffic: use a Service with IP \
             endpoints",
        ],
    );
}

#[test]
fn s1_5_nil_conditions() {
    use EndpointPhase::{Draining, Ready, Unready};
    let check = |ready, serving, terminating, expected| {
        let conditions = Conditions::from_api(ready, serving, terminating);
        assert_eq!(phase(conditions, None), expected, "{ready:?} {serving:?} {terminating:?}");
    };
    let (yes, no) = (Some(true), Some(false));
    check(None, None, None, Ready);
    check(None, None, no, Ready);
    check(yes, None, None, Ready);
    check(no, None, None, Unready);
    check(no, yes, None, Ready);
    check(None, None, yes, Draining);
    check(no, None, yes, Unready);
    check(no, yes, yes, Draining);
    check(no, no, yes, Unready);
    assert_eq!(
        Conditions::from_api(None, no, None),
        Conditions { ready: true, serving: false, terminating: false }
    );
}

#[test]
fn s2_1_the_phases() {
    check_slices(
        vec![slice(
            "s1",
            "svc",
            "http=8080",
            "10.0.0.1 ready, 10.0.0.2 draining, 10.0.0.3 unready, 10.0.0.4 dying, 10.0.0.5 published",
        )],
        vec![],
        &[
            "10.0.0.1:8080 ready",
            "10.0.0.2:8080 draining",
            "10.0.0.3:8080 unready",
            "10.0.0.4:8080 unready",
            // `publishNotReadyAddresses`: who set it wants these pods to have requests; kube-proxy sends them some.
            "10.0.0.5:8080 ready",
        ],
    );
}

#[test]
fn s2_2_a_deletion_timestamp_counts_before_the_slice_says_so() {
    check_slices(
        vec![slice("s1", "svc", "http=8080", "10.0.0.1 a, 10.0.0.2 b unready, 10.0.0.3 c published")],
        vec![deleting(pod("a", "")), deleting(pod("b", "")), deleting(pod("c", ""))],
        &["10.0.0.1:8080 a draining", "10.0.0.2:8080 b unready", "10.0.0.3:8080 c unready"],
    );
}

#[test]
fn s2_2_a_deleted_pod_is_not_ready_again_while_its_slice_lags() {
    let start = || {
        lists(
            vec![service("svc", "http=80")],
            vec![slice("s1", "svc", "http=8080", "10.0.0.1 a")],
            vec![deleting(pod("a", ""))],
        )
    };
    let deleted = ClusterChange::PodDeleted(crate::state::samples::pod_key("a"));
    let after = |more: Vec<ClusterChange>| start().into_iter().chain(more).collect::<Vec<_>>();
    check(after(vec![deleted.clone()]), "svc", &["10.0.0.1:8080 a unready pending"]);
    check(
        after(vec![ClusterChange::Pods(crate::state::samples::web(), vec![])]),
        "svc",
        &["10.0.0.1:8080 a unready pending"],
    );
    let successor = ClusterChange::PodApplied(pod("a/second", ""));
    check(after(vec![deleted.clone(), successor.clone()]), "svc", &["10.0.0.1:8080 a unready pending"]);
    let moved_on = ClusterChange::SliceApplied(slice("s1", "svc", "http=8080", "10.0.0.1 a/second"));
    check(after(vec![deleted.clone(), moved_on.clone()]), "svc", &["10.0.0.1:8080 a ready pending"]);
    check(after(vec![deleted, moved_on, successor]), "svc", &["10.0.0.1:8080 a ready"]);
}

#[test]
fn a_service_does_not_exist_only_when_the_list_says_so() {
    check(vec![], "svc", &[]);
    check(
        lists(vec![service("other", "=80")], vec![slice("s1", "svc", "=8080", "10.0.0.1")], vec![]),
        "svc",
        &["! Service web/svc does not exist: create it, or correct `service` (kubectl -n web get services)"],
    );
}

#[test]
fn pods_by_hand_are_ready_and_each_kept_once() {
    let hand = |address: &str, labels| StaticEndpoint {
        address: address.parse().unwrap(),
        labels: pod("x", labels).labels,
    };
    let statics = BTreeMap::from([(
        key("svc"),
        vec![
            hand("127.0.1.1:80", "name=nginx"),
            hand("127.0.1.7:80", "version=v2"),
            hand("127.0.1.1:80", ""),
        ],
    )]);
    let resolved = from_statics(&statics, &backend("svc"));
    let lines: Vec<_> = resolved.endpoints.iter().map(line).collect();
    assert_eq!(lines, ["127.0.1.1:80 ready name=nginx", "127.0.1.7:80 ready version=v2"]);
    let missing = from_statics(&statics, &backend("other"));
    assert!(missing.endpoints.is_empty());
    assert_eq!(
        missing.problems[0].to_string(),
        "Service web/other is not in discovery.static: list its pods there"
    );
}
