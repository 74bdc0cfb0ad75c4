//! Connections that end before their first request: each is counted, and logged as far as there are not too many.

use std::net::IpAddr;

use crate::model::{ConnectionRefusal, Problem};

use super::Telemetry;
use super::line_limit::LineLimit;

/// A client's connection that is not served, and why.
#[derive(Clone, Copy, Debug)]
pub struct RefusedConnection<'a> {
    /// The listener it came to.
    pub listener: &'a str,
    /// The client: what a trusted PROXY header says, else who is connected.
    pub client: IpAddr,
    /// The host that it asked for in TLS (SNI), as far as that is known.
    pub sni: Option<&'a str>,
    /// The token.
    pub reason: ConnectionRefusal,
    /// What was wrong, in words, and what to do.
    pub problem: &'a Problem,
}

/// How many lines there are in a second for each reason: any client can bring them about, and one kind must not hide another.
const LINES_A_SECOND: u32 = 1;
/// How long what is said of a connection may be, in characters: some of it may come from the client's certificate.
const LONGEST: usize = 300;

/// The bounds of the lines, one for each reason.
#[derive(Debug)]
pub(super) struct RefusalLines([LineLimit; ConnectionRefusal::ALL.len()]);

impl Default for RefusalLines {
    fn default() -> Self {
        Self([const { LineLimit::of(LINES_A_SECOND) }; ConnectionRefusal::ALL.len()])
    }
}

impl Telemetry {
    /// A connection ended before its first request, and not because its client had nothing to say.
    pub fn connection_refused(&self, refused: RefusedConnection<'_>) {
        let RefusedConnection { listener, client, sni, reason, problem } = refused;
        self.refused_connections(listener, reason).inc();
        if let Some(untold) = self.refusal_lines.0.get(reason.index()).and_then(LineLimit::next) {
            let (error, remedy) = (printable(&problem.message), &problem.remedy);
            tracing::info!(listener, %client, sni, %reason, error, remedy, untold, "connection refused");
        }
    }
}

/// As much of a text as a line has room for, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_by_listener_and_reason() {
        let telemetry = Telemetry::new().unwrap();
        let _ = telemetry.connections("web");
        let at_start = telemetry.text();
        for reason in ConnectionRefusal::ALL {
            let line =
                format!("serinus_connections_refused_total{{listener=\"web\",reason=\"{reason}\"}} 0\n");
            assert!(at_start.contains(&line), "{line}{at_start}");
        }
        let problem = Problem::new("what", "do");
        for _ in 0..3 {
            telemetry.connection_refused(RefusedConnection {
                listener: "web",
                client: [192, 0, 2, 7].into(),
                sni: None,
                reason: ConnectionRefusal::NotTls,
                problem: &problem,
            });
        }
        let text = telemetry.text();
        assert!(
            text.contains("serinus_connections_refused_total{listener=\"web\",reason=\"not-tls\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_said_is_bounded_and_has_nothing_that_a_terminal_obeys() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{9b}"), "a[2Jbc");
        assert_eq!(printable(&"é".repeat(1_000)).chars().count(), LONGEST);
    }
}
