//! Pods whose conduct is chosen for each connection and request: they refuse, break off, hang, drip, lie and answer twice.
//!
//! Every request carries its own id (`X-Test-Id`), which the answer repeats, so that an answer that belongs to another
//! request is found; and a [`Ledger`] keeps which ids came to any pod, whole or in part, so that a request that was sent twice
//! is found as well, and so is one that failed though no pod ever saw it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN; what comes after it is still read, so that the ledger knows of it.
    Fin,
    /// As `close(2)` does: FIN, and RST for whatever comes after it or was not read.
    Close,
    /// RST.
    Reset,
}

/// What a pod does with a request; or, asked with request 0, with a connection before any byte of one has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Answers, and keeps the connection.
    Answer,
    /// Answers with this status, and keeps the connection.
    Status(u16),
    /// Answers after this long.
    AnswerAfter(Duration),
    /// Answers and ends the connection, with or without `Connection: close` before.
    AnswerThenEnd(End, Told),
    /// Answers, and ends the connection when no further request came for so long.
    AnswerThenIdle(Duration, End),
    /// Answers, and ends the connection the moment that the bytes of a next request come.
    AnswerThenEndAtNext(End),
    /// Answers, and after so long sends a 408 that nobody asked for, and closes (as Apache httpd and HAProxy do).
    AnswerThenTimeout(Duration),
    /// Ends the connection as soon as it is there. For request 0.
    EndAtOnce(End),
    /// Ends the connection when bytes have come, before reading any. For request 0.
    EndUnread(End),
    /// Ends the connection after the head of the request.
    EndAfterHead(End),
    /// Ends the connection inside the head of its answer.
    EndInHead(End),
    /// Ends the connection inside a body with a length.
    EndInBody(End),
    /// Ends the connection inside a chunked body.
    EndInChunks(End),
    /// Takes the request and never answers.
    Hang,
    /// Answers a byte at a time.
    Drip,
    /// Answers what is not HTTP.
    Garbage,
    /// Sends more than `Content-Length` says.
    TooLong,
    /// Sends two answers in one piece.
    Twice,
    /// Sends so many `103 Early Hints` before the answer.
    Interims(usize),
    /// Answers as soon as it has the head, and reads the body only then.
    Early,
    /// Answers as soon as it has the head, and closes with the body unread.
    EarlyThenClose,
    /// Answers with a body that ends with the connection.
    UntilClosed,
    /// Answers chunked, a few bytes to the chunk, with trailers.
    Chunked,
}

/// Whether the end of a connection is told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// By `Connection: close`.
    Yes,
    /// Not at all.
    No,
}

/// Number of the connection, from 1, and of the request on it, from 1; 0 before any byte of one.
pub(crate) type Script = Arc<dyn Fn(u64, u64) -> Conduct + Send + Sync>;

/// What came of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How often it came, whole or in part.
    pub(crate) times: u32,
    /// How often an answer to it was sent whole.
    pub(crate) answered: u32,
}

/// Which requests came to any of the pods, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Seen>>);

impl Ledger {
    pub(crate) fn seen(&self, id: &str) -> Seen {
        self.0.lock().unwrap().get(id).copied().unwrap_or_default()
    }

    /// The ids that came more than once.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|(_, seen)| seen.times > 1).map(|(id, _)| id.clone()).collect()
    }

    fn saw(&self, bytes: &[u8]) {
        if let Some(id) = id(bytes) {
            self.0.lock().unwrap().entry(id).or_default().times += 1;
        }
    }

    fn answered(&self, id: &str) {
        self.0.lock().unwrap().entry(id.to_owned()).or_default().answered += 1;
    }
}

/// The id of a request, if that much of its head is there.
fn id(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
    let value = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-test-id").then(|| value.trim().to_owned())
    });
    value.into_iter().next()
}

/// How a pod leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Stay,
    /// Requests that run are answered, idle connections are closed, the port is closed.
    Leave(Told),
}

/// A pod that listens.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    word: watch::Sender<Word>,
    accepting: JoinHandle<()>,
}

struct Inner {
    ledger: Arc<Ledger>,
    script: Mutex<Script>,
    requests: AtomicU64,
}

