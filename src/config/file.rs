//! The format of the file: every field once. The reader, the JSON Schema and the reference follow from it.

mod access_log;
mod audience;
mod listener;
mod mirror;
mod rollout;
mod traffic;

pub(super) use audience::{CohortFile, ConditionFile, RuleFile};
pub(super) use listener::{CertificateFile, ListenerFile, ListenerTlsFile};
pub(super) use mirror::MirrorFile;
pub(super) use rollout::{GuardFile, HookFile, RolloutFile};
pub(super) use traffic::{HealthCheckFile, OutliersFile, RetriesFile, TimeoutsFile, UpstreamTlsFile};

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::input::{AnyLength, Marked, Pairs, object};
use super::names::CollectorUrl;
use super::numbers::{Limit, Size, Whole};
use super::settings::{AccessLog, HostPort};
use super::values::{ExactPath, LabelKey, LabelValue, PrefixPath, RegexPath, Span, Text};
use crate::model::{
    Balance, ConfigMapKey, HostMatch, Namespace, OnEmpty, PortRef, Protocol, RouteName, Selector, ServiceKey,
    Share, VersionName,
};

object! {
    /// The configuration of Serinus.
    File "Serinus configuration", later [] {
        /// Where requests come in. Left out: one listener, `web`, on every IPv4 address, port 8080.
        optional "listeners" listeners: Vec<Marked<ListenerFile>>,
            default = [{"name": "web", "address": "0.0.0.0:8080"}];
        /// The admin API, metrics and health checks.
        optional "admin" admin: AdminFile;
        /// Where live weights and their history are kept. Left out: in memory, so that a restart forgets them.
        optional "state" state: StateFile;
        /// Where Services and pods are found: `kubernetes` or `static`.
        optional "discovery" discovery: DiscoveryFile, default = {"kubernetes": {}};
        /// How Serinus stops.
        optional "drain" drain: DrainFile;
        /// Whether requests are logged: `off`, `stdout` (as JSON), or a mapping of where, in which form and how many of them.
        /// Read at the start.
        optional "accessLog" access_log: AccessLog, default = "off", example = {"file": "/var/log/serinus/access.json"};
        /// Which requests are traced, and where their spans are sent. Left out: none. Read at the start.
        optional "tracing" tracing: TracingFile, example = {"endpoint": "http://otel-collector.observability:4318"};
        /// The networks of hops whose word about a client counts: an Ingress or a load balancer in front. From anyone else
        /// `X-Forwarded-*`, `Forwarded`, `X-Real-IP` and `X-Request-Id` are replaced. Left out: nobody is trusted.
        optional "trustedProxies" trusted_proxies: Vec<Marked<IpNet>>, example = ["10.244.0.0/16"];
        /// The routes; `[]` for none. It must be written, so that a file that was cut off cannot pass for a whole one.
        required "routes" routes: AnyLength<RouteFile>, example = [];
    }
}

object! {
    /// The admin API, metrics and health checks.
    AdminFile "admin", later [] {
        /// Where it listens.
        optional "address" address: HostPort, default = "127.0.0.1:9901", example = "0.0.0.0:9901";
        /// A file with the token that writes need. Left out: writes are accepted on a loopback address only.
        optional "tokenFile" token_file: PathBuf, example = "/var/run/secrets/serinus/admin-token";
    }
}

object! {
    /// Where live weights and their history are kept.
    StateFile "state", later [] {
        /// The file; its directory must be writable. For one replica.
        optional "file" file: PathBuf, example = "/var/lib/serinus/state.json";
        /// A ConfigMap, which all replicas share: each change on one is live on all. Needs `discovery.kubernetes`. Leases beside
        /// it say which replicas live.
        optional "configMap" config_map: ConfigMapKey, example = "serinus/serinus-state";
    }
}

