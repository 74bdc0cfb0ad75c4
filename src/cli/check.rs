//! `serinus check` and `serinus schema`: the config file before it is in force.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::{self, Discovery, Settings};
use crate::model::{Moment, RouteSpec, Timestamp};
use crate::routing::{Compiler, RoutingTable};
use crate::state::Desired;

use super::CliError;
use super::app::statics;
use super::text::{align_right, percent, table, write_table};

/// Validates a config file and prints the routes it compiles to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus check config/serinus.yaml

On error every error is printed as FILE:LINE:COL: field.path: what is wrong, and the exit status is 1.")]
pub(super) struct CheckArgs {
    /// The config file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Checks a config file.
///
/// # Errors
/// When it is refused: every reason.
pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let settings = config::load(&args.file).map_err(|errors| CliError::Failed(errors.to_string()))?;
    write_routes(&settings, out)?;
    Ok(())
}

/// The table that a config compiles to, for `serinus explain --config`.
///
/// # Errors
/// When it is refused: every reason.
pub(super) fn compile(file: &Path) -> Result<RoutingTable, CliError> {
    let settings = config::load(file).map_err(|errors| CliError::Failed(errors.to_string()))?;
    let mut desired = Desired::default();
    let (touched, _) =
        desired.set_routes(settings.routes, statics(&settings.discovery), Timestamp::default());
    Ok(Compiler::default().compile(&desired, &touched, Moment::default()))
}

/// Prints the JSON Schema of the config file.
///
/// # Errors
/// When it cannot be written out.
pub(super) fn schema(out: &mut dyn Write) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(&config::schema()).map_err(|e| CliError::Failed(e.to_string()))?;
    writeln!(out, "{text}")?;
    Ok(())
}

fn write_routes(settings: &Settings, out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = table(&["ROUTE", "HOSTS", "PATHS", "VERSION", "WEIGHT", "SERVICE", "SELECTOR"]);
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
                percent(weight),
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
    align_right(&mut table, [4]);
    write_table(&table, out)?;
    writeln!(out, "\nThe config is valid: {routes}, {found}.")
}

fn all_or(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "(all)".to_owned() } else { items.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_alone_says_nothing_of_a_clusters_pods() {
        let table = compile(Path::new("config/serinus.yaml")).unwrap();
        let why = table.explain("shop.example.com", "/").why.join("\n");
        assert!(why.contains("version `v2`: 0.1 % by weight; its pods are not known"), "{why}");
        assert!(!why.contains("no usable pod") && !why.contains("503"), "{why}");
    }
}
