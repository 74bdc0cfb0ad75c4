//! Hooks against servers that answer as they are told.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;

use super::*;

/// A server that answers with these, one after the other, and keeps what it was sent.
struct Server {
    url: String,
    got: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in?key=secret", listener.local_addr().unwrap());
        let got = Arc::<Mutex<Vec<String>>>::default();
        let into = Arc::clone(&got);
        std::thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut text = Vec::new();
                let mut piece = [0; 4096];
                while !std::str::from_utf8(&text).unwrap().ends_with('}') {
                    let read = socket.read(&mut piece).unwrap();
                    assert!(read > 0, "the body ends with the note");
                    text.extend_from_slice(&piece[..read]);
                }
                into.lock().unwrap().push(String::from_utf8(text).unwrap());
                write!(socket, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        });
        Self { url, got }
    }

    fn hook(&self, on: HookEvent) -> Hook {
        Hook { url: self.url.clone(), on: vec![on], timeout: Duration::from_secs(20), retries: 1 }
    }

    async fn got(&self, count: usize) -> Vec<String> {
        let there = async {
            loop {
                let got = self.got.lock().unwrap().clone();
                if got.len() >= count {
                    return got;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("the calls come")
    }
}

fn note(event: HookEvent) -> Note {
    Note {
        event,
        route: "shop".parse().unwrap(),
        version: "v2".parse().unwrap(),
        step: 2,
        weight: "5".parse().unwrap(),
        phase: "running",
        reason: "step 2 of 3: step 1 ended well".to_owned(),
        revision: Revision(7),
        time: Timestamp::from_millis(1_774_000_000_123),
    }
}

fn hooks() -> (Hooks, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new().unwrap());
    (Hooks::start(Arc::clone(&telemetry)), telemetry)
}

#[tokio::test]
async fn those_who_ask_for_it_are_told_and_told_again_when_they_fail() {
    let (hooks, telemetry) = hooks();
    let server = Server::start(&["503 Busy", "204 No Content"]);
    let other = Hook { on: vec![HookEvent::Promoted], ..server.hook(HookEvent::Step) };
    hooks.tell(&[other, server.hook(HookEvent::Step)], note(HookEvent::Step));
    let got = server.got(2).await;
    assert_eq!(got[0], got[1]);
    assert!(got[0].starts_with("POST /in?key=secret HTTP/1.1\r\n"), "{}", got[0]);
    let body: serde_json::Value = serde_json::from_str(got[0].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let wanted = serde_json::json!({
        "event": "step", "route": "shop", "version": "v2", "step": 2, "weight": 5, "phase": "running",
        "reason": "step 2 of 3: step 1 ended well", "revision": 7, "time": "2026-03-20T09:46:40.123Z",
    });
    assert_eq!(body, wanted);
    let counted = async {
        let wanted = ["event=\"step\",result=\"failure\"} 1", "event=\"step\",result=\"success\"} 1"];
        while !wanted.iter().all(|sample| telemetry.text().contains(sample)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("both are counted");
}

#[tokio::test]
async fn a_gate_lets_a_step_begin_with_2xx_alone_and_shows_no_secret() {
    let (hooks, _) = hooks();
    let redirect: &[&str] = &["302 Found\r\nLocation: http://127.0.0.1:1/"];
    for (answers, wanted) in [
        (&["200 OK"][..], Ok(())),
        (&["404 Not Found"], Err("answered 404")),
        (redirect, Err("answered 302, and redirects are not followed")),
    ] {
        let server = Server::start(answers);
        let answer = hooks.ask(&[server.hook(HookEvent::Gate)], note(HookEvent::Gate)).await.unwrap();
        match (answer, wanted) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(wanted)) => {
                assert!(said.ends_with(wanted) && said.starts_with("http://127.0.0.1:"), "{said}");
                assert!(!said.contains("secret"), "{said}");
            }
            (answer, wanted) => panic!("{answer:?} instead of {wanted:?}"),
        }
        assert_eq!(server.got(1).await.len(), 1);
    }
}

#[tokio::test]
async fn a_gate_that_is_not_there_or_does_not_answer_lets_nothing_begin() {
    let (hooks, _) = hooks();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (url, wanted) in [
        (format!("http://{}/", silent.local_addr().unwrap()), "cannot be reached: timeout"),
        ("http://127.0.0.1:1/".to_owned(), "cannot be reached: "),
    ] {
        let timeout = Duration::from_millis(200);
        let gate = Hook { url, on: vec![HookEvent::Gate], timeout, retries: 0 };
        let said = hooks.ask(&[gate], note(HookEvent::Gate)).await.unwrap().unwrap_err();
        assert!(said.contains(wanted), "{said}");
    }
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_dropped_and_told() {
    let telemetry = Arc::new(Telemetry::new().unwrap());
    // Nobody takes anything out.
    let (queue, _orders) = mpsc::channel(1);
    let hooks = Hooks { queue, telemetry: Arc::clone(&telemetry) };
    let hook = Hook {
        url: "http://127.0.0.1:1/".to_owned(),
        on: vec![HookEvent::Step],
        timeout: Duration::from_secs(1),
        retries: 0,
    };
    for _ in 0..3 {
        hooks.tell(std::slice::from_ref(&hook), note(HookEvent::Step));
    }
    assert!(telemetry.text().contains("event=\"step\",result=\"dropped\"} 2"), "{}", telemetry.text());
    assert!(hooks.ask(&[hook], note(HookEvent::Gate)).await.unwrap().is_err());
}
