//! Tests of gathered writes.

use std::task::Waker;

use super::*;

/// A connection that takes so many bytes, and notes each write.
#[derive(Default)]
struct Noted {
    room: usize,
    writes: Vec<Vec<u8>>,
    flushes: usize,
}

impl AsyncWrite for Noted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        all.truncate(self.room);
        if all.is_empty() {
            return Poll::Pending;
        }
        self.room -= all.len();
        let written = all.len();
        self.writes.push(all);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn gathered(room: usize) -> Gathered<Noted> {
    let line = Gathered::new(Noted { room, ..Noted::default() });
    line.gather();
    line
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn write(line: &Gathered<Noted>, bufs: &[&[u8]]) -> Poll<usize> {
    let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
    let mut line = line.share();
    Pin::new(&mut line).poll_write_vectored(&mut cx(), &bufs).map(|n| n.unwrap())
}

fn out(line: &Gathered<Noted>) -> bool {
    line.poll_out(&mut cx()).map(|written| written.unwrap()).is_ready()
}

#[test]
fn small_writes_go_out_as_one_when_they_are_told_to() {
    let line = gathered(usize::MAX);
    for bufs in [&[&b"head"[..], b"content"][..], &[b"more"]] {
        assert!(write(&line, bufs).is_ready());
        assert!(Pin::new(&mut line.share()).poll_flush(&mut cx()).is_ready());
    }
    assert!(line.waits() && line.line().io.writes.is_empty());
    assert_eq!(line.line().io.flushes, 0);
    assert!(out(&line) && out(&line) && !line.waits());
    let line = line.line();
    assert_eq!((&line.io.writes, line.io.flushes), (&vec![b"headcontentmore".to_vec()], 1));
    assert_eq!(line.kept.capacity(), 0, "nothing is held at rest");
}

#[test]
fn what_is_large_is_not_kept_and_comes_after_what_was() {
    let line = gathered(usize::MAX);
    let large = vec![b'x'; ROOM];
    assert_eq!(write(&line, &[b"first"]), Poll::Ready(5));
    assert_eq!(write(&line, &[b"head", &large]), Poll::Ready(4 + ROOM));
    assert!(line.waits(), "it is to be flushed");
    assert_eq!(line.line().io.writes, [[b"firsthead", &large[..]].concat()]);
    assert!(out(&line) && !line.waits());
}

#[test]
fn no_more_is_kept_than_there_is_room_for_and_nothing_is_lost_when_a_peer_is_slow() {
    let line = gathered(0);
    let (mut sent, mut taken) = (Vec::new(), 0);
    // More than the room: the peer is waited for.
    for n in 0.. {
        let piece = vec![n; 1000];
        if write(&line, &[&piece]).is_pending() {
            break;
        }
        sent.extend(piece);
    }
    assert_eq!(sent.len(), 16_000);
    assert!(!out(&line));
    // What is large waits as well, for what was there before it.
    let large = vec![b'x'; 2 * ROOM];
    assert!(write(&line, &[&large]).is_pending());
    for room in [1, 999, 10_000, 5_000] {
        line.line().io.room = room;
        let Poll::Ready(n) = write(&line, &[&large]) else { continue };
        sent.extend_from_slice(&large[..n]);
        taken += n;
    }
    assert!(taken == 0 && line.line().kept.is_empty());
    line.line().io.room = usize::MAX;
    assert_eq!(write(&line, &[&large]), Poll::Ready(2 * ROOM));
    sent.extend(large);
    assert!(out(&line));
    assert_eq!(line.line().io.writes.concat(), sent);
}

#[test]
fn before_it_gathers_and_at_its_end_all_goes_out_at_once() {
    let line = Gathered::new(Noted { room: usize::MAX, ..Noted::default() });
    assert_eq!(write(&line, &[b"settings"]), Poll::Ready(8));
    assert!(Pin::new(&mut line.share()).poll_flush(&mut cx()).is_ready());
    assert_eq!(line.line().io.writes.len(), 1);
    assert_eq!(line.line().io.flushes, 1);
    line.gather();
    assert_eq!(write(&line, &[b"goaway"]), Poll::Ready(6));
    assert!(Pin::new(&mut line.share()).poll_shutdown(&mut cx()).is_ready());
    assert_eq!(line.line().io.writes.concat(), b"settingsgoaway");
}
