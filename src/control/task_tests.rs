//! The control task: what it is told, and what is live then.

use super::*;
use crate::model::{Balance, ClusterKind, OnEmpty, RouteSpec, VersionSpec};

#[tokio::test]
async fn the_problems_of_a_namespace_go_with_its_watches() {
    let (control, _task) = start(Start {
        config: RoutesConfig::default(),
        saved: SavedState::default(),
        state_file: None,
        store: None,
        service_events: None,
        telemetry: Arc::new(Telemetry::new().unwrap()),
        begin: Begin::AtOnce,
    });
    for namespace in ["web", "gone"] {
        let problem = Problem::new(format!("trouble in {namespace}"), "wait");
        control.trouble(namespace.into(), ClusterKind::Pods, vec![problem.clone()]).await;
        control.bad_objects(namespace.into(), ClusterKind::Pods, vec![problem]).await;
    }
    control.cluster(ClusterChange::NamespaceForgotten("gone".into())).await;
    let only_of_web = async {
        let told = || control.problems().iter().map(|p| p.message.clone()).collect::<Vec<_>>();
        while told() != ["trouble in web"] {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, only_of_web).await.expect("the namespace's problems are gone");
}

#[tokio::test]
async fn a_state_that_is_handed_over_is_frozen_here_and_lives_on_there() {
    let routes = |weight: &str| {
        let version = |name: &str, weight: &str| VersionSpec {
            name: name.parse().unwrap(),
            selector: None,
            backend: None,
            weight: Some(weight.parse().unwrap()),
            max_in_flight_per_pod: None,
        };
        let spec = RouteSpec {
            name: "shop".parse().unwrap(),
            hosts: Vec::new(),
            paths: Vec::new(),
            backend: crate::state::samples::backend("svc:80"),
            versions: vec![version("v1", "0"), version("v2", weight)],
            audience: crate::model::Audience::default(),
            on_empty: OnEmpty::Spill,
            balance: Balance::LeastRequest,
            traffic: crate::model::Traffic::default(),
            rollout: None,
            debug_headers: false,
        };
        RoutesConfig { routes: vec![spec], statics: None }
    };
    let process = |begin| {
        start(Start {
            config: routes("1"),
            saved: SavedState::default(),
            state_file: None,
            store: None,
            service_events: None,
            telemetry: Arc::new(Telemetry::new().unwrap()),
            begin,
        })
    };
    let ask = |control: &Control, percent: &str| {
        let weights = BTreeMap::from([("v2".to_owned(), percent.parse().unwrap())]);
        let request = Request {
            source: crate::state::Source::Admin,
            who: None,
            reason: None,
            expected: None,
            at: Timestamp::default(),
        };
        let control = control.clone();
        async move { control.set_weights("shop", weights, request).await }
    };
    let (old, _old_task) = process(Begin::AtOnce);
    let (new, _new_task) = process(Begin::AfterHandOver);
    assert!(matches!(ask(&new, "9").await, Err(ChangeError::HandedOver)), "it has no state of its own yet");
    assert_eq!(ask(&old, "5").await.unwrap().revision.0, 2);
    let state = old.hand_over().await.unwrap();
    assert!(matches!(ask(&old, "6").await, Err(ChangeError::HandedOver)));
    old.config(routes("8")).await;
    new.take_over(state).await;
    assert_eq!(new.table().load().route("shop").unwrap().revision.0, 2, "live before it is thawed");
    new.thaw().await;
    assert_eq!(ask(&new, "7").await.unwrap().revision.0, 3);
    // If the old one goes on after all, what came meanwhile counts.
    assert_eq!(old.table().load().route("shop").unwrap().revision.0, 2);
    old.thaw().await;
    assert_eq!(ask(&old, "10").await.unwrap().revision.0, 4, "the config's change was the third");
}
