//! What rules of intervals and thresholds would have done on the same requests, as Flagger and Argo Rollouts have them in their
//! documentation: `docs/judging.md` has the table.

use std::time::Duration;

use super::statistics_tests::{errors, random, staying};
use super::traffic::Traffic;
use super::*;
use crate::model::Counts;

/// A rule that looks at the success rate of the canary alone, interval by interval.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    interval: Duration,
    /// The success rate that each interval must have.
    least: f64,
    /// How many intervals may fail before it goes back.
    failures: u32,
}

/// As in the documentation of both (<https://docs.flagger.app/usage/how-it-works>,
/// <https://argo-rollouts.readthedocs.io/en/stable/features/analysis/>), each in a slower and a faster form.
const RULES: [Rule; 4] = [
    Rule {
        name: "Flagger, 1m, threshold 10, min 99",
        interval: Duration::from_secs(60),
        least: 0.99,
        failures: 10,
    },
    Rule {
        name: "Flagger, 30s, threshold 5, min 99",
        interval: Duration::from_secs(30),
        least: 0.99,
        failures: 5,
    },
    Rule {
        name: "Argo Rollouts, 5m, failureLimit 3, >= 0.95",
        interval: Duration::from_secs(300),
        least: 0.95,
        failures: 3,
    },
    Rule {
        name: "Argo Rollouts, 1m, failureLimit 3, >= 0.95",
        interval: Duration::from_secs(60),
        least: 0.95,
        failures: 3,
    },
];

/// How long it took the rule to go back, and how many requests had failed; nothing within the hour.
fn by_rule(rule: Rule, weight: f64, assumed: &Assumed, hold: Duration, seed: u64) -> Option<(f64, u64)> {
    let random = &mut random(seed);
    let mut traffic = Traffic::new(assumed, random);
    traffic.set_share(super::statistics_tests::share(weight));
    let (mut failed, mut failures) = (0, 0);
    let intervals = hold.as_secs() / rule.interval.as_secs();
    for interval in 1..=intervals {
        // The same steps as a router's looks, so that the requests are the same ones.
        for _ in 0..rule.interval.as_secs() * 20 {
            traffic.pass(0.05, random);
        }
        let replica = &mut traffic.replicas[0];
        replica.bad.clear();
        let Counts { requests, errors, .. } = std::mem::take(&mut replica.counts).canary;
        failed += errors;
        // An interval without a request says nothing.
        failures += u32::from(requests > 0 && 1.0 - errors as f64 / (requests as f64) < rule.least);
        if failures >= rule.failures {
            return Some((interval as f64 * rule.interval.as_secs_f64(), failed));
        }
    }
    None
}

fn by_serinus(weight: f64, assumed: &Assumed, hold: Duration, seed: u64) -> Option<(f64, u64)> {
    let played = play(&staying(weight, hold), assumed, hold, &mut random(seed));
    (played.ending == Ending::Caught).then(|| (played.took.as_secs_f64(), played.failed_requests()))
}

fn middle(all: &mut [f64]) -> String {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).map_or_else(|| "–".to_owned(), |middle| format!("{middle:.0}"))
}

#[test]
fn the_rules_do_what_their_documentation_says() {
    let hour = Duration::from_secs(3_600);
    let assumed = |canary| Assumed {
        rps: 20.0,
        stable: errors(0.001),
        canary: errors(canary),
        replicas: 1,
        users: None,
    };
    let all = assumed(1.0);
    let took = RULES.map(|rule| by_rule(rule, 25.0, &all, hour, 1).unwrap().0);
    assert_eq!(took, [600.0, 150.0, 900.0, 180.0], "when everything fails");
    assert!(by_serinus(25.0, &all, hour, 1).unwrap().0 < 10.0);
    assert!(RULES.iter().all(|rule| by_rule(*rule, 25.0, &assumed(0.0), hour, 1).is_none()));
}

/// An hour at one weight, each rule on the same requests.
#[test]
#[ignore = "minutes in a release build: see the head of `statistics_tests`"]
fn peers_in_full() {
    let hour = Duration::from_secs(3_600);
    println!(
        "| requests/s, weight | stable, canary fail | rule | went back | after (median) | requests failed (median) |\n|---|---|---|---|---|---|"
    );
    for (rps, weight, stable, canary) in [
        (100.0, 5.0, 0.001, 0.5),
        (100.0, 5.0, 0.001, 0.05),
        (100.0, 5.0, 0.001, 0.02),
        (100.0, 5.0, 0.001, 0.008),
        (100.0, 10.0, 0.01, 0.03),
        (100.0, 5.0, 0.001, 0.001),
        (10.0, 5.0, 0.005, 0.005),
        (100.0, 5.0, 0.015, 0.015),
    ] {
        let assumed =
            Assumed { rps, stable: errors(stable), canary: errors(canary), replicas: 1, users: None };
        let row = |name: &str, one: &(dyn Fn(u64) -> Option<(f64, u64)> + Sync)| {
            let runs = 400;
            let found: Vec<_> = (0..runs).filter_map(|run| one(run * 15_485_863 + 5)).collect();
            let mut took: Vec<f64> = found.iter().map(|found| found.0).collect();
            let mut failed: Vec<f64> = found.iter().map(|found| found.1 as f64).collect();
            let part = 100.0 * found.len() as f64 / runs as f64;
            println!(
                "| {rps}, {weight} % | {} %, {} % | {name} | {part:.1} % | {} s | {} |",
                100.0 * stable,
                100.0 * canary,
                middle(&mut took),
                middle(&mut failed)
            );
        };
        row("Serinus", &|seed| by_serinus(weight, &assumed, hour, seed));
        for rule in RULES {
            row(rule.name, &|seed| by_rule(rule, weight, &assumed, hour, seed));
        }
    }
}
