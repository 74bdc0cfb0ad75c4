//! Feeds `checks/admission.rs`.
#![no_main]

#[path = "../checks/admission.rs"]
mod admission;

libfuzzer_sys::fuzz_target!(|data: &[u8]| admission::check(data));
