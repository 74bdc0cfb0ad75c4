//! The PROXY protocol, versions 1 and 2 (HAProxy, "The PROXY protocol", 2020): a load balancer says whose connection this is.

use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// As much as there is of every header: the first 12 bytes tell the version, the shortest header has 15.
const FIRST: usize = 13;
/// The longest header of version 1, its end included.
const LONGEST_V1: usize = 107;
/// The longest header of version 2 that is read: addresses, and a sensible amount of further values.
const LONGEST_V2: usize = 4096;
/// What version 2 begins with.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoHeader {
    /// The connection ended before its first byte: a health check, or somebody who changed their mind.
    #[error("nothing came")]
    Nothing,
    /// It ended before there was as much as a header has.
    #[error("the connection ended before its PROXY header had come")]
    Half,
    /// Something else came.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// It begins like one and is none, or is a longer one than is sensible.
    #[error("the PROXY header is malformed or too long")]
    Malformed,
}

/// Reads the header, and not a byte more. Gives the address of the client; nothing where the load balancer speaks for itself.
///
/// # Errors
/// When what comes is no such header, or a longer one than is sensible.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, NoHeader> {
    let mut bytes = vec![0; FIRST];
    match io.read(&mut bytes).await {
        Ok(0) | Err(_) => return Err(NoHeader::Nothing),
        Ok(n) => bytes.truncate(n),
    }
    more(io, &mut bytes, FIRST).await?;
    if bytes.starts_with(SIGNATURE_V2) {
        more(io, &mut bytes, 16).await?;
        let length = match bytes.get(14..16) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => return Err(NoHeader::Malformed),
        };
        if 16 + length > LONGEST_V2 {
            return Err(NoHeader::Malformed);
        }
        more(io, &mut bytes, 16 + length).await?;
    } else {
        if !bytes.starts_with(b"PROXY ") {
            return Err(NoHeader::Missing);
        }
        // It ends where its line ends, and nothing tells before where that is.
        while !bytes.ends_with(b"\n") {
            if bytes.len() >= LONGEST_V1 {
                return Err(NoHeader::Malformed);
            }
            let next = bytes.len() + 1;
            more(io, &mut bytes, next).await?;
        }
    }
    match ProxyHeader::parse(&bytes, ParseConfig::default()) {
        Ok((header, length)) if length == bytes.len() => {
            Ok(header.proxied_address().map(|address| address.source.ip().to_canonical()))
        }
        Ok(_) | Err(_) => Err(NoHeader::Malformed),
    }
}

async fn more(io: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>, length: usize) -> Result<(), NoHeader> {
    let had = bytes.len();
    bytes.resize(length, 0);
    let read = io.read_exact(bytes.get_mut(had..).unwrap_or_default()).await;
    read.map(|_| ()).map_err(|_| NoHeader::Half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(length: u16, rest: &[u8]) -> Vec<u8> {
        [SIGNATURE_V2, &[0x21, 0x11], &length.to_be_bytes(), rest].concat()
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte() {
        let addresses = [192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 0, 80];
        let mapped = "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n";
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 80\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 80\r\n".to_vec(), Some("2001:db8::7")),
            (mapped.as_bytes().to_vec(), Some("192.0.2.7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(12, &addresses), Some("192.0.2.7")),
            ([SIGNATURE_V2, &[0x20, 0, 0, 0]].concat(), None),
        ] {
            let bytes = [header.as_slice(), b"GET"].concat();
            let mut left = bytes.as_slice();
            let read = read(&mut left).await.unwrap_or_else(|e| panic!("{header:?}: {e}"));
            assert_eq!(read, client.map(|ip| ip.parse().unwrap()), "{header:?}");
            assert_eq!(left, b"GET", "what follows is left: {header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for (bytes, why) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], NoHeader::Missing),
            (b"PROXY-LIKE / HTTP/1.1\r\n", NoHeader::Missing),
            (b"PROXY TCP4 192.0.2.7\r\n-----------", NoHeader::Malformed),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 99999 80\r\n", NoHeader::Malformed),
            (b"PROXY", NoHeader::Half),
            (b"PROXY TCP4 192.0.2.7 192.0.2", NoHeader::Half),
            (b"G", NoHeader::Half),
            (b"", NoHeader::Nothing),
            (long.as_bytes(), NoHeader::Malformed),
            (&v2(60_000, &[0; 60_000]), NoHeader::Malformed),
            (&v2(3, &[1, 2, 3]), NoHeader::Malformed),
            (&v2(12, &[1, 2, 3]), NoHeader::Half),
        ] {
            let mut left = bytes;
            assert_eq!(read(&mut left).await, Err(why), "{:?}", String::from_utf8_lossy(bytes));
            assert!(bytes.len() - left.len() <= LONGEST_V2, "bounded");
        }
    }
}
