//! What was read and not yet taken, and what is to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::wire::{Dechunker, Decoded, Fields, Framing, Piece, Refused};

/// How much is read at once at most, while a body passes.
const READ: usize = 64 * 1024;
/// How much room a read finds at least.
const LEAST_ROOM: usize = 2 * 1024;
/// A buffer that is larger than this is let go of while nothing is read.
const KEPT: usize = 8 * 1024;
/// Content up to this length is copied behind what waits, so that one write takes both.
const COPIED: usize = 4 * 1024;
/// How much may wait to be written before more is asked for.
const WAITING: usize = 128 * 1024;

/// What was read and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: BytesMut,
}

impl Input {
    /// Reads once; ready with how many bytes came: 0 at the end. A read that finds its room filled gets more at the next time.
    pub(super) fn poll_fill<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            return self.poll_first(io, cx);
        }
        if self.bytes.capacity() - self.bytes.len() < LEAST_ROOM {
            let more = (2 * self.bytes.capacity()).clamp(2 * LEAST_ROOM, READ);
            self.bytes.reserve(more);
        }
        poll_read_buf(Pin::new(io), cx, &mut self.bytes)
    }

    /// Reads into memory that is there anyway, so that a connection that waits has no buffer.
    fn poll_first<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); 2 * LEAST_ROOM];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        let filled = read.filled();
        if !filled.is_empty() {
            self.bytes.reserve(2 * LEAST_ROOM);
            self.bytes.extend_from_slice(filled);
        }
        Poll::Ready(Ok(filled.len()))
    }

    /// Nothing is read for long, or for ever.
    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    /// Nothing is read for a while.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = BytesMut::new();
        }
    }
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Pieces that are too long to be copied, each after what is before it in line.
    queue: VecDeque<Bytes>,
    /// After the queue.
    tail: BytesMut,
    waiting: usize,
}

impl Output {
    /// Has heads and the like written at the end.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.tail.capacity() == 0 {
            self.tail.reserve(LEAST_ROOM);
        }
        let before = self.tail.len();
        write(&mut self.tail);
        self.waiting += self.tail.len() - before;
    }

    /// Takes over the memory of an input that has nothing more, where it has none itself: less of it is asked for and given back.
    pub(super) fn use_room_of(&mut self, input: &mut Input) {
        if self.tail.capacity() == 0 && input.bytes.is_empty() {
            std::mem::swap(&mut self.tail, &mut input.bytes);
        }
    }

    /// Adds content at the end.
    pub(super) fn add(&mut self, data: Bytes) {
        self.waiting += data.len();
        if data.len() <= COPIED {
            self.tail.put(data);
        } else {
            self.close_tail();
            self.queue.push_back(data);
        }
    }

    /// Adds content at the end as one chunk.
    pub(super) fn add_chunk(&mut self, data: Bytes) {
        let size = data.len();
        self.write(|out| {
            // Writing to memory cannot fail.
            let _ = std::fmt::Write::write_fmt(out, format_args!("{size:x}\r\n"));
        });
        self.add(data);
        self.write(|out| out.put_slice(b"\r\n"));
    }

    /// Ends a chunked body.
    pub(super) fn end_chunks(&mut self, trailers: Option<&Fields>) {
        self.write(|out| {
            out.put_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                trailers.write_to(out);
            }
            out.put_slice(b"\r\n");
        });
    }

    /// Whether more may be added.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING
    }

    /// How many bytes are not written.
    pub(super) fn backlog(&self) -> usize {
        self.waiting
    }

    /// Whether all is written.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Nothing is written for long, or for ever.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Forgets what is not written.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes until nothing is left. `wrote` is told of each write.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        mut wrote: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while self.waiting > 0 {
            let n = if self.queue.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); 16];
                let parts = self.queue.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]);
                let mut used = 0;
                for (slot, part) in slices.iter_mut().zip(parts) {
                    *slot = IoSlice::new(part);
                    used += 1;
                }
                let slices = slices.get(..used).unwrap_or_default();
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            wrote(n);
            self.advance(n);
        }
        // TLS keeps what it encrypted until it is told.
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, mut n: usize) {
        self.waiting -= n;
        while let Some(front) = self.queue.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
        if n == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(n);
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.queue.push_back(tail);
        }
    }
}

/// Where in a body the reading is.
#[derive(Debug, Default)]
pub(super) enum Reading {
    /// At its end.
    #[default]
    Ended,
    /// This many bytes before its end.
    Length(u64),
    /// Among its chunks.
    Chunked(Dechunker),
    /// Before the end of the connection.
    UntilClose,
}

/// What reading gave.
pub(super) enum Read {
    Piece(Piece),
    End,
    /// More has to come.
    More,
}

impl Reading {
    pub(super) fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Ended,
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked(Dechunker::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// The next piece that is there.
    pub(super) fn next(&mut self, input: &mut Input) -> Result<Read, Refused> {
        let bytes = &mut input.bytes;
        match self {
            Self::Ended => Ok(Read::End),
            Self::Length(_) | Self::UntilClose if bytes.is_empty() => Ok(Read::More),
            Self::UntilClose => Ok(Read::Piece(Piece::Data(bytes.split().freeze()))),
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Read::Piece(Piece::Data(bytes.split_to(n).freeze())))
            }
            Self::Chunked(dechunker) => match dechunker.decode(bytes)? {
                Decoded::Data(data) => Ok(Read::Piece(Piece::Data(data))),
                Decoded::More => Ok(Read::More),
                Decoded::End(trailers) => {
                    *self = Self::Ended;
                    Ok(trailers.map_or(Read::End, |trailers| Read::Piece(Piece::Trailers(trailers))))
                }
            },
        }
    }
}

/// How a body is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nothing is to be written any more.
    #[default]
    Ended,
    /// As it is, this many bytes more.
    Length(u64),
    /// In chunks.
    Chunked,
    /// As it is, until the connection is closed.
    UntilClose,
}

impl Writing {
    pub(super) fn of(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Ended,
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(super) fn data(&mut self, mut data: Bytes, output: &mut Output) {
        match self {
            // More than was announced is never written: it would be taken for the next message.
            Self::Ended => {}
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= n as u64;
                data.truncate(n);
                output.add(data);
            }
            Self::Chunked => output.add_chunk(data),
            Self::UntilClose => output.add(data),
        }
    }

    /// Ends the body. False when less of it was written than announced.
    pub(super) fn end(&mut self, trailers: Option<&Fields>, output: &mut Output) -> bool {
        match std::mem::take(self) {
            Self::Ended | Self::Length(0) | Self::UntilClose => true,
            Self::Length(_) => false,
            Self::Chunked => {
                output.end_chunks(trailers);
                true
            }
        }
    }
}
