//! Chunks, byte by byte.

use super::*;

/// Content, trailers, and what is left.
type Whole = (Vec<u8>, Option<Fields>, Vec<u8>);

/// The content, the trailers and what is left, or the status of the refusal; 0 while more is needed. `piece` bytes come at
/// a time.
fn decoded(raw: &[u8], piece: usize) -> Result<Whole, u16> {
    let (mut dechunker, mut buffer, mut content) = (Dechunker::default(), BytesMut::new(), Vec::new());
    let mut pieces = raw.chunks(piece);
    loop {
        match dechunker.decode(&mut buffer).map_err(|refused| refused.status)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty());
                content.extend_from_slice(&data);
            }
            Decoded::More => match pieces.next() {
                Some(more) => buffer.extend_from_slice(more),
                None => return Err(0),
            },
            Decoded::End(fields) => {
                let rest = [&buffer, pieces.collect::<Vec<_>>().concat().as_slice()].concat();
                assert!(matches!(dechunker.decode(&mut buffer), Ok(Decoded::End(None))), "the end stays");
                return Ok((content, fields, rest));
            }
        }
    }
}

/// `CONTENT|TRAILERS|REST`.
fn shown(raw: &[u8], piece: usize) -> Result<String, u16> {
    let (content, fields, rest) = decoded(raw, piece)?;
    let mut lines = Vec::new();
    fields.unwrap_or_default().write_to(&mut lines);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "~");
    Ok(format!("{}|{}|{}", text(&content), text(&lines), text(&rest)))
}

#[test]
fn chunks_are_put_together_however_they_come() {
    for (raw, expected) in [
        (&b"0\r\n\r\n"[..], "||"),
        (b"3\r\nabc\r\n0\r\n\r\n", "abc||"),
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde||"),
        (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "~||"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", "0123456789||"),
        (b"A\r\n0123456789\r\n000\r\n\r\n", "0123456789||"),
        (b"0000000000000003\r\nabc\r\n0\r\n\r\n", "abc||"),
        (b"3;a=b\r\nabc\r\n0;c=\"d\"\r\n\r\n", "abc||"),
        (b"3;\r\nabc\r\n0\r\n\r\n", "abc||"),
        (b"3;a;b \tc\r\nabc\r\n0\r\n\r\n", "abc||"),
        (b"3;\x80\r\nabc\r\n0\r\n\r\n", "abc||"),
        (b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "abc||GET / HTTP/1.1~"),
        (b"0\r\nGrpc-Status: 0\r\nX-Sum:  1 \r\n\r\nx", "|Grpc-Status: 0~X-Sum: 1~|x"),
        (b"0\r\nA: \r\n\r\n", "|A: ~|"),
        // What may not come so late is left out.
        (b"0\r\nHost: a\r\n\r\n", "||"),
        (b"0\r\nhOST: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nX: 1\r\n\r\n", "|X: 1~|"),
        (b"0\r\nTransfer_Encoding: a\r\ncontent_length: 3\r\nX_A: 1\r\n\r\n", "|X_A: 1~|"),
        (b"0\r\nSet-Cookie: a\r\nAuthorization: b\r\nX-Forwarded-For: c\r\nX_Forwarded_For: c\r\n\r\n", "||"),
        (
            b"0\r\nConnection: X\r\nUpgrade: a\r\nTE: b\r\nKeep-Alive: c\r\nProxy-X: d\r\nTrailer: e\r\n\r\n",
            "||",
        ),
        (b"0\r\nContent-Type: a\r\nContent-Encoding: b\r\nContent-Digest: c\r\n\r\n", "|Content-Digest: c~|"),
    ] {
        for piece in [usize::MAX, 1, 2, 3, 5] {
            assert_eq!(shown(raw, piece).as_deref(), Ok(expected), "{raw:?} in pieces of {piece}");
        }
        // One byte less of what belongs to it is too little.
        let whole = raw.len() - decoded(raw, usize::MAX).unwrap().2.len();
        for end in 0..whole {
            assert_eq!(shown(&raw[..end], usize::MAX), Err(0), "{raw:?} up to {end}");
        }
    }
}

#[test]
fn what_is_no_chunk_is_refused() {
    for raw in [
        &b"\r\n"[..],
        b"\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3 ;a\r\nabc\r\n0\r\n\r\n",
        b"3\t\r\nabc",
        b"+3\r\nabc",
        b"-3\r\nabc",
        b"-1\r\nabc",
        b"0x3\r\nabc",
        b"3g\r\nabc",
        b"3_0\r\nabc",
        b"3,3\r\nabc",
        b"\x003\r\nabc",
        b"3\x00\r\nabc",
        b"\xef\xbc\x93\r\nabc",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\rabc",
        b";a\r\n",
        b"00000000000000003\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc",
        b"fffffffffffffffff\r\nabc",
        b"3;a\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a\x00\r\nabc",
        b"3;a\x7f\r\nabc",
        b"3;a\x0b\r\nabc",
        b"3;\r\rabc",
        // The content is longer or shorter than it said.
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        // Trailers that are none.
        b"0\r\n\n",
        b"0\r\n\r\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\r\n\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA\r\n\r\n",
        b"0\r\n: b\r\n\r\n",
        b"0\r\nA: b\x00c\r\n\r\n",
        b"0\r\nA: b\rc\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        for piece in [usize::MAX, 1, 2, 3] {
            assert_eq!(shown(raw, piece), Err(400), "{raw:?} in pieces of {piece}");
        }
    }
}

#[test]
fn what_says_nothing_is_bounded() {
    // Extensions, in one line and in many.
    let one = |length: usize| [b"1;", "x".repeat(length).as_bytes(), b"\r\na\r\n0\r\n\r\n"].concat();
    assert_eq!(shown(&one(4095), 1).as_deref(), Ok("a||"));
    assert_eq!(shown(&one(4096), 1), Err(400));
    assert_eq!(shown(&one(4096)[..4098], 1), Err(400), "refused before the line ends");
    let many = |count: usize| [b"1;x\r\na\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(decoded(&many(2048), 7).unwrap().0.len(), 2048);
    assert_eq!(decoded(&many(2049), 7).map(drop), Err(400));
    // Trailers, in bytes and in number.
    let bytes = |length: usize| ["0\r\nA: ", &"x".repeat(length), "\r\n\r\n"].concat();
    assert!(decoded(bytes(16 * 1024 - 5).as_bytes(), 1000).unwrap().1.is_some());
    assert_eq!(decoded(bytes(16 * 1024 - 4).as_bytes(), 1000).map(drop), Err(431));
    assert_eq!(
        decoded(&bytes(20_000).as_bytes()[..16 * 1024 + 5], 1000).map(drop),
        Err(431),
        "before the end"
    );
    let count = |count: usize| ["0\r\n", &"A: b\r\n".repeat(count), "\r\n"].concat();
    assert_eq!(decoded(count(64).as_bytes(), 9).unwrap().1.unwrap().len(), 64);
    assert_eq!(decoded(count(65).as_bytes(), 9).map(drop), Err(431));
}

#[test]
fn content_is_handed_on_before_its_chunk_is_whole() {
    let mut dechunker = Dechunker::default();
    let mut buffer = BytesMut::from(&b"ffffffffffffffff\r\nabc"[..]);
    assert!(matches!(dechunker.decode(&mut buffer), Ok(Decoded::Data(data)) if data == "abc"));
    assert!(matches!(dechunker.decode(&mut buffer), Ok(Decoded::More)));
}
