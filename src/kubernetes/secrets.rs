//! Watching Secrets: exactly those that settings name, each by a watch of its own.
//!
//! RBAC can grant the reading of single Secrets (`resourceNames`), and a list or watch by `metadata.name` needs no more than that.
//! What a Secret holds goes to those who use it and nowhere else: into no message, no log line, and no `Debug`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zeroize::{Zeroize as _, Zeroizing};

use crate::model::{ClusterKind, Namespace, Problem, SecretData, SecretKey, ServiceKey};
use crate::telemetry::Telemetry;

use super::access::Client;
use super::faults::Place;
use super::kinds::{Conversion, Names, Selection, Watched, config};
use super::supervisor::{Links, ObjectProblem, SecretNews, WatchEvent};
use super::task::Task;

/// Watches the Secrets that `wanted` names, until `wanted` or `out` is closed. It never returns for a fault of the API
/// server, and tells of nothing but [`WatchEvent::Secret`].
///
/// A Secret that is not wanted any more is not told of again, and its trouble is over without a word.
pub async fn watch_secrets(
    client: Client,
    mut wanted: watch::Receiver<Arc<BTreeSet<SecretKey>>>,
    out: mpsc::Sender<WatchEvent>,
    telemetry: Arc<Telemetry>,
) {
    let links = Links::new(telemetry, &[]);
    let mut running: BTreeMap<SecretKey, JoinSet<()>> = BTreeMap::new();
    loop {
        let keys = Arc::clone(&wanted.borrow_and_update());
        let gone: Vec<_> = running.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        for key in gone {
            if let Some(mut task) = running.remove(&key) {
                task.shutdown().await;
            }
            links.forget_one(ClusterKind::Secrets, &key.namespace, &key.name);
        }
        for key in keys.iter() {
            running.entry(key.clone()).or_insert_with(|| {
                let (client, out, links, key) = (client.clone(), out.clone(), links.clone(), key.clone());
                let mut tasks = JoinSet::new();
                tasks.spawn(async move {
                    // It lives as long as the watch: the names never change.
                    let names = watch::Sender::new(Names::from([Arc::clone(&key.name)]));
                    let SecretKey { namespace, name } = &key;
                    let receiver = names.subscribe();
                    Task::<Secrets>::new(&client, namespace, Some(name), receiver, &out, &links).run().await;
                });
                tasks
            });
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = out.closed() => break,
        }
    }
    for mut task in running.into_values() {
        task.shutdown().await;
    }
}

struct Secrets;

/// What is told of one Secret.
#[derive(Debug, PartialEq)]
struct Change(SecretKey, SecretNews);

impl From<Change> for WatchEvent {
    fn from(Change(key, news): Change) -> Self {
        Self::Secret { key, news }
    }
}

impl Watched for Secrets {
    type Object = core::Secret;
    type Kept = (SecretKey, Arc<SecretData>);
    type Change = Change;
    const KIND: ClusterKind = ClusterKind::Secrets;
    const CONFIDENTIAL: bool = true;

    fn selection(names: &Names) -> Selection {
        let name = names.first().map(AsRef::as_ref).unwrap_or_default();
        Selection { config: config().fields(&format!("metadata.name={name}")), names: names.clone() }
    }

    /// A name that was not asked for is not wanted, whatever the answer holds.
    fn service(namespace: &Namespace, object: &impl kube::Resource) -> Option<ServiceKey> {
        Some(ServiceKey::new(Arc::clone(namespace), object.meta().name.as_deref()?))
    }

    fn convert(namespace: &Namespace, object: core::Secret) -> Conversion<Self::Kept> {
        let name = object.metadata.name.unwrap_or_default();
        let key = SecretKey { namespace: Arc::clone(namespace), name: name.into() };
        let mut parts = object.data.unwrap_or_default();
        let mut part = |name: &str| parts.remove(name).map(|ByteString(bytes)| bytes);
        let data = SecretData {
            certificate: part("tls.crt"),
            key: part("tls.key").map(Zeroizing::new),
            authorities: part("ca.crt"),
        };
        // What nobody uses.
        parts.values_mut().for_each(|ByteString(bytes)| take(bytes).zeroize());
        Conversion { kept: Some((key, Arc::new(data))), problem: None }
    }