impl Inner {
    fn conduct(&self, connection: u64, request: u64) -> Conduct {
        let script = Arc::clone(&self.script.lock().unwrap());
        script(connection, request)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Pod {
    /// A pod at `address` that behaves as `script` says.
    pub(crate) async fn start(address: SocketAddr, ledger: &Arc<Ledger>, script: Script) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let (word, heard) = watch::channel(Word::Stay);
        let inner = Arc::new(Inner {
            ledger: Arc::clone(ledger),
            script: Mutex::new(script),
            requests: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&inner), heard));
        Self { address, inner, word, accepting }
    }

    /// A pod that behaves.
    pub(crate) async fn good(address: SocketAddr, ledger: &Arc<Ledger>) -> Self {
        Self::start(address, ledger, always(Conduct::Answer)).await
    }

    /// Behaves so from now on.
    pub(crate) fn behave(&self, script: Script) {
        *self.inner.script.lock().unwrap() = script;
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// What a server does on SIGTERM: whoever has connected is served, then the port is closed; idle connections are closed,
    /// requests that run are answered. Returns when the port is closed.
    pub(crate) async fn leave(&mut self, told: Told) {
        self.word.send_replace(Word::Leave(told));
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Whether it was told to leave: its port is closed, and connections may still be at their end.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.word.borrow() != Word::Stay
    }

    /// What SIGKILL does: every connection is reset and the port closed, in the midst of whatever there is.
    pub(crate) async fn kill(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// Killed, and there again at the same address.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        let listener = bind(self.address).await;
        let (word, heard) = watch::channel(Word::Stay);
        self.word = word;
        self.accepting = tokio::spawn(accept(listener, Arc::clone(&self.inner), heard));
    }
}

/// The same conduct at all times.
pub(crate) fn always(conduct: Conduct) -> Script {
    Arc::new(move |_, _| conduct)
}

/// Binds, also right after another listener was there.
async fn bind(address: SocketAddr) -> TcpListener {
    super::eventually(&format!("{address} can be bound"), || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address.into()).ok()?;
        socket.listen(1024).unwrap();
        Some(TcpListener::from_std(socket.into()).unwrap())
    })
    .await
}

