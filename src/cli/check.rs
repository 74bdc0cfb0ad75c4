//! `serinus check` and `serinus schema`: the config file before it is in force.

use std::io::Write;
use std::path::PathBuf;

use crate::config::{self, Discovery, Settings};
use crate::model::RouteSpec;

use super::CliError;

/// Validates a config file and prints the routes it compiles to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus check config/serinus.yaml

On error every error is printed as FILE:LINE:COL: field.path: what is wrong, and the exit status is 1.")]
pub struct CheckArgs {
    /// The config file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Checks a config file.
///
/// # Errors
/// When it is refused: every reason.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let settings = config::load(&args.file).map_err(|errors| CliError::failed(errors.to_string()))?;
    out.write_all(show(&settings).as_bytes())?;
    Ok(())
}

/// Prints the JSON Schema of the config file.
///
/// # Errors
/// When it cannot be written out.
pub fn schema(out: &mut dyn Write) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(&config::schema()).map_err(|e| CliError::failed(e.to_string()))?;
    writeln!(out, "{text}")?;
    Ok(())
}

fn show(settings: &Settings) -> String {
    let mut table = super::table(["ROUTE", "HOSTS", "PATHS", "VERSION", "WEIGHT %", "SERVICE", "SELECTOR"]);
    for route in &settings.routes {
        for (i, (version, (_, weight))) in route.versions.iter().zip(route.weights()).enumerate() {
            let first = |text: String| if i == 0 { text } else { String::new() };
            let backend = version.backend.as_ref().unwrap_or(&route.backend);
            let port = backend.port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
            table.add_row([
                first(route.name.to_string()),
                first(all_or(route.hosts.iter().map(ToString::to_string))),
                first(all_or(route.paths.iter().map(ToString::to_string))),
                version.name.to_string(),
                weight.to_string(),
                format!("{}{port}", backend.service),
                version.selector.as_ref().map_or_else(|| "(the rest)".to_owned(), ToString::to_string),
            ]);
        }
    }
    let pods = |route: &RouteSpec| match &settings.discovery {
        Discovery::Static(statics) => statics.get(&route.backend.service).map_or(0, Vec::len),
        Discovery::Kubernetes(_) => 0,
    };
    let found = match &settings.discovery {
        Discovery::Static(_) => format!("{} pods by hand", settings.routes.iter().map(pods).sum::<usize>()),
        Discovery::Kubernetes(_) => "pods from Kubernetes".to_owned(),
    };
    let routes = match settings.routes.len() {
        1 => "1 route".to_owned(),
        n => format!("{n} routes"),
    };
    format!("{table}\n\nThe config is valid: {routes}, {found}.\n")
}

fn all_or(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "(all)".to_owned() } else { items.join("\n") }
}
