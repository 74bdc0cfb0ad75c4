//! The side of the new process.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::state::{SAVED_FORMAT, SavedState};

use super::channel::Channel;
use super::{FromNew, FromOld, Offered, PROMPTLY, PROTOCOL, Role};

/// How long the router that runs may be at another new process, which came before this one.
const OFFER: Duration = Duration::from_secs(15);

/// A hand-over under way.
#[derive(Debug)]
pub(in crate::cli) struct Taking {
    channel: Channel,
    pid: u32,
    sockets: Vec<(Offered, TcpListener)>,
    /// The listeners of the router that runs whose sockets this process has taken.
    taken: Vec<String>,
}

/// What became of the state.
#[derive(Debug)]
pub(in crate::cli) enum Handed {
    /// It is this process's now.
    State(SavedState),
    /// The router that ran is gone, and has not said.
    Gone,
}

impl Taking {
    /// Asks the router at the other end for its sockets.
    pub(super) async fn begin(mut channel: Channel) -> anyhow::Result<Self> {
        let own = std::process::id();
        channel
            .say(&FromNew::Hello { protocol: PROTOCOL, pid: own })
            .await
            .context("it is not there any more")?;
        let offer = tokio::time::timeout(OFFER, channel.hear()).await;
        let offer = offer.context("it does not answer: is another hand-over under way?")??;
        let (pid, offers) = match offer {
            Some(FromOld::Offer { protocol: PROTOCOL, pid, sockets }) => (pid, sockets),
            Some(FromOld::Offer { protocol, .. }) => {
                bail!("it hands over in another way (protocol {protocol}, here {PROTOCOL}): restart instead")
            }
            Some(FromOld::GoOn { why }) => bail!(why),
            Some(FromOld::State(_) | FromOld::Yours) => bail!("it speaks out of turn"),
            None => bail!("it broke off: start this one again"),
        };
        let mut sockets = Vec::new();
        for offered in offers {
            let descriptor = tokio::time::timeout(PROMPTLY, channel.take()).await;
            let descriptor =
                descriptor.context("its sockets do not come")?.context("its sockets do not come")?;
            let socket = TcpListener::from(descriptor);
            if socket.local_addr().ok() != Some(offered.address) {
                bail!("what it gave for `{}` is not a socket on {}", offered.name, offered.address);
            }
            sockets.push((offered, socket));
        }
        tracing::info!(
            pid,
            sockets = sockets.len(),
            "a router runs: this process takes over from it once it is ready"
        );
        Ok(Self { channel, pid, sockets, taken: Vec::new() })
    }

    /// The number of the process that is taken over from.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.pid
    }

    /// The socket of the router that runs that listens where this config asks, whatever it called it: it could not be bound
    /// anew. Each is given once.
    pub(in crate::cli) fn socket(&mut self, role: Role, name: &str, asked: &str) -> Option<TcpListener> {
        let same = |(offered, _): &(Offered, TcpListener)| {
            (offered.role, offered.name.as_str(), offered.asked.as_str()) == (role, name, asked)
        };
        let address = asked.parse::<SocketAddr>().ok();
        let there = |(offered, _): &(Offered, TcpListener)| Some(offered.address) == address;
        let place = self.sockets.iter().position(same).or_else(|| self.sockets.iter().position(there))?;
        let (offered, socket) = self.sockets.swap_remove(place);
        if offered.role == Role::Listener {
            self.taken.push(offered.name);
        }
        Some(socket)
    }

    /// This process is ready: asks for the state, which the other process does not change from then on.
    ///
    /// # Errors
    /// When the other process goes on.
    pub(in crate::cli) async fn ready(&mut self) -> anyhow::Result<Handed> {
        if self.channel.say(&FromNew::Ready).await.is_err() {
            return Ok(Handed::Gone);
        }
        match self.hear().await? {
            Some(FromOld::State(state)) if state.format > SAVED_FORMAT => bail!(
                "its state has format {}, and this version of Serinus knows up to {SAVED_FORMAT}: run a later version",
                state.format
            ),
            Some(FromOld::State(state)) => Ok(Handed::State(state)),
            Some(FromOld::GoOn { why }) => bail!("it goes on: {why}"),
            Some(FromOld::Offer { .. } | FromOld::Yours) => bail!("it speaks out of turn"),
            None => Ok(Handed::Gone),
        }
    }

    /// This process accepts connections: tells the other one to stop.
    ///
    /// # Errors
    /// When the other process goes on: this one must stop then.
    pub(in crate::cli) async fn taken(mut self) -> anyhow::Result<()> {
        let listeners = std::mem::take(&mut self.taken);
        if self.channel.say(&FromNew::Taken { listeners }).await.is_err() {
            // What it said before it went tells whether it went on.
            tracing::debug!("the other process closed the connection");
        }
        // One that says nothing has stopped short, and hears `Taken` first when it wakes up.
        let heard = tokio::time::timeout(PROMPTLY, self.channel.hear()).await;
        match heard.unwrap_or(Ok(None))? {
            Some(FromOld::GoOn { why }) => bail!("it goes on: {why}"),
            Some(FromOld::Offer { .. } | FromOld::State(_) | FromOld::Yours) | None => Ok(()),
        }
    }

    async fn hear(&mut self) -> anyhow::Result<Option<FromOld>> {
        // Longer than the other side may take to find out that this one is late.
        let heard = tokio::time::timeout(2 * PROMPTLY, self.channel.hear()).await;
        heard.context("it says nothing any more")?
    }
}
