//! The commands, a file each.

mod client;
mod error;
mod explain;
mod rollout;
mod status;
mod text;
mod weight;

pub use client::{AdminArgs, AdminUrl};
pub use error::CliError;
pub use explain::{ExplainArgs, explain, explain_table, write_explained};
pub use rollout::{HistoryArgs, RolloutArgs, RolloutVerb, UndoArgs, rollout};
pub use status::{OutputForm, StatusArgs, status};
pub use weight::{Assignment, WeightArgs, weight};
