//! How requests are taken in and carried: the fields of listeners, and those of a route's traffic.

use std::time::Duration;

use super::super::{Listener, parse};
use super::{check, check_route, errors, route};
use crate::model::{
    Balance, CertificateSource, ClientAuth, Edge, EscapedSlashes, HashKey, HealthCheck, ListenerTls, MinTls,
    Mirror, Outliers, PemSource, Protocol, Redirect, Retries, Timeouts, Traffic, Underscores, UpstreamTls,
};

/// The only listener of a file, with the fields `more` besides its name and address.
#[track_caller]
fn listener(more: &str) -> Listener {
    let text = format!("routes: []\nlisteners: [{{name: a, address: 'a:1', {more}}}]");
    parse("f", &text).map_err(|e| e.to_string()).unwrap().listeners.remove(0)
}

/// What is wrong with a listener that has the fields `more`, which begin on line 3, in column 3.
#[track_caller]
fn check_listener(more: &str, expected: &[&str]) {
    let more = more.replace('\n', "\n  ");
    check(&format!("listeners:\n- {{name: a, address: 'a:1',\n  {more}}}\nroutes: []"), expected);
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn every_field_of_a_listener_means_what_it_says() {
    let found = listener(
        "limits: {requestLine: 2KiB, headerBytes: 4096, headerCount: 20, connections: 30, streams: 40}, \
         timeouts: {header: 1s, body: 2s, write: 3s, idle: 4s}, escapedSlashes: pass, mergeSlashes: true, \
         underscores: reject, proxyProtocol: true, http2: false, redirect: {scheme: https, port: 8443, status: 307}",
    );
    assert_eq!(found.tls, None);
    assert_eq!(
        found.edge,
        Edge {
            request_line: 2_048,
            header_bytes: 4_096,
            header_count: 20,
            connections: 30,
            streams: 40,
            header_timeout: seconds(1),
            body_timeout: seconds(2),
            write_timeout: seconds(3),
            idle_timeout: seconds(4),
            escaped_slashes: EscapedSlashes::Pass,
            merge_slashes: true,
            underscores: Underscores::Reject,
            proxy_protocol: true,
            http2: false,
            redirect: Some(Redirect { port: 8443, status: 307 }),
        }
    );
    assert_eq!(
        listener("redirect: {scheme: https}").edge.redirect,
        Some(Redirect { port: 443, status: 308 })
    );
    assert_eq!(listener("limits: {}, timeouts: {}").edge, Edge::default());
}

#[test]
fn tls_of_a_listener_means_what_it_says() {
    let files = |cert: &str, key: &str| CertificateSource::Files { cert: cert.into(), key: key.into() };
    let secret = |name: &str| name.parse().unwrap();
    let tls = |text: &str| listener(&format!("tls: {{{text}}}")).tls.unwrap();
    assert_eq!(
        tls("certificates: [{certFile: a.crt, keyFile: a.key}, {secret: web/b.tls}], minVersion: '1.3', \
             clientCertificates: {caSecret: web/ca, required: false}"),
        ListenerTls {
            certificates: vec![files("a.crt", "a.key"), CertificateSource::Secret(secret("web/b.tls"))],
            min_version: MinTls::Tls13,
            client_auth: Some(ClientAuth { ca: PemSource::Secret(secret("web/ca")), required: false }),
        }
    );
    let clients = tls("certificates: [{secret: a/b}], clientCertificates: {caFile: ca.crt}");
    assert_eq!(clients.min_version, MinTls::Tls12);
    assert_eq!(
        clients.client_auth,
        Some(ClientAuth { ca: PemSource::File("ca.crt".into()), required: true }),
        "who asks for certificates wants them"
    );
}

#[test]
fn every_field_of_a_routes_traffic_means_what_it_says() {
    let found = route(
        "versions: [{name: v}], timeouts: {connect: 1ms, request: 2s, idle: 3s, total: 4s, upgradedIdle: 24h}, \
         retries: {attempts: 10, on: [503, 429, 502], buffer: 1MiB, budget: 0, least: 0}, \
         outliers: {consecutiveFailures: 0, count5xx: true, successRate: 87.5, eject: 1s, longest: 1s, most: 100}, \
         healthCheck: {path: '/ok?deep=1', host: 'shop:81', port: 82, interval: 6s, timeout: 7s, unhealthy: 8, \
         healthy: 9}, slowStart: 30s, protocol: http2, maxBody: 0, \
         upstreamTls: {serverName: Shop.internal, caSecret: a/ca, certificate: {secret: a/me}}",
    );
    assert_eq!(
        found.traffic,
        Traffic {
            timeouts: Timeouts {
                connect: Duration::from_millis(1),
                request: seconds(2),
                idle: seconds(3),
                total: Some(seconds(4)),
                upgraded_idle: seconds(86_400),
            },
            retries: Retries { attempts: 10, on: vec![429, 502, 503], buffer: 1 << 20, budget: 0, least: 0 },
            outliers: Outliers {
                consecutive_failures: 0,
                count_5xx: true,
                success_rate: Some(0.875),
                eject: seconds(1),
                longest: seconds(1),
                most: 100,
            },
            health_check: Some(HealthCheck {
                path: "/ok?deep=1".to_owned(),
                host: Some("shop:81".to_owned()),
                port: Some(82),
                interval: seconds(6),
                timeout: seconds(7),
                unhealthy: 8,
                healthy: 9,
            }),
            slow_start: Some(seconds(30)),
            upstream_tls: Some(UpstreamTls {
                server_name: Some("shop.internal".to_owned()),
                ca: Some(PemSource::Secret("a/ca".parse().unwrap())),
                client_certificate: Some(CertificateSource::Secret("a/me".parse().unwrap())),
                insecure_skip_verify: false,
            }),
            protocol: Some(Protocol::H2c),
            max_body: Some(0),
            ..Traffic::default()
        }
    );
    let traffic = |more: &str| route(&format!("versions: [{{name: v}}], {more}")).traffic;
    let defaults = Traffic {
        health_check: Some(HealthCheck::default()),
        upstream_tls: Some(UpstreamTls::default()),
        ..Traffic::default()
    };
    assert_eq!(
        traffic("timeouts: {}, retries: {}, outliers: {}, healthCheck: {}, upstreamTls: {}"),
        defaults,
        "an empty mapping has every default"
    );
    assert_eq!(
        traffic("outliers: {eject: 1h}").outliers.longest,
        seconds(3600),
        "never shorter than `eject`"
    );
    let name = |name: &str| {
        traffic(&format!("upstreamTls: {{serverName: '{name}'}}")).upstream_tls.unwrap().server_name
    };
    assert_eq!([name("10.0.0.1"), name("[::1]")].map(Option::unwrap), ["10.0.0.1", "::1"]);
}

#[test]
fn copies_and_limits_of_versions_mean_what_they_say() {
    let found = route(
        "versions: [{name: v}], shield: true, mirror: {version: v, percent: 0.5, methods: [HEAD, POST], \
         maxBody: 1MiB, maxInFlight: 7, timeout: 8s, compare: true}",
    );
    assert!(found.traffic.shield);
    assert_eq!(
        found.traffic.mirror,
        Some(Mirror {
            version: "v".parse().unwrap(),
            share: "0.5".parse().unwrap(),
            methods: vec![http::Method::HEAD, http::Method::POST],
            max_body: 1 << 20,
            max_in_flight: 7,
            timeout: seconds(8),
            compare: true,
        })
    );
    let found =
        route("versions: [{name: v, selector: a}, {name: w, maxInFlightPerPod: 9}], mirror: {version: w}");
    let limits: Vec<_> = found.versions.iter().map(|version| version.max_in_flight_per_pod).collect();
    assert_eq!(limits, [None, Some(9)]);
    let mirror = found.traffic.mirror.unwrap();
    assert_eq!((mirror.share, mirror.max_in_flight, mirror.compare), ("100".parse().unwrap(), 100, false));
    assert_eq!((mirror.methods, mirror.max_body), (vec![http::Method::GET, http::Method::HEAD], 65_536));
    assert_eq!(mirror.timeout, seconds(5));
    assert!(!found.traffic.shield);
    check_route(
        "versions: [{name: v}], mirror: {version: v, methods: [GET, POST, GET]}",
        &["3:68: routes[0].mirror.methods[2]: `GET` is given twice, first on line 3: change or remove one"],
    );
}

#[test]
fn every_way_to_balance_can_be_written() {
    let balance = |text: &str| route(&format!("versions: [{{name: v}}], balance: {text}")).balance;
    for (text, expected) in [
        ("leastRequest", Balance::LeastRequest),
        ("roundRobin", Balance::RoundRobin),
        ("peakEwma", Balance::PeakEwma),
        ("{hash: clientIp}", Balance::Hash(HashKey::ClientIp)),
        ("{hash: {header: X-User}}", Balance::Hash(HashKey::Header("x-user".to_owned()))),
        ("{hash: {cookie: Session}}", Balance::Hash(HashKey::Cookie("Session".to_owned()))),
    ] {
        assert_eq!(balance(text), expected, "{text}");
    }
    for (text, message) in [
        (
            "hash",
            "balance: `hash` alone does not say of what: write what is hashed, like {hash: {cookie: session}}, \
             {hash: {header: X-User}} or {hash: clientIp}",
        ),
        ("peakewma", "balance: `peakewma` is not known: did you mean `peakEwma`?"),
        (
            "random",
            "balance: `random` is not known: use one of `leastRequest`, `roundRobin`, `peakEwma`, `hash`",
        ),
        (
            "true",
            "balance: must be one of `leastRequest`, `roundRobin`, `peakEwma`, `hash`, and is the boolean true",
        ),
        ("{}", "balance.hash: is missing: add it, for example `hash: clientIp`"),
        (
            "{hash: header}",
            "balance.hash: must be one of `clientIp`, `{header: NAME}`, `{cookie: NAME}`, and is the text `header`",
        ),
        (
            "{hash: {}}",
            "balance.hash: says nothing: write what is hashed, like {hash: {cookie: session}}, {hash: {header: X-User}} \
             or {hash: clientIp}",
        ),
        (
            "{hash: {header: a, cookie: b}}",
            "balance.hash: says more than one thing: give one of `header`, `cookie`",
        ),
        (
            "{hash: {header: 'X User'}}",
            "balance.hash.header: `X User` cannot be the name of a header: use letters, digits and `-`, like `X-User`",
        ),
        (
            "{hash: {cookie: 'a=b'}}",
            "balance.hash.cookie: `a=b` cannot be the name of a cookie: use letters, digits and `-`, like `session`",
        ),
    ] {
        let found =
            errors(&format!("routes: [{{name: r, service: a/b, versions: [{{name: v}}], balance: {text}}}]"));
        let [error] = found.as_slice() else { panic!("{text}: {found:?}") };
        assert!(error.ends_with(&format!(": routes[0].{message}")), "{text}: {error}");
    }
}

#[test]
fn what_is_out_of_bounds_is_told_the_bounds() {
    check_listener(
        "limits: {requestLine: 1023, headerBytes: 2MiB, headerCount: 0, connections: -1, streams: 10001},\n\
         timeouts: {header: 0s, body: 25h, write: 5, idle: soon},\n\
         redirect: {scheme: http, port: 65536, status: 303}",
        &[
            "3:25: listeners[0].limits.requestLine: 1023 is too small: write a size from 1KiB to 1MiB",
            "3:44: listeners[0].limits.headerBytes: 2MiB is too large: write a size from 1KiB to 1MiB",
            "3:63: listeners[0].limits.headerCount: 0 is too small: write a whole number from 1 to 256",
            "3:79: listeners[0].limits.connections: -1 is too small: write a whole number from 1 to 1000000",
            "3:92: listeners[0].limits.streams: 10001 is too large: write a whole number from 1 to 10000",
            "4:22: listeners[0].timeouts.header: 0s is too short: write a duration from 1ms to 24h",
            "4:32: listeners[0].timeouts.body: 25h is too long: write a duration from 1ms to 24h",
            "4:44: listeners[0].timeouts.write: must be a duration with its unit, like 250ms, 10s, 5m or 1h, and is the \
             number 5",
            "4:53: listeners[0].timeouts.idle: `soon` is not a duration: write it like 250ms, 10s, 5m, 1h or 1m30s",
            "5:22: listeners[0].redirect.scheme: `http` is not known: did you mean `https`?",
            "5:34: listeners[0].redirect.port: 65536 is too large: write a whole number from 1 to 65535",
            "5:49: listeners[0].redirect.status: 303 cannot be used here: write one of 301, 302, 307, 308",
        ],
    );
    check_route(
        "versions: [{name: v}], retries: {attempts: 11, on: [404, '503', 600, 503], buffer: 64kB, budget: 20.5, least: x},\n\
         outliers: {successRate: 101, eject: 99ms, most: '50'}, maxBody: 1.5GiB, slowStart: 0s,\n\
         healthCheck: {path: healthz, interval: 1ms, unhealthy: 0, port: http}",
        &[
            "3:46: routes[0].retries.attempts: 11 is too large: write a whole number from 1 to 10",
            "3:55: routes[0].retries.on[0]: 404 cannot be used here: write 429, or 500 to 599",
            "3:60: routes[0].retries.on[1]: `503` is in quotes: write the number without them",
            "3:67: routes[0].retries.on[2]: 600 cannot be used here: write 429, or 500 to 599",
            "3:86: routes[0].retries.buffer: `64kB` is not a size: did you mean 64KiB?",
            "3:100: routes[0].retries.budget: 20.5 is not a whole number: write a whole number from 0 to 100",
            "3:113: routes[0].retries.least: must be a whole number from 0 to 10000, and is the text `x`",
            "4:27: routes[0].outliers.successRate: 101 is not between 0 and 100 percent",
            "4:39: routes[0].outliers.eject: 99ms is too short: write a duration from 100ms to 24h",
            "4:51: routes[0].outliers.most: `50` is in quotes: write the number without them",
            "4:67: routes[0].maxBody: `1.5GiB` is not a size: write a size from 0 to 1TiB, in bytes or with KiB, MiB, GiB or \
             TiB",
            "4:86: routes[0].slowStart: 0s is too short: write a duration from 1ms to 24h",
            "5:23: routes[0].healthCheck.path: `healthz` is not a path: begin with `/`, without spaces or `#`, others as \
             %XX, like /healthz",
            "5:42: routes[0].healthCheck.interval: 1ms is too short: write a duration from 100ms to 24h",
            "5:58: routes[0].healthCheck.unhealthy: 0 is too small: write a whole number from 1 to 100",
            "5:67: routes[0].healthCheck.port: must be a whole number from 1 to 65535, and is the text `http`",
        ],
    );
}

#[test]
fn what_does_not_go_together_is_said() {
    check_listener(
        "redirect: {scheme: https},\ntls: {minVersion: 1.3, certificates: [{certFile: a}, {keyFile: b}, {}, {certFile: a, \
         secret: a/b},\n{secret: a}, {secret: a/b}, {secret: a/b}], clientCertificates: {required: true}}",
        &[
            "3:13: listeners[0].redirect: would send HTTPS to HTTPS, since this listener has `tls`: put it on a listener \
             without",
            "4:21: listeners[0].tls.minVersion: must be one of \"1.2\", \"1.3\", and is the number 1.3: put it into quotes, \
             \"1.3\"",
            "4:41: listeners[0].tls.certificates[0]: has no key: add `keyFile`",
            "4:56: listeners[0].tls.certificates[1]: has a key alone: add `certFile`",
            "4:70: listeners[0].tls.certificates[2]: says nothing: give `certFile` and `keyFile`, or `secret`",
            "4:74: listeners[0].tls.certificates[3]: says more than one thing: give `certFile` and `keyFile`, or `secret`",
            "5:12: listeners[0].tls.certificates[4].secret: `a` is not a Secret: write NAMESPACE/NAME, like web/shop-tls",
            "5:31: listeners[0].tls.certificates[6]: `a/b` is given twice, first on line 5: change or remove one",
            "5:67: listeners[0].tls.clientCertificates: does not say who may sign them: give one of `caFile`, `caSecret`",
        ],
    );
    check_listener(
        "tls: {certificates: []}",
        &[
            "3:23: listeners[0].tls.certificates: is an empty list: give it an item; a field that is not needed can be left out",
        ],
    );
    check_listener(
        "tls: {}",
        &["3:8: listeners[0].tls.certificates: is missing: add it, for example `certificates: [{certFile: \
           /etc/serinus/tls/tls.crt, keyFile: /etc/serinus/tls/tls.key}]`"],
    );
    check_route(
        "versions: [{name: v}], retries: {on: [502, 503, 502]}, outliers: {eject: 10s, longest: 9s},\n\
         upstreamTls: {insecureSkipVerify: true, caFile: a, caSecret: a/b, serverName: '*.a'}",
        &[
            "3:51: routes[0].retries.on[2]: `502` is given twice, first on line 3: change or remove one",
            "3:90: routes[0].outliers.longest: is shorter than `eject`: make it longer, or `eject` shorter",
            "4:16: routes[0].upstreamTls: says more than one thing: give one of `caFile`, `caSecret`",
            "4:37: routes[0].upstreamTls.insecureSkipVerify: nothing is checked against the authorities that are given here: \
             remove this or them",
            "4:81: routes[0].upstreamTls.serverName: `*.a` stands for many names, and one is asked for: write it whole, like \
             shop.example.com",
        ],
    );
    check_route(
        "versions: [{name: v}], outliers: {longest: 9s}",
        &["3:46: routes[0].outliers.longest: is shorter than `eject`: make it longer, or `eject` shorter"],
    );
}

#[test]
fn secrets_need_a_cluster() {
    let without = "a Secret is found only with `discovery.kubernetes`: name a file instead";
    check(
        "\
discovery: {static: {a/b: []}}
listeners:
- {name: a, address: 'a:1', tls: {certificates: [{secret: a/b}], clientCertificates: {caSecret: a/b}}}
routes:
- {name: r, service: a/b, versions: [{name: v}], upstreamTls: {caSecret: a/b, certificate: {secret: a/b}}}
",
        &[
            &format!("3:59: listeners[0].tls.certificates[0].secret: {without}"),
            &format!("3:97: listeners[0].tls.clientCertificates.caSecret: {without}"),
            &format!("5:74: routes[0].upstreamTls.caSecret: {without}"),
            &format!("5:101: routes[0].upstreamTls.certificate.secret: {without}"),
        ],
    );
}

#[test]
fn what_newcomers_write_is_understood() {
    check_route(
        "versions: [{name: a, selector: {version: v2, tier: 1}}, {name: b, selector: {a: {b: c}}}]",
        &[
            "3:34: routes[0].versions[0].selector: must be a text, and is a mapping: write \"version=v2,tier=1\"",
            "3:79: routes[0].versions[1].selector: must be a label selector, and is a mapping",
        ],
    );
    check_route(
        "versions: [{name: a, selector: a}, {name: b, weight: 0,1}]",
        &["3:58: routes[0].versions[1].1: unknown field: a decimal has a point and no comma, like 0.1"],
    );
    check(
        "routes:\n- name: r\n  service: nginx-svc.web\n  versions:\n  - {name: a, service: b.web.svc.cluster.local}\n  - \
         name: b\n    weight: 0,1\n    service: a.b.example.com",
        &[
            "3:12: routes[0].service: `nginx-svc.web` is not a Service: write NAMESPACE/NAME, here web/nginx-svc",
            "5:24: routes[0].versions[0].service: `b.web.svc.cluster.local` is not a Service: write NAMESPACE/NAME, here \
             web/b",
            "7:13: routes[0].versions[1].weight: `0,1` has a comma: write it with a point, 0.1",
            "8:14: routes[0].versions[1].service: `a.b.example.com` is not a Service: write NAMESPACE/NAME, like \
             web/nginx-svc",
        ],
    );
}
