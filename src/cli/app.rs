//! Wires the rooms into a running router.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::{self, AdminOptions};
use crate::config::{self, ConfigErrors, Discovery, RequestLog, Settings};
use crate::control::{self, Begin, Control, RoutesConfig};
use crate::kubernetes::{self, ClusterAccess, Release, WatchEvent};
use crate::model::{ListenerTls, Problem, ServiceKey, StaticEndpoint};
use crate::proxy::{
    Drain, Gateway, GatewayOptions, PodConnector, Server, SetAside, Shutdown, Stop, check_health,
    watch_set_aside,
};
use crate::routing::tally::Unrouted;
use crate::telemetry::{AccessLog, Telemetry};
use crate::tls;
use crate::traces::Traces;

use super::certificates;
use super::handover::{GivenSocket, Taking};
use super::limits::Budget;
use super::service_events;
use super::sockets::Sockets;
use super::state;

/// How many endpoints that were set aside may wait to be looked at.
const SET_ASIDE: usize = 256;
/// How many events of the cluster may wait to be taken in.
const CLUSTER_EVENTS: usize = 256;

/// What runs beside the listeners, by name, and ends only with the router.
pub(super) type Background = Vec<(&'static str, JoinHandle<()>)>;

/// A running router.
#[derive(Debug)]
pub struct Router {
    listeners: Vec<(String, SocketAddr)>,
    admin: SocketAddr,
    pub(super) control: Control,
    telemetry: Arc<Telemetry>,
    pub(super) say_stop: watch::Sender<Stop>,
    pub(super) say_admin_stop: watch::Sender<Stop>,
    server: JoinHandle<usize>,
    admin_server: JoinHandle<()>,
    background: Background,
    /// Lets go of what this replica holds among the others.
    release: Option<Release>,
    /// What the next process may be given.
    pub(super) to_give: Vec<GivenSocket>,
    /// Waits for that process, and ends with its number.
    pub(super) giving: Option<JoinHandle<u32>>,
}

/// Why a router that runs is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This part of it broke off, which is a fault in it.
    Broken(&'static str),
    /// The process with this number has taken over.
    HandedOver(u32),
}

/// A router that has everything and serves nobody yet.
pub(super) struct Starting {
    settings: Settings,
    sockets: Sockets,
    pub(super) control: Control,
    telemetry: Arc<Telemetry>,
    access_log: Option<AccessLog>,
    traces: Option<Traces>,
    set_aside: mpsc::Sender<SetAside>,
    background: Background,
    release: Option<Release>,
    certificates: Arc<tls::Store>,
}

impl Starting {
    /// Gets everything ready that can fail. From the process `before`, where there is one, it takes the sockets; the state is
    /// that process's until it is handed over.
    pub(super) async fn prepare(
        settings: Settings,
        file: Option<PathBuf>,
        before: Option<&mut Taking>,
    ) -> anyhow::Result<Self> {
        let begin = if before.is_some() { Begin::AfterHandOver } else { Begin::AtOnce };
        let telemetry = Arc::new(Telemetry::new()?);
        if let Some(token_file) = &settings.admin.token_file {
            admin::check_token_file(token_file)?;
        }
        let certificates = certificates::load(listener_tls(&settings), &settings.routes).await?;
        let sockets = Sockets::open(&settings, &certificates, before).await?;
        let access_log = open_access_log(&settings.access_log)?;
        access_log.iter().for_each(|log| telemetry.count_dropped_lines(log));
        let traces = trace(settings.tracing.as_ref(), &telemetry)?;
        let cluster = connect(&settings.discovery).await?;
        let opened = state::open(&settings.state, begin)?;
        let (heard, events) = mpsc::channel(CLUSTER_EVENTS);
        let shared = opened.common.as_ref().map(|_| state::link(heard.clone()));
        let (store, ends) = shared.unzip();
        let (say_deeds, deeds) = service_events::channel();
        // Nothing fails from here on, save the threads that watch files.
        let (control, control_task) = control::start(control::Start {
            config: routes_config(&settings),
            saved: opened.saved,
            state_file: opened.file,
            store,
            telemetry: Arc::clone(&telemetry),
            service_events: cluster.as_ref().map(|_| say_deeds),
            begin,
        });
        control.listens_at(sockets.own_addresses()).await;
        opened.problems.iter().for_each(|problem| telemetry.problem_found(problem));
        control.set_problems("state", opened.problems).await;
        let mut background: Background = vec![("the control task", control_task)];
        background.extend(certificates::follow(&certificates, cluster.as_ref(), &control, &telemetry)?);
        if let Some(file) = file {
            telemetry.config_loaded(&file.display().to_string(), settings.routes.len());
            let (control, telemetry) = (control.clone(), Arc::clone(&telemetry));
            let following = follow_config(file, settings.clone(), control, certificates.clone(), telemetry)?;
            background.push(("the watch of the config file", tokio::spawn(following)));
        }
        let mut release = None;
        if let Some(client) = cluster {
            if let (Some(common), Some(ends)) = (&opened.common, ends) {
                let (tasks, let_go) = state::share(&client, common, ends, &telemetry);
                background.extend(tasks);
                release = Some(let_go);
            }
            background.extend(service_events::post(client.clone(), deeds, &control, &telemetry));
            background.extend(follow_cluster(client, heard, events, &control, &telemetry));
        }
        let (set_aside, watching_pods) = watch_pods(&control, certificates.connectors(), &telemetry);
        background.extend(watching_pods);
        Ok(Self {
            settings,
            sockets,
            control,
            telemetry,
            access_log,
            traces,
            set_aside,
            background,
            release,
            certificates,
        })
    }

    /// Serves.
    pub(super) fn serve(self) -> Router {
        let Self {
            settings,
            sockets,
            control,
            telemetry,
            access_log,
            traces,
            set_aside,
            background,
            release,
            certificates,
        } = self;
        let to_give = sockets.to_give(&settings);
        let budget = Budget::now(&settings);
        let Sockets { listeners, admin: admin_listener } = sockets;
        let unrouted = Arc::new(Unrouted::default());
        let addresses: Vec<_> = listeners.iter().map(|l| (l.name().to_owned(), l.address())).collect();
        for (listener, address) in &addresses {
            tracing::info!(listener, %address, "listening");
        }
        let (say_stop, stop) = Shutdown::new();
        let trusted_proxies = settings.trusted_proxies.clone();
        let options = GatewayOptions {
            access_log,
            traces,
            set_aside,
            unrouted: Arc::clone(&unrouted),
            trusted_proxies,
            connectors: Arc::clone(certificates.connectors()),
        };
        let gateway = Gateway::new(Arc::clone(control.table()), options);
        let drain = Drain { delay: settings.drain.delay, timeout: settings.drain.timeout };
        let server =
            Server::new(gateway, Arc::clone(&telemetry), drain).with_most_connections(budget.clients);
        let server = tokio::spawn(server.run(listeners, stop));

        let admin = admin_listener.address();
        tracing::info!(address = %admin, "admin API listening");
        let (say_admin_stop, mut admin_stop) = Shutdown::new();
        let admin_server = tokio::spawn(admin::serve(
            admin_listener,
            control.clone(),
            Arc::clone(&telemetry),
            unrouted,
            AdminOptions { token_file: settings.admin.token_file.clone(), connections: budget.admin },
            async move { drop(admin_stop.wait().await) },
        ));
        Router {
            listeners: addresses,
            admin,
            control,
            telemetry,
            say_stop,
            say_admin_stop,
            server,
            admin_server,
            background,
            release,
            to_give,
            giving: None,
        }
    }
}

impl Router {
    /// Starts a router with these settings; `file` is where they came from, to be watched for changes.
    ///
    /// # Errors
    /// When an address cannot be listened on, a listener's certificate, the state file or the token file cannot be used, or
    /// there is no way to the cluster: each says what to do.
    pub async fn start(settings: Settings, file: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(Starting::prepare(settings, file, None).await?.serve())
    }

    /// Each listener's name and where it listens.
    #[must_use]
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Where the admin API listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The router's control.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The router's own metrics.
    #[must_use]
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Waits until another process has taken over, or a part of the router ends that should not, which a fault in it does.
    /// Requests go on then, but the table may stay as it is for ever: stop, and let whoever started the router start it anew.
    pub async fn ended(&mut self) -> End {
        let stop = self.say_stop.clone();
        let broken = async {
            let part = first_to_end(&mut self.background).await;
            // What ends after the hand-over is not broken.
            if *stop.borrow() == Stop::Running { part } else { std::future::pending().await }
        };
        let handed_over = async {
            match self.giving.as_mut() {
                Some(giving) => giving.await,
                None => std::future::pending().await,
            }
        };
        let broken = tokio::select! {
            handed_over = handed_over => match handed_over {
                Ok(pid) => return End::HandedOver(pid),
                Err(_) => "the hand-over to a next process",
            },
            part = broken => part,
        };
        tracing::error!(part = broken, "a part of the router broke off");
        End::Broken(broken)
    }

    /// Has the stop that is under way, or that comes, wait for nothing any more.
    pub fn hurry(&self) -> impl FnOnce() + use<> {
        let (stop, admin_stop) = (self.say_stop.clone(), self.say_admin_stop.clone());
        move || {
            stop.send_replace(Stop::Now);
            admin_stop.send_replace(Stop::Now);
        }
    }

    /// Stops as on SIGTERM (semantics §4.5): unready at once, accepting for `drain.delay`, then until the last request has
    /// ended or `drain.timeout` has passed. Returns how many connections were cut.
    pub async fn stop(self) -> usize {
        self.control.readiness().stop();
        let is_first = self.say_stop.send_if_modified(|stop| {
            let first = *stop == Stop::Running;
            if first {
                *stop = Stop::Drain;
            }
            first
        });
        if is_first {
            tracing::info!(
                "stopping: unready now; connections are taken for drain.delay, requests end within drain.timeout"
            );
        }
        let cut = self.server.await.unwrap_or_default();
        // The admin API goes last, so that probes and metrics see the draining.
        self.say_admin_stop.send_replace(Stop::Drain);
        let _ = self.admin_server.await;
        if let Some(giving) = self.giving {
            giving.abort();
        }
        self.control.share_what_was_taken_back().await;
        if let Some(release) = self.release {
            release.now().await;
        }
        self.background.iter().for_each(|(_, task)| task.abort());
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "cut at the end of drain.timeout: raise it if requests take longer"
            );
        }
        tracing::info!("stopped");
        cut
    }
}

