//! What two processes say to each other: JSON with its length before it, and descriptors.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

/// As much as a state may have: see the limit of the state file.
const LONGEST: u32 = 256 << 20;

/// A connection to the other process.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// A connection to a process of the same user, or of the superuser.
    ///
    /// # Errors
    /// When somebody else is at the other end.
    pub(super) fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let peer = stream.peer_cred().context("who is at the other end cannot be told")?.uid();
        let own = rustix::process::geteuid().as_raw();
        if peer != own && peer != 0 {
            bail!("the process at the other end is of user {peer}, and this one of user {own}");
        }
        Ok(Self(stream))
    }

    /// Says this.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(super) async fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST);
        self.0.write_all(&length.context("the message is too long")?.to_be_bytes()).await?;
        self.0.write_all(&bytes).await?;
        Ok(())
    }

    /// What the other end says; nothing when it is gone.
    ///
    /// # Errors
    /// When that is not understood.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let length = match self.0.read_u32().await {
            Ok(length) if length <= LONGEST => length,
            Ok(_) => bail!("the other process says what is no message of Serinus"),
            Err(error) if is_end(error.kind()) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        // As much memory as really comes.
        match (&mut self.0).take(u64::from(length)).read_to_end(&mut bytes).await {
            Ok(read) if read == length as usize => {}
            Ok(_) => return Ok(None),
            Err(error) if is_end(error.kind()) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let message = serde_json::from_slice(&bytes);
        message.map(Some).context("the other process says what this version does not understand")
    }

    /// Gives a descriptor (SCM_RIGHTS).
    ///
    /// # Errors
    /// When the other end is gone.
    pub(super) async fn give(&self, descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
        let give = || {
            let descriptors = [descriptor];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            // A descriptor goes with at least one byte.
            Ok(sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, give).await.map(drop)
    }

    /// Takes a descriptor.
    ///
    /// # Errors
    /// When none comes.
    pub(super) async fn take(&self) -> std::io::Result<OwnedFd> {
        let take = || {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
            let mut taken = None;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                    taken = descriptors.next();
                }
            }
            Ok(taken)
        };
        let taken = self.0.async_io(Interest::READABLE, take).await?;
        taken.ok_or_else(|| std::io::Error::other("a socket was announced and did not come"))
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn messages_and_descriptors_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        one.say(&"first").await.unwrap();
        one.give(socket.as_fd()).await.unwrap();
        one.give(socket.as_fd()).await.unwrap();
        one.say(&"second").await.unwrap();
        assert_eq!(other.hear::<String>().await.unwrap().as_deref(), Some("first"));
        for _ in 0..2 {
            let taken = std::net::TcpListener::from(other.take().await.unwrap());
            assert_eq!(taken.local_addr().unwrap(), socket.local_addr().unwrap());
        }
        assert_eq!(other.hear::<String>().await.unwrap().as_deref(), Some("second"));
        drop(one);
        assert_eq!(other.hear::<String>().await.unwrap(), None);
        assert!(other.take().await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\0\0\0\x02{]", b"\0\0\0\x01\xff"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).await.unwrap();
            assert!(Channel::new(other).unwrap().hear::<String>().await.is_err(), "{bytes:?}");
        }
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"\0\0\x10\0\"cut").await.unwrap();
        drop(one);
        assert_eq!(Channel::new(other).unwrap().hear::<String>().await.unwrap(), None);
    }
}
