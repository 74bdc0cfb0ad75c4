//! Changing the weights of each peer in the way that it has for that: all to the old version, all to the new one, or a little to the new one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::asker::{self, Asker};
use crate::peer::{Kind, Peer, Protocol};
use crate::stop;
use crate::upstream::{self, CANARY, PODS};

/// How long it may take until a change is in force.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who changes the weights of a peer.
pub(crate) struct Changer<'a> {
    peer: &'a Peer,
    pods: u16,
    asker: Asker,
    socket: Option<UnixStream>,
    probe: Asker,
}

/// What there must be before the peer starts.
pub(crate) fn prepare(kind: Kind, place: &Path, pods: u16) -> anyhow::Result<()> {
    match kind {
        Kind::Nginx => put(place.join("pods.conf"), &nginx(1, pods)),
        Kind::Envoy => put(place.join("routes.yaml"), &envoy(1)),
        _ => Ok(()),
    }
}

impl<'a> Changer<'a> {
    pub(crate) fn new(peer: &'a Peer, pods: u16) -> anyhow::Result<Self> {
        let socket = match peer.kind {
            Kind::Haproxy => Some(haproxy_socket(&peer.place.join("haproxy.sock"))?),
            _ => None,
        };
        let probe = Asker::new(peer.address(Protocol::Http1));
        Ok(Changer { peer, pods, asker: Asker::new(peer.admin), socket, probe })
    }

    /// Gives the new version so many percent (0, 1, 2 or 100), and comes back when the peer says that it has it, or, where it says nothing, when it was told.
    pub(crate) fn change(&mut self, percent: u32) -> anyhow::Result<()> {
        let place = &self.peer.place;
        match self.peer.kind {
            Kind::Nginx => {
                put(place.join("pods.conf"), &nginx(percent, self.pods))?;
                self.peer.process.signal(rustix::process::Signal::HUP)
            }
            Kind::Envoy => put(place.join("routes.yaml"), &envoy(percent)),
            Kind::Haproxy => {
                let socket = self.socket.as_mut().context("no socket")?;
                let commands = haproxy(percent);
                socket.write_all(commands.as_bytes())?;
                let said = until_prompt(socket, commands.split(';').count())?;
                ensure!(said.trim().is_empty(), "haproxy says: {said}");
                Ok(())
            }
            Kind::Serinus => {
                let body = format!("{{\"weights\":{{\"v2\":{percent}}}}}");
                let answer = self.asker.ask(&asker::admin("PUT", "/api/v1/routes/shop/weights", &body))?;
                let said = String::from_utf8_lossy(&answer.body);
                ensure!(answer.status == 200, "the admin API says {}: {said}", answer.status);
                Ok(())
            }
            kind => bail!("{} cannot be changed", kind.name()),
        }
    }

    /// Whether it says when a change is in force.
    pub(crate) fn answers(&self) -> bool {
        matches!(self.peer.kind, Kind::Haproxy | Kind::Serinus)
    }

    /// Waits until a request is served by the new version, or by the old one.
    pub(crate) fn until(&mut self, new: bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        let request = asker::get("/tiny");
        loop {
            stop::go_on()?;
            let answer = self.probe.ask_again(&request);
            if answer.is_ok_and(|answer| (answer.body.first() == Some(&CANARY)) == new) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "a change is not in force after {PATIENCE:?}");
        }
    }
}

/// Puts a file into place at once.
fn put(path: PathBuf, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, &path).with_context(|| path.display().to_string())
}

/// The weights of one old pod and of the new one, in lists of six and one.
fn weights(percent: u32) -> (u32, u32) {
    match percent {
        0 => (33, 0),
        100 => (0, 33),
        // 33 to 2 is one percent: 6 × 33 + 2 = 200.
        percent => (33, 2 * percent),
    }
}

fn nginx(percent: u32, pods: u16) -> String {
    let (old, new) = weights(percent);
    let line = |pod: u8| match if pod == PODS { new } else { old } {
        0 => format!("server {} down;\n", upstream::address(pod, pods)),
        weight => format!("server {} weight={weight};\n", upstream::address(pod, pods)),
    };
    (1..=PODS).map(line).collect()
}

fn haproxy(percent: u32) -> String {
    let (old, new) = weights(percent);
    // Between one percent and two, the canary's alone differs.
    let from = if matches!(percent, 0 | 100) { 1 } else { PODS };
    let command = |pod: u8| format!("set weight pods/pod{pod} {}", if pod == PODS { new } else { old });
    (from..=PODS).map(command).collect::<Vec<_>>().join(";") + "\n"
}

fn envoy(percent: u32) -> String {
    let old = 100 - percent;
    format!(
        r#"resources:
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: shop
    virtual_hosts:
      - name: shop
        domains: ["*"]
        routes:
          - match: {{prefix: "/"}}
            route: {{weighted_clusters: {{clusters: [{{name: v1, weight: {old}}}, {{name: v2, weight: {percent}}}]}}}}
"#
    )
}

/// A connection to the stats socket that stays.
fn haproxy_socket(path: &Path) -> anyhow::Result<UnixStream> {
    let mut socket = UnixStream::connect(path).with_context(|| path.display().to_string())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"prompt\n")?;
    until_prompt(&mut socket, 1)?;
    Ok(socket)
}

/// What it says until it has asked for the next command so often: it does after each.
fn until_prompt(socket: &mut UnixStream, commands: usize) -> anyhow::Result<String> {
    const PROMPT: &str = "\n> ";
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut piece)?;
        ensure!(read > 0 && said.len() < 1 << 16, "haproxy closed its socket");
        said.extend_from_slice(piece.get(..read).unwrap_or_default());
        let text = String::from_utf8_lossy(&said);
        if text.matches(PROMPT).count() >= commands {
            return Ok(text.replace(PROMPT, ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_percents() {
        for percent in [0, 1, 100] {
            let (old, new) = weights(percent);
            assert_eq!(f64::from(new) / f64::from(6 * old + new), f64::from(percent) / 100.0);
        }
    }

    #[test]
    fn haproxy_is_told_of_those_that_differ() {
        assert_eq!(haproxy(2), "set weight pods/pod7 4\n");
        assert!(haproxy(100).starts_with("set weight pods/pod1 0;set weight pods/pod2 0;"));
    }
}
