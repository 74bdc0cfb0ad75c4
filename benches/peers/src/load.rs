//! Clients on kept connections: closed, where each sends its next request when it has its answer, or open, where requests are sent when they
//! are due, whatever became of those before. Latencies of the open ones count from the moment at which they were due, so a peer that stalls pays for
//! all that should have been sent meanwhile (no coordinated omission).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::events::{self, Events, Ready};
use crate::message::{Reader, Side};
use crate::stop;
use crate::upstream::CANARY;

/// So many of them, if nothing else is said.
const MOST_FAILURES: u64 = 100;
/// How long an answer is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to connect, or to become a WebSocket.
const CONNECT: Duration = Duration::from_secs(5);

/// What is asked again and again.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The peer.
    pub(crate) address: SocketAddr,
    /// How many connections are kept.
    pub(crate) connections: usize,
    /// What is sent, byte by byte.
    pub(crate) request: Vec<u8>,
    /// What must come back.
    pub(crate) answer: Answer,
}

/// What must come back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// An HTTP answer 200 with a body of so many bytes.
    Body(usize),
    /// So many bytes; the connection becomes a WebSocket first.
    Bytes(usize),
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Whole answers that were as they must be.
    pub(crate) requests: u64,
    /// Of these, those of the canary.
    pub(crate) canary: u64,
    /// Answers that were otherwise, and connections that were lost with a request under way.
    pub(crate) failures: u64,
    /// Connections that the peer closed while nothing was under way there.
    pub(crate) closed: u64,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// The clients of one peer.
pub(crate) struct Clients {
    work: Work,
    events: Events,
    clients: Vec<Client>,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    seen: Seen,
    /// Clients that have just got their answer.
    done: Vec<Done>,
    /// After so many failures there is nothing worth measuring.
    pub(crate) most_failures: u64,
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Which client it was.
    pub(crate) place: usize,
    /// When it should have been sent.
    pub(crate) due: Instant,
    /// When it was.
    pub(crate) sent: Instant,
    /// The first byte of the answer's body, which tells the pod; none if it failed.
    pub(crate) first: Option<u8>,
}

struct Client {
    stream: TcpStream,
    reader: Reader,
    /// How many bytes of an answer there are, for [`Answer::Bytes`].
    got: usize,
    /// How much of the request is sent.
    sent: usize,
    /// When the request under way was due, and when it was sent.
    due: Option<(Instant, Instant)>,
}

impl Clients {
    /// Connects all of them.
    pub(crate) fn connect(work: Work) -> anyhow::Result<Self> {
        let mut clients = Clients {
            events: Events::new()?,
            clients: Vec::new(),
            ready: Vec::new(),
            buffer: vec![0; 64 * 1024],
            seen: Seen::default(),
            done: Vec::new(),
            most_failures: MOST_FAILURES,
            work,
        };
        for place in 0..clients.work.connections {
            stop::go_on()?;
            let client = clients.open(place)?;
            clients.clients.push(client);
        }
        Ok(clients)
    }

