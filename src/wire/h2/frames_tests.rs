//! What the tests of HTTP/2 share: raw frames, and a server whose requests the test answers itself.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{H2Exchange, Requests, serve};
use crate::model::Edge;
use crate::wire::{Length, RequestHead, ResponseHead};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

/// How long anything may take before a test has failed.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A block of literal fields that are not indexed (RFC 7541 §6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        let mut left = text.len();
        if left < 127 {
            out.push(left as u8);
        } else {
            out.push(127);
            left -= 127;
            while left >= 128 {
                out.push((left % 128 + 128) as u8);
                left /= 128;
            }
            out.push(left as u8);
        }
        out.extend(text.as_bytes());
    };
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

/// The block of a request.
pub(super) fn asking(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.example")];
    fields.extend(more);
    block(&fields)
}

/// The next frame; nothing when the connection is over.
pub(super) async fn next(io: &mut DuplexStream) -> Option<Frame> {
    let mut head = [0; 9];
    tokio::time::timeout(DEADLINE, io.read_exact(&mut head)).await.expect("a frame in time").ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    tokio::time::timeout(DEADLINE, io.read_exact(&mut payload)).await.expect("a frame in time").ok()?;
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// The next frame of this kind.
pub(super) async fn next_of(io: &mut DuplexStream, kind: u8) -> Option<Frame> {
    loop {
        let frame = next(io).await?;
        if frame.kind == kind {
            return Some(frame);
        }
    }
}

/// Begins as a client: preface and SETTINGS.
pub(super) async fn begin(io: &mut DuplexStream) {
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
}

type Asked = (super::server::Asked, H2Exchange);

/// A server whose requests the test answers itself.
pub(super) struct Server {
    pub(super) asked: mpsc::UnboundedReceiver<Asked>,
    pub(super) task: JoinHandle<()>,
    pub(super) shutdown: oneshot::Sender<()>,
}

/// What takes requests one after the other, from what takes one.
pub(super) fn each<F, Fut>(handle: F) -> impl Fn(Requests) -> BoxFuture<'static, ()>
where
    F: Fn(super::server::Asked, H2Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let handle = std::sync::Arc::new(handle);
    move |mut requests| {
        let handle = std::sync::Arc::clone(&handle);
        Box::pin(async move {
            while let Some((asked, exchange)) = requests.next().await {
                handle(asked, exchange).await;
            }
        })
    }
}

/// A served connection, and the client's end of it. Nothing but the test ends its exchanges.
pub(super) fn served(edge: Edge, buffer: usize) -> (DuplexStream, Server) {
    let (client, io) = tokio::io::duplex(buffer);
    let (asking, asked) = mpsc::unbounded_channel();
    let (shutdown, told) = oneshot::channel();
    let task = tokio::spawn(async move {
        let told = async {
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let handle = move |head, exchange| {
            let asking = asking.clone();
            async move {
                let _ = asking.send((head, exchange));
            }
        };
        serve(io, &edge, told, each(handle)).await;
    });
    (client, Server { asked, task, shutdown })
}

impl Server {
    /// The next request, which was not refused.
    pub(super) async fn request(&mut self) -> (RequestHead, Length, H2Exchange) {
        let (head, exchange) = self.any().await;
        let (head, length) = head.unwrap();
        (head, length, exchange)
    }

    pub(super) async fn any(&mut self) -> Asked {
        tokio::time::timeout(DEADLINE, self.asked.recv()).await.expect("a request in time").unwrap()
    }

    /// Waits for the connection's end.
    pub(super) async fn over(self) {
        // Exchanges that were not taken end with it.
        drop(self.asked);
        tokio::time::timeout(DEADLINE, self.task).await.expect("an end in time").unwrap();
    }
}

pub(super) fn answer(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead { status: status.try_into().unwrap(), ..ResponseHead::default() };
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}
