//! Targets, and the one way to write each.

use super::*;

fn edge(escaped_slashes: EscapedSlashes, merge_slashes: bool) -> Edge {
    Edge { escaped_slashes, merge_slashes, ..Edge::default() }
}

/// What is made of a target, `-` where it is refused.
fn normalised(raw: &str, edge: &Edge) -> String {
    let mut out = "what was there before".to_owned();
    match normalise_target(raw, edge, &mut out) {
        Ok(()) => out,
        Err(refused) => {
            assert_eq!(refused.status, 400, "{raw}");
            "-".to_owned()
        }
    }
}

#[track_caller]
fn check(edge: &Edge, cases: &[(&str, &str)]) {
    for (raw, expected) in cases {
        let once = normalised(raw, edge);
        assert_eq!(once, *expected, "{raw}");
        if once != "-" {
            assert_eq!(normalised(&once, edge), once, "{raw}: not settled after one pass");
        }
    }
}

#[test]
fn dot_segments_go() {
    check(
        &Edge::default(),
        &[
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2E/b", "/a/b"),
            ("/a/...", "/a/..."),
            ("/a/..b", "/a/..b"),
            ("/a/.b", "/a/.b"),
            ("/a../b", "/a../b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a//../b", "/a/b"),
            ("//../a", "/a"),
            ("/a/../b?c=/../d", "/b?c=/../d"),
            ("/..", "-"),
            ("/../a", "-"),
            ("/a/../../b", "-"),
            ("/%2e%2e/a", "-"),
            ("/./..", "-"),
            ("/a/..;/b", "-"),
            ("/a/..;x=1/b", "-"),
            ("/a/.;/b", "-"),
            ("/a/%2e%2e;/b", "-"),
            ("/a/..%3B/b", "/a/..%3B/b"),
            ("/a;x=1/b", "/a;x=1/b"),
        ],
    );
}

#[test]
fn escapes_are_written_in_one_way() {
    check(
        &Edge::default(),
        &[
            ("/%61%7E%2d%5f%41", "/a~-_A"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%20%3f%23", "/%20%3F%23"),
            ("/%25%32%65", "/%252e"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/%252f", "/%252f"),
            ("/%0d%0a", "/%0D%0A"),
            ("/%", "-"),
            ("/%4", "-"),
            ("/%4/", "-"),
            ("/%zz", "-"),
            ("/%+1", "-"),
            ("/%-1", "-"),
            ("/% 1", "-"),
            ("/%%41", "-"),
            ("/%u0041", "-"),
            ("/%00", "-"),
            ("/a%00.html", "-"),
        ],
    );
}

#[test]
fn escaped_slashes_are_refused_or_left_as_they_are() {
    let raw = [("/a%2fb", "-"), ("/a%2Fb", "-"), ("/a%5cb", "-"), ("/a%5Cb", "-"), ("/..%2fa", "-")];
    check(&edge(EscapedSlashes::Reject, false), &raw);
    let raw = [
        ("/a%2fb", "/a%2fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%5cb%61", "/a%5cba"),
        ("/a/..%2fb", "/a/..%2fb"),
        ("/a/%2e%2e/%2f", "/%2f"),
    ];
    check(&edge(EscapedSlashes::Pass, false), &raw);
    // Of a query it is not the router's business.
    check(&Edge::default(), &[("/?a=%2f%5c", "/?a=%2f%5c")]);
}

#[test]
fn slashes_are_merged_where_it_is_asked() {
    let raw = [("//", "//"), ("/a//b", "/a//b"), ("/a/", "/a/"), ("//example.com/x", "//example.com/x")];
    check(&edge(EscapedSlashes::Reject, false), &raw);
    let raw = [
        ("//", "/"),
        ("///a", "/a"),
        ("/a//b", "/a/b"),
        ("/a//", "/a/"),
        ("/a//../b", "/b"),
        ("/a/.//", "/a/"),
        ("/a/..//b", "/b"),
        ("/a//./b", "/a/b"),
        ("/%2e//a", "/a"),
        ("/a?b=//c", "/a?b=//c"),
        ("//..", "-"),
    ];
    check(&edge(EscapedSlashes::Reject, true), &raw);
}

#[test]
fn a_query_is_checked_and_not_touched() {
    check(
        &Edge::default(),
        &[
            ("/?", "/?"),
            ("/??", "/??"),
            ("/a?b=%zz&c=100%", "/a?b=%zz&c=100%"),
            ("/?q=%00", "/?q=%00"),
            ("/?q=%41/../%2e", "/?q=%41/../%2e"),
            ("/?q={}|^`[]\\", "/?q={}|^`[]\\"),
            ("/?q={\"a\":1}", "/?q={%22a%22:1}"),
            ("/?<", "-"),
            ("/?>", "-"),
            ("/./?q=%61", "/?q=%61"),
            ("/?a#b", "-"),
            ("/?a b", "-"),
            ("/?a\tb", "-"),
            ("/?a\x7f", "-"),
            ("/?\u{e9}", "-"),
        ],
    );
}

/// Every character that may be written as it is in a path or a query; `?` ends the path. [`http::Uri`] takes them all: what
/// comes by HTTP/1 can be sent on by HTTP/2.
#[test]
fn the_characters_of_a_target_are_known() {
    let edge = Edge::default();
    let taken = |before: &str| -> String {
        let is_taken = |c: &char| {
            let raw = format!("{before}{c}x");
            let target = normalised(&raw, &edge);
            let taken = target != "-";
            assert!(!taken || target.parse::<http::uri::PathAndQuery>().is_ok(), "{raw}");
            taken
        };
        (0..=0xff_u8).map(char::from).filter(is_taken).collect()
    };
    // A percent sign is only half an escape here.
    let path = "!\"$&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_abcdefghijklmnopqrstuvwxyz{|}~";
    assert_eq!(taken("/"), path);
    let query =
        "!\"$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
    assert_eq!(taken("/?"), query);
}

#[test]
fn a_target_begins_with_a_slash_and_ends_some_time() {
    check(
        &Edge::default(),
        &[("", "-"), ("a", "-"), ("*", "-"), ("?a", "-"), ("http://a/", "-"), ("/a#b", "-")],
    );
    let edge = Edge { request_line: 10, ..Edge::default() };
    let mut out = String::new();
    assert_eq!(normalise_target("/123456789", &edge, &mut out), Ok(()));
    assert_eq!(normalise_target("/1234567890", &edge, &mut out).map_err(|e| e.status), Err(414));
}
