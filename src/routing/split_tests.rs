//! The split's promises: exact at every prefix, fair at every place, whatever the weights do.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

fn places(n: usize) -> Vec<Arc<Place>> {
    (0..n).map(|_| Arc::new(Place::default())).collect()
}

fn split_of(millionths: &[u64], places: &[Arc<Place>]) -> Split {
    Split::new(millionths.iter().enumerate().map(|(i, w)| (i, *w, Arc::clone(&places[i]))))
}

fn two(canary: u64, places: &[Arc<Place>]) -> Split {
    split_of(&[1_000_000 - canary, canary], places)
}

/// A random share with the small and the extreme ones well represented.
fn any_share(rng: &mut fastrand::Rng) -> u64 {
    match rng.u8(0..6) {
        0 => rng.u64(0..=100),
        1 => 1_000_000 - rng.u64(0..=100),
        2 => rng.u64(0..=20_000),
        3 => 500_000 + rng.u64(0..=2) - 1,
        _ => rng.u64(0..=1_000_000),
    }
}

#[test]
fn s3_3_off_by_less_than_one_at_every_prefix_of_a_million_requests() {
    for seed in 0..8 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let places = places(2);
        let mut canary = any_share(&mut rng);
        let mut split = two(canary, &places);
        let (mut asked, mut got) = (0_i64, 0_i64);
        let change = [1, 3, 99, 1_000, 100_000][seed as usize % 5];
        for _ in 0..1_000_000 {
            // A new table, often with other weights.
            if rng.u64(0..change) == 0 {
                canary = any_share(&mut rng);
                split = two(canary, &places);
            }
            asked += canary as i64;
            got += 1_000_000 * i64::from(split.draw(|| rng.u64(..)) == Some(1));
            assert!((asked - got).abs() < 1_000_000, "seed {seed}: asked {asked}, got {got} millionths");
        }
    }
}

#[test]
fn s3_3_off_by_less_than_one_across_swaps_on_eight_threads() {
    // The order of the draws is the order of the lock; the lock is the test's, so that the sums can be known.
    let places = places(2);
    let sums = Mutex::new((0_i64, 0_i64));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (places, sums) = (&places, &sums);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                let mut canary = any_share(&mut rng);
                for i in 0..125_000 {
                    if i % 50 == 0 {
                        canary = any_share(&mut rng);
                    }
                    let split = two(canary, places);
                    let mut sums = sums.lock().unwrap();
                    sums.0 += canary as i64;
                    sums.1 += 1_000_000 * i64::from(split.draw(|| rng.u64(..)) == Some(1));
                    assert!((sums.0 - sums.1).abs() < 1_000_000, "{sums:?}");
                }
            });
        }
    });
}

#[test]
fn s3_3_racing_threads_lose_no_step() {
    let places = places(2);
    let shares = [1_000, 333_333, 999_999, 500_000, 1, 250_000, 123_456, 777_777];
    const EACH: u64 = 200_000;
    let got: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let split = two(shares[thread as usize], &places);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(thread);
                    (0..EACH).filter(|_| split.draw(|| rng.u64(..)) == Some(1)).count() as u64
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let asked: u64 = shares.iter().sum::<u64>() * EACH;
    assert!(asked.abs_diff(got * 1_000_000) < 1_000_000, "asked {asked} millionths, got {got}");
}

#[test]
fn s3_3_every_residue_of_every_period_gets_its_share() {
    // A client that repeats a pattern of `period` requests: each place in it must see the canary as often as a fair
    // draw would show it. 100 periods × shares × residues are looked at, so the bound is at 6 standard deviations.
    const N: u64 = 300_000;
    for canary in [
        1_000, 10_000, 31_250, 100_000, 142_857, 250_000, 333_333, 400_000, 500_000, 600_000, 900_000,
        999_000,
    ] {
        for period in 2..=64_u64 {
            let mut rng = fastrand::Rng::with_seed(canary * 100 + period);
            let split = two(canary, &places(2));
            let mut hits = vec![0_u64; period as usize];
            for i in 0..N {
                hits[(i % period) as usize] += u64::from(split.draw(|| rng.u64(..)) == Some(1));
            }
            let p = canary as f64 / 1e6;
            for (residue, hits) in hits.into_iter().enumerate() {
                let n = (N / period) as f64;
                let bound = 6.0 * (n * p * (1.0 - p)).sqrt() + 2.0;
                assert!(
                    (hits as f64 - n * p).abs() < bound,
                    "share {canary}, period {period}, residue {residue}: {hits} of {n}, expected {}",
                    n * p
                );
            }
        }
    }
}

