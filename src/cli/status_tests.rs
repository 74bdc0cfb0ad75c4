//! What `serinus status` prints, and how it watches.

use super::*;
use crate::admin::wire::{
    EndpointCounts, EndpointStatus, MirrorComparison, MirrorStatus, PathRule, Phase, UnassignedEndpoint,
};

fn version(name: &str, weight: &str, ready: usize) -> VersionStatus {
    VersionStatus {
        name: name.to_owned(),
        stable: false,
        weight: weight.parse().unwrap(),
        effective_weight: weight.parse().unwrap(),
        measured_share: Some(99.9),
        requests: 1234,
        users: None,
        measured_user_share: None,
        error_rate: None,
        p50_ms: Some(1.5),
        p99_ms: None,
        active_requests: 0,
        shielded: 0,
        diverted: 0,
        endpoints: EndpointCounts {
            ready,
            draining: 0,
            unready: 0,
            refused: 0,
            ejected: 0,
            unhealthy: 0,
            addresses: Vec::new(),
        },
    }
}

fn shop() -> RouteStatus {
    RouteStatus {
        name: "shop".to_owned(),
        revision: 7,
        service: "web/nginx-svc".to_owned(),
        hosts: Vec::new(),
        paths: vec![PathRule::Prefix("/".to_owned())],
        versions: vec![version("v1", "99.9", 6), version("v2", "0.1", 0)],
        unassigned_count: 7,
        unassigned: (0..7)
            .map(|n| UnassignedEndpoint {
                address: format!("10.0.0.{n}:80"),
                pod: (n == 1).then(|| "web/pod-1".to_owned()),
                labels_pending: n == 2,
            })
            .collect(),
        problems: vec![ProblemNote { message: "bad\u{1b}[2J".to_owned(), remedy: "mend it".to_owned() }],
        rollout_configured: false,
        rollout: None,
        mirror: None,
    }
}

