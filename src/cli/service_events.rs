//! The Events on Services: from the control task to the API server.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::control::Control;
use crate::kubernetes;
use crate::model::ServiceEvent;
use crate::telemetry::Telemetry;

use super::app::Background;

/// How many may wait to be posted.
const WAITING: usize = 256;

/// Where the control task puts them, and where they are taken from.
pub(super) fn channel() -> (mpsc::Sender<ServiceEvent>, mpsc::Receiver<ServiceEvent>) {
    mpsc::channel(WAITING)
}

/// Posts them, and shows in `status` where that cannot be done.
pub(super) fn post(
    client: kubernetes::Client,
    events: mpsc::Receiver<ServiceEvent>,
    control: &Control,
    telemetry: &Arc<Telemetry>,
) -> Background {
    let (tell, mut problems) = watch::channel(Vec::new());
    let posting = tokio::spawn(kubernetes::record(client, events, tell, Arc::clone(telemetry)));
    let control = control.clone();
    let showing = tokio::spawn(async move {
        while problems.changed().await.is_ok() {
            let now = problems.borrow_and_update().clone();
            control.set_problems("events", now).await;
        }
    });
    vec![("the posting of Events", posting), ("the problems of Events", showing)]
}
