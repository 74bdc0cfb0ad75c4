//! From a request to its route, version and endpoint.
//!
//! CORE: a [`RoutingTable`] is immutable; what must outlive it (the split's place, requests in flight, tallies, what is
//! known of endpoints) is kept in `Arc`s that the [`Compiler`] carries from table to table by identity. Time and chance are
//! arguments.

mod ailing;
mod audience;
mod balance;
mod budget;
mod carry;
mod cohort;
mod compile;
mod endpoint;
mod evidence;
mod explain;
mod explain_audience;
mod explain_mirror;
mod guard;
mod hash;
mod latency;
mod matcher;
mod mirror;
mod outliers;
mod request_view;
mod rules;
#[cfg(test)]
mod samples;
mod sessions;
mod slow_start;
mod split;
mod standing;
mod table;
pub mod tally;
mod usable;
mod users;

pub use budget::{ActiveRequest, RetryBudget, RetryPermit};
pub use compile::Compiler;
pub use endpoint::{Connections, Endpoint, InFlight};
pub use evidence::Evidence;
pub use explain::{Explanation, VersionOdds};
pub use hash::{hash_key, request_key};
pub use matcher::{Matched, MatchedBy, Matcher, RouteIndex};
pub use mirror::{Likeness, MirrorPlace, MirrorSnapshot, MirrorTally, Mirroring, NeverCopied};
pub use request_view::RequestView;
pub use sessions::{Bell, Sessions};
pub use split::{Drawn, Place, Split};
pub use standing::{AttemptOutcome, Standing};
pub use table::{Choice, EndpointState, Member, Placed, Route, RoutingTable, Unassigned, Version};
