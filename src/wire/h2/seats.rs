//! Who answers the requests of a connection: futures that take one after the other.
//!
//! What it takes to answer a request is a future of some kilobytes, with a timer and a place among those who hear of the end. To
//! make all of that for each request costs more than the routing does; so a future that is done with a request rests, and takes the
//! next one.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::exchange::H2Exchange;
use super::server::Asked;

/// How many may rest at a connection: each holds some kilobytes.
const MOST_AT_REST: usize = 16;

/// A request and the exchange to answer it in.
type Job = (Asked, H2Exchange);

/// Those that rest, of one connection. Its locks are taken within that connection's task, so they are never waited for.
#[derive(Default)]
pub(super) struct Seats {
    resting: Mutex<Vec<Arc<Seat>>>,
    /// No more requests come.
    closed: AtomicBool,
}

#[derive(Default)]
struct Seat(Mutex<Place>);

#[derive(Default)]
struct Place {
    job: Option<Job>,
    waker: Option<Waker>,
}

/// The requests that one future answers, one after the other.
pub struct Requests {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
    rests: bool,
}

impl Seats {
    /// Has a future that rests take a request. Where there is none, a future that takes the returned requests is to be polled.
    pub(super) fn give(self: &Arc<Self>, job: Job) -> Option<Requests> {
        let resting = lock(&self.resting).pop();
        let Some(seat) = resting else {
            let seat = Arc::new(Seat(Mutex::new(Place { job: Some(job), waker: None })));
            return Some(Requests { seats: Arc::clone(self), seat, rests: false });
        };
        let mut place = lock(&seat.0);
        place.job = Some(job);
        let waker = place.waker.take();
        drop(place);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// How many rest.
    pub(super) fn resting(&self) -> usize {
        lock(&self.resting).len()
    }

    /// No more requests come: those that rest end, and the others when they are done.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.clear();
    }

    /// Ends those that rest.
    pub(super) fn clear(&self) {
        let resting = std::mem::take(&mut *lock(&self.resting));
        for seat in resting {
            if let Some(waker) = lock(&seat.0).waker.take() {
                waker.wake();
            }
        }
    }
}

impl Requests {
    /// The next request; nothing when there is no more to be done here.
    pub async fn next(&mut self) -> Option<Job> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Job>> {
        let mut place = lock(&self.seat.0);
        if let Some(job) = place.job.take() {
            self.rests = false;
            return Poll::Ready(Some(job));
        }
        if self.seats.closed.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        place.waker = Some(cx.waker().clone());
        drop(place);
        let mut resting = lock(&self.seats.resting);
        let stays = if self.rests {
            // Woken for nothing, or sent away.
            resting.iter().any(|other| Arc::ptr_eq(other, &self.seat))
        } else {
            resting.len() < MOST_AT_REST
        };
        if stays && !self.rests {
            self.rests = true;
            resting.push(Arc::clone(&self.seat));
        }
        if stays { Poll::Pending } else { Poll::Ready(None) }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("rests", &self.rests).finish_non_exhaustive()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
