//! WebSocket (RFC 6455), with tokio-tungstenite on both sides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::bodies::pattern;
use super::front::{Front, HOST, Io, Plan};
use super::pods::Pod;
use crate::support::certificates::Authority;
use crate::support::{PATIENCE, eventually};

/// What a pod saw of a connection's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The close handshake went through.
    Closed,
    /// The connection was gone.
    Cut,
}

/// A pod that sends back what it gets, refuses `/refused`, and closes when it is told `leave`.
pub(super) async fn echo(tls: Option<Arc<ServerConfig>>) -> (Pod, mpsc::UnboundedReceiver<Ended>) {
    let (ended, heard) = mpsc::unbounded_channel();
    let pod = Pod::start(tls, move |io| {
        let ended = ended.clone();
        async move {
            #[expect(clippy::result_large_err, reason = "the type is tungstenite's")]
            let look = |request: &Request, response: Response| {
                if request.uri().path() != "/refused" {
                    return Ok(response);
                }
                let mut refusal = ErrorResponse::new(Some("not for you".to_owned()));
                *refusal.status_mut() = http::StatusCode::FORBIDDEN;
                Err(refusal)
            };
            let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(io, look).await else { return };
            let end = loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) if text.as_str() == "leave" => {
                        let frame = CloseFrame { code: CloseCode::Away, reason: "as told".into() };
                        socket.close(Some(frame)).await.unwrap();
                    }
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        if socket.send(message).await.is_err() {
                            break Ended::Cut;
                        }
                    }
                    Some(Ok(_)) => {}
                    None | Some(Err(Error::ConnectionClosed)) => break Ended::Closed,
                    Some(Err(_)) => break Ended::Cut,
                }
            };
            // Nobody asks any more where the test has ended.
            let _ = ended.send(end);
        }
    })
    .await;
    (pod, heard)
}

pub(super) async fn connect(io: Box<dyn Io>, path: &str) -> Result<WebSocketStream<Box<dyn Io>>, Error> {
    let connecting = tokio_tungstenite::client_async(format!("ws://{HOST}{path}"), io);
    let (socket, answer) = tokio::time::timeout(PATIENCE, connecting).await.expect("an answer")?;
    assert_eq!(answer.status().as_u16(), 101);
    Ok(socket)
}

pub(super) async fn next(socket: &mut WebSocketStream<Box<dyn Io>>) -> Option<Result<Message, Error>> {
    tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time")
}

/// Everything that a connection does, and a proper end.
async fn talk(mut socket: WebSocketStream<Box<dyn Io>>, heard: &mut mpsc::UnboundedReceiver<Ended>) {
    let messages = [
        Message::text("grüezi"),
        Message::binary(&b"\0\xff"[..]),
        Message::text(""),
        Message::binary(pattern(0, 1 << 20)),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping(b"there?"[..].into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Pong(b"there?"[..].into()));
    // Both sides send before either reads.
    for n in 0..100 {
        socket.feed(Message::text(n.to_string())).await.unwrap();
    }
    socket.flush().await.unwrap();
    for n in 0..100 {
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text(n.to_string()));
    }
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Close(Some(frame)));
    assert!(next(&mut socket).await.is_none_or(|end| matches!(end, Err(Error::ConnectionClosed))));
    assert_eq!(heard.recv().await, Some(Ended::Closed));
}

async fn idle(front: &Front) {
    eventually("the request has ended", || (front.active() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_with_and_without_tls_on_either_side() {
    let authority = Authority::new("a");
    let issued = authority.issue(&[HOST]);
    for pod_tls in [false, true] {
        let (pod, mut heard) = echo(pod_tls.then(|| issued.server(&["http/1.1"]))).await;
        for front_tls in [false, true] {
            let mut plan = Plan::to([pod.address]);
            if pod_tls {
                let ca = plan.file("ca.crt", &authority.pem());
                plan = plan.route(format!("upstreamTls: {{serverName: {HOST}, caFile: {ca}}}"));
            }
            if front_tls {
                plan = plan.tls(&[&issued], "");
            }
            let front = plan.start().await;
            let io: Box<dyn Io> = if front_tls {
                Box::new(front.secure(&authority.client(), HOST, &["http/1.1"]).await.unwrap())
            } else {
                Box::new(front.plain().await)
            };
            talk(connect(io, "/").await.unwrap(), &mut heard).await;
            idle(&front).await;
            front.router.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_closes_a_websocket_and_refuses_one() {
    let (pod, mut heard) = echo(None).await;
    let front = Plan::to([pod.address]).start().await;
    let mut socket = connect(Box::new(front.plain().await), "/").await.unwrap();
    socket.send(Message::text("leave")).await.unwrap();
    let said = next(&mut socket).await.unwrap().unwrap();
    assert_eq!(said, Message::Close(Some(CloseFrame { code: CloseCode::Away, reason: "as told".into() })));
    assert!(next(&mut socket).await.is_none_or(|end| matches!(end, Err(Error::ConnectionClosed))));
    assert_eq!(heard.recv().await, Some(Ended::Closed));

    let Err(Error::Http(refusal)) = connect(Box::new(front.plain().await), "/refused").await else {
        panic!("the pod refuses it");
    };
    assert_eq!(refusal.status(), 403);
    assert_eq!(refusal.headers().get("x-serinus-reason"), None, "it is the pod's answer");
    idle(&front).await;

    // A client that leaves without a word.
    let mut socket = connect(Box::new(front.plain().await), "/").await.unwrap();
    socket.send(Message::text("here")).await.unwrap();
    next(&mut socket).await.unwrap().unwrap();
    drop(socket);
    assert_eq!(heard.recv().await, Some(Ended::Cut));
    idle(&front).await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_a_websocket_is_cut_when_it_is_idle_and_not_before() {
    let (pod, mut heard) = echo(None).await;
    let timeouts = "timeouts: {request: 500ms, idle: 150ms, total: 500ms, upgradedIdle: 900ms}";
    let front = Plan::to([pod.address])
        .route(timeouts)
        .listener("timeouts: {header: 500ms, body: 500ms, write: 500ms, idle: 500ms}")
        .start()
        .await;
    let mut socket = connect(Box::new(front.plain().await), "/").await.unwrap();
    let begun = Instant::now();
    // Every other limit passes several times over.
    while begun.elapsed() < Duration::from_millis(1_200) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("still here"));
    }
    let quiet = Instant::now();
    let end = next(&mut socket).await;
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    assert!(quiet.elapsed() >= Duration::from_millis(800), "{:?}", quiet.elapsed());
    assert_eq!(heard.recv().await, Some(Ended::Cut));
    drop(socket);
    idle(&front).await;
    front.router.stop().await;
}
