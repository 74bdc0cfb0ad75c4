//! Feeds `checks/selectors.rs`.
#![no_main]

#[path = "../checks/selectors.rs"]
mod selectors;

libfuzzer_sys::fuzz_target!(|data: &[u8]| selectors::check(data));
