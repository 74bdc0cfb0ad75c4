//! `docs/errors.md` shows what the binary really prints.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::support::certificates::Authority;
use crate::support::process::{Process, Said, say, serinus};

const REFERENCE: &str = include_str!("../../docs/errors.md");

/// The rows of the table between `<!-- NAME -->` and `<!-- /NAME -->`, as (first cell, last cell).
fn rows(name: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = REFERENCE.split_once(&format!("<!-- {name} -->\n")).expect("the section begins");
    let (section, _) = rest.split_once(&format!("<!-- /{name} -->")).expect("the section ends");
    let rows = section.lines().skip(2).map(|line| {
        let line = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")).expect("a row");
        line.split_once(" | ").expect("two cells")
    });
    rows.collect()
}

/// A text as a cell of the table: what a command prints up to the first empty line.
fn cell(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| format!("`` {} ``", line.trim()))
        .collect();
    lines.join("<br>").replace('|', "\\|")
}

/// Compares the table with what was printed, and shows the table as it should be.
fn compare(name: &str, printed: &[(String, String)]) {
    let said: Vec<_> = rows(name).iter().map(|(a, b)| format!("| {a} | {b} |")).collect();
    let expected: Vec<_> = printed.iter().map(|(a, b)| format!("| {a} | {} |", cell(b))).collect();
    assert!(
        said == expected,
        "docs/errors.md, `{name}`, should be:\n{}\nand is:\n{}",
        expected.join("\n"),
        said.join("\n")
    );
}

/// A config that is good, and the fields to make it wrong.
struct Wrong {
    web: String,
    admin: String,
    more: String,
    discovery: String,
}

/// Something that a start stumbles over.
fn start(folder: &Path, change: impl FnOnce(&mut Wrong)) -> Said {
    let mut wrong = Wrong {
        web: "127.0.0.1:0".to_owned(),
        admin: "127.0.0.1:0".to_owned(),
        more: String::new(),
        discovery: "static: {web/nginx-svc: [{address: '127.0.1.1:8080'}]}".to_owned(),
    };
    change(&mut wrong);
    let text = format!(
        "listeners: [{{name: web, address: {}}}]\nadmin: {{address: {}}}\n{}\ndiscovery: {{{}}}\n\
         routes: [{{name: shop, service: web/nginx-svc, versions: [{{name: v1}}]}}]\n",
        wrong.web, wrong.admin, wrong.more, wrong.discovery
    );
    let file = folder.join("serinus.yaml");
    fs::write(&file, text).unwrap();
    let mut command = serinus(&["run", "--config", &file.display().to_string()]);
    command.env("HOME", "/nonexistent");
    say(command)
}

/// Each situation, and how it is made.
fn starts(folder: &Path, taken: [SocketAddr; 2]) -> Vec<(&'static str, Said)> {
    let at = |name: &str| folder.join(name).display().to_string();
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        at(name)
    };
    let token =
        |file: String| move |wrong: &mut Wrong| wrong.admin = format!("127.0.0.1:0, tokenFile: '{file}'");
    let state = |file: String| move |wrong: &mut Wrong| wrong.more = format!("state: {{file: '{file}'}}");
    let cluster = |kubernetes: String| {
        move |wrong: &mut Wrong| wrong.discovery = format!("kubernetes: {{{kubernetes}}}")
    };
    let no_context =
        "{apiVersion: v1, kind: Config, contexts: [{name: prod, context: {cluster: c, user: u}}]}";
    vec![
        ("there is no config file", say(serinus(&["run", "--config", &at("nowhere.yaml")]))),
        ("`--config` names a folder", say(serinus(&["run", "--config", &folder.display().to_string()]))),
        (
            "both ports are taken",
            start(folder, |wrong| {
                wrong.web = taken[0].to_string();
                wrong.admin = taken[1].to_string();
            }),
        ),
        ("the address is another machine's", start(folder, |wrong| wrong.web = "192.0.2.1:8080".to_owned())),
        (
            "a listener's certificate is not there",
            start(folder, |wrong| {
                let (cert, key) = (at("tls.crt"), at("tls.key"));
                let tls = format!("{{certificates: [{{certFile: '{cert}', keyFile: '{key}'}}]}}");
                wrong.web = format!("127.0.0.1:0, tls: {tls}");
            }),
        ),
        ("the token file is not there", start(folder, token(at("no-token")))),
        ("the token file is empty", start(folder, token(write("token", "\n")))),
        ("the token file has two lines", start(folder, token(write("token", "one\ntwo\n")))),
        ("the folder of the state file is not there", start(folder, state(at("nowhere/state.json")))),
        (
            "a later version wrote the state file",
            start(folder, state(write("state.json", "{\"format\": 2, \"routes\": []}"))),
        ),
        (
            "the folder of the access log is not there",
            start(folder, |wrong| {
                wrong.more = format!("accessLog: {{file: '{}'}}", at("nowhere/access.json"))
            }),
        ),
        ("not in a pod, and no kubeconfig", start(folder, cluster(String::new()))),
        (
            "the kubeconfig is not there",
            start(folder, cluster(format!("kubeconfig: '{}'", at("nowhere.kubeconfig")))),
        ),
        (
            "the kubeconfig has no such context",
            start(
                folder,
                cluster(format!("kubeconfig: '{}', context: test", write("kubeconfig", no_context))),
            ),
        ),
        (
            "the ports of the demo are taken",
            say(serinus(&["demo", "--listen", &taken[0].to_string(), "--admin", &taken[1].to_string()])),
        ),
    ]
}

