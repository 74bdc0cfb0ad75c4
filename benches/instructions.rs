//! How many instructions what happens most often takes. On a busy machine times vary, and these do not.
//!
//! `benches/count-instructions` builds this with its own profile, counts with valgrind, and fails where a limit is passed.

#![allow(missing_docs, clippy::exit, reason = "gungraun's macros make what they make")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop at what must not be")]

mod http2;
mod proxied;
mod world;

use std::hint::black_box;
use std::time::Duration;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use serinus::model::{Balance, ClusterChange, FailureKind, Pod};
use serinus::routing::{AttemptOutcome, InFlight, RoutingTable, Split};
use serinus::state::Touched;

use proxied::Proxied;
use world::{Decider, NOW, World, canary, decide, decide_for_browser, hosts, random};

/// As the router has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often each is done, unless its name says otherwise.
const TIMES: usize = 1_000;

/// The limit: so many instructions were measured, for all the times together, and `INSTRUCTIONS_ROOM` per mille more may be.
fn measured(instructions: u64) -> LibraryBenchmarkConfig {
    let room: u64 = std::env::var("INSTRUCTIONS_ROOM").map_or(5, |room| room.parse().unwrap());
    let limit = instructions + instructions * room / 1_000;
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::with_args(["--cache-sim=no"]).hard_limits([(EventKind::Ir, limit)]).clone());
    config
}

fn routes(routes: u32) -> (RoutingTable, Vec<String>) {
    (World::new(routes, 10).table(), hosts(routes))
}

#[library_benchmark]
#[bench::of_1_route(args = (1), setup = routes, config = measured(995_279))]
#[bench::of_10_000_routes(args = (10_000), setup = routes, config = measured(1_037_937))]
fn decision((table, hosts): (RoutingTable, Vec<String>)) -> (RoutingTable, Vec<String>) {
    for host in hosts.iter().cycle().take(TIMES) {
        black_box(decide(&table, black_box(host), black_box("/api/v1/items/42")));
    }
    (table, hosts)
}

fn deciding_by(what: Decider) -> RoutingTable {
    World::deciding_by(what).table()
}

#[library_benchmark]
#[bench::by_weight(args = (Decider::Weight), setup = deciding_by, config = measured(974_332))]
#[bench::by_5_rules(args = (Decider::FiveRules), setup = deciding_by, config = measured(6_158_332))]
#[bench::by_cohort(args = (Decider::Cohort), setup = deciding_by, config = measured(3_269_038))]
fn decision_for_a_browser(table: RoutingTable) -> RoutingTable {
    for _ in 0..TIMES {
        black_box(decide_for_browser(&table));
    }
    table
}

#[library_benchmark]
#[bench::of_the_split(setup = canary, config = measured(77_735))]
fn draw(split: Split) -> Split {
    for _ in 0..TIMES {
        black_box(split.draw(random));
    }
    split
}

fn attempt(outcome: AttemptOutcome) -> (RoutingTable, InFlight, AttemptOutcome) {
    let table = World::balanced(1, 10, &Balance::PeakEwma).table();
    let at = table.routes()[0].versions[0].pick(None, NOW, |_| false, random).unwrap();
    (table, at, outcome)
}

type Attempt = (RoutingTable, InFlight, AttemptOutcome);

#[library_benchmark]
#[bench::answered(args = (AttemptOutcome::Answered(200)), setup = attempt, config = measured(217_001))]
#[bench::failed(args = (AttemptOutcome::Failed(FailureKind::Reset)), setup = attempt, config = measured(163_049))]
fn attempt_ended((table, at, outcome): Attempt) -> Attempt {
    let version = &table.routes()[0].versions[0];
    for _ in 0..TIMES {
        black_box(version.ended(&at, black_box(outcome), Duration::from_millis(3), NOW));
    }
    (table, at, outcome)
}

fn cluster(routes: u32) -> World {
    World::new(routes, 10)
}

// Everything anew, once.
#[library_benchmark]
#[bench::of_100_routes_1_000_pods(args = (100), setup = cluster, config = measured(3_415_792))]
fn compile(mut world: World) -> (World, RoutingTable) {
    let everything = Touched { everything: true, ..Touched::default() };
    let table = world.compiler.compile(&world.desired, &everything, NOW);
    (world, table)
}

fn pod_events(routes: u32) -> (World, Vec<ClusterChange>) {
    let world = World::new(routes, 10);
    let deleted = |pod: &Pod| ClusterChange::PodApplied(Pod { deleting: true, ..pod.clone() });
    // From one end of the world to the other.
    let changes = world.pods.iter().step_by(world.pods.len() / 100).map(deleted).collect();
    (world, changes)
}

// A pod gets its deletionTimestamp, a hundred times.
#[library_benchmark]
#[bench::of_1_000_routes_10_000_pods(args = (1_000), setup = pod_events, config = measured(5_562_820))]
fn recompile_after_100_pod_events((mut world, changes): (World, Vec<ClusterChange>)) -> World {
    for change in changes {
        black_box(world.hear(change));
    }
    world
}

// From the client's bytes to a pod and back, on connections that are kept.
#[library_benchmark]
#[bench::of_1_kb(args = (500), setup = Proxied::warm, config = measured(22_818_964))]
#[bench::of_1_kb_over_http2(args = (500), setup = Proxied::warm_http2, config = measured(71_580_970))]
#[bench::of_1_kb_with_a_line_in_the_access_log(args = (500), setup = Proxied::warm_logged, config = measured(32_467_001))]
#[bench::of_1_kb_not_traced(args = (500), setup = Proxied::warm_not_traced, config = measured(24_245_739))]
#[bench::of_1_kb_traced(args = (500), setup = Proxied::warm_traced, config = measured(30_264_941))]
fn request(mut router: Proxied) -> Proxied {
    router.requests(TIMES);
    router
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        decision,
        decision_for_a_browser,
        draw,
        attempt_ended,
        compile,
        recompile_after_100_pod_events,
        request,
    ]
);

main!(library_benchmark_groups = instructions);
