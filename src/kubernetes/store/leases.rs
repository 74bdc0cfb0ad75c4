//! Leases: the one of the replica that takes rollouts forward, and one of each replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};

use crate::kubernetes::kinds::{Conversion, Names, Selection, Watched, config};
use crate::kubernetes::supervisor::{LeaseNews, WatchEvent};
use crate::model::{ClusterKind, Namespace, ServiceKey, Timestamp};
use crate::state::{Serves, Standings, Version};

use super::Common;

/// The annotation with what a replica says of the rollouts under way.
pub(super) const ROLLOUTS: &str = "serinus/rollouts";
/// The annotation with the revisions that a replica serves. Releases before it said nothing of them, and do not look at it.
pub(super) const SERVES: &str = "serinus/serves";

/// The text of that annotation.
#[derive(Debug, Serialize, Deserialize)]
struct Served<T> {
    /// When the Lease was renewed with it. A process that does not know the annotation renews the Lease and leaves it as it is: what
    /// another one said before is not what that one serves.
    renewed: Timestamp,
    #[serde(flatten)]
    serves: T,
}

/// What a replica serves when it renews its Lease, as the text of [`SERVES`].
pub(super) fn served(renewed: Timestamp, serves: &Serves) -> String {
    serde_json::to_string(&Served { renewed, serves }).unwrap_or_default()
}

const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";
const COMPONENT: &str = "app.kubernetes.io/component";

/// The labels of what belongs to a common state.
pub(super) fn labels(common: &Common, component: &str) -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    [label(NAME, "serinus"), label(INSTANCE, &common.key.name), label(COMPONENT, component)].into()
}

/// A Lease as it was last heard of.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRecord {
    /// The Lease's name.
    pub(super) name: Arc<str>,
    pub(super) version: Version,
    /// Who holds it; nothing when nobody does.
    pub(super) holder: Option<Arc<str>>,
    /// When its holder says that it was renewed, by its own clock.
    pub(super) renewed: Option<Timestamp>,
    /// How often it had another holder.
    pub(super) transitions: i32,
    /// What its holder says of the rollouts under way.
    pub(super) standings: Arc<Standings>,
    /// The revisions that its holder serves; nothing where that does not say so.
    pub(super) serves: Option<Arc<Serves>>,
}

/// The watch of the Leases.
pub(super) struct Leases;

impl Watched for Leases {
    type Object = Lease;
    type Kept = LeaseRecord;
    type Change = LeaseNews;
    const KIND: ClusterKind = ClusterKind::Leases;

    /// The only name is that of the common state.
    fn selection(names: &Names) -> Selection {
        let state = names.first().map(AsRef::as_ref).unwrap_or_default();
        Selection {
            config: config().labels(&format!("{NAME}=serinus,{INSTANCE}={state}")),
            names: Names::new(),
        }
    }

    fn service(_: &Namespace, _: &impl kube::Resource) -> Option<ServiceKey> {
        None
    }

    fn convert(_: &Namespace, object: Lease) -> Conversion<LeaseRecord> {
        Conversion { kept: Some(record(object)), problem: None }
    }

    fn whole(_: &Namespace, _: &Names, all: Vec<LeaseRecord>) -> LeaseNews {
        LeaseNews::All(all)
    }

    fn applied(kept: &LeaseRecord) -> LeaseNews {
        LeaseNews::One(kept.clone())
    }

    fn deleted(kept: &LeaseRecord) -> LeaseNews {
        LeaseNews::Gone(Arc::clone(&kept.name))
    }
}

impl From<LeaseNews> for WatchEvent {
    fn from(news: LeaseNews) -> Self {
        Self::Lease(news)
    }
}

/// What there is of a Lease. What a replica of another version says, and cannot be read, is nothing said.
pub(super) fn record(object: Lease) -> LeaseRecord {
    let spec = object.spec.unwrap_or_default();
    let said = |name| object.metadata.annotations.as_ref()?.get(name);
    let mut standings: Standings =
        said(ROLLOUTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    standings.retain(|_, standing| standing.judge.is_plausible());
    let millis = |time: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime| {
        u64::try_from(time.0.as_millisecond()).unwrap_or_default()
    };
    let renewed = spec.renew_time.map(millis).map(Timestamp::from_millis);
    let served: Option<Served<Serves>> = said(SERVES).and_then(|text| serde_json::from_str(text).ok());
    let serves =
        served.filter(|served| Some(served.renewed) == renewed).map(|served| Arc::new(served.serves));
    LeaseRecord {
        name: object.metadata.name.unwrap_or_default().into(),
        version: Version(object.metadata.resource_version.unwrap_or_default().into()),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()).map(Into::into),
        renewed,
        transitions: spec.lease_transitions.unwrap_or_default(),
        standings: Arc::new(standings),
        serves,
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
