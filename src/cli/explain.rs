//! `serinus explain`: what a request would get, and why.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ureq::http::Method;

use crate::admin::wire::{ExplainRequest, Explained};
use crate::admin::{self, Target};
use crate::routing::RoutingTable;

use super::client::{AdminArgs, Client};
use super::error::{CliError, reader_may_leave};
use super::text::{align_right, percent, plain, table, write_table};

/// How many endpoints of a version are named.
const NAMED: usize = 5;

/// Says which route, version and rule a request would get, and why
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Asking changes nothing: the split does not move.\n\nExamples:\n  serinus explain GET http://shop.example.com/cart\n  serinus explain GET /cart -H 'Host: shop.example.com' -H 'X-Canary: always'\n  serinus explain --config serinus.yaml GET http://shop.example.com/"
)]
pub struct ExplainArgs {
    /// Ask this config file instead of a running router
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The request's method
    pub method: String,
    /// The request's URL: absolute, or a path with the host in a Host header
    pub url: String,
    /// A header of the request, as 'name: value'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The address of the request's client, for rules and cohorts that look at it
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

impl ExplainArgs {
    /// The request that was asked about.
    #[must_use]
    pub fn request(&self) -> ExplainRequest {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            // Several of one name are told apart by lines, of which a header never has two.
            match headers.entry(name.to_ascii_lowercase()) {
                Entry::Vacant(first) => drop(first.insert(value.clone())),
                Entry::Occupied(mut before) => before.get_mut().extend(["\n", value.as_str()]),
            }
        }
        ExplainRequest { method: self.method.clone(), url: self.url.clone(), headers, client: self.client }
    }
}

/// Says what a request would get: of a running router, or of a config, whose table `compile` makes.
///
/// # Errors
/// When method or URL cannot be one (usage), `compile` fails, or the router cannot be reached or refuses.
pub fn explain(
    args: &ExplainArgs,
    compile: impl FnOnce(&Path) -> Result<RoutingTable, CliError>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let request = args.request();
    Target::of(&request).map_err(|error| CliError::Usage(error.to_string()))?;
    let explained = match &args.config {
        Some(file) => explain_table(&compile(file)?, &request)?,
        None => Client::new(&args.admin)?.send(Method::POST, "/api/v1/explain", &request)?,
    };
    reader_may_leave(write_explained(&explained, out).map_err(CliError::from))
}

/// What a request would get by this table.
///
/// # Errors
/// When its method or URL cannot be one (usage).
pub fn explain_table(table: &RoutingTable, request: &ExplainRequest) -> Result<Explained, CliError> {
    admin::explain(table, request).map_err(|error| CliError::Usage(error.to_string()))
}

/// Writes an explanation for people.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write_explained(explained: &Explained, out: &mut dyn Write) -> io::Result<()> {
    match (&explained.route, explained.revision) {
        (None, _) => writeln!(out, "no route")?,
        (Some(route), None) => writeln!(out, "route {}", plain(route))?,
        (Some(route), Some(revision)) => writeln!(out, "route {}, revision {revision}", plain(route))?,
    }
    if !explained.versions.is_empty() {
        let mut table = table(&["VERSION", "CHANCE", "RULE", "ENDPOINTS"]);
        let rule = explained.rule.as_deref().map_or_else(|| "-".to_owned(), plain);
        for version in &explained.versions {
            let endpoints = named(&version.endpoints);
            table.add_row([plain(&version.name), percent(version.percent), rule.clone(), endpoints]);
        }
        align_right(&mut table, [1]);
        write_table(&table, out)?;
    }
    writeln!(out, "why:")?;
    for reason in &explained.why {
        writeln!(out, "  - {}", plain(reason))?;
    }
    out.flush()
}

fn named(endpoints: &[String]) -> String {
    if endpoints.is_empty() {
        return "none".to_owned();
    }
    let shown = endpoints.iter().take(NAMED).map(|e| plain(e)).collect::<Vec<_>>().join(", ");
    match endpoints.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let bad = || "write 'name: value', like 'Host: shop.example.com'".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(bad)?;
    let name: ureq::http::HeaderName = name.parse().map_err(|_| bad())?;
    let value = value.trim();
    ureq::http::HeaderValue::from_str(value).map_err(|_| bad())?;
    Ok((name.to_string(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(header("Host: a.b:80"), Ok(("host".to_owned(), "a.b:80".to_owned())));
        assert_eq!(header("X-A:"), Ok(("x-a".to_owned(), String::new())));
        for text in ["", "host", ": x", "a b: c", "a: \u{1}"] {
            assert!(header(text).is_err(), "{text}");
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    #[test]
    fn the_request_that_is_asked_about() {
        let line = "explain GET /x -H X-A:1 -H Cookie:a=b -H x-a:2 --client 2001:db8::1".split_whitespace();
        let request = <Line as clap::Parser>::try_parse_from(line).unwrap().args.request();
        let headers = [("cookie".to_owned(), "a=b".to_owned()), ("x-a".to_owned(), "1\n2".to_owned())];
        assert_eq!((request.headers, request.client), (headers.into(), "2001:db8::1".parse().ok()));
        let bad = "explain GET /x --client shop".split_whitespace();
        assert!(<Line as clap::Parser>::try_parse_from(bad).is_err());
    }

    #[test]
    fn an_explanation_in_words() {
        let request = ExplainRequest {
            method: "GET".to_owned(),
            url: "http://h/".to_owned(),
            headers: BTreeMap::new(),
            client: None,
        };
        let explained = explain_table(&RoutingTable::default(), &request).unwrap();
        let mut out = Vec::new();
        write_explained(&explained, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("no route\nwhy:\n  - ") && text.contains("404"), "{text}");
        let bad = ExplainRequest { url: "h".to_owned(), ..request };
        assert_eq!(explain_table(&RoutingTable::default(), &bad).unwrap_err().exit_status(), 2);
    }
}
