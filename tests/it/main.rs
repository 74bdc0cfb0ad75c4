//! Integration tests.

mod admin;
