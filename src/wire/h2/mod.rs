//! HTTP/2 (RFC 9113) towards clients ([`serve`]) and towards pods ([`H2Connection`]), over the `h2` crate.
//!
//! `h2` keeps the frames, the windows and HPACK, with its own limits for what hostile peers do: resets of streams that were
//! not accepted yet, errors that make it reset streams, CONTINUATION frames, header lists, and DATA frames that say little.
//! Its defaults for these are kept: they are the cure of attacks that became known. Around it is what it leaves to others:
//! deadlines (`lifeline`), memory for what is sent (`outbox`), what makes a message valid (`convert`), streams that
//! clients reset as fast as they open them, and which failures may be repeated elsewhere.

mod bell;
mod client;
mod convert;
mod exchange;
#[cfg(test)]
mod frames_tests;
mod gather;
#[cfg(test)]
mod hostile_tests;
mod lifeline;
mod outbox;
mod request;
mod seats;
mod server;

pub use client::{H2Connection, H2Settings};
pub use exchange::H2Exchange;
pub use request::H2Request;
pub use seats::Requests;
pub use server::{Asked, serve};

/// How many interim answers (1xx) one exchange may have: each is kept until it is taken.
const INTERIMS: u8 = 16;