    fn whole(namespace: &Namespace, names: &Names, all: Vec<Self::Kept>) -> Change {
        let name = names.first().cloned().unwrap_or_default();
        let key = SecretKey { namespace: Arc::clone(namespace), name };
        let news = match all.into_iter().find(|(other, _)| *other == key) {
            Some((_, data)) => SecretNews::Data(data),
            None => SecretNews::Gone,
        };
        Change(key, news)
    }

    fn applied((key, data): &Self::Kept) -> Change {
        Change(key.clone(), SecretNews::Data(Arc::clone(data)))
    }

    fn deleted((key, _): &Self::Kept) -> Change {
        Change(key.clone(), SecretNews::Gone)
    }

    fn trouble(place: &Place, problem: Option<Problem>) -> WatchEvent {
        Change(key(place), SecretNews::Trouble(problem)).into()
    }

    fn objects(place: &Place, problems: Vec<ObjectProblem>) -> WatchEvent {
        let problem = problems.into_iter().next().map(|object| object.problem);
        Change(key(place), SecretNews::Unreadable(problem)).into()
    }
}

fn key(place: &Place) -> SecretKey {
    SecretKey { namespace: Arc::clone(&place.namespace), name: place.name.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_secret_is_asked_for_and_no_other() {
        let names = Names::from(["shop-tls".into()]);
        let fields = Secrets::selection(&names).config.field_selector;
        assert_eq!(fields.as_deref(), Some("metadata.name=shop-tls"));
    }

    #[test]
    fn what_tls_uses_is_kept_and_nothing_of_it_is_shown() {
        let part = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
        let object = core::Secret {
            data: Some([part("tls.crt", "chain"), part("tls.key", "hidden"), part("other", "hidden")].into()),
            metadata: ObjectMeta { name: Some("shop-tls".into()), ..ObjectMeta::default() },
            ..core::Secret::default()
        };
        let kept = Secrets::convert(&"web".into(), object).kept.unwrap();
        assert_eq!(kept.0, "web/shop-tls".parse().unwrap());
        assert_eq!(kept.1.certificate.as_deref(), Some(b"chain".as_slice()));
        assert_eq!(kept.1.key.as_ref().unwrap().as_slice(), b"hidden");
        assert_eq!(kept.1.authorities, None);
        let event: WatchEvent = Secrets::applied(&kept).into();
        let shown = format!("{event:?}");
        assert!(shown.contains("shop-tls") && !shown.contains("hidden"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"hidden")), "{shown}");
    }

    #[test]
    fn a_list_without_it_says_that_it_is_gone() {
        let names = Names::from(["shop-tls".into()]);
        let Change(key, news) = Secrets::whole(&"web".into(), &names, Vec::new());
        assert_eq!((key, news), ("web/shop-tls".parse().unwrap(), SecretNews::Gone));
    }

    #[test]
    fn a_secret_that_does_not_decode_shows_nothing_of_itself() {
        use kube::runtime::watcher::Event;

        use crate::kubernetes::known::Known;
        use crate::kubernetes::lenient::Lenient;

        let mut known = Known::<Secrets>::new("web".into());
        known.select(Names::from(["shop-tls".into()]));
        let object: Lenient<core::Secret> =
            serde_json::from_value(json!({"metadata": {"name": "shop-tls"}, "data": "hidden"})).unwrap();
        assert!(format!("{object:?}").contains("hidden"), "the error has it: {object:?}");
        known.fold(Event::Apply(object));
        let problems = known.problems().unwrap();
        assert!(problems[0].problem.message.contains("secrets web/shop-tls does not decode"), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hidden"), "{problems:?}");
    }
}