#[test]
fn s3_3_the_next_choice_cannot_be_told_from_the_last_ones() {
    // At one in four, the gaps between canary requests must vary as those of one choice in each window of four do:
    // from 1 to 7, the middle ones the likeliest. A rotation would always show 4.
    let mut rng = fastrand::Rng::with_seed(7);
    let split = two(250_000, &places(2));
    let mut gaps = [0_u32; 8];
    let mut gap = 0;
    for _ in 0..400_000 {
        gap += 1;
        if split.draw(|| rng.u64(..)) == Some(1) {
            gaps[gap] += 1;
            gap = 0;
        }
    }
    for (gap, expected) in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 3.0), (6, 2.0), (7, 1.0)] {
        let expected = expected / 16.0 * 100_000.0;
        assert!(
            (f64::from(gaps[gap]) - expected).abs() < 0.1 * expected,
            "gap {gap}: {} of {expected}",
            gaps[gap]
        );
    }
}

#[test]
fn s3_3_no_draw_at_nothing_and_all() {
    let never = || -> u64 { panic!("drawn") };
    let places = places(2);
    for _ in 0..10 {
        assert_eq!(two(0, &places).draw(never), Some(0));
        assert_eq!(two(1_000_000, &places).draw(never), Some(1));
    }
    assert_eq!(split_of(&[0, 0], &places).draw(never), None);
    assert_eq!(two(0, &places).only(), Some(0));
    assert_eq!(two(1, &places).only(), None);
}

#[test]
fn s3_3_rebuilding_every_99_requests_at_1_in_100_loses_nothing() {
    let mut rng = fastrand::Rng::with_seed(3);
    let places = places(2);
    let mut got = 0;
    for _ in 0..10_000 {
        let split = two(10_000, &places);
        got += (0..99).filter(|_| split.draw(|| rng.u64(..)) == Some(1)).count();
    }
    assert_eq!(got, 9_900);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn s3_3_several_versions_stay_close(
        changes in proptest::collection::vec(proptest::collection::vec(0..1_000_u64, 4), 1..4),
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let places = places(4);
        let mut asked = [0.0; 4];
        let mut got = [0.0; 4];
        for (changes, weights) in changes.iter().enumerate() {
            let sum: u64 = weights.iter().sum();
            prop_assume!(sum > 0);
            let split = split_of(weights, &places);
            for _ in 0..5_000 {
                got[split.draw(|| rng.u64(..)).unwrap()] += 1.0;
                for (version, weight) in weights.iter().enumerate() {
                    asked[version] += *weight as f64 / sum as f64;
                }
                for version in 0..4 {
                    let off: f64 = asked[version] - got[version];
                    // Stable is exact whatever changes; the others as the module's docs say.
                    let bound = if version == 0 { 1.0 } else { version as f64 + 1.0 + changes as f64 };
                    prop_assert!(off.abs() < bound + 1e-6, "version {} off by {}", version, off);
                }
            }
        }
    }

    #[test]
    fn a_step_keeps_its_word_valid(f in 0..ONE, share in 0..=ONE, random: u64, ahead: bool) {
        let word = f << 1 | u64::from(ahead && f > 0);
        let (after, _) = advance(word, share, random);
        let (f, ahead) = parts(after);
        prop_assert!(f < ONE);
        prop_assert!((f, ahead) != (0, true), "ahead of a window that has not begun");
    }
}

#[test]
fn a_version_that_gets_all_is_placed_too() {
    let place = || Arc::new(Place::default());
    for (weights, version, share) in [([0, 7], 1, 1.0), ([7, 0], 0, 0.0)] {
        let split = Split::new([(0, weights[0], place()), (1, weights[1], place())]);
        let (drawn, step) = split.draw_of_two(|| 1);
        let at = step.unwrap().placement();
        assert_eq!(drawn, Some(version));
        assert_eq!(at, Placement::Split { window: 0, before: 0.0, share, chosen: false });
    }
    // Of three, nothing is known.
    let split = Split::new([(0, 1, place()), (1, 1, place()), (2, 1, place())]);
    assert_eq!(split.draw_of_two(|| 1).1, None);
}
