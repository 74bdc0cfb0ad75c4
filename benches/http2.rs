//! A client of HTTP/2 that asks for the same again and again. Its frames are made by hand: what it takes is not the router's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541, appendix A).
const OK: u8 = 0x88;

/// `:method: GET` and `:scheme: http`, then what a first request has to spell out and add to the table (RFC 7541 §6.2.1): the place
/// of the name in the static table, and the value.
const BEGIN: [u8; 2] = [0x82, 0x86];
const SPELLED: [(u8, &str); 5] = [
    (4, "/api/v1/items/42"),
    (1, "shop-0.example.com"),
    (58, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (19, "application/json"),
    (16, "gzip, deflate, br, zstd"),
];
/// The same from the table: the last that was added is the first.
const KNOWN: [u8; 5] = [0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];

/// A connection of a client.
pub(crate) struct Client {
    socket: TcpStream,
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    /// Begins with prior knowledge, and takes as much as the router may like to send.
    pub(crate) fn connect(router: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(router).unwrap();
        let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        begin.extend(frame(SETTINGS, 0, 0, &[]));
        begin.extend(frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()));
        socket.write_all(&begin).unwrap();
        Self { socket, stream: 1, payload: Vec::new() }
    }

    /// Asks once, and looks at the answer; how long its body is.
    pub(crate) fn ask(&mut self) -> usize {
        let stream = self.stream;
        let mut block = BEGIN.to_vec();
        if stream == 1 {
            for (name, value) in SPELLED {
                block.extend([0x40 | name, u8::try_from(value.len()).unwrap()]);
                block.extend(value.as_bytes());
            }
        } else {
            block.extend(KNOWN);
        }
        self.socket.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).unwrap();
        self.stream += 2;
        let mut body = 0;
        loop {
            let (kind, flags, of) = self.read();
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.socket.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
                }
                HEADERS => assert_eq!((of, self.payload[0]), (stream, OK)),
                DATA => body += self.payload.len(),
                _ => assert!(matches!(kind, SETTINGS | WINDOW_UPDATE), "a frame of the kind {kind}"),
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return body;
            }
        }
    }

    /// Reads a frame: its kind, its flags and its stream.
    fn read(&mut self) -> (u8, u8, u32) {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).unwrap();
        self.payload.resize(usize::from(u16::from_be_bytes([head[1], head[2]])), 0);
        self.socket.read_exact(&mut self.payload).unwrap();
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![0, length[0], length[1], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
