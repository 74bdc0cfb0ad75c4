//! The listening sockets of a router: bound anew, or taken over from the process before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::admin::{self, AdminListener};
use crate::config::Settings;
use crate::proxy::{Listener, SharedSocket};
use crate::state::OwnAddresses;
use crate::tls;

use super::handover::{GivenSocket, Role, Taking};

/// Some address elsewhere, of each family (RFC 5737, RFC 3849): nothing is ever sent there.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The address that this machine has for who is outside: of a pod, its own. To connect a UDP socket sends nothing; the system
/// only looks for the way.
fn outward(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The sockets of a router.
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: AdminListener,
}

impl Sockets {
    /// Takes what the process before has, and binds every other address; or tells every one that cannot be bound.
    pub(super) async fn open(
        settings: &Settings,
        certificates: &tls::Store,
        mut before: Option<&mut Taking>,
    ) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        let mut errors = Vec::new();
        for listener in &settings.listeners {
            let (name, asked) = (listener.name.as_str(), listener.address.to_string());
            let edge = listener.edge.clone();
            let inherited = before.as_mut().and_then(|before| before.socket(Role::Listener, name, &asked));
            let opened = match inherited {
                Some(socket) => Listener::inherited(name, socket, edge).map_err(|e| e.to_string()),
                None => Listener::bind(name, &asked, edge).await.map_err(|e| e.to_string()),
            };
            match opened {
                Ok(listener) => listeners.push(listener.with_tls(certificates.listener(name))),
                Err(error) => errors.push(error),
            }
        }
        let asked = settings.admin.address.to_string();
        let inherited = before.as_mut().and_then(|before| before.socket(Role::Admin, "admin", &asked));
        let admin = match inherited {
            Some(socket) => AdminListener::inherited(socket).map_err(|e| e.to_string()),
            None => admin::bind(&asked).await.map_err(|e| e.to_string()),
        };
        match admin {
            Ok(admin) if errors.is_empty() => Ok(Self { listeners, admin }),
            Ok(_) => Err(anyhow::anyhow!(errors.join("\n"))),
            Err(error) => {
                errors.push(error);
                Err(anyhow::anyhow!(errors.join("\n")))
            }
        }
    }

    /// Where this process takes requests.
    pub(super) fn own_addresses(&self) -> OwnAddresses {
        OwnAddresses {
            listeners: self.listeners.iter().map(Listener::address).collect(),
            machine: OUTSIDE.into_iter().filter_map(outward).collect(),
        }
    }

    /// What the next process may be given.
    pub(super) fn to_give(&self, settings: &Settings) -> Vec<GivenSocket> {
        let pairs = self.listeners.iter().zip(&settings.listeners);
        let listeners = pairs.map(|(listener, asked)| GivenSocket {
            role: Role::Listener,
            name: listener.name().to_owned(),
            asked: asked.address.to_string(),
            address: listener.address(),
            socket: listener.shared(),
        });
        let admin = GivenSocket {
            role: Role::Admin,
            name: "admin".to_owned(),
            asked: settings.admin.address.to_string(),
            address: self.admin.address(),
            socket: SharedSocket::new(self.admin.socket()),
        };
        listeners.chain([admin]).collect()
    }
}
