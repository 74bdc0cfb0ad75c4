//! Label selectors: no panic, what is shown means the same, a comma is AND, `!=` is the opposite of `=`.

use std::collections::BTreeMap;

use serinus::model::Selector;

/// Checks `data` as lines: two selectors, then labels as `KEY=VALUE`.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let labels: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let read = |text: &str| match text.parse::<Selector>() {
        Ok(selector) => {
            shown_means_the_same(&selector, &labels);
            Some(selector)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    if let (Some(a), Some(b)) = (read(first), read(second)) {
        let both: Selector = format!("{first},{second}").parse().expect("two selectors with a comma are one");
        assert_eq!(both.matches(&labels), a.matches(&labels) && b.matches(&labels));
    }
    // What has signs of the grammar in it means something else beside an operator: `a` `=` `=b`.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    for (key, value) in labels.iter().filter(|(key, value)| plain(key) && plain(value)) {
        let equal = format!("{key}={value}").parse::<Selector>();
        let other = format!("{key}!={value}").parse::<Selector>();
        assert_eq!(equal.is_ok(), other.is_ok(), "{key} {value}");
        if let (Ok(equal), Ok(other)) = (equal, other) {
            assert_ne!(equal.matches(&labels), other.matches(&labels), "{key} {value}");
        }
    }
}

fn shown_means_the_same(selector: &Selector, labels: &BTreeMap<String, String>) {
    let shown = selector.to_string();
    let again: Selector = shown.parse().expect("what is shown can be read");
    assert_eq!(again.to_string(), shown);
    assert_eq!(again.matches(labels), selector.matches(labels), "{shown}");
    assert_eq!(again.matches(&BTreeMap::new()), selector.matches(&BTreeMap::new()), "{shown}");
}
