//! What the API server refuses of the keeping of Leases, for which no watch has words.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::kubernetes::access::Client;
use crate::kubernetes::faults::Place;
use crate::kubernetes::supervisor::WatchEvent;
use crate::model::{ClusterKind, Problem};
use crate::telemetry::Telemetry;

use super::Common;

/// What is refused now, by verb: one may be allowed where another is not.
pub(super) struct Refusals {
    place: Place,
    now: BTreeMap<&'static str, Problem>,
    told: Vec<Problem>,
}

impl Refusals {
    pub(super) fn new(client: &Client, common: &Common) -> Self {
        let place = Place {
            namespace: common.key.namespace.clone(),
            kind: ClusterKind::Leases,
            name: None,
            origin: client.origin.clone(),
        };
        Self { place, now: BTreeMap::new(), told: Vec::new() }
    }

    /// How a request with this verb ended. That the API server cannot be reached is the watch's to tell, that somebody else was
    /// quicker is no refusal.
    pub(super) fn note<T>(&mut self, verb: &'static str, answer: &Result<T, kube::Error>) {
        match answer {
            Ok(_) => drop(self.now.remove(verb)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => drop(self.now.remove(verb)),
            Err(error @ kube::Error::Api(_)) => {
                drop(self.now.insert(verb, self.place.problem(verb, error)));
            }
            Err(_) => {}
        }
    }

    /// Tells what is refused, where that is news.
    pub(super) async fn tell(&mut self, out: &mpsc::Sender<WatchEvent>, telemetry: &Telemetry) {
        let problems: Vec<Problem> = self.now.values().cloned().collect();
        if problems == self.told {
            return;
        }
        problems.iter().filter(|it| !self.told.contains(it)).for_each(|it| telemetry.problem_found(it));
        self.told.iter().filter(|it| !problems.contains(it)).for_each(|it| telemetry.problem_gone(it));
        self.told.clone_from(&problems);
        // Fails only when the router ends.
        let _ = out.send(WatchEvent::Refused(problems)).await;
    }
}