fn text(routes: &[RouteStatus], problems: &[ProblemNote]) -> String {
    let mut out = Vec::new();
    write_versions(routes, &mut out).unwrap();
    write_problems(routes, problems, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_a_version_and_the_problems_below() {
    let general = [ProblemNote { message: "not saved".to_owned(), remedy: "make room".to_owned() }];
    assert_eq!(
        text(&[shop()], &general),
        "\
ROUTE  VERSION   ASKED  EFFECTIVE  MEASURED  REQUESTS  READY  ERRORS     P50  P99  REVISION
shop   v1       99.9 %     99.9 %    99.9 %      1234    6/6       -  1.5 ms    -         7
shop   v2        0.1 %      0.1 %    99.9 %      1234    0/0       -  1.5 ms    -         7

Problems:
  not saved
    -> make room
  shop: bad\\u{1b}[2J
    -> mend it
  shop: 7 endpoints belong to no version and get no traffic: 10.0.0.0:80, 10.0.0.1:80 (web/pod-1), 10.0.0.2:80 (its \
labels are awaited), 10.0.0.3:80, 10.0.0.4:80 and 2 more
    -> if they should, let a version's selector match their labels
"
    );
}

#[test]
fn users_are_shown_where_a_route_has_a_cohort() {
    let mut by_user = RouteStatus { name: "cart".to_owned(), ..shop() };
    let seen = [(Some(95.2), Some(1_004)), (Some(4.8), Some(51))];
    for (version, (share, users)) in by_user.versions.iter_mut().zip(seen) {
        (version.measured_user_share, version.users) = (share, users);
    }
    let mut out = Vec::new();
    write_versions(&[shop(), by_user], &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "\
ROUTE  VERSION   ASKED  EFFECTIVE  MEASURED  REQUESTS          USERS  READY  ERRORS     P50  P99  REVISION
shop   v1       99.9 %     99.9 %    99.9 %      1234              -    6/6       -  1.5 ms    -         7
shop   v2        0.1 %      0.1 %    99.9 %      1234              -    0/0       -  1.5 ms    -         7
cart   v1       99.9 %     99.9 %    99.9 %      1234  95.2 % (1004)    6/6       -  1.5 ms    -         7
cart   v2        0.1 %      0.1 %    99.9 %      1234     4.8 % (51)    0/0       -  1.5 ms    -         7
"
    );
}

#[test]
fn what_became_of_copies_is_said_below() {
    let comparison = MirrorComparison {
        same: 7,
        other_status: 2,
        other_body: 1,
        original_p50_ms: Some(1.5),
        copy_p50_ms: None,
    };
    let mirror = MirrorStatus {
        version: "v2".to_owned(),
        percent: "12.5".parse().unwrap(),
        sent: 10,
        failed: 3,
        dropped: 4,
        too_large: 5,
        in_flight: 6,
        compared: Some(comparison),
    };
    let text = |mirror: &MirrorStatus| {
        let mut out = Vec::new();
        write_mirror(mirror, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let said = "\nMirror: 12.5 % to v2: 10 copies answered, 3 failed, 4 dropped, 5 too large, 6 under way\n";
    assert_eq!(text(&MirrorStatus { compared: None, ..mirror.clone() }), said);
    assert_eq!(
        text(&mirror),
        format!(
            "{said}  compared with what the clients got: 7 the same, 2 with another status, 1 with another body; p50 -, \
             theirs 1.5 ms\n"
        )
    );
}

/// An endpoint in the state of this name, in the pod `web/NAME`.
fn endpoint(n: u8, state: &str, pod: Option<&str>) -> EndpointStatus {
    EndpointStatus {
        address: format!("10.0.0.{n}:80"),
        pod: pod.map(|name| format!("web/{name}")),
        phase: match state {
            "draining" => Phase::Draining,
            "unready" => Phase::Unready,
            _ => Phase::Ready,
        },
        in_flight: u32::from(n),
        refused: state == "refused",
        ejected: state == "ejected",
        unhealthy: state == "unhealthy",
    }
}

/// The route, with these endpoints of v1.
fn with(endpoints: Vec<EndpointStatus>, unlisted: usize) -> RouteStatus {
    let mut route =
        RouteStatus { unassigned_count: 0, unassigned: Vec::new(), problems: Vec::new(), ..shop() };
    let count = |state: &str| endpoints.iter().filter(|e| super::super::endpoints::state(e) == state).count();
    let counts = &mut route.versions[0].endpoints;
    (counts.ready, counts.draining, counts.unready) =
        (count("ready") + unlisted, count("draining"), count("unready"));
    (counts.refused, counts.ejected, counts.unhealthy) =
        (count("refused"), count("ejected"), count("unhealthy"));
    counts.addresses = endpoints;
    route
}

#[test]
fn the_endpoints_of_a_route_are_listed_with_their_states() {
    let states = ["ready", "draining", "unready", "refused", "ejected", "unhealthy"];
    let endpoints =
        states.iter().zip(1..).map(|(state, n)| endpoint(n, state, (n > 1).then_some("p\u{1b}"))).collect();
    let mut out = Vec::new();
    write_endpoints(&with(endpoints, 7), &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "
VERSION  ADDRESS      POD          STATE      IN FLIGHT
v1       10.0.0.1:80  -            ready              1
v1       10.0.0.2:80  web/p\\u{1b}  draining           2
v1       10.0.0.3:80  web/p\\u{1b}  unready            3
v1       10.0.0.4:80  web/p\\u{1b}  refused            4
v1       10.0.0.5:80  web/p\\u{1b}  ejected            5
v1       10.0.0.6:80  web/p\\u{1b}  unhealthy          6
and 7 more of v1
"
    );
    let mut out = Vec::new();
    write_endpoints(&with(Vec::new(), 0), &mut out).unwrap();
    assert_eq!(out, b"\nIts versions have no endpoints.\n");
}

#[test]
fn problems_name_the_pods_that_get_no_requests() {
    let lines = |route: &RouteStatus| {
        let text = text(std::slice::from_ref(route), &[]);
        text.lines().filter(|l| l.starts_with("  shop:")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let well = vec![endpoint(1, "ready", Some("a")), endpoint(2, "draining", Some("b"))];
    assert_eq!(lines(&with(well.clone(), 0)), Vec::<String>::new());
    let mut some = well;
    some.extend([endpoint(3, "refused", Some("c")), endpoint(4, "unready", None)]);
    let route = with(some, 0);
    let said = "  shop: 2 of the 4 endpoints of v1 are not as they should be: web/c refuses connections, 10.0.0.4:80 is not ready";
    assert_eq!(lines(&route), [said]);
    let remedy = text(std::slice::from_ref(&route), &[]);
    assert!(remedy.contains("-> `serinus status shop` lists each"), "{remedy}");
    let many: Vec<_> = (0..8).map(|n| endpoint(n, "unhealthy", Some("p"))).collect();
    let said = lines(&with(many, 0)).remove(0);
    assert!(
        said.contains("8 of the 8 endpoints of v1 are") && said.ends_with("checks, and 3 more"),
        "{said}"
    );
    // What a problem of the route names already is not said again; a name that only begins like it is another one.
    let mut route = with(vec![endpoint(3, "refused", Some("c"))], 0);
    let problem = |text: &str| vec![ProblemNote { message: text.to_owned(), remedy: String::new() }];
    route.problems = problem("(its only pod web/c refuses connections)");
    assert_eq!(lines(&route).len(), 1);
    route.problems = problem("(its only pod web/c-2 refuses connections)");
    assert_eq!(lines(&route).len(), 2);
    let mut route = with(vec![endpoint(3, "refused", None)], 0);
    route.problems = problem("(its only pod 10.0.0.3:80 refuses connections)");
    assert_eq!(lines(&route).len(), 1);
}

#[test]
fn no_routes_is_said() {
    assert_eq!(text(&[], &[]), "The config has no routes.\n");
}

/// Answers one request with an empty list of routes, then stops listening.
fn answer_once(listener: std::net::TcpListener) {
    use std::io::Read as _;
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        let body = r#"{"generation":1,"problems":[],"routes":[]}"#;
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
}

#[test]
fn a_watch_outlives_a_moment_without_the_router() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    answer_once(listener);
    let args = StatusArgs {
        route: None,
        watch: true,
        output: OutputForm::Table,
        admin: AdminArgs { admin: address.to_string().parse().unwrap(), token_file: None },
    };
    let mut round = 0;
    let mut out = Vec::new();
    let again = || {
        round += 1;
        if round == 2 {
            answer_once(std::net::TcpListener::bind(address).unwrap());
        }
        round < 3
    };
    watch(&args, &mut out, false, again).unwrap();
    let text = String::from_utf8(out).unwrap();
    let no_routes = "The config has no routes.\n\n";
    let middle = text
        .strip_prefix(no_routes)
        .and_then(|t| t.strip_suffix(no_routes))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(middle.contains("no router answers") && middle.contains("asking again every second"), "{text}");
    // At first it must be there.
    let error = watch(&args, &mut Vec::new(), false, || panic!("asked again")).unwrap_err();
    assert!(matches!(error, CliError::Unreachable(_)), "{error}");
    assert!(
        error.to_string().contains(&address.to_string()) && error.to_string().contains("serinus run"),
        "{error}"
    );
}
