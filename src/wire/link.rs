//! A connection as bytes: plain or TLS, with what was read ahead of its turn.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection as bytes.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    /// Read already, to be read again first.
    ahead: Bytes,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    /// A connection without encryption.
    #[must_use]
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), ahead: Bytes::new() }
    }

    /// A connection with TLS, from either side.
    #[must_use]
    pub fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self { stream: Stream::Tls(Box::new(stream.into())), ahead: Bytes::new() }
    }

    /// The same connection, from which these bytes are read first.
    #[must_use]
    pub fn with_ahead(self, ahead: Bytes) -> Self {
        Self { ahead, ..self }
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether nothing has come that was not read, nor the end, as far as is known. Nobody is woken for what comes later, save
    /// who asked for that before.
    pub fn is_quiet(&mut self) -> bool {
        match &mut self.stream {
            Stream::Plain(stream) => {
                let read = stream.try_read(&mut [0]);
                self.ahead.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0]));
                self.ahead.is_empty() && read.is_pending()
            }
        }
    }

    /// Makes closing it a reset, so that who reads from it does not take its end for the end of a message.
    pub fn reset_on_close(&self) {
        // A socket that refuses is gone already.
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(into.remaining());
            into.put_slice(self.ahead.get(..n).unwrap_or_default());
            self.ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
