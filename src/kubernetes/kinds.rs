//! The kinds that are watched for routing: what is asked for, and what is made of it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;

use crate::model::{ClusterChange, ClusterKind, Namespace, Pod, Problem, Service, ServiceKey, Slice};

use super::convert::{self, SERVICE_NAME};
use super::faults::Place;
use super::supervisor::{ObjectProblem, WatchEvent};

/// The names of the wanted Services of one namespace.
pub(super) type Names = BTreeSet<Arc<str>>;

/// A label selector is part of a URL; beyond this many names everything is asked for and sorted out here.
const MOST_NAMES_IN_A_SELECTOR: usize = 50;

/// What a watch asks for: when it changes, the watch starts anew.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    /// What the API server is asked for.
    pub(super) config: watcher::Config,
    /// The names that are picked from what it tells; everything for Pods.
    pub(super) names: Names,
}

/// What is made of an object.
pub(super) struct Conversion<T> {
    /// What is kept of it.
    pub(super) kept: Option<T>,
    /// What is wrong with it.
    pub(super) problem: Option<Problem>,
}

/// A kind of object that is watched.
pub(super) trait Watched: Send + Sync + 'static {
    /// The object of the API.
    type Object: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static;
    /// What is kept of it.
    type Kept: Clone + PartialEq + Debug + Send + Sync;
    /// What is told of it.
    type Change: PartialEq + Debug + Into<WatchEvent> + Send;
    const KIND: ClusterKind;
    /// Whether nothing of what is in an object may be in a message.
    const CONFIDENTIAL: bool = false;

    /// What to ask for.
    fn selection(names: &Names) -> Selection;
    /// The Service that an object is about; it may have decoded no further than its metadata.
    fn service(namespace: &Namespace, object: &impl kube::Resource) -> Option<ServiceKey>;
    /// What to keep of an object.
    fn convert(namespace: &Namespace, object: Self::Object) -> Conversion<Self::Kept>;
    /// A whole list of what was asked for.
    fn whole(namespace: &Namespace, names: &Names, all: Vec<Self::Kept>) -> Self::Change;
    /// One was added or changed.
    fn applied(kept: &Self::Kept) -> Self::Change;
    /// One was deleted.
    fn deleted(kept: &Self::Kept) -> Self::Change;

    /// A watch has trouble, or none any more.
    fn trouble(place: &Place, problem: Option<Problem>) -> WatchEvent {
        let (namespace, kind) = (Arc::clone(&place.namespace), Self::KIND);
        match problem {
            Some(problem) => WatchEvent::Trouble { namespace, kind, problem },
            None => WatchEvent::Recovered { namespace, kind },
        }
    }

    /// These objects cannot be used as they are, and no others.
    fn objects(place: &Place, problems: Vec<ObjectProblem>) -> WatchEvent {
        WatchEvent::Objects { namespace: Arc::clone(&place.namespace), kind: Self::KIND, problems }
    }
}

/// Watches end after this long by themselves and start again where they were, like those of other clients.
const WATCH_SECONDS: u32 = 285;

pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

pub(super) struct Services;

impl Watched for Services {
    type Object = core::Service;
    type Kept = (ServiceKey, Service);
    type Change = ClusterChange;
    const KIND: ClusterKind = ClusterKind::Services;

    fn selection(names: &Names) -> Selection {
        let config = match (names.len(), names.first()) {
            (1, Some(name)) => config().fields(&format!("metadata.name={name}")),
            _ => config(),
        };
        Selection { config, names: names.clone() }
    }

    fn service(namespace: &Namespace, object: &impl kube::Resource) -> Option<ServiceKey> {
        Some(ServiceKey::new(Arc::clone(namespace), object.meta().name.as_deref()?))
    }

    fn convert(namespace: &Namespace, object: core::Service) -> Conversion<Self::Kept> {
        let kept = Self::service(namespace, &object).map(|key| (key, convert::service(&object)));
        Conversion { kept, problem: None }
    }

    fn whole(namespace: &Namespace, _: &Names, all: Vec<Self::Kept>) -> ClusterChange {
        ClusterChange::Services(Arc::clone(namespace), all)
    }

