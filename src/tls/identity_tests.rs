//! Tests of reading certificates and keys.

use std::time::SystemTime;

use rcgen::{DnType, KeyPair, SanType};

use super::super::authority_tests::{Authority, Issued, text};
use super::*;

fn read(issued: &Issued) -> Result<Identity, Vec<Problem>> {
    let (chain, key) = issued.texts();
    Identity::from_pem(&chain, &key)
}

/// What is said of a chain and a key, which must be wrong.
#[track_caller]
fn refused(chain: &str, key: &str) -> String {
    let problems = Identity::from_pem(&text("a chain", chain), &text("a key", key)).unwrap_err();
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_certificate_with_its_key_is_read() {
    let authority = Authority::new("a");
    let issued = authority.issue(&["Shop.Example.com", "*.example.org", "10.0.0.1"]);
    let identity = read(&issued).unwrap();
    assert_eq!(identity.names, ["shop.example.com", "*.example.org"]);
    assert_eq!(identity.key.cert.len(), 1);
    // With the one that signed it, and text around, as `openssl` writes it.
    let chain = format!("subject: x\n{}\nissuer: y\n{}", issued.chain, authority.pem());
    let whole = Issued { chain, ..issued.clone() };
    let whole = read(&whole).unwrap();
    assert_eq!(whole.key.cert.len(), 2);
    assert!(!whole.is_same(&identity) && identity.is_same(&read(&issued).unwrap()));
}

#[test]
fn keys_of_every_usual_kind_are_read() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        read(&Issued { chain, key: key.serialize_pem() }).unwrap();
    }
}

#[test]
fn the_common_name_counts_only_without_alternative_names() {
    let authority = Authority::new("a");
    let common = |params: &mut rcgen::CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "Old.Example.com");
    };
    assert_eq!(read(&authority.issue_with(&[], common)).unwrap().names, ["old.example.com"]);
    assert_eq!(read(&authority.issue_with(&["new.example.com"], common)).unwrap().names, ["new.example.com"]);
    let only_an_address = authority.issue_with(&[], |params| {
        common(params);
        params.subject_alt_names = vec![SanType::IpAddress("10.0.0.1".parse().unwrap())];
    });
    assert!(read(&only_an_address).unwrap().names.is_empty());
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let said = refused("nothing", "nothing");
    assert!(said.contains("a chain has no certificate"), "{said}");
    assert!(said.contains("a key has no private key"), "{said}");
}

#[test]
fn a_chain_that_is_none_says_where() {
    let issued = Authority::new("a").issue(&["a.example"]);
    let half = &issued.chain[..issued.chain.len() / 2];
    assert!(refused(half, &issued.key).contains("a chain is no PEM text, or is cut short"));
    let garbage = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let said = refused(&format!("{}{garbage}", issued.chain), &issued.key);
    assert!(said.contains("certificate 2 of a chain is none"), "{said}");
    assert!(refused(garbage, &issued.key).contains("certificate 1 of a chain is none"));
    assert!(refused(&issued.key, &issued.key).contains("a chain has no certificate"));
}

#[test]
fn a_key_that_does_not_fit_says_so() {
    let authority = Authority::new("a");
    let (one, other) = (authority.issue(&["a.example"]), authority.issue(&["a.example"]));
    let said = refused(&one.chain, &other.key);
    assert!(said.contains("the key in a key does not fit the certificate in a chain"), "{said}");
    // The wrong way round.
    let said = refused(&format!("{}{}", one.chain, other.chain), &other.key);
    assert!(said.contains("fits a certificate of a chain that is not its first"), "{said}");
    assert!(said.contains("put that one first"), "{said}");
}

#[test]
fn a_key_that_cannot_be_used_says_why_and_shows_nothing_of_itself() {
    let issued = Authority::new("a").issue(&["a.example"]);
    let encrypted = issued.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let said = refused(&issued.chain, &encrypted);
    assert!(
        said.contains("the private key in a key is encrypted") && said.contains("openssl pkey"),
        "{said}"
    );
    let secret = "c2VjcmV0c2VjcmV0";
    let odd = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    let said = refused(&issued.chain, &odd);
    assert!(said.contains("of a kind that is not known, or damaged"), "{said}");
    for hidden in [secret, "secret", "115, 101, 99"] {
        assert!(!said.contains(hidden), "{said}");
    }
    let half = &issued.key[..issued.key.len() / 2];
    assert!(refused(&issued.chain, half).contains("or it is cut short"));
}

#[test]
fn its_dates_are_a_problem_when_they_are_over_near_or_to_come() {
    let authority = Authority::new("a");
    let now = SystemTime::now();
    let check = |in_days: i64, of_days: u64, expected: Option<&str>| {
        let issued = authority.ending(&["a.example"], now, Duration::from_secs(of_days * 86_400));
        let moment = Timestamp::from(now).millis() as i64 + in_days * 86_400_000;
        let problem =
            read(&issued).unwrap().problem("a.crt (listener `web`)", Timestamp::from_millis(moment as u64));
        match (problem, expected) {
            (None, None) => {}
            (Some(problem), Some(needle)) => {
                let problem = problem.to_string();
                assert!(problem.contains(needle) && problem.contains("a.crt (listener `web`)"), "{problem}");
            }
            (problem, expected) => panic!("{problem:?} for {expected:?}"),
        }
    };
    check(0, 8, None);
    check(0, 6, Some("in less than 7 days: renew it now"));
    check(9, 8, Some("has expired on 20"));
    let to_come = authority.issue_with(&["a.example"], |p| p.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let problem = read(&to_come).unwrap().problem("a.crt", now.into()).unwrap();
    assert!(problem.to_string().contains("valid only from 2999-01-01"), "{problem}");
}
