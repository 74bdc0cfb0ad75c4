//! Answers, byte by byte: what the client gets for each, and that the next client gets its own.

use super::harness::{AfterAnswer, BYTE_BY_BYTE, Between, Pace, Script, answers, send};

/// What the client gets.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// 502.
    Bad,
    /// `STATUS|FIELD|…|BODY`.
    Passed(&'static str),
    /// A beginning that cannot be taken for the whole, or 502.
    Cut,
}

struct Row {
    name: &'static str,
    /// The request's method and fields besides the common ones.
    asked: (&'static str, &'static str),
    answer: Vec<u8>,
    after: AfterAnswer,
    outcome: Outcome,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, name: &'static str, answer: impl Into<Vec<u8>>, outcome: Outcome) -> &mut Row {
        let (asked, after) = (("GET", ""), AfterAnswer::Wait);
        self.0.push(Row { name, asked, answer: answer.into(), after, outcome });
        self.0.last_mut().unwrap()
    }
}

/// An answer that nobody asked for: if a client gets it, it is not its own.
const SURPLUS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";

fn table() -> Table {
    let mut table = Table::default();
    bad_heads(&mut table);
    bad_framing(&mut table);
    cut(&mut table);
    passed(&mut table);
    surplus(&mut table);
    upgrades(&mut table);
    table
}

