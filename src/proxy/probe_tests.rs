//! That what is set aside comes back, and is told of.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::model::{
    BackendRef, Balance, FailureKind, Labels, OnEmpty, Outliers, RouteSpec, StaticEndpoint, Timestamp,
    Traffic, VersionSpec,
};
use crate::routing::{AttemptOutcome, Compiler, RoutingTable};
use crate::state::Desired;

/// A table of one route with two pods by hand.
fn table(addresses: &[SocketAddr; 2]) -> (RoutingTable, Compiler) {
    let service = ServiceKey::new("web", "svc");
    let eject = Duration::from_millis(50);
    let outliers = Outliers { consecutive_failures: 1, eject, longest: eject, ..Outliers::default() };
    let spec = RouteSpec {
        name: "shop".parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: BackendRef { service: service.clone(), port: None },
        versions: vec![VersionSpec {
            name: "v1".parse().unwrap(),
            selector: None,
            backend: None,
            weight: None,
            max_in_flight_per_pod: None,
        }],
        audience: crate::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: Traffic { outliers, ..Traffic::default() },
        rollout: None,
        debug_headers: false,
    };
    let hand = |address: &SocketAddr| StaticEndpoint { address: *address, labels: Labels::default() };
    let statics = [(service, addresses.iter().map(hand).collect())].into();
    let mut desired = Desired::default();
    let (touched, _) = desired.set_routes(vec![spec], Some(statics), Timestamp::default());
    let mut compiler = Compiler::default();
    (compiler.compile(&desired, &touched, now()), compiler)
}

/// An attempt on the first endpoint ended so; the word of it.
fn end(table: &RoutingTable, outcome: AttemptOutcome) -> SetAside {
    let route = &table.routes()[0];
    let version = &route.versions[0];
    let at = InFlight::begin(&version.members[0].standing);
    let reason = version.ended(&at, outcome, Duration::ZERO, now()).unwrap();
    SetAside::new(&at, route, version, reason)
}

/// Hears of one that was set aside, and waits until it is taken back.
async fn taken_back(word: SetAside) {
    let (tell, heard) = mpsc::channel(1);
    let (news, mut told) = mpsc::unbounded_channel();
    let changed = move |services: &[ServiceKey]| {
        let _ = news.send(services.to_vec());
    };
    let watching = tokio::spawn(watch_set_aside(heard, Arc::new(Telemetry::new().unwrap()), changed));
    word.tell(&tell);
    for what in ["set aside", "taken back"] {
        let services = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect(what).unwrap();
        assert_eq!(services, [ServiceKey::new("web", "svc")], "{what}");
    }
    watching.abort();
}

#[tokio::test]
async fn s2_5_an_ejected_endpoint_is_taken_back_when_its_time_is_over() {
    // Nothing listens there: only the time counts.
    let (table, _compiler) = table(&[([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()]);
    let standing = &table.routes()[0].versions[0].members[0].standing;
    let begun = now();
    let word = end(&table, AttemptOutcome::Failed(FailureKind::Timeout));
    assert!(standing.is_ejected());
    taken_back(word).await;
    assert!(!standing.is_ejected() && now().since(begun) >= Duration::from_millis(48));
}

#[tokio::test]
async fn s2_2_a_refusing_endpoint_is_taken_back_when_it_takes_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (table, _compiler) = table(&[listener.local_addr().unwrap(), ([127, 0, 0, 1], 2).into()]);
    let endpoint = &table.routes()[0].versions[0].members[0].endpoint;
    let word = end(&table, AttemptOutcome::Refused);
    assert!(endpoint.is_refused());
    taken_back(word).await;
    assert!(!endpoint.is_refused());
}

#[tokio::test]
async fn what_nobody_hears_of_is_not_set_aside() {
    let (table, _compiler) = table(&[([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()]);
    let member = &table.routes()[0].versions[0].members[0];
    let (full, _kept) = mpsc::channel(1);
    end(&table, AttemptOutcome::Refused).tell(&full);
    assert!(member.endpoint.is_refused(), "there was room for the word");
    end(&table, AttemptOutcome::Failed(FailureKind::Reset)).tell(&full);
    assert!(!member.standing.is_ejected());
    let (gone, _) = mpsc::channel(1);
    end(&table, AttemptOutcome::Failed(FailureKind::Reset)).tell(&gone);
    assert!(!member.standing.is_ejected());
}
