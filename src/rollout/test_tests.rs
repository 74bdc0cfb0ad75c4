//! The test: what it thinks of good and of bad canaries.

use super::*;

/// A small generator, so that every run is the same: xorshift64* (S. Vigna, 2016).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn happens(&mut self, chance: f64) -> bool {
        self.next() < chance
    }
}

/// The exact split as `routing::split` has it, in floating point.
#[derive(Default)]
struct Split {
    window: u32,
    before: f64,
    chosen: bool,
}

impl Split {
    fn draw(&mut self, share: f64, chance: &mut Chance) -> (bool, Placement) {
        let at = Placement::Split { window: self.window, before: self.before, share, chosen: self.chosen };
        let p = known(self.before, share, self.chosen);
        let canary = p >= 1.0 || chance.happens(p);
        let sum = self.before + share;
        if sum >= 1.0 - EPSILON {
            self.before = (sum - 1.0).max(0.0);
            self.window = (self.window + 1) % (1 << 22);
            self.chosen = self.chosen && canary;
        } else {
            self.before = sum;
            self.chosen |= canary;
        }
        (canary, at)
    }
}

/// The chance of a request of the exact split given all that were drawn before it: the table in `routing::split`.
fn known(before: f64, share: f64, chosen: bool) -> f64 {
    let over = before + share - 1.0;
    match (over < 0.0, chosen) {
        (true, true) => 0.0,
        (true, false) => share / (1.0 - before),
        (false, true) => over / before,
        (false, false) => 1.0,
    }
}

/// How many requests pass until the canary fails; nothing within `most`.
fn caught(
    chance: &mut Chance,
    rates: (f64, f64),
    share: f64,
    alpha: f64,
    margin: f64,
    most: u64,
) -> Option<u64> {
    let (mut split, mut test) = (Split::default(), Test::default());
    for request in 1..=most {
        let (canary, at) = split.draw(share, chance);
        test.passed(1, share, margin);
        if chance.happens(if canary { rates.1 } else { rates.0 }) {
            test.bad(canary, at, margin);
            if test.log_e_value() > -alpha.ln() {
                return Some(request);
            }
        }
    }
    None
}

#[test]
fn s5_2_a_canary_that_is_worse_is_caught() {
    // The cases of semantics §5.2: how many requests pass, on average, at alpha 0.001.
    let mut chance = Chance(1);
    for (stable, canary, share, aim) in [(0.001, 0.5, 0.01, 420.0), (0.001, 0.02, 0.01, 24_000.0)] {
        let runs = 120;
        let sum: u64 = (0..runs)
            .map(|_| {
                // One that is never caught must not pass for one that is caught at once.
                let caught = caught(&mut chance, (stable, canary), share, 0.001, 0.0, 1_000_000);
                caught.expect("it is caught within a million requests")
            })
            .sum();
        let mean = sum as f64 / f64::from(runs);
        assert!(mean < aim * 1.25, "{stable} against {canary}: after {mean} requests");
    }
}

#[test]
fn s5_2_a_canary_that_is_no_worse_is_left_alone() {
    // At alpha 0.01: of 400 rollouts at most 4 are expected, and 14 are out of the question (p < 0.0001). More of this is in
    // `simulation::statistics_tests`.
    let mut chance = Chance(2);
    for (rate, share, margin) in
        [(0.05, 0.05, 0.0), (0.2, 0.37, 0.0), (0.05, 0.5, 0.0), (0.05, 0.8, 0.0), (0.05, 0.1, 0.01)]
    {
        let rates = (rate, rate + margin);
        let false_alarms =
            (0..400).filter(|_| caught(&mut chance, rates, share, 0.01, margin, 3_000).is_some()).count();
        assert!(false_alarms < 14, "rate {rate}, share {share}, margin {margin}: {false_alarms} of 400");
    }
}

#[test]
fn a_margin_tolerates_what_it_says() {
    let mut chance = Chance(3);
    // Twice as many errors, which is within the margin of 1 %: left alone. Without a margin it is caught.
    let run =
        |chance: &mut Chance, margin| caught(chance, (0.01, 0.02), 0.2, 0.001, margin, 200_000).is_some();
    assert!((0..20).all(|_| run(&mut chance, 0.0)));
    assert!((0..20).all(|_| !run(&mut chance, 0.01)));
}

#[test]
fn s5_3_a_user_counts_once() {
    let mut test = Test::default();
    for _ in 0..1_000 {
        test.bad(true, Placement::User { point: 7, share: 0.01 }, 0.0);
    }
    let once = test.log_e_value();
    assert!(once > 0.0 && once < 5.0, "{once}");
    test.bad(true, Placement::User { point: 8, share: 0.01 }, 0.0);
    assert!(test.log_e_value() > once);
}

#[test]
fn what_says_nothing_changes_nothing() {
    let mut test = Test::default();
    let split = |before, share, chosen| Placement::Split { window: 1, before, share, chosen };
    // Nothing and all for the canary.
    for at in [split(0.3, 0.0, false), split(0.3, 1.0, false)] {
        test.bad(true, at, 0.0);
        test.bad(false, at, 0.0);
    }
    test.bad(true, Placement::User { point: 1, share: 0.0 }, 0.0);
    test.passed(1_000_000, 0.5, 0.0);
    assert!(test.log_e_value().abs() < 1e-12, "{}", test.log_e_value());
    // Once the canary's request of a window is known, the others of it are stable's for certain.
    test.bad(true, split(0.2, 0.1, false), 0.0);
    let known = test.clone();
    test.bad(false, split(0.5, 0.1, true), 0.0);
    assert_eq!(test, known);
}

#[test]
fn s5_5_what_replicas_have_seen_multiplies() {
    let seen = |windows: std::ops::Range<u32>| {
        let mut test = Test::default();
        for window in windows {
            test.bad(true, Placement::Split { window, before: 0.0, share: 0.05, chosen: false }, 0.0);
        }
        test
    };
    let (a, b, both) = (seen(0..2), seen(2..5), seen(0..5));
    assert!((Test::joined([&a, &b]) - both.log_e_value()).abs() < 1e-9);
    // Users come to both: the same ones do not speak twice.
    let mut users = Test::default();
    for point in 0..4 {
        users.bad(true, Placement::User { point, share: 0.05 }, 0.0);
    }
    assert!(Test::joined([&users, &users]) < users.log_e_value());
    assert!(
        Test::joined([&users, &a]) > users.log_e_value(),
        "{} {}",
        Test::joined([&users, &a]),
        users.log_e_value()
    );
    let json = serde_json::to_string(&a).unwrap();
    assert_eq!(serde_json::from_str::<Test>(&json).unwrap(), a, "it survives a restart");
}
