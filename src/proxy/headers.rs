//! What is added to, and kept from, the headers that pass (contract §5).
//!
//! Fields for one hop alone end in `wire`, which reads and writes them itself.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::wire::{Fields, RequestHead};

use super::mirror::MIRROR;
use super::request::{REQUEST_ID, RequestId};

const FORWARDED_FOR: &str = "X-Forwarded-For";
pub(super) const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
/// What others may say of a client, and only trusted hops may: by how the names begin, and whole.
const CLIENTS_WORD_BEGINS: [&str; 3] = ["X-Forwarded", "X-Real-", "X-Original-"];
const CLIENTS_WORD: [&str; 6] =
    ["Forwarded", "X-Rewrite-URL", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "Front-End-Https"];

/// Whether a field is one that says something of the client that a pod may believe.
fn is_clients_word(name: &[u8]) -> bool {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|b| b.eq_ignore_ascii_case(with.as_bytes()));
    // All of them begin with one of three letters.
    matches!(name.first(), Some(b'X' | b'x' | b'F' | b'f' | b'T' | b't'))
        && (CLIENTS_WORD_BEGINS.iter().any(|with| begins(with))
            || CLIENTS_WORD
                .iter()
                .chain([&REQUEST_ID, &MIRROR])
                .any(|n| name.eq_ignore_ascii_case(n.as_bytes())))
}

/// The hop before this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop<'a> {
    /// Its address.
    pub(super) address: &'a str,
    /// Whether its word about the client counts (`trustedProxies`).
    pub(super) trusted: bool,
}

/// Tells the pod who asked, for what, and under which id. What a trusted hop said of that is kept, and its own address added;
/// anyone else's word is replaced.
pub(super) fn tell_upstream(head: &mut RequestHead, hop: Hop<'_>, scheme: &'static str, id: &RequestId) {
    let fields = &mut head.fields;
    if hop.trusted {
        let mut chain = String::new();
        for address in forwarded_for(fields) {
            chain.push_str(address);
            chain.push_str(", ");
        }
        chain.push_str(hop.address);
        fields.remove(FORWARDED_FOR);
        fields.remove(REQUEST_ID);
        fields.append(REQUEST_ID, id.as_bytes());
        fields.append(FORWARDED_FOR, chain);
    } else {
        fields.retain(|name, _| !is_clients_word(name));
        fields.append(REQUEST_ID, id.as_bytes());
        fields.append(FORWARDED_FOR, hop.address);
    }
    // Who is not trusted has said none of these.
    let says = |name| hop.trusted && fields.get(name).is_some();
    let (proto, host) = (says(FORWARDED_PROTO), says(FORWARDED_HOST));
    if !proto {
        fields.append(FORWARDED_PROTO, scheme);
    }
    if !host && !head.authority.is_empty() {
        fields.append(FORWARDED_HOST, &head.authority);
    }
}

/// The client behind trusted hops: of `X-Forwarded-For` and the hop itself, the last address that is not a trusted one.
pub(super) fn client_behind(fields: &Fields, hop: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = hop;
    let chain: Vec<_> = forwarded_for(fields).collect();
    for address in chain.iter().rev() {
        if !trusted.iter().any(|net| net.contains(&client)) {
            break;
        }
        match address.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

fn forwarded_for(fields: &Fields) -> impl Iterator<Item = &str> {
    fields.elements(FORWARDED_FOR).filter_map(|address| std::str::from_utf8(address).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(authority: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead { authority: authority.to_owned(), ..RequestHead::default() };
        fields.iter().for_each(|(name, value)| head.fields.append(name, value));
        head
    }

    fn id(text: &str) -> RequestId {
        RequestId::Kept(text.to_owned())
    }

    fn get<'a>(head: &'a RequestHead, name: &str) -> Vec<&'a str> {
        head.fields.all(name).map(|value| std::str::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn a_trusted_hops_word_is_kept_and_its_address_added() {
        let mut request = head(
            "shop.internal",
            &[
                ("X-Forwarded-For", "203.0.113.7, 10.1.1.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "shop.example.com"),
                ("X-Real-IP", "203.0.113.7"),
                ("X-Request-Id", "theirs"),
            ],
        );
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        let hop = IpAddr::from([10, 0, 0, 9]);
        let kept = RequestId::kept(&request.fields).unwrap();
        assert_eq!(client_behind(&request.fields, hop, &trusted), IpAddr::from([203, 0, 113, 7]));
        tell_upstream(&mut request, Hop { address: &hop.to_string(), trusted: true }, "http", &kept);
        assert_eq!(get(&request, "x-forwarded-for"), ["203.0.113.7, 10.1.1.1, 10.0.0.9"]);
        assert_eq!(get(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(get(&request, "x-forwarded-host"), ["shop.example.com"]);
        assert_eq!(get(&request, "x-real-ip"), ["203.0.113.7"]);
        assert_eq!(get(&request, "x-request-id"), ["theirs"]);
        // What a client wrote before its first trusted hop is not believed.
        request.fields.set("X-Forwarded-For", "6.6.6.6, 203.0.113.7");
        assert_eq!(client_behind(&request.fields, hop, &trusted), IpAddr::from([203, 0, 113, 7]));
    }

    #[test]
    fn a_clients_word_about_itself_is_replaced() {
        let mut request = head(
            "shop.example.com",
            &[
                ("X-Forwarded-For", "6.6.6.6"),
                ("x-forwarded-proto", "https"),
                ("X-Forwarded-Host", "evil"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Real-IP", "6.6.6.6"),
                ("x-request-id", "mine"),
                ("X-Kept", "1"),
                ("X-Forwarded-Ssl", "on"),
                ("x-forwarded-prefix", "/admin"),
                ("X-Original-URL", "/admin"),
                ("True-Client-IP", "6.6.6.6"),
                ("x-serinus-mirror", "true"),
                ("Traceparent", "00-abc"),
            ],
        );
        tell_upstream(&mut request, Hop { address: "10.0.0.9", trusted: false }, "http", &id("id"));
        assert_eq!(get(&request, "x-forwarded-for"), ["10.0.0.9"]);
        assert_eq!(get(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(get(&request, "x-forwarded-host"), ["shop.example.com"]);
        assert_eq!(get(&request, "x-request-id"), ["id"]);
        assert_eq!((get(&request, "traceparent"), get(&request, "x-kept")), (vec!["00-abc"], vec!["1"]));
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-ssl",
            "x-forwarded-prefix",
            "x-original-url",
            "true-client-ip",
            "x-serinus-mirror",
        ] {
            assert!(get(&request, name).is_empty(), "{name}");
        }
    }
}
