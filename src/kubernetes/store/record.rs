//! The common state as a ConfigMap: a key for each route, with JSON that people can read.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::kubernetes::faults::Place;
use crate::kubernetes::kinds::{Conversion, Names, Selection, Watched, config};
use crate::kubernetes::supervisor::{ObjectProblem, WatchEvent};
use crate::model::{ClusterKind, Namespace, Problem, RouteName, ServiceKey};
use crate::state::{SAVED_FORMAT, SavedRoute, Snapshot, StoreNews, Version};

/// The key of the format's number.
const FORMAT: &str = "format";
/// What the keys of routes begin with.
const ROUTE: &str = "route.";
/// How much a ConfigMap may hold: Kubernetes takes 1 MiB with all that is around it.
pub(super) const LARGEST: usize = 960 * 1024;

/// The texts of routes, each under its key.
pub(super) type Data = BTreeMap<String, String>;

/// The keys and texts of these routes.
pub(super) fn data(routes: &BTreeMap<RouteName, Arc<SavedRoute>>) -> Data {
    let text = |route: &SavedRoute| serde_json::to_string(route).unwrap_or_default();
    let keys = routes.iter().map(|(name, route)| (format!("{ROUTE}{name}"), text(route)));
    keys.chain([(FORMAT.to_owned(), SAVED_FORMAT.to_string())]).collect()
}

/// How much that is.
pub(super) fn size(data: &Data) -> usize {
    data.iter().map(|(key, text)| key.len() + text.len()).sum()
}

/// Fits them into a ConfigMap: with fewer and fewer of the last revisions of each route.
///
/// # Errors
/// When not even one of each fits: how much that is.
pub(super) fn fitted(data: &Data) -> Result<Data, usize> {
    let mut size_at_last = 0;
    for kept in [10, 5, 2, 1] {
        let cut = |text: &String| {
            let Ok(mut route) = serde_json::from_str::<SavedRoute>(text) else { return text.clone() };
            let surplus = route.history.len().saturating_sub(kept);
            route.history.drain(..surplus);
            serde_json::to_string(&route).unwrap_or_default()
        };
        let smaller: Data = data.iter().map(|(key, text)| (key.clone(), cut(text))).collect();
        size_at_last = size(&smaller);
        if size_at_last <= LARGEST {
            return Ok(smaller);
        }
    }
    Err(size_at_last)
}

/// What a ConfigMap holds, and what of it cannot be read.
///
/// # Errors
/// When a later version wrote it.
pub(super) fn snapshot(object: &ConfigMap) -> Result<(Snapshot, Vec<String>), Problem> {
    let version = object.metadata.resource_version.as_deref().map(|version| Version(version.into()));
    let mut snapshot = Snapshot { version, routes: BTreeMap::new() };
    let mut unread = Vec::new();
    let data = object.data.iter().flatten();
    for (key, text) in data {
        if key == FORMAT {
            if text.trim().parse::<u32>().is_ok_and(|format| format > SAVED_FORMAT) {
                return Err(Problem::new(
                    format!(
                        "the replicas' state has format {}, and this version of Serinus knows up to {SAVED_FORMAT}",
                        text.trim()
                    ),
                    "run the version that wrote it, or name another ConfigMap in `state.configMap` to start without history",
                ));
            }
            continue;
        }
        // What is not of Serinus is nothing to it.
        let Some(name) = key.strip_prefix(ROUTE) else { continue };
        match (name.parse::<RouteName>(), serde_json::from_str::<SavedRoute>(text)) {
            (Ok(name), Ok(route)) => drop(snapshot.routes.insert(name, Arc::new(route))),
            (Err(error), _) => unread.push(format!("{key}: {error}")),
            (_, Err(error)) => unread.push(format!("{key}: {error}")),
        }
    }
    Ok((snapshot, unread))
}

/// The watch of the ConfigMap.
pub(super) struct States;

impl Watched for States {
    type Object = ConfigMap;
    /// Nothing where it cannot be read at all.
    type Kept = Option<Snapshot>;
    type Change = Heard;
    const KIND: ClusterKind = ClusterKind::ConfigMaps;

    fn selection(names: &Names) -> Selection {
        let name = names.first().map(AsRef::as_ref).unwrap_or_default();
        Selection { config: config().fields(&format!("metadata.name={name}")), names: names.clone() }
    }

    /// A name that was not asked for is not wanted, whatever the answer holds.
    fn service(namespace: &Namespace, object: &impl kube::Resource) -> Option<ServiceKey> {
        Some(ServiceKey::new(Arc::clone(namespace), object.meta().name.as_deref()?))
    }

    fn convert(namespace: &Namespace, object: ConfigMap) -> Conversion<Self::Kept> {
        let name = object.metadata.name.clone().unwrap_or_default();
        match snapshot(&object) {
            Err(problem) => Conversion { kept: Some(None), problem: Some(problem) },
            Ok((snapshot, unread)) => {
                let problem = unread.first().map(|first| {
                    let first: String = first.chars().take(300).collect();
                    Problem::new(
                        format!(
                            "{} of the ConfigMap {namespace}/{name} cannot be read and stay as they were: {first}",
                            match unread.len() {
                                1 => "1 key".to_owned(),
                                n => format!("{n} keys"),
                            }
                        ),
                        "a replica that knows them writes them anew; where none does, repair them (`kubectl edit configmap`), or set \
                         the weights of their routes",
                    )
                });
                Conversion { kept: Some(Some(snapshot)), problem }
            }
        }
    }

    fn whole(_: &Namespace, _: &Names, all: Vec<Self::Kept>) -> Heard {
        // None at all is an empty state.
        Heard(all.into_iter().next().unwrap_or_else(|| Some(Snapshot::default())))
    }

    fn applied(kept: &Self::Kept) -> Heard {
        Heard(kept.clone())
    }

    fn deleted(_: &Self::Kept) -> Heard {
        Heard(Some(Snapshot::default()))
    }

    fn objects(place: &Place, problems: Vec<ObjectProblem>) -> WatchEvent {
        WatchEvent::Objects { namespace: Arc::clone(&place.namespace), kind: Self::KIND, problems }
    }
}

/// What the watch tells.
#[derive(Debug, PartialEq)]
pub(super) struct Heard(Option<Snapshot>);

impl From<Heard> for WatchEvent {
    fn from(Heard(snapshot): Heard) -> Self {
        Self::Store(snapshot.map_or(StoreNews::Unreadable, StoreNews::Heard))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
