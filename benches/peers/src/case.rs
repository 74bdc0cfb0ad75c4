//! What is measured: the cases, and what is sent in each.

use clap::ValueEnum;

use crate::handshakes::NAME;
use crate::load::Answer;

/// How many kept connections the clients have.
pub(crate) const CONNECTIONS: usize = 64;
/// The payload of a WebSocket message; more than 125 bytes would be another kind of frame.
const MESSAGE: u8 = 100;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// GET, 1 KB.
    #[value(name = "1k")]
    OneK,
    /// GET, two bytes.
    Tiny,
    /// GET, 1 KB, ten fields more in the request and in the answer.
    Rich,
    /// POST of 256 bytes, answered with 1 KB.
    #[value(name = "post256")]
    PostSmall,
    /// POST of 16 KiB, answered with 1 KB.
    #[value(name = "post16k")]
    PostLarge,
    /// GET, 64 KiB.
    #[value(name = "64k")]
    SixtyFourK,
    /// Latencies at half of what each can, and at the same rate for all.
    Latency,
    /// Memory without and with 1,000 and 10,000 connections.
    Memory,
    /// New TLS connections, each with a request.
    Tls,
    /// The same, with resumed handshakes.
    TlsResumed,
    /// HTTP/2 from the client.
    H2,
    /// Messages of 100 bytes, each sent back.
    #[value(name = "ws")]
    WebSocket,
    /// As 1k, with two workers.
    #[value(name = "2-workers")]
    TwoWorkers,
    /// Serinus under a steady load, while its weights and pods change.
    Changes,
    /// Changes of weights, in each: how long they take, what they cost, and what becomes of connections.
    Swap,
}

impl Case {
    /// Its name on the command line and in results.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What is sent and what must come back, where it is that simple.
    pub(crate) fn exchange(self) -> Option<(Vec<u8>, Answer)> {
        let get = |path: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{more}\r\n").into_bytes()
        };
        Some(match self {
            Case::OneK | Case::TwoWorkers | Case::Latency | Case::Memory | Case::Changes | Case::Swap => {
                (get("/1k", ""), Answer::Body(1024))
            }
            Case::Tiny => (get("/tiny", ""), Answer::Body(2)),
            Case::Rich => (get("/rich", RICH), Answer::Body(1024)),
            Case::SixtyFourK => (get("/64k", ""), Answer::Body(64 * 1024)),
            Case::PostSmall => (post(256), Answer::Body(1024)),
            Case::PostLarge => (post(16 * 1024), Answer::Body(1024)),
            Case::WebSocket => (message(), Answer::Bytes(usize::from(MESSAGE) + 2)),
            Case::Tls | Case::TlsResumed | Case::H2 => return None,
        })
    }
}

/// Ten fields such as a browser sends.
const RICH: &str = "Accept: text/html,application/xhtml+xml\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, br\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nCookie: session=0123456789abcdef; theme=dark\r\n\
    Referer: https://shop.example.com/\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n\
    Cache-Control: no-cache\r\nUpgrade-Insecure-Requests: 1\r\n";

fn post(length: usize) -> Vec<u8> {
    let head = format!(
        "POST /1k HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.into_bytes(), vec![b'x'; length]].concat()
}

/// A whole binary message of a client, with a mask of zeros.
fn message() -> Vec<u8> {
    [vec![0x82, 0x80 | MESSAGE, 0, 0, 0, 0], vec![b'x'; usize::from(MESSAGE)]].concat()
}
