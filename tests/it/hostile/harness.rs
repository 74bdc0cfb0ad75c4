//! A pod that writes down what arrives, a client that sends what it is told, and a router between them.
//!
//! The pod reads HTTP by itself, as strictly as it can, and shares no code with the router: what it cannot read is strange,
//! and fails the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serinus::cli::app::Router;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::stack::start_router;

/// How long the router may take to end a connection that it should end at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request as it arrived at the pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival {
    /// Its first line.
    pub(super) line: String,
    /// `name: value`, names in lower case, sorted.
    pub(super) fields: Vec<String>,
    /// Its content, then trailers like fields, each after `~`.
    pub(super) body: String,
    /// All its bytes.
    pub(super) raw: Vec<u8>,
}

impl Arrival {
    /// `LINE|FIELD|…|BODY`, less what the router says of the client where it is what it should say.
    pub(super) fn shown(&self) -> String {
        let host = self.fields.iter().find_map(|field| field.strip_prefix("host: ")).unwrap_or_default();
        let own = [
            "x-forwarded-for: 127.0.0.1".to_owned(),
            "x-forwarded-proto: http".to_owned(),
            format!("x-forwarded-host: {host}"),
        ];
        let mut shown = self.line.clone();
        for field in &self.fields {
            if !own.contains(field) && !field.starts_with("x-request-id: ") {
                shown.push('|');
                shown.push_str(field);
            }
        }
        format!("{shown}|{}", self.body)
    }
}

/// What has arrived at a pod.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Whole requests.
    pub(super) whole: Vec<Arrival>,
    /// Of connections that ended inside a request: what there was of it.
    pub(super) partial: Vec<String>,
    /// What is not a request, and why.
    pub(super) strange: Vec<String>,
}

/// Answers of a pod by their path: raw bytes, and whether the connection ends after them.
pub(super) type Script = BTreeMap<String, (Vec<u8>, AfterAnswer)>;

/// Before a path of a script: the answer comes byte by byte.
pub(super) const BYTE_BY_BYTE: &str = "/byte-by-byte";

/// What a pod does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterAnswer {
    Close,
    Wait,
}

/// A pod that writes down what arrives. It answers what its script says, or 200 with the request's first line.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Pod {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, script) = (Arc::new(Mutex::new(Log::default())), Arc::new(script));
        let taken = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&taken), Arc::clone(&script)));
            }
        });
        Self { address, log }
    }

    /// What has arrived since this was asked before.
    pub(super) fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

async fn serve(mut socket: TcpStream, log: Arc<Mutex<Log>>, script: Arc<Script>) {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Ok(Some(arrival)) => {
                bytes.drain(..arrival.raw.len());
                let (answer, pace, after) = answer_to(&arrival, &script);
                log.lock().unwrap().whole.push(arrival);
                if write(&mut socket, &answer, pace).await.is_err() || after == AfterAnswer::Close {
                    return;
                }
            }
            Ok(None) => {
                if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
                    if !bytes.is_empty() {
                        log.lock().unwrap().partial.push(String::from_utf8_lossy(&bytes).into_owned());
                    }
                    return;
                }
            }
            Err(why) => {
                let what = format!("{why}: {:?}", String::from_utf8_lossy(&bytes));
                log.lock().unwrap().strange.push(what);
                return;
            }
        }
    }
}

fn answer_to(arrival: &Arrival, script: &Script) -> (Vec<u8>, Pace, AfterAnswer) {
    let mut words = arrival.line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (target, pace) = match target.strip_prefix(BYTE_BY_BYTE) {
        Some(target) => (target, Pace::ByteByByte),
        None => (target, Pace::AtOnce),
    };
    if let Some((answer, after)) = script.get(target) {
        return (answer.clone(), pace, *after);
    }
    let content = if method == "HEAD" { "" } else { &arrival.line };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", arrival.line.len());
    (answer.into_bytes(), pace, AfterAnswer::Wait)
}

