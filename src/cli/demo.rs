//! `serinus demo`: the whole thing on one machine, without a cluster.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config;
use crate::demo::Testpage;
use crate::telemetry::LogFormat;

use super::CliError;
use super::app::Router;
use super::client::DEFAULT_ADMIN;
use super::run::{Signals, start_logs};
use super::scenario::{self, Scenario};

/// Six v1 pods and one v2 pod on loopback, and the router in front of them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus demo
  serinus demo --scenario bad-canary
  serinus demo --listen 127.0.0.1:9080 --admin 127.0.0.1:9902   # when the ports are taken")]
pub(super) struct DemoArgs {
    /// Where the router listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: config::HostPort,
    /// Where the admin API listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: config::HostPort,
    /// Lets a rollout run by itself, with requests, and tells what happens.
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Option<Scenario>,
}

/// The pods of the demo: as in the README's walk-through, one of seven is the new version.
const OLD_PODS: u8 = 6;

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// When a port is taken, or the directory for temporary files cannot be written.
pub(super) fn demo(args: &DemoArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let _logs = start_logs(LogFormat::Text, 0);
    super::block_on(async {
        let mut pods = Vec::new();
        for number in 1..=OLD_PODS + 1 {
            let version = if number <= OLD_PODS { "v1" } else { "v2" };
            let pod = Testpage::start(number, version).await.map_err(|e| CliError::Failed(e.to_string()))?;
            pods.push((pod, version));
        }
        let folder = Folder::create()?;
        let file = folder.0.join("serinus.yaml");
        let failed = |error: std::io::Error| {
            CliError::Failed(format!("{} cannot be written: {error}", file.display()))
        };
        std::fs::write(&file, config_text(args, &pods, &folder.0)).map_err(failed)?;
        let settings = config::load(&file).map_err(|errors| CliError::Failed(errors.to_string()))?;
        let mut signals = Signals::new()?;
        let router = Router::start(settings, Some(file.clone())).await.map_err(|error| {
            // It speaks of the config's fields; the demo writes its config itself.
            CliError::Failed(format!(
                "{error:#}\nfor the demo: --listen ADDR changes `address`, --admin ADDR `admin.address`"
            ))
        })?;
        out.write_all(welcome(&router, &file.display().to_string()).as_bytes())?;
        out.flush()?;
        let mut load = None;
        if let (Some(scenario), Some((_, web)), Some((canary, _))) =
            (args.scenario, router.listeners().first(), pods.last())
        {
            let url = format!("http://{web}/");
            tokio::select! {
                played = scenario::play(scenario, &url, router.control(), canary, out) => load = Some(played?),
                () = signals.next() => return Ok(()),
            }
        }
        signals.next().await;
        drop(load);
        tokio::select! {
            _ = router.stop() => {}
            () = signals.next() => {}
        }
        drop(pods);
        out.write_all(b"The demo has ended.\n")?;
        Ok(())
    })
}

fn config_text(args: &DemoArgs, pods: &[(Testpage, &str)], folder: &Path) -> String {
    let mut text = format!(
        "# The demo's config: change a weight here, save, and it is live.\n\
         listeners:\n  - {{name: web, address: '{}'}}\n\
         admin: {{address: '{}'}}\n\
         state: {{file: '{}'}}\n\
         drain: {{delay: 0s, timeout: 2s}}\n\
         discovery:\n  static:\n    default/testpage:\n",
        args.listen,
        args.admin,
        folder.join("state.json").display()
    );
    for (pod, version) in pods {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "      - {{address: '{}', labels: {{type: testpage, version: {version}}}}}",
            pod.address()
        );
    }
    text.push_str(
        "routes:\n  - name: testpage\n    service: default/testpage\n    debugHeaders: true\n    versions:\n      \
         - {name: v1, selector: version!=v2}\n      - {name: v2, selector: version=v2, weight: 0.1}\n",
    );
    text.push_str(scenario::ROLLOUT);
    text
}

fn welcome(router: &Router, file: &str) -> String {
    let url = router.listeners().first().map(|(_, address)| format!("http://{address}/")).unwrap_or_default();
    let admin = format!("http://{}", router.admin());
    let option = if admin == DEFAULT_ADMIN { String::new() } else { format!(" --admin {admin}") };
    format!(
        "
Serinus is in front of 7 pods: six v1 and one v2, which gets 0.1 % of the requests.

  {url:<40} the pods, through the router
  {dashboard:<40} the dashboard
  {admin}/api/v1/routes{pad}   its state

Try, in another terminal:

  curl {url}
  serinus weight testpage v2=30{option}      # and curl again; 0.0001 works as well
  serinus status{option}
  serinus rollout undo testpage{option}      # back
  serinus rollout start testpage{option}     # 1 %, 10 %, 50 %, 100 %, judged by the requests

Or change the weight in {file}
(`cargo run -q -- …` in place of `serinus` from a source tree.)

Ctrl-C ends it.
",
        dashboard = format!("{admin}/"),
        pad = " ".repeat(23_usize.saturating_sub(admin.len())),
    )
}

/// A folder that goes away with the demo.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("serinus-demo-{}", std::process::id()));
        let failed =
            |error| CliError::Failed(format!("{} cannot be made: {error}; set TMPDIR", path.display()));
        std::fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a folder for temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
