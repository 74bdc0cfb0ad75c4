//! Owns the sources of certificates, and hands what is in them to those who use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::RootCertStore;
use tokio::sync::watch;

use crate::model::{ListenerTls, Problem, SecretData, SecretKey, Timestamp, UpstreamTls};

use super::authorities;
use super::listener::{Clients, ListenerCertificates};
use super::material::Material;
use super::report::{Hindrance, Loaded, Report, TlsErrors};
use super::source::Source;
use super::upstream::{Trust, UpstreamConnector, UpstreamConnectors, nameless};

/// The certificates of a router.
pub struct Store {
    listeners: BTreeMap<String, Arc<ListenerCertificates>>,
    connectors: Arc<UpstreamConnectors>,
    state: Mutex<State>,
    secrets: watch::Sender<Arc<BTreeSet<SecretKey>>>,
    report: watch::Sender<Arc<Report>>,
}

struct State {
    material: Material,
    listeners: BTreeMap<String, (ListenerTls, Arc<ListenerCertificates>)>,
    upstreams: HashMap<UpstreamTls, Arc<UpstreamConnector>>,
    /// Those that the settings in force name.
    wanted: BTreeSet<UpstreamTls>,
    /// What hinders the watches of Secrets.
    troubles: BTreeMap<(SecretKey, Hindrance), Problem>,
    /// What could not be put into force, by whom it is for.
    unusable: BTreeMap<String, Problem>,
    system: Option<Result<Arc<RootCertStore>, Problem>>,
}

impl Store {
    /// Reads what these listeners (by name) and routes name. Secrets come later, by [`Store::secret`]; until then, whoever
    /// needs one refuses handshakes. Reads files, and so may take a moment.
    ///
    /// # Errors
    /// When a listener's certificate, its key or its clients' authorities are in files and cannot be used: everything
    /// that is wrong with any of them. What is wrong with the files of routes is only a problem: it costs those routes alone.
    pub fn new<'a>(
        listeners: impl Iterator<Item = (&'a str, &'a ListenerTls)>,
        upstreams: impl Iterator<Item = &'a UpstreamTls>,
    ) -> Result<Arc<Self>, TlsErrors> {
        let now = SystemTime::now();
        let mut made = BTreeMap::new();
        for (name, tls) in listeners {
            let clients = if tls.client_auth.is_some() { Clients::NotYet } else { Clients::NotAsked };
            let certificates = ListenerCertificates::new(tls.min_version, &clients);
            let certificates = certificates.map_err(|problem| TlsErrors(vec![problem]))?;
            made.insert(name.to_owned(), (tls.clone(), Arc::new(certificates)));
        }
        let mut state = State {
            material: Material::default(),
            listeners: made,
            upstreams: HashMap::new(),
            wanted: BTreeSet::new(),
            troubles: BTreeMap::new(),
            unusable: BTreeMap::new(),
            system: None,
        };
        let secrets = state.want(upstreams.map(nameless).collect());
        let look = state.material.look(now);
        let errors = state.listener_errors(now);
        if !errors.is_empty() {
            return Err(TlsErrors(errors));
        }
        state.wire(&look.changed);
        let connectors = Arc::new(UpstreamConnectors::default());
        connectors.publish(state.upstreams.clone());
        let report = Arc::new(state.report(now));
        Ok(Arc::new(Self {
            listeners: state
                .listeners
                .iter()
                .map(|(name, (_, made))| (name.clone(), Arc::clone(made)))
                .collect(),
            connectors,
            state: Mutex::new(state),
            secrets: watch::Sender::new(Arc::new(secrets)),
            report: watch::Sender::new(report),
        }))
    }

    /// What a listener takes TLS connections with; nothing for one that has no TLS.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<Arc<ListenerCertificates>> {
        self.listeners.get(name).cloned()
    }

    /// What connections to pods are made with.
    #[must_use]
    pub fn connectors(&self) -> &Arc<UpstreamConnectors> {
        &self.connectors
    }

    /// The routes' ways of TLS are these from now on: call it before they come into force. Those of the last time stay usable,
    /// for requests that are under way with them. Reads files, and so may take a moment.
    pub fn want<'a>(&self, upstreams: impl Iterator<Item = &'a UpstreamTls>) {
        let now = SystemTime::now();
        let mut state = self.state();
        let secrets = state.want(upstreams.map(nameless).collect());
        let look = state.material.look(now);
        state.wire(&look.changed);
        self.connectors.publish(state.upstreams.clone());
        self.secrets.send_if_modified(|known| {
            let news = **known != secrets;
            if news {
                *known = Arc::new(secrets);
            }
            news
        });
        self.publish(&state, now);
    }

    /// The Secrets that somebody has to tell of, as they change.
    #[must_use]
    pub fn wanted_secrets(&self) -> watch::Receiver<Arc<BTreeSet<SecretKey>>> {
        self.secrets.subscribe()
    }

    /// What is in a Secret now; nothing when it does not exist (any more): then what was in it stays in use.
    pub fn secret(&self, key: &SecretKey, data: Option<Arc<SecretData>>) {
        let now = SystemTime::now();
        let mut state = self.state();
        let changed = state.material.secret(key, data, now);
        state.wire(&changed);
        self.publish(&state, now);
    }

    /// What is in the way of hearing of a Secret; nothing when that is over.
    pub fn secret_trouble(&self, key: &SecretKey, hindrance: Hindrance, problem: Option<Problem>) {
        let mut state = self.state();
        match problem {
            Some(problem) => state.troubles.insert((key.clone(), hindrance), problem),
            None => state.troubles.remove(&(key.clone(), hindrance)),
        };
        self.publish(&state, SystemTime::now());
    }

    /// What there is to know, as it changes: problems that come and go, certificates that are replaced.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// Each certificate in use, by its source, and its end.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, Timestamp)> {
        self.report.borrow().loaded.iter().map(|loaded| (loaded.source.clone(), loaded.not_after)).collect()
    }

    /// Reads the files that have changed, and looks at the clock. Returns whether to look again soon: something is in the middle of
    /// being replaced. [`Store::follow_files`] does this by itself.
    pub fn look(&self) -> bool {
        self.look_at(SystemTime::now())
    }

    pub(super) fn look_at(&self, now: SystemTime) -> bool {
        let mut state = self.state();
        let look = state.material.look(now);
        if matches!(state.system, Some(Err(_))) {
            // Installed since, perhaps.
            state.system = None;
        }
        state.wire(&look.changed);
        self.publish(&state, now);
        look.again
    }

    /// The directories in which a change of a file shows.
    pub(super) fn directories(&self) -> BTreeSet<PathBuf> {
        self.state().material.directories()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told under the lock, so that the last word is the last state.
    fn publish(&self, state: &State, now: SystemTime) {
        let new = state.report(now);
        self.report.send_if_modified(|report| {
            let news = **report != new;
            if news {
                *report = Arc::new(new);
            }
            news
        });
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("report", &self.report.borrow()).finish_non_exhaustive()
    }
}

