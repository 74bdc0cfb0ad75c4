//! The trace that a request is a part of: taken from its fields, and told to its pods (W3C Trace Context).

use std::time::{Duration, Instant};

use crate::traces::{AttemptEnd, AttemptStart, Trace, TraceParent, Traces};
use crate::wire::{Fields, RequestHead};

use super::failure::Failure;
use super::request::Routed;

/// The field that says it.
const TRACEPARENT: &str = "traceparent";
/// What others add to it; nothing without it (§3.3).
const TRACESTATE: &str = "tracestate";

/// What a request says; nothing where it says none, more than one, or one that is not valid.
pub(super) fn parent(fields: &Fields) -> Option<TraceParent<'_>> {
    let mut all = fields.all(TRACEPARENT);
    let (value, None) = (all.next()?, all.next()) else { return None };
    TraceParent::read(std::str::from_utf8(value).ok()?)
}

/// Whether a request is traced. One with which a trace begins says from now on that it does.
pub(super) fn begin(traces: &Traces, head: &mut RequestHead) -> Option<Box<Trace>> {
    let parent = parent(&head.fields);
    let trace = traces.begin(parent);
    if parent.is_none() {
        head.fields.remove(TRACESTATE);
        head.fields.remove(TRACEPARENT);
        let own = trace.as_ref().map_or_else(|| traces.not_recorded(), |trace| trace.traceparent());
        head.fields.append(TRACEPARENT, own);
    }
    trace
}

/// A request that is traced is tried on a pod, which is told so.
pub(super) fn attempt(trace: &mut Trace, routed: &Routed, started: Instant, head: &mut RequestHead) {
    let Some(endpoint) = routed.at.as_ref().map(|at| at.endpoint()) else { return };
    let own = trace.attempt(AttemptStart {
        after: routed.attempted_at.saturating_duration_since(started),
        address: endpoint.id.address,
        pod: endpoint.pod.as_ref(),
        tls: endpoint.tls.is_some(),
        version: routed.version().map(|version| version.name.as_str()),
    });
    head.fields.set(TRACEPARENT, own);
}

/// An attempt was in vain, so long after the request came. `answered` is the status that the client has been sent, or 0.
pub(super) fn failed(trace: &mut Trace, failure: &Failure, answered: u16, after: Duration) {
    let (status, kind) = if let Failure::Status(status) = failure {
        (Some(*status), None)
    } else {
        ((answered != 0).then_some(answered), Some(failure.token()))
    };
    trace.failed(AttemptEnd { after, status, kind, why: failure.to_string() });
}

/// From now on the head says of which span the request as a whole is: for a copy, which is no attempt.
pub(super) fn whole(trace: &Trace, head: &mut RequestHead) {
    head.fields.set(TRACEPARENT, trace.traceparent());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_say_nothing() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut fields = Fields::default();
        assert_eq!(parent(&fields), None);
        fields.append("TraceParent", text);
        assert!(parent(&fields).is_some_and(|parent| parent.is_sampled()));
        fields.append("traceparent", text);
        assert_eq!(parent(&fields), None);
    }
}
