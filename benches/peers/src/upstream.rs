//! The seven pods, one process on one thread: fixed answers by path, and an echo for WebSocket. Small, so that what is measured is the peer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;

use crate::events::{self, Events, Ready};
use crate::message::{Reader, Side};

/// How many there are; the last one is the canary.
pub(crate) const PODS: u8 = 7;
/// What the canary's bodies begin with; the others' are `a` to `f`.
pub(crate) const CANARY: u8 = b'z';
/// What is answered, and how long the body is.
pub(crate) const PATHS: [(&str, usize); 4] =
    [("/tiny", 2), ("/1k", 1024), ("/64k", 64 * 1024), ("/rich", 1024)];
/// How many addresses each pod has: one after the other is that of a new pod (`changes`). The first one is all that other cases use.
pub(crate) const GENERATIONS: u8 = 36;
const NAMES: [&str; PATHS.len()] = ["/tiny", "/1k", "/64k", "/rich"];
/// Ten fields more, such as an application sends.
const RICH: &str = "Cache-Control: private, max-age=0, must-revalidate\r\nETag: \"5f2b8c-1a2b3c4d5e6f\"\r\n\
    Last-Modified: Tue, 01 Jul 2025 08:12:31 GMT\r\nVary: Accept-Encoding, Cookie\r\nX-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: SAMEORIGIN\r\nReferrer-Policy: strict-origin-when-cross-origin\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    Content-Security-Policy: default-src 'self'; img-src 'self' data:\r\n\
    Set-Cookie: theme=dark; Path=/; HttpOnly; SameSite=Lax\r\n";
/// The answer to the one key that `load` sends (that of RFC 6455 §1.3).
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Where a pod listens.
pub(crate) fn address(pod: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 9, pod), port).into()
}

/// Where the pod that takes the place of one listens, after so many others.
pub(crate) fn later_address(pod: u8, generation: u8, port: u16) -> SocketAddr {
    address(pod + PODS * (generation % GENERATIONS), port)
}

struct Connection {
    stream: TcpStream,
    pod: usize,
    reader: Reader,
    /// Whether it is a WebSocket now.
    upgraded: bool,
    frames: Vec<u8>,
    /// What the other side had no room for yet.
    waiting: Vec<u8>,
}

/// Serves until it is ended.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let mut events = Events::new()?;
    let mut listeners = Vec::new();
    for pod in 1..=PODS * GENERATIONS {
        let address = address(pod, port);
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        events.add_listener(&listener, u64::from(pod) - 1)?;
        listeners.push(listener);
    }
    let answers: Vec<Vec<Vec<u8>>> =
        (1..=PODS).map(|pod| PATHS.iter().map(|path| answer(pod, *path)).collect()).collect();
    // A connection's place here is its token, less the listeners.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        events.wait(Duration::from_secs(60), &mut ready)?;
        for Ready { token, over } in ready.iter().copied() {
            let place = usize::try_from(token)?;
            if let Some(listener) = listeners.get(place) {
                accept(listener, (place, listeners.len()), &events, &mut connections, &mut free)?;
                continue;
            }
            let place = place - listeners.len();
            let Some(slot) = connections.get_mut(place) else { continue };
            let Some(connection) = slot else { continue };
            let mine = answers.get(connection.pod).map(Vec::as_slice).unwrap_or_default();
            if !connection.go_on(over, mine, &mut buffer) {
                *slot = None;
                free.push(place);
            }
        }
    }
}

fn answer(pod: u8, (path, length): (&str, usize)) -> Vec<u8> {
    let more = if path == "/rich" { RICH } else { "" };
    let body = char::from(if pod == PODS { CANARY } else { b'a' + pod - 1 }).to_string().repeat(length);
    format!(
        "HTTP/1.1 200 OK\r\nServer: pod\r\nDate: Tue, 01 Jul 2025 09:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\n{more}\r\n{body}"
    )
    .into_bytes()
}

fn accept(
    listener: &TcpListener,
    (pod, tokens): (usize, usize),
    events: &Events,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if events::not_yet(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        events::prepare(&stream)?;
        let place = free.pop().unwrap_or(connections.len());
        events.add(&stream, (tokens + place) as u64)?;
        let connection = Connection {
            stream,
            pod: pod % usize::from(PODS),
            reader: Reader::default(),
            upgraded: false,
            frames: Vec::new(),
            waiting: Vec::new(),
        };
        match connections.get_mut(place) {
            Some(slot) => *slot = Some(connection),
            None => connections.push(Some(connection)),
        }
    }
}

impl Connection {
    /// Whether it goes on.
    fn go_on(&mut self, over: bool, answers: &[Vec<u8>], buffer: &mut [u8]) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        if !self.write(&waiting) {
            return false;
        }
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return events::not_yet(&error),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            let taken = if self.upgraded { self.echo(bytes) } else { self.requests(answers, bytes) };
            if let Err(error) = taken {
                eprintln!("a pod closes a connection: {error:#}");
                return false;
            }
            // Less than there was room for: there is no more, unless the end.
            if read < buffer.len() && !over {
                return true;
            }
        }
    }

    fn requests(&mut self, answers: &[Vec<u8>], mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let (taken, head) = self.reader.take(Side::Requests(&NAMES), bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            let Some(head) = head else { continue };
            let answer = match head.path.and_then(|path| answers.get(path)) {
                _ if head.upgrade => UPGRADED,
                Some(answer) => answer,
                None => NOT_FOUND,
            };
            anyhow::ensure!(self.write(answer), "it takes no answer");
            if head.upgrade {
                self.upgraded = true;
                return self.echo(bytes);
            }
        }
        Ok(())
    }

    /// Sends back each message. `load` sends whole ones of less than 126 bytes, with a mask of zeros: nothing is to be unmasked.
    fn echo(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.frames.extend_from_slice(bytes);
        let frames = std::mem::take(&mut self.frames);
        let (mut at, mut out) = (0, Vec::new());
        while let Some([kind, length]) = frames.get(at..at + 2) {
            let length = usize::from(length & 0x7f);
            anyhow::ensure!(length < 126, "a message of 126 bytes or more");
            let Some(payload) = frames.get(at + 6..at + 6 + length) else { break };
            out.extend_from_slice(&[*kind, length as u8]);
            out.extend_from_slice(payload);
            at += 6 + length;
        }
        self.frames.extend_from_slice(frames.get(at..).unwrap_or_default());
        anyhow::ensure!(self.write(&out), "it takes no message");
        Ok(())
    }

    /// Writes, and keeps what there is no room for. Whether the connection goes on.
    fn write(&mut self, mut bytes: &[u8]) -> bool {
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(bytes);
            return true;
        }
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if events::not_yet(&error) => {
                    self.waiting.extend_from_slice(bytes);
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_paths() {
        assert_eq!(NAMES.to_vec(), PATHS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
