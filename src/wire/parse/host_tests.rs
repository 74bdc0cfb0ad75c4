//! Hosts that are one, and those that are something else.

use super::*;

#[test]
fn hosts_are_names_and_addresses_with_or_without_a_port() {
    for host in [
        "a",
        "example.com",
        "EXAMPLE.com.",
        "a-b_c.d1",
        "1.2.3.4",
        "1.2.3.4:0",
        "example.com:65535",
        "example.com:00080",
        "[::1]",
        "[::1]:8080",
        "[2001:DB8::1]:1",
        "[::ffff:1.2.3.4]",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(check_authority(host.as_bytes()), Ok(()), "{host}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    for host in [
        "",
        ":80",
        "a:",
        "a:x",
        "a:65536",
        "a:123456",
        "a:000080",
        "a:99999999999999999999999",
        "a:-1",
        "a:+1",
        "a:80:80",
        "a b",
        "a,b",
        "a\tb",
        "a@b",
        "u:p@b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%41",
        "a;b",
        "a'b",
        "a(b",
        "a<b>",
        ".",
        ".a",
        "a..b",
        "a.b..",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]]",
        "::1]",
        "[]",
        "[v1.a]",
        "[::1%25eth0]",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "a[::1]",
        "[::1]:",
        "b\u{fc}cher",
        "a\0",
    ] {
        assert!(check_authority(host.as_bytes()).is_err(), "{host}");
    }
    assert!(check_authority(&[b'a', 0xff]).is_err());
    assert_eq!(check_authority("a".repeat(254).as_bytes()), Ok(()));
    assert!(check_authority("a".repeat(255).as_bytes()).is_err());
}
