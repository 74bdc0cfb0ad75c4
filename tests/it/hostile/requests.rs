//! Requests, byte by byte: what each is answered, whether the connection ends, and what arrives at the pod.

use super::harness::{Arrival, Between, Pace, Script, answers, send};

/// Sent after each row on the same connection. Where the row is refused nobody may see it; elsewhere it is the next request.
const FOLLOW: &str = "GET /follow HTTP/1.1\r\nHost: follow\r\nConnection: close\r\n\r\n";
const FOLLOW_ARRIVES: &str = "GET /follow HTTP/1.1|host: follow|";

/// What a row brings about.
#[derive(Clone, Debug)]
enum Outcome {
    /// This status, the end of the connection, and not a byte at the pod.
    Refused(u16),
    /// This status and the end of the connection. The pod may have got a beginning, never a whole request.
    Half(u16),
    /// It arrives like this, and what follows arrives after it.
    Taken(&'static str),
    /// It arrives like this, and the connection ends.
    Last(&'static str),
}

struct Row {
    name: String,
    raw: Vec<u8>,
    outcome: Outcome,
    /// Without what follows.
    alone: bool,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, name: impl Into<String>, raw: impl Into<Vec<u8>>, outcome: Outcome) -> &mut Row {
        self.0.push(Row { name: name.into(), raw: raw.into(), outcome, alone: false });
        self.0.last_mut().unwrap()
    }

    fn refused(&mut self, status: u16, rows: &[(&str, &[u8])]) {
        for (name, raw) in rows {
            self.add(*name, *raw, Outcome::Refused(status));
        }
    }

    /// Fields of a request with a body in chunks, which is refused.
    fn refused_fields(&mut self, status: u16, rows: &[(&str, &[u8])]) {
        for (name, fields) in rows {
            let raw =
                [b"POST /x HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"].concat();
            self.add(*name, raw, Outcome::Refused(status));
        }
    }

    fn taken(&mut self, rows: &[(&str, &str, &'static str)]) {
        for (name, raw, arrives) in rows {
            self.add(*name, *raw, Outcome::Taken(arrives));
        }
    }
}

fn table() -> Table {
    let mut table = Table::default();
    lines(&mut table);
    targets(&mut table);
    hosts(&mut table);
    fields(&mut table);
    framing(&mut table);
    smuggling(&mut table);
    chunks(&mut table);
    limits(&mut table);
    taken(&mut table);
    taken_bodies(&mut table);
    hops(&mut table);
    last(&mut table);
    table
}

fn lines(table: &mut Table) {
    table.refused(
        400,
        &[
            ("bare LF everywhere", b"GET /x HTTP/1.1\nHost: a\n\n"),
            ("bare LF after the request line", b"GET /x HTTP/1.1\nHost: a\r\n\r\n"),
            ("bare LF after a field", b"GET /x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
            ("bare LF as the empty line", b"GET /x HTTP/1.1\r\nHost: a\r\n\n"),
            ("bare CR in the request line", b"GET /x\rHTTP/1.1\r\nHost: a\r\n\r\n"),
            ("bare CR as a line end", b"GET /x HTTP/1.1\rHost: a\r\r\n\r\n"),
            ("two CR", b"GET /x HTTP/1.1\r\r\nHost: a\r\n\r\n"),
            ("a bare LF before", b"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a bare CR before", b"\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("many empty lines before", b"\r\n\r\n\r\n\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a space before", b" GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a NUL before", b"\x00GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("two spaces after the method", b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("two spaces after the target", b"GET /x  HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a tab after the method", b"GET\t/x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a space at the end", b"GET /x HTTP/1.1 \r\nHost: a\r\n\r\n"),
            ("no version", b"GET /x\r\nHost: a\r\n\r\n"),
            ("HTTP/0.9", b"GET /x\r\n"),
            ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("no method", b"/x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a version in lower case", b"GET /x http/1.1\r\nHost: a\r\n\r\n"),
            ("a version of three parts", b"GET /x HTTP/1.1.1\r\nHost: a\r\n\r\n"),
            ("a version of one part", b"GET /x HTTP/1\r\nHost: a\r\n\r\n"),
            ("another protocol", b"GET /x ICAP/1.0\r\nHost: a\r\n\r\n"),
            ("two versions", b"GET /x HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a method that is no token", b"GE(T /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a method with a NUL", b"GE\x00T /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a method beyond ASCII", b"G\xc3\x89T /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08"),
            ("SSLv2", b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10"),
            ("JSON", b"{\"method\": \"GET\"}\r\n\r\n"),
            ("an endless word", &[b'A'; 200]),
        ],
    );
    table.refused(
        405,
        &[
            ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
            ("CONNECT with a path", b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("TRACE", b"TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("trace", b"trace /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    );
    table.refused(
        505,
        &[
            ("HTTP/2.0 in text", b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("HTTP/1.2", b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n"),
            ("HTTP/0.9 with a version", b"GET /x HTTP/0.9\r\nHost: a\r\n\r\n"),
        ],
    );
}

fn targets(table: &mut Table) {
    for (name, target) in [
        ("a space in the target", &b"/x y"[..]),
        ("a tab in the target", b"/x\ty"),
        ("a NUL in the target", b"/x\x00y"),
        ("a control character in the target", b"/x\x01"),
        ("DEL in the target", b"/x\x7f"),
        ("UTF-8 in the target", b"/\xc3\xa9"),
        ("half of UTF-8 in the target", b"/\xc3"),
        ("a fragment", b"/x#y"),
        ("a fragment in a query", b"/x?y#z"),
        ("a backslash", b"/x\\y"),
        ("an escaped slash", b"/x%2fy"),
        ("an escaped backslash", b"/x%5Cy"),
        ("an escaped slash that leads up", b"/x/..%2fy"),
        ("an escaped NUL", b"/x%00"),
        ("half an escape", b"/x%4"),
        ("a bad escape", b"/x%zz"),
        ("an escape of IIS", b"/x%u002f"),
        ("above the root", b"/../x"),
        ("above the root, escaped", b"/%2e%2e/x"),
        ("above the root, later", b"/x/../../y"),
        ("a dot segment with parameters", b"/x/..;/y"),
        ("a relative target", b"x"),
        ("a relative target that leads up", b"../x"),
        ("a query alone", b"?x"),
        ("an authority alone", b"a:80"),
        ("an asterisk for GET", b"*"),
        ("another scheme", b"ftp://a/x"),
        ("a file", b"file:///etc/passwd"),
        ("another host than Host", b"http://b/x"),
        ("another port than Host", b"http://a:81/x"),
        ("userinfo", b"http://u:p@a/x"),
        ("userinfo that looks like the host", b"http://a@b/x"),
        ("no host in the target", b"http:///x"),
        ("no slashes in the target", b"http:a/x"),
        ("a backslash in the authority", b"http://a\\@b/x"),
        ("an angle bracket", b"/<script>"),
    ] {
        let raw = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        table.add(name, raw, Outcome::Refused(400));
    }
}

fn hosts(table: &mut Table) {
    table.refused(
        400,
        &[
            ("no Host", b"GET /x HTTP/1.1\r\n\r\n"),
            ("no Host, absolute", b"GET http://a/x HTTP/1.1\r\n\r\n"),
            ("two Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("two equal Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: a\r\n\r\n"),
            ("two Hosts in HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ],
    );
    for (name, host) in [
        ("an empty Host", &b""[..]),
        ("a Host of spaces", b"  "),
        ("a list of Hosts", b"a, b"),
        ("a Host with a space", b"a b"),
        ("a Host with a tab", b"a\tb"),
        ("a Host with a path", b"a/b"),
        ("a Host with a query", b"a?b"),
        ("a Host with a fragment", b"a#b"),
        ("a Host with userinfo", b"u@a"),
        ("a Host with a scheme", b"http://a"),
        ("a Host with a bad port", b"a:b"),
        ("a Host with an empty port", b"a:"),
        ("a Host with a large port", b"a:65536"),
        ("a Host with a huge port", b"a:99999999999999999999"),
        ("a Host with two ports", b"a:80:80"),
        ("a Host with a signed port", b"a:+80"),
        ("a Host with a quote", b"a\"b"),
        ("a Host with a tag", b"a<b>"),
        ("a Host with a backslash", b"a\\b"),
        ("a Host beyond ASCII", b"\xc3\xa9"),
        ("a Host with a NUL", b"a\x00b"),
        ("a Host with an escape", b"a%00b"),
        ("an IPv6 address without brackets", b"::1"),
        ("half an IPv6 address", b"[::1"),
        ("an IPv6 address with a zone", b"[fe80::1%25eth0]"),
        ("two dots", b"a..b"),
    ] {
        let raw = [b"GET /x HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat();
        table.add(name, raw, Outcome::Refused(400));
    }
}

fn fields(table: &mut Table) {
    table.refused_fields(
        400,
        &[
            ("a space before the colon", b"X : y"),
            ("a tab before the colon", b"X\t: y"),
            ("a folded line", b"X: y\r\n z"),
            ("a folded line with a tab", b"X: y\r\n\tz"),
            ("a folded empty line", b"X: y\r\n "),
            ("no colon", b"X"),
            ("no name", b": y"),
            ("a space in a name", b"X Y: z"),
            ("a NUL in a name", b"X\x00: y"),
            ("a name beyond ASCII", b"\xc3\xa9: y"),
            ("a name with brackets", b"X[0]: y"),
            ("a name with a comma", b"X,Y: z"),
            ("a name with a quote", b"X\": z"),
            ("a name with DEL", b"X\x7f: z"),
            ("a NUL in a value", b"X: \x00y"),
            ("a control character in a value", b"X: y\x01"),
            ("an escape in a value", b"X: \x1b[31m"),
            ("a form feed in a value", b"X: y\x0cz"),
            ("DEL in a value", b"X: y\x7f"),
            ("a bare CR in a value", b"X: y\rZ: 1"),
            ("a bare CR at the end of a value", b"X: y\r"),
            ("a bare LF in a value", b"X: y\nZ: 1"),
        ],
    );
    table.refused(
        400,
        &[
            ("a space before the first field", b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n"),
            ("a line of spaces before Host", b"GET /x HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
            ("a folded Host", b"GET /x HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
        ],
    );
    table.refused_fields(
        417,
        &[("an expectation that nobody meets", b"Transfer-Encoding: chunked\r\nExpect: a-miracle")],
    );
}

fn framing(table: &mut Table) {
    table.refused_fields(
        400,
        &[
            ("both lengths", b"Content-Length: 3\r\nTransfer-Encoding: chunked"),
            ("both lengths, the other way", b"Transfer-Encoding: chunked\r\nContent-Length: 3"),
            ("both lengths, one 0", b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
            ("both lengths, one empty", b"Content-Length: 3\r\nTransfer-Encoding:"),
            ("two lengths", b"Content-Length: 3\r\nContent-Length: 4"),
            ("two equal lengths", b"Content-Length: 3\r\nContent-Length: 3"),
            ("a list of lengths", b"Content-Length: 3, 4"),
            ("a list of equal lengths", b"Content-Length: 3, 3"),
            ("an empty length", b"Content-Length:"),
            ("a length with a sign", b"Content-Length: +3"),
            ("a negative length", b"Content-Length: -3"),
            ("a length in hexadecimal", b"Content-Length: 0x3"),
            ("a length with a point", b"Content-Length: 3.0"),
            ("a length with a space", b"Content-Length: 3 0"),
            ("a length with a semicolon", b"Content-Length: 3;"),
            ("a length in quotes", b"Content-Length: \"3\""),
            ("a length beyond 64 bits", b"Content-Length: 18446744073709551619"),
            ("a length in other digits", b"Content-Length: \xef\xbc\x93"),
            ("a space before the colon of a length", b"Content-Length : 3"),
            ("a folded length", b"Content-Length:\r\n 3"),
            ("an empty coding", b"Transfer-Encoding:"),
            ("two codings", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            ("two equal codings", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            ("a list of equal codings", b"Transfer-Encoding: chunked, chunked"),
            ("chunked is not last", b"Transfer-Encoding: chunked, identity"),
            ("identity before chunked", b"Transfer-Encoding: identity, chunked"),
            ("identity", b"Transfer-Encoding: identity"),
            ("an unknown coding", b"Transfer-Encoding: xchunked"),
            ("half a coding", b"Transfer-Encoding: chunk"),
            ("a coding in quotes", b"Transfer-Encoding: \"chunked\""),
            ("a coding with a parameter", b"Transfer-Encoding: chunked;a=b"),
            ("a coding after a comma", b"Transfer-Encoding: ,chunked"),
            ("a coding before a comma", b"Transfer-Encoding: chunked,"),
            ("a coding after a vertical tab", b"Transfer-Encoding: \x0bchunked"),
            ("a coding after a no-break space", b"Transfer-Encoding: \xa0chunked"),
            ("a coding before a NUL", b"Transfer-Encoding: chunked\x00"),
            ("a coding after a bare CR", b"Transfer-Encoding: \rchunked"),
            ("a coding in a folded line", b"Transfer-Encoding:\r\n chunked"),
            ("a space before the colon of a coding", b"Transfer-Encoding : chunked"),
            ("a tab before the colon of a coding", b"Transfer-Encoding\t: chunked"),
            ("a coding with a Kelvin sign", b"Transfer-Encoding: chun\xe2\x84\xaaed"),
        ],
    );
    table.refused_fields(501, &[("gzip before chunked", b"Transfer-Encoding: gzip, chunked")]);
    table.refused(
        400,
        &[(
            "a coding in HTTP/1.0",
            b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )],
    );
}

/// What is written about in papers, as it is.
fn smuggling(table: &mut Table) {
    table.refused(
        400,
        &[
            (
                "CL.TE",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 39\r\nTransfer-Encoding: chunked\r\n\r\n\
                  0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nX: y",
            ),
            (
                "TE.CL",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2b\r\nGET /admin HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n\r\n0\r\n\r\n",
            ),
            (
                "TE.TE",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\
                  Content-Length: 4\r\n\r\n2b\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n",
            ),
            (
                "CL.CL",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 38\r\n\r\n\
                  GET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a request in a field",
                b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\rGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a request after a line of a space",
                b"GET / HTTP/1.1\r\nHost: a\r\n \r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a length that a hop should drop",
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 38\r\n\r\n\
                  GET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
        ],
    );
}

fn chunks(table: &mut Table) {
    for (name, body) in [
        ("a size with a sign", &b"+3\r\nabc\r\n0\r\n\r\n"[..]),
        ("a negative size", b"-3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a prefix", b"0x3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a space before", b" 3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a space after", b"3 \r\nabc\r\n0\r\n\r\n"),
        ("a size with a space before an extension", b"3 ;a\r\nabc\r\n0\r\n\r\n"),
        ("no size", b"\r\nabc\r\n0\r\n\r\n"),
        ("an extension alone", b";a\r\nabc\r\n0\r\n\r\n"),
        ("a size that is none", b"g\r\nabc\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a size of many zeros", b"00000000000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a size that ends in LF", b"3\nabc\r\n0\r\n\r\n"),
        ("a size that ends in CR", b"3\rabc\r\n0\r\n\r\n"),
        ("an extension that ends in LF", b"3;a\nabc\r\n0\r\n\r\n"),
        ("an extension with a CR", b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
        ("an extension with a NUL", b"3;a\x00\r\nabc\r\n0\r\n\r\n"),
        ("content that is too long", b"3\r\nabcd\r\n0\r\n\r\n"),
        ("content that is too short", b"3\r\nab\r\n0\r\n\r\n"),
        ("content that ends in LF", b"3\r\nabc\n0\r\n\r\n"),
        ("content that ends in nothing", b"3\r\nabc0\r\n\r\n"),
        ("a last chunk that ends in LF", b"3\r\nabc\r\n0\n\n"),
        ("a request for a trailer", b"3\r\nabc\r\n0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a trailer with a space before its colon", b"3\r\nabc\r\n0\r\nX : y\r\n\r\n"),
        ("a folded trailer", b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n"),
        ("a trailer with a NUL", b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n"),
        ("a trailer that ends in LF", b"3\r\nabc\r\n0\r\nX: y\n\r\n"),
    ] {
        let raw = [b"POST /half HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat();
        table.add(format!("chunks: {name}"), raw, Outcome::Half(400));
    }
    let head = "POST /half HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extensions = format!("{head}{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(99)).repeat(50));
    table.add("chunks: many extensions", extensions, Outcome::Half(400));
    let trailers = format!("{head}0\r\n{}\r\n", "X: y\r\n".repeat(65));
    table.add("chunks: many trailers", trailers, Outcome::Half(431));
    let trailers = format!("{head}0\r\nX: {}\r\n\r\n", "y".repeat(16 * 1024));
    table.add("chunks: long trailers", trailers, Outcome::Half(431)).alone = true;
}

fn limits(table: &mut Table) {
    let line = |target: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(target - 1));
    // Not a byte more than what is too much: it is refused before it ends.
    let long = "x".repeat(16 * 1024 + 2 - "GET /".len());
    table.add("an endless request line", format!("GET /{long}"), Outcome::Refused(414)).alone = true;
    let whole = format!("{}Host: a\r\n\r\n", line(16 * 1024));
    table.add("a long request line", whole, Outcome::Refused(414)).alone = true;
    let head = "GET /x HTTP/1.1\r\nHost: a\r\n";
    let long = "y".repeat(64 * 1024 + 2 - "Host: a\r\nX: ".len());
    table.add("an endless field", format!("{head}X: {long}"), Outcome::Refused(431)).alone = true;
    let name = "X".repeat(64 * 1024 + 2 - "Host: a\r\n".len());
    table.add("an endless name", format!("{head}{name}"), Outcome::Refused(431)).alone = true;
    let many = "X: y\r\n".repeat(128);
    table.add("endless fields", format!("{head}{many}"), Outcome::Refused(431)).alone = true;
    table.add("many fields", format!("{head}{many}\r\n"), Outcome::Refused(431));
    let some = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", "Connection: close\r\n".repeat(127));
    table.add("as many fields as there may be", some, Outcome::Last("GET /x HTTP/1.1|host: a|"));
    let method = "M".repeat(33);
    table.add("a long method", format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"), Outcome::Refused(400));
    let named = "x, ".repeat(17);
    table.add(
        "a Connection that names many",
        format!("{head}Connection: {named}\r\n\r\n"),
        Outcome::Refused(400),
    );
}

fn taken(table: &mut Table) {
    table.taken(&[
        ("GET", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.1|host: a|"),
        ("an empty line before", "\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.1|host: a|"),
        ("HEAD", "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /x HTTP/1.1|host: a|"),
        ("an odd method", "Odd-1 /x HTTP/1.1\r\nHost: a\r\n\r\n", "Odd-1 /x HTTP/1.1|host: a|"),
        ("OPTIONS for all", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1|host: a|"),
        ("an absolute target", "GET http://A/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y HTTP/1.1|host: a|"),
        ("no path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1|host: a|"),
        ("an IPv6 address", "GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /x HTTP/1.1|host: [::1]:80|"),
        ("dot segments", "GET /x/./../y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /y HTTP/1.1|host: a|"),
        ("escaped dot segments", "GET /x/%2e%2E/y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /y HTTP/1.1|host: a|"),
        ("escapes", "GET /%61%2d%c3%a9 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a-%C3%A9 HTTP/1.1|host: a|"),
        (
            "escapes of escapes",
            "GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%252e%252e/ HTTP/1.1|host: a|",
        ),
        (
            "a query is not touched",
            "GET /?a=%2f/../%zz&b={[|^`\\ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?a=%2f/../%zz&b={[|^`\\ HTTP/1.1|host: a|",
        ),
        (
            "a space around a value",
            "GET /x HTTP/1.1\r\nHost:\t a \r\nX:y\r\n\r\n",
            "GET /x HTTP/1.1|host: a|x: y|",
        ),
        ("an empty value", "GET /x HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", "GET /x HTTP/1.1|host: a|x: |"),
        (
            "equal names",
            "GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n",
            "GET /x HTTP/1.1|host: a|x: 1|x: 2|",
        ),
    ]);
}

fn taken_bodies(table: &mut Table) {
    table.taken(&[
        (
            "a body with a length",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST /x HTTP/1.1|content-length: 3|host: a|abc",
        ),
        (
            "a body that looks like a request",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 23\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
            "POST /x HTTP/1.1|content-length: 23|host: a|GET /admin HTTP/1.1\r\n\r\n",
        ),
        (
            "a length with zeros",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
            "POST /x HTTP/1.1|content-length: 3|host: a|abc",
        ),
        (
            "no body",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST /x HTTP/1.1|content-length: 0|host: a|",
        ),
        (
            "nothing said of a body",
            "POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /x HTTP/1.1|content-length: 0|host: a|",
        ),
        (
            "a body of GET",
            "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "GET /x HTTP/1.1|content-length: 3|host: a|abc",
        ),
        (
            "chunks",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00\r\n\r\n",
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc",
        ),
        (
            "no chunks",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|",
        ),
        (
            "extensions",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\";c\r\nabc\r\n0;d\r\n\r\n",
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc",
        ),
        (
            "trailers",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc~X-Sum: 1",
        ),
        (
            "trailers that may not be",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: b\r\n\
             Content-Length: 9\r\nX_Forwarded_For: b\r\nAuthorization: c\r\nX-Sum: 1\r\n\r\n",
            "POST /x HTTP/1.1|host: a|transfer-encoding: chunked|abc~X-Sum: 1",
        ),
        (
            "100-continue",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
            "POST /x HTTP/1.1|content-length: 3|host: a|abc",
        ),
    ]);
}

fn hops(table: &mut Table) {
    for (name, fields, rest) in [
        ("fields that Connection names", "Connection: x-a, keep-alive\r\nX-A: 1\r\nX-B: 2\r\n", "x-b: 2|"),
        ("a Connection of two lines", "Connection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\n", ""),
        ("fields of one hop", "Keep-Alive: 1\r\nProxy-Connection: a\r\nProxy-Authorization: b\r\n", ""),
        ("httpoxy", "Proxy: http://b/\r\n", ""),
        ("TE", "TE: gzip\r\nConnection: TE\r\n", ""),
        ("TE for trailers", "TE: trailers\r\nConnection: TE\r\n", "te: trailers|"),
        ("h2c", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ\r\n", ""),
        ("an Upgrade that Connection does not name", "Upgrade: websocket\r\n", ""),
        (
            "names with an underscore",
            "X_User: root\r\nContent_Length: 3\r\nTransfer_Encoding: chunked\r\n",
            "",
        ),
        (
            "a client's word about itself",
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nForwarded: for=6.6.6.6\r\n\
             X-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n",
            "",
        ),
    ] {
        let arrives = format!("GET /x HTTP/1.1|host: a|{rest}");
        let raw = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        table.add(name, raw, Outcome::Taken(String::leak(arrives)));
    }
    for (name, field) in [
        ("Connection: Host", "Host"),
        ("Connection: Cookie", "Cookie"),
        ("Connection: Authorization", "Authorization"),
        ("Connection: X-Forwarded-For", "close, X-Forwarded-For"),
        ("Connection: Transfer-Encoding", "transfer-encoding"),
        ("Connection with what is no name", "a b"),
    ] {
        let raw = format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: {field}\r\n\r\n");
        table.add(name, raw, Outcome::Refused(400));
    }
}

fn last(table: &mut Table) {
    for (name, raw) in [
        ("close", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("close among others", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n"),
        ("HTTP/1.0", "GET /x HTTP/1.0\r\nHost: a\r\n\r\n"),
        ("HTTP/1.0, absolute", "GET http://a/x HTTP/1.0\r\n\r\n"),
        ("HTTP/1.0, an Upgrade", "GET /x HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n"),
    ] {
        table.add(name, raw, Outcome::Last("GET /x HTTP/1.1|host: a|"));
    }
    table.add(
        "HTTP/1.0 with a body",
        "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        Outcome::Last("POST /x HTTP/1.1|content-length: 3|host: a|abc"),
    );
}

/// What went wrong with a row, if anything.
async fn check(between: &mut Between, row: &Row, pace: Pace) -> Result<(), String> {
    let mut bytes = row.raw.clone();
    if !row.alone {
        bytes.extend_from_slice(FOLLOW.as_bytes());
    }
    let got = send(between.address(), &bytes, pace).await;
    // What arrived is asked for in any case: it is not the next row's.
    let log = between.fence().await;
    let method = row.raw.split(|byte| *byte == b' ').next().unwrap_or_default();
    let answers = answers(&got?, &[String::from_utf8_lossy(method).trim(), "GET"])?;
    let log = log?;
    if !log.strange.is_empty() {
        return Err(format!("strange things arrived: {:?}", log.strange));
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    let arrived: Vec<_> = log.whole.iter().map(Arrival::shown).collect();
    let (expected_statuses, expected) = match row.outcome {
        Outcome::Refused(status) | Outcome::Half(status) => (vec![status], Vec::new()),
        Outcome::Taken(arrives) => (vec![200, 200], vec![arrives, FOLLOW_ARRIVES]),
        Outcome::Last(arrives) => (vec![200], vec![arrives]),
    };
    if statuses != expected_statuses || arrived != expected {
        return Err(format!(
            "expected {expected_statuses:?} and {expected:?}; there was {statuses:?} and {arrived:?}, {:?}",
            log.partial
        ));
    }
    let reason = match statuses[0] {
        400 => Some("bad-request"),
        405 => Some("method-not-allowed"),
        414 => Some("uri-too-long"),
        431 => Some("header-too-large"),
        _ => None,
    };
    for answer in &answers {
        let told = answer.field("x-serinus-reason");
        if answer.status == 200 && !told.is_empty()
            || answer.status != 200 && told.is_empty()
            || reason.is_some_and(|reason| reason != told)
        {
            return Err(format!("the reason is {told:?}"));
        }
        if answer.status != 200 && answer.field("connection") != "close" {
            return Err("the connection ends without a word".to_owned());
        }
    }
    for (answer, arrival) in answers.iter().zip(&log.whole) {
        if !answer.body.is_empty() && answer.body != arrival.line {
            return Err(format!("{:?} was the answer to {:?}", answer.body, arrival.line));
        }
    }
    if !matches!(row.outcome, Outcome::Half(_)) && !log.partial.iter().all(|part| part.contains("/half ")) {
        return Err(format!("a part of something arrived: {:?}", log.partial));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_requests_bring_about_what_they_should_and_nothing_else() {
    let Table(rows) = table();
    assert!(rows.len() >= 200, "{}", rows.len());
    let mut between = Between::start(Script::new()).await;
    let mut failed = Vec::new();
    for row in &rows {
        if let Err(why) = check(&mut between, row, Pace::AtOnce).await {
            failed.push(format!("{}: {why}", row.name));
        }
        // What is refused is refused before the rest can be written.
        let taken = matches!(row.outcome, Outcome::Taken(_) | Outcome::Last(_));
        if taken && let Err(why) = check(&mut between, row, Pace::ByteByByte).await {
            failed.push(format!("{}, byte by byte: {why}", row.name));
        }
    }
    between.end(rows.len(), failed).await;
}
