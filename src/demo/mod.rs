//! The demo's pods: `testpage` servers in this process, each on a loopback address of its own.

mod load;
mod testpage;

pub use load::{Load, LoadCounts};
pub use testpage::{PodError, Testpage};