object! {
    /// Where Services and pods are found: one of the two.
    DiscoveryFile "discovery", later [] {
        /// In a Kubernetes cluster: the one Serinus runs in, else that of the kubeconfig.
        optional "kubernetes" kubernetes: KubernetesFile, example = {};
        /// In this file, for use without a cluster: for each Service its pods.
        optional "static" fixed: Pairs<ServiceKey, AnyLength<EndpointFile>>,
            example = {"web/shop": [{"address": "127.0.1.1:8080", "labels": {"version": "v1"}}]};
    }
}

object! {
    /// How to reach the Kubernetes API.
    KubernetesFile "kubernetes", later [] {
        /// A kubeconfig file. Left out: the pod's ServiceAccount, else what `kubectl` would use.
        optional "kubeconfig" kubeconfig: PathBuf, example = "/home/me/.kube/config";
        /// A context of the kubeconfig. Left out: its current one.
        optional "context" context: Text, example = "staging";
        /// The only namespaces that routes may use. Left out: every namespace.
        optional "namespaces" namespaces: Vec<Marked<Namespace>>, example = ["web"];
    }
}

object! {
    /// One pod of a Service.
    EndpointFile "endpoint", later [] {
        /// Its IP address and port.
        required "address" address: SocketAddr, example = "127.0.1.1:8080";
        /// Its labels, on which the selectors of versions work.
        optional "labels" labels: Pairs<LabelKey, LabelValue>, default = {}, example = {"version": "v2"};
    }
}

object! {
    /// How Serinus stops.
    DrainFile "drain", later [] {
        /// How long it goes on accepting connections after SIGTERM, while it says that it is not ready.
        optional "delay" delay: Span, default = "5s", example = "10s";
        /// How long requests in flight then get to end.
        optional "timeout" timeout: Span, default = "30s", example = "1m";
    }
}

object! {
    /// Which requests are traced, and where their spans are sent.
    TracingFile "tracing", later [] {
        /// An OpenTelemetry collector that takes OTLP over HTTP (protobuf). Without a path `/v1/traces` is put behind it; with one it is taken as
        /// it is. What is after the host is shown nowhere; fields for it, as a key, are in the environment: `OTEL_EXPORTER_OTLP_HEADERS`.
        required "endpoint" endpoint: CollectorUrl, example = "http://otel-collector.observability:4318";
        /// How many of the requests are traced whose sender has not decided (by `traceparent`), in percent, in steps of 0.0001: each is
        /// drawn by itself. Where he has, it is as he says.
        optional "sample" sample: Share, default = 1, example = 0.1;
    }
}

