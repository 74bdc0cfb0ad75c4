//! Tests of how times of changes are found.

use super::*;

#[test]
fn times_are_those_of_the_first_new_and_the_last_old_one() {
    let begin = Instant::now();
    let at = |millis: u64| begin + Duration::from_millis(millis);
    let asked = |sent: u64, now: u64, first: u8| {
        (Done { place: 0, due: at(sent), sent: at(sent), first: Some(first) }, at(now))
    };
    let changes = [
        Change { new: true, begin: at(100), returned: at(102) },
        Change { new: false, begin: at(200), returned: at(201) },
    ];
    let log = [
        asked(90, 95, b'a'),
        asked(104, 108, b'a'),
        asked(106, 109, CANARY),
        asked(150, 160, CANARY),
        // Under way at the second change, and served under it.
        asked(199, 203, b'a'),
    ];
    let mut values = Values::new();
    times(&log, &changes, &mut values);
    let value = |name: &str| values.iter().find(|(of, _)| *of == name).map(|(_, value)| value.round());
    assert_eq!((value("call_p50_us"), value("call_most_us")), (Some(1_000.0), Some(2_000.0)));
    assert_eq!((value("first_p50_us"), value("first_most_us")), (Some(2_000.0), Some(7_000.0)));
    // At the second one none of the old ones came: no later than its begin.
    assert_eq!((value("last_p50_us"), value("last_most_us")), (Some(-1_000.0), Some(2_000.0)));
}