    fn open(&self, place: usize) -> anyhow::Result<Client> {
        let address = self.work.address;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT)
            .with_context(|| format!("connecting to {address}"))?;
        if let Answer::Bytes(_) = self.work.answer {
            upgrade(&mut stream).context("becoming a WebSocket")?;
        }
        events::prepare(&stream)?;
        self.events.add(&stream, place as u64)?;
        Ok(Client { stream, reader: Reader::default(), got: 0, sent: 0, due: None })
    }

    /// Every client always has a request under way, for so long. What is under way at the end goes on with the next call.
    pub(crate) fn closed(&mut self, length: Duration) -> anyhow::Result<Seen> {
        self.seen = Seen::default();
        let begin = Instant::now();
        for place in 0..self.clients.len() {
            if self.clients.get(place).is_some_and(|client| client.due.is_none()) {
                self.send(place, begin)?;
            }
        }
        while begin.elapsed() < length {
            self.step(Duration::from_millis(20))?;
            while let Some(done) = self.done.pop() {
                self.send(done.place, begin)?;
            }
        }
        self.seen.seconds = begin.elapsed().as_secs_f64();
        Ok(self.seen.clone())
    }

    /// Each client asks once, and gets its answer.
    pub(crate) fn once(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        for place in 0..self.clients.len() {
            self.send(place, begin)?;
        }
        let mut came = 0;
        while came < self.clients.len() {
            ensure!(
                begin.elapsed() < PATIENCE,
                "{} of {} have no answer",
                self.clients.len() - came,
                self.clients.len()
            );
            self.step(Duration::from_millis(100))?;
            came += self.done.drain(..).count();
        }
        let lost = self.seen.failures + self.seen.closed;
        ensure!(lost == 0, "{lost} failed");
        Ok(())
    }

    /// `rate` requests a second for so long; the latencies, in microseconds and in order, of all that were due after `warm_up`. One that
    /// never came counts as [`PATIENCE`].
    pub(crate) fn open_loop(
        &mut self,
        rate: f64,
        warm_up: Duration,
        length: Duration,
    ) -> anyhow::Result<(Vec<f64>, Seen)> {
        let from = Instant::now() + warm_up;
        let mut latencies = Vec::with_capacity((length.as_secs_f64() * rate) as usize);
        let (seen, missing) = self.open_loop_with(rate, warm_up + length, |done, now| {
            if done.due >= from {
                latencies.push((now - done.due).as_secs_f64() * 1e6);
            }
        })?;
        latencies.extend((0..missing).map(|_| PATIENCE.as_secs_f64() * 1e6));
        latencies.sort_by(f64::total_cmp);
        Ok((latencies, seen))
    }

    /// `rate` requests a second for so long; `each` is told of those that are over, and when that was. What was seen, and how many never came.
    pub(crate) fn open_loop_with(
        &mut self,
        rate: f64,
        length: Duration,
        mut each: impl FnMut(Done, Instant),
    ) -> anyhow::Result<(Seen, u64)> {
        self.seen = Seen::default();
        let mut idle: VecDeque<usize> = (0..self.clients.len()).collect();
        let begin = Instant::now();
        let due = |i: u64| begin + Duration::from_secs_f64(i as f64 / rate);
        let total = (length.as_secs_f64() * rate) as u64;
        let (mut next, mut came) = (0, 0);
        while came < total && begin.elapsed() < length + PATIENCE {
            while next < total && due(next) <= Instant::now() {
                let Some(place) = idle.pop_front() else { break };
                self.send(place, due(next))?;
                next += 1;
            }
            let wait = match due(next).checked_duration_since(Instant::now()) {
                _ if idle.is_empty() || next >= total => Duration::from_millis(100),
                Some(wait) => wait,
                None => Duration::ZERO,
            };
            self.step(wait)?;
            for done in self.done.drain(..) {
                came += 1;
                each(done, Instant::now());
                idle.push_back(done.place);
            }
        }
        let missing = total - came;
        self.seen.failures += missing;
        self.seen.seconds = begin.elapsed().as_secs_f64();
        Ok((self.seen.clone(), missing))
    }

    /// How many of the connections the peer has closed, with nothing under way.
    pub(crate) fn gone(&mut self) -> usize {
        let buffer = &mut self.buffer;
        let gone = |client: &mut Client| match client.stream.read(buffer) {
            Ok(read) => read == 0,
            Err(error) => !events::not_yet(&error),
        };
        self.clients.iter_mut().map(gone).filter(|gone| *gone).count()
    }

    fn send(&mut self, place: usize, due: Instant) -> anyhow::Result<()> {
        if let Some(client) = self.clients.get_mut(place) {
            client.due = Some((due, Instant::now()));
            client.sent = 0;
        }
        self.push(place)
    }

    /// Sends what of the request is not sent yet.
    fn push(&mut self, place: usize) -> anyhow::Result<()> {
        let Some(client) = self.clients.get_mut(place).filter(|client| client.due.is_some()) else {
            return Ok(());
        };
        while let Some(rest) = self.work.request.get(client.sent..).filter(|rest| !rest.is_empty()) {
            match client.stream.write(rest) {
                Ok(written) => client.sent += written,
                Err(error) if events::not_yet(&error) => return Ok(()),
                Err(error) => return self.failed(place, &format!("sending: {error}")),
            }
        }
        Ok(())
    }

    /// Waits, and takes what has come. Those that have their answer are in `done`.
    fn step(&mut self, wait: Duration) -> anyhow::Result<()> {
        stop::go_on()?;
        let mut ready = std::mem::take(&mut self.ready);
        self.events.wait(wait, &mut ready)?;
        for Ready { token, over } in ready.iter().copied() {
            let place = usize::try_from(token)?;
            if self.clients.get(place).is_some_and(|client| client.sent < self.work.request.len()) {
                self.push(place)?;
            }
            self.receive(place, over)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn receive(&mut self, place: usize, over: bool) -> anyhow::Result<()> {
        loop {
            let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
            let read = match client.stream.read(&mut self.buffer) {
                Ok(0) => return self.failed(place, "the peer closed the connection"),
                Ok(read) => read,
                Err(error) if events::not_yet(&error) => return Ok(()),
                Err(error) => return self.failed(place, &format!("receiving: {error}")),
            };
            let mut bytes = self.buffer.get(..read).unwrap_or_default();
            while !bytes.is_empty() {
                let taken = match client.take(self.work.answer, bytes) {
                    Ok((taken, whole)) => {
                        if let Some(first) = whole {
                            let (due, sent) = client.due.take().context("an answer that nobody asked for")?;
                            self.seen.requests += 1;
                            self.seen.canary += u64::from(first == CANARY);
                            self.done.push(Done { place, due, sent, first: Some(first) });
                        }
                        taken
                    }
                    Err(error) => return self.failed(place, &format!("{error:#}")),
                };
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if read < self.buffer.len() && !over {
                return Ok(());
            }
        }
    }

    /// Counts a failure, or a closed connection if nothing was under way, and gives the client a new one; it is done with its request.
    fn failed(&mut self, place: usize, why: &str) -> anyhow::Result<()> {
        let due = self.clients.get(place).and_then(|client| client.due);
        match due {
            Some((due, sent)) => {
                self.seen.failures += 1;
                self.done.push(Done { place, due, sent, first: None });
            }
            None => self.seen.closed += 1,
        }
        if self.seen.failures >= self.most_failures {
            bail!("{} failures of {}; the last one: {why}", self.seen.failures, self.work.address);
        }
        let fresh = self.open(place)?;
        if let Some(client) = self.clients.get_mut(place) {
            *client = fresh;
        }
        Ok(())
    }
}

impl Client {
    /// How many bytes belong to the answer, and if it is whole, the first byte of its body.
    fn take(&mut self, answer: Answer, bytes: &[u8]) -> anyhow::Result<(usize, Option<u8>)> {
        match answer {
            Answer::Bytes(length) => {
                let taken = bytes.len().min(length - self.got);
                self.got += taken;
                let whole = self.got == length;
                if whole {
                    self.got = 0;
                }
                Ok((taken, whole.then_some(0)))
            }
            Answer::Body(length) => {
                let (taken, head) = self.reader.take(Side::Answers, bytes)?;
                if let Some(head) = head {
                    ensure!(head.status == 200, "an answer {}", head.status);
                    ensure!(head.length == length, "a body of {} bytes instead of {length}", head.length);
                }
                Ok((taken, head.map(|head| head.first)))
            }
        }
    }
}

fn upgrade(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(CONNECT))?;
    stream.write_all(
        b"GET /1k HTTP/1.1\r\nHost: shop.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1 && head.len() < 8192, "the answer has no end");
        head.extend_from_slice(&byte);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "it was answered {}", String::from_utf8_lossy(&head));
    Ok(())
}

/// The latency that so many in a thousand had at most, of latencies in order.
pub(crate) fn per_mille(sorted: &[f64], part: usize) -> f64 {
    let rank = (sorted.len() * part).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
