//! The queue: nobody waits, what does not fit is counted, and what waits at the end is sent.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::spans::tests::entry;
use super::*;

fn start(endpoint: &str) -> (Traces, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new().unwrap());
    (Traces::start(endpoint, Share::ALL, Arc::clone(&telemetry)).unwrap(), telemetry)
}

fn count(telemetry: &Telemetry, result: &str) -> u64 {
    let name = format!("serinus_trace_spans_total{{result=\"{result}\"}} ");
    telemetry.text().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
}

#[test]
fn a_collector_that_takes_and_never_answers_holds_nobody_up() {
    // Connections are taken by the kernel, and nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (traces, telemetry) = start(&format!("http://{}/v1/traces", listener.local_addr().unwrap()));
    let many = 3 * QUEUE as u64;
    for _ in 0..many {
        traces.end(traces.begin(None).unwrap(), &entry(), SystemTime::UNIX_EPOCH);
    }
    // What is on its way and what waits is not dropped: a queue, and as many batches as were taken while it was filled.
    let dropped = count(&telemetry, "dropped");
    assert!(dropped > 0 && dropped < many, "{dropped} of {many}");
    let begun = Instant::now();
    drop(traces);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "the end waits for a moment, and not for the collector"
    );
}

#[test]
fn what_waits_at_the_end_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut head = vec![0; 4_096];
        let read = socket.read(&mut head).unwrap();
        tell.send(String::from_utf8_lossy(&head[..read]).into_owned()).unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let (traces, telemetry) = start(&format!("http://{address}/v1/traces"));
    traces.end(traces.begin(None).unwrap(), &entry(), SystemTime::UNIX_EPOCH);
    drop(traces);
    let head = told.try_recv().expect("it was sent before the end");
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/x-protobuf\r\n"), "{head}");
    assert_eq!((count(&telemetry, "success"), count(&telemetry, "failure")), (1, 0));
}

#[test]
fn who_asked_decides_and_else_the_sample() {
    let parent = |flags| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
    let (sampled, not) = (parent("01"), parent("00"));
    let telemetry = Arc::new(Telemetry::new().unwrap());
    for (share, draws) in [(Share::ALL, true), (Share::ZERO, false)] {
        let traces = Traces::start("http://127.0.0.1:1/v1/traces", share, Arc::clone(&telemetry)).unwrap();
        assert_eq!(traces.begin(None).is_some(), draws);
        assert!(traces.begin(TraceParent::read(&sampled)).is_some());
        assert!(traces.begin(TraceParent::read(&not)).is_none());
    }
}

#[test]
fn a_share_is_right_on_average() {
    let telemetry = Arc::new(Telemetry::new().unwrap());
    let tenth = Share::from_millionths(100_000).unwrap();
    let traces = Traces::start("http://127.0.0.1:1/v1/traces", tenth, telemetry).unwrap();
    let drawn = (0..100_000).filter(|_| traces.begin(None).is_some()).count();
    // Ten standard deviations.
    assert!((9_050..10_950).contains(&drawn), "{drawn}");
}
