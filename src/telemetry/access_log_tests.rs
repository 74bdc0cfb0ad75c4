//! Lines of both forms to the letter, what hostile clients may send, and the draw.

use super::*;

const TLS: AccessTls<'_> =
    AccessTls { version: "TLSv1.3", resumed: false, server_name: Some("shop.example") };

/// A request with all that can be known of one.
fn whole<'a>(pod: &'a PodKey) -> AccessEntry<'a> {
    AccessEntry {
        time: Timestamp::from_millis(1_795_774_800_123),
        client: "192.0.2.7".parse().unwrap(),
        method: "GET",
        host: "shop.example:8443",
        path: "/cart?a=b",
        protocol: Some("HTTP/2"),
        tls: Some(TLS),
        status: 200,
        route: Some("shop"),
        version: Some("v2"),
        reason: Some("weight"),
        answer: None,
        failure: None,
        upstream: Some("10.0.0.2:80".parse().unwrap()),
        pod: Some(pod),
        tried: vec!["10.0.0.1:80".parse().unwrap(), "[fd00::1]:80".parse().unwrap()],
        attempts: 3,
        duration_ms: 12.345,
        connect_ms: Some(0.25),
        first_byte_ms: Some(11.0),
        bytes: 512,
        request_id: "0123456789abcdef0123456789abcdef",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        referer: Some(b"https://shop.example/"),
        user_agent: Some(b"curl/8.5.0"),
    }
}

/// One of which nothing was read.
fn nothing<'a>() -> AccessEntry<'a> {
    AccessEntry {
        time: Timestamp::from_millis(0),
        client: "2001:db8::1".parse().unwrap(),
        method: "",
        host: "",
        path: "",
        protocol: None,
        tls: None,
        status: 400,
        route: None,
        version: None,
        reason: None,
        answer: Some("bad-request"),
        failure: None,
        upstream: None,
        pod: None,
        tried: Vec::new(),
        attempts: 0,
        duration_ms: 0.5,
        connect_ms: None,
        first_byte_ms: None,
        bytes: 0,
        request_id: "id",
        trace_id: None,
        referer: None,
        user_agent: None,
    }
}

fn pod() -> PodKey {
    PodKey { namespace: "web".into(), name: "shop-7d9f-x2".into() }
}

fn text(entry: &AccessEntry<'_>) -> String {
    let mut line = Vec::new();
    access_text::write(entry, &mut line);
    String::from_utf8(line).unwrap()
}

#[test]
fn as_text_a_line_is_the_combined_format_and_more() {
    assert_eq!(
        text(&whole(&pod())),
        "192.0.2.7 - - [27/Nov/2026:10:20:00 +0000] \"GET /cart?a=b HTTP/2\" 200 512 \"https://shop.example/\" \
         \"curl/8.5.0\" host=shop.example:8443 route=shop version=v2 reason=weight upstream=10.0.0.2:80 \
         pod=web/shop-7d9f-x2 tried=10.0.0.1:80,[fd00::1]:80 attempts=3 durationMs=12.345 connectMs=0.25 firstByteMs=11 \
         requestId=0123456789abcdef0123456789abcdef traceId=4bf92f3577b34da6a3ce929d0e0e4736 tls=TLSv1.3 resumed=false \
         serverName=shop.example"
    );
    assert_eq!(
        text(&nothing()),
        "2001:db8::1 - - [01/Jan/1970:00:00:00 +0000] \"- - -\" 400 0 \"-\" \"-\" answer=bad-request attempts=0 \
         durationMs=0.5 requestId=id"
    );
}

