//! Whether a request is copied (`mirror`), and why not: for `serinus explain`.

use crate::model::MIRROR_HEADER;

use super::explain::VersionOdds;
use super::mirror::NeverCopied;
use super::request_view::RequestView;
use super::table::Route;

impl Route {
    /// What the route's mirror makes of a request that gets one of these versions, in words; nothing where there is no mirror.
    pub(super) fn explain_mirror(
        &self,
        request: &dyn RequestView,
        versions: &[VersionOdds],
    ) -> Option<String> {
        let mirror = self.mirror.as_ref()?;
        let spec = &mirror.spec;
        let goes_there = versions.iter().any(|version| version.name == spec.version);
        let only_there = goes_there && versions.len() == 1;
        let not = |why: String| Some(format!("mirror: not copied to version `{}`: {why}", spec.version));
        if self.known && versions.iter().all(|version| version.endpoints.is_empty()) {
            return not("it gets no answer of a pod".to_owned());
        }
        let is_copy = || any(request, MIRROR_HEADER, |_| true);
        if let Some(never) = mirror.never(only_there, request.method(), upgrades(request), is_copy) {
            return not(match never {
                NeverCopied::GoesThere => "it goes there itself".to_owned(),
                NeverCopied::Method => {
                    let methods: Vec<_> = spec.methods.iter().map(|method| method.as_str()).collect();
                    format!("the method is not {}", methods.join(" or "))
                }
                NeverCopied::Upgrade => "it asks for another protocol (`Upgrade`)".to_owned(),
                NeverCopied::IsCopy => format!("it is a copy itself (`{MIRROR_HEADER}`)"),
            });
        }
        let length = length(request);
        if let Some(length) = length.filter(|length| *length > spec.max_body) {
            return not(format!("its body has {length} bytes, more than the {} of `maxBody`", spec.max_body));
        }
        let when = if goes_there { ", where they do not go there themselves," } else { "" };
        let mut words = format!(
            "mirror: of such requests{when} {} % are copied to version `{}`",
            spec.share, spec.version
        );
        if length.is_none() && any(request, "transfer-encoding", |_| true) {
            words.push_str(&format!(", unless the body comes to more than {} bytes", spec.max_body));
        }
        Some(words)
    }
}

fn any(request: &dyn RequestView, name: &str, mut fits: impl FnMut(&[u8]) -> bool) -> bool {
    request.header(name, &mut fits)
}

/// Whether it would like to speak another protocol (RFC 9110 §7.8).
fn upgrades(request: &dyn RequestView) -> bool {
    let names_it = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    any(request, "connection", names_it) && any(request, "upgrade", |value| !value.is_empty())
}

/// How long its body says it is, in bytes.
fn length(request: &dyn RequestView) -> Option<u64> {
    let mut length = None;
    any(request, "content-length", |value| {
        length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        true
    });
    length
}
