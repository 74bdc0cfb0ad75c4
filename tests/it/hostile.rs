//! What a hostile client or pod may not bring about: raw bytes on one side, and every byte that arrives on the other.
//!
//! Each row is tried behind the whole router, and after it an ordinary request on a new connection must be served as ever. All
//! rows that fail are told together.

mod answers;
mod harness;
mod http2;
mod requests;
