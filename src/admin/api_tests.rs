//! Who may do what, from where: peers that a test on one machine does not have.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::admin::guard::Peer;
use crate::admin::tests::control;
use crate::admin::token::TokenFile;

const LOOPBACK: &str = "127.0.0.1:5000";
const MAPPED: &str = "[::ffff:127.0.0.1]:5000";
const OUTSIDE: &str = "10.0.0.7:5000";

/// A listener, and a token file that holds `hush`.
struct Api {
    router: Router,
    _file: tempfile::NamedTempFile,
}

impl Api {
    fn new(on_loopback: bool, with_token: bool) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush").unwrap();
        let token = with_token.then(|| TokenFile::new(file.path().to_owned()));
        let (control, telemetry) = control();
        let unrouted = Arc::default();
        let streams = Streams::new(4, Default::default());
        let admin = Admin {
            control,
            telemetry,
            unrouted,
            recent: Recent::default(),
            series: Default::default(),
            streams,
        };
        Self { router: router(Arc::new(admin), Gate { token, on_loopback }), _file: file }
    }

    async fn ask(&self, peer: &str, line: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if method == "PUT" { r#"{"weights": {"v2": 5}}"# } else { "" };
        let request = request.body(Body::from(body)).unwrap();
        let peer: SocketAddr = peer.parse().unwrap();
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Peer(peer))));
        let response = service.call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[track_caller]
    fn check(&self, peer: &str, line: &str, headers: &[(&str, &str)], status: u16, needle: &str) {
        let runtime = tokio::runtime::Handle::current();
        let answer = tokio::task::block_in_place(|| runtime.block_on(self.ask(peer, line, headers)));
        assert_eq!(answer.0, status, "{peer} {line} {headers:?}: {}", answer.1);
        assert!(answer.1.contains(needle), "{peer} {line} {headers:?}: {}", answer.1);
    }
}

const READS: [&str; 6] = [
    "GET /api/v1/routes",
    "GET /api/v1/routes/shop",
    "GET /api/v1/routes/shop/history",
    "GET /api/v1/routes/shop/series",
    "GET /api/v1/access",
    "GET /openapi.json",
];
const ACCESS: &str = "GET /api/v1/access";
const PAGES: [&str; 4] =
    ["GET /", "GET /dashboard/main.js", "GET /dashboard/style.css", "GET /dashboard/uplot.LICENSE"];
