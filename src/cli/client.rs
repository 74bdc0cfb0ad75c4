//! Speaking to a router's admin API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, header};
use ureq::{Agent, Body};
use url::Url;

use crate::admin::wire::ProblemDetails;
use crate::model::RouteName;
use crate::outbound;

use super::error::CliError;
use super::text::plain;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer that is read: ten thousand routes are some 20 MB.
const LARGEST: u64 = 256 << 20;

/// Where a router's admin API is unless its config says otherwise.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:9901";

/// Which router to speak to.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// The router's admin API
    #[arg(long, value_name = "URL", env = "SERINUS_ADMIN", default_value = DEFAULT_ADMIN)]
    pub admin: AdminUrl,
    /// A file with the token that the router asks for (its `admin.tokenFile`)
    #[arg(long, value_name = "FILE", env = "SERINUS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// The URL of an admin API: `http` or `https`, a host, perhaps a port and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl(Url);

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is not a URL: write one like http://127.0.0.1:9901", plain(text));
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Url = full.parse().map_err(|_| bad())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "a URL with a user or password is not used: give the token with --token-file".to_owned()
            );
        }
        let plain_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        let rest = url.query().is_some() || url.fragment().is_some();
        if plain_http && !rest { Ok(Self(url)) } else { Err(bad()) }
    }
}

impl AdminUrl {
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    fn is_loopback(&self) -> bool {
        outbound::is_loopback(&self.0)
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// The path of a route in the API.
pub(super) fn route_path(route: &RouteName) -> String {
    format!("/api/v1/routes/{}", utf8_percent_encode(route.as_str(), NON_ALPHANUMERIC))
}

/// Speaks to one router.
pub(super) struct Client {
    agent: Agent,
    admin: AdminUrl,
    authorization: Option<String>,
}

impl Client {
    /// A client for the router that was asked for.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub(super) fn new(args: &AdminArgs) -> Result<Self, CliError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            // A token is for the router that was named, and for nobody it points to.
            .max_redirects(0)
            .user_agent(concat!("serinus/", env!("CARGO_PKG_VERSION")));
        if args.admin.is_loopback() {
            // A proxy that is set for other things cannot reach this machine's loopback.
            config = config.proxy(None);
        }
        let authorization = args.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self { agent: config.build().into(), admin: args.admin.clone(), authorization })
    }

    /// The answer to a read, as it came.
    pub(super) fn get_text(&self, path: &str) -> Result<String, CliError> {
        let request = self.request(Method::GET, path).body(());
        self.answer(self.agent.run(request.map_err(|e| self.not_sent(&e))?))
    }

    /// The answer to a read.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.parse(&self.get_text(path)?)
    }

    /// The answer to a request with a JSON body.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_string(body).map_err(|e| self.not_sent(&e))?;
        let request = self.request(method, path).header(header::CONTENT_TYPE, "application/json").body(body);
        let text = self.answer(self.agent.run(request.map_err(|e| self.not_sent(&e))?))?;
        self.parse(&text)
    }

    /// An answer as its type.
    pub(super) fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, CliError> {
        serde_json::from_str(text).map_err(|error| {
            let admin = &self.admin;
            CliError::Failed(format!(
                "{admin} did not answer as a Serinus router does ({error})\ncheck --admin, and that the router's version \
                 is not older than this command's"
            ))
        })
    }

    fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        let mut request = Request::builder().method(method).uri(self.admin.at(path));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request
    }

    fn not_sent(&self, error: &dyn fmt::Display) -> CliError {
        CliError::Failed(format!("the request to {} could not be written: {error}", self.admin))
    }

    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<String, CliError> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        let said = match serde_json::from_str::<ProblemDetails>(&text) {
            Ok(problem) if problem.errors.len() > 1 => {
                let each: Vec<_> = problem.errors.iter().map(|e| format!("\n  - {}", plain(e))).collect();
                format!("the router refused this, and nothing was changed:{}", each.concat())
            }
            Ok(problem) => plain(&problem.detail),
            Err(_) => format!(
                "{} answered {status}, and not as a Serinus router does\ncheck --admin: is it the admin API's address?",
                self.admin
            ),
        };
        if status.as_u16() == 503 { Err(CliError::Unreachable(said)) } else { Err(CliError::Failed(said)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let admin = &self.admin;
        let advice = if self.admin.is_loopback() {
            "is it running here (`serinus run`, `serinus demo`)? For one in a cluster, `kubectl port-forward` its port 9901 \
             or give --admin URL (SERINUS_ADMIN)"
        } else {
            "check --admin URL (SERINUS_ADMIN), and that the network lets this machine reach it"
        };
        CliError::Unreachable(format!("no router answers at {admin}: {}\n{advice}", said_by(error)))
    }
}

fn said_by(error: &ureq::Error) -> String {
    // Without the `io: ` before it.
    if let ureq::Error::Io(error) = error { error.to_string() } else { error.to_string() }
}

/// What `Authorization` says with the token of this file.
fn read_token(path: &Path) -> Result<String, CliError> {
    let failed = |what: &str| {
        let advice = "check --token-file (SERINUS_TOKEN_FILE)";
        CliError::Failed(format!("the token file {} {what}\n{advice}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(failed("is empty")),
        token if token.bytes().all(|b| b.is_ascii_graphic()) => Ok(format!("Bearer {token}")),
        _ => Err(failed("holds no token: it must be one line of visible ASCII characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_an_admin_api() {
        for (text, at) in [
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901/x"),
            ("localhost:9901", "http://localhost:9901/x"),
            ("127.0.0.1:1", "http://127.0.0.1:1/x"),
            ("https://canary.example/admin/", "https://canary.example/admin/x"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().map(|url| url.at("/x")).unwrap(), at);
        }
        for text in ["", "ftp://h", "http://", "http://h?x", "http://h/#x", "http://u:p@h", "a b"] {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn token_files_are_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, needle) in [("", "is empty"), (" \n", "is empty"), ("a b", "no token")] {
            std::fs::write(file.path(), content).unwrap();
            let error = read_token(file.path()).unwrap_err();
            assert!(error.to_string().contains(needle) && error.exit_status() == 1, "{error}");
        }
        std::fs::write(file.path(), "s\n").unwrap();
        assert_eq!(read_token(file.path()).unwrap(), "Bearer s");
        let error = read_token(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("--token-file"), "{error}");
    }
}
