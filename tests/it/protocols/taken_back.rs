//! Connections that last end with the version that they are at, when its rollout takes it back (semantics §5.6).

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt as _;
use hyper::body::Frame;
use serinus::model::Timestamp;
use serinus::rollout::Asked;
use serinus::state::{Request, Source};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::bodies::{Sent, piece};
use super::front::{Front, Io, Plan};
use super::pods::Speaks;
use super::streams::told;
use super::websocket::{Ended, connect, echo, next};
use crate::support::stack::set_weight;
use crate::support::{PATIENCE, eventually};

const VERSIONS: &str = "versions: [{name: v1, selector: version=v1}, {name: v2, selector: version=v2}]";

/// A rollout that stays at 100 %.
fn rollout(deadline: &str) -> String {
    format!("rollout: {{abortDeadline: {deadline}, steps: [{{weight: 100, hold: 1h}}]}}")
}

async fn ask(front: &Front, asked: Asked) {
    let request =
        Request { source: Source::Admin, who: None, reason: None, expected: None, at: Timestamp::default() };
    front.router.control().ask_rollout("shop", asked, request).await.unwrap();
}

type Socket = WebSocketStream<Box<dyn Io>>;

async fn open(front: &Front) -> Socket {
    connect(Box::new(front.plain().await), "/").await.unwrap()
}

/// What is said comes back.
async fn lives(socket: &mut Socket) {
    socket.send(Message::text("there?")).await.unwrap();
    assert_eq!(next(socket).await.unwrap().unwrap(), Message::text("there?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_6_abort_ends_websockets_of_the_canary_and_no_others() {
    let (stable, mut at_stable) = echo(None).await;
    let (canary, mut at_canary) = echo(None).await;
    let mut plan = Plan::to([stable.address]).route(VERSIONS).route(rollout("300ms"));
    plan.pods.push((canary.address, "v2"));
    let log = plan.path("access.json");
    let front = plan.top(format!("accessLog: {{file: {}}}", log.display())).start().await;

    let mut old = open(&front).await;
    ask(&front, Asked::Start).await;
    let mut new = open(&front).await;
    lives(&mut new).await;
    assert_eq!(canary.connections(), 1);
    // The weight alone ends nothing.
    assert_eq!(set_weight(&front.router, "shop", r#"{"v2": 0}"#).await.status, 200);
    lives(&mut new).await;

    ask(&front, Asked::Abort).await;
    // What comes after it does not end with it.
    ask(&front, Asked::Start).await;
    let mut next_release = open(&front).await;
    let end = next(&mut new).await;
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    assert_eq!(at_canary.recv().await, Some(Ended::Cut));
    lives(&mut next_release).await;
    lives(&mut old).await;
    assert!(at_canary.try_recv().is_err() && at_stable.try_recv().is_err());
    let line = eventually("it is logged", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().find(|line| line.contains("taken-back")).map(ToOwned::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line.await).unwrap();
    assert_eq!((&line["status"], &line["version"]), (&101.into(), &"v2".into()), "{line}");
    let tally = || front.router.control().table().load().routes()[0].versions[1].tally.snapshot();
    assert!(tally().failures.iter().all(|(_, count)| *count == 0), "it is not the pod's failure");
    drop((old, new, next_release));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_6_connections_have_until_the_deadline() {
    let (stable, _at_stable) = echo(None).await;
    let (canary, mut at_canary) = echo(None).await;
    let mut plan = Plan::to([stable.address]).route(VERSIONS).route(rollout("1h"));
    plan.pods.push((canary.address, "v2"));
    let front = plan.start().await;
    ask(&front, Asked::Start).await;
    let mut socket = open(&front).await;
    ask(&front, Asked::Abort).await;
    lives(&mut socket).await;
    assert!(at_canary.try_recv().is_err());
    drop(socket);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_6_abort_ends_event_streams_and_grpc() {
    for (speaks, kind) in [
        (Speaks::Http1, "text/event-stream"),
        (Speaks::Http2, "text/event-stream"),
        (Speaks::Http2, "application/grpc"),
    ] {
        let (stable, _) = told(speaks, kind).await;
        let (canary, mut requests) = told(speaks, kind).await;
        let mut plan = Plan::to([stable.address]).route(VERSIONS).route(rollout("300ms"));
        plan.pods.push((canary.address, "v2"));
        if speaks == Speaks::Http2 {
            plan = plan.route("protocol: http2");
        }
        let front = plan.start().await;
        ask(&front, Asked::Start).await;
        let mut sender = front.sender(speaks).await;
        let answer = sender.send(sender.request("GET", "/", Sent::empty())).await.unwrap();
        assert_eq!(answer.status(), 200, "{kind}");
        let send = requests.recv().await.unwrap();
        let mut stream = answer.into_body();
        send.send(Frame::data(Bytes::from("data: 1\n\n"))).await.unwrap();
        assert_eq!(piece(&mut stream).await.unwrap().unwrap(), "data: 1\n\n");
        ask(&front, Asked::Abort).await;
        // However busy it is.
        let talking = tokio::spawn(async move {
            while send.send(Frame::data(Bytes::from("data: 2\n\n"))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let cut = async { while let Some(Ok(_)) = piece(&mut stream).await {} };
        tokio::time::timeout(PATIENCE, cut).await.expect("it is cut");
        tokio::time::timeout(PATIENCE, talking).await.expect("the pod hears of it").unwrap();
        eventually("the request has ended", || (front.active() == 0).then_some(())).await;
        front.router.stop().await;
    }
}
