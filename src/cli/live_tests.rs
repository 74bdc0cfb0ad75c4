//! What the screen of `serinus status --watch` shows, as a terminal would.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::admin::wire::{
    AttemptCounts, EndpointCounts, ProblemNote, ReplicaStatus, RolloutEvidence, RolloutStatus,
    RolloutStepStatus, RouteStatus, VersionStatus,
};

fn version(name: &str, weight: &str, requests: u64) -> VersionStatus {
    VersionStatus {
        name: name.to_owned(),
        stable: name == "v1",
        weight: weight.parse().unwrap(),
        effective_weight: weight.parse().unwrap(),
        measured_share: weight.parse().ok(),
        requests,
        users: None,
        measured_user_share: None,
        error_rate: Some(0.5),
        p50_ms: Some(1.5),
        p99_ms: Some(12.25),
        active_requests: 0,
        shielded: 0,
        diverted: 0,
        endpoints: EndpointCounts {
            ready: 6,
            draining: 0,
            unready: 0,
            refused: 0,
            ejected: 0,
            unhealthy: 0,
            addresses: Vec::new(),
        },
    }
}

fn route(name: &str, requests: u64) -> RouteStatus {
    RouteStatus {
        name: name.to_owned(),
        revision: 7,
        service: "web/nginx-svc".to_owned(),
        hosts: Vec::new(),
        paths: Vec::new(),
        versions: vec![version("v1", "90", requests * 9), version("v2", "10", requests)],
        unassigned_count: 0,
        unassigned: Vec::new(),
        problems: Vec::new(),
        rollout_configured: true,
        rollout: None,
        mirror: None,
    }
}

fn rollout() -> RolloutStatus {
    let none = AttemptCounts { requests: 0, errors: 0, slow: 0 };
    let step = |weight: &str| RolloutStepStatus {
        weight: weight.parse().unwrap(),
        hold_seconds: 300.0,
        pause: false,
    };
    RolloutStatus {
        version: "v2".to_owned(),
        phase: "running".to_owned(),
        reason: "it is judged".to_owned(),
        step: 2,
        steps: vec![step("1"), step("10"), step("100")],
        held_seconds: 99.5,
        started: String::new(),
        changed: String::new(),
        evidence: RolloutEvidence {
            canary: none,
            stable: none,
            step_requests: 0,
            min_requests: 0,
            log10_errors: 0.0,
            log10_slowness: None,
            log10_threshold: 3.0,
        },
    }
}

fn list(routes: Vec<RouteStatus>) -> RouteList {
    RouteList { generation: 1, problems: Vec::new(), replicas: Vec::new(), routes }
}

/// The screen as text, without spaces at the ends of lines and with the clock as it always is here.
fn shown(screen: &mut Screen, size: (u16, u16), now: Instant) -> Vec<String> {
    screen.clock = "10:00:00Z".to_owned();
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| screen.draw(frame, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(size.0));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
}

