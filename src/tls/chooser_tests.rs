//! Tests of choosing a certificate by name.

use super::super::authority_tests::Authority;
use super::*;

/// The certificates of these names, in order, chosen between.
fn choices(names: &[&[&str]]) -> Choices {
    let authority = Authority::new("a");
    let identities = names.iter().map(|names| {
        let (chain, key) = authority.issue(names).texts();
        Some(Arc::new(Identity::from_pem(&chain, &key).unwrap()))
    });
    Choices::new(&identities.collect::<Vec<_>>())
}

#[test]
fn by_the_whole_name_then_by_wildcard_then_the_first() {
    let choices = choices(&[
        &["first.example"],
        &["*.shop.example", "shop.example"],
        &["www.shop.example"],
        &["*.a.shop.example"],
    ]);
    for (name, expected) in [
        (Some("first.example"), 0),
        (Some("shop.example"), 1),
        (Some("api.shop.example"), 1),
        (Some("www.shop.example"), 2),
        (Some("x.a.shop.example"), 3),
        // In the letters and with the dot that a client may write.
        (Some("API.Shop.Example"), 1),
        (Some("www.shop.example."), 2),
        // A wildcard is for one label, which is there.
        (Some("a.b.shop.example"), 0),
        (Some(".shop.example"), 0),
        (Some("y.x.a.shop.example"), 0),
        // What nobody has.
        (Some("else.example"), 0),
        (Some(""), 0),
        (Some("."), 0),
        (Some("*.shop.example"), 1),
        (None, 0),
    ] {
        assert_eq!(choices.choose(name), expected, "{name:?}");
    }
    let long = format!("{}.shop.example", "x".repeat(300));
    assert_eq!(choices.choose(Some(&long)), 0);
    let longest = format!("{}.shop.example", "x".repeat(253 - ".shop.example".len()));
    assert_eq!(choices.choose(Some(&longest)), 1);
}

#[test]
fn of_two_for_one_name_the_first() {
    let choices = choices(&[&["x.example"], &["a.example", "*.b.example"], &["a.example", "*.b.example"]]);
    assert_eq!(choices.choose(Some("a.example")), 1);
    assert_eq!(choices.choose(Some("z.b.example")), 1);
}

#[test]
fn a_star_inside_a_label_or_further_in_matches_nothing() {
    let choices = choices(&[&["x.example"], &["w*.a.example", "b.*.example", "*.*.c.example"]]);
    for name in ["ww.a.example", "w*.a.example", "b.b.example", "b.*.example", "a.b.c.example"] {
        assert_eq!(choices.choose(Some(name)), 0, "{name}");
    }
}

#[test]
fn one_that_is_not_there_yet_keeps_its_place() {
    let authority = Authority::new("a");
    let (chain, key) = authority.issue(&["b.example"]).texts();
    let there = Some(Arc::new(Identity::from_pem(&chain, &key).unwrap()));
    let choices = Choices::new(&[None, there]);
    assert_eq!(choices.choose(Some("b.example")), 1);
    assert_eq!(choices.choose(Some("a.example")), 0);
    assert!(choices.keys[0].is_none() && choices.keys[1].is_some());
}
