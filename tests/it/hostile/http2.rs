//! HTTP/2 towards a pod that speaks HTTP/1: frames that no library would send, and what arrives as text.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::{Arrival, Between, Script};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames, and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What becomes of a stream.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered(u16),
    /// It was reset, or the connection was ended.
    Reset,
}

/// What a row brings about.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// An answer of 4xx or a reset, and not a byte at the pod.
    Refused,
    /// An answer of 4xx or a reset. The pod may get a beginning of what is asked at `/half`, never a whole request.
    Half,
    /// It arrives in one of these ways.
    Taken(&'static [&'static str]),
    /// Like [`Outcome::Half`], or what is asked at `/harmless` arrives as one of [`HARMLESS`], which asks for nothing else. A library drops
    /// the rest before it can be judged, or the end of the request was there before what is wrong with it.
    Harmless,
}

const HARMLESS: [&str; 4] = [
    "GET /harmless HTTP/1.1|host: a|",
    "POST /harmless HTTP/1.1|content-length: 0|host: a|",
    "POST /harmless HTTP/1.1|content-length: 2|host: a|ab",
    "POST /harmless HTTP/1.1|host: a|transfer-encoding: chunked|abc",
];

type Field = (Vec<u8>, Vec<u8>);

#[derive(Clone)]
struct Row {
    name: String,
    fields: Vec<Field>,
    /// The content as it is framed.
    data: Vec<&'static str>,
    trailers: Vec<Field>,
    outcome: Outcome,
}

fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Field {
    (name.as_ref().to_vec(), value.as_ref().to_vec())
}

/// The pseudo-fields of a request.
fn pseudo(method: &[u8], path: &[u8], authority: &[u8]) -> Vec<Field> {
    vec![
        field(":method", method),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", authority),
    ]
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, name: impl Into<String>, fields: Vec<Field>, outcome: Outcome) -> &mut Row {
        self.0.push(Row { name: name.into(), fields, data: Vec::new(), trailers: Vec::new(), outcome });
        self.0.last_mut().unwrap()
    }

    /// A request with these fields besides.
    fn with(&mut self, name: &str, method: &str, fields: &[(&[u8], &[u8])], outcome: Outcome) -> &mut Row {
        let path: &[u8] = match outcome {
            Outcome::Half => b"/half",
            Outcome::Harmless => b"/harmless",
            Outcome::Refused | Outcome::Taken(_) => b"/x",
        };
        let mut all = pseudo(method.as_bytes(), path, b"a");
        all.extend(fields.iter().map(|(name, value)| field(name, value)));
        self.add(name, all, outcome)
    }
}

fn table() -> Table {
    let mut table = Table::default();
    heads(&mut table);
    fields(&mut table);
    pseudo_fields(&mut table);
    bodies(&mut table);
    taken(&mut table);
    table
}

