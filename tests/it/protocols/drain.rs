//! The end of the process and the streams of HTTP/2: what is told, what runs on, what is cut (semantics §4.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::bodies::Sent;
use super::front::{HOST, Plan};
use super::pods::{Pod, Speaks};
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually};

/// How long requests get, from the word to stop.
const TIMEOUT: Duration = Duration::from_secs(4);

/// A pod that never answers `/hang`, answers `/begun` with a beginning alone, and `/late` when it is told to. Counts the
/// requests that came.
async fn pod(speaks: Speaks, told: watch::Receiver<bool>) -> (Pod, Arc<AtomicU64>) {
    let came = Arc::<AtomicU64>::default();
    let count = Arc::clone(&came);
    let answer = move |request: Request<Incoming>| {
        let (mut told, count) = (told.clone(), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            match request.uri().path() {
                "/begun" => {
                    let (send, body) = Sent::frames();
                    tokio::spawn(async move {
                        send.send(Frame::data(Bytes::from("some"))).await.unwrap();
                        send.closed().await;
                    });
                    Response::new(body)
                }
                "/late" => {
                    told.wait_for(|told| *told).await.unwrap();
                    Response::new(Sent::whole("late"))
                }
                _ => std::future::pending().await,
            }
        }
    };
    (Pod::http(speaks, None, answer).await, came)
}

/// A client of HTTP/2 that hears every frame.
async fn client(process: &Process) -> (SendRequest<Bytes>, AbortOnDropHandle<Result<(), h2::Error>>) {
    let socket = TcpStream::connect(process.web).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    (sender, AbortOnDropHandle::new(tokio::spawn(connection)))
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let request = Request::get(format!("http://{HOST}{path}")).body(()).unwrap();
    sender.clone().ready().await.unwrap().send_request(request, true).unwrap().0
}

/// Waits until the client is told to send its requests elsewhere, which is no error (RFC 9113 §6.8).
async fn farewell(sender: &SendRequest<Bytes>) {
    let told = async {
        loop {
            match sender.clone().ready().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    };
    let word = timeout(PATIENCE, told).await.expect("the client is told");
    assert!(word.is_go_away() && word.is_remote(), "{word:?}");
    assert_eq!(word.reason(), Some(Reason::NO_ERROR), "{word:?}");
}

/// A router with such a `drain`, in front of a pod that speaks so.
async fn start(speaks: Speaks, pod: &Pod, drain: &str) -> (Process, TempDir) {
    let mut plan = Plan::to([pod.address]).top(format!("drain: {{{drain}}}")).top("accessLog: stdout");
    if speaks == Speaks::Http2 {
        plan = plan.route("protocol: http2");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, plan.text()).unwrap();
    (Process::start(&file).await, folder)
}

/// Waits for the answer to a request that the router gives up on.
async fn given_up(response: ResponseFuture) {
    let answer = timeout(PATIENCE, response).await.expect("in time").unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-serinus-reason"]),
        (503, &"drain-timeout".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_streams_get_until_drain_timeout_and_are_answered_or_reset_then() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let (tell, told) = watch::channel(false);
        let (pod, came) = pod(speaks, told).await;
        let drain = format!("delay: 0s, timeout: {}s", TIMEOUT.as_secs());
        let (process, _folder) = start(speaks, &pod, &drain).await;
        let (sender, connection) = client(&process).await;
        let [hanging, late, begun] =
            [get(&sender, "/hang").await, get(&sender, "/late").await, get(&sender, "/begun").await];
        let answer = begun.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut begun = answer.into_body();
        assert_eq!(begun.data().await.unwrap().unwrap(), "some");
        eventually("all of them are at the pod", || (came.load(Ordering::Relaxed) == 3).then_some(())).await;

        let since = Instant::now();
        process.signal("TERM");
        farewell(&sender).await;
        // What runs goes on: this one is answered after the word, and whole.
        tell.send_replace(true);
        let answer = timeout(PATIENCE, late).await.expect("in time").unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "late");

        given_up(hanging).await;
        let end = timeout(PATIENCE, begun.data()).await.expect("in time").expect("no plain end");
        let reset = end.expect_err("a part is never passed off as the whole");
        assert!(reset.is_reset() && reset.is_remote(), "{reset:?}");
        assert_eq!(reset.reason(), Some(Reason::INTERNAL_ERROR), "{reset:?}");
        assert!(since.elapsed() >= TIMEOUT, "{:?}", since.elapsed());
        let _ = timeout(PATIENCE, connection).await.expect("the connection ends");
        check_end(process).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_streams_are_told_at_once_to_go_elsewhere_and_a_second_signal_ends_them() {
    let (_tell, told) = watch::channel(false);
    let (pod, came) = pod(Speaks::Http1, told).await;
    // Longer than anything here is waited for.
    let (process, _folder) = start(Speaks::Http1, &pod, "delay: 90s, timeout: 90s").await;
    let (sender, _connection) = client(&process).await;
    let hanging = get(&sender, "/hang").await;
    eventually("it is at the pod", || (came.load(Ordering::Relaxed) == 1).then_some(())).await;
    process.signal("TERM");
    farewell(&sender).await;
    process.signal("INT");
    given_up(hanging).await;
    assert_eq!(process.end(PATIENCE).0.code(), Some(0));
}

/// The process ended well, and each of the three requests has its line.
async fn check_end(process: Process) {
    eventually("it says so", || process.logged("cut at the end of drain.timeout")).await;
    let (status, lines) = process.end(PATIENCE);
    assert_eq!(status.code(), Some(0));
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |path: &str| {
        let mut of_it = lines.iter().filter(|line| line["path"] == path);
        let line = of_it.next().unwrap_or_else(|| panic!("no line of {path}: {lines:?}"));
        assert!(of_it.next().is_none(), "one line of {path}: {lines:?}");
        (line["status"].as_u64().unwrap(), line["answer"].clone())
    };
    assert_eq!(told("/late"), (200, Value::Null));
    assert_eq!(told("/hang"), (503, "drain-timeout".into()));
    assert_eq!(told("/begun"), (200, "drain-timeout".into()));
}
