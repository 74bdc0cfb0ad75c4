//! HTTP/1 as bytes: clients and pods that send exactly what they are told, and see exactly what comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::front::Io;
use super::pods::Pod;
use crate::support::PATIENCE;

/// A connection as bytes.
pub(super) struct Raw {
    io: Box<dyn Io>,
    /// What was read, and not yet asked for.
    buffer: Vec<u8>,
}

impl Raw {
    pub(super) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// The same, to somebody who may have gone.
    pub(super) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await
    }

    /// What comes up to the end of the next head; nothing when the connection ends before.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            self.more().await?;
        }
    }

    /// The next so many bytes.
    pub(super) async fn exactly(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            self.more().await.unwrap_or_else(|| panic!("the connection ended after {:?}", self.buffer));
        }
        String::from_utf8(self.buffer.drain(..length).collect()).unwrap()
    }

    /// What comes until the connection ends.
    pub(super) async fn rest(&mut self) -> String {
        while self.more().await.is_some() {}
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// Whether nothing comes, and the connection does not end, for so long.
    pub(super) async fn is_quiet(&mut self, span: Duration) -> bool {
        self.buffer.is_empty() && tokio::time::timeout(span, self.more()).await.is_err()
    }

    /// Reads some more; nothing at the end, however it comes.
    async fn more(&mut self) -> Option<()> {
        let read = tokio::time::timeout(PATIENCE, self.io.read_buf(&mut self.buffer)).await;
        match read.expect("something in time") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

/// A pod that hands each of its connections to `serve`, as bytes.
pub(super) async fn pod<F, Fut>(serve: F) -> Pod
where
    F: Fn(Raw) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    Pod::start(None, move |io| serve(Raw { io, buffer: Vec::new() })).await
}

/// A pod that answers every request that has no body with these bytes, and keeps the connection.
pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> Pod {
    let answer: Arc<[u8]> = answer.into().into();
    pod(move |mut raw| {
        let answer = Arc::clone(&answer);
        async move {
            while raw.head().await.is_some() {
                if raw.try_send(&*answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// The value of a header in a head, as it was written.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (other, value) = line.split_once(':')?;
        other.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
