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

/// After so many failures there is nothing worth measuring.
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
    /// Answers that were otherwise, and connections that were lost.
    pub(crate) failures: u64,
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
    /// Clients that have just got their answer, and when the request was due.
    done: Vec<(usize, Instant)>,
}

struct Client {
    stream: TcpStream,
    reader: Reader,
    /// How many bytes of an answer there are, for [`Answer::Bytes`].
    got: usize,
    /// How much of the request is sent.
    sent: usize,
    /// When the request under way was due.
    due: Option<Instant>,
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
            while let Some((place, _)) = self.done.pop() {
                self.send(place, begin)?;
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
        ensure!(self.seen.failures == 0, "{} failed", self.seen.failures);
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
        self.seen = Seen::default();
        let mut idle: VecDeque<usize> = (0..self.clients.len()).collect();
        let begin = Instant::now();
        let due = |i: u64| begin + Duration::from_secs_f64(i as f64 / rate);
        let total = ((warm_up + length).as_secs_f64() * rate) as u64;
        let from = begin + warm_up;
        let (mut next, mut latencies, mut came) = (0, Vec::with_capacity(total as usize), 0);
        while came < total && begin.elapsed() < warm_up + length + PATIENCE {
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
            for (place, due) in self.done.drain(..) {
                came += 1;
                if due >= from {
                    latencies.push(due.elapsed().as_secs_f64() * 1e6);
                }
                idle.push_back(place);
            }
        }
        let missing = total - came;
        latencies.extend((0..missing).map(|_| PATIENCE.as_secs_f64() * 1e6));
        self.seen.failures += missing;
        self.seen.seconds = begin.elapsed().as_secs_f64();
        latencies.sort_by(f64::total_cmp);
        Ok((latencies, self.seen.clone()))
    }

    fn send(&mut self, place: usize, due: Instant) -> anyhow::Result<()> {
        if let Some(client) = self.clients.get_mut(place) {
            client.due = Some(due);
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
                            let due = client.due.take().context("an answer that nobody asked for")?;
                            self.seen.requests += 1;
                            self.seen.canary += u64::from(first == CANARY);
                            self.done.push((place, due));
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

    /// Counts a failure, and gives the client a new connection; it is done with its request.
    fn failed(&mut self, place: usize, why: &str) -> anyhow::Result<()> {
        self.seen.failures += 1;
        if self.seen.failures >= MOST_FAILURES {
            bail!("{MOST_FAILURES} failures of {}; the last one: {why}", self.work.address);
        }
        let fresh = self.open(place)?;
        if let Some(client) = self.clients.get_mut(place) {
            if let Some(due) = client.due {
                self.done.push((place, due));
            }
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
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(per_mille(&sorted, 500), 500.0);
        assert_eq!(per_mille(&sorted, 990), 990.0);
        assert_eq!(per_mille(&sorted, 999), 999.0);
        assert_eq!(per_mille(&sorted, 1000), 1000.0);
        assert!(per_mille(&[], 500).is_nan());
    }

    #[test]
    fn a_stall_is_paid_for_by_all_that_were_due_meanwhile() {
        use std::net::TcpListener;
        // One connection, a pause of 200 ms before the first answer: at 100 a second, about 20 more were due.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut buffer = [0; 4096];
            std::thread::sleep(Duration::from_millis(200));
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                for _ in 0..read / 18 {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").expect("it takes it");
                }
            }
        });
        let work = Work {
            address,
            connections: 1,
            request: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            answer: Answer::Body(1),
        };
        let mut clients = Clients::connect(work).expect("connected");
        let (latencies, seen) =
            clients.open_loop(100.0, Duration::ZERO, Duration::from_millis(400)).expect("measured");
        drop(clients);
        server.join().expect("served");
        assert_eq!((seen.requests, seen.failures), (40, 0));
        let late = latencies.iter().filter(|latency| **latency > 50_000.0).count();
        assert!(late >= 15, "{late} of {latencies:?}");
    }
}
