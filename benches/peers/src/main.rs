//! The laboratory: Serinus beside nginx, HAProxy and Envoy. See README.md, and `run`.

mod asker;
mod case;
mod change;
mod changes;
mod cluster;
mod crowd;
mod events;
mod handshakes;
mod lab;
mod load;
mod message;
mod peer;
mod plot;
mod process;
mod relay;
mod report;
mod report_changes;
mod results;
mod stop;
mod swap;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::case::Case;
use crate::lab::{Lab, Plan};
use crate::peer::Kind;
use crate::results::Results;

/// Measures Serinus beside nginx, HAProxy and Envoy, on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure, write every round to a file, and print tables.
    Run {
        /// What to measure; everything if left out.
        #[arg(long, value_delimiter = ',')]
        cases: Vec<Case>,
        /// Whom to measure; everybody if left out.
        #[arg(long, value_delimiter = ',')]
        peers: Vec<Kind>,
        /// How often; latencies, TLS and HTTP/2 three times at most.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
        /// How long each measurement is.
        #[arg(long, default_value_t = 4.0, value_parser = seconds)]
        seconds: f64,
        /// The router; else the variable SERINUS, else the release build of this repository.
        #[arg(long)]
        serinus: Option<PathBuf>,
        /// The file for what was measured.
        #[arg(long)]
        out: PathBuf,
    },
    /// Print the tables of a file again.
    Report { file: PathBuf },
    /// Draw a file's figures.
    Plot { file: PathBuf, svg: PathBuf },
    /// Be the seven pods (`run` starts this).
    #[command(hide = true)]
    Upstream { port: u16 },
    /// Be the floor (`run` starts this).
    #[command(hide = true)]
    Relay { listen: SocketAddr, pods: u16 },
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.1..=60.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 60".to_owned()) }
}

fn main() -> ExitCode {
    match act(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(what: What) -> anyhow::Result<()> {
    match what {
        What::Upstream { port } => upstream::serve(port),
        What::Relay { listen, pods } => {
            let pods: Vec<SocketAddr> =
                (1..=upstream::PODS).map(|pod| upstream::address(pod, pods)).collect();
            relay::serve(listen, &pods)
        }
        What::Report { file } => {
            print!("{}", report::tables(&Results::read(&file)?));
            Ok(())
        }
        What::Plot { file, svg } => plot::draw(&Results::read(&file)?, &svg),
        What::Run { cases, peers, rounds, seconds, serinus, out } => {
            let cases = if cases.is_empty() { Case::value_variants().to_vec() } else { cases };
            let peers = if peers.is_empty() { Kind::value_variants().to_vec() } else { peers };
            run(Plan { cases, rounds: rounds.into(), seconds, found: find(&peers, serinus.as_deref()) }, &out)
        }
    }
}

/// Those that are here; of the others it is said.
fn find(kinds: &[Kind], serinus: Option<&Path>) -> Vec<peer::Found> {
    let mut found = Vec::new();
    for kind in kinds {
        match kind.find(serinus.filter(|_| *kind == Kind::Serinus)) {
            Ok(one) => found.push(one),
            Err(why) => eprintln!("SKIPPED: {}: {why}", kind.name()),
        }
    }
    found
}

fn run(plan: Plan, out: &Path) -> anyhow::Result<()> {
    for tool in ["setpriv", "taskset"] {
        anyhow::ensure!(peer::on_path(tool).is_some(), "{tool} is not here (apt-get install util-linux)");
    }
    anyhow::ensure!(!plan.found.is_empty(), "nobody is here to be measured");
    stop::on_signals()?;
    let folder = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let versions = plan.found.iter().map(|one| (one.kind.name().to_owned(), one.version.clone())).collect();
    let results =
        Results { machine: report::machine(), versions, seconds: plan.seconds, ..Results::default() };
    let measured = Lab::open(&plan, &folder, results).and_then(|mut lab| lab.run(out));
    let cleared = std::fs::remove_dir_all(&folder);
    print!("{}", report::tables(&measured?));
    cleared.with_context(|| folder.display().to_string())
}
