//! The zlib API under the name that `flate2` asks for when pingora turns on its `zlib-ng` feature.
//!
//! The real `libz-ng-sys` builds zlib-ng with CMake, which a machine with "Rust and a C compiler" does not have.
//! This crate hands on the same functions from `libz-sys` (stock zlib, built by `cc`). Serinus itself compresses
//! nothing; pingora merely links it. See `docs/decisions/0002-no-cmake.md`.
pub use libz_sys::*;
