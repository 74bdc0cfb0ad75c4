//! From a request to its route, version and endpoint.
//!
//! CORE: a [`RoutingTable`] is immutable; what must outlive it (the split's place, requests in flight, tallies, refused
//! connections) is kept in `Arc`s that the [`Compiler`] carries from table to table by identity. Chance is an argument.

mod balance;
mod compile;
mod endpoint;
mod explain;
mod matcher;
mod split;
mod table;
pub mod tally;

pub use compile::Compiler;
pub use endpoint::{Connections, Endpoint, InFlight};
pub use explain::{Explanation, VersionOdds};
pub use matcher::{Matched, MatchedBy, Matcher, RouteIndex};
pub use split::{Place, Split};
pub use table::{Choice, Member, Route, RoutingTable, Unassigned, Version};