/// Who uses certificates in `upstreamTls`, for messages.
const UPSTREAM: &str = "`upstreamTls` of a route";

impl State {
    /// Wants the sources of the listeners and of these routes; tells the Secrets among them.
    fn want(&mut self, upstreams: BTreeSet<UpstreamTls>) -> BTreeSet<SecretKey> {
        let before = std::mem::replace(&mut self.wanted, upstreams);
        let keep: BTreeSet<_> = before.union(&self.wanted).cloned().collect();
        self.upstreams.retain(|tls, _| keep.contains(tls));
        for tls in keep {
            let waiting =
                || Arc::new(UpstreamConnector::waiting("its certificates were not read yet".to_owned()));
            self.upstreams.entry(tls).or_insert_with(waiting);
        }
        let of_listeners = self.listeners.values().flat_map(|(tls, _)| sources_of_listener(tls));
        let wanted: BTreeSet<_> =
            of_listeners.chain(self.upstreams.keys().flat_map(sources_of_upstream)).collect();
        let secrets = self.material.want(&wanted);
        self.troubles.retain(|(key, _), _| secrets.contains(key));
        secrets
    }

    /// What keeps listeners from starting: all that is wrong with files; Secrets may come later.
    fn listener_errors(&self, now: SystemTime) -> Vec<Problem> {
        let mut errors = Vec::new();
        for source in self.listeners.values().flat_map(|(tls, _)| sources_of_listener(tls)) {
            let read = match &source {
                Source::Identity(source) => self.material.identity(source).is_some(),
                Source::Authorities(source) => self.material.authorities(source).is_some(),
            };
            if !read && source.secret().is_none() {
                let problems = self.material.problems(&source, &self.users(&source), now.into());
                errors.extend(problems.into_iter().filter(|p| !errors.contains(p)).collect::<Vec<_>>());
            }
        }
        errors
    }