fn screen() -> Screen {
    Screen::new("http://127.0.0.1:9901".to_owned(), false)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_facts_of_status_and_requests_a_second() {
    let (mut screen, start) = (screen(), Instant::now());
    screen.heard(list(vec![route("shop", 100)]), start);
    let mut now = list(vec![RouteStatus { rollout: Some(rollout()), ..route("shop", 125) }]);
    now.routes[0].problems =
        vec![ProblemNote { message: "bad\u{1b}[2J".to_owned(), remedy: "mend it".to_owned() }];
    let replica = |name: &str, asked, live| ReplicaStatus {
        name: name.to_owned(),
        asked,
        leads: asked,
        live,
        differs: if live { Vec::new() } else { vec!["shop".to_owned(), "cart".to_owned()] },
        serves: [("shop".to_owned(), 3)].into(),
        differs_more: !live,
    };
    now.replicas = vec![replica("serinus-0", true, true), replica("serinus-1", false, false)];
    screen.heard(now, start + 2 * SECOND);
    let text = shown(&mut screen, (100, 16), start + 2 * SECOND);
    assert_eq!(
        text,
        [
            "Serinus at http://127.0.0.1:9901   1 route   1 problem   10:00:00Z",
            "",
            "ROUTE  VERSION  SHARE       ASKED  EFFECTIVE  MEASURED  REQ/S  ERRORS     P50       P99  READY",
            "shop   v1       █████████·   90 %       90 %      90 %  112.5   0.5 %  1.5 ms  12.25 ms    6/6",
            "shop   v2       █·········   10 %       10 %      10 %   12.5   0.5 %  1.5 ms  12.25 ms    6/6",
            "",
            "shop: v2 at step 2 of 3 (10 %), running, 3m 20s left: it is judged",
            "",
            "Replicas: serinus-0 (this one, leads), serinus-1 (no sign of life; other revisions of shop, cart and",
            "  more)",
            "",
            "Problems:",
            "  shop: bad\\u{1b}[2J",
            "    -> mend it",
            "",
            "q leaves",
        ]
    );
}

#[test]
fn a_narrow_screen_has_fewer_columns_and_more_lines() {
    let (mut screen, now) = (screen(), Instant::now());
    let mut told = list(vec![route("shop", 100)]);
    told.problems = vec![ProblemNote {
        message: "the state cannot be written to this disk".to_owned(),
        remedy: "make room".to_owned(),
    }];
    screen.heard(told, now);
    assert_eq!(
        shown(&mut screen, (50, 11), now),
        [
            "Serinus at http://127.0.0.1:9901   1 route   1 pro",
            "",
            "ROUTE  VERSION  ASKED  MEASURED  REQ/S       P99",
            "shop   v1        90 %      90 %      -  12.25 ms",
            "shop   v2        10 %      10 %      -  12.25 ms",
            "",
            "Problems:",
            "  the state cannot be written to this disk",
            "    -> make room",
            "",
            "q leaves",
        ]
        .map(|line| match line {
            // Not even that has room: the last column is cut off.
            line if line.starts_with("ROUTE") => "ROUTE  VERSION  ASKED  MEASURED  REQ/S       P99",
            line => line,
        })
    );
    let text = shown(&mut screen, (30, 12), now);
    assert!(text.contains(&"  the state cannot be written".to_owned()), "{text:#?}");
    assert!(text.contains(&"    to this disk".to_owned()), "{text:#?}");
    // The least there can be.
    assert_eq!(shown(&mut screen, (1, 1), now).len(), 1);
}

#[test]
fn what_is_old_is_said_to_be_old_and_stays() {
    let (mut screen, start) = (screen(), Instant::now());
    screen.heard(list(vec![route("shop", 100)]), start);
    screen.heard_nothing("no router answers at http://127.0.0.1:9901: \u{1b}[refused\nis it running?");
    let text = shown(&mut screen, (110, 8), start + 12 * SECOND);
    assert_eq!(
        text[1],
        "Old: these values are from 12s ago, and it is asked again. no router answers at http://127.0.0.1:9901: \\u{1b}["
    );
    assert!(text[3].starts_with("shop   v1"), "{text:#?}");
    screen.heard(list(vec![route("shop", 101)]), start + 13 * SECOND);
    let text = shown(&mut screen, (110, 8), start + 13 * SECOND);
    assert_eq!(text[1], "");
    // Nobody said that it cannot be reached, only nothing.
    let text = shown(&mut screen, (110, 8), start + 20 * SECOND);
    assert!(
        text[1].ends_with("from 7s ago, and it is asked again. The router has not answered yet."),
        "{text:#?}"
    );
}

#[test]
fn many_routes_are_scrolled_through() {
    let (mut screen, now) = (screen(), Instant::now());
    screen.heard(list((0..50).map(|n| route(&format!("route-{n:02}"), 1)).collect()), now);
    let first = |screen: &mut Screen, key: Key| {
        assert!(screen.press(key).is_continue());
        let text = shown(screen, (110, 13), now);
        (text[2].clone(), text[12].clone())
    };
    let title = first(&mut screen, Key::Other);
    assert!(title.0.starts_with("ROUTE"), "{title:?}");
    assert_eq!(title.1, "q leaves   lines 1 to 10 of 101: arrows, PgUp, PgDn, Home, End");
    assert!(first(&mut screen, Key::Down).0.starts_with("route-00  v1"));
    assert!(first(&mut screen, Key::PageDown).0.starts_with("route-04  v2"));
    assert!(first(&mut screen, Key::Up).0.starts_with("route-04  v1"));
    let end = first(&mut screen, Key::Bottom);
    assert!(end.0.starts_with("route-45  v1") && end.1.contains("lines 92 to 101 of 101"), "{end:?}");
    assert_eq!(first(&mut screen, Key::PageDown), end, "there is nothing below");
    assert_eq!(first(&mut screen, Key::Top), title);
    assert_eq!(first(&mut screen, Key::PageUp), title);
    // Fewer routes: what is seen is the end of them.
    first(&mut screen, Key::Bottom);
    screen.heard(list(vec![route("shop", 1)]), now);
    assert!(first(&mut screen, Key::Other).0.starts_with("ROUTE"));
}

#[test]
fn keys() {
    let press = |code, modifiers| key(KeyEvent::new(code, modifiers));
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(code, KeyModifiers::NONE), Key::Leave);
    }
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::Leave);
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::CONTROL), Key::Other);
    assert!(screen().press(Key::Leave).is_break());
}

/// A new revision counts anew, and so does a router that was restarted.
#[test]
fn requests_a_second_are_those_of_one_revision() {
    let (mut screen, start) = (screen(), Instant::now());
    let rate = |screen: &mut Screen, revision, requests, seconds: u32| {
        let now = start + seconds * SECOND;
        screen.heard(list(vec![RouteStatus { revision, ..route("shop", requests) }]), now);
        let text = shown(screen, (110, 8), now);
        text[4].split_whitespace().nth(9).unwrap().to_owned()
    };
    assert_eq!(rate(&mut screen, 1, 100, 0), "-");
    assert_eq!(rate(&mut screen, 1, 300, 2), "100.0");
    assert_eq!(rate(&mut screen, 2, 10, 3), "-");
    assert_eq!(rate(&mut screen, 2, 20, 4), "10.0");
    assert_eq!(rate(&mut screen, 2, 5, 5), "-", "it was restarted");
    assert_eq!(rate(&mut screen, 2, 6, 6), "1.0");
    // Ten seconds are enough to look back.
    for second in 7..40 {
        rate(&mut screen, 2, 6, second);
    }
    assert_eq!(rate(&mut screen, 2, 6, 40), "0.0");
}
