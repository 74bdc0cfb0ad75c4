//! How many requests are repeated at once, as the pods see it (semantics §4.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::front::Plan;
use super::pods::Pod;
use super::raw::{self, Raw};
use crate::support::eventually;
use crate::support::http::Client;

/// What the pods do with what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// Everything is held.
    Hold,
    /// The first attempts end without an answer.
    Break,
    /// What came again is answered.
    Answer,
}

/// Pods that see each attempt of each request, and hold it until they are told what to do with it.
struct Pods {
    all: Vec<Pod>,
    /// How often each request came, by its path.
    seen: Arc<Mutex<HashMap<String, usize>>>,
    word: watch::Sender<Word>,
}

impl Pods {
    async fn start(number: usize) -> Self {
        let seen = Arc::<Mutex<HashMap<String, usize>>>::default();
        let (word, heard) = watch::channel(Word::Hold);
        let mut all = Vec::new();
        for _ in 0..number {
            let (seen, heard) = (Arc::clone(&seen), heard.clone());
            let serve = move |raw| serve(raw, Arc::clone(&seen), heard.clone());
            all.push(raw::pod(serve).await);
        }
        Self { all, seen, word }
    }

    /// How many requests came for the first time, and how many attempts came again.
    fn attempts(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.len(), seen.values().map(|times| times - 1).sum())
    }
}

async fn serve(mut raw: Raw, seen: Arc<Mutex<HashMap<String, usize>>>, mut heard: watch::Receiver<Word>) {
    let Some(head) = raw.head().await else { return };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let again = {
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(path).or_default();
        *times += 1;
        *times > 1
    };
    let wanted = if again { Word::Answer } else { Word::Break };
    // The test is over where there is no word any more.
    if heard.wait_for(|word| *word >= wanted).await.is_ok() && again {
        let _ = raw.try_send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    }
}

/// So many GETs at once, whose first attempts all fail at once; the config says `retries`, and so many of them may be repeated.
async fn check(requests: usize, retries: &str, granted: usize) {
    let pods = Pods::start(5).await;
    let mut plan = Plan::to(pods.all.iter().map(|pod| pod.address));
    // Who fails is not the matter here: all do.
    plan = plan.route("outliers: {consecutiveFailures: 0}");
    if !retries.is_empty() {
        plan = plan.route(format!("retries: {retries}"));
    }
    let front = plan.start().await;
    let address = front.address();
    let ask = async move |number: usize| match Client::new(address).get("a", &format!("/{number}")).await {
        Ok(answer) => (answer.status, answer.header("x-serinus-reason").to_owned()),
        Err(error) => (0, error),
    };
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..requests {
        let told = told.clone();
        tokio::spawn(async move { told.send(ask(number).await) });
    }
    let what = format!("{requests} requests, {retries:?}");
    eventually(&format!("all have come to the pods: {what}"), || {
        (pods.attempts() == (requests, 0)).then_some(())
    })
    .await;
    pods.word.send_replace(Word::Break);
    // Those that have no leave give up after a while, and all that time those that have it are held: they are as many as
    // there ever are at once.
    let mut given_up = Vec::new();
    while given_up.len() < requests - granted {
        let next = tokio::time::timeout(Duration::from_secs(20), answers.recv()).await;
        given_up.push(next.unwrap_or_else(|_| panic!("{what}: {:?} attempts", pods.attempts())).unwrap());
    }
    assert!(given_up.iter().all(|told| *told == (502, "upstream-reset".to_owned())), "{what}: {given_up:?}");
    eventually(&format!("those that have leave are at the pods: {what}"), || {
        let (_, again) = pods.attempts();
        assert!(again <= granted, "{what}: {again} attempts came again at once, and {granted} may");
        (again == granted).then_some(())
    })
    .await;
    pods.word.send_replace(Word::Answer);
    for _ in 0..granted {
        assert_eq!(answers.recv().await.unwrap().0, 200, "{what}");
    }
    assert_eq!(pods.attempts(), (requests, granted), "{what}");
    // Counted when the answer has gone out.
    let counted = || {
        let table = front.router.control().table().load_full();
        let snapshot = table.routes()[0].versions[0].tally.snapshot();
        (snapshot.retried_ok, snapshot.retried_failed)
    };
    eventually(&format!("they are counted: {what}"), || (counted() == (granted as u64, 0)).then_some(()))
        .await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_3_at_most_a_fifth_of_the_requests_are_repeated_at_once_and_never_fewer_than_three() {
    check(100, "", 20).await;
    check(10, "", 3).await;
    check(2, "", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_3_the_budget_is_what_the_config_says() {
    check(60, "{budget: 50}", 30).await;
    check(20, "{budget: 10, least: 7}", 7).await;
    check(10, "{budget: 0, least: 0}", 0).await;
}
