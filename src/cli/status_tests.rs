//! What `serinus status` prints, and how it watches.

use super::*;
use crate::admin::wire::{EndpointCounts, PathRule, UnassignedEndpoint};

fn version(name: &str, weight: &str, ready: usize) -> VersionStatus {
    VersionStatus {
        name: name.to_owned(),
        stable: false,
        weight: weight.parse().unwrap(),
        effective_weight: weight.parse().unwrap(),
        measured_share: Some(99.9),
        requests: 1234,
        error_rate: None,
        p50_ms: Some(1.5),
        p99_ms: None,
        active_requests: 0,
        endpoints: EndpointCounts {
            ready,
            draining: 0,
            unready: 0,
            refused: 1,
            ejected: 1,
            unhealthy: 1,
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
        rollout: None,
    }
}

fn text(routes: &[RouteStatus], problems: &[ProblemNote]) -> String {
    let mut out = Vec::new();
    write_routes(routes, problems, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_a_version_and_the_problems_below() {
    let general = [ProblemNote { message: "not saved".to_owned(), remedy: "make room".to_owned() }];
    assert_eq!(
        text(&[shop()], &general),
        "\
ROUTE  VERSION   ASKED  EFFECTIVE  MEASURED  REQUESTS  READY  ERRORS     P50  P99  REVISION
shop   v1       99.9 %     99.9 %    99.9 %      1234    6/9       -  1.5 ms    -         7
shop   v2        0.1 %      0.1 %    99.9 %      1234    0/3       -  1.5 ms    -         7

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
