//! The fault lab: pods that break in every way that connections can, and what their clients see of it (semantics §4).
//!
//! For each scenario: no GET fails, no POST comes to the pods twice, and no POST fails that never came to one, wherever the
//! fault allows it. What it allows is said with each.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serinus::cli::app::Router;

use crate::support::clients::{Clients, Outcome, Plan, sum};
use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::fleet::Fleet;
use crate::support::http::Client;
use crate::support::misbehaving::{Conduct, Deaf, End, Pod, Script, Told, always};
use crate::support::stack::{manifest, start_router, usable};

/// How many pods there are in a scenario.
const PODS: usize = 4;
/// How many clients there are where one request after the other has to be repeated: as many as may always be repeated at
/// once (semantics §4.3). With more, some would rightly be refused that.
const WITHIN_BUDGET: usize = 3;

/// What a fault excuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// Nothing: every request is answered.
    Nothing,
    /// POSTs fail that came to a pod that broke.
    SentPosts,
    /// POSTs fail that were written to a connection whose pod did not look: nobody can tell whether it saw them.
    WrittenPosts,
    /// What a broken pod had begun to answer fails: it cannot be taken back.
    Begun,
    /// The same, and by its nature a request that hangs fails after its time.
    Hanging,
}

struct Scenario {
    name: &'static str,
    /// How many of the pods are bad.
    bad: usize,
    conduct: Script,
    excuse: Excuse,
    requests: u64,
    /// The length of a POST's body.
    body: usize,
    /// Further fields of the route.
    route: &'static str,
}

fn scenario(name: &'static str, bad: usize, conduct: Conduct, excuse: Excuse) -> Scenario {
    Scenario { name, bad, conduct: always(conduct), excuse, requests: 400, body: 100, route: "" }
}

/// The first request of each connection is answered, the others meet `then`.
fn first_is_answered(then: Conduct) -> Script {
    Arc::new(move |_, request| if request <= 1 { Conduct::Answer } else { then })
}

/// Every `n`-th request of a connection meets `then`.
fn every(n: u64, then: Conduct) -> Script {
    Arc::new(move |_, request| if request > 0 && request % n == 0 { then } else { Conduct::Answer })
}

const MS: Duration = Duration::from_millis(1);

fn before_the_answer() -> Vec<Scenario> {
    use Conduct::*;
    vec![
        scenario("nothing is wrong", 0, Answer, Excuse::Nothing),
        scenario("reset as soon as it is connected", 1, EndAtOnce(End::Reset), Excuse::WrittenPosts),
        scenario("closed as soon as it is connected", 1, EndAtOnce(End::Close), Excuse::WrittenPosts),
        scenario("reset with the request unread", 1, EndUnread(End::Reset), Excuse::SentPosts),
        scenario("closed with the request unread", 1, EndUnread(End::Fin), Excuse::SentPosts),
        scenario("reset after the head", 1, EndAfterHead(End::Reset), Excuse::SentPosts),
        scenario("closed after the head", 1, EndAfterHead(End::Fin), Excuse::SentPosts),
        Scenario {
            conduct: first_is_answered(EndAfterHead(End::Reset)),
            ..scenario("the second request of each connection is reset", PODS, Answer, Excuse::SentPosts)
        },
        Scenario {
            requests: 60,
            route: "    timeouts: {request: 400ms}\n",
            ..scenario("hangs", 1, Hang, Excuse::Hanging)
        },
    ]
}

