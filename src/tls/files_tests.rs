//! Tests of looking after files.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::authority_tests::{Authority, Issued};
use super::*;
use crate::model::{CertificateSource, ListenerTls, MinTls};

/// Puts a certificate where a mounted Secret has it: behind `..data`, which is swapped in one step.
fn mount(folder: &Path, version: &str, issued: &Issued) {
    let data = folder.join(version);
    std::fs::create_dir(&data).unwrap();
    issued.write(&data, "tls");
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        // There since the first time.
        let _ = symlink(Path::new("..data").join(file), folder.join(file));
    }
}

/// Swaps a mounted Secret and waits until the new certificate is in use.
async fn swapped(poll: Duration, notifications: bool) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    mount(folder.path(), "..1", &authority.issue(&["one.example"]));
    let path = |name: &str| folder.path().join(name);
    let source = CertificateSource::Files { cert: path("tls.crt"), key: path("tls.key") };
    let tls = ListenerTls { certificates: vec![source], min_version: MinTls::Tls12, client_auth: None };
    let store = Store::new([("web", &tls)].into_iter(), [].iter()).unwrap();
    let watch = store.follow_files_every(poll, notifications).unwrap();
    let mut reports = store.reports();
    for version in ["two", "three", "four"] {
        mount(folder.path(), &format!("..{version}"), &authority.issue(&[&format!("{version}.example")]));
        let name = format!("{version}.example");
        let renewed =
            reports.wait_for(|report| report.loaded.iter().any(|loaded| loaded.names == [name.as_str()]));
        tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("the new one is in use").unwrap();
        assert!(reports.borrow().problems.is_empty());
    }
    // The thread ends with the watch, and lets the store go.
    drop(watch);
    let weak = Arc::downgrade(&store);
    drop(store);
    let gone = async {
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nobody holds the store");
}

#[tokio::test]
async fn the_swap_of_a_mounted_secret_is_heard_of() {
    // Longer than the test has patience: only a notification can tell.
    swapped(Duration::from_secs(3600), true).await;
}

#[tokio::test]
async fn the_swap_of_a_mounted_secret_is_seen_without_notifications() {
    swapped(Duration::from_millis(20), false).await;
}
