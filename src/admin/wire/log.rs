//! Which lines the log has, as the admin API shows and hears it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A change of which lines the log has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogChange {
    /// The levels that hold beside what the log began with: `LEVEL` or `TARGET=LEVEL`, with commas between; a level is `off`, `error`,
    /// `warn`, `info`, `debug` or `trace`. Null: what it began with alone.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true, max_length = 1000, example = "serinus::kubernetes=debug")]
    pub filter: Option<String>,
}

/// Which lines the log of this replica has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    /// What it began with: `RUST_LOG`, or what `-v` stands for.
    pub start: String,
    /// What was asked for since, and holds beside that, and before it where both name the same; null where nothing is.
    #[schema(required = true)]
    pub filter: Option<String>,
}
