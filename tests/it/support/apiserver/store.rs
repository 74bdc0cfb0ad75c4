//! The objects of a loopback API server, with the history that watches replay.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use serinus::model::Selector;

/// A resource that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const fn resource(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { group, version, plural, kind, namespaced }
}

/// What is served; for another kind, add a line.
pub(crate) const RESOURCES: &[Resource] = &[
    resource("", "v1", "namespaces", "Namespace", false),
    resource("", "v1", "services", "Service", true),
    resource("", "v1", "pods", "Pod", true),
    resource("", "v1", "configmaps", "ConfigMap", true),
    resource("", "v1", "secrets", "Secret", true),
    resource("", "v1", "events", "Event", true),
    resource("apps", "v1", "deployments", "Deployment", true),
    resource("apps", "v1", "replicasets", "ReplicaSet", true),
    resource("coordination.k8s.io", "v1", "leases", "Lease", true),
    resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    resource("events.k8s.io", "v1", "events", "Event", true),
    resource("networking.k8s.io", "v1", "ingresses", "Ingress", true),
];

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource of an object, by its `apiVersion` and `kind`.
    pub(crate) fn of(object: &Value) -> Resource {
        let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let found =
            RESOURCES.iter().find(|r| Some(r.api_version().as_str()) == version && Some(r.kind) == kind);
        *found.unwrap_or_else(|| panic!("the test API server does not serve {version:?} {kind:?}"))
    }

    /// The first resource with a plural name.
    pub(crate) fn named(plural: &str) -> Resource {
        let found = RESOURCES.iter().find(|r| r.plural == plural);
        *found.unwrap_or_else(|| panic!("the test API server does not serve {plural}"))
    }
}

/// Namespace (empty for those that have none) and name.
pub(crate) type Key = (String, String);

/// One change of one object.
struct Change {
    version: u64,
    resource: Resource,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) resource: Resource,
    /// None for all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<Selector>,
    /// Paths in an object, with the text that must be there.
    pub(crate) fields: Vec<(String, String)>,
}

impl Filter {
    fn matches(&self, key: &Key, object: &Value) -> bool {
        let labels = || {
            let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
            labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
        };
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.0)
            && self.fields.iter().all(|(path, wanted)| match path.as_str() {
                // Also where the object has no metadata that can be read.
                "metadata.name" => *wanted == key.1,
                path => *wanted == field(object, path),
            })
            && self.labels.as_ref().is_none_or(|selector| selector.matches(&labels()))
    }
}

/// The text at a path like `metadata.name`; empty where there is none.
fn field<'a>(object: &'a Value, path: &str) -> &'a str {
    path.split('.').fold(object, |object, part| &object[part]).as_str().unwrap_or_default()
}

/// A list, or one page of it.
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) items: Vec<Value>,
    pub(crate) token: Option<String>,
    pub(crate) remaining: usize,
}

/// Something that is said to every open watch.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// A bookmark.
    Bookmark,
    /// `410 Gone` as an event, and the end.
    Expired,
    /// The connection breaks in the middle of a chunk.
    Cut,
    /// The answer ends, as when its time is up.
    Close,
    /// Nothing is ever said on it again, and it stays open.
    Mute,
    /// A line as it is, to watches of the resource.
    Line(&'static str, String),
}

/// Everything that an API server remembers.
#[derive(Default)]
pub(crate) struct Store {
    version: u64,
    /// Watches that start before this version are refused.
    oldest: u64,
    objects: BTreeMap<(Resource, Key), Value>,
    history: Vec<Change>,
    pages: BTreeMap<String, (u64, Vec<Value>)>,
    /// How many tokens were given out: those of two lists at once must differ.
    tokens: u64,
    pub(crate) said: Vec<Say>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { version: 1000, oldest: 1000, ..Self::default() }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(crate) fn get(&self, resource: Resource, key: &Key) -> Option<&Value> {
        self.objects.get(&(resource, key.clone()))
    }

    /// All objects of a filter.
    pub(crate) fn find(&self, filter: &Filter) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((resource, _), _)| *resource == filter.resource);
        of_kind
            .filter(|((_, key), object)| filter.matches(key, object))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Adds or replaces an object; nothing happens when it is the same.
    pub(crate) fn put(&mut self, resource: Resource, key: &Key, mut object: Value) -> Value {
        let before = self.get(resource, key).cloned();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            let old = |field: &str| before.as_ref().map(|b| b["metadata"][field].clone());
            if resource.namespaced {
                metadata.insert("namespace".into(), key.0.clone().into());
            }
            let next = self.version + 1;
            let uid = old("uid").unwrap_or_else(|| format!("00000000-0000-4000-8000-{next:012}").into());
            metadata.entry("uid").or_insert(uid);
            let created = old("creationTimestamp").unwrap_or_else(|| "2026-01-01T00:00:00Z".into());
            metadata.entry("creationTimestamp").or_insert(created);
            metadata.insert("resourceVersion".into(), Value::Null);
        }
        if let Some(before) = &before {
            let mut same = before.clone();
            same["metadata"]["resourceVersion"] = Value::Null;
            if same == object {
                return before.clone();
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert((resource, key.clone()), object.clone());
        self.history.push(Change {
            version: self.version,
            resource,
            key: key.clone(),
            before,
            after: Some(object.clone()),
        });
        object
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, resource: Resource, key: &Key) -> Option<Value> {
        let before = self.objects.remove(&(resource, key.clone()))?;
        self.version += 1;
        self.history.push(Change {
            version: self.version,
            resource,
            key: key.clone(),
            before: Some(before.clone()),
            after: None,
        });
        Some(before)
    }

    /// Forgets history and the pages of lists: every version that anyone has seen is now too old.
    pub(crate) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
        self.pages.clear();
    }

    /// The first page of a list.
    pub(crate) fn list(&mut self, filter: &Filter, limit: usize) -> Page {
        let items = self.find(filter);
        self.page(self.version, items, limit)
    }

    /// The next page of a list, as it was when the list began; nothing when that is forgotten.
    pub(crate) fn next_page(&mut self, token: &str, limit: usize) -> Option<Page> {
        let (version, items) = self.pages.remove(token)?;
        Some(self.page(version, items, limit))
    }

    fn page(&mut self, version: u64, mut items: Vec<Value>, limit: usize) -> Page {
        if items.len() <= limit {
            return Page { version, items, token: None, remaining: 0 };
        }
        let rest = items.split_off(limit);
        self.tokens += 1;
        let token = format!("page-{version}-{}-{}", self.tokens, rest.len());
        let remaining = rest.len();
        self.pages.insert(token.clone(), (version, rest));
        Page { version, items, token: Some(token), remaining }
    }

    /// What a watch at version `since` has to hear, as (type, object), and the version it is then at.
    pub(crate) fn since(&self, filter: &Filter, since: u64) -> (Vec<(&'static str, Value)>, u64) {
        let first = self.history.partition_point(|change| change.version <= since);
        let changes = self.history.iter().skip(first).filter(|change| change.resource == filter.resource);
        let events = changes.filter_map(|change| {
            let matching =
                |object: &Option<Value>| object.clone().filter(|object| filter.matches(&change.key, object));
            match (matching(&change.before), matching(&change.after)) {
                (None, Some(after)) => Some(("ADDED", after)),
                (Some(_), Some(after)) => Some(("MODIFIED", after)),
                (Some(mut before), None) => {
                    // The last state, with the version of the deletion.
                    before["metadata"]["resourceVersion"] = change.version.to_string().into();
                    Some(("DELETED", before))
                }
                (None, None) => None,
            }
        });
        (events.collect(), self.version)
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}
