//! A rollout played in simulated time against assumed rates, with the code that decides in a router: the exact split deals out
//! the requests, the judge weighs those that go badly, and `step` says what follows, every 50 ms.
//!
//! CORE: chance is an argument, and the same one gives the same rollout. `serinus simulate` shows it to people, and the
//! statistics in `docs/judging.md` are made with it.

mod interval;
mod play;
mod traffic;

pub use interval::{Interval, exact_interval};
pub use play::{Ending, Played, play};
pub use traffic::{Assumed, Rates, Users};

#[cfg(test)]
mod peers_tests;
#[cfg(test)]
mod plots_tests;
#[cfg(test)]
mod statistics_tests;
