//! Copies are drawn exactly, and their places are as many as there are.

use super::*;
use crate::model::Share;

fn mirror(percent: &str) -> Mirror {
    Mirror {
        version: "v2".parse().unwrap(),
        share: percent.parse().unwrap(),
        methods: Vec::new(),
        max_body: 0,
        max_in_flight: 3,
        timeout: Duration::from_secs(1),
        compare: false,
    }
}

#[test]
fn copies_are_drawn_exactly_whatever_the_share_does_in_between() {
    let place = Arc::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut drawn, mut asked) = (0_u64, 0_u64);
    for round in 0_u64..2_000 {
        let percent = ["0.0001", "12.5", "33.3333", "50", "99.9999", "100"][rng.usize(..6)];
        let share = percent.parse::<Share>().unwrap();
        let split = split(&mirror(percent), &place);
        for _ in 0..rng.u64(1..5) {
            // All goes undrawn where there is nothing to split, which steps nothing.
            if share < Share::ALL {
                asked += u64::from(share.millionths());
                drawn += u64::from(split.draw(|| rng.u64(..)) == Some(COPIED));
            } else {
                assert_eq!(split.draw(|| rng.u64(..)), Some(COPIED));
            }
            assert!((drawn * 1_000_000).abs_diff(asked) < 1_000_000, "round {round}: {drawn} of {asked}");
        }
    }
}

#[test]
fn there_are_as_many_places_as_there_are() {
    let tally = Arc::<MirrorTally>::default();
    let mut taken: Vec<_> = (0..3).map(|_| tally.place(3)).collect();
    assert!(taken.iter().all(Option::is_some));
    assert!(tally.place(3).is_none());
    assert_eq!(tally.snapshot().in_flight, 3);
    taken.pop();
    assert!(tally.place(3).is_some(), "and given back at once");
    taken.clear();
    assert_eq!(tally.snapshot().in_flight, 0);
    assert!(tally.place(0).is_none());
}

#[test]
fn what_is_compared_is_counted_once_for_each() {
    let tally = MirrorTally::default();
    let (fast, slow) = (Duration::from_millis(1), Duration::from_millis(9));
    for likeness in [Likeness::Same, Likeness::OtherStatus, Likeness::OtherBody, Likeness::OtherBody] {
        tally.count(MirrorOutcome::Sent);
        tally.compared(likeness, fast, slow);
    }
    let counts = tally.snapshot();
    let count = |outcome| counts.count(outcome);
    assert_eq!(
        (count(MirrorOutcome::Sent), count(MirrorOutcome::Same), count(MirrorOutcome::Different)),
        (4, 1, 3)
    );
    assert_eq!((counts.other_status, counts.originals.count(), counts.copies.count()), (1, 4, 4));
    assert!(counts.originals.quantile(0.5, fast) < counts.copies.quantile(0.5, slow));
}
