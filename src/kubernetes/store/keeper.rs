//! Keeps this replica's Lease, and that of the leader where it is this one; tells how the replicas are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::kubernetes::access::Client;
use crate::kubernetes::supervisor::{LeaseNews, WatchEvent};
use crate::model::{RouteName, Timestamp};
use crate::state::{Peer, Replicas, Said, Standing, Standings, StoreNews};
use crate::telemetry::Telemetry;

use super::election::{Act, DEADLINE, DURATION, RENEW, Seen, act};
use super::leases::{LeaseRecord, ROLLOUTS, SERVES, labels, record, served};
use super::refusals::Refusals;
use super::{Common, tell};

/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How often this replica's Lease is renewed when there is nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often what was seen of rollouts is told, and which revisions are served, while that changes.
const EVIDENCE: Duration = Duration::from_secs(1);
/// How often that is looked at which only the time changes.
const LOOK: Duration = Duration::from_millis(500);
/// A Lease that was renewed longer ago than this when it is first heard of is of a replica that is gone, unless the clocks differ
/// by as much.
const LONG_GONE: Duration = Duration::from_secs(60);
/// After so long without a sign of life a replica's Lease is removed, and what it had seen of rollouts with it.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// How much is said of rollouts: Kubernetes takes 256 KiB of all annotations, and what is said of revisions has a bound of its own.
const LARGEST: usize = 200 * 1024;

pub(super) struct Keeper {
    client: Client,
    common: Common,
    said: watch::Receiver<Option<Arc<Said>>>,
    out: mpsc::Sender<WatchEvent>,
    telemetry: Arc<Telemetry>,
    refusals: Refusals,
    /// The name of this replica's Lease.
    name: Arc<str>,
    seen: BTreeMap<Arc<str>, Seen>,
    /// The Leases were listed once.
    listed: bool,
    /// When anything was heard of any Lease last: this one's own renewals are heard, too.
    heard: Instant,
    /// When the last renewal of the leader's Lease that went well began; nothing where another leads.
    renewed: Option<Instant>,
    /// When the election is looked at next.
    election_due: Instant,
    /// When this replica's Lease was written last, and what it said; nothing while another process of this replica has the state.
    written: Option<(Instant, Arc<Said>)>,
    /// It could not be written then.
    missed: bool,
    /// What the control task was told last.
    told: Replicas,
}

impl Keeper {
    pub(super) fn new(
        client: &Client,
        common: &Common,
        said: watch::Receiver<Option<Arc<Said>>>,
        out: mpsc::Sender<WatchEvent>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let now = Instant::now();
        // A name has at most 253 characters.
        let name: String = format!("{}-{}", common.key.name, common.me).chars().take(253).collect();
        Self {
            client: client.clone(),
            common: common.clone(),
            said,
            out,
            telemetry,
            refusals: Refusals::new(client, common),
            name: name.into(),
            seen: BTreeMap::new(),
            listed: false,
            heard: now,
            renewed: None,
            election_due: now,
            written: None,
            missed: false,
            told: Replicas::default(),
        }
    }