fn heads(table: &mut Table) {
    for (name, path) in [
        ("a line end in the path", &b"/x HTTP/1.1\r\nX: y"[..]),
        ("a request in the path", b"/x HTTP/1.1\r\nHost: a\r\n\r\nGET /admin"),
        ("an LF in the path", b"/x\ny"),
        ("a CR in the path", b"/x\ry"),
        ("a space in the path", b"/x y"),
        ("a tab in the path", b"/x\ty"),
        ("a NUL in the path", b"/x\x00"),
        ("UTF-8 in the path", b"/\xc3\xa9"),
        ("a path beyond UTF-8", b"/\xff"),
        ("a backslash", b"/x\\y"),
        ("an escaped slash", b"/x%2fy"),
        ("an escaped NUL", b"/x%00"),
        ("a bad escape", b"/x%zz"),
        ("above the root", b"/../x"),
        ("above the root, escaped", b"/%2e%2e/x"),
        ("a dot segment with parameters", b"/x/..;/y"),
        ("an empty path", b""),
        ("a relative path", b"x"),
        ("an asterisk for GET", b"*"),
        ("an absolute path", b"http://b/x"),
    ] {
        table.add(name, pseudo(b"GET", path, b"a"), Outcome::Refused);
    }
    for (name, method) in [
        ("a line end in the method", &b"GET /admin HTTP/1.1\r\nX: y\r\n\r\nGET"[..]),
        ("a space in the method", b"GET /x"),
        ("a NUL in the method", b"GET\x00"),
        ("an empty method", b""),
        ("CONNECT", b"CONNECT"),
        ("TRACE", b"TRACE"),
    ] {
        table.add(name, pseudo(method, b"/x", b"a"), Outcome::Refused);
    }
    for (name, authority) in [
        ("a line end in the authority", &b"a\r\nX: y"[..]),
        ("a space in the authority", b"a b"),
        ("userinfo", b"u@a"),
        ("a path in the authority", b"a/b"),
        ("a list of authorities", b"a,b"),
        ("a bad port", b"a:b"),
        ("a large port", b"a:65536"),
        ("an empty authority", b""),
        ("an authority with a quote", b"a\"b"),
        ("an authority beyond ASCII", b"\xc3\xa9"),
    ] {
        table.add(name, pseudo(b"GET", b"/x", authority), Outcome::Refused);
    }
}

fn fields(table: &mut Table) {
    let refused: [(&str, &[u8], &[u8]); 29] = [
        ("a line end in a value", b"x", b"y\r\nz: 1"),
        ("a request in a value", b"x", b"y\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an LF in a value", b"x", b"y\nz: 1"),
        ("a CR in a value", b"x", b"y\rz: 1"),
        ("a NUL in a value", b"x", b"y\x00"),
        ("a control character in a value", b"x", b"y\x01"),
        ("DEL in a value", b"x", b"y\x7f"),
        ("a line end in a name", b"x: y\r\nz", b"1"),
        ("an LF in a name", b"x\ny", b"1"),
        ("a colon in a name", b"x:y", b"1"),
        ("a space in a name", b"x y", b"1"),
        ("a space after a name", b"transfer-encoding ", b"chunked"),
        ("a NUL in a name", b"x\x00", b"1"),
        ("upper case in a name", b"X", b"1"),
        ("a name beyond ASCII", b"\xc3\xa9", b"1"),
        ("no name", b"", b"1"),
        ("connection", b"connection", b"close"),
        ("keep-alive", b"keep-alive", b"timeout=5"),
        ("proxy-connection", b"proxy-connection", b"keep-alive"),
        ("transfer-encoding", b"transfer-encoding", b"chunked"),
        ("upgrade", b"upgrade", b"websocket"),
        ("te of a coding", b"te", b"gzip"),
        ("another host", b"host", b"b"),
        ("a host with a line end", b"host", b"a\r\nX: y"),
        ("a list of lengths", b"content-length", b"0, 0"),
        ("a length with a sign", b"content-length", b"+0"),
        ("a length that is none", b"content-length", b"x"),
        ("an unknown pseudo-field", b":admin", b"1"),
        ("the status of an answer", b":status", b"200"),
    ];
    for (name, key, value) in refused {
        table.with(name, "GET", &[(key, value)], Outcome::Refused);
    }
    let many: Vec<(&[u8], &[u8])> = vec![(b"x", b"y"); 200];
    table.with("many fields", "GET", &many, Outcome::Refused);
    let long = "y".repeat(20_000);
    let large: Vec<(&[u8], &[u8])> = vec![(b"x", long.as_bytes()); 4];
    table.with("large fields", "GET", &large, Outcome::Refused);
}

fn pseudo_fields(table: &mut Table) {
    let all = pseudo(b"GET", b"/x", b"a");
    for (i, name) in ["no method", "no scheme", "no path"].into_iter().enumerate() {
        let mut fields = all.clone();
        fields.remove(i);
        table.add(name, fields, Outcome::Refused);
    }
    for (i, name) in ["two methods", "two schemes", "two paths", "two authorities"].into_iter().enumerate() {
        let mut fields = all.clone();
        fields.insert(i, all[i].clone());
        table.add(name, fields, Outcome::Refused);
    }
    let mut late = all.clone();
    late.insert(2, field("x", "y"));
    table.add("a pseudo-field after a field", late, Outcome::Refused);
    let mut nobody = all;
    nobody.remove(3);
    table.add("no authority and no host", nobody, Outcome::Refused);
}

