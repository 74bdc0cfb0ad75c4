//! HTTP/1.1 and 1.0 on a connection, from either side.

mod buffers;
mod client;
mod server;

#[cfg(test)]
mod tests;

pub use client::H1Client;
pub use server::{H1Server, Next};

use super::{Framing, Length};

/// How a body is written whose length is known as far as this.
fn framing(length: Length) -> Framing {
    match length {
        Length::None | Length::Exactly(0) => Framing::None,
        Length::Exactly(n) => Framing::Length(n),
        Length::Unknown => Framing::Chunked,
    }
}

/// What is known of the length of a body that ends like this.
fn length(framing: Framing) -> Length {
    match framing {
        Framing::None => Length::None,
        Framing::Length(n) => Length::Exactly(n),
        Framing::Chunked | Framing::UntilClose => Length::Unknown,
    }
}