    /// Keeps them until it is told to let go, or nobody listens any more.
    pub(super) async fn run(
        mut self,
        mut leases: mpsc::Receiver<WatchEvent>,
        mut released: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                biased;
                _ = &mut released => break self.let_go().await,
                event = leases.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => break,
                },
                changed = self.said.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(LOOK) => {}
            }
            self.keep().await;
        }
    }

    async fn take(&mut self, event: WatchEvent) {
        let WatchEvent::Lease(news) = event else {
            // Trouble, and what does not decode.
            drop(self.out.send(event).await);
            return;
        };
        let now = Instant::now();
        self.heard = now;
        match news {
            LeaseNews::All(records) => {
                let mut before = std::mem::take(&mut self.seen);
                for record in records {
                    let before = before.remove(&record.name);
                    self.note(before, record, now);
                }
                self.listed = true;
            }
            LeaseNews::One(record) => self.see(record, now),
            LeaseNews::Gone(name) => drop(self.seen.remove(&name)),
        }
    }

    fn see(&mut self, record: LeaseRecord, now: Instant) {
        let before = self.seen.remove(&record.name);
        self.note(before, record, now);
    }

    fn note(&mut self, before: Option<Seen>, record: LeaseRecord, now: Instant) {
        // Of the leader's nobody judges by the clock of another.
        let by_clock = record.name != self.common.key.name;
        let name = Arc::clone(&record.name);
        self.seen.insert(name, see(before, record, now, by_clock));
    }

    /// Does what is due, and tells what that changes.
    async fn keep(&mut self) {
        if !self.listed {
            return;
        }
        let said = self.said.borrow_and_update().clone();
        match said {
            // Another process of this replica has the state, or nobody knows it yet.
            None => (self.renewed, self.written) = (None, None),
            Some(said) => {
                if self.is_due(&said) {
                    self.write(&said).await;
                }
                if Instant::now() >= self.election_due {
                    self.elect().await;
                }
            }
        }
        self.tell().await;
        self.refusals.tell(&self.out, &self.telemetry).await;
    }

    /// Whether this replica's Lease is to be written: what it serves of rollouts is told at once, the other revisions and what it has
    /// seen every second, and that it lives every few seconds.
    fn is_due(&self, now: &Arc<Said>) -> bool {
        let Some((at, said)) = &self.written else { return true };
        let age = at.elapsed();
        let serves = |standing: &Standing| (standing.place(), standing.revision);
        let (before, after) = (&said.standings, &now.standings);
        let same = before.len() == after.len()
            && before.iter().zip(after.iter()).all(|(a, b)| a.0 == b.0 && serves(a.1) == serves(b.1));
        let news = !same || age >= HEARTBEAT;
        if self.missed { age >= EVIDENCE } else { news || (age >= EVIDENCE && said != now) }
    }

    async fn write(&mut self, said: &Arc<Said>) {
        self.written = Some((Instant::now(), Arc::clone(said)));
        let now = jiff::Timestamp::now();
        // To the millisecond, so that it reads the same in both places.
        let now = jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        let renewed = Timestamp::from_millis(u64::try_from(now.as_millisecond()).unwrap_or_default());
        let annotations = BTreeMap::from([
            (ROLLOUTS.to_owned(), annotation(&said.standings)),
            (SERVES.to_owned(), served(renewed, &said.serves)),
        ]);
        let spec = LeaseSpec {
            holder_identity: Some(self.common.me.to_string()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        };
        let patch = json!({"metadata": {"annotations": annotations}, "spec": spec});
        let mut outcome = self.patch(&self.name.clone(), &patch).await;
        if outcome == Some(Outcome::Missing) {
            let lease = self.lease(&self.name, "replica", spec, Some(annotations));
            outcome = self.create(lease).await;
        }
        self.missed = outcome != Some(Outcome::Done);
    }

    async fn elect(&mut self) {
        let begun = Instant::now();
        self.election_due = begun + RENEW;
        if begun.saturating_duration_since(self.heard) > DEADLINE {
            // Who hears nothing of the Leases leaves them to others.
            self.renewed = None;
            return;
        }
        let leader = Arc::clone(&self.common.key.name);
        let seen = self.seen.get(&leader).cloned();
        let record = seen.as_ref().map(|seen| &seen.record);
        let now = MicroTime(jiff::Timestamp::now());
        let act = act(&self.common.me, seen.as_ref(), begun);
        let mut spec = LeaseSpec {
            holder_identity: Some(self.common.me.to_string()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(now.clone()),
            ..LeaseSpec::default()
        };
        let taken = match (act, record) {
            (Act::Wait, _) => None,
            (Act::Create, _) | (_, None) => {
                (spec.acquire_time, spec.lease_transitions) = (Some(now), Some(0));
                let lease = self.lease(&leader, "leader", spec, None);
                self.create(lease).await
            }
            (Act::Renew | Act::Take, Some(record)) => {
                if record.holder.as_ref() != Some(&self.common.me) {
                    let transitions = record.transitions.saturating_add(1);
                    (spec.acquire_time, spec.lease_transitions) = (Some(now), Some(transitions));
                }
                // Only if it is as it was read: another may take it in the same moment.
                let version = record.version.0.clone();
                self.patch(&leader, &json!({"metadata": {"resourceVersion": version}, "spec": spec})).await
            }
        };
        match taken {
            Some(Outcome::Done) => self.renewed = Some(begun),
            // It is another's, or nobody's: what the watch tells decides.
            Some(Outcome::Conflict | Outcome::Missing) => {
                self.renewed = None;
                self.read(&leader).await;
            }
            // It may be this one's still, until its time is up.
            None => {}
        }
        if seen.is_some_and(|seen| seen.holds(begun) && seen.record.holder.as_ref() != Some(&self.common.me))
        {
            self.renewed = None;
        }
        if self.renewed.is_some() {
            self.forget_the_gone().await;
        }
    }

    /// Removes the Leases of replicas that are long gone.
    async fn forget_the_gone(&mut self) {
        let now = Instant::now();
        let told = self.written.as_ref().map(|(_, said)| Arc::clone(said)).unwrap_or_default();
        let told = &told.standings;
        let counts = |seen: &Seen| {
            let mut theirs = seen.record.standings.iter();
            theirs.any(|(route, theirs)| told.get(route).is_some_and(|mine| theirs.is_of(mine.place())))
        };
        let gone = |(name, seen): (&Arc<str>, &Seen)| {
            // What it has seen of a rollout under way counts as long as that goes on: who takes evidence out changes the odds.
            if counts(seen) {
                return None;
            }
            let old = now.saturating_duration_since(seen.since) >= FORGOTTEN;
            (old && *name != self.common.key.name && *name != self.name).then(|| Arc::clone(name))
        };
        let gone: Vec<_> = self.seen.iter().filter_map(gone).collect();
        for name in gone {
            self.delete(&name).await;
        }
    }

    async fn tell(&mut self) {
        let now = Instant::now();
        // One that hears nothing of the Leases does not know who lives, and takes nothing forward.
        let leader = self.seen.get(&self.common.key.name).filter(|seen| seen.holds(now));
        let mine = leader.is_some_and(|seen| seen.record.holder.as_ref() == Some(&self.common.me));
        let until = self.renewed.filter(|_| mine).map(|renewed| renewed.min(self.heard) + DEADLINE);
        let others =
            self.seen.iter().filter(|(name, _)| **name != self.common.key.name && **name != self.name);
        let peers = others.map(|(name, seen)| Peer {
            name: self.replica(name),
            live: seen.holds(now),
            standings: Arc::clone(&seen.record.standings),
            serves: seen.record.serves.clone(),
        });
        let mine = self.seen.get(&self.name).map(|seen| Arc::clone(&seen.record.standings));
        let replicas = Replicas {
            me: Arc::clone(&self.common.me),
            leader: leader.and_then(|seen| seen.record.holder.clone()),
            leads_until: until.filter(|until| now < *until),
            mine: mine.unwrap_or_default(),
            peers: peers.collect(),
        };
        if replicas != self.told {
            self.told = replicas.clone();
            tell(&self.out, StoreNews::Replicas(replicas)).await;
        }
    }

    /// The name of the replica whose Lease has this name.
    fn replica(&self, lease: &Arc<str>) -> Arc<str> {
        let name = lease.strip_prefix(&*self.common.key.name).and_then(|rest| rest.strip_prefix('-'));
        name.map_or_else(|| Arc::clone(lease), Into::into)
    }

    /// Others need not wait until this replica's Leases have run out.
    async fn let_go(&mut self) {
        if self.written.is_none() {
            return;
        }
        let leader = Arc::clone(&self.common.key.name);
        let leads =
            self.seen.get(&leader).filter(|seen| seen.record.holder.as_ref() == Some(&self.common.me));
        if let Some(version) = leads.map(|seen| seen.record.version.0.clone()) {
            self.patch(
                &leader,
                &json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": null}}),
            )
            .await;
        }
        // What it has seen of rollouts under way counts on.
        let seen = self.written.as_ref().is_some_and(|(_, said)| !said.standings.is_empty());
        if seen {
            let said = self.said.borrow().clone().unwrap_or_default();
            let annotations = json!({ROLLOUTS: annotation(&said.standings)});
            let patch = json!({"metadata": {"annotations": annotations}, "spec": {"holderIdentity": null}});
            self.patch(&self.name.clone(), &patch).await;
        } else {
            self.delete(&self.name.clone()).await;
        }
    }

    fn lease(
        &self,
        name: &str,
        component: &str,
        spec: LeaseSpec,
        annotations: Option<BTreeMap<String, String>>,
    ) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels(&self.common, component)),
                annotations,
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.current(), &self.common.key.namespace)
    }

    async fn patch(&mut self, name: &str, patch: &Value) -> Option<Outcome> {
        let (api, params, patch) = (self.api(), PatchParams::default(), Patch::Merge(patch));
        self.answer("patch", tokio::time::timeout(ANSWER, api.patch(name, &params, &patch)).await).await
    }

    async fn create(&mut self, lease: Lease) -> Option<Outcome> {
        let (api, params) = (self.api(), PostParams::default());
        self.answer("create", tokio::time::timeout(ANSWER, api.create(&params, &lease)).await).await
    }

    async fn read(&mut self, name: &str) {
        let api = self.api();
        let Ok(answer) = tokio::time::timeout(ANSWER, api.get_opt(name)).await else { return };
        self.refusals.note("get", &answer);
        if let Ok(Some(lease)) = answer {
            self.see(record(lease), Instant::now());
        }
    }

    async fn delete(&mut self, name: &str) {
        let (api, params) = (self.api(), DeleteParams::default());
        // One that stays is removed another time.
        let Ok(answer) = tokio::time::timeout(ANSWER, api.delete(name, &params)).await else { return };
        self.refusals.note("delete", &answer);
    }

    /// What became of a write; nothing where nobody knows, or it was refused.
    async fn answer(
        &mut self,
        verb: &'static str,
        answer: Result<Result<Lease, kube::Error>, tokio::time::error::Elapsed>,
    ) -> Option<Outcome> {
        if let Ok(answer) = &answer {
            self.refusals.note(verb, answer);
        }
        match answer {
            Ok(Ok(lease)) => {
                self.see(record(lease), Instant::now());
                Some(Outcome::Done)
            }
            Ok(Err(kube::Error::Api(status))) => match status.code {
                409 => Some(Outcome::Conflict),
                404 => Some(Outcome::Missing),
                401 => {
                    self.client.renew().await;
                    None
                }
                _ => None,
            },
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Conflict,
    Missing,
}

/// A Lease as it is now heard of. One that is as before has not been renewed.
fn see(before: Option<Seen>, record: LeaseRecord, now: Instant, by_clock: bool) -> Seen {
    let since = match before {
        Some(before) if before.record.renewed == record.renewed && before.record.holder == record.holder => {
            before.since
        }
        Some(_) => now,
        None => {
            let clock = Timestamp::from(SystemTime::now()).millis();
            let age = record.renewed.map_or(0, |renewed| clock.saturating_sub(renewed.millis()));
            let gone = by_clock && u128::from(age) > LONG_GONE.as_millis();
            if gone { now.checked_sub(DURATION).unwrap_or(now) } else { now }
        }
    };
    Seen { record, since }
}

/// What is said of rollouts, as text: of as many as fit.
fn annotation(standings: &Standings) -> String {
    let mut size = 2;
    let fits = |(name, standing): &(&RouteName, &Standing)| {
        size += name.as_str().len() + 6 + serde_json::to_string(standing).map_or(0, |text| text.len());
        size <= LARGEST
    };
    let said: BTreeMap<_, _> = standings.iter().take_while(fits).collect();
    serde_json::to_string(&said).unwrap_or_default()
}
