//! Bodies that tests send, and what comes back.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A body that is sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// All at once, with its length.
    Whole(Option<Bytes>),
    /// As it comes; dropped without a word, it breaks off.
    Frames(mpsc::Receiver<Frame<Bytes>>),
}

impl Sent {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(super) fn whole(data: impl Into<Bytes>) -> Self {
        Self::Whole(Some(data.into()))
    }

    /// A body whose frames are sent one by one, and what sends them.
    pub(super) fn frames() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (send, receive) = mpsc::channel(1);
        (send, Self::Frames(receive))
    }

    /// The bytes of [`pattern`] from 0 to `length`, without a length.
    pub(super) fn pattern(length: u64) -> Self {
        let (send, body) = Self::frames();
        tokio::spawn(async move {
            let block = pattern(0, PERIOD as u64);
            let mut at = 0;
            while at < length {
                let from = at as usize % PERIOD;
                let most = (PERIOD - from).min(64 * 1024).min((length - at) as usize);
                let piece = block.slice(from..from + most);
                at += piece.len() as u64;
                if send.send(Frame::data(piece)).await.is_err() {
                    return;
                }
            }
        });
        body
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Frames(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Frames(_) => SizeHint::default(),
        }
    }
}

/// As many bytes as [`PATTERN`] has before it begins anew: odd, so that no lost block fits.
const PERIOD: usize = (1 << 20) + 7;

/// Bytes that tell their place, so that none can be lost, doubled or moved.
static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..PERIOD).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect());

/// So many bytes of the pattern, from this place on.
pub(super) fn pattern(from: u64, length: u64) -> Bytes {
    let from = usize::try_from(from).unwrap() % PERIOD;
    let all = PATTERN[from..].iter().chain(PATTERN.iter().cycle());
    all.take(usize::try_from(length).unwrap()).copied().collect::<Vec<_>>().into()
}

/// Whether these are the bytes of the pattern from this place on.
fn is_pattern(from: u64, mut bytes: &[u8]) -> bool {
    let mut from = usize::try_from(from).unwrap() % PERIOD;
    while !bytes.is_empty() {
        let here = &PATTERN[from..];
        let most = here.len().min(bytes.len());
        if bytes[..most] != here[..most] {
            return false;
        }
        (bytes, from) = (&bytes[most..], (from + most) % PERIOD);
    }
    true
}

/// The next frame of a body.
pub(super) async fn frame<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// The next piece of content.
pub(super) async fn piece(body: &mut hyper::body::Incoming) -> Option<hyper::Result<Bytes>> {
    loop {
        match frame(body).await? {
            Ok(frame) if frame.is_data() => return Some(Ok(frame.into_data().unwrap())),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A whole body, and its trailers.
pub(super) async fn whole(mut body: hyper::body::Incoming) -> hyper::Result<(Vec<u8>, HeaderMap)> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = frame(&mut body).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes, trailers))
}

/// A whole body as text.
pub(super) async fn text(body: hyper::body::Incoming) -> String {
    String::from_utf8(whole(body).await.unwrap().0).unwrap()
}

/// Reads a body that is [`pattern`], and gives its length.
pub(super) async fn check_pattern(mut body: hyper::body::Incoming) -> hyper::Result<u64> {
    let mut at = 0;
    while let Some(data) = piece(&mut body).await {
        let data = data?;
        assert!(is_pattern(at, &data), "other bytes after {at}");
        at += data.len() as u64;
    }
    Ok(at)
}