/// The name of the first of these that ends, in whatever way.
async fn first_to_end(tasks: &mut Background) -> &'static str {
    let ends = tasks.iter_mut().map(|(name, task)| {
        Box::pin(async move {
            let _ = task.await;
            *name
        })
    });
    futures::future::select_all(ends).await.0
}

/// The listeners that have TLS, by name.
fn listener_tls(settings: &Settings) -> BTreeMap<String, ListenerTls> {
    let tls = |listener: &config::Listener| Some((listener.name.clone(), listener.tls.clone()?));
    settings.listeners.iter().filter_map(tls).collect()
}

fn open_access_log(log: &config::AccessLog) -> anyhow::Result<Option<AccessLog>> {
    Ok(match log {
        config::AccessLog::Off => None,
        config::AccessLog::On(RequestLog { file: None, format, sample }) => {
            Some(AccessLog::stdout(*format, *sample))
        }
        config::AccessLog::On(RequestLog { file: Some(path), format, sample }) => {
            Some(AccessLog::file(path, *format, *sample)?)
        }
    })
}

fn trace(tracing: Option<&config::Tracing>, telemetry: &Arc<Telemetry>) -> anyhow::Result<Option<Traces>> {
    let start = |tracing: &config::Tracing| {
        Traces::start(&tracing.endpoint, tracing.sample, Arc::clone(telemetry))
            .context("requests cannot be traced")
    };
    tracing.map(start).transpose()
}

