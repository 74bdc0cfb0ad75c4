//! The seeds of the fuzz targets hold: what a run once found, and what each target begins with.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/checks/admission.rs"]
mod admission;
#[path = "../../fuzz/checks/config.rs"]
mod config;
#[path = "../../fuzz/checks/matching.rs"]
mod matching;
#[path = "../../fuzz/checks/selectors.rs"]
mod selectors;

/// Runs the check of a target over its seeds.
#[track_caller]
fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!((3..50).contains(&seeds.len()), "few enough to keep, and there: {}", seeds.len());
    for seed in seeds {
        // Which one it was is said by what was captured of it.
        println!("{}", seed.display());
        let bytes = fs::read(&seed).unwrap();
        assert!(bytes.len() <= 4096, "{} is large", seed.display());
        check(&bytes);
    }
}

#[test]
fn of_config_files() {
    run("config", config::check);
}

#[test]
fn of_selectors() {
    run("selectors", selectors::check);
}

#[test]
fn of_hosts_and_paths() {
    run("matching", matching::check);
}

#[test]
fn of_what_comes_in() {
    run("admission", admission::check);
}
