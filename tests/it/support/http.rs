//! A client that sees every byte: HTTP/1.1 over one connection, kept alive.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// An answer; header names in lower case, the last of equals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The version that a testpage pod says it has.
    pub(crate) fn version(&self) -> &str {
        self.body.rsplit_once("version is: ").map(|(_, v)| v.trim()).unwrap_or_default()
    }
}

pub(crate) struct Client {
    address: SocketAddr,
    socket: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, socket: None, buffer: Vec::new() }
    }

    /// GETs a path with a Host header.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await
    }

    /// Sends these bytes and reads one answer. A kept connection that turns out to be closed is replaced, as any client
    /// does with a request that cannot have been seen.
    pub(crate) async fn raw(&mut self, request: &[u8]) -> Result<Answer, String> {
        let kept = self.socket.is_some();
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        match answer.map_err(|_| "no answer in time".to_owned())? {
            Err(error) if kept && error.starts_with("idle") => self.exchange(request).await,
            answer => answer,
        }
    }

    /// As [`Client::raw`], but a request that fails has failed, whatever the reason.
    pub(crate) async fn once(&mut self, request: &[u8]) -> Result<Answer, String> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        answer.map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer, String> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                self.buffer.clear();
                TcpStream::connect(self.address).await.map_err(|e| format!("connect: {e}"))?
            }
        };
        socket.write_all(request).await.map_err(|e| format!("idle: write: {e}"))?;
        let head = loop {
            let head = self.head(&mut socket).await?;
            // Interim answers are passed over (RFC 9110 §15.2).
            if !head.starts_with("HTTP/1.1 1") || head.starts_with("HTTP/1.1 101") {
                break head;
            }
        };
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        let mut answer = Answer { status: status.ok_or("no status")?, ..Answer::default() };
        for line in lines.filter(|l| !l.is_empty()) {
            let (name, value) = line.split_once(':').ok_or("not a header")?;
            answer.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let body = if request.starts_with(b"HEAD ") || matches!(answer.status, 204 | 304) {
            Vec::new()
        } else if answer.header("transfer-encoding") == "chunked" {
            self.chunks(&mut socket).await?
        } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
            self.exactly(&mut socket, length).await?
        } else {
            socket.read_to_end(&mut self.buffer).await.map_err(|e| format!("read: {e}"))?;
            std::mem::take(&mut self.buffer)
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        if !answer.header("connection").eq_ignore_ascii_case("close") {
            self.socket = Some(socket);
        }
        Ok(answer)
    }

    async fn head(&mut self, socket: &mut TcpStream) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            let before = self.buffer.len();
            let read = socket.read_buf(&mut self.buffer).await;
            match read {
                Ok(0) | Err(_) if before == 0 => {
                    return Err(format!("idle: closed before an answer: {read:?}"));
                }
                Ok(0) => return Err("closed inside an answer's head".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }

    async fn exactly(&mut self, socket: &mut TcpStream, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            let read = socket.read_buf(&mut self.buffer).await.map_err(|e| format!("read: {e}"))?;
            if read == 0 {
                return Err("closed inside a body".to_owned());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn chunks(&mut self, socket: &mut TcpStream) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line(socket).await?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| "not a chunk size")?;
            if size == 0 {
                // Trailers, to the empty line.
                while !self.line(socket).await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(socket, size).await?);
            self.exactly(socket, 2).await?;
        }
    }

    /// The next line, without its end.
    async fn line(&mut self, socket: &mut TcpStream) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if socket.read_buf(&mut self.buffer).await.map_err(|e| format!("read: {e}"))? == 0 {
                return Err("closed inside a body".to_owned());
            }
        }
    }
}
