//! The documentation is true where a test can tell: links lead somewhere, and the API's page lists the API.

use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions", "tests/fixtures/manifests"] {
        let entries = fs::read_dir(top().join(folder)).unwrap().map(|e| e.unwrap().path());
        pages.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

pub(crate) fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.contains("://") && !t.contains(char::is_whitespace)) {
            let (file, wanted) = target.split_once('#').map_or((target, None), |(file, a)| (file, Some(a)));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            if !file.exists() || wanted.is_some_and(|wanted| !has_anchor(&file, wanted)) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_admin_apis_page_lists_every_endpoint_and_no_other() {
    let page = fs::read_to_string(top().join("docs/admin-api.md")).unwrap();
    let document = serde_json::to_value(serinus::admin::openapi()).unwrap();
    let mut there = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            there.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut told: Vec<_> = rows.map(|(cell, _)| cell.to_owned()).filter(|cell| cell.contains(" /")).collect();
    told.sort();
    there.sort();
    assert_eq!(told, there);
}

/// The tests that `docs/faults.md` names are there: `module::name`.
#[test]
fn the_tests_of_the_faults_page_exist() {
    let page = fs::read_to_string(top().join("docs/faults.md")).unwrap();
    let named: Vec<_> = page.split('`').skip(1).step_by(2).filter(|text| text.contains("::")).collect();
    let named = named.iter().filter(|text| !text.contains(' ')).collect::<Vec<_>>();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            let (module, test) = name.rsplit_once("::").unwrap();
            let file = match module.strip_suffix("::tests") {
                Some(room) => top().join("src").join(room).join("tests.rs"),
                None => top().join("tests/it").join(format!("{}.rs", module.replace("::", "/"))),
            };
            !fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {test}()")))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
