//! The config file as its users meet it.

mod audience;
mod carrying;
mod hostile;
mod reference;
mod rollout;

use std::time::Duration;

use super::*;
use crate::model::{
    AccessFormat, Balance, Edge, HealthCheck, OnEmpty, PathMatch, PortRef, Redirect, Retries, RouteSpec,
    ServiceKey, Share, Traffic,
};

const STATIC: &str = include_str!("../../config/static.yaml");
const KUBERNETES: &str = include_str!("../../config/serinus.yaml");
const EDGE: &str = include_str!("../../config/edge.yaml");

/// The errors of `text`, less the file's name.
fn errors(text: &str) -> Vec<String> {
    match parse("f", text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .to_string()
            .lines()
            .map(|line| line.strip_prefix("f:").unwrap_or(line).to_owned())
            .collect(),
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "{text}");
}

/// The only route of a file with the fields `more` besides its name and Service.
#[track_caller]
fn route(more: &str) -> RouteSpec {
    let text = format!("routes: [{{name: r, service: a/b, {more}}}]");
    parse("f", &text).map_err(|e| e.to_string()).unwrap().routes.remove(0)
}

/// What is wrong with a route that has the fields `more` besides its name and Service, which begin on line 3,
/// in column 3.
#[track_caller]
fn check_route(more: &str, expected: &[&str]) {
    let more = more.replace('\n', "\n  ");
    check(&format!("routes:\n- {{name: r, service: a/b,\n  {more}}}"), expected);
}

#[test]
fn the_sample_for_kubernetes_is_what_it_says() {
    let settings = parse("serinus.yaml", KUBERNETES).unwrap();
    assert_eq!(settings.admin.token_file, Some("/var/run/secrets/serinus/admin-token".into()));
    assert_eq!(settings.state, StateStore::ConfigMap("serinus/serinus-state".parse().unwrap()));
    let Discovery::Kubernetes(kubernetes) = &settings.discovery else { panic!("not Kubernetes") };
    assert_eq!(kubernetes.namespaces, ["web".into()]);
    let [shop, api] = settings.routes.as_slice() else { panic!("not two routes") };
    assert_eq!(shop.backend.port, Some(PortRef::Number(80)));
    assert_eq!(shop.weights().iter().map(|(_, w)| w.millionths()).collect::<Vec<_>>(), [999_000, 1_000]);
    assert_eq!((shop.audience.rules.len(), api.audience.rules.len()), (2, 0));
    let canary = api.versions[1].backend.as_ref().unwrap();
    assert_eq!(canary.service, ServiceKey::new("web", "api-canary"));
    assert_eq!(canary.port, Some(PortRef::Name("http".to_owned())), "the route's port");
}

