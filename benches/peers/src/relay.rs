//! The floor: what any proxy must do at least. Two sockets and a buffer between them; nothing is read but bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;

use crate::events::{self, Events, Ready};

struct Pair {
    /// The client's, and the pod's.
    streams: [TcpStream; 2],
    /// What the client, and the pod, had no room for: nothing more is read from the other one until it has.
    waiting: [Vec<u8>; 2],
}

/// Takes connections on `listen`, each to the next of `pods`, until it is ended.
pub(crate) fn serve(listen: SocketAddr, pods: &[SocketAddr]) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    listener.set_nonblocking(true)?;
    let mut events = Events::new()?;
    events.add_listener(&listener, u64::MAX)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let (mut free, mut next) = (Vec::new(), pods.iter().cycle());
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        events.wait(Duration::from_secs(60), &mut ready)?;
        for Ready { token, over } in ready.iter().copied() {
            if token == u64::MAX {
                while let Some(client) = accept(&listener)? {
                    // A pod that is not there costs this client its connection, and nothing else.
                    let Some(pair) = next.next().and_then(|pod| pair(client, *pod).ok()) else { continue };
                    let place = free.pop().unwrap_or(pairs.len());
                    for (side, stream) in (0..).zip(&pair.streams) {
                        events.add(stream, 2 * place as u64 + side)?;
                    }
                    match pairs.get_mut(place) {
                        Some(slot) => *slot = Some(pair),
                        None => pairs.push(Some(pair)),
                    }
                }
                continue;
            }
            let (place, side) = (usize::try_from(token / 2)?, usize::try_from(token % 2)?);
            let Some(slot) = pairs.get_mut(place) else { continue };
            let Some(pair) = slot else { continue };
            // This side can be read; and it may have room again, then the other one can be.
            if !(pair.flush(side, &mut buffer) && pair.pass(side, over, &mut buffer)) {
                *slot = None;
                free.push(place);
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((client, _)) => Ok(Some(client)),
        Err(error) if events::not_yet(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn pair(client: TcpStream, pod: SocketAddr) -> io::Result<Pair> {
    let pod = TcpStream::connect(pod)?;
    events::prepare(&client)?;
    events::prepare(&pod)?;
    Ok(Pair { streams: [client, pod], waiting: [Vec::new(), Vec::new()] })
}

impl Pair {
    /// Passes on what `from` has sent. Whether the pair goes on.
    fn pass(&mut self, from: usize, over: bool, buffer: &mut [u8]) -> bool {
        let to = 1 - from;
        let ([Some(source), Some(sink)], Some(waiting)) =
            ([self.streams.get(from), self.streams.get(to)], self.waiting.get_mut(to))
        else {
            return false;
        };
        let (mut source, mut sink) = (source, sink);
        while waiting.is_empty() {
            let read = match source.read(buffer) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return events::not_yet(&error),
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if !write(&mut sink, bytes, waiting) {
                return false;
            }
            if read < buffer.len() && !over {
                return true;
            }
        }
        true
    }

    /// Writes what waits for `to`, and if there was something, reads on from the other side. Whether the pair goes on.
    fn flush(&mut self, to: usize, buffer: &mut [u8]) -> bool {
        let (Some(mut sink), Some(waiting)) = (self.streams.get(to), self.waiting.get_mut(to)) else {
            return false;
        };
        if waiting.is_empty() {
            return true;
        }
        let bytes = std::mem::take(waiting);
        write(&mut sink, &bytes, waiting) && self.pass(1 - to, true, buffer)
    }
}

/// Writes, and keeps what there is no room for. Whether the socket goes on.
fn write(mut sink: impl Write, mut bytes: &[u8], waiting: &mut Vec<u8>) -> bool {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if events::not_yet(&error) => {
                waiting.extend_from_slice(bytes);
                return true;
            }
            Err(_) => return false,
        }
    }
    true
}