fn inside_the_answer() -> Vec<Scenario> {
    use Conduct::*;
    vec![
        scenario("reset inside the answer's head", 1, EndInHead(End::Reset), Excuse::Begun),
        scenario("closed inside the answer's head", 1, EndInHead(End::Fin), Excuse::Begun),
        scenario("reset inside the answer's body", 1, EndInBody(End::Reset), Excuse::Begun),
        scenario("closed short of Content-Length", 1, EndInBody(End::Fin), Excuse::Begun),
        scenario("closed inside a chunk", 1, EndInChunks(End::Fin), Excuse::Begun),
        scenario("garbage", 1, Garbage, Excuse::Begun),
        scenario("longer than Content-Length", PODS, TooLong, Excuse::Nothing),
        scenario("two answers to one request", PODS, Twice, Excuse::Nothing),
        Scenario { requests: 100, ..scenario("a byte at a time", 1, Drip, Excuse::Nothing) },
        scenario("ten interim answers", PODS, Interims(10), Excuse::Nothing),
        scenario("a thousand interim answers", 1, Interims(1000), Excuse::Begun),
        scenario("chunk by chunk, with trailers", PODS, Chunked, Excuse::Nothing),
        scenario("a body that ends with the connection", PODS, UntilClosed, Excuse::Nothing),
        Scenario {
            body: 40_000,
            ..scenario("answered before the body is read", PODS, Early, Excuse::Nothing)
        },
        Scenario {
            body: 40_000,
            ..scenario("answered, and closed with the body unread", 1, EarlyThenClose, Excuse::SentPosts)
        },
    ]
}

fn after_the_answer() -> Vec<Scenario> {
    use Conduct::*;
    vec![
        scenario("Connection: close, and closed", PODS, AnswerThenEnd(End::Fin, Told::Yes), Excuse::Nothing),
        scenario("Connection: close, and reset", PODS, AnswerThenEnd(End::Reset, Told::Yes), Excuse::Nothing),
        scenario("closed without a word", PODS, AnswerThenEnd(End::Fin, Told::No), Excuse::Nothing),
        scenario(
            "closed for good without a word",
            PODS,
            AnswerThenEnd(End::Close, Told::No),
            Excuse::Nothing,
        ),
        scenario("reset without a word", PODS, AnswerThenEnd(End::Reset, Told::No), Excuse::Nothing),
        scenario("idle connections closed after 1 ms", PODS, AnswerThenIdle(MS, End::Fin), Excuse::Nothing),
        scenario(
            "idle connections closed for good after 1 ms",
            PODS,
            AnswerThenIdle(MS, End::Close),
            Excuse::Nothing,
        ),
        scenario(
            "idle connections reset after 3 ms",
            PODS,
            AnswerThenIdle(3 * MS, End::Reset),
            Excuse::Nothing,
        ),
        scenario(
            "closed at the first byte of the next request",
            PODS,
            AnswerThenEndAtNext(End::Fin),
            Excuse::Nothing,
        ),
        scenario(
            "reset at the first byte of the next request",
            PODS,
            AnswerThenEndAtNext(End::Reset),
            Excuse::Nothing,
        ),
        scenario("408 on idle connections", PODS, AnswerThenTimeout(20 * MS), Excuse::Nothing),
        Scenario {
            conduct: every(10, AnswerThenEnd(End::Close, Told::No)),
            ..scenario("each tenth answer is the last", PODS, Answer, Excuse::Nothing)
        },
    ]
}

/// Runs the scenarios one after the other, prints a row for each, and gives what is wrong.
async fn run_all(scenarios: Vec<Scenario>) -> Vec<String> {
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        wrong.extend(run(scenario).await);
    }
    wrong
}

/// A config of one route to these addresses, found without a cluster.
fn config(addresses: impl Iterator<Item = std::net::SocketAddr>, route: &str) -> String {
    let mut text = "listeners: [{name: web, address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\n\
                    drain: {delay: 0s, timeout: 5s}\ndiscovery:\n  static:\n    lab/svc:\n"
        .to_owned();
    for address in addresses {
        writeln!(text, "      - {{address: '{address}'}}").unwrap();
    }
    text + "routes:\n  - name: lab\n    service: lab/svc\n    versions: [{name: v1}]\n" + route
}

async fn router(text: &str) -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, text).unwrap();
    (start_router(file).await, folder)
}

async fn metrics(router: &Router) -> String {
    Client::new(router.admin()).get("localhost", "/metrics").await.unwrap().body
}

