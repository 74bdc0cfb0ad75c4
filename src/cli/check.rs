//! `serinus check` and `serinus schema`: the config file before it is in force.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{self, ConfigErrors, Discovery, Listener, Settings};
use crate::model::{
    Audience, Balance, ClientAuth, Edge, HashKey, MinTls, Moment, Protocol, RouteSpec, Timestamp, Traffic,
};
use crate::routing::{Compiler, RoutingTable};
use crate::state::Desired;

use super::CliError;
use super::app::statics;
use super::certificates::look_at_files;
use super::text::{align_right, percent, table, write_table};

/// Validates a config file and prints the routes it compiles to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus check config/serinus.yaml

Files of certificates that are here are read too; those that are not are only noted.
On error every error is printed as FILE:LINE:COL: field.path: what is wrong, and the exit status is 1.")]
pub(super) struct CheckArgs {
    /// The config file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Checks a config file.
///
/// # Errors
/// When it is refused: every reason.
pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let loaded = config::load_with_files(&args.file);
    let (settings, files) = loaded.map_err(|errors| CliError::Failed(errors.to_string()))?;
    let looked = look_at_files(&files, SystemTime::now());
    if !looked.errors.is_empty() {
        return Err(CliError::Failed(ConfigErrors::of(looked.errors).to_string()));
    }
    write_routes(&settings, &looked.notes, out)?;
    Ok(())
}

/// The table that a config compiles to, for `serinus explain --config`.
///
/// # Errors
/// When it is refused: every reason.
pub(super) fn compile(file: &Path) -> Result<RoutingTable, CliError> {
    let settings = config::load(file).map_err(|errors| CliError::Failed(errors.to_string()))?;
    let mut desired = Desired::default();
    let (touched, _) =
        desired.set_routes(settings.routes, statics(&settings.discovery), Timestamp::default());
    Ok(Compiler::default().compile(&desired, &touched, Moment::default()))
}

/// Prints the JSON Schema of the config file.
///
/// # Errors
/// When it cannot be written out.
pub(super) fn schema(out: &mut dyn Write) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(&config::schema()).map_err(|e| CliError::Failed(e.to_string()))?;
    writeln!(out, "{text}")?;
    Ok(())
}

fn write_routes(settings: &Settings, notes: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = table(&["ROUTE", "HOSTS", "PATHS", "VERSION", "WEIGHT", "SERVICE", "SELECTOR"]);
    for route in &settings.routes {
        for (i, (version, (_, weight))) in route.versions.iter().zip(route.weights()).enumerate() {
            let first = |text: String| if i == 0 { text } else { String::new() };
            let backend = version.backend.as_ref().unwrap_or(&route.backend);
            let port = backend.port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
            table.add_row([
                first(route.name.to_string()),
                first(all_or(route.hosts.iter().map(ToString::to_string))),
                first(all_or(route.paths.iter().map(ToString::to_string))),
                version.name.to_string(),
                percent(weight),
                format!("{}{port}", backend.service),
                version.selector.as_ref().map_or_else(|| "(the rest)".to_owned(), ToString::to_string),
            ]);
        }
    }
    let pods = |route: &RouteSpec| match &settings.discovery {
        Discovery::Static(statics) => statics.get(&route.backend.service).map_or(0, Vec::len),
        Discovery::Kubernetes(_) => 0,
    };
    let found = match &settings.discovery {
        Discovery::Static(_) => format!("{} pods by hand", settings.routes.iter().map(pods).sum::<usize>()),
        Discovery::Kubernetes(_) => "pods from Kubernetes".to_owned(),
    };
    let routes = match settings.routes.len() {
        1 => "1 route".to_owned(),
        n => format!("{n} routes"),
    };
    align_right(&mut table, [4]);
    write_table(&table, out)?;
    let listeners = settings.listeners.iter().filter_map(|l| Some((&l.name, listener(l)?)));
    for (i, (name, said)) in listeners.enumerate() {
        let line_end = if i == 0 { "\n" } else { "" };
        writeln!(out, "{line_end}Listener {name}: {said}")?;
    }
    let carried = settings.routes.iter().filter_map(|route| Some((&route.name, carried(route)?)));
    for (i, (name, said)) in carried.enumerate() {
        let line_end = if i == 0 { "\n" } else { "" };
        writeln!(out, "{line_end}Route {name}: {said}")?;
    }
    for (i, note) in notes.iter().enumerate() {
        let line_end = if i == 0 { "\n" } else { "" };
        writeln!(out, "{line_end}{note}")?;
    }
    writeln!(out, "\nThe config is valid: {routes}, {found}.")
}

