//! Values of HTTP and TLS: the names of headers, cookies, hosts, and what is asked for.

use serde_json::json;
use url::Url;

use super::errors::{Errors, Place, shorten};
use super::input::{Input, read_text};
use super::settings::HostPort;
use super::values::text_value;
use super::yaml::Node;
use crate::model::HostMatch;

/// The name of a header, in lower case.
#[derive(Clone, Debug)]
pub(super) struct HeaderName(pub(super) String);

text_value!(HeaderName, "the name of a header", {"title": "header name", "pattern": TOKEN}, |text| {
    token(text, "header", "X-User").map(|name| Self(name.to_ascii_lowercase()))
});

/// The name of a cookie.
#[derive(Clone, Debug)]
pub(super) struct CookieName(pub(super) String);

text_value!(CookieName, "the name of a cookie", {"title": "cookie name", "pattern": TOKEN}, |text| {
    token(text, "cookie", "session").map(|name| Self(name.to_owned()))
});

/// What header names and cookie names are made of (RFC 9110 §5.6.2, RFC 6265 §4.1.1).
const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$";

fn token<'t>(text: &'t str, of: &str, like: &str) -> Result<&'t str, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text);
    }
    let text = shorten(text, 80);
    Err(format!("`{text}` cannot be the name of a {of}: use letters, digits and `-`, like `{like}`"))
}

/// The host of a request of our own, with or without a port.
pub(super) struct Host(pub(super) String);

text_value!(Host, "a host", {"title": "host", "minLength": 1, "maxLength": 262}, |text| {
    let address = || text.parse::<HostPort>().ok().map(|address| address.to_string());
    let host = match text.parse() {
        Ok(HostMatch::Exact(host)) => Some(host),
        Ok(HostMatch::Suffix(_)) | Err(_) => address(),
    };
    host.map(Self).ok_or_else(|| {
        format!("`{}` is not a host: write a name, like shop.example.com, or NAME:PORT", shorten(text, 80))
    })
});

/// The name in a certificate: of a host, or an IP address.
pub(super) struct ServerName(pub(super) String);

text_value!(ServerName, "the name in a certificate", {"title": "host", "minLength": 1, "maxLength": 256}, |text| {
    match text.parse() {
        Ok(HostMatch::Exact(name)) => {
            Ok(Self(name.trim_start_matches('[').trim_end_matches(']').to_owned()))
        }
        Ok(HostMatch::Suffix(_)) => Err(format!(
            "`{}` stands for many names, and one is asked for: write it whole, like shop.example.com",
            shorten(text, 80)
        )),
        Err(e) => Err(e.to_string()),
    }
});

/// What is asked for: a path, with or without a query.
pub(super) struct Target(pub(super) String);

text_value!(Target, "a path", {"title": "path with query", "pattern": "^/[!\"$-~]*$", "maxLength": 2048}, |text| {
    // What can stand in a request line, less the fragment, which is never sent (RFC 9110 §7.1).
    let fits = |b: u8| b.is_ascii_graphic() && b != b'#';
    if text.starts_with('/') && text.len() <= 2048 && text.bytes().all(fits) {
        Ok(Self(text.to_owned()))
    } else {
        let text = shorten(text, 80);
        Err(format!("`{text}` is not a path: begin with `/`, without spaces or `#`, others as %XX, like /healthz"))
    }
});

/// The name of a query parameter, decoded.
pub(super) struct QueryName(pub(super) String);

text_value!(QueryName, "the name of a query parameter", {"title": "query parameter", "minLength": 1, "maxLength": 256}, |text| {
    if text.is_empty() {
        Err("is empty: write the name of a query parameter, like `preview`".to_owned())
    } else if text.chars().count() <= 256 {
        Ok(Self(text.to_owned()))
    } else {
        Err("is longer than 256 characters: no query parameter is called that".to_owned())
    }
});

/// What a value must be; may be empty.
pub(super) struct ValueText(pub(super) String);

text_value!(ValueText, "a text", {"title": "text", "maxLength": 4096}, |text| {
    if text.chars().count() <= 4096 {
        Ok(Self(text.to_owned()))
    } else {
        Err("is longer than 4096 characters: use `regex` on what it begins with".to_owned())
    }
});

/// An expression over whole values, not compiled yet: that is dear, and `check` counts them.
pub(super) struct ValueRegex(pub(super) String);

text_value!(ValueRegex, "a regular expression", {"title": "regex", "minLength": 1}, |text| {
    if text.is_empty() {
        Err("is empty: write a regular expression over the whole value, like beta-[0-9]+".to_owned())
    } else {
        Ok(Self(text.to_owned()))
    }
});

/// What is hashed before a user's key.
pub(super) struct Salt(pub(super) String);

text_value!(Salt, "a text", {"title": "text", "minLength": 1, "maxLength": 256}, |text| {
    match text.chars().count() {
        0 => Err("is empty: write a text, or leave the field out".to_owned()),
        1..=256 => Ok(Self(text.to_owned())),
        _ => Err("is longer than 256 characters: a few will do".to_owned()),
    }
});

/// A method that can be routed.
pub(super) struct MethodName(pub(super) String);

text_value!(MethodName, "a method", {"title": "method", "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]{1,32}$"}, |text| {
    let upper = text.to_ascii_uppercase();
    let fits = (1..=32).contains(&text.len()) && token(&upper, "method", "GET").is_ok();
    let text = shorten(text, 40);
    if !fits {
        Err(format!("`{text}` is not a method: write one like GET"))
    } else if text != upper {
        Err(format!("`{text}` is another method than {upper}: write {upper}"))
    } else if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        Err(format!("{upper} is answered 405 and never routed: remove it"))
    } else {
        Ok(Self(upper))
    }
});

/// Where a webhook is.
pub(super) struct HookUrl(pub(super) String);

text_value!(HookUrl, "a URL", {"title": "URL", "pattern": "^https?://", "maxLength": 2048}, |text| {
    web_url(text, "https://hooks.example.com/serinus").map(|_| Self(text.to_owned()))
});

/// Where a collector takes spans.
pub(super) struct CollectorUrl(pub(super) String);

text_value!(CollectorUrl, "a URL", {"title": "URL", "pattern": "^https?://", "maxLength": 2048}, |text| {
    let mut url = web_url(text, "http://otel-collector.observability:4318")?;
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(Self(url.into()))
});

/// A URL that can be called. What is after the host may be a secret: it is not repeated.
fn web_url(text: &str, like: &str) -> Result<Url, String> {
    let bad = |what: &str| Err(format!("{what}: write a URL like {like}"));
    let Ok(url) = text.parse::<Url>() else { return bad("is not a URL") };
    if text.len() > 2048 {
        return bad("is longer than 2048 characters");
    }
    if !(text.starts_with("http://") || text.starts_with("https://")) || !url.has_host() {
        return bad("is not one of http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("has a user or a password, which is not sent");
    }
    if url.fragment().is_some() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return bad("has a `#`, or what must be written as %XX");
    }
    Ok(url)
}