/// Reads one request from the front; nothing while it is incomplete.
fn read(bytes: &[u8]) -> Result<Option<Arrival>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    // Byte for byte, whatever it is.
    let head: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    if head.split("\r\n").any(|line| line.chars().any(|c| (c < ' ' && c != '\t') || c == '\x7f')) {
        return Err("a control character".to_owned());
    }
    let words: Vec<_> = line.split(' ').collect();
    if words.len() != 3 || words[1].is_empty() || words[2] != "HTTP/1.1" {
        return Err("not a request line".to_owned());
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
        {
            return Err("a name that is none".to_owned());
        }
        fields.push(format!("{}: {}", name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    fields.sort();
    let all = |name: &str| {
        let begin = format!("{name}: ");
        fields.iter().filter_map(|field| field.strip_prefix(&begin).map(str::to_owned)).collect::<Vec<_>>()
    };
    if all("host").len() != 1 {
        return Err("not one Host".to_owned());
    }
    let rest = &bytes[end + 4..];
    let (body, length) = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => (String::new(), 0),
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| "not a length".to_owned())?;
            let Some(body) = rest.get(..length) else { return Ok(None) };
            (String::from_utf8_lossy(body).into_owned(), length)
        }
        ([], [coding]) if coding == "chunked" => match chunks(rest)? {
            Some(found) => found,
            None => return Ok(None),
        },
        _ => return Err("framed in more than one way".to_owned()),
    };
    Ok(Some(Arrival { line, fields, body, raw: bytes[..end + 4 + length].to_vec() }))
}

/// The content and trailers of a chunked body, and how long it is; nothing while it is incomplete.
fn chunks(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let (mut body, mut at) = (String::new(), 0);
    let line = |at: usize| {
        let end = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        Some((String::from_utf8_lossy(&bytes[at..at + end]).into_owned(), at + end + 2))
    };
    loop {
        let Some((size, after)) = line(at) else { return Ok(None) };
        if size.is_empty() || !size.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("not a chunk size".to_owned());
        }
        let size = usize::from_str_radix(&size, 16).map_err(|_| "a chunk that is too large".to_owned())?;
        if size == 0 {
            at = after;
            break;
        }
        let Some(content) = bytes.get(after..after.saturating_add(size).saturating_add(2)) else {
            return Ok(None);
        };
        let content = content.strip_suffix(b"\r\n").ok_or("a chunk that is longer than it said")?;
        body.push_str(&String::from_utf8_lossy(content));
        at = after + size + 2;
    }
    loop {
        let Some((trailer, after)) = line(at) else { return Ok(None) };
        at = after;
        if trailer.is_empty() {
            return Ok(Some((body, at)));
        }
        body.push('~');
        body.push_str(&trailer);
    }
}

// ------------------------------------------------------------------------------------------------------ the client

/// An answer as the client got it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `name: value`, names in lower case, sorted.
    pub(super) fields: Vec<String>,
    pub(super) body: String,
    /// The connection ended inside it.
    pub(super) cut: bool,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> &str {
        let begin = format!("{name}: ");
        self.fields.iter().find_map(|field| field.strip_prefix(begin.as_str())).unwrap_or_default()
    }
}

/// How bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    ByteByByte,
}