async fn connect(discovery: &Discovery) -> anyhow::Result<Option<kubernetes::Client>> {
    let Discovery::Kubernetes(settings) = discovery else { return Ok(None) };
    let access = ClusterAccess { kubeconfig: settings.kubeconfig.clone(), context: settings.context.clone() };
    Ok(Some(kubernetes::connect(&access).await?))
}

fn routes_config(settings: &Settings) -> RoutesConfig {
    RoutesConfig { routes: settings.routes.clone(), statics: statics(&settings.discovery) }
}

/// The pods that a config gives by hand, where it does.
pub(super) fn statics(discovery: &Discovery) -> Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>> {
    match discovery {
        Discovery::Static(statics) => Some(statics.clone()),
        Discovery::Kubernetes(_) => None,
    }
}

/// Watches the cluster, and hands what is heard to the control task.
fn follow_cluster(
    client: kubernetes::Client,
    heard: mpsc::Sender<WatchEvent>,
    mut events: mpsc::Receiver<WatchEvent>,
    control: &Control,
    telemetry: &Arc<Telemetry>,
) -> Background {
    let watching =
        tokio::spawn(kubernetes::watch(client, control.wanted_services(), heard, Arc::clone(telemetry)));
    let control = control.clone();
    let handing_on = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                WatchEvent::Change(change) => control.cluster(change).await,
                WatchEvent::Trouble { namespace, kind, problem } => {
                    control.trouble(namespace, kind, vec![problem]).await;
                }
                WatchEvent::Recovered { namespace, kind } => {
                    control.trouble(namespace, kind, Vec::new()).await
                }
                WatchEvent::Store(news) => control.store(news).await,
                WatchEvent::Refused(problems) => {
                    control.set_problems("the replicas' Leases", problems).await;
                }
                // They have a watch, or somebody, of their own.
                WatchEvent::Secret { .. } | WatchEvent::Lease(_) => {}
                WatchEvent::Objects { namespace, kind, problems } => {
                    let problems = problems.into_iter().map(|p| p.problem).collect();
                    control.bad_objects(namespace, kind, problems).await;
                }
            }
        }
    });
    vec![("the watch of the cluster", watching), ("the intake of cluster events", handing_on)]
}

