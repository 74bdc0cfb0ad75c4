//! Many clients that have each asked once, and stay: what a connection without a request costs in memory.

use std::net::SocketAddr;

use anyhow::Context;

use crate::load::{Answer, Clients, Work};

/// How many are opened at once.
const STEP: usize = 100;

/// Clients that stay for as long as this is kept.
pub(crate) struct Crowd {
    address: SocketAddr,
    request: Vec<u8>,
    here: Vec<Clients>,
    many: usize,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(address: SocketAddr, request: Vec<u8>) -> Self {
        Crowd { address, request, here: Vec::new(), many: 0 }
    }

    /// Lets more come until there are so many, and each have an answer of 1 KB.
    pub(crate) fn grow_to(&mut self, many: usize) -> anyhow::Result<()> {
        while self.many < many {
            let work = Work {
                address: self.address,
                connections: STEP.min(many - self.many),
                request: self.request.clone(),
                answer: Answer::Body(1024),
            };
            let mut clients =
                Clients::connect(work).with_context(|| format!("after {} clients", self.many))?;
            clients.once().with_context(|| format!("after {} clients", self.many))?;
            self.many += STEP.min(many - self.many);
            self.here.push(clients);
        }
        Ok(())
    }
}