#[test]
fn the_sample_without_a_cluster_is_what_it_says() {
    let settings = parse("static.yaml", STATIC).unwrap();
    let Discovery::Static(services) = &settings.discovery else { panic!("not static") };
    let pods = &services[&ServiceKey::new("web", "nginx-svc")];
    let second = settings.routes[0].versions[1].selector.as_ref().unwrap();
    assert_eq!(pods.iter().map(|pod| second.matches(&pod.labels)).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn the_sample_at_the_edge_shows_the_defaults() {
    let settings = parse("edge.yaml", EDGE).unwrap();
    let [http, https] = settings.listeners.as_slice() else { panic!("not two listeners") };
    assert_eq!(https.edge, Edge::default());
    let redirect = Some(Redirect { port: 443, status: 308 });
    assert_eq!(http.edge, Edge { redirect, ..Edge::default() });
    assert_eq!(https.tls.as_ref().unwrap().certificates.len(), 2);
    let (shop, default) = (&settings.routes[0].traffic, Traffic::default());
    assert_eq!((shop.timeouts, shop.outliers), (default.timeouts, default.outliers));
    assert_eq!(shop.retries, Retries { on: vec![502, 503], ..default.retries });
    let asked = HealthCheck { path: "/healthz".to_owned(), ..HealthCheck::default() };
    assert_eq!(shop.health_check, Some(asked));
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let settings = parse("f", "routes: []").unwrap();
    assert_eq!(
        settings,
        Settings {
            listeners: vec![Listener {
                name: "web".to_owned(),
                address: "0.0.0.0:8080".parse().unwrap(),
                tls: None,
                edge: Edge::default(),
            }],
            admin: Admin { address: "127.0.0.1:9901".parse().unwrap(), token_file: None },
            state: StateStore::Memory,
            discovery: Discovery::Kubernetes(KubernetesSettings::default()),
            drain: Drain { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) },
            access_log: AccessLog::Off,
            tracing: None,
            trusted_proxies: vec![],
            routes: Vec::new(),
        }
    );
    let route = route("versions: [{name: v1}]");
    assert_eq!(
        (route.on_empty, route.balance, route.debug_headers),
        (OnEmpty::Spill, Balance::LeastRequest, false)
    );
    assert_eq!((route.hosts.len(), route.paths.len(), route.backend.port), (0, 0, None));
    assert_eq!(route.traffic, Traffic::default());
}

#[test]
fn fields_mean_what_they_say() {
    let route = route(
        "port: https, hosts: [A.example, '*.b.example'], paths: [{exact: /x}, {prefix: /y/}, {regex: '/z+'}], \
         versions: [{name: v1}, {name: v2, service: c/d, port: 8080, weight: 12.3456}], balance: roundRobin, \
         onEmpty: fail, debugHeaders: true",
    );
    assert_eq!(route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.example", "*.b.example"]);
    assert_eq!(
        route.paths.iter().map(PathMatch::to_string).collect::<Vec<_>>(),
        ["exact /x", "prefix /y", "regex /z+"]
    );
    assert_eq!(route.backend.port, Some(PortRef::Name("https".to_owned())));
    assert_eq!(route.versions[1].weight, Share::from_millionths(123_456));
    assert_eq!(route.versions[1].backend.as_ref().unwrap().port, Some(PortRef::Number(8080)));
    assert_eq!(
        (route.on_empty, route.balance, route.debug_headers),
        (OnEmpty::Fail, Balance::RoundRobin, true)
    );

    let log = |text: &str| parse("f", &format!("routes: []\naccessLog: {text}")).unwrap().access_log;
    let whole = RequestLog { file: None, format: AccessFormat::Json, sample: Share::ALL };
    assert_eq!((log("'off'"), log("off")), (AccessLog::Off, AccessLog::Off));
    assert_eq!((log("stdout"), log("{}")), (AccessLog::On(whole.clone()), AccessLog::On(whole.clone())));
    assert_eq!(
        log("{file: a.json}"),
        AccessLog::On(RequestLog { file: Some("a.json".into()), ..whole.clone() })
    );
    let text =
        RequestLog { format: AccessFormat::Text, sample: Share::from_millionths(1_000).unwrap(), ..whole };
    assert_eq!(log("{format: text, sample: 0.1}"), AccessLog::On(text));
    let drain = parse("f", "routes: []\ndrain: {delay: 0s, timeout: 1m30s}").unwrap().drain;
    assert_eq!((drain.delay, drain.timeout), (Duration::ZERO, Duration::from_secs(90)));
}

#[test]
fn of_an_access_log_what_is_wrong_is_said() {
    for (written, said) in [
        ("{sample: 101}", "1:21: accessLog.sample: 101 is not between 0 and 100 percent"),
        (
            "{sample: 0.00001}",
            "1:21: accessLog.sample: 0.00001 percent is finer than one in a million: use at most four decimals, like 0.0001",
        ),
        ("{sample: 1%}", "1:21: accessLog.sample: `1%` has a percent sign: write the number alone, like 0.1"),
        ("{format: combined}", "1:21: accessLog.format: `combined` is not known: use one of `json`, `text`"),
        ("{format: jsn}", "1:21: accessLog.format: `jsn` is not known: did you mean `json`?"),
        ("{to: stdout}", "1:13: accessLog.to: unknown field: the fields here are `file`, `format`, `sample`"),
        ("stdot", "1:12: accessLog: `stdot` is not known: did you mean `stdout`?"),
    ] {
        check(&format!("accessLog: {written}\nroutes: []\n"), &[said]);
    }
}

#[test]
fn of_tracing_what_is_right_is_completed_and_what_is_wrong_is_said() {
    let tracing = |text: &str| parse("f", &format!("routes: []\ntracing: {text}")).unwrap().tracing.unwrap();
    let to = |endpoint: &str, sample| Tracing {
        endpoint: endpoint.to_owned(),
        sample: Share::from_millionths(sample).unwrap(),
    };
    assert_eq!(tracing("{endpoint: 'http://c:4318'}"), to("http://c:4318/v1/traces", 10_000));
    assert_eq!(tracing("{endpoint: 'http://c:4318/', sample: 0.5}"), to("http://c:4318/v1/traces", 5_000));
    assert_eq!(tracing("{endpoint: 'https://c/a?k=v', sample: 0}"), to("https://c/a?k=v", 0));
    let like = "write a URL like http://otel-collector.observability:4318";
    for (written, said) in [
        ("{sample: 1}", "1:10: tracing.endpoint: is missing: add it, for example `endpoint: http://otel-collector.observability:4318`".to_owned()),
        ("{endpoint: c:4318}", format!("1:21: tracing.endpoint: is not one of http or https: {like}")),
        ("{endpoint: 'http://u:p@c'}", format!("1:21: tracing.endpoint: has a user or a password, which is not sent: {like}")),
    ] {
        check(&format!("tracing: {written}\nroutes: []\n"), &[&said]);
    }
}

#[test]
fn every_error_is_said_at_once() {
    check(
        "\
listners: []
admin: {address: localhost, tokenFle: x}
drain:
  delay: 5
  timeout: soon
state: {configMap: serinus}
routes:
  - name: shop
    service: web
    mirror: {}
    versions:
      - name: v1
        weight: 99.8
      - {name: v1, selector: version=, wieght: 1}
      - {name: v3, selector: 'version in v3', weight: 0.00001}
  - name: shop
    service: web/b
    versions: []
",
        &[
            "1:1: listners: unknown field: did you mean `listeners`?",
            "2:18: admin.address: `localhost` is not an address: write HOST:PORT, like 127.0.0.1:8080",
            "2:29: admin.tokenFle: unknown field: did you mean `tokenFile`?",
            "4:10: drain.delay: must be a duration with its unit, like 250ms, 10s, 5m or 1h, and is the number 5",
            "5:12: drain.timeout: `soon` is not a duration: write it like 250ms, 10s, 5m, 1h or 1m30s",
            "6:20: state.configMap: `serinus` is not a ConfigMap: write NAMESPACE/NAME, each of 1 to 63 lower-case letters, \
             digits and `-`, like serinus/serinus-state",
            "9:14: routes[0].service: `web` is not a Service: write NAMESPACE/NAME, like web/nginx-svc",
            "10:13: routes[0].mirror.version: is missing: add it, for example `version: v2`",
            "14:16: routes[0].versions[1].name: `v1` is given twice, first on line 12: change or remove one",
            "14:40: routes[0].versions[1].wieght: unknown field: did you mean `weight`?",
            "15:30: routes[0].versions[2].selector: expected `(` at character 12 of the selector `version in v3`: write \
             for example `version=v2`, `version!=v2`, `track in (a,b)`",
            "15:55: routes[0].versions[2].weight: 0.00001 percent is finer than one in a million: use at most four \
             decimals, like 0.0001",
            "16:11: routes[1].name: `shop` is given twice, first on line 8: change or remove one",
            "16:11: routes[1].name: would never get a request: the route `shop` on line 8 has the same host and path \
             (every host, prefix /): change or remove one",
            "18:15: routes[1].versions: is an empty list: give it an item; a field that is not needed can be left out",
        ],
    );
}

#[test]
fn weights_are_exact_and_fit() {
    let weights = |weights: &str| route(&format!("versions: [{weights}]")).weights();
    let millionths =
        |text: &str| weights(text).into_iter().map(|(_, weight)| weight.millionths()).collect::<Vec<_>>();
    assert_eq!(millionths("{name: a, selector: x}, {name: b, weight: 0.0001}"), [999_999, 1]);
    assert_eq!(millionths("{name: a, selector: x}, {name: b, weight: 99.9999000}"), [1, 999_999]);
    assert_eq!(millionths("{name: a, selector: x, weight: 0}, {name: b, weight: 100}"), [0, 1_000_000]);
    assert_eq!(millionths("{name: a, selector: x, weight: 99.9}, {name: b, weight: .1}"), [999_000, 1_000]);

    check_route(
        "versions: [{name: a, selector: x, weight: 99},\n{name: b, weight: 0.1}]",
        &[
            "3:45: routes[0].versions[0].weight: does not fit: the first version gets what the others leave, which is \
           99.9: write that, or leave it out",
        ],
    );
    check_route(
        "versions: [{name: a, selector: x}, {name: b, selector: y, weight: 60},\n{name: c, weight: 40.0001}]",
        &[
            "4:21: routes[0].versions[2].weight: the weights add up to more than 100: 60 before this one, so at most \
           40 is left for it",
        ],
    );
    for (weight, message) in [
        ("100.0001", "100.0001 is not between 0 and 100 percent"),
        ("-1", "-1 is not between 0 and 100 percent"),
        (".inf", "`.inf` is not a percentage: write a decimal from 0 to 100, like 0.1"),
        (".nan", "`.nan` is not a percentage: write a decimal from 0 to 100, like 0.1"),
        ("1e-3", "`1e-3` is not a percentage: write a decimal from 0 to 100, like 0.1"),
        ("0x10", "`0x10` is not a percentage: write a decimal from 0 to 100, like 0.1"),
        ("99999999999999999999", "99999999999999999999 is not between 0 and 100 percent"),
        (
            // As a float it would be 0.1.
            "0.1000000000000000000001",
            "0.1000000000000000000001 percent is finer than one in a million: use at most four decimals, like 0.0001",
        ),
        ("'0.1'", "`0.1` is in quotes: write the number without them"),
        ("5%", "`5%` has a percent sign: write the number alone, like 0.1"),
        ("much", "must be a percentage: a number from 0 to 100, like 0.1, and is the text `much`"),
        ("[1]", "must be a percentage: a number from 0 to 100, like 0.1, and is a list"),
        ("true", "must be a percentage: a number from 0 to 100, like 0.1, and is the boolean true"),
        ("", "has no value: give it one; a field that is not needed can be left out"),
    ] {
        let found = errors(&format!(
            "routes: [{{name: r, service: a/b, versions: [{{name: a, weight: {weight}}}]}}]"
        ));
        let [error] = found.as_slice() else { panic!("{weight}: {found:?}") };
        assert!(error.ends_with(&format!("routes[0].versions[0].weight: {message}")), "{weight}: {error}");
    }
}

#[test]
fn a_pod_by_hand_that_is_a_listener_is_refused() {
    let file = |listener: &str, pod: &str| {
        format!(
            "listeners: [{{name: web, address: '{listener}'}}]\ndiscovery:\n  static:\n    a/b:\n    - {{address: '{pod}'}}\n\
             routes: [{{name: r, service: a/b, versions: [{{name: v1}}]}}]"
        )
    };
    check(
        &file("0.0.0.0:8080", "127.0.0.1:8080"),
        &[
            "5:17: discovery.static[\"a/b\"][0].address: the listener `web` of Serinus itself listens on 0.0.0.0:8080: requests \
           would come back for ever; write the pod's address",
        ],
    );
    for (listener, pod, refused) in [
        ("127.0.0.2:8080", "127.0.0.2:8080", true),
        ("localhost:8080", "127.0.0.1:8080", true),
        ("[::]:8080", "[::1]:8080", true),
        ("127.0.0.2:8080", "127.0.0.2:8081", false),
        ("127.0.0.2:8080", "127.0.0.1:8080", false),
        ("[::]:8080", "127.0.0.1:8080", false),
        // Perhaps another machine's, or another one's on this machine.
        ("0.0.0.0:8080", "10.0.0.1:8080", false),
        ("0.0.0.0:8080", "127.0.1.1:8080", false),
        ("127.0.0.1:0", "127.0.0.1:8080", false),
    ] {
        assert_eq!(errors(&file(listener, pod)).len(), usize::from(refused), "{listener} {pod}");
    }
    // The default listener is one too.
    let text = file("127.0.0.1:1", "127.0.0.1:8080");
    assert_eq!(errors(text.split_once('\n').unwrap().1).len(), 1);
}

#[test]
fn a_version_that_can_have_no_pod_is_refused() {
    check_route(
        "versions: [{name: a},\n{name: b, selector: x}, {name: c}]",
        &[
            "4:3: routes[0].versions[1]: can never have a pod: `a`, before it, has no selector and takes every pod of \
           a/b: give `a` a selector that leaves the pods of this version out",
        ],
    );
    check_route(
        "versions: [{name: a, selector: 'x=1,y'},\n{name: b, selector: 'x = 1, y'}]",
        &[
            "4:23: routes[0].versions[1].selector: can never have a pod: `a`, before it, has the same selector: change \
           one",
        ],
    );
    // Another Service has other pods, and another port is another endpoint.
    route("versions: [{name: a}, {name: b, service: a/c}, {name: c, port: 81}]");
    check_route(
        "port: 80, versions: [{name: a},\n{name: b, service: a/b, port: 80}]",
        &[
            "4:3: routes[0].versions[1]: can never have a pod: `a`, before it, has no selector and takes every pod of \
           a/b: give `a` a selector that leaves the pods of this version out",
        ],
    );
}

#[test]
fn routes_must_not_hide_each_other() {
    let routes = |a: &str, b: &str| {
        errors(&format!(
            "routes:\n- {{name: a, service: a/b, versions: [{{name: v}}], {a}}}\n- {{name: b, service: a/b, versions: \
             [{{name: v}}], {b}}}"
        ))
    };
    assert_eq!(routes("hosts: [a]", "hosts: [b]"), [""; 0]);
    assert_eq!(routes("hosts: [a]", ""), [""; 0], "every other host");
    assert_eq!(routes("paths: [{prefix: /a}]", "paths: [{exact: /a}]"), [""; 0], "everything under it");
    assert_eq!(
        routes(
            "hosts: [x, y], paths: [{prefix: /a/}]",
            "hosts: [z, Y, x], paths: [{prefix: /b}, {prefix: /a}]"
        ),
        [
            "3:10: routes[1].name: would never get a request: the route `a` on line 2 has the same host and path (y, prefix \
          /a): change or remove one"
        ]
    );
    assert_eq!(
        routes("hosts: [x, X.]", "paths: [{regex: a}, {regex: a}]"),
        [
            "2:61: routes[0].hosts[1]: `x` is given twice, first on line 2: change or remove one",
            "3:70: routes[1].paths[1]: `regex a` is given twice, first on line 3: change or remove one"
        ]
    );
}

#[test]
fn services_must_be_where_discovery_looks() {
    check(
        "\
discovery:
  static:
    web/shop: []
    web/cart: [{address: 127.0.0.1:80}, {address: 127.0.0.1:80}, {address: 'x:80'}, {address: '[::1]:0'}]
    Web/x: []
routes:
- {name: a, service: web/shp, port: 80, versions: [{name: v1, service: a/b}]}
",
        &[
            "4:51: discovery.static[\"web/cart\"][1].address: `127.0.0.1:80` is given twice, first on line 4: change \
             or remove one",
            "4:76: discovery.static[\"web/cart\"][2].address: `x:80` is not an address: write IP:PORT, like \
             127.0.0.1:8080 or [::1]:8080",
            "4:95: discovery.static[\"web/cart\"][3].address: `[::1]:0` has port 0, to which nothing can be sent: \
             write the pod's port",
            "5:5: discovery.static[\"Web/x\"]: `Web/x` is not a Service: write NAMESPACE/NAME, like web/nginx-svc",
            "7:22: routes[0].service: the Service `web/shp` is not in `discovery.static`: did you mean `web/shop`?",
            "7:37: routes[0].port: has no meaning with `discovery.static`, where each address has its own port: leave \
             it out",
            "7:72: routes[0].versions[0].service: the Service `a/b` is not in `discovery.static`: add it there with \
             its pods",
        ],
    );
    check(
        "discovery: {kubernetes: {namespaces: [web, Web, web]}}\nroutes:\n- {name: a, service: shop/a, versions: \
         [{name: v, service: web/b}]}",
        &[
            "1:44: discovery.kubernetes.namespaces[1]: `Web` is not a namespace: use 1 to 63 lower-case letters, \
             digits and `-`, like `web`",
            "1:49: discovery.kubernetes.namespaces[2]: `web` is given twice, first on line 1: change or remove one",
            "3:22: routes[0].service: the namespace `shop` is not in `discovery.kubernetes.namespaces`: add it there, \
             or use another Service",
        ],
    );
    check(
        "discovery: {kubernetes: {}, static: {}}\nroutes: []",
        &["1:37: discovery.static: `kubernetes` and `static` cannot be used at once: remove one of them"],
    );
}

#[test]
fn two_cannot_listen_on_one_address() {
    check(
        "routes: []\nlisteners:\n- {name: a, address: '0.0.0.0:80'}\n- {name: b, address: '127.0.0.1:80'}\n- {name: c, \
         address: '[::]:80'}\n- {name: d, address: 'localhost:0'}\n- {name: e, address: 'localhost:0'}\n- {name: f, \
         address: 'localhost:81'}\n- {name: a, address: 'LOCALHOST:81'}\n- {name: 'a b', address: 'x:1'}",
        &[
            "4:22: listeners[1].address: `listeners[0].address` listens on 0.0.0.0:80 already: choose another port",
            "9:10: listeners[6].name: `a` is given twice, first on line 3: change or remove one",
            "9:22: listeners[6].address: `listeners[5].address` listens on localhost:81 already: choose another port",
            "10:10: listeners[7].name: `a b` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`, with a \
             letter or digit at both ends",
        ],
    );
    check(
        "routes: []\nadmin: {address: 127.0.0.1:8080}",
        &["2:18: admin.address: the default listener listens on 0.0.0.0:8080 already: choose another port"],
    );
    check(
        "routes: []\nlisteners: [{name: a, address: '0.0.0.0:9901'}]",
        &["2:32: listeners[0].address: the admin API listens on 127.0.0.1:9901: choose another port"],
    );
}

#[test]
fn a_file_cannot_be_half_read() {
    let empty = documented("the file is empty: write at least `routes:`, see the configuration reference");
    for text in ["", " ", "\n\n", "# nothing\n", "---\n", "\u{feff}", "~"] {
        check(text, &[&format!("1:1: {empty}")]);
    }
    check(
        "listeners: [{name: a, address: 'a:1'}]",
        &["1:1: routes: is missing: add it, for example `routes: []`"],
    );
    check(
        "routes: []\n---\nroutes: []",
        &["2:1: a second YAML document begins here: keep one document in a file"],
    );
    check("routes: []\n\0drain: {}", &["2:1: not YAML: the control character U+0000 must not be in a file"]);
    check(
        "routes: []\nroutes: [",
        &[
            "3:1: not YAML: while parsing a node, did not find expected node content: check the indentation, quotes and \
           brackets here and just above; the rest of the file was not checked",
        ],
    );
}

#[test]
fn what_yaml_can_do_and_serinus_does_not_read_is_said() {
    check_route(
        "hosts: [*.example.com]",
        &[
            "3:11: YAML aliases (`*name`) are not supported: write the value out; a text that begins with `*` needs \
           quotes, like \"*.example.com\"",
        ],
    );
    check(
        "drain: &d {delay: 1s}\nadmin: *d\nroutes: []",
        &[
            "2:8: admin: YAML aliases (`*name`) are not supported: write the value out; a text that begins with `*` \
           needs quotes, like \"*.example.com\"",
        ],
    );
    check_route(
        "versions: [{name: a, selector: !canary x}]",
        &[
            "3:34: routes[0].versions[0].selector: YAML tags are not supported: leave the tag out; a text that begins \
           with `!` needs quotes, like \"!canary\"",
        ],
    );
    check(
        "routes: []\ndrain: {<<: {}}",
        &["2:9: drain[\"<<\"]: YAML merge keys (`<<`) are not supported: write the \
                                             fields out"],
    );
    check("routes: []\nroutes: []", &["2:1: routes: is given twice: keep one of them"]);
    check("routes: []\n[a]: b", &["2:1: a list or mapping cannot be a key: write plain text"]);
    check(
        "routes:\n\t- name: a",
        &[
            "2:2: not YAML: tabs disallowed within this context (block indentation): indent with spaces, not with tabs; \
           the rest of the file was not checked",
        ],
    );
    let anchors = parse("f", "routes: &r []").unwrap();
    assert_eq!(anchors.routes, [], "an anchor alone does no harm");
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    let plain = parse("f", KUBERNETES);
    assert_eq!(parse("f", &KUBERNETES.replace('\n', "\r\n")), plain);
    assert_eq!(parse("f", &format!("\u{feff}{KUBERNETES}")), plain);
    assert_eq!(errors("\u{feff}rutes: 1\r\nü: ö\r\n x: y")[0].split(' ').next(), Some("3:3:"));
    check(
        "\u{feff}a: 1\r\nroutes: [] # ü\r\n",
        &[
            "1:1: a: unknown field: the fields here are `listeners`, `admin`, `state`, `discovery`, `drain`, `accessLog`, \
         `tracing`, `trustedProxies`, `routes`",
        ],
    );
    check(
        "routes: [ü, {name: ''}]",
        &[
            "1:10: routes[0]: must be a mapping with the fields `name`, `hosts`, `paths`, `service`, `port`, `versions`, \
         `rules`, `cohort`, `balance`, `onEmpty`, `rollout`, `shield`, `mirror`, `timeouts`, `retries`, `outliers`, `healthCheck`, `slowStart`, `upstreamTls`, `protocol`, \
         `maxBody`, `debugHeaders`, and is the text `ü`",
            "1:13: routes[1].service: is missing: add it, for example `service: web/shop`",
            "1:13: routes[1].versions: is missing: add it, for example `versions: [{name: v1}]`",
            "1:20: routes[1].name: `` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit \
         at both ends",
        ],
    );
}

#[test]
fn labels_are_texts() {
    check(
        "discovery: {static: {a/b: [{address: '1.2.3.4:5', labels: {version: 2, ok: '', on: true, 'a,b': c, ? ~ : x, \
         version: b}}]}}\nroutes: []",
        &[
            "1:69: discovery.static[\"a/b\"][0].labels.version: must be a text, and is the number 2: put it into \
             quotes, \"2\"",
            "1:84: discovery.static[\"a/b\"][0].labels.on: must be a text, and is the boolean true: put it into \
             quotes, \"true\"",
            "1:90: discovery.static[\"a/b\"][0].labels[\"a,b\"]: `a,b` is not the key of a label: write for example \
             `version` or `app.kubernetes.io/version`",
            "1:109: discovery.static[\"a/b\"][0].labels.version: is given twice: keep one of them",
        ],
    );
}

#[test]
fn fields_that_come_later_are_told_from_unknown_ones() {
    let later = ["requestHeaders", "responseHeaders", "redirect", "rewrite"];
    for field in later {
        check_route(
            &format!("{field}: {{}}, versions: [{{name: v}}]"),
            &[&format!(
                "3:3: routes[0].{field}: is not supported by this version of Serinus yet: leave it out"
            )],
        );
    }
}

/// `message`, which the reference also quotes.
#[track_caller]
fn documented(message: &str) -> &str {
    assert!(reference::REFERENCE.contains(&format!("`` {message} ``")), "not in the reference: {message}");
    message
}

#[test]
fn a_file_that_cannot_be_read_is_one_error() {
    let directory = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let path = directory.path().join(name);
        let error = super::load(&path).unwrap_err().to_string();
        error.strip_prefix(&path.display().to_string()).unwrap().to_owned()
    };
    let said = |name: &str, message: &str| assert_eq!(load(name), format!(": {}", documented(message)));
    said("none", "there is no such file: check the path");
    said(".", "is not a regular file: name the file itself");
    fs::write(directory.path().join("latin1"), b"routes: []\n# \xfc\n").unwrap();
    said("latin1", "is not UTF-8 text on line 2: save it as UTF-8");
    let large = fs::File::create(directory.path().join("large")).unwrap();
    large.set_len(MAX_BYTES + 1).unwrap();
    said("large", "is larger than 16 MiB: make it smaller");
    // Whoever runs the tests may be able to read everything.
    documented(&explain(&ErrorKind::PermissionDenied.into()));

    let good = directory.path().join("good");
    fs::write(&good, STATIC).unwrap();
    assert_eq!(super::load(&good), parse("f", STATIC));
}

#[test]
fn the_state_is_kept_in_one_place() {
    let file = |state: &str, discovery: &str| format!("state: {state}\n{discovery}routes: []\n");
    let settings = parse("f", &file("{configMap: serinus/serinus-state}", "")).unwrap();
    let key = "serinus/serinus-state".parse().unwrap();
    assert_eq!(settings.state, StateStore::ConfigMap(key));
    check(
        &file("{file: /tmp/s.json, configMap: serinus/state}", ""),
        &["1:39: state.configMap: `file` and `configMap` cannot be used at once: remove one of them"],
    );
    check(
        &file("{}", ""),
        &[
            "1:8: state: says nothing: add `file` or `configMap`, for example `file: /var/lib/serinus/state.json`",
        ],
    );
    check(
        &file("{configMap: serinus/state}", "discovery: {static: {}}\n"),
        &["1:20: state.configMap: needs a cluster, and `discovery.static` has none: use `file`"],
    );
}
