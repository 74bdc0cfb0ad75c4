//! Keeps the certificates of a running router in step with files and Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::config::{ConfigError, NamedFiles};
use crate::control::Control;
use crate::kubernetes::{self, SecretNews, WatchEvent};
use crate::model::{CertificateSource, ListenerTls, PemSource, Problem, RouteSpec, UpstreamTls};
use crate::telemetry::Telemetry;
use crate::tls::{
    FileWatch, Finding, FindingKind, Hindrance, Loaded, Report, Store, inspect_authorities,
    inspect_certificate,
};

use super::app::Background;

/// How many events of Secrets may wait to be taken in.
const EVENTS: usize = 16;

/// How these routes want TLS towards their pods, each way once.
fn upstreams(routes: &[RouteSpec]) -> BTreeSet<UpstreamTls> {
    routes.iter().filter_map(|route| route.traffic.upstream_tls.clone()).collect()
}

/// Reads the certificates of listeners and routes, off the async threads.
///
/// # Errors
/// When a listener cannot have TLS: everything that is wrong.
pub(super) async fn load(
    listeners: BTreeMap<String, ListenerTls>,
    routes: &[RouteSpec],
) -> anyhow::Result<Arc<Store>> {
    let upstreams = upstreams(routes);
    let loading = tokio::task::spawn_blocking(move || {
        Store::new(listeners.iter().map(|(name, tls)| (name.as_str(), tls)), upstreams.iter())
    });
    Ok(loading.await??)
}

/// What a look at the files of certificates found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What cannot be used.
    pub(super) errors: Vec<ConfigError>,
    /// What is not here, or will not last; a line each.
    pub(super) notes: Vec<String>,
}

/// Looks at the files that a config names, as far as they are here.
pub(super) fn look_at_files(files: &[NamedFiles], now: SystemTime) -> Looked {
    let mut looked = Looked::default();
    for named in files {
        let (findings, places) = match named {
            NamedFiles::Certificate { cert, key } => {
                let source = CertificateSource::Files { cert: cert.path.clone(), key: key.path.clone() };
                (inspect_certificate(&source, now), vec![cert, key])
            }
            NamedFiles::Authorities(file) => {
                (inspect_authorities(&PemSource::File(file.path.clone())), vec![file])
            }
        };
        for Finding { file, kind, problem } in findings {
            let Some(place) = places.iter().find(|place| place.path == file) else { continue };
            match kind {
                FindingKind::Bad => looked.errors.push(place.error(&problem.to_string())),
                FindingKind::Aging => {
                    looked.notes.push(format!("Warning: {}", place.error(&problem.to_string())));
                }
                FindingKind::NotHere => {
                    // Without the files of a route, only that route lacks something.
                    let when = if place.field().starts_with("listeners") {
                        "at its start"
                    } else {
                        "for this route"
                    };
                    let said = format!("{}: {}; the router needs it {when}", problem.message, file.display());
                    looked.notes.push(format!("Note: {}", place.error(&said)));
                }
            }
        }
    }
    looked
}

/// What keeps certificates in step with their files and with the cluster, where there is one, and tells of them.
///
/// # Errors
/// When the system cannot start a thread.
pub(super) fn follow(
    store: &Arc<Store>,
    cluster: Option<&kubernetes::Client>,
    control: &Control,
    telemetry: &Arc<Telemetry>,
) -> std::io::Result<Background> {
    let files = store.follow_files()?;
    let reporting = report(Arc::clone(store), files, control.clone(), Arc::clone(telemetry));
    let mut background = vec![("the report of certificates", tokio::spawn(reporting))];
    if let Some(client) = cluster {
        let following = follow_secrets(client.clone(), Arc::clone(store), Arc::clone(telemetry));
        background.push(("the watch of Secrets", tokio::spawn(following)));
    }
    Ok(background)
}

/// These routes come into force: reads what they need, off the async threads.
pub(super) async fn want(store: &Arc<Store>, routes: &[RouteSpec]) {
    let (store, upstreams) = (Arc::clone(store), upstreams(routes));
    // Fails only when the reading broke off: then connections of these routes say what they lack.
    let _ = tokio::task::spawn_blocking(move || store.want(upstreams.iter())).await;
}

/// Tells of what becomes of certificates: in the log, in the metrics and in `status`. The files are looked after as long as
/// this runs.
async fn report(store: Arc<Store>, _files: FileWatch, control: Control, telemetry: Arc<Telemetry>) {
    let mut reports = store.reports();
    let mut told = Report::default();
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        tell(&telemetry, &told, &report);
        control.set_problems("tls", report.problems.clone()).await;
        told = (*report).clone();
        if reports.changed().await.is_err() {
            return;
        }
    }
}

fn tell(telemetry: &Telemetry, before: &Report, now: &Report) {
    let (old, new): (BTreeSet<&Problem>, BTreeSet<_>) =
        (before.problems.iter().collect(), now.problems.iter().collect());
    new.difference(&old).for_each(|problem| telemetry.problem_found(problem));
    old.difference(&new).for_each(|problem| telemetry.problem_gone(problem));
    let by_place = |report: &Report| -> BTreeMap<(String, String), Loaded> {
        let loaded = report.loaded.iter().cloned();
        loaded.map(|loaded| ((loaded.listener.clone(), loaded.source.clone()), loaded)).collect()
    };
    let (old, new) = (by_place(before), by_place(now));
    for (listener, source) in old.keys().filter(|place| !new.contains_key(*place)) {
        telemetry.certificate_dropped(listener, source);
    }
    for (place, loaded) in new.iter().filter(|(place, loaded)| old.get(*place) != Some(*loaded)) {
        telemetry.certificate_loaded(&place.0, &place.1, &loaded.names, loaded.not_after);
    }
}

/// Watches the Secrets that the store wants, and hands on what is heard.
async fn follow_secrets(client: kubernetes::Client, store: Arc<Store>, telemetry: Arc<Telemetry>) {
    let (heard, mut events) = mpsc::channel(EVENTS);
    let watching = kubernetes::watch_secrets(client, store.wanted_secrets(), heard, telemetry);
    let handing_on = async {
        while let Some(event) = events.recv().await {
            take_in(&store, event);
        }
    };
    tokio::join!(watching, handing_on);
}

fn take_in(store: &Store, event: WatchEvent) {
    let WatchEvent::Secret { key, news } = event else { return };
    match news {
        SecretNews::Data(data) => store.secret(&key, Some(data)),
        SecretNews::Gone => store.secret(&key, None),
        SecretNews::Trouble(problem) => store.secret_trouble(&key, Hindrance::Watch, problem),
        SecretNews::Unreadable(problem) => store.secret_trouble(&key, Hindrance::Content, problem),
    }
}