async fn run(scenario: &Scenario) -> Vec<String> {
    let ledger = Arc::default();
    let mut pods = Vec::new();
    for number in 0..PODS {
        let script =
            if number < scenario.bad { Arc::clone(&scenario.conduct) } else { always(Conduct::Answer) };
        pods.push(Pod::start((loopback_address(), 0).into(), &ledger, script).await);
    }
    let (router, _folder) = router(&config(pods.iter().map(|pod| pod.address), scenario.route)).await;
    let plan = Plan::new(router.listeners()[0].1, scenario.requests);
    let plan = Plan { body: scenario.body, clients: WITHIN_BUDGET, ..plan };
    let outcome = Clients::start(plan, &ledger).finish().await;
    print_row(scenario.name, &outcome, &metrics(&router).await);
    let mut wrong = judge(scenario.name, scenario.excuse, &outcome);
    // Whatever there was, nothing of it is left: no poisoned connection, nothing that is still counted as under way.
    pods.iter().for_each(|pod| pod.behave(always(Conduct::Answer)));
    for pod in pods.iter_mut().take(scenario.bad) {
        pod.restart().await;
    }
    let plan = Plan { post_every: 0, clients: WITHIN_BUDGET, ..Plan::new(router.listeners()[0].1, 40) };
    wrong.extend(judge(scenario.name, Excuse::Nothing, &Clients::start(plan, &ledger).finish().await));
    let active = || sum_active(&router) == 0;
    eventually(&format!("nothing is active after: {}", scenario.name), || active().then_some(())).await;
    router.stop().await;
    wrong
}

fn sum_active(router: &Router) -> u64 {
    let table = router.control().table().load_full();
    table.routes().iter().flat_map(|r| &r.versions).map(|v| v.tally.snapshot().active).sum()
}

fn print_row(name: &str, outcome: &Outcome, metrics: &str) {
    println!(
        "| {name} | {} GETs, {} POSTs | {} | {} | {} | {} | {} | {:.0?} |",
        outcome.gets,
        outcome.posts,
        outcome.failed_gets.len(),
        outcome.failed_sent_posts.len(),
        outcome.failed_unseen_posts.len(),
        outcome.repeated_posts.len(),
        sum(metrics, "serinus_retries_total"),
        outcome.slowest,
    );
}