#[test]
fn as_json_a_line_has_the_names_that_it_always_had_and_more() {
    assert_eq!(
        serde_json::to_string(&whole(&pod())).unwrap(),
        "{\"time\":\"2026-11-27T10:20:00.123Z\",\"client\":\"192.0.2.7\",\"method\":\"GET\",\"host\":\"shop.example:8443\",\
         \"path\":\"/cart?a=b\",\"protocol\":\"HTTP/2\",\
         \"tls\":{\"version\":\"TLSv1.3\",\"resumed\":false,\"serverName\":\"shop.example\"},\"status\":200,\"route\":\"shop\",\
         \"version\":\"v2\",\"reason\":\"weight\",\"answer\":null,\"upstream\":\"10.0.0.2:80\",\"pod\":\"web/shop-7d9f-x2\",\
         \"tried\":[\"10.0.0.1:80\",\"[fd00::1]:80\"],\"attempts\":3,\"durationMs\":12.345,\"connectMs\":0.25,\
         \"firstByteMs\":11.0,\"bytes\":512,\"requestId\":\"0123456789abcdef0123456789abcdef\",\
         \"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}"
    );
    assert_eq!(
        serde_json::to_string(&nothing()).unwrap(),
        "{\"time\":\"1970-01-01T00:00:00.000Z\",\"client\":\"2001:db8::1\",\"method\":\"\",\"host\":\"\",\"path\":\"\",\
         \"status\":400,\"route\":null,\"version\":null,\"reason\":null,\"answer\":\"bad-request\",\"upstream\":null,\
         \"attempts\":0,\"durationMs\":0.5,\"bytes\":0,\"requestId\":\"id\"}"
    );
}

#[test]
fn nothing_that_a_client_sends_ends_a_line_or_a_field_of_it() {
    let long = [b'u'; 2_000];
    let hostile = AccessEntry {
        method: "GE\"T",
        path: "/a\"b\\c\u{1b}[2J\r\n\u{7f}é\u{202e}",
        host: "a b\" route=other",
        request_id: "x y",
        failure: Some("it said \"no\"\n"),
        referer: Some(b"\xff\"\t"),
        user_agent: Some(&long),
        ..nothing()
    };
    let line = text(&hostile);
    assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line}");
    assert!(line.contains(
        r#""GE\x22T /a\x22b\x5Cc\x1B[2J\x0D\x0A\x7F\xC3\xA9\xE2\x80\xAE -" 400 0 "\xFF\x22\x09" "uuu"#
    ));
    assert!(line.contains(r#" host="a b\x22 route=other" "#), "{line}");
    assert!(line.ends_with(r#" requestId="x y" failure="it said \x22no\x22\x0A""#), "{line}");
    assert_eq!(
        line.matches('u').count(),
        512 + " route answer bad-request durationMs requestId failure".matches('u').count()
    );
    let json = serde_json::to_string(&hostile).unwrap();
    assert!(!json.bytes().any(|b| b < b' '), "{json}");
}

#[test]
fn of_what_went_well_the_share_is_drawn_and_of_the_rest_none_is_left_out() {
    let log = |sample: &str| AccessLog::new(std::io::sink(), AccessFormat::Json, sample.parse().unwrap());
    fastrand::seed(7);
    let taken = |log: &AccessLog, wrong| (0..1_000_000).filter(|_| log.takes(wrong)).count();
    for (sample, least, most) in [
        ("0", 0, 0),
        ("100", 1_000_000, 1_000_000),
        // Five standard deviations.
        ("0.0001", 0, 6),
        ("1", 9_500, 10_500),
        ("50", 497_500, 502_500),
        ("99.9999", 999_994, 1_000_000),
    ] {
        let log = log(sample);
        let some = taken(&log, false);
        assert!((least..=most).contains(&some), "{sample} %: {some}");
        assert!((0..1_000).all(|_| log.takes(true)), "{sample} %");
    }
}

#[test]
fn a_line_of_either_form_ends_and_a_short_one_has_nothing_of_a_long_one() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("json", AccessFormat::Json), ("text", AccessFormat::Text)] {
        let path = folder.path().join(name);
        let log = AccessLog::file(&path, format, Share::ALL).unwrap();
        let long = "/x".repeat(40_000);
        log.write(&AccessEntry { path: &long, ..whole(&pod()) });
        log.write(&nothing());
        drop(log);
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert!(lines.len() == 2 && written.ends_with('\n'), "{name}: {}", lines.len());
        assert!(lines[0].len() > 80_000 && lines[1].len() < 400, "{name}");
        LINE.with_borrow(|line| assert!(line.capacity() <= KEPT, "{name}: {}", line.capacity()));
    }
}