/// Accepts until told to leave, and lives until the last connection has ended; when it is aborted, they are reset.
async fn accept(listener: TcpListener, inner: Arc<Inner>, heard: watch::Receiver<Word>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    let mut serve = |socket: TcpStream, connections: &mut JoinSet<()>| {
        number += 1;
        let _ = socket.set_nodelay(true);
        // Whatever ends without another word is reset.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        let connection = Connection {
            socket,
            inner: Arc::clone(&inner),
            heard: heard.clone(),
            number,
            buffer: Vec::new(),
            noted: false,
            served: false,
        };
        connections.spawn(connection.run());
    };
    let mut told = heard.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                serve(socket, &mut connections);
            },
            Some(_) = connections.join_next() => {}
            _ = told.wait_for(|word| *word != Word::Stay) => break,
        }
    }
    // Those who have connected already are served. One who connects between the last look and the close is reset by the
    // kernel: no server can help that.
    let listener = listener.into_std().unwrap();
    while let Ok((socket, _)) = listener.accept() {
        socket.set_nonblocking(true).unwrap();
        serve(TcpStream::from_std(socket).unwrap(), &mut connections);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection of a pod.
struct Connection {
    socket: TcpStream,
    inner: Arc<Inner>,
    heard: watch::Receiver<Word>,
    number: u64,
    /// What came and was not taken yet.
    buffer: Vec<u8>,
    /// The ledger knows already of what has come.
    noted: bool,
    /// It had a request: one that had none is not idle yet, and is waited for, as Go's and nginx's servers do.
    served: bool,
}

/// Why there is no request.
enum Rest {
    /// The other side left, or broke off.
    Gone,
    /// Nothing came for so long.
    Silent,
    /// The pod leaves.
    Leaving,
}

impl Connection {
    async fn run(mut self) {
        let first = self.inner.conduct(self.number, 0);
        if let Conduct::EndAtOnce(end) = first {
            return self.end(end).await;
        }
        if let Conduct::EndUnread(end) = first {
            if self.peek().await.is_some() {
                self.end(end).await;
            }
            return;
        }
        let mut patience = None;
        for request in 1.. {
            let (head, length) = match self.head(patience).await {
                Ok(found) => found,
                Err(Rest::Silent) => {
                    let (_, end) = patience.unwrap_or((Duration::ZERO, End::Fin));
                    return self.end(end).await;
                }
                Err(Rest::Leaving) => return self.end(End::Fin).await,
                Err(Rest::Gone) => return,
            };
            self.served = true;
            self.inner.ledger.saw(&head);
            self.inner.requests.fetch_add(1, Ordering::Relaxed);
            let id = id(&head).unwrap_or_default();
            let conduct = self.inner.conduct(self.number, request);
            let Some(next) = self.serve(conduct, &id, length).await else { return };
            patience = next;
        }
    }

    /// Waits for the head of a request; gives it with the length of its body, nothing for chunked.
    async fn head(&mut self, patience: Option<(Duration, End)>) -> Result<(Vec<u8>, Option<usize>), Rest> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let chunked = text.contains("\r\ntransfer-encoding:");
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                return Ok((head, if chunked { None } else { Some(length.unwrap_or(0)) }));
            }
            let idle = self.buffer.is_empty();
            let mut heard = self.heard.clone();
            let read = tokio::select! {
                biased;
                read = self.socket.read_buf(&mut self.buffer) => read,
                () = sleep(patience.map_or(Duration::MAX, |(after, _)| after)), if idle && patience.is_some() => {
                    return Err(Rest::Silent);
                }
                _ = heard.wait_for(|word| *word != Word::Stay), if idle && self.served => return Err(Rest::Leaving),
            };
            if !matches!(read, Ok(1..)) {
                self.inner.ledger.saw(&self.buffer);
                return Err(Rest::Gone);
            }
        }
    }

    /// Reads the body of a request; nothing when the other side left within.
    async fn body(&mut self, length: Option<usize>) -> Option<()> {
        loop {
            let whole = match length {
                Some(length) if self.buffer.len() >= length => Some(length),
                Some(_) => None,
                // The bodies of these tests have no zeros.
                None => self.buffer.windows(5).position(|w| w == b"0\r\n\r\n").map(|at| at + 5),
            };
            if let Some(whole) = whole {
                self.buffer.drain(..whole);
                return Some(());
            }
            if !matches!(self.socket.read_buf(&mut self.buffer).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Does what it does with a request. Nothing when the connection ends; else how long to wait for another request.
    async fn serve(
        &mut self,
        conduct: Conduct,
        id: &str,
        length: Option<usize>,
    ) -> Option<Option<(Duration, End)>> {
        let leaving = *self.heard.borrow() == Word::Leave(Told::Yes);
        let act = Act::of(conduct, id, leaving);
        if act.body == Body::First {
            self.body(length).await?;
        }
        sleep(act.pause).await;
        let step = if act.dripping { 1 } else { act.bytes.len().max(1) };
        for piece in act.bytes.chunks(step) {
            self.socket.write_all(piece).await.ok()?;
            if act.dripping {
                sleep(Duration::from_micros(200)).await;
            }
        }
        if act.whole {
            self.inner.ledger.answered(id);
        }
        if act.body == Body::Last {
            self.body(length).await?;
        }
        match act.then {
            Then::Keep => return Some(None),
            Then::KeepFor(after, end) => return Some(Some((after, end))),
            Then::End(end) => self.end(end).await,
            Then::EndAtNext(end) => {
                self.peek().await?;
                self.end(end).await;
            }
            Then::Timeout(after) => {
                if timeout(after, self.socket.readable()).await.is_ok() {
                    return Some(None);
                }
                let told = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                self.socket.write_all(told).await.ok()?;
                self.end(End::Fin).await;
            }
            Then::Hang => {
                // Until the other side gives up.
                let _ = self.socket.read_buf(&mut self.buffer).await;
            }
        }
        None
    }

    /// Waits for bytes, and leaves them where they are: they have come, and the ledger knows of them.
    async fn peek(&mut self) -> Option<()> {
        let mut bytes = vec![0; 4096];
        let Ok(count @ 1..) = self.socket.peek(&mut bytes).await else { return None };
        self.inner.ledger.saw(&bytes[..count]);
        self.noted = true;
        Some(())
    }

    /// Ends the connection, which must then be dropped.
    async fn end(&mut self, end: End) {
        match end {
            End::Reset => {}
            End::Close => drop(SockRef::from(&self.socket).set_linger(None)),
            End::Fin => {
                let _ = self.socket.shutdown().await;
                let mut late = Vec::new();
                // Until the other side has closed too; not for ever.
                let rest = async { while let Ok(1..) = self.socket.read_buf(&mut late).await {} };
                let _ = timeout(Duration::from_secs(2), rest).await;
                if !self.noted {
                    self.inner.ledger.saw(&late);
                }
            }
        }
    }
}

/// When the body of a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    First,
    Last,
    Never,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    KeepFor(Duration, End),
    End(End),
    EndAtNext(End),
    Timeout(Duration),
    Hang,
}

/// What a conduct comes to, for one request.
struct Act {
    body: Body,
    pause: Duration,
    bytes: Vec<u8>,
    /// One byte at a time.
    dripping: bool,
    /// The bytes are a whole answer.
    whole: bool,
    then: Then,
}

impl Act {
    fn of(conduct: Conduct, id: &str, leaving: bool) -> Self {
        let with = |more: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{more}\r\n{id}", id.len());
        let good = with(if leaving { "Connection: close\r\n" } else { "" });
        let act = |text: String, then: Then| Self {
            body: Body::First,
            pause: Duration::ZERO,
            bytes: text.into_bytes(),
            dripping: false,
            whole: true,
            then,
        };
        let cut = |text: String, end: End| Self { whole: false, ..act(text, Then::End(end)) };
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
        match conduct {
            Conduct::Answer | Conduct::EndAtOnce(_) | Conduct::EndUnread(_) => act(good, Then::Keep),
            Conduct::Status(status) => {
                act(format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n"), Then::Keep)
            }
            Conduct::AnswerAfter(pause) => Self { pause, ..act(good, Then::Keep) },
            Conduct::AnswerThenEnd(end, Told::Yes) => act(with("Connection: close\r\n"), Then::End(end)),
            Conduct::AnswerThenEnd(end, Told::No) => act(good, Then::End(end)),
            Conduct::AnswerThenIdle(after, end) => act(good, Then::KeepFor(after, end)),
            Conduct::AnswerThenEndAtNext(end) => act(good, Then::EndAtNext(end)),
            Conduct::AnswerThenTimeout(after) => act(good, Then::Timeout(after)),
            Conduct::EndAfterHead(end) => Self { body: Body::Never, ..cut(String::new(), end) },
            Conduct::EndInHead(end) => cut("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), end),
            Conduct::EndInBody(end) => {
                cut(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{id}"), end)
            }
            Conduct::EndInChunks(end) => cut(format!("{chunked}\r\n3\r\nabc\r\n40\r\n{id}"), end),
            Conduct::Hang => Self { whole: false, ..act(String::new(), Then::Hang) },
            Conduct::Drip => Self { dripping: true, ..act(good, Then::Keep) },
            Conduct::Garbage => cut("\u{1}\u{2}{\"this\": \"is no HTTP\"}\r\n\r\n".to_owned(), End::Fin),
            Conduct::TooLong => act(format!("{good}and more\r\n\r\n"), Then::Keep),
            Conduct::Twice => {
                act(format!("{good}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"), Then::Keep)
            }
            Conduct::Interims(count) => {
                act("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(count) + &good, Then::Keep)
            }
            Conduct::Early => Self { body: Body::Last, ..act(good, Then::Keep) },
            Conduct::EarlyThenClose => Self { body: Body::Never, ..act(good, Then::End(End::Close)) },
            Conduct::UntilClosed => {
                act(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{id}"), Then::End(End::Fin))
            }
            Conduct::Chunked => {
                let chunks: String = id.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
                act(format!("{chunked}Trailer: X-Sum\r\n\r\n{chunks}0\r\nX-Sum: 1\r\n\r\n"), Then::Keep)
            }
        }
    }
}

/// A listener whose queue is full: it neither takes nor refuses a connection, so that connecting to it times out.
pub(crate) struct Deaf {
    pub(crate) address: SocketAddr,
    _listener: socket2::Socket,
    _filling: Vec<socket2::Socket>,
}

impl Deaf {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let stream = || {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
            socket.unwrap()
        };
        let listener = stream();
        listener.bind(&address.into()).unwrap();
        listener.listen(1).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let filling = (0..8).map(|_| {
            let socket = stream();
            socket.set_nonblocking(true).unwrap();
            // Under way for ever, once the queue is full.
            let _ = socket.connect(&address.into());
            socket
        });
        Self { address, _filling: filling.collect(), _listener: listener }
    }
}
