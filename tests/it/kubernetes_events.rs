//! Posting Events on Services, to an API server that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use serinus::kubernetes::{ClusterAccess, Patience, connect_with, record};
use serinus::model::{Deed, Problem, ServiceEvent, ServiceKey, Timestamp};
use serinus::telemetry::Telemetry;
use tempfile::TempPath;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::support::apiserver::ApiServer;
use crate::support::eventually;
use crate::support::watching::QUICK;

/// What posts Events, and what it says of that.
pub(crate) struct Posting {
    to: mpsc::Sender<ServiceEvent>,
    problems: watch::Receiver<Vec<Problem>>,
    telemetry: Arc<Telemetry>,
    _kubeconfig: TempPath,
    _posting: AbortOnDropHandle<()>,
}

impl Posting {
    pub(crate) async fn start(api: &ApiServer, patience: Patience) -> Self {
        let kubeconfig = api.kubeconfig();
        let access = ClusterAccess { kubeconfig: Some(kubeconfig.to_path_buf()), context: None };
        let client = connect_with(&access, patience).await.unwrap();
        let (to, events) = mpsc::channel(16);
        let (tell, problems) = watch::channel(Vec::new());
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let posting = tokio::spawn(record(client, events, tell, Arc::clone(&telemetry)));
        Self { to, problems, telemetry, _kubeconfig: kubeconfig, _posting: AbortOnDropHandle::new(posting) }
    }

    pub(crate) async fn tell(&self, event: ServiceEvent) {
        self.to.send(event).await.unwrap();
    }

    /// Waits until so many have been posted.
    pub(crate) async fn posts(&self, count: u64) {
        eventually("Events are posted", || (self.count("success") == count).then_some(())).await;
    }

    fn count(&self, result: &str) -> u64 {
        let wanted = format!("serinus_kubernetes_events_total{{result=\"{result}\"}} ");
        let text = self.telemetry.text();
        text.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap().parse().unwrap()
    }

    fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().clone()
    }
}

/// Something that was done to a route, with this number.
pub(crate) fn deed(number: usize) -> ServiceEvent {
    ServiceEvent {
        service: ServiceKey::new("web", "svc"),
        uid: Some("u1".into()),
        route: "shop".parse().unwrap(),
        deed: Deed::RolloutStep,
        note: format!("number {number}"),
        time: Timestamp::from_millis(1_774_000_000_123),
    }
}

fn notes(api: &ApiServer) -> Vec<String> {
    let mut notes: Vec<_> =
        api.all("events", "web").iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect();
    notes.sort();
    notes
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_while_gets_them_when_it_is_back() {
    let mut api = ApiServer::start().await;
    // Half a minute, however busy this machine is.
    let patience = Patience { retry_most: Duration::from_secs(1), ..QUICK };
    let posting = Posting::start(&api, patience).await;
    api.stop().await;
    posting.tell(deed(1)).await;
    posting.tell(deed(2)).await;
    api.restart_on_same_port().await;
    posting.posts(2).await;
    assert_eq!(notes(&api), ["number 1", "number 2"]);
    assert_eq!(posting.problems(), []);
}

#[tokio::test]
async fn an_api_server_that_stays_away_is_not_waited_for_without_end() {
    let mut api = ApiServer::start().await;
    let posting = Posting::start(&api, QUICK).await;
    api.stop().await;
    for number in 1..=10 {
        posting.tell(deed(number)).await;
    }
    eventually("all were given up", || (posting.count("failure") == 10).then_some(())).await;
    let problems = posting.problems();
    assert!(
        problems.len() == 1
            && problems[0].message.contains("refuses connections; what is done to routes leaves"),
        "{problems:?}"
    );
    // The last one is tried again, so that the problem does not stay for ever.
    api.restart_on_same_port().await;
    posting.posts(1).await;
    assert_eq!(notes(&api), ["number 10"]);
    eventually("the problem is gone", || posting.problems().is_empty().then_some(())).await;
}

#[tokio::test]
async fn what_is_forbidden_is_told_with_what_to_grant_and_costs_the_others_nothing() {
    let api = ApiServer::start().await;
    api.deny("create", "events");
    let posting = Posting::start(&api, QUICK).await;
    for number in 1..=3 {
        posting.tell(deed(number)).await;
    }
    eventually("none was taken", || (posting.count("failure") == 3).then_some(())).await;
    let problems = posting.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let message = "to create events in namespace web (403, API group \"events.k8s.io\")";
    let check = "kubectl auth can-i create events.events.k8s.io -n web --as=";
    assert!(problems[0].message.contains(message), "{problems:?}");
    assert!(problems[0].remedy.contains(check) && problems[0].remedy.contains("deploy/"), "{problems:?}");
    api.allow("create", "events");
    posting.posts(1).await;
    eventually("the problem is gone", || posting.problems().is_empty().then_some(())).await;
    posting.tell(deed(4)).await;
    posting.posts(2).await;
    assert_eq!(notes(&api), ["number 3", "number 4"]);
}

#[tokio::test]
async fn one_whose_answer_is_lost_is_not_there_twice() {
    let api = ApiServer::start().await;
    api.swallow(1);
    let patience = Patience { answer: Duration::from_millis(300), ..QUICK };
    let posting = Posting::start(&api, patience).await;
    posting.tell(deed(1)).await;
    posting.posts(1).await;
    assert!(api.count("create", "events") > 1, "it was posted again");
    assert_eq!(notes(&api), ["number 1"]);
}

#[tokio::test]
async fn one_that_is_not_taken_as_it_is_is_not_tried_without_a_pause() {
    let api = ApiServer::start().await;
    let posting = Posting::start(&api, QUICK).await;
    // The API server knows no such path.
    let bad = ServiceEvent { note: "bad".to_owned(), service: ServiceKey::new("", "svc"), ..deed(1) };
    posting.tell(bad).await;
    posting.tell(deed(2)).await;
    posting.posts(1).await;
    assert_eq!((posting.count("failure"), posting.problems().len()), (1, 1));
    assert_eq!(notes(&api), ["number 2"]);
}
