//! One task owns what should be true: it takes in changes, compiles, publishes, and has the state saved.
//!
//! ```text
//! config, cluster, admin, refusals ─> Message ─> Desired ─> Compiler ─> ArcSwap<RoutingTable>
//!                                                     └──> Saver (state file)
//! ```
//!
//! It is the only writer of the table. Changes that arrive together are one compile; a change of weights waits for nothing.
//! While a rollout is under way, it looks at what was seen of its requests every few milliseconds.

mod gates;
mod handle;
mod moves;
mod readiness;
mod saver;
mod service_events;
mod sharing;
mod state_file;
mod steer;
mod task;

pub use handle::{ChangeError, Control, RoutesConfig};
pub use readiness::Readiness;
pub use sharing::StoreLink;
pub use state_file::{Restored, StateFile, StateFileError};
pub use steer::{RolloutView, RolloutViews};
pub use task::{Begin, Start, start};
