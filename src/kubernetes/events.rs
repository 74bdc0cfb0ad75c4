//! Events on Services about what was done to routes: `kubectl describe service` shows them.
//!
//! Nothing waits for this. Each is posted as a new object, under a name that it keeps, so that one that arrived though its answer
//! did not is not there twice; kube's recorder would post it again, and would write over an earlier step what only differs in
//! its note.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::model::{Namespace, Problem, ServiceEvent, Timestamp};
use crate::telemetry::Telemetry;

use super::access::Client;
use super::faults::Asked;
use super::link::{Backoff, observed};
use super::permissions::EVENTS;

/// Who they are from: `From` in `kubectl describe`, `reportingComponent` in a field selector.
const CONTROLLER: &str = "serinus";
/// The most that the API takes of a note and of an instance, in bytes.
const MOST_NOTE: usize = 1024;
const MOST_INSTANCE: usize = 128;
/// How long one is tried again while the API server is away, in longest pauses between attempts: five minutes. From then on each is
/// tried once, until one arrives.
const MOST_AWAY: u32 = 30;
/// The last one of a namespace that was not taken is tried again now and then, so that trouble that is over is seen to be:
/// after this many of the longest pauses between attempts (a minute), and this often (an hour, as long as API servers usually keep
/// Events).
const AGAIN: u32 = 6;
const MOST_AGAIN: u32 = 60;

/// Posts what comes of `events`, one after the other, until there is nothing more to come. It never returns for a fault of the API
/// server. `problems` is told each namespace whose Events are not taken, and why; it has been logged.
pub async fn record(
    client: Client,
    mut events: mpsc::Receiver<ServiceEvent>,
    problems: watch::Sender<Vec<Problem>>,
    telemetry: Arc<Telemetry>,
) {
    let mut recorder = Recorder::new(client, problems, telemetry);
    loop {
        let due = recorder.due;
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => recorder.take(event).await,
                None => return,
            },
            () = sleep_until(due), if !recorder.lost.is_empty() => recorder.again().await,
        }
    }
}

struct Recorder {
    client: Client,
    api: kube::Client,
    instance: String,
    backoff: Backoff,
    /// Since when the API server is away.
    away: Option<Instant>,
    /// The trouble of each namespace that was logged, until it is over.
    troubled: BTreeMap<Namespace, Problem>,
    /// The last one of each namespace that was not taken.
    lost: BTreeMap<Namespace, Lost>,
    /// When those are tried again.
    due: Instant,
    problems: watch::Sender<Vec<Problem>>,
    telemetry: Arc<Telemetry>,
}

/// One that was not taken.
struct Lost {
    of: ServiceEvent,
    event: Event,
    again: u32,
}

/// Why one was not taken.
struct Refusal {
    problem: Problem,
    /// It may be taken in a while.
    passing: bool,
}

