//! Config files: whatever the text, no panic, and an answer that can be shown or used.

use serinus::config::{self, Settings};

/// Checks what is made of `data` as a config file.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse("f", text) {
        Ok(settings) => usable(&settings),
        Err(found) => {
            let lines = text.split(['\n', '\r']).count();
            assert!(!found.errors().is_empty() && found.errors().len() <= 100);
            for error in found.errors() {
                assert!(error.line >= 1 && error.line <= lines + 1, "{error} of {lines}");
                assert!(error.column >= 1 && !error.message.is_empty(), "{error}");
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
                assert!(error.to_string().chars().count() < 3_000, "{error}");
            }
        }
    }
}

/// What the rest of Serinus relies on.
fn usable(settings: &Settings) {
    assert!((1..=100).contains(&settings.listeners.len()));
    for listener in &settings.listeners {
        let edge = &listener.edge;
        assert!(edge.header_count >= 1 && edge.header_bytes >= 1 && edge.request_line >= 1);
        assert!(edge.connections >= 1 && edge.streams >= 1);
        assert!(!edge.header_timeout.is_zero() && !edge.idle_timeout.is_zero());
        if let Some(tls) = &listener.tls {
            assert!(!tls.certificates.is_empty() && edge.redirect.is_none());
        }
    }
    for route in &settings.routes {
        assert!(!route.versions.is_empty());
        let weights = route.weights();
        assert_eq!(weights.iter().map(|(_, weight)| u64::from(weight.millionths())).sum::<u64>(), 1_000_000);
        let traffic = &route.traffic;
        assert!((1..=10).contains(&traffic.retries.attempts) && traffic.retries.budget <= 100);
        assert!(traffic.retries.on.is_sorted() && traffic.outliers.most <= 100);
        assert!(traffic.outliers.longest >= traffic.outliers.eject && !traffic.timeouts.connect.is_zero());
        assert!(traffic.outliers.success_rate.is_none_or(|rate| (0.0..=1.0).contains(&rate)));
        assert!(traffic.health_check.as_ref().is_none_or(|asked| asked.path.starts_with('/')));
    }
}
