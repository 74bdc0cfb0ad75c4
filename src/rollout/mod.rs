//! From evidence to the next split: whether a canary is worse than stable, and what its rollout does next (semantics §5).
//!
//! CORE: time is an argument. [`Judge`] weighs what was seen of requests, [`step`] says what follows, and somebody else
//! ([`control`](crate::control)) does it. So whole rollouts are tested without a wait or a request.

mod figures;
mod judge;
mod phase;
mod step;
mod test;
mod windows;

pub use judge::{Findings, Judge, Verdict};
pub use phase::{Asked, AskedError, PausedBy, Phase, Place, Rollout, Transition};
pub use step::{Facts, LOOK, step};
pub use test::{RATIOS, Test};
