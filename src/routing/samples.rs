//! Endpoints for the tests of this room.

use std::sync::Arc;

use crate::model::{EndpointId, Moment, Protocol};

use super::outliers::Crowd;
use super::{Endpoint, Standing};

/// So many endpoints of one version, at ports from 1 on; any number of them may be ejected.
pub(super) fn standings(n: u16) -> Vec<Arc<Standing>> {
    let crowd = Arc::new(Crowd::default());
    crowd.set_room(usize::from(n));
    (0..n).map(|i| standing(1 + i, &crowd)).collect()
}

pub(super) fn standing(port: u16, crowd: &Arc<Crowd>) -> Arc<Standing> {
    let id = EndpointId { address: ([127, 0, 0, 1], port).into(), pod_uid: "".into() };
    let endpoint = Arc::new(Endpoint::new(id, None, Protocol::Http1, None));
    Arc::new(Standing::new(endpoint, Arc::clone(crowd)))
}

/// The place of one of [`standings`].
pub(super) fn place(standing: &Standing) -> usize {
    usize::from(standing.endpoint().id.address.port()) - 1
}

pub(super) fn at(seconds: u64) -> Moment {
    Moment::from_millis(1_000 * seconds)
}
