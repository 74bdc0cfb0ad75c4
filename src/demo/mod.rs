//! The demo's pods: `testpage` servers in this process, each on a loopback address of its own.

mod testpage;

pub use testpage::{PodError, Testpage};