async fn write(socket: &mut TcpStream, bytes: &[u8], pace: Pace) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let size = if pace == Pace::AtOnce { bytes.len() } else { 1 };
    for part in bytes.chunks(size) {
        socket.write_all(part).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Sends these bytes on a new connection, and gives all that comes until it ends.
pub(super) async fn send(to: SocketAddr, bytes: &[u8], pace: Pace) -> Result<Vec<u8>, String> {
    let mut socket = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    // It may be refused before all of it is taken.
    let _ = timeout(PATIENCE, write(&mut socket, bytes, pace)).await;
    let mut got = Vec::new();
    let end = timeout(PATIENCE, async { while matches!(socket.read_buf(&mut got).await, Ok(1..)) {} }).await;
    match end {
        Ok(()) => Ok(got),
        Err(_) => Err(format!("the connection was not ended; there was {:?}", String::from_utf8_lossy(&got))),
    }
}

/// The answers in these bytes, less interim ones; `methods` are those of the requests.
pub(super) fn answers(mut bytes: &[u8], methods: &[&str]) -> Result<Vec<Answer>, String> {
    let mut found = Vec::new();
    let strange = |bytes: &[u8]| format!("not an answer: {:?}", String::from_utf8_lossy(bytes));
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| strange(bytes))?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let mut answer = Answer { status: status.ok_or_else(|| strange(bytes))?, ..Answer::default() };
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or_else(|| strange(bytes))?;
            answer.fields.push(format!("{}: {value}", name.to_ascii_lowercase()));
        }
        answer.fields.sort();
        bytes = &bytes[end + 4..];
        if (100..200).contains(&answer.status) && answer.status != 101 {
            continue;
        }
        let to = methods.get(found.len()).copied().unwrap_or("GET");
        let bodiless = to == "HEAD" || matches!(answer.status, 101 | 204 | 304);
        let (body, taken, whole) = if bodiless {
            (String::new(), 0, true)
        } else if answer.field("transfer-encoding") == "chunked" {
            match chunks(bytes)? {
                Some((body, length)) => (body, length, true),
                None => (String::from_utf8_lossy(bytes).into_owned(), bytes.len(), false),
            }
        } else {
            let length = answer.field("content-length").parse().unwrap_or(bytes.len());
            let taken = length.min(bytes.len());
            (String::from_utf8_lossy(&bytes[..taken]).into_owned(), taken, taken == length)
        };
        (answer.body, answer.cut) = (body, !whole);
        bytes = &bytes[taken..];
        found.push(answer);
    }
    Ok(found)
}

// ------------------------------------------------------------------------------------------------------- the router

/// A router with one route to one pod; the folder has its config.
pub(super) struct Between {
    pub(super) pod: Pod,
    pub(super) router: Router,
    fences: usize,
    _folder: TempDir,
}

impl Between {
    pub(super) async fn start(script: Script) -> Self {
        let pod = Pod::start(script).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serinus.yaml");
        let config = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
             admin: {{address: '127.0.0.1:0'}}\n\
             drain: {{delay: 0s, timeout: 5s}}\n\
             discovery: {{static: {{web/svc: [{{address: '{}'}}]}}}}\n\
             routes: [{{name: shop, service: web/svc, versions: [{{name: v1}}]}}]\n",
            pod.address
        );
        std::fs::write(&file, config).unwrap();
        Self { pod, router: start_router(file).await, fences: 0, _folder: folder }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.router.listeners()[0].1
    }

    /// An ordinary request on a new connection is served, and nobody else's answer comes for it. What arrived at the pod
    /// until then is given: when it has been served, whatever was smuggled before it has come, too. What the router still sent
    /// for a client that it had refused meanwhile may come later.
    pub(super) async fn fence(&mut self) -> Result<Log, String> {
        self.fences += 1;
        let line = format!("GET /fence/{} HTTP/1.1", self.fences);
        let request = format!("{line}\r\nHost: fence\r\nConnection: close\r\n\r\n");
        let got = send(self.address(), request.as_bytes(), Pace::AtOnce)
            .await
            .map_err(|e| format!("the next request: {e}"))?;
        let answers = answers(&got, &["GET"])?;
        let mut log = self.pod.take();
        let arrived = log.whole.iter().position(|arrival| arrival.line == line);
        match (answers.as_slice(), arrived) {
            ([one], Some(place)) if one.status == 200 && one.body == line => {
                log.whole.remove(place);
                Ok(log)
            }
            _ => Err(format!("the next request was answered {answers:?}, and there arrived {log:?}")),
        }
    }

    /// Ends, and fails with all that failed.
    pub(super) async fn end(self, rows: usize, failed: Vec<String>) {
        self.router.stop().await;
        assert!(failed.is_empty(), "{} of {rows} rows failed:\n{}", failed.len(), failed.join("\n"));
    }
}