    fn applied((key, service): &Self::Kept) -> ClusterChange {
        ClusterChange::ServiceApplied(key.clone(), service.clone())
    }

    fn deleted((key, _): &Self::Kept) -> ClusterChange {
        ClusterChange::ServiceDeleted(key.clone())
    }
}

pub(super) struct Slices;

impl Watched for Slices {
    type Object = EndpointSlice;
    type Kept = Slice;
    type Change = ClusterChange;
    const KIND: ClusterKind = ClusterKind::EndpointSlices;

    fn selection(names: &Names) -> Selection {
        let labels = match (names.len(), names.first()) {
            (1, Some(name)) => format!("{SERVICE_NAME}={name}"),
            (2..=MOST_NAMES_IN_A_SELECTOR, _) => {
                let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
                format!("{SERVICE_NAME} in ({})", names.join(","))
            }
            _ => SERVICE_NAME.to_owned(),
        };
        Selection { config: config().labels(&labels), names: names.clone() }
    }

    fn service(namespace: &Namespace, object: &impl kube::Resource) -> Option<ServiceKey> {
        let name = object.meta().labels.as_ref()?.get(SERVICE_NAME)?;
        Some(ServiceKey::new(Arc::clone(namespace), name.as_str()))
    }

    fn convert(namespace: &Namespace, object: EndpointSlice) -> Conversion<Slice> {
        let Some(service) = Self::service(namespace, &object) else {
            return Conversion { kept: None, problem: None };
        };
        let (kept, problem) = convert::slice(namespace, service, &object);
        Conversion { kept, problem }
    }

    fn whole(namespace: &Namespace, _: &Names, all: Vec<Slice>) -> ClusterChange {
        ClusterChange::Slices(Arc::clone(namespace), all)
    }

    fn applied(kept: &Slice) -> ClusterChange {
        ClusterChange::SliceApplied(kept.clone())
    }

    fn deleted(kept: &Slice) -> ClusterChange {
        ClusterChange::SliceDeleted(kept.service.clone(), Arc::clone(&kept.name))
    }
}

pub(super) struct Pods;

impl Watched for Pods {
    /// Metadata only: specs and statuses of pods are not transferred.
    type Object = PartialObjectMeta<core::Pod>;
    type Kept = Pod;
    type Change = ClusterChange;
    const KIND: ClusterKind = ClusterKind::Pods;

    fn selection(_: &Names) -> Selection {
        Selection { config: config(), names: Names::new() }
    }

    fn service(_: &Namespace, _: &impl kube::Resource) -> Option<ServiceKey> {
        None
    }

    fn convert(namespace: &Namespace, object: PartialObjectMeta<core::Pod>) -> Conversion<Pod> {
        Conversion { kept: Some(convert::pod(namespace, object)), problem: None }
    }

    fn whole(namespace: &Namespace, _: &Names, all: Vec<Pod>) -> ClusterChange {
        ClusterChange::Pods(Arc::clone(namespace), all)
    }

    fn applied(kept: &Pod) -> ClusterChange {
        ClusterChange::PodApplied(kept.clone())
    }

    fn deleted(kept: &Pod) -> ClusterChange {
        ClusterChange::PodDeleted(kept.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        let one = names(&["shop"]);
        assert_eq!(Services::selection(&one).config.field_selector.as_deref(), Some("metadata.name=shop"));
        let slices = Slices::selection(&one).config.label_selector.unwrap();
        assert_eq!(slices, "kubernetes.io/service-name=shop");
        let two = names(&["shop", "cart"]);
        assert_eq!(Services::selection(&two).config.field_selector, None);
        let slices = Slices::selection(&two).config.label_selector.unwrap();
        assert_eq!(slices, "kubernetes.io/service-name in (cart,shop)");
        assert_eq!(Pods::selection(&one), Pods::selection(&two));
    }

    #[test]
    fn a_selector_is_no_longer_than_a_url_may_be() {
        let many: Names = (0..51).map(|n| format!("s{n}").into()).collect();
        let slices = Slices::selection(&many).config.label_selector.unwrap();
        assert_eq!(slices, "kubernetes.io/service-name");
    }
}
