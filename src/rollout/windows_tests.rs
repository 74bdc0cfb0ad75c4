//! The chances are those of the real split.

use super::*;

/// A small generator, so that every run is the same: xorshift64* (S. Vigna, 2016).
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Bad requests of the real split: window, place, and whether the canary got them.
fn bad(chance: &mut Chance, share: u32, rate: f64, requests: usize) -> Vec<(u32, f64, bool)> {
    use crate::model::Placement;
    let place = std::sync::Arc::default();
    let weights = [(0, u64::from(1_000_000 - share), place), (1, u64::from(share), Default::default())];
    // Somewhere in a window, where a weight of before left it.
    let before = crate::routing::Split::new([
        (0, 963_000, std::sync::Arc::clone(&weights[0].2)),
        (1, 37_000, Default::default()),
    ]);
    for _ in 0..chance.bits() % 100 {
        before.draw(|| chance.bits());
    }
    let split = crate::routing::Split::new(weights);
    let mut bad = Vec::new();
    for _ in 0..requests {
        let (version, drawn) = split.draw_of_two(|| chance.bits());
        if chance.next() < rate {
            let Placement::Split { window, before, .. } = drawn.unwrap().placement() else { unreachable!() };
            bad.push((window, before, version == Some(1)));
        }
    }
    bad
}

/// What is told is what happens, whatever the order in which requests end: of those that the canary was to get with a chance,
/// it got that part.
#[test]
fn s5_2_the_chances_are_right_in_any_order() {
    let mut chance = Chance(1);
    for (share, rate) in [
        (1_000, 0.2),
        (50_000, 0.2),
        (130_000, 0.5),
        (250_000, 0.3),
        (300_000, 0.9),
        (450_000, 0.3),
        (500_000, 0.4),
        (700_000, 0.5),
        (810_000, 0.9),
    ] {
        for late in [1, 20] {
            // By tenths of the chance, and by whose the last one was that was looked at: how many, how many of the canary's, and
            // the sum of the chances.
            let mut groups = [(0_u32, 0_u32, 0.0_f64); 20];
            for _ in 0..10 {
                let mut seen = bad(&mut chance, share, rate, 1_000);
                // Each ends up to so many others later.
                let mut order: Vec<(f64, usize)> =
                    (0..seen.len()).map(|i| (i as f64 + f64::from(late) * chance.next(), i)).collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0));
                seen = order.iter().map(|(_, i)| seen[*i]).collect();
                let (mut windows, mut last) = (Windows::default(), false);
                for (window, before, canary) in seen {
                    let told = windows.chance(window, before, f64::from(share) / 1e6, canary);
                    let last = std::mem::replace(&mut last, canary);
                    let Some(told) = told else { continue };
                    let group = &mut groups[(told * 10.0) as usize + if last { 10 } else { 0 }];
                    *group = (group.0 + 1, group.1 + u32::from(canary), group.2 + told);
                }
            }
            assert!(groups.iter().any(|group| group.0 > 50), "{groups:?}");
            for (all, got, told) in groups {
                let (told, n) = (told / f64::from(all.max(1)), f64::from(all.max(1)));
                let noise = 4.5 * (told * (1.0 - told) / n).sqrt() + 2.0 / n;
                let rate = f64::from(got) / n;
                assert!(
                    (rate - told).abs() < noise,
                    "{share} {rate} {late}: told {told}, got {got} of {all}"
                );
            }
        }
    }
}

#[test]
fn alone_a_request_has_the_chance_of_its_share() {
    for share in [0.000_001, 0.001, 0.1, 0.3, 0.45, 0.5, 0.63, 0.9] {
        for place in [0.0, 0.07, 0.3, 0.55, 0.999] {
            let told = Windows::default().chance(7, place, share, false).unwrap();
            assert!((told - share).abs() < 1e-6, "{share} at {place}: {told}");
        }
    }
}

#[test]
fn once_the_canarys_request_is_known_the_others_of_its_window_say_nothing() {
    let mut windows = Windows::default();
    assert!(windows.chance(1, 0.2, 0.1, true).is_some());
    assert_eq!(windows.chance(1, 0.5, 0.1, false), None);
    assert!(windows.chance(2, 0.5, 0.1, false).is_some());
    // Of two, the other.
    assert!(windows.chance(9, 0.0, 0.5, false).is_some());
    assert_eq!(windows.chance(9, 0.5, 0.5, true), None);
    for share in [0.0, 1.0] {
        assert_eq!(windows.chance(20, 0.5, share, true), None);
    }
}

#[test]
fn what_is_remembered_is_bounded_and_what_was_forgotten_says_nothing() {
    let mut windows = Windows::default();
    // Across the place where the numbers go round.
    for i in 0..3 * REMEMBERED as u32 {
        assert!(windows.chance((4_190_000 + i) % (1 << 22), 0.1, 0.1, false).is_some(), "{i}");
    }
    assert_eq!(windows.known.len(), REMEMBERED);
    assert_eq!(windows.chance(4_190_000, 0.3, 0.1, true), None, "its window was forgotten");
    let newest = (4_190_000 + 3 * REMEMBERED as u32 - 1) % (1 << 22);
    let told = windows.chance(newest, 0.3, 0.1, true).unwrap();
    assert!((told - 0.1 / 0.9).abs() < 1e-9, "{told}");
}