/// What is special about a listener.
fn listener(listener: &Listener) -> Option<String> {
    let Edge { redirect, proxy_protocol, .. } = &listener.edge;
    let tls = listener.tls.as_ref().map(|tls| {
        let oldest = match tls.min_version {
            MinTls::Tls12 => "1.2",
            MinTls::Tls13 => "1.3",
        };
        let certificates = match tls.certificates.len() {
            1 => "1 certificate".to_owned(),
            n => format!("{n} certificates"),
        };
        let clients = match &tls.client_auth {
            Some(ClientAuth { required: true, .. }) => ", certificates of clients required",
            Some(ClientAuth { required: false, .. }) => ", certificates of clients asked for",
            None => "",
        };
        format!("TLS from {oldest} on with {certificates}{clients}")
    });
    let redirect = redirect.map(|r| format!("redirects to https, port {}, with {}", r.port, r.status));
    let plain = Edge { redirect: None, proxy_protocol: false, ..listener.edge.clone() };
    said([
        tls,
        redirect,
        proxy_protocol.then(|| "PROXY protocol".to_owned()),
        (plain != Edge::default()).then(|| "own limits".to_owned()),
    ])
}

/// What of a route's traffic is not the default.
fn carried(route: &RouteSpec) -> Option<String> {
    let (own, default) = (&route.traffic, Traffic::default());
    let balance = match &route.balance {
        Balance::LeastRequest => None,
        Balance::RoundRobin => Some("balance roundRobin".to_owned()),
        Balance::PeakEwma => Some("balance peakEwma".to_owned()),
        Balance::Hash(HashKey::Header(name)) => Some(format!("balance by header {name}")),
        Balance::Hash(HashKey::Cookie(name)) => Some(format!("balance by cookie {name}")),
        Balance::Hash(HashKey::ClientIp) => Some("balance by client".to_owned()),
    };
    let own_if = |different: bool, name: &str| different.then(|| format!("own {name}"));
    let Audience { rules, cohort } = &route.audience;
    let rules = match rules.len() {
        0 => None,
        1 => Some("1 rule".to_owned()),
        n => Some(format!("{n} rules")),
    };
    let users = cohort.as_ref().map(|cohort| match (&cohort.key, cohort.set) {
        (HashKey::Header(name), _) => format!("users by header {name}"),
        (HashKey::Cookie(name), false) => format!("users by cookie {name}"),
        (HashKey::Cookie(name), true) => format!("users by cookie {name}, set by Serinus"),
        (HashKey::ClientIp, _) => "users by client".to_owned(),
    });
    said([
        rules,
        users,
        balance,
        own.upstream_tls.as_ref().map(|tls| {
            let unchecked = if tls.insecure_skip_verify { ", certificates not checked" } else { "" };
            format!("TLS to the pods{unchecked}")
        }),
        own.protocol.map(|protocol| match protocol {
            Protocol::Http1 => "HTTP/1.1 to the pods".to_owned(),
            Protocol::H2c => "HTTP/2 to the pods".to_owned(),
        }),
        own.health_check.as_ref().map(|asked| format!("health check {}", asked.path)),
        own.slow_start.map(|_| "slow start".to_owned()),
        own.max_body.map(|bytes| format!("bodies up to {bytes} bytes")),
        own_if(own.timeouts != default.timeouts, "timeouts"),
        own_if(own.retries != default.retries, "retries"),
        own_if(own.outliers != default.outliers, "outliers"),
    ])
}

/// What is there, with commas; nothing for nothing.
fn said<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn all_or(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "(all)".to_owned() } else { items.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_said() {
        let mut out = Vec::new();
        check(&CheckArgs { file: "config/edge.yaml".into() }, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "Listener http: redirects to https, port 443, with 308",
            "Listener https: TLS from 1.2 on with 2 certificates",
            "Route shop: balance by cookie session, TLS to the pods, HTTP/2 to the pods, health check /healthz, slow \
             start, bodies up to 10485760 bytes, own retries",
        ] {
            assert!(out.lines().any(|said| said == line), "{line}: {out}");
        }
        let mut plain = Vec::new();
        check(&CheckArgs { file: "config/static.yaml".into() }, &mut plain).unwrap();
        assert!(!String::from_utf8(plain).unwrap().contains("Listener"), "what is as usual is not said");
    }

    #[test]
    fn a_config_alone_says_nothing_of_a_clusters_pods() {
        let table = compile(Path::new("config/serinus.yaml")).unwrap();
        let request = serde_json::from_str(r#"{"url": "http://shop.example.com/"}"#).unwrap();
        let why = crate::admin::explain(&table, &request).unwrap().why.join("\n");
        assert!(why.contains("version `v2`: 0.1 % by weight; its pods are not known"), "{why}");
        assert!(!why.contains("no usable pod") && !why.contains("503"), "{why}");
    }
}
