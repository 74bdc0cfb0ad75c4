//! The common state as a ConfigMap.

use serde_json::json;

use super::*;

/// A route with so many revisions.
fn route(revisions: u64) -> Arc<SavedRoute> {
    let entry = |revision: u64| {
        json!({"revision": revision, "time": "2026-11-27T00:00:00Z", "source": "admin", "who": "someone",
               "before": {"v1": 99, "v2": 1}, "after": {"v1": 98, "v2": 2}, "reason": "x".repeat(200)})
    };
    let history: Vec<_> = (1..=revisions).map(entry).collect();
    let route =
        json!({"revision": revisions, "weights": {"v1": 98, "v2": 2}, "file": {"v2": 1}, "history": history});
    Arc::new(serde_json::from_value(route).unwrap())
}

fn routes(count: usize, revisions: u64) -> BTreeMap<RouteName, Arc<SavedRoute>> {
    (0..count).map(|number| (format!("route-{number}").parse().unwrap(), route(revisions))).collect()
}

fn object(data: Data) -> ConfigMap {
    let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
    object.metadata.resource_version = Some("7".to_owned());
    object
}

#[test]
fn what_was_written_is_read() {
    let routes = routes(3, 2);
    let (read, unread) = snapshot(&object(data(&routes))).unwrap();
    assert_eq!(read, Snapshot { version: Some(Version("7".into())), routes });
    assert!(unread.is_empty());
}

#[test]
fn a_key_that_cannot_be_read_costs_only_itself() {
    let mut data = data(&routes(2, 1));
    data.insert("route.route-0".to_owned(), "{".to_owned());
    data.insert("route.-".to_owned(), "{}".to_owned());
    data.insert("a-note".to_owned(), "of somebody".to_owned());
    let (read, unread) = snapshot(&object(data.clone())).unwrap();
    assert_eq!(read.routes.len(), 1);
    assert_eq!(unread.len(), 2, "{unread:?}");
    let told = States::convert(&"serinus".into(), object(data));
    assert!(told.kept.is_some());
    let problem = told.problem.unwrap().to_string();
    assert!(problem.contains("2 keys") && problem.contains("stay as they were"), "{problem}");
}

#[test]
fn a_later_format_is_left_alone() {
    let mut data = data(&routes(1, 1));
    data.insert(FORMAT.to_owned(), (SAVED_FORMAT + 1).to_string());
    let told = States::convert(&"serinus".into(), object(data));
    assert_eq!(told.kept, Some(None), "which is not the same as an empty one");
    assert!(told.problem.unwrap().message.contains("format 2"));
}

#[test]
fn as_many_revisions_are_kept_as_fit_into_a_config_map() {
    let few = data(&routes(100, 20));
    assert!(size(&few) < LARGEST, "a hundred routes have all of theirs: {}", size(&few));
    let fit = fitted(&data(&routes(400, 20))).unwrap();
    assert!(size(&fit) <= LARGEST);
    let (read, _) = snapshot(&object(fit)).unwrap();
    assert_eq!(read.routes.len(), 400, "each route is there");
    for route in read.routes.values() {
        assert_eq!(route.revision.0, 20);
        assert_eq!(route.history.last().unwrap().revision.0, 20, "the last ones are kept");
        assert_eq!(route.history.len(), 5);
    }
    assert!(fitted(&data(&routes(4_000, 1))).is_err());
}