fn bodies(table: &mut Table) {
    for (name, length, data) in [
        ("more than the length", &b"2"[..], vec!["abc"]),
        ("less than the length", b"4", vec!["abc"]),
        ("nothing of a length", b"4", vec![""]),
    ] {
        table.with(name, "POST", &[(b"content-length", length)], Outcome::Half).data = data;
    }
    let lengths: [(&[u8], &[u8]); 2] = [(b"content-length", b"3"), (b"content-length", b"4")];
    table.with("two lengths", "POST", &lengths, Outcome::Refused).data = vec!["abc"];
    table.with("a line end in a trailer", "POST", &[], Outcome::Half).trailers =
        vec![field("x", "y\r\n\r\nGET /admin HTTP/1.1\r\n\r\n")];
    table.with("a pseudo-field for a trailer", "POST", &[], Outcome::Harmless).trailers =
        vec![field(":path", "/y")];
    for row in table.0.iter_mut().rev().take(2) {
        row.data = vec!["abc"];
    }
    for (name, length, data) in [
        ("more than a length of 0", &b"0"[..], vec!["abc"]),
        ("more than the length, later", b"2", vec!["ab", "c"]),
    ] {
        table.with(name, "POST", &[(b"content-length", length)], Outcome::Harmless).data = data;
    }
    table.add("a fragment", pseudo(b"GET", b"/harmless#x", b"a"), Outcome::Harmless);
}

