//! Who is asked: `Host` and other authorities.

use std::net::Ipv6Addr;

use crate::wire::Refused;

/// Checks that `text` is a host with or without a port, and nothing else (RFC 9110 §4.2.3, RFC 3986 §3.2.2).
///
/// Of names, the letters, digits, `-`, `.` and `_` are taken: what DNS and clusters use. The rest of what RFC 3986 allows
/// (`%` and punctuation) is in no name that can be asked for, and in many that somebody would like to see in a page.
///
/// # Errors
/// When it is anything else.
pub fn check_authority(text: &[u8]) -> Result<(), Refused> {
    // Most are a name alone.
    if check_name(text).is_ok() {
        return Ok(());
    }
    let (host, port) = split_port(text)?;
    if let Some(port) = port {
        check_port(port)?;
    }
    match host.strip_prefix(b"[") {
        Some(rest) => check_v6(rest),
        None => check_name(host),
    }
}

/// The host, with its brackets, and the port.
fn split_port(text: &[u8]) -> Result<(&[u8], Option<&[u8]>), Refused> {
    let after = match text.iter().position(|byte| *byte == b']') {
        Some(end) => end + 1,
        None => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(after).unwrap_or((text, &[]));
    match rest.split_first() {
        None => Ok((host, None)),
        Some((b':', port)) => Ok((host, Some(port))),
        Some(_) => Err(NOT_A_HOST),
    }
}

const NOT_A_HOST: Refused = Refused::bad("the host is not a name or an address, with or without a port");

fn check_port(port: &[u8]) -> Result<(), Refused> {
    let number = std::str::from_utf8(port).ok().and_then(|text| text.parse::<u16>().ok());
    if number.is_some() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit) {
        Ok(())
    } else {
        Err(Refused::bad("the host's port is not a number from 0 to 65535"))
    }
}

/// What follows the `[` of an IPv6 address. Zones are of one machine, and refused.
fn check_v6(rest: &[u8]) -> Result<(), Refused> {
    let address = rest.strip_suffix(b"]").and_then(|inside| std::str::from_utf8(inside).ok());
    match address.map(str::parse::<Ipv6Addr>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(NOT_A_HOST),
    }
}

/// A name, or an IPv4 address, which is one too.
fn check_name(name: &[u8]) -> Result<(), Refused> {
    // The longest name in DNS has 253 bytes, and may end in a dot.
    if name.is_empty() || name.len() > 254 {
        return Err(NOT_A_HOST);
    }
    let mut before = b'.';
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if before != b'.' => {}
            _ => return Err(NOT_A_HOST),
        }
        before = *byte;
    }
    Ok(())
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