/// What of an outcome is not excused.
fn judge(name: &str, excuse: Excuse, outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str, count: usize, first: String| {
        if count > 0 {
            wrong.push(format!("{name}: {count} {what}: {first}"));
        }
    };
    say(
        "POSTs were sent twice",
        outcome.repeated_posts.len(),
        format!("{:?}", outcome.repeated_posts.first()),
    );
    let all =
        outcome.failed_gets.iter().chain(&outcome.failed_sent_posts).chain(&outcome.failed_unseen_posts);
    let mixed: Vec<_> = all.filter(|failed| failed.why.starts_with("the answer of another")).collect();
    say("requests got the answer of another", mixed.len(), format!("{:?}", mixed.first()));
    let late = outcome.slowest > Duration::from_secs(5);
    say("request took long", usize::from(late), format!("{:?}", outcome.slowest));
    if !matches!(excuse, Excuse::Begun | Excuse::Hanging) {
        let gets = &outcome.failed_gets;
        say("GETs failed", gets.len(), format!("{:?}", gets.first()));
    }
    if excuse == Excuse::Hanging {
        let mut all = outcome.failed_gets.iter().chain(&outcome.failed_sent_posts);
        let other = all.find(|failed| failed.why != "504 timeout");
        say("failed otherwise than by the timeout", usize::from(other.is_some()), format!("{other:?}"));
        let most = outcome.requests() as usize / 2;
        say("failed, so that the pod is not set aside", outcome.failed().saturating_sub(most), String::new());
    }
    if excuse == Excuse::Nothing {
        let posts = &outcome.failed_sent_posts;
        say("POSTs failed", posts.len(), format!("{:?}", posts.first()));
    }
    if excuse != Excuse::WrittenPosts {
        let posts = &outcome.failed_unseen_posts;
        say("POSTs failed that no pod ever saw", posts.len(), format!("{:?}", posts.first()));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_pods_that_break_before_their_answer_lose_no_get() {
    let wrong = run_all(before_the_answer()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_pods_that_break_or_lie_inside_their_answer_cost_that_answer_alone() {
    let wrong = run_all(inside_the_answer()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_pods_that_close_after_their_answer_lose_nothing() {
    let wrong = run_all(after_the_answer()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A router in front of good pods and addresses at which there is none.
async fn with_missing(missing: &[std::net::SocketAddr], good: usize, name: &str) {
    let ledger = Arc::default();
    let mut pods = Vec::new();
    for _ in 0..good {
        pods.push(Pod::good((loopback_address(), 0).into(), &ledger).await);
    }
    let addresses = pods.iter().map(|pod| pod.address).chain(missing.iter().copied());
    let (router, _folder) = router(&config(addresses, "")).await;
    let outcome = Clients::start(Plan::new(router.listeners()[0].1, 400), &ledger).finish().await;
    print_row(name, &outcome, &metrics(&router).await);
    let wrong = judge(name, Excuse::Nothing, &outcome);
    assert!(wrong.is_empty(), "{wrong:#?}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_1_pods_that_refuse_connections_lose_nothing() {
    let nobody = |_| std::net::SocketAddr::new(loopback_address(), 9);
    with_missing(&[nobody(0)], 3, "one of four refuses").await;
    with_missing(&[0, 1, 2].map(nobody), 1, "three of four refuse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_1_a_pod_that_cannot_be_connected_to_loses_nothing() {
    let deaf = Deaf::start((loopback_address(), 0).into());
    with_missing(&[deaf.address], 3, "connecting to one of four times out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_pods_that_die_and_come_back_lose_no_get() {
    let ledger = Arc::default();
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(Pod::good((loopback_address(), 0).into(), &ledger).await);
    }
    let (router, _folder) = router(&config(pods.iter().map(|pod| pod.address), "")).await;
    let plan = Plan { clients: WITHIN_BUDGET, ..Plan::new(router.listeners()[0].1, u64::MAX) };
    let clients = Clients::start(plan, &ledger);
    for round in 0..20 {
        clients.more(50).await;
        pods[round % PODS].restart().await;
    }
    let outcome = clients.stop().await;
    let name = "killed and back at the same address, twenty times";
    print_row(name, &outcome, &metrics(&router).await);
    let wrong = judge(name, Excuse::WrittenPosts, &outcome);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Of each client at most the one request that was on its way to the pod that died.
    assert!(outcome.failed() <= 20 * WITHIN_BUDGET, "{outcome:?}");
    router.stop().await;
}

/// One route to the pods of the testpage manifest.
const TESTPAGE: &str = "
  - name: testpage
    service: default/testpage
    port: 8080
    versions: [{name: all}]
";

/// How a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// The cluster says so first; the pod serves until the router knows (a preStop sleep).
    Announced,
    /// The pod leaves first, and says so on its connections.
    Told,
    /// The pod leaves first, without a word.
    Silent,
    /// The pod dies.
    Killed,
}

/// Replaces pods until so many requests have passed.
async fn replace_pods(requests: u64, clients: usize, departures: &[Departure]) -> (Outcome, usize, String) {
    let mut fleet = Fleet::start(&manifest("testpage.yaml")).await;
    fleet.cluster.scale("default/testpage", 6);
    fleet.start_pods().await;
    let router = start_router(fleet.config(TESTPAGE)).await;
    let ready = || (usable(&router, "testpage", 0).len() == 6).then_some(());
    eventually("the router knows the pods", ready).await;
    let plan = Plan { clients, ..Plan::new(router.listeners()[0].1, requests) };
    let clients = Clients::start(plan, &fleet.ledger);
    let mut replaced = 0;
    for departure in departures.iter().cycle() {
        let leaving = fleet.pods_of("default/testpage").remove(0);
        // One more of the present template, which the oldest then makes room for.
        fleet.cluster.scale("default/testpage", 7);
        fleet.start_pods().await;
        eventually("the new pod is known", || (usable(&router, "testpage", 0).len() == 7).then_some(()))
            .await;
        match departure {
            Departure::Announced => fleet.cluster.begin_delete(&leaving),
            Departure::Told => fleet.leave(&leaving, Told::Yes).await,
            Departure::Silent => fleet.leave(&leaving, Told::No).await,
            Departure::Killed => fleet.pods.get_mut(&leaving).unwrap().kill().await,
        }
        clients.more(30).await;
        if *departure != Departure::Announced {
            fleet.cluster.begin_delete(&leaving);
        }
        eventually("the old pod is out", || (usable(&router, "testpage", 0).len() == 6).then_some(())).await;
        clients.more(30).await;
        if *departure == Departure::Announced {
            fleet.leave(&leaving, Told::No).await;
        }
        fleet.remove(&leaving);
        replaced += 1;
        if clients.is_finished() {
            break;
        }
    }
    let outcome = clients.finish().await;
    let metrics = metrics(&router).await;
    router.stop().await;
    (outcome, replaced, metrics)
}

/// How many requests the long tests send.
fn long(default: u64) -> u64 {
    let asked = std::env::var("SERINUS_LAB_REQUESTS").ok();
    asked.map_or(default, |asked| asked.parse().expect("SERINUS_LAB_REQUESTS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_3_pods_replaced_without_end_lose_nothing() {
    let begun = Instant::now();
    let departures = [Departure::Announced, Departure::Told, Departure::Silent];
    let (outcome, replaced, metrics) = replace_pods(long(50_000), 8, &departures).await;
    let name = format!("{replaced} pods replaced in {:.1?}", begun.elapsed());
    print_row(&name, &outcome, &metrics);
    let wrong = judge(&name, Excuse::WrittenPosts, &outcome);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(outcome.failed_sent_posts.is_empty(), "{:?}", outcome.failed_sent_posts);
    check_backlog(&outcome, replaced);
}

/// A connection that the kernel has taken and the pod has not, at the moment that the pod closes its port, is reset by the
/// kernel: a POST on it was sent, and nobody can know whether it was seen. A pod that waits for the router to know
/// (preStop) has none of these; of the others one in a hundred may.
fn check_backlog(outcome: &Outcome, replaced: usize) {
    let unseen = &outcome.failed_unseen_posts;
    assert!(unseen.len() <= 1 + replaced / 100, "{replaced} pods replaced: {unseen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_2_pods_killed_without_warning_lose_no_get() {
    let (outcome, replaced, metrics) =
        replace_pods(long(50_000) / 10, WITHIN_BUDGET, &[Departure::Killed]).await;
    let name = format!("{replaced} pods killed without warning");
    print_row(&name, &outcome, &metrics);
    let wrong = judge(&name, Excuse::WrittenPosts, &outcome);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Of each client at most the one POST that was on its way to the pod that died.
    assert!(outcome.failed() <= WITHIN_BUDGET * replaced, "{outcome:?}");
}

/// A lab that sees nothing would find everything right: here clients and pods have no router between them.
#[tokio::test]
async fn the_lab_finds_what_it_looks_for() {
    let ledger = Arc::default();
    let direct = async |conduct: Conduct, clients: usize| {
        let pod = Pod::start((loopback_address(), 0).into(), &ledger, always(conduct)).await;
        Clients::start(Plan { clients, ..Plan::new(pod.address, 40) }, &ledger).finish().await
    };
    let outcome = direct(Conduct::Answer, 8).await;
    assert_eq!((outcome.gets, outcome.posts, outcome.failed()), (30, 10, 0), "{outcome:?}");
    let outcome = direct(Conduct::EndAfterHead(End::Reset), 8).await;
    assert_eq!((outcome.failed_gets.len(), outcome.failed_sent_posts.len()), (30, 10), "{outcome:?}");
    assert!(!judge("", Excuse::SentPosts, &outcome).is_empty());
    // The second answer is taken for that of the next request.
    let outcome = direct(Conduct::Twice, 1).await;
    assert!(judge("", Excuse::Begun, &outcome)[0].contains("the answer of another"), "{outcome:?}");
    let pod = Pod::good((loopback_address(), 0).into(), &ledger).await;
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nX-Test-Id: POST-again\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..2 {
        Client::new(pod.address).once(post).await.unwrap();
    }
    assert_eq!((ledger.repeated(), pod.requests()), (vec!["POST-again".to_owned()], 2));
    // Nobody there: no pod saw the POSTs.
    let nobody = std::net::SocketAddr::new(loopback_address(), 9);
    let outcome = Clients::start(Plan::new(nobody, 40), &ledger).finish().await;
    assert_eq!((outcome.failed_unseen_posts.len(), outcome.failed()), (10, 40), "{outcome:?}");
    assert_eq!(judge("", Excuse::Nothing, &outcome).len(), 3, "two kinds of request, and a POST twice");
}