fn bad_heads(table: &mut Table) {
    for (name, answer) in [
        ("words", &b"I am not a web server.\r\n\r\n"[..]),
        ("a page alone", b"<html>hello</html>\r\n\r\n"),
        ("an SSH server", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x16"),
        ("HTTP/2 frames", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        ("NULs", &[0; 100]),
        ("an empty line before", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a space before", b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("no status", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        ("a status of words", b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("status 99", b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
        ("status 600", b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"),
        ("a bare LF after the status", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
        ("a bare LF after a field", b"HTTP/1.1 200 OK\r\nContent-Length: 0\nX: y\r\n\r\n"),
        ("a bare LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n"),
        ("a bare CR in a value", b"HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in a value", b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in a name", b"HTTP/1.1 200 OK\r\nX\x00: y\r\nContent-Length: 0\r\n\r\n"),
        ("a folded line", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n"),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n"),
        ("no colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n"),
        ("no name", b"HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in the reason", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
    ] {
        table.add(name, answer, Outcome::Bad);
    }
    table.add("half a head", "HTTP/1.1 200 OK\r\nContent-Le", Outcome::Bad).after = AfterAnswer::Close;
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024));
    table.add("a head of more than 64 KiB", long, Outcome::Bad);
    let many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(256));
    table.add("more than 256 fields", many, Outcome::Bad);
    table.add("an endless line", "HTTP/1.1 200 ".to_owned() + &"x".repeat(70_000), Outcome::Bad);
}

fn bad_framing(table: &mut Table) {
    for (name, fields) in [
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4"),
        ("two equal lengths", "Content-Length: 3\r\nContent-Length: 3"),
        ("a list of lengths", "Content-Length: 3, 3"),
        ("an empty length", "Content-Length:"),
        ("a length with a sign", "Content-Length: +3"),
        ("a negative length", "Content-Length: -3"),
        ("a length in hexadecimal", "Content-Length: 0x3"),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551619"),
        ("both lengths", "Content-Length: 3\r\nTransfer-Encoding: chunked"),
        ("both lengths, the other way", "Transfer-Encoding: chunked\r\nContent-Length: 3"),
        ("an empty coding", "Transfer-Encoding:"),
        ("identity", "Transfer-Encoding: identity"),
        ("gzip", "Transfer-Encoding: gzip"),
        ("gzip before chunked", "Transfer-Encoding: gzip, chunked"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("chunked with a parameter", "Transfer-Encoding: chunked;a=b"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        table.add(name, answer, Outcome::Bad);
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    table.add("a coding in HTTP/1.0", old, Outcome::Bad);
    let interim = format!("HTTP/1.1 103 Early Hints\r\nContent-Length: {}\r\n\r\n{SURPLUS}", SURPLUS.len());
    table.add("an interim answer with a body", interim, Outcome::Bad);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
    table.add("two lengths for HEAD", head, Outcome::Bad).asked = ("HEAD", "");
}

fn cut(table: &mut Table) {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    table.add("a body that breaks off", short, Outcome::Cut).after = AfterAnswer::Close;
    for (name, body) in [
        ("chunks that break off", "3\r\nabc\r\n"),
        ("a chunk that breaks off", "9\r\nabc"),
        ("a last chunk that breaks off", "3\r\nabc\r\n0\r\n"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        table.add(name, answer, Outcome::Cut).after = AfterAnswer::Close;
    }
    for (name, body) in [
        ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a space", "3 \r\nabc\r\n0\r\n\r\n"),
        ("a size that is none", "hello\r\nabc\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a size that ends in LF", "3\nabc\r\n0\r\n\r\n"),
        ("content that is too long", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("content that ends in LF", "3\r\nabc\n0\r\n\r\n"),
        ("a later size that is none", "3\r\nabc\r\nx\r\nabc\r\n0\r\n\r\n"),
        ("a trailer that is none", "3\r\nabc\r\n0\r\nno colon\r\n\r\n"),
        ("an answer for a trailer", "3\r\nabc\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        table.add(name, answer, Outcome::Cut);
    }
}

fn passed(table: &mut Table) {
    for (name, answer, got) in [
        (
            "an ordinary answer",
            "HTTP/1.1 200 Fine\r\nX: y\r\nContent-Length: 3\r\n\r\nabc",
            "200|content-length: 3|x: y|abc",
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\n\r\n",
            "200|transfer-encoding: chunked|abc",
        ),
        (
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\
             Set-Cookie: a\r\nContent-Length: 9\r\n\r\n",
            "200|trailer: X|transfer-encoding: chunked|abc~X: y",
        ),
        (
            "fields of one hop",
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nKeep-Alive: a\r\nProxy-Connection: b\r\n\
             Proxy-Authenticate: c\r\nUpgrade: h2c\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n",
            "200|content-length: 0|x-b: 2|",
        ),
        (
            "a Connection that no one can read",
            "HTTP/1.1 200 OK\r\nConnection: Keep-Alive, timeout=5\r\nContent-Length: 0\r\n\r\n",
            "200|content-length: 0|",
        ),
        (
            "a Connection that names the framing",
            "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "200|transfer-encoding: chunked|abc",
        ),
        (
            "interim answers",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "200|content-length: 3|abc",
        ),
        ("no reason", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "404|content-length: 0|"),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", "204|"),
        ("304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "304|content-length: 9|"),
    ] {
        table.add(name, answer, Outcome::Passed(got));
    }
    for (name, answer) in [
        ("a body that ends with the connection", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nabc"),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nX: y\r\n\r\nabc"),
    ] {
        let row = table.add(name, answer, Outcome::Passed("200|transfer-encoding: chunked|x: y|abc"));
        row.after = AfterAnswer::Close;
    }
}

/// More than was asked for.
fn surplus(table: &mut Table) {
    for (name, answer, got) in [
        ("a second answer", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "200|content-length: 3|abc"),
        ("an answer after no content", "HTTP/1.1 204 No Content\r\n\r\n", "204|"),
        ("content after no content", "HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n", "204|"),
        ("an answer after 304", "HTTP/1.1 304 Not Modified\r\n\r\n", "304|"),
        (
            "an answer after chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "200|transfer-encoding: chunked|abc",
        ),
    ] {
        table.add(name, format!("{answer}{SURPLUS}"), Outcome::Passed(got));
    }
    for (name, answer, got) in [
        ("content for HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", "200|content-length: 44|"),
        ("chunks for HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200|"),
    ] {
        let row = table.add(name, format!("{answer}{SURPLUS}"), Outcome::Passed(got));
        row.asked = ("HEAD", "");
    }
}

fn upgrades(table: &mut Table) {
    let good = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    table.add("101 that nobody asked for", format!("{good}{SURPLUS}"), Outcome::Bad);
    table.add("101 for POST", good, Outcome::Bad).asked = ("POST", "");
    for (name, answer) in [
        ("101 to another protocol", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"),
        ("101 to HTTP/2", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        (
            "101 to two protocols",
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket, other\r\n\r\n",
        ),
        ("101 to nothing", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n"),
        ("101 without Connection", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"),
        (
            "101 with a body",
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
        ),
    ] {
        let row = table.add(name, answer, Outcome::Bad);
        row.asked = ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    }
}

/// What went wrong with a row, if anything.
async fn check(between: &mut Between, path: &str, row: &Row) -> Result<(), String> {
    let (method, fields) = row.asked;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let got = send(between.address(), request.as_bytes(), Pace::AtOnce).await;
    // What is left in pools shows now.
    let next = between.fence().await;
    let found = answers(&got?, &[method])?;
    next?;
    between.fence().await?;
    let [answer] = found.as_slice() else { return Err(format!("there were {found:?}")) };
    let is_bad =
        answer.status == 502 && answer.field("x-serinus-reason").starts_with("upstream-") && !answer.cut;
    let own = ["connection:", "date:", "server:", "x-serinus-"];
    let mut shown = answer.status.to_string();
    for field in answer.fields.iter().filter(|field| !own.iter().any(|name| field.starts_with(name))) {
        shown.push('|');
        shown.push_str(field);
    }
    let shown = format!("{shown}|{}", answer.body);
    let good = match row.outcome {
        Outcome::Bad => is_bad,
        Outcome::Cut => is_bad || (answer.status == 200 && answer.cut),
        Outcome::Passed(expected) => !answer.cut && shown == expected,
    };
    let cut = if answer.cut { ", cut" } else { "" };
    if good { Ok(()) } else { Err(format!("expected {:?}; there was {shown:?}{cut}", row.outcome)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_answers_reach_nobody_or_who_asked() {
    let Table(rows) = table();
    let path = |i: usize| format!("/answer/{i}");
    let script: Script =
        rows.iter().enumerate().map(|(i, row)| (path(i), (row.answer.clone(), row.after))).collect();
    let mut between = Between::start(script).await;
    let mut failed = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        if let Err(why) = check(&mut between, &path(i), row).await {
            failed.push(format!("{}: {why}", row.name));
        }
        // What comes after the answer may come after the next request, and is then an answer to that one: no client of HTTP/1
        // can tell.
        let surplus = row.answer.windows(6).any(|six| six == b"POISON");
        let path = format!("{BYTE_BY_BYTE}{}", path(i));
        if !surplus && let Err(why) = check(&mut between, &path, row).await {
            failed.push(format!("{}, byte by byte: {why}", row.name));
        }
    }
    between.end(rows.len(), failed).await;
}