fn taken(table: &mut Table) {
    const CHUNKED: &str = "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|";
    for (name, data, arrives) in [
        ("a body", vec!["abc"], "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc"),
        (
            "a body that ends in an empty frame",
            vec!["abc", ""],
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc",
        ),
        (
            "a body between empty frames",
            vec!["", "a", "", "bc", "", ""],
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc",
        ),
    ] {
        let row =
            table.with(name, "POST", &[], Outcome::Taken(std::slice::from_ref(Box::leak(Box::new(arrives)))));
        row.data = data;
    }
    let nothing = Outcome::Taken(&[CHUNKED, "POST /x HTTP/1.1|content-length: 0|host: a|"]);
    table.with("a body of an empty frame", "POST", &[], nothing).data = vec![""];
    let length = Outcome::Taken(&["POST /x HTTP/1.1|content-length: 3|host: a|abc"]);
    table.with("a body with a length", "POST", &[(b"content-length", b"3")], length).data =
        vec!["ab", "", "c", ""];
    let summed = Outcome::Taken(&["POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc~x-sum: 1"]);
    let row = table.with("trailers", "POST", &[], summed);
    (row.data, row.trailers) = (vec!["abc"], vec![field("x-sum", "1"), field("host", "b")]);
    let smuggled = Outcome::Taken(&[
        "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    ]);
    table.with("chunks in a body", "POST", &[], smuggled).data = vec!["0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"];

    table.with("nothing", "GET", &[], Outcome::Taken(&["GET /x HTTP/1.1|host: a|"]));
    table.with("no body", "POST", &[], Outcome::Taken(&["POST /x HTTP/1.1|content-length: 0|host: a|"]));
    let crumbs: [(&[u8], &[u8]); 3] = [(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d")];
    table.with("crumbs", "GET", &crumbs, Outcome::Taken(&["GET /x HTTP/1.1|cookie: a=b; c=d|host: a|x: y|"]));
    let trailers = Outcome::Taken(&["GET /x HTTP/1.1|host: a|te: trailers|"]);
    table.with("te", "GET", &[(b"te", b"trailers")], trailers);
    table.with("the same host", "GET", &[(b"host", b"a")], Outcome::Taken(&["GET /x HTTP/1.1|host: a|"]));
    let own: [(&[u8], &[u8]); 5] = [
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-real-ip", b"6.6.6.6"),
        (b"forwarded", b"for=6.6.6.6"),
        (b"x_forwarded_for", b"6.6.6.6"),
        (b"content_length", b"3"),
    ];
    table.with("a client's word", "GET", &own, Outcome::Taken(&["GET /x HTTP/1.1|host: a|"]));
    for (path, arrives) in [
        (&b"/x/./../y?z=/../%zz"[..], "GET /y?z=/../%zz HTTP/1.1|host: a|"),
        (b"/x/%2e%2E/%61", "GET /a HTTP/1.1|host: a|"),
    ] {
        let outcome = Outcome::Taken(std::slice::from_ref(Box::leak(Box::new(arrives))));
        table.add(String::from_utf8_lossy(path), pseudo(b"GET", path, b"a"), outcome);
    }
    let all = Outcome::Taken(&["OPTIONS * HTTP/1.1|host: a:80|"]);
    table.add("OPTIONS for all", pseudo(b"OPTIONS", b"*", b"a:80"), all);
}

// ------------------------------------------------------------------------------------------------------- the frames

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A block of fields, each written out (RFC 7541 §6.2.2).
fn block(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // A number with a prefix of seven bits (RFC 7541 §5.1).
            let mut left = text.len();
            if left < 127 {
                bytes.push(u8::try_from(left).unwrap());
            } else {
                bytes.push(127);
                left -= 127;
                while left >= 128 {
                    bytes.push(u8::try_from(left % 128 + 128).unwrap());
                    left /= 128;
                }
                bytes.push(u8::try_from(left).unwrap());
            }
            bytes.extend(text);
        }
    }
    bytes
}

/// HEADERS, and CONTINUATION for what does not fit.
fn headers(stream: u32, fields: &[Field], end_stream: bool) -> Vec<u8> {
    let block = block(fields);
    let mut parts: Vec<&[u8]> = block.chunks(16_000).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let last = parts.len() - 1;
    let mut bytes = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let kind = if i == 0 { HEADERS } else { CONTINUATION };
        let end = if i == last { END_HEADERS } else { 0 };
        let end_stream = if i == 0 && end_stream { END_STREAM } else { 0 };
        bytes.extend(frame(kind, end | end_stream, stream, part));
    }
    bytes
}

fn request(stream: u32, row: &Row) -> Vec<u8> {
    let (bodiless, trailed) = (row.data.is_empty() && row.trailers.is_empty(), !row.trailers.is_empty());
    let mut bytes = headers(stream, &row.fields, bodiless);
    for (i, data) in row.data.iter().enumerate() {
        let last = i + 1 == row.data.len() && !trailed;
        bytes.extend(frame(DATA, if last { END_STREAM } else { 0 }, stream, data.as_bytes()));
    }
    if trailed {
        bytes.extend(headers(stream, &row.trailers, true));
    }
    bytes
}

/// The status at the begin of a block of an answer: indexed, or a text of digits (RFC 7541 §5.2, appendices A and B).
fn status(block: &[u8]) -> Option<u16> {
    // A new size of the table may come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [byte @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500].get(usize::from(byte & 0x7f) - 8).copied()
        }
        [0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e, length, text @ ..] => {
            let text = text.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 {
                return std::str::from_utf8(text).ok()?.parse().ok();
            }
            let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |i| u16::from(byte >> i & 1)));
            let mut number = 0;
            for _ in 0..3 {
                let five = (0..5).try_fold(0, |sum, _| Some(sum * 2 + bits.next()?))?;
                number = number * 10 + if five < 3 { five } else { five * 2 + bits.next()? - 22 };
            }
            Some(number)
        }
        _ => None,
    }
}

