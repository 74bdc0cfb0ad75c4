//! `GET /`: the dashboard, a page that uses this API and nothing else.
//!
//! Its files are in the binary, and hold nothing secret: they are open like the probes, but for names that were made to point here
//! (DNS rebinding). What the page may do is in [`POLICY`]: scripts, styles and requests of its own origin, and nothing that is
//! written into it.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::problem::Refused;
use super::wire::ProblemDetails;

/// What the page may do, as browsers enforce it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

const PAGE: &str = include_str!("dashboard/index.html");

/// The files that the page asks for: name, media type, text.
const FILES: [(&str, &str, &str); 15] = [
    ("style.css", STYLE, include_str!("dashboard/style.css")),
    ("main.js", SCRIPT, include_str!("dashboard/main.js")),
    ("access.js", SCRIPT, include_str!("dashboard/access.js")),
    ("change.js", SCRIPT, include_str!("dashboard/change.js")),
    ("charts.js", SCRIPT, include_str!("dashboard/charts.js")),
    ("detail.js", SCRIPT, include_str!("dashboard/detail.js")),
    ("dom.js", SCRIPT, include_str!("dashboard/dom.js")),
    ("events.js", SCRIPT, include_str!("dashboard/events.js")),
    ("words.js", SCRIPT, include_str!("dashboard/words.js")),
    ("replicas.js", SCRIPT, include_str!("dashboard/replicas.js")),
    ("rates.js", SCRIPT, include_str!("dashboard/rates.js")),
    ("rollout.js", SCRIPT, include_str!("dashboard/rollout.js")),
    ("uplot.js", SCRIPT, include_str!("dashboard/uplot/uplot.js")),
    ("uplot.css", STYLE, include_str!("dashboard/uplot/uplot.css")),
    ("uplot.LICENSE", TEXT, include_str!("dashboard/uplot/LICENSE")),
];

/// The dashboard, for a browser.
#[utoipa::path(
    get,
    path = "/",
    tag = "dashboard",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        (status = 403, description = "A request from this machine for a foreign host (DNS rebinding).",
            body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_page() -> Response {
    file(HTML, PAGE)
}

/// A file of the dashboard.
#[utoipa::path(
    get,
    path = "/dashboard/{file}",
    tag = "dashboard",
    params(("file" = String, Path, description = "Its name, as the page asks for it.")),
    responses(
        (status = 200, description = "The file.", body = String, content_type = "text/javascript"),
        (status = 403, description = "A request from this machine for a foreign host (DNS rebinding).",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such file.", body = ProblemDetails,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_file(name: Result<Path<String>, PathRejection>) -> Result<Response, Refused> {
    let known = name.ok().and_then(|Path(name)| FILES.iter().find(|(known, ..)| *known == name));
    let (_, kind, text) = known.ok_or_else(|| {
        let detail =
            "the dashboard has no such file: load `/` again, for the router may be another version by now";
        Refused::new(StatusCode::NOT_FOUND, "unknown-file", detail)
    })?;
    Ok(file(kind, text))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page and its scripts ask for is there, what is there is asked for, and nothing comes from elsewhere.
    #[test]
    fn the_files_are_those_that_are_asked_for() {
        let mut asked: Vec<_> =
            PAGE.split("\"/dashboard/").skip(1).filter_map(|r| r.split('"').next()).collect();
        let own = FILES.iter().filter(|(name, ..)| !name.starts_with("uplot"));
        for (name, _, text) in own.clone() {
            asked.extend(text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()));
            for outside in
                ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(outside), "{name} has {outside}");
            }
        }
        for outside in ["http:", "https:", "<style", "style=", " on", "<script>"] {
            assert!(!PAGE.contains(outside), "the page has {outside}");
        }
        asked.sort_unstable();
        asked.dedup();
        let mut there: Vec<_> =
            FILES.iter().map(|(name, ..)| *name).filter(|n| *n != "uplot.LICENSE").collect();
        there.sort_unstable();
        assert_eq!(asked, there);
    }
}
