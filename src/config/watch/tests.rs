//! Every way in which a file changes, on a real file system.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// Long enough for a busy machine; no test waits for it unless it fails.
const LONG: Duration = Duration::from_secs(20);
/// Never, as far as a test can tell: what comes was brought by a notification.
const NEVER: Duration = Duration::from_secs(3_600);

const TIMING: Timing =
    Timing { rest: Duration::from_millis(30), patience: Duration::from_secs(1), poll: NEVER };

/// A config that can be told from others by its `drain.delay`.
fn text(seconds: u64) -> String {
    format!("drain: {{delay: {seconds}s}}\nroutes: []\n")
}

fn write(path: &Path, seconds: u64) {
    fs::write(path, text(seconds)).unwrap();
}

/// The `drain.delay` of the next content in seconds, or its errors.
async fn next(watch: &mut Watch) -> Result<u64, String> {
    let content = tokio::time::timeout(LONG, watch.next()).await.expect("nothing was noticed");
    content.expect("the thread ended").map(|s| s.drain.delay.as_secs()).map_err(|e| e.to_string())
}

/// A watched file in a directory of its own; its first content, 1, has been read.
async fn watched() -> (TempDir, PathBuf, Watch) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serinus.yaml");
    write(&path, 1);
    let mut watch = start(path.clone(), TIMING, true).unwrap();
    assert_eq!(next(&mut watch).await, Ok(1), "what the file holds at first");
    (directory, path, watch)
}

#[tokio::test]
async fn a_write_in_place_is_noticed() {
    let (_directory, path, mut watch) = watched().await;
    for seconds in 2..5 {
        write(&path, seconds);
        assert_eq!(next(&mut watch).await, Ok(seconds));
    }
}

#[tokio::test]
async fn a_file_renamed_over_it_is_noticed() {
    let (directory, path, mut watch) = watched().await;
    for seconds in 2..5 {
        let new = directory.path().join(".serinus.yaml.swp");
        write(&new, seconds);
        fs::rename(&new, &path).unwrap();
        assert_eq!(next(&mut watch).await, Ok(seconds));
    }
}

#[tokio::test]
async fn only_other_content_is_told() {
    let (_directory, path, mut watch) = watched().await;
    write(&path, 1);
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    write(&path, 2);
    assert_eq!(next(&mut watch).await, Ok(2));
    fs::write(&path, text(2) + "# a comment\n").unwrap();
    assert_eq!(next(&mut watch).await, Ok(2), "other content, though it means the same");
}

#[tokio::test]
async fn what_is_written_beside_it_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serinus.yaml");
    write(&path, 1);
    // Were the file beside it heard of, there would be no rest.
    let timing = Timing { patience: NEVER, ..TIMING };
    let mut watch = start(path.clone(), timing, true).unwrap();
    assert_eq!(next(&mut watch).await, Ok(1));
    let (beside, stop) = (directory.path().join("access.json"), Arc::new(AtomicBool::new(false)));
    let stopping = Arc::clone(&stop);
    let writing = std::thread::spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            fs::write(&beside, "a line").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    for seconds in 2..5 {
        write(&path, seconds);
        assert_eq!(next(&mut watch).await, Ok(seconds));
    }
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
}

#[tokio::test]
async fn a_config_map_swap_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path();
    let publish = |seconds: u64| {
        // As the kubelet's atomic writer does: a new directory, then one link renamed over the other.
        let data = format!("..data_{seconds}");
        fs::create_dir(volume.join(&data)).unwrap();
        write(&volume.join(&data).join("serinus.yaml"), seconds);
        symlink(&data, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    publish(1);
    symlink("..data/serinus.yaml", volume.join("serinus.yaml")).unwrap();
    let mut watch = start(volume.join("serinus.yaml"), TIMING, true).unwrap();
    assert_eq!(next(&mut watch).await, Ok(1));
    for seconds in 2..5 {
        publish(seconds);
        fs::remove_dir_all(volume.join(format!("..data_{}", seconds - 1))).unwrap();
        assert_eq!(next(&mut watch).await, Ok(seconds));
    }
}

#[tokio::test]
async fn a_change_where_a_link_points_to_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("releases")).unwrap();
    let real = directory.path().join("releases/5.yaml");
    write(&real, 1);
    symlink(directory.path().join("releases"), directory.path().join("current")).unwrap();
    symlink("current/../releases/5.yaml", directory.path().join("link")).unwrap();
    let mut watch = start(directory.path().join("link"), TIMING, true).unwrap();
    assert_eq!(next(&mut watch).await, Ok(1));
    write(&real, 2);
    assert_eq!(next(&mut watch).await, Ok(2));
}

