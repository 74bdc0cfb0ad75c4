//! An object that may not decode, so that one bad object does not stop a watch or fail a whole list.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A `K`, or why it is none and whatever could be read of its metadata.
///
/// Unlike kube's `DeserializeGuard` it also survives bad metadata, and it passes on that `K` is metadata only:
/// `DeserializeGuard<PartialObjectMeta<Pod>>` would ask for whole Pods.
#[derive(Clone, Debug)]
pub(super) enum Lenient<K> {
    /// It decoded.
    Read(K),
    /// It did not.
    Unread(Box<Unread>),
}

/// What is known of an object that did not decode.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    /// Why not.
    pub(super) error: String,
    /// Name, namespace, resourceVersion and labels, as far as they are texts.
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(K::deserialize(&value).map_or_else(
            |error| Self::Unread(Box::new(Unread { error: error.to_string(), metadata: metadata(&value) })),
            Self::Read,
        ))
    }
}

/// The texts in an object's metadata that a watch needs to go on.
fn metadata(object: &Value) -> ObjectMeta {
    let text = |field: &str| object.get("metadata")?.get(field)?.as_str().map(str::to_owned);
    let labels = object.get("metadata").and_then(|metadata| metadata.get("labels")?.as_object());
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        resource_version: text("resourceVersion"),
        labels: labels.map(|labels| {
            labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        }),
        ..ObjectMeta::default()
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unread(unread) => &unread.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unread(unread) => &mut unread.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Service};
    use kube::core::PartialObjectMeta;
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_what_a_watch_needs_of_an_object_that_does_not_decode() {
        for object in [
            json!({"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"ports": "none"}}),
            json!({"metadata": {"name": "a", "resourceVersion": "7", "labels": {"a": 1}}}),
        ] {
            let read: Lenient<Service> = serde_json::from_value(object).unwrap();
            assert!(matches!(&read, Lenient::Unread(unread) if unread.error.contains("invalid type")));
            assert_eq!(read.meta().name.as_deref(), Some("a"));
            assert_eq!(read.meta().resource_version.as_deref(), Some("7"));
        }
        for object in [json!("text"), json!(null), json!([]), json!({"metadata": 3})] {
            let read: Lenient<Service> = serde_json::from_value(object).unwrap();
            assert_eq!(read.meta().name, None);
        }
    }

    #[test]
    fn metadata_only_stays_metadata_only() {
        assert!(Lenient::<PartialObjectMeta<Pod>>::metadata_api());
        assert!(!Lenient::<Service>::metadata_api());
    }
}