impl Recorder {
    fn new(client: Client, problems: watch::Sender<Vec<Problem>>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            api: observed(&client).0,
            instance: cut(&super::replica(), MOST_INSTANCE),
            backoff: Backoff::new(client.patience),
            client,
            away: None,
            troubled: BTreeMap::new(),
            lost: BTreeMap::new(),
            due: Instant::now(),
            problems,
            telemetry,
        }
    }

    /// Posts one, again and again where that may help.
    async fn take(&mut self, of: ServiceEvent) {
        let event = event(&of, &self.instance);
        let namespace = Arc::clone(&of.service.namespace);
        loop {
            let Err(refusal) = self.post(&namespace, &event).await else {
                self.posted(&of);
                return self.show();
            };
            self.trouble(&namespace, refusal.problem);
            if !refusal.passing {
                // It is there, and will say the same.
                self.away = None;
                break;
            }
            if self.away.get_or_insert_with(Instant::now).elapsed() >= self.pauses(MOST_AWAY) {
                break;
            }
            sleep(self.backoff.pause()).await;
        }
        self.telemetry.service_event_failed(&of);
        if self.lost.is_empty() {
            self.due = Instant::now() + self.pauses(AGAIN);
        }
        self.lost.insert(namespace, Lost { of, event, again: MOST_AGAIN });
        self.show();
    }

    /// Tries those that were not taken once more.
    async fn again(&mut self) {
        for (namespace, mut lost) in std::mem::take(&mut self.lost) {
            match self.post(&namespace, &lost.event).await {
                Ok(()) => self.posted(&lost.of),
                Err(refusal) if lost.again > 0 => {
                    self.trouble(&namespace, refusal.problem);
                    lost.again -= 1;
                    self.lost.insert(namespace, lost);
                }
                // By now it is no news, and the next one says whether that is still so.
                Err(_) => drop(self.troubled.remove(&namespace)),
            }
        }
        self.due = Instant::now() + self.pauses(AGAIN);
        self.show();
    }

    /// So many of the longest pauses between attempts.
    fn pauses(&self, count: u32) -> Duration {
        count * self.client.patience.retry_most.max(Duration::from_millis(1))
    }

    async fn post(&self, namespace: &Namespace, event: &Event) -> Result<(), Refusal> {
        let api: Api<Event> = Api::namespaced(self.api.clone(), namespace);
        let error = match api.create(&PostParams::default(), event).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let status = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
        if status == Some(409) {
            // It had arrived.
            return Ok(());
        }
        let passing = status.is_none_or(|code| matches!(code, 401 | 408 | 429 | 500..));
        let asked = Asked { namespace, permission: EVENTS, name: None, origin: &self.client.origin };
        let Problem { message, remedy } = asked.problem("create", &error);
        let message = format!("{message}; what is done to routes leaves no Events on their Services there");
        Err(Refusal { problem: Problem { message, remedy }, passing })
    }

    fn posted(&mut self, of: &ServiceEvent) {
        self.away = None;
        self.backoff.reset();
        self.telemetry.service_event_posted(of);
        let namespace = &of.service.namespace;
        if self.troubled.remove(namespace).is_some() {
            self.telemetry.service_events_recovered(namespace);
        }
        self.lost.remove(namespace);
    }

    /// Tells of trouble once, until there is other trouble or none.
    fn trouble(&mut self, namespace: &Namespace, problem: Problem) {
        if self.troubled.get(namespace) != Some(&problem) {
            self.telemetry.service_events_troubled(namespace, &problem);
            self.troubled.insert(Arc::clone(namespace), problem);
        }
    }

    /// Shows the problems of the namespaces that have lost some: what passes by itself is only logged.
    fn show(&self) {
        let shown = self.troubled.iter().filter(|(namespace, _)| self.lost.contains_key(*namespace));
        let now: Vec<_> = shown.map(|(_, problem)| problem.clone()).collect();
        self.problems.send_if_modified(|before| {
            let news = *before != now;
            *before = now;
            news
        });
    }
}

/// One as the API takes it.
fn event(of: &ServiceEvent, instance: &str) -> Event {
    let ServiceEvent { service, uid, deed, note, time, .. } = of;
    let name = format!("{}.{:x}{:08x}", service.name, time.millis(), fastrand::u32(..));
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(service.namespace.to_string()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(moment(*time))),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        reason: Some(deed.reason().to_owned()),
        action: Some(deed.action().to_owned()),
        type_: Some(if deed.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        note: Some(cut(note, MOST_NOTE)),
        // `kubectl describe` searches by all four.
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.to_string()),
            uid: uid.as_ref().map(ToString::to_string),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn moment(time: Timestamp) -> jiff::Timestamp {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
}

/// No more than so many bytes of a text; where it is cut, that is seen.
fn cut(text: &str, most: usize) -> String {
    const MARK: char = '…';
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most - MARK.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{Deed, ServiceKey};

    use super::*;

    fn posted(note: &str, uid: Option<&str>, deed: Deed) -> Value {
        let of = ServiceEvent {
            service: ServiceKey::new("web", "shop"),
            uid: uid.map(Into::into),
            route: "shop".parse().unwrap(),
            deed,
            note: note.to_owned(),
            time: Timestamp::from_millis(1_774_000_000_123),
        };
        serde_json::to_value(event(&of, "serinus-1")).unwrap()
    }

    #[test]
    fn an_event_has_what_the_api_asks_for_and_what_kubectl_searches_by() {
        let event = posted("why", Some("u1"), Deed::RolloutRolledBack);
        let name = event["metadata"]["name"].as_str().unwrap();
        assert!(name.strip_prefix("shop.19d0").is_some_and(|rest| rest.len() == 15), "{name}");
        let wanted = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": "web"},
            "eventTime": "2026-03-20T09:46:40.123000Z",
            "reportingController": "serinus", "reportingInstance": "serinus-1",
            "type": "Warning", "reason": "RolloutRolledBack", "action": "RollBack", "note": "why",
            "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "web", "name": "shop", "uid": "u1"},
        });
        assert_eq!(event, wanted);
        let event = posted("why", None, Deed::RolloutPaused { by_verdict: false });
        assert_eq!((&event["type"], &event["regarding"]["uid"]), (&"Normal".into(), &Value::Null));
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_takes() {
        let note = |text: &str| posted(text, None, Deed::RolloutStep)["note"].as_str().unwrap().to_owned();
        let fits = "ä".repeat(512);
        assert_eq!(note(&fits), fits);
        let long = note(&format!("{fits}x"));
        assert_eq!((long.len(), long.ends_with("ä…")), (1023, true));
    }
}
