//! What is ready, of many sockets: epoll, edge-triggered, with timeouts in nanoseconds (those of milliseconds would be seen in the latencies).

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// How many are told of at once.
const AT_ONCE: usize = 256;

/// What is waited for.
pub(crate) struct Events {
    epoll: OwnedFd,
    list: Vec<epoll::Event>,
}

/// That something can be read, written, or is over.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// What was given with the socket.
    pub(crate) token: u64,
    /// Whether the other side will send no more, or the socket failed: read on until 0 or an error.
    pub(crate) over: bool,
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Events { epoll, list: Vec::with_capacity(AT_ONCE) })
    }

    /// Tells of this socket from now on, once for each change. It is forgotten when it is closed.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Tells of this listener for as long as somebody waits there.
    pub(crate) fn add_listener(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// Waits for at least one, or until `timeout` is over, and puts what is ready into `ready`.
    pub(crate) fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.list), Some(&timeout)) {
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let over = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        // The fields are packed: copied out before they are looked at.
        ready.extend(self.list.drain(..).map(|event| {
            let flags = event.flags;
            let data = event.data;
            Ready { token: data.u64(), over: flags.intersects(over) }
        }));
        Ok(())
    }
}

/// Makes a socket ready for [`Events`].
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

/// Whether an error only says to wait.
pub(crate) fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