    /// Hands on what is new in these sources. What does not use them stays as it is, with the sessions that can be resumed.
    fn wire(&mut self, changed: &BTreeSet<Source>) {
        let concerns = |sources: Vec<Source>| sources.iter().any(|source| changed.contains(source));
        for (name, (tls, certificates)) in &self.listeners {
            if !concerns(sources_of_listener(tls)) {
                continue;
            }
            let identities: Vec<_> = tls.certificates.iter().map(|s| self.material.identity(s)).collect();
            certificates.publish(&identities);
            let Some(auth) = &tls.client_auth else { continue };
            let authorities = self.material.authorities(&auth.ca);
            let (Some(authorities), true) =
                (authorities, concerns(vec![Source::Authorities(auth.ca.clone())]))
            else {
                continue;
            };
            let roots = Arc::clone(&authorities.roots);
            let clients = if auth.required { Clients::Required(roots) } else { Clients::Asked(roots) };
            let user = format!("listener `{name}`");
            match certificates.publish_clients(tls.min_version, &clients) {
                Ok(()) => self.unusable.remove(&user),
                Err(problem) => self.unusable.insert(user, problem),
            };
        }
        let concerned: Vec<_> = self
            .upstreams
            .iter()
            .filter(|(tls, connector)| !connector.is_ready() || concerns(sources_of_upstream(tls)))
            .map(|(tls, connector)| (tls.clone(), Arc::clone(connector)))
            .collect();
        for (tls, connector) in concerned {
            if let Err(why) = self.wire_upstream(&tls, &connector)
                && !connector.is_ready()
            {
                connector.wait(why);
            }
        }
    }

    fn wire_upstream(&mut self, tls: &UpstreamTls, connector: &UpstreamConnector) -> Result<(), String> {
        let absent =
            |source: Source| format!("{} is not there, or cannot be used (see `status`)", source.label());
        let trust = match &tls.ca {
            _ if tls.insecure_skip_verify => Trust::Anyone,
            Some(ca) => {
                let authorities = self.material.authorities(ca);
                Trust::Authorities(Arc::clone(
                    &authorities.ok_or_else(|| absent(Source::Authorities(ca.clone())))?.roots,
                ))
            }
            None => {
                let system = self.system.get_or_insert_with(authorities::of_system);
                Trust::Authorities(system.clone().map_err(|problem| problem.message)?)
            }
        };
        let identity = match &tls.client_certificate {
            Some(source) => {
                let identity = self.material.identity(source);
                Some(identity.ok_or_else(|| absent(Source::Identity(source.clone())))?)
            }
            None => None,
        };
        connector.publish(&trust, identity.as_deref()).map_err(|problem| problem.message)
    }

    fn report(&self, now: SystemTime) -> Report {
        let now = Timestamp::from(now);
        let mut problems = BTreeSet::new();
        let mut loaded = BTreeSet::new();
        for (listener, source) in self.sources() {
            problems.extend(self.material.problems(&source, &self.users(&source), now));
            if let Source::Identity(of) = &source
                && let Some(identity) = self.material.identity(of)
            {
                let (source, names) = (source.label(), identity.names.clone());
                loaded.insert(Loaded { listener, source, names, not_after: identity.not_after });
            }
        }
        problems.extend(self.troubles.values().chain(self.unusable.values()).cloned());
        problems.extend(self.system.iter().filter_map(|system| system.as_ref().err().cloned()));
        Report { problems: problems.into_iter().collect(), loaded: loaded.into_iter().collect() }
    }

    /// Every source in the settings in force, with the listener that names it; an empty one for routes.
    fn sources(&self) -> BTreeSet<(String, Source)> {
        let of_listeners = self
            .listeners
            .iter()
            .flat_map(|(name, (tls, _))| sources_of_listener(tls).into_iter().map(|s| (name.clone(), s)));
        let of_upstreams = self.wanted.iter().flat_map(sources_of_upstream).map(|s| (String::new(), s));
        of_listeners.chain(of_upstreams).collect()
    }

    /// Who uses a source, for messages.
    fn users(&self, source: &Source) -> String {
        let users = self.sources().into_iter().filter(|(_, other)| other == source).map(|(listener, _)| {
            if listener.is_empty() { UPSTREAM.to_owned() } else { format!("listener `{listener}`") }
        });
        users.collect::<Vec<_>>().join(", ")
    }
}

fn sources_of_listener(tls: &ListenerTls) -> Vec<Source> {
    let certificates = tls.certificates.iter().cloned().map(Source::Identity);
    let clients = tls.client_auth.iter().map(|auth| Source::Authorities(auth.ca.clone()));
    certificates.chain(clients).collect()
}

fn sources_of_upstream(tls: &UpstreamTls) -> Vec<Source> {
    // Where nothing is checked, the authorities do not matter.
    let ca = tls.ca.iter().filter(|_| !tls.insecure_skip_verify).cloned().map(Source::Authorities);
    ca.chain(tls.client_certificate.iter().cloned().map(Source::Identity)).collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
