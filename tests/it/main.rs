//! Integration tests.

mod admin;
mod admin_cli;
