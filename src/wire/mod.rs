//! HTTP on a connection: heads, bodies and their framing, HTTP/1 and HTTP/2, towards clients and towards pods. Knows
//! nothing of routes.
//!
//! What comes from outside is checked here, byte by byte, before anything else sees it: a message that two readers could
//! understand differently is refused (RFC 9112 §11.2), never repaired.

mod alarm;
mod body;
mod fields;
pub mod grpc;
pub mod h1;
pub mod h2;
mod head;
mod link;
pub mod parse;

pub use alarm::Alarm;
pub use body::{ClientError, Downstream, Length, Piece, Upstream, UpstreamError};
pub use fields::Fields;
pub use h2::{H2Connection, H2Exchange, H2Request, H2Settings, serve as serve_http2};
pub use head::{Refused, RequestHead, ResponseHead, Version};
pub use link::Link;
pub use parse::{Dechunker, Decoded, Framing, Glimpse, Parsed};
