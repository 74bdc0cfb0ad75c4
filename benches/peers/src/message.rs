//! Reading HTTP/1 as far as the laboratory needs it: a head, and a body of a known length. Whatever else comes is an error, and is told.

use anyhow::{Context, bail};

/// More fields than any peer adds to those of the realistic request.
const MOST_FIELDS: usize = 64;
/// The longest head.
const MOST_HEAD: usize = 64 * 1024;

/// What of a head counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The status of an answer; 0 for a request.
    pub(crate) status: u16,
    /// How long the body is.
    pub(crate) length: usize,
    /// The first byte of the body, 0 without one: the pods tell themselves by it.
    pub(crate) first: u8,
    /// Whether a request asks for a WebSocket.
    pub(crate) upgrade: bool,
    /// What a request asks for, as [`crate::upstream`] knows it: the place of its path in the list there.
    pub(crate) path: Option<usize>,
}

/// Which of both is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side<'a> {
    /// Requests, with the paths that are known.
    Requests(&'a [&'a str]),
    /// Answers.
    Answers,
}

/// Reads messages from one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: Vec<u8>,
    /// Of the message whose body is being read: its head, and how much is missing.
    body: Option<(Head, usize)>,
}

impl Reader {
    /// Takes what of `bytes` belongs to the next message: how much that was, and the message if it is whole.
    pub(crate) fn take(&mut self, side: Side<'_>, bytes: &[u8]) -> anyhow::Result<(usize, Option<Head>)> {
        if let Some((head, missing)) = &mut self.body {
            if head.first == 0 {
                head.first = bytes.first().copied().unwrap_or_default();
            }
            let taken = bytes.len().min(*missing);
            *missing -= taken;
            if *missing > 0 {
                return Ok((taken, None));
            }
            let head = *head;
            self.body = None;
            return Ok((taken, Some(head)));
        }
        if self.head.is_empty() {
            // Nearly always: the head is whole, and nothing is kept.
            let Some(end) = end_of_head(bytes, 0) else {
                self.head.extend_from_slice(bytes);
                return Ok((bytes.len(), None));
            };
            let head = parse(side, bytes.get(..end).unwrap_or_default())?;
            return self.begin_body(head, end, bytes.get(end..).unwrap_or_default());
        }
        let had = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = end_of_head(&self.head, had.saturating_sub(3)) else {
            if self.head.len() > MOST_HEAD {
                bail!("a head of more than {MOST_HEAD} bytes");
            }
            return Ok((bytes.len(), None));
        };
        let head = parse(side, self.head.get(..end).unwrap_or_default())?;
        self.head.clear();
        let taken = end - had;
        self.begin_body(head, taken, bytes.get(taken..).unwrap_or_default())
    }

    fn begin_body(
        &mut self,
        mut head: Head,
        taken: usize,
        rest: &[u8],
    ) -> anyhow::Result<(usize, Option<Head>)> {
        if head.length == 0 {
            return Ok((taken, Some(head)));
        }
        let more = rest.len().min(head.length);
        head.first = rest.first().copied().unwrap_or_default();
        if more == head.length {
            return Ok((taken + more, Some(head)));
        }
        self.body = Some((head, head.length - more));
        Ok((taken + more, None))
    }
}

fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    memchr::memmem::find(rest, b"\r\n\r\n").map(|at| from + at + 4)
}

fn parse(side: Side<'_>, bytes: &[u8]) -> anyhow::Result<Head> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = Head::default();
    let fields = match side {
        Side::Requests(paths) => {
            let mut request = httparse::Request::new(&mut fields);
            request.parse(bytes).context("a request that is none")?;
            head.path = paths.iter().position(|path| Some(*path) == request.path);
            request.headers
        }
        Side::Answers => {
            let mut answer = httparse::Response::new(&mut fields);
            answer.parse(bytes).context("an answer that is none")?;
            head.status = answer.code.unwrap_or_default();
            answer.headers
        }
    };
    for field in fields.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value)?;
            head.length = text.trim().parse().with_context(|| format!("Content-Length: {text}"))?;
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a body in chunks: the laboratory sends none, and so should the peer");
        } else if field.name.eq_ignore_ascii_case("upgrade") {
            head.upgrade = field.value.eq_ignore_ascii_case(b"websocket");
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhallo";

    #[test]
    fn an_answer_is_whole_wherever_it_is_cut() {
        for cut in 0..ANSWER.len() {
            let mut reader = Reader::default();
            let (first, second) = ANSWER.split_at(cut);
            let mut found = None;
            for mut part in [first, second] {
                while !part.is_empty() {
                    assert_eq!(found, None, "cut at {cut}");
                    let (taken, head) = reader.take(Side::Answers, part).unwrap();
                    part = part.get(taken..).unwrap();
                    found = head;
                }
            }
            let expected = Head { status: 200, length: 5, first: b'h', ..Head::default() };
            assert_eq!(found, Some(expected), "cut at {cut}");
        }
    }

    #[test]
    fn a_second_request_is_left_for_the_next_call() {
        let two = b"POST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET /a HTTP/1.1\r\n\r\n";
        let mut reader = Reader::default();
        let side = Side::Requests(&["/a", "/b"]);
        let (taken, head) = reader.take(side, two).unwrap();
        assert_eq!(head.and_then(|head| head.path), Some(1));
        let (_, head) = reader.take(side, two.get(taken..).unwrap()).unwrap();
        assert_eq!(head.and_then(|head| head.path), Some(0));
    }

    #[test]
    fn chunks_are_refused() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(Reader::default().take(Side::Answers, chunked).is_err());
    }
}