/// Takes back the pods that were set aside, and checks the health of those that are to be checked. Whoever sets one aside says so
/// to the sender.
fn watch_pods(
    control: &Control,
    connectors: &Arc<tls::UpstreamConnectors>,
    telemetry: &Arc<Telemetry>,
) -> (mpsc::Sender<SetAside>, Background) {
    let (set_aside, heard) = mpsc::channel(SET_ASIDE);
    let to = control.clone();
    let changed = move |services: &[ServiceKey]| to.touched(services);
    let taking_back = tokio::spawn(watch_set_aside(heard, Arc::clone(telemetry), changed.clone()));
    let (table, connector) = (Arc::clone(control.table()), Arc::new(PodConnector(Arc::clone(connectors))));
    let checking = tokio::spawn(check_health(table, connector, Arc::clone(telemetry), changed));
    (set_aside, vec![("the taking back of pods", taking_back), ("the health checks", checking)])
}

/// Follows the config file: what validates comes into force, what does not changes nothing.
fn follow_config(
    file: PathBuf,
    mut running: Settings,
    control: Control,
    certificates: Arc<tls::Store>,
    telemetry: Arc<Telemetry>,
) -> std::io::Result<impl Future<Output = ()>> {
    let mut contents = config::watch(&file)?;
    Ok(async move {
        let started_with = running.clone();
        while let Some(content) = contents.next().await {
            let shown = file.display().to_string();
            match content {
                Ok(settings) if settings == running => {
                    // As it was, or back to it after an error.
                    control.set_problems("config", restart_needed(&started_with, &running)).await;
                }
                Ok(settings) => {
                    let problems = restart_needed(&started_with, &settings);
                    if discovery_kind_changed(&started_with, &settings) {
                        // Pods cannot come from elsewhere without a restart: the new routes would have none.
                        telemetry
                            .config_refused(&shown, "`discovery` changed its kind, which needs a restart");
                        control.set_problems("config", problems).await;
                        continue;
                    }
                    telemetry.config_loaded(&shown, settings.routes.len());
                    problems.iter().for_each(|problem| telemetry.problem_found(problem));
                    // First: a route that comes into force may need them at once.
                    certificates::want(&certificates, &settings.routes).await;
                    control.config(routes_config(&settings)).await;
                    control.set_problems("config", problems).await;
                    running = settings;
                }
                Err(errors) => {
                    telemetry.config_refused(&shown, &errors.to_string());
                    control.set_problems("config", vec![refused(&file, &errors)]).await;
                }
            }
        }
    })
}

fn refused(file: &Path, errors: &ConfigErrors) -> Problem {
    let first = errors.errors().first().map(ToString::to_string).unwrap_or_default();
    Problem::new(
        format!("the config file was refused, and the one before stays in force: {first}"),
        format!("`serinus check {}` prints every error", file.display()),
    )
}

fn discovery_kind_changed(before: &Settings, now: &Settings) -> bool {
    std::mem::discriminant(&before.discovery) != std::mem::discriminant(&now.discovery)
}

/// What of a changed config takes effect only at a restart.
fn restart_needed(before: &Settings, now: &Settings) -> Vec<Problem> {
    let discovery = match (&before.discovery, &now.discovery) {
        (Discovery::Static(_), Discovery::Static(_)) => false,
        (before, now) => before != now,
    };
    let changed = [
        ("listeners", before.listeners != now.listeners),
        ("admin", before.admin != now.admin),
        ("state", before.state != now.state),
        ("discovery", discovery),
        ("drain", before.drain != now.drain),
        ("accessLog", before.access_log != now.access_log),
        ("tracing", before.tracing != now.tracing),
        ("trustedProxies", before.trusted_proxies != now.trusted_proxies),
    ];
    let problem = |field: &str| {
        Problem::new(
            format!("`{field}` changed in the config file and takes effect only at a restart"),
            "restart when it suits you (`kubectl rollout restart`); routes and weights follow the file at once",
        )
    };
    changed.iter().filter(|(_, changed)| *changed).map(|(field, _)| problem(field)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_breaks_off_is_named() {
        let broken = tokio::spawn(async { panic!("on purpose") });
        let mut tasks = vec![("sound", tokio::spawn(std::future::pending())), ("broken", broken)];
        assert_eq!(first_to_end(&mut tasks).await, "broken");
    }
}