object! {
    /// A route: which requests it takes, and the versions it splits them between.
    RouteFile "route", later [
        ("requestHeaders", None), ("responseHeaders", None), ("redirect", None), ("rewrite", None),
    ] {
        /// Its name, unique in the file; a label in metrics.
        required "name" name: RouteName, example = "shop";
        /// The hosts it takes, exact or `*.suffix` (in quotes), without a port. Left out: every host.
        optional "hosts" hosts: Vec<Marked<HostMatch>>, example = ["shop.example.com", "*.example.org"];
        /// The paths it takes. Left out: every path.
        optional "paths" paths: Vec<Marked<PathFile>>, example = [{"prefix": "/"}];
        /// The Service whose pods it splits between.
        required "service" service: ServiceKey, example = "web/shop";
        /// The Service's port, by number or name. Left out: its only port. Not with static discovery.
        optional "port" port: PortRef, example = 80;
        /// Its versions. The first is the stable one: it gets what the others leave.
        required "versions" versions: Vec<Marked<VersionFile>>, example = [{"name": "v1"}];
        /// Which requests get a version whatever the weights: the first rule that fits decides.
        optional "rules" rules: Vec<Marked<RuleFile>>, example = [{"header": "X-Canary", "canary": "v2"}];
        /// Deals users to the versions by weight, instead of requests. Left out: requests.
        optional "cohort" cohort: CohortFile, example = {"cookie": "user"};
        /// How a pod of a version is chosen: of two at random the one with fewer requests in flight (`leastRequest`) or
        /// with the lower product of these and its recent latency (`peakEwma`); in turn; or always the same for the same
        /// header, cookie or client.
        optional "balance" balance: Balance, default = "leastRequest", example = {"hash": {"cookie": "session"}};
        /// Where the share of a version without a usable pod goes: to the other versions, or to an answer 503.
        optional "onEmpty" on_empty: OnEmpty, default = "spill", example = "fail";
        /// How a version is rolled out. Left out: weights change only when somebody changes them.
        optional "rollout" rollout: RolloutFile, example = {"steps": [{"weight": 1}, {"weight": 100}]};
        /// Whether a request that a version other than the first failed is repeated once on the first, where it is safe to: no
        /// pod has seen it, or its method is idempotent and its body was kept. The failure still counts against the version.
        optional "shield" shield: bool, default = false, example = true;
        /// Which requests are copied to a version, to see how it bears them: nobody gets its answers. Left out: none.
        optional "mirror" mirror: MirrorFile, example = {"version": "v2", "percent": 10};
        /// Its time limits.
        optional "timeouts" timeouts: TimeoutsFile;
        /// Which requests are tried again on another pod. One that was never sent always is; one that a pod may have seen
        /// only if its method is idempotent and its body was kept.
        optional "retries" retries: RetriesFile;
        /// When a pod that fails is set aside for a while.
        optional "outliers" outliers: OutliersFile;
        /// How pods are asked whether they are well. Left out: they are not asked.
        optional "healthCheck" health_check: HealthCheckFile, example = {"path": "/healthz"};
        /// How long a pod that has just come up gets a growing share. Left out: its whole share at once.
        optional "slowStart" slow_start: Limit, example = "30s";
        /// TLS towards the pods; `{}` with the authorities of the system. Left out: none.
        optional "upstreamTls" upstream_tls: UpstreamTlsFile, example = {};
        /// What the pods speak; without TLS, `http2` is that with prior knowledge (h2c). Left out: what the `appProtocol`
        /// of the Service's port says, else `http1`.
        optional "protocol" protocol: Protocol, example = "http2";
        /// The longest body that a request may have: 413 beyond. Left out: no limit.
        optional "maxBody" max_body: Size<u64, 0, { 1 << 40 }>, example = "10MiB";
        /// Whether answers carry `X-Serinus-Version`.
        optional "debugHeaders" debug_headers: bool, default = false, example = true;
    }
}

object! {
    /// A path that a route takes: one of the three.
    PathFile "path", later [] {
        /// This path and everything under it, by whole elements: `/a` takes `/a/b`, not `/ab`.
        optional "prefix" prefix: PrefixPath, example = "/cart";
        /// This path alone.
        optional "exact" exact: ExactPath, example = "/healthz";
        /// A regular expression that must match the whole path.
        optional "regex" regex: RegexPath, example = "/item/[0-9]+";
    }
}

object! {
    /// A version of what a route serves.
    VersionFile "version", later [] {
        /// Its name, unique in the route.
        required "name" name: VersionName, example = "v2";
        /// Which pods are its own, as for `kubectl -l`. Left out: all that no earlier version of the route has.
        optional "selector" selector: Selector, example = "version=v2";
        /// Its own Service, where it is not the route's.
        optional "service" service: ServiceKey, example = "web/shop-v2";
        /// Its own port. Left out: the route's.
        optional "port" port: PortRef, example = "http";
        /// Its share of the requests, in steps of 0.0001. Left out: 0, and for the first version what the others
        /// leave.
        optional "weight" weight: Share, example = 0.1;
        /// How many requests it may have at once for each of its usable pods: what is beyond goes to the first version. Not for
        /// the first. Left out: as many as come.
        optional "maxInFlightPerPod" max_in_flight_per_pod: Whole<u32, 1, 1_000_000>, example = 50;
    }
}
