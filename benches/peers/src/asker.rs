//! A client that asks one thing after the other on a kept connection, and waits for each answer: for admin APIs, and to see what is in force.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::handshakes::NAME;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MOST: usize = 1 << 20;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// The client.
pub(crate) struct Asker {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Asker {
    /// Not connected yet.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Asker { address, stream: None, buffer: Vec::new() }
    }

    /// Sends a request, and waits for its answer. After an error the next one gets a new connection.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        stream.write_all(request)?;
        let answer = read(&mut stream, &mut self.buffer)?;
        self.stream = Some(stream);
        Ok(answer)
    }

    /// As [`Asker::ask`], once more on a new connection if the peer had closed the kept one.
    pub(crate) fn ask_again(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        let kept = self.stream.is_some();
        match self.ask(request) {
            Err(_) if kept => self.ask(request),
            answer => answer,
        }
    }
}

/// A GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").into_bytes()
}

/// Something for the admin API of Serinus, which answers on loopback for loopback hosts alone.
pub(crate) fn admin(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<Answer> {
    buffer.clear();
    let mut piece = [0; 16 * 1024];
    loop {
        let had = stream.read(&mut piece)?;
        ensure!(had > 0, "the connection was closed before the answer");
        buffer.extend_from_slice(piece.get(..had).unwrap_or_default());
        ensure!(buffer.len() < MOST, "an answer of more than {MOST} bytes");
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(head) = answer.parse(buffer)? else { continue };
        let status = answer.code.context("an answer without a status")?;
        let field = |name: &str| answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        let Some(length) = field("content-length") else {
            bail!("an answer {status} without Content-Length")
        };
        let length: usize = std::str::from_utf8(length.value)?.trim().parse()?;
        if let Some(body) = buffer.get(head..head + length) {
            return Ok(Answer { status, body: body.to_vec() });
        }
    }
}