const WRITE: &str = "PUT /api/v1/routes/shop/weights";
const EVENTS: &str = "GET /api/v1/events";
const UNDO: &str = "POST /api/v1/routes/shop/undo";
const PROBES: [&str; 4] = ["GET /livez", "GET /readyz", "GET /healthz", "GET /metrics"];
const JSON: (&str, &str) = ("content-type", "application/json");
const TOKEN: (&str, &str) = ("authorization", "Bearer hush");
const WRONG: (&str, &str) = ("authorization", "Bearer hus");
const LOCAL: (&str, &str) = ("host", "localhost:9901");
const POD: (&str, &str) = ("host", "10.0.0.1:9901");

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_file_off_loopback() {
    let api = Api::new(false, true);
    for probe in PROBES {
        api.check(OUTSIDE, probe, &[POD], 200, "");
        api.check(OUTSIDE, probe, &[POD, WRONG], 200, "");
    }
    for read in READS {
        api.check(OUTSIDE, read, &[POD], 401, "token-missing");
        api.check(OUTSIDE, read, &[POD, WRONG], 401, "token-wrong");
        api.check(OUTSIDE, read, &[POD, TOKEN], 200, "");
        // As by `kubectl port-forward`: the peer is loopback, and so must be the host.
        for peer in [LOOPBACK, MAPPED] {
            api.check(peer, read, &[LOCAL], 200, "");
            api.check(peer, read, &[("host", "evil.example")], 403, "foreign-host");
            api.check(peer, read, &[("host", "any.example"), TOKEN], 200, "");
        }
    }
    for page in PAGES {
        api.check(OUTSIDE, page, &[POD], 200, "");
        api.check(OUTSIDE, page, &[POD, WRONG], 200, "");
        api.check(LOOPBACK, page, &[LOCAL], 200, "");
        api.check(LOOPBACK, page, &[("host", "evil.example")], 403, "foreign-host");
    }
    api.check(OUTSIDE, "GET /dashboard/other.js", &[POD], 404, "unknown-file");
    api.check(OUTSIDE, "GET /dashboard/%2e%2e%2fapi.rs", &[POD], 404, "unknown-file");
    api.check(OUTSIDE, ACCESS, &[POD, TOKEN], 200, r#"{"write":true,"needs":"token"}"#);
    api.check(LOOPBACK, ACCESS, &[LOCAL], 200, r#"{"write":false,"needs":"token"}"#);
    // A stream that is let through does not end.
    api.check(OUTSIDE, EVENTS, &[POD], 401, "token-missing");
    api.check(OUTSIDE, EVENTS, &[POD, WRONG], 401, "token-wrong");
    api.check(LOOPBACK, EVENTS, &[("host", "evil.example")], 403, "foreign-host");
    for peer in [OUTSIDE, LOOPBACK] {
        for line in [WRITE, UNDO] {
            api.check(peer, line, &[LOCAL, JSON], 401, "token-missing");
            api.check(peer, line, &[LOCAL, JSON, WRONG], 401, "token-wrong");
            api.check(peer, line, &[LOCAL, JSON, TOKEN, TOKEN], 401, "token-wrong");
            api.check(peer, line, &[LOCAL, JSON, TOKEN, ("origin", "http://a")], 403, "foreign-origin");
        }
    }
    api.check(OUTSIDE, WRITE, &[POD, JSON, TOKEN], 200, "\"revision\":2");
    api.check(OUTSIDE, UNDO, &[POD, TOKEN], 200, "\"revision\":3");
    api.check(OUTSIDE, WRITE, &[POD, TOKEN], 415, "not-json");
    api.check(OUTSIDE, "GET /api/v1/routes/shop/history", &[POD, TOKEN], 200, "token@10.0.0.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_off_loopback_nothing_is_written() {
    let api = Api::new(false, false);
    for read in READS {
        api.check(OUTSIDE, read, &[POD], 200, "");
        api.check(LOOPBACK, read, &[("host", "evil.example")], 403, "foreign-host");
    }
    for peer in [OUTSIDE, LOOPBACK, MAPPED] {
        api.check(peer, ACCESS, &[LOCAL], 200, r#"{"write":false,"needs":"listener"}"#);
        for line in [WRITE, UNDO] {
            api.check(peer, line, &[LOCAL, JSON], 403, "admin.tokenFile");
            api.check(peer, line, &[LOCAL, JSON, TOKEN], 403, "writes-off");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_on_loopback() {
    let api = Api::new(true, false);
    api.check(LOOPBACK, ACCESS, &[LOCAL], 200, r#"{"write":true,"needs":"nothing"}"#);
    api.check(OUTSIDE, ACCESS, &[LOCAL], 200, r#"{"write":false,"needs":"listener"}"#);
    api.check(LOOPBACK, WRITE, &[LOCAL, JSON], 200, "\"revision\":2");
    api.check(LOOPBACK, UNDO, &[LOCAL, JSON], 200, "\"revision\":3");
    api.check(LOOPBACK, UNDO, &[LOCAL], 415, "not-json");
    api.check(LOOPBACK, UNDO, &[LOCAL, ("content-type", "text/plain")], 415, "not-json");
    api.check(LOOPBACK, UNDO, &[JSON], 403, "foreign-host");
    api.check(LOOPBACK, UNDO, &[LOCAL, ("host", "evil.example"), JSON], 403, "foreign-host");
    api.check(OUTSIDE, WRITE, &[LOCAL, JSON], 403, "writes-off");
}
