//! The config file as its users meet it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::model::{Balance, OnEmpty, PathMatch, ServiceKey, Share};

const STATIC: &str = include_str!("../../config/static.yaml");
const KUBERNETES: &str = include_str!("../../config/serinus.yaml");

/// The errors of `text`, less the file's name.
fn errors(text: &str) -> Vec<String> {
    match parse("f", text) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            errors.to_string().lines().map(|line| line.strip_prefix("f:").unwrap_or(line).to_owned()).collect()
        }
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "{text}");
}

/// A file with one route, whose lines from the fifth on are `more`.
fn route(more: &str) -> String {
    format!("discovery:\n  static: {{a/b: []}}\nroutes:\n- {{name: r, service: a/b, {more}}}\n")
}
