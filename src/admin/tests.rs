//! A control task with one route, for the tests of this room.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::{Control, RoutesConfig, Start, start};
use crate::model::{BackendRef, Balance, OnEmpty, RouteSpec, ServiceKey, VersionSpec};
use crate::routing::RoutingTable;
use crate::telemetry::Telemetry;

/// A control task with route `shop`, versions `v1` and `v2`, and no pods.
pub(super) fn control() -> (Control, Arc<Telemetry>) {
    control_of(&["shop".to_owned()])
}

fn control_of(names: &[String]) -> (Control, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new().unwrap());
    let service = ServiceKey::new("web", "nginx-svc");
    let version = |name: &str, selector: &str| VersionSpec {
        name: name.parse().unwrap(),
        selector: Some(selector.parse().unwrap()),
        backend: None,
        weight: None,
        max_in_flight_per_pod: None,
    };
    let route = |name: &String| RouteSpec {
        name: name.parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: BackendRef { service: service.clone(), port: None },
        versions: vec![version("v1", "version!=v2"), version("v2", "version=v2")],
        audience: crate::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    };
    let statics = Some(BTreeMap::from([(service.clone(), Vec::new())]));
    let config = RoutesConfig { routes: names.iter().map(route).collect(), statics };
    let telemetry_too = Arc::clone(&telemetry);
    let from = Start {
        config,
        saved: Default::default(),
        state_file: None,
        store: None,
        telemetry,
        service_events: None,
        begin: Default::default(),
    };
    (start(from).0, telemetry_too)
}

/// Its table.
pub(super) async fn table() -> Arc<RoutingTable> {
    control().0.table().load_full()
}

/// A table with so many routes like it.
pub(super) async fn many_routes(routes: usize) -> Arc<RoutingTable> {
    let names: Vec<_> = (0..routes).map(|number| format!("shop-{number}")).collect();
    control_of(&names).0.table().load_full()
}
