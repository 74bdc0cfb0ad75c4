//! Requests as spans of distributed traces, sent to an OpenTelemetry collector (OTLP over HTTP).
//!
//! A request that is traced has a [`Trace`]: its place in the trace as W3C Trace Context has it, and an attempt for each pod it was
//! tried on. When it has ended it goes into a bounded queue, which nobody waits for: a thread of its own makes spans of it and
//! sends them. What does not fit is dropped and counted.

mod context;
mod export;
mod spans;
mod trace;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_queue::ArrayQueue;

use crate::model::Share;
use crate::telemetry::{AccessEntry, Telemetry};

use self::export::Exporting;
use self::trace::Ended;

pub use self::context::{TraceParent, Traceparent};
pub use self::trace::{AttemptEnd, AttemptStart, Trace};

/// How many requests may wait to be sent: some 8 MB at their usual length, and twice that with paths and user agents at their longest.
const QUEUE: usize = 4_096;

/// Decides which requests are traced, and has those sent that have ended. What waits when it is dropped is sent, in a second and a
/// half at most.
#[derive(Debug)]
pub struct Traces {
    queue: Arc<ArrayQueue<Ended>>,
    sample: Share,
    telemetry: Arc<Telemetry>,
    exporting: Exporting,
}

impl Traces {
    /// Starts the thread that sends to `endpoint`, a URL with its whole path. `sample` is the share of the requests that are traced
    /// where nobody before has decided.
    ///
    /// # Errors
    /// When the endpoint is none that can be called, or there is no thread to be had.
    pub fn start(endpoint: &str, sample: Share, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let queue = Arc::new(ArrayQueue::new(QUEUE));
        let exporting = Exporting::start(endpoint, Arc::clone(&queue), Arc::clone(&telemetry))?;
        Ok(Self { queue, sample, telemetry, exporting })
    }

    /// Whether a request is traced: as who asked has decided (`ParentBased` of OpenTelemetry), else each with the same chance.
    #[must_use]
    pub fn begin(&self, parent: Option<TraceParent<'_>>) -> Option<Box<Trace>> {
        match parent {
            Some(parent) => parent.is_sampled().then(|| Box::new(Trace::within(parent))),
            None => self.draws().then(|| Box::new(Trace::root())),
        }
    }

    fn draws(&self) -> bool {
        self.sample == Share::ALL || fastrand::u32(..Share::DENOMINATOR) < self.sample.millionths()
    }

    /// What pods are sent of a request that is not traced, and with which a trace would begin: nobody behind records a part of it.
    #[must_use]
    pub fn not_recorded(&self) -> Traceparent {
        context::not_recorded()
    }

    /// A request ended at this time, as `entry` shows it.
    pub fn end(&self, trace: Box<Trace>, entry: &AccessEntry<'_>, at: SystemTime) {
        let spans = trace.spans();
        // Asked first, so that nothing is made of what is dropped.
        if self.queue.is_full() || self.queue.push(Ended::new(trace, entry, at)).is_err() {
            self.telemetry.spans_dropped(spans);
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.exporting.finish();
    }
}

#[cfg(test)]
mod tests;