#[tokio::test]
async fn a_file_may_go_and_come_back() {
    let (_directory, path, mut watch) = watched().await;
    for _ in 0..2 {
        fs::remove_file(&path).unwrap();
        let error = next(&mut watch).await.unwrap_err();
        assert!(error.contains("there is no such file"), "{error}");
        write(&path, 1);
        assert_eq!(next(&mut watch).await, Ok(1));
    }
}

#[tokio::test]
async fn a_file_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/serinus.yaml");
    let mut watch = start(path.clone(), TIMING, true).unwrap();
    assert!(next(&mut watch).await.unwrap_err().contains("there is no such file"));
    fs::create_dir(directory.path().join("a")).unwrap();
    write(&path, 2);
    assert_eq!(next(&mut watch).await, Ok(2));
}

#[tokio::test]
async fn a_bad_file_is_told_and_so_is_the_good_one_after_it() {
    let (_directory, path, mut watch) = watched().await;
    fs::write(&path, "rutes: []\n").unwrap();
    let error = next(&mut watch).await.unwrap_err();
    assert_eq!(error, format!("{}:1:1: rutes: unknown field: did you mean `routes`?", path.display()));
    write(&path, 2);
    assert_eq!(next(&mut watch).await, Ok(2));
}

#[tokio::test]
async fn without_notifications_the_regular_look_finds_the_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serinus.yaml");
    write(&path, 1);
    let timing = Timing { poll: Duration::from_millis(20), ..TIMING };
    let mut watch = start(path.clone(), timing, false).unwrap();
    assert_eq!(next(&mut watch).await, Ok(1));
    write(&path, 2);
    assert_eq!(next(&mut watch).await, Ok(2));
}

#[tokio::test]
async fn the_last_of_many_changes_is_never_lost() {
    let (directory, path, mut watch) = watched().await;
    for round in 0..5 {
        let last = 1_000 * (round + 1);
        for seconds in last - 50..=last {
            // In turn in place and by renaming, and nobody listens.
            let new = directory.path().join("new");
            let target = if seconds % 2 == 0 { &path } else { &new };
            write(target, seconds);
            if seconds % 2 == 1 {
                fs::rename(&new, &path).unwrap();
            }
        }
        while next(&mut watch).await != Ok(last) {}
    }
}

#[tokio::test]
async fn dropping_it_ends_the_thread() {
    let (_directory, _path, watch) = watched().await;
    let stop = watch.stop.clone();
    drop(watch);
    let ended = async {
        while Arc::strong_count(&stop) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("the thread goes on");
}

#[test]
fn reading_is_not_a_change() {
    use notify::event::{CreateKind, ModifyKind, RemoveKind};
    for kind in [AccessKind::Any, AccessKind::Read, AccessKind::Open(AccessMode::Any)] {
        assert!(!changes(EventKind::Access(kind)), "{kind:?}");
    }
    assert!(!changes(EventKind::Access(AccessKind::Close(AccessMode::Read))));
    assert!(changes(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    for kind in [
        EventKind::Any,
        EventKind::Create(CreateKind::Any),
        EventKind::Modify(ModifyKind::Any),
        EventKind::Remove(RemoveKind::Any),
    ] {
        assert!(changes(kind), "{kind:?}");
    }
}

#[test]
fn links_in_a_circle_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    symlink("b", &path).unwrap();
    symlink("a", directory.path().join("b")).unwrap();
    assert_eq!(way(&path).directories.len(), 1);
}
