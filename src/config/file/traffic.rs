//! The fields of a route that say how its requests are carried.

use std::path::PathBuf;

use serde_json::json;

use super::listener::CertificateFile;
use crate::config::errors::{Errors, Place, shorten};
use crate::config::hints::{list, nearest};
use crate::config::input::{Field, Input, Marked, object, wrong_type};
use crate::config::names::{CookieName, HeaderName, Host, ServerName, Target};
use crate::config::numbers::{Limit, Pause, Percent, Port, RetryStatus, Size, Whole};
use crate::config::yaml::{Node, Value};
use crate::model::{Balance, HashKey, SecretKey, Share};

object! {
    /// The time limits of a route.
    TimeoutsFile "timeouts", later [] {
        /// For a connection to a pod, TLS included; another pod is tried then.
        optional "connect" connect: Limit, default = "1s", example = "250ms";
        /// From a request, or the last piece of its body, to the head of its answer, of each attempt: 504 then.
        optional "request" request: Limit, default = "1m", example = "10s";
        /// Between two pieces of an answer, and between two that a pod takes of a request.
        optional "idle" idle: Limit, default = "1m", example = "5m";
        /// From a request to the end of its answer; never for upgraded connections, `text/event-stream` and gRPC. Left out:
        /// no limit.
        optional "total" total: Limit, example = "5m";
        /// How long an upgraded connection (WebSocket) may be without a byte in either direction.
        optional "upgradedIdle" upgraded_idle: Limit, default = "1h", example = "10m";
    }
}

object! {
    /// Which requests are tried again.
    RetriesFile "retries", later [] {
        /// How many pods a request is tried on at most, the first included; 1 for no second try.
        optional "attempts" attempts: Whole<u8, 1, 10>, default = 4, example = 2;
        /// The statuses for which a request is tried again, if it is idempotent and its body was kept. Left out: none.
        optional "on" on: Vec<Marked<RetryStatus>>, example = [502, 503];
        /// The longest body that is kept to be sent again.
        optional "buffer" buffer: Size<u64, 0, { 16 << 20 }>, default = "64KiB", example = "1MiB";
        /// How many requests may be on a further try at once, in percent of those in flight.
        optional "budget" budget: Percent, default = 20, example = 10;
        /// How many may always be, however few are in flight.
        optional "least" least: Whole<u32, 0, 10_000>, default = 3, example = 10;
    }
}

object! {
    /// When a pod that fails is set aside.
    OutliersFile "outliers", later [] {
        /// After so many failures in a row; 0 for never.
        optional "consecutiveFailures" consecutive_failures: Whole<u32, 0, 1_000>, default = 5, example = 3;
        /// Whether an answer of 500 or more is a failure. Connections that fail, break or time out always are.
        optional "count5xx" count_5xx: bool, default = false, example = true;
        /// When its success rate is below this part of that of the others of its version. Left out: never.
        optional "successRate" success_rate: Share, example = 80;
        /// For how long at the first time; each further time for as long once more.
        optional "eject" eject: Pause, default = "10s", example = "30s";
        /// For how long at most. Left out: 5m, or `eject` where that is longer.
        optional "longest" longest: Pause, example = "10m";
        /// How much of a version may be set aside at once, in percent, and never its last pod. When more is, because health
        /// checks fail or pods are gone, all are used.
        optional "most" most: Percent, default = 50, example = 30;
    }
}

object! {
    /// How pods are asked whether they are well: with GET. A status from 200 to 399 is well.
    HealthCheckFile "health check", later [] {
        /// What is asked for.
        optional "path" path: Target, default = "/", example = "/healthz";
        /// The `Host` of the question. Left out: the pod's address.
        optional "host" host: Host, example = "shop.example.com";
        /// The port. Left out: the one that requests go to.
        optional "port" port: Port, example = 8081;
        /// How long between two questions.
        optional "interval" interval: Pause, default = "5s", example = "10s";
        /// How long an answer may take.
        optional "timeout" timeout: Limit, default = "1s", example = "500ms";
        /// How many bad answers in a row make a pod unhealthy.
        optional "unhealthy" unhealthy: Whole<u32, 1, 100>, default = 3, example = 2;
        /// How many good answers in a row make it healthy again.
        optional "healthy" healthy: Whole<u32, 1, 100>, default = 2, example = 1;
    }
}

