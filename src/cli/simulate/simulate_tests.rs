//! What the command says, of good and of bad input.

use super::*;

const CONFIG: &str = "listeners: [{name: web, address: '127.0.0.1:0'}]
discovery: {static: {web/a: []}}
routes:
  - {name: plain, service: web/a, versions: [{name: v1}], hosts: [plain.example.com]}
  - name: shop
    service: web/a
    versions: [{name: v1, selector: 'version!=v2'}, {name: v2, selector: version=v2}]
    rollout:
      steps: [{weight: 5, hold: 20s}, {weight: 50, hold: 20s, pause: true}, {weight: 100, hold: 10s}]
      guard: {minRequests: 10}
";

/// What the command writes, with these arguments.
fn run(config: &str, args: &[&str]) -> Result<String, CliError> {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    let line = ["simulate", file].into_iter().chain(args.iter().copied());
    let args = Line::try_parse_from(line).map_err(|e| CliError::Usage(e.to_string()))?.args;
    let mut out = Vec::new();
    simulate(&args, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_bad_version_is_caught_and_a_good_one_is_not() {
    let args = ["--rps", "100", "--canary-error", "50%", "--runs", "20", "--users", "50"];
    let text = run(CONFIG, &args).unwrap();
    assert!(text.starts_with("route shop: 20 rollouts of v2 at 100 requests/s (seed 1)\n"), "{text}");
    for line in [
        "v2 fails 50 % of its requests, v1 0.1 %:",
        "  caught           20 of 20",
        "STEP  WEIGHT  HOLD  REACHED  CAUGHT",
        "   1     5 %   20s       20      20",
        "  takes            50s in the median, 50s in 90 %, 50s at most",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
    assert!(text.contains("\n  users met one    "), "{text}");
    assert_eq!(run(CONFIG, &args).unwrap(), text, "the same seed gives the same");
    let json: serde_json::Value =
        serde_json::from_str(&run(CONFIG, &[&args[..], &["-o", "json"]].concat()).unwrap()).unwrap();
    assert_eq!((&json["worse"]["caught"], &json["noWorse"]["succeeded"]), (&20.into(), &20.into()), "{json}");
    assert!(json["worse"]["untilCaught"]["median"].as_f64().unwrap() < 10.0, "{json}");
}

#[test]
fn s5_3_users_are_dealt_out_where_the_route_does_so() {
    let by_user = &CONFIG.replace("    rollout:", "    cohort: {header: X-User}\n    rollout:");
    let args = ["--users", "50", "--canary-error", "50%", "--runs", "20", "-o", "json"];
    let play = |config: &str, more: &[&str]| {
        let said = run(config, &[&args[..], more].concat()).unwrap();
        let mut said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let unit = ["dealtOut", "dealtOutBecause"].map(|key| said[key].take().as_str().unwrap().to_owned());
        (unit.join(": "), said)
    };
    let (unit, users) = play(by_user, &[]);
    assert_eq!(unit, "users: the route has a `cohort`");
    let (unit, requests) = play(CONFIG, &[]);
    assert_eq!(unit, "requests: the route has no `cohort`");
    assert_ne!(users, requests, "of 50 users 2 or 3 are the canary's, and each counts once");
    assert_eq!(play(CONFIG, &["--by-user"]), ("users: --by-user".to_owned(), users.clone()));
    assert_eq!(play(CONFIG, &["--by-user=true"]).1, users);
    assert_eq!(play(by_user, &["--by-user=false"]), ("requests: --by-user=false".to_owned(), requests));
    let text = run(by_user, &["--users", "50", "--runs", "1"]).unwrap();
    assert!(text.contains("\nthe weights deal out users (the route has a `cohort`)\n"), "{text}");
    let without = run(by_user, &["--runs", "1"]).unwrap_err();
    assert_eq!(
        without.to_string(),
        "users of route shop are dealt out to its versions, not requests (the route has a `cohort`): say how many there are with \
         --users, or deal out requests with --by-user=false"
    );
    assert_eq!(without.exit_status(), 2);
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let slow = "--canary-slow";
    for (args, status, wanted) in [
        (vec!["nosuch"], 1, "the config has no route nosuch; with a rollout: shop"),
        (vec!["plain"], 1, "route plain has no rollout: give it `rollout`"),
        (vec![slow, "5%"], 2, "does not judge how fast answers are"),
        (vec!["--canary-error", "60%", slow, "60%"], 2, "more than 100 % together"),
        (vec!["--canary-error", "101%"], 2, "write a percentage from 0 to 100"),
        (vec!["--canary-error", "NaN"], 2, "write a percentage from 0 to 100"),
        (vec!["--rps", "0"], 2, "from 0.001 to 1000000"),
        (vec!["--by-user"], 2, "(--by-user): say how many there are with --users"),
        (vec!["--by-user=perhaps"], 2, "--by-user"),
        (vec!["--rps", "1000000", "--runs", "1000000"], 1, "ask for fewer --runs (up to 199)"),
        (vec!["--rps", "0.001"], 1, "longer than the 30 that can be simulated"),
    ] {
        let error = run(&CONFIG.replace("minRequests: 10", "minRequests: 1000"), &args).unwrap_err();
        assert!(error.exit_status() == status && error.to_string().contains(wanted), "{args:?}: {error}");
    }
    let without = CONFIG.split("    rollout:").next().unwrap();
    assert!(run(without, &[]).unwrap_err().to_string().starts_with("no route of the config has a rollout"));
    assert!(run("routes: 1", &[]).unwrap_err().to_string().contains("serinus.yaml:1:"));
}

/// The example of `docs/judging.md` is what happens.
#[test]
fn the_example_in_the_documentation() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/judging.md")).unwrap();
    let block = |kind: &str| page.split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap();
    let (command, said) = block("console").split_once('\n').unwrap();
    let args: Vec<_> = command.strip_prefix("$ serinus simulate serinus.yaml ").unwrap().split(' ').collect();
    let happened = run(block("yaml"), &args).unwrap();
    assert!(happened == said, "the example in docs/judging.md should be:\n{happened}");
}
