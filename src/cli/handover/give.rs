//! The side of the router that runs.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::control::Control;
use crate::proxy::{SharedSocket, Stop};
use crate::state::SavedState;

use super::channel::Channel;
use super::{FromNew, FromOld, Meeting, Offered, PROMPTLY, PROTOCOL, Role};

/// How long a new process may take to be ready: longer than it gives itself.
const READY: Duration = Duration::from_secs(60);
/// How long to wait when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A socket of this router.
#[derive(Clone, Debug)]
pub(in crate::cli) struct GivenSocket {
    pub(in crate::cli) role: Role,
    pub(in crate::cli) name: String,
    /// The address as the config has it.
    pub(in crate::cli) asked: String,
    /// Where it listens.
    pub(in crate::cli) address: SocketAddr,
    pub(in crate::cli) socket: SharedSocket,
}

/// Waits for a new process to hand over to.
pub(in crate::cli) struct Giver {
    pub(in crate::cli) meeting: Meeting,
    pub(in crate::cli) sockets: Vec<GivenSocket>,
    pub(in crate::cli) control: Control,
    pub(in crate::cli) stop: watch::Sender<Stop>,
    pub(in crate::cli) admin_stop: watch::Sender<Stop>,
}

impl Giver {
    /// Hands over to the first new process that gets ready, and gives its number: from then on this one accepts nothing.
    pub(in crate::cli) async fn run(mut self) -> u32 {
        loop {
            let stream = match self.meeting.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a new process that would take over cannot be heard");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.hand_over(stream).await {
                Ok(pid) => {
                    self.meeting.leave_the_path();
                    return pid;
                }
                Err(error) => tracing::warn!("no hand-over, and this process goes on: {error:#}"),
            }
        }
    }

    async fn hand_over(&self, stream: UnixStream) -> anyhow::Result<u32> {
        let mut channel = Channel::new(stream)?;
        match self.speak(&mut channel).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                // Whoever is still there must not go on as well.
                let why = format!("{error:#}");
                let _ = tokio::time::timeout(PROMPTLY, channel.say(&FromOld::GoOn { why })).await;
                Err(error)
            }
        }
    }

    async fn speak(&self, channel: &mut Channel) -> anyhow::Result<u32> {
        let Some(FromNew::Hello { protocol, pid }) = within(PROMPTLY, channel.hear()).await? else {
            bail!("somebody came and said nothing");
        };
        if protocol != PROTOCOL {
            bail!(
                "process {pid} hands over in another way (protocol {protocol}, here {PROTOCOL}): restart instead"
            );
        }
        tracing::info!(pid, "a new process is getting ready to take over");
        within(PROMPTLY, self.offer(channel)).await?;
        let Some(FromNew::Ready) = within(READY, channel.hear()).await? else {
            bail!("process {pid} ended before it was ready: its log says why");
        };
        let state = self.control.hand_over().await;
        let state = state.context("the state is being written, and that does not end")?;
        match self.commit(channel, state).await {
            Ok(listeners) => {
                self.admin_stop.send_replace(Stop::Drain);
                self.stop.send_replace(Stop::HandedOver(listeners.into()));
                // It goes on whether it hears this or the end of the connection.
                let _ = tokio::time::timeout(PROMPTLY, channel.say(&FromOld::Yours)).await;
                Ok(pid)
            }
            Err(error) => {
                self.control.thaw().await;
                Err(error.context(format!("process {pid} was ready and did not take over")))
            }
        }
    }

    async fn offer(&self, channel: &mut Channel) -> anyhow::Result<()> {
        let mut descriptors = Vec::new();
        let mut sockets = Vec::new();
        for GivenSocket { role, name, asked, address, socket } in self.sockets.clone() {
            // One that is closed, since this router is stopping, can be bound anew.
            let Some(descriptor) = socket.duplicate()? else { continue };
            descriptors.push(descriptor);
            sockets.push(Offered { role, name, asked, address });
        }
        channel.say(&FromOld::Offer { protocol: PROTOCOL, pid: std::process::id(), sockets }).await?;
        for descriptor in &descriptors {
            channel.give(descriptor.as_fd()).await?;
        }
        Ok(())
    }

    async fn commit(&self, channel: &mut Channel, state: SavedState) -> anyhow::Result<Vec<String>> {
        within(PROMPTLY, channel.say(&FromOld::State(state))).await?;
        match within(PROMPTLY, channel.hear()).await? {
            Some(FromNew::Taken { listeners }) => Ok(listeners),
            Some(FromNew::Hello { .. } | FromNew::Ready) | None => bail!("it broke off"),
        }
    }
}

async fn within<T>(most: Duration, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(most, future).await {
        Ok(done) => done,
        Err(_) => bail!("the new process took longer than {} s", most.as_secs()),
    }
}