object! {
    /// TLS towards the pods.
    UpstreamTlsFile "upstream TLS", later [] {
        /// The name that a pod's certificate must have, also sent as SNI. Left out: the route's first exact host, else
        /// `NAME.NAMESPACE.svc` of the Service.
        optional "serverName" server_name: ServerName, example = "shop.internal";
        /// The authorities that may sign it, in PEM. Left out, and no `caSecret`: those of the system.
        optional "caFile" ca_file: PathBuf, example = "/etc/serinus/pods-ca.crt";
        /// A Secret with these authorities as `ca.crt`; only with `discovery.kubernetes`.
        optional "caSecret" ca_secret: SecretKey, example = "web/pods-ca";
        /// What Serinus shows to a pod that asks.
        optional "certificate" certificate: CertificateFile,
            example = {"certFile": "/etc/serinus/client.crt", "keyFile": "/etc/serinus/client.key"};
        /// Whether any certificate will do: encrypted, but whoever answers is believed. Not with `caFile` or `caSecret`.
        optional "insecureSkipVerify" insecure_skip_verify: bool, default = false, example = true;
    }
}

object! {
    /// Always the same pod for the same key.
    BalanceFile "balance", later [] {
        /// What the key is: `clientIp`, or a header or cookie. A request without that header or cookie, or with an empty one, goes
        /// as by `leastRequest`.
        required "hash" hash: HashKey, example = "clientIp";
    }
}

object! {
    /// A header or a cookie.
    HashFile "key", later [] {
        /// The value of this header.
        optional "header" header: HeaderName, example = "X-User";
        /// The value of this cookie.
        optional "cookie" cookie: CookieName, example = "session";
    }
}

const BALANCES: [&str; 4] = ["leastRequest", "roundRobin", "peakEwma", "hash"];
const HASH: &str =
    "write what is hashed, like {hash: {cookie: session}}, {hash: {header: X-User}} or {hash: clientIp}";

impl Input for Balance {
    fn schema() -> serde_json::Value {
        json!({
            "title": "leastRequest | roundRobin | peakEwma | {hash}",
            "anyOf": [{"enum": ["leastRequest", "roundRobin", "peakEwma"]}, BalanceFile::schema()],
        })
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let text = match &node.value {
            Value::Map(_) => {
                return BalanceFile::read(node, place, errors)?.hash.value().cloned().map(Balance::Hash);
            }
            Value::Text(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Null | Value::Refused(_) => {
                wrong_type(node, &format!("one of {}", list(&BALANCES)), place, errors);
                return None;
            }
        };
        let message = match text.as_str() {
            "leastRequest" => return Some(Balance::LeastRequest),
            "roundRobin" => return Some(Balance::RoundRobin),
            "peakEwma" => return Some(Balance::PeakEwma),
            "hash" => format!("`hash` alone does not say of what: {HASH}"),
            text => match nearest(text, &BALANCES) {
                Some(near) => format!("`{}` is not known: did you mean `{near}`?", shorten(text, 80)),
                None => format!("`{}` is not known: use one of {}", shorten(text, 80), list(&BALANCES)),
            },
        };
        errors.add(place, message);
        None
    }
}

impl Input for HashKey {
    fn schema() -> serde_json::Value {
        json!({"title": "clientIp | {header} | {cookie}", "anyOf": [{"enum": ["clientIp"]}, HashFile::schema()]})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        match &node.value {
            Value::Map(_) => {}
            Value::Text(text) if text == "clientIp" => return Some(HashKey::ClientIp),
            Value::Text(_)
            | Value::Bool(_)
            | Value::Number(_)
            | Value::List(_)
            | Value::Null
            | Value::Refused(_) => {
                wrong_type(node, "one of `clientIp`, `{header: NAME}`, `{cookie: NAME}`", place, errors);
                return None;
            }
        }
        let HashFile { header, cookie } = HashFile::read(node, place, errors)?;
        match (header, cookie) {
            (Field::Given(header), Field::Absent) => return Some(HashKey::Header(header.value.0)),
            (Field::Absent, Field::Given(cookie)) => return Some(HashKey::Cookie(cookie.value.0)),
            // What is wrong with it has been said.
            (Field::Bad, _) | (_, Field::Bad) => {}
            (Field::Given(_), Field::Given(_)) => {
                errors.add(place, "says more than one thing: give one of `header`, `cookie`");
            }
            (Field::Absent, Field::Absent) => {
                errors.add(place, format!("says nothing: {HASH}"));
            }
        }
        None
    }
}