/// Sends a request on a connection of its own, and waits for its end.
async fn exchange(to: SocketAddr, row: &Row) -> Result<End, String> {
    let mut socket = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(1, row)].concat();
    let _ = socket.write_all(&bytes).await;
    let ended = timeout(Duration::from_secs(5), ended(&mut socket, 1)).await;
    ended.map_err(|_| "the stream did not end".to_owned())?
}

async fn ended(socket: &mut TcpStream, stream: u32) -> Result<End, String> {
    let mut answered = None;
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return Ok(End::Reset);
        }
        let mut payload =
            vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        if socket.read_exact(&mut payload).await.is_err() {
            return Ok(End::Reset);
        }
        let (kind, flags) = (head[3], head[4]);
        let of_it = head[5..] == stream.to_be_bytes();
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let _ = socket.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            PING if flags & ACK == 0 => {
                let _ = socket.write_all(&frame(PING, ACK, 0, &payload)).await;
            }
            GOAWAY if payload.get(4..8) != Some(&[0; 4]) => return Ok(End::Reset),
            RST_STREAM if of_it && answered.is_none() => return Ok(End::Reset),
            HEADERS if of_it && answered.is_none() => {
                let status = status(&payload).ok_or_else(|| format!("no status in {payload:?}"))?;
                if status >= 200 {
                    answered = Some(status);
                }
            }
            _ => {}
        }
        if let Some(status) =
            answered.filter(|_| of_it && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0)
        {
            return Ok(End::Answered(status));
        }
    }
}

// --------------------------------------------------------------------------------------------------------- the test

/// What went wrong with a row, if anything.
async fn check(between: &mut Between, row: &Row) -> Result<(), String> {
    let end = exchange(between.address(), row).await;
    // What arrived is asked for in any case: it is not the next row's.
    let log = between.fence().await;
    let (end, log) = (end?, log?);
    if !log.strange.is_empty() {
        return Err(format!("strange things arrived: {:?}", log.strange));
    }
    // Those of earlier rows, too: the router may still be sending what its client cannot wait for any more.
    let (harmless, arrived): (Vec<_>, Vec<_>) =
        log.whole.iter().map(Arrival::shown).partition(|shown| HARMLESS.contains(&shown.as_str()));
    let half = log.partial.iter().all(|part| part.contains(" /half ") || part.contains(" /harmless "));
    let refused = matches!(end, End::Reset | End::Answered(400..500)) && arrived.is_empty() && half;
    let good = match row.outcome {
        Outcome::Refused | Outcome::Half => refused,
        Outcome::Taken(ways) => {
            end == End::Answered(200) && arrived.len() == 1 && ways.contains(&arrived[0].as_str())
        }
        Outcome::Harmless => refused || (arrived.is_empty() && !harmless.is_empty()),
    };
    if good {
        Ok(())
    } else {
        Err(format!("expected {:?}; there was {end:?} and {arrived:?}, {:?}", row.outcome, log.partial))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_frames_bring_about_what_they_should_and_nothing_else() {
    let Table(rows) = table();
    let mut between = Between::start(Script::new()).await;
    let mut failed = Vec::new();
    for row in &rows {
        if let Err(why) = check(&mut between, row).await {
            failed.push(format!("{}: {why}", row.name));
        }
    }
    between.end(rows.len(), failed).await;
}

/// Many at once, on pooled connections that others use meanwhile: what one leaves behind another would get.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_end_in_empty_frames_poison_no_connection() {
    let mut between = Between::start(Script::new()).await;
    let row = table().0.into_iter().find(|row| row.name == "a body that ends in an empty frame").unwrap();
    for _ in 0..10 {
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (to, row) = (between.address(), row.clone());
                tokio::spawn(async move { exchange(to, &row).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(End::Answered(200)));
        }
        let log = between.fence().await.unwrap();
        assert_eq!((log.whole.len(), log.strange.len()), (20, 0), "{:?}", log.strange);
        for arrival in log.whole {
            assert_eq!(arrival.body, "abc");
            assert!(arrival.raw.ends_with(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{arrival:?}");
        }
    }
    between.router.stop().await;
}