#[test]
fn bad_starts_say_what_the_reference_says() {
    let folder = tempfile::tempdir().unwrap();
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [web, admin] = [0, 1].map(|i| taken[i].local_addr().unwrap());
    let printed: Vec<_> = starts(folder.path(), [web, admin])
        .into_iter()
        .map(|(what, said)| {
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{what}: {said:?}");
            let text = said
                .err
                .replace(&folder.path().display().to_string(), "/etc/serinus")
                .replace(&web.to_string(), "127.0.0.1:8080")
                .replace(&admin.to_string(), "127.0.0.1:9901");
            // What the log says before it fails is no part of it.
            let text: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
            (what.to_owned(), text.join("\n"))
        })
        .collect();
    compare("starts", &printed);
}

/// Files of certificates that do not go together, and a config that names them: `tls.yaml`.
fn certificates(folder: &Path) {
    let authority = Authority::new("a");
    let (one, other) = (authority.issue(&["shop.example.com"]), authority.issue(&["shop.example.com"]));
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("tls.crt", &one.chain);
    write("tls.key", &other.key);
    write("ca.crt", "not yet");
    let tls = "certificates: [{certFile: tls.crt, keyFile: tls.key}], clientCertificates: {caFile: none.crt}";
    write(
        "tls.yaml",
        &format!(
            "listeners:\n- {{name: web, address: '127.0.0.1:0', tls: {{{tls}}}}}\nroutes:\n- name: shop\n  \
             service: web/shop\n  upstreamTls: {{caFile: ca.crt}}\n  versions: [{{name: v1}}]\n"
        ),
    );
}

/// `serinus check` says what `serinus run` would say of a listener's files, and lets those pass that are not here.
#[test]
fn a_check_looks_at_the_certificates_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let check = || {
        let mut command = serinus(&["check", "tls.yaml"]);
        command.current_dir(folder.path());
        say(command)
    };
    assert_eq!(check().code, Some(1));
    let authority = Authority::new("a");
    let issued = authority.issue(&["shop.example.com"]);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("tls.crt", &issued.chain);
    write("tls.key", &issued.key);
    fs::remove_file(folder.path().join("ca.crt")).unwrap();
    let said = check();
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let notes: Vec<_> = said.out.lines().filter(|line| line.starts_with("Note: ")).collect();
    assert_eq!(
        notes,
        [
            "Note: tls.yaml:2:129: listeners[0].tls.clientCertificates.caFile: not here: none.crt; the router needs it at its \
             start",
            "Note: tls.yaml:6:25: routes[0].upstreamTls.caFile: not here: ca.crt; the router needs it for this route",
        ],
        "{said:?}"
    );
    write("tls.crt", &authority.issue_until(&["shop.example.com"], &issued, 2020).chain);
    let said = check();
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), ""),
        "as `serinus run`, which starts with it: {said:?}"
    );
    assert!(
        said.out.contains(
            "Warning: tls.yaml:2:71: listeners[0].tls.certificates[0].certFile: the certificate tls.crt has expired on 2020-"
        ),
        "{said:?}"
    );
}

/// The words of a command line; `'…'` is one.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(i, part)| if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_say_what_the_reference_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    let token = folder.path().join("token");
    fs::write(&token, "a-token").unwrap();
    let (head, rest) = include_str!("../../config/static.yaml").split_once("discovery:").unwrap();
    let admin =
        format!("admin: {{address: '127.0.0.1:0', tokenFile: '{}'}}\n\ndiscovery:{rest}", token.display());
    fs::write(&file, format!("{head}{admin}").replace("address: 127.0.0.1:8080\n", "address: 127.0.0.1:0\n"))
        .unwrap();
    let process = Process::start(&file).await;
    certificates(folder.path());
    let mut printed = Vec::new();
    for (first, _) in rows("commands") {
        let line = first.trim_matches('`').trim();
        let words = words(line.strip_prefix("serinus ").expect("a command of serinus"));
        let mut command = serinus(&words);
        command.env("SERINUS_ADMIN", process.admin.to_string()).current_dir(folder.path());
        if line.starts_with("serinus weight") || line.starts_with("serinus rollout undo") {
            // One row is about its absence.
            if !line.contains("without a token") {
                command.env("SERINUS_TOKEN_FILE", &token);
            }
        }
        let said = say(command);
        assert!(matches!(said.code, Some(1 | 2)) && said.out.is_empty(), "{line}: {said:?}");
        let usage = said.err.starts_with("error: ") || said.code == Some(2);
        assert_eq!(said.code, Some(if usage { 2 } else { 1 }), "{line}");
        printed.push((first.to_owned(), said.err.replace(&process.admin.to_string(), "127.0.0.1:9901")));
    }
    assert!(printed.len() >= 12, "rows of commands: {printed:?}");
    compare("commands", &printed);
}
