//! Short runs of the chaos harness: seeds that found something, and one that nobody has played.

use std::{path::Path, time::Duration};

use loadtest::{
    chaos::{self, Plan, faults, writers::Manners},
    cluster,
};

/// Kept beside the code, so that what was found once is looked for always.
const SEEDS: &str = include_str!("../chaos-seeds.txt");

async fn play(seed: u64) {
    println!("chaos: seed {seed}");
    let plan = Plan {
        seed,
        duration: Duration::from_secs(10),
        round: Duration::from_secs(5),
        gateway: cluster::built_gateway().unwrap(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
        keep: false,
        gateways: 2,
        lights: 30,
        resumes: true,
        nodes: 4,
        users: 9,
        rate: 40.0,
        faults: faults::all(),
        manners: Manners { late: 0.1, swapped: 0.1, never: 0.05 },
    };
    let report = match chaos::run(&plan).await {
        Ok(report) => report,
        Err(error) => panic!("seed {seed} could not be played: {error:?}"),
    };
    assert!(report.failures().is_empty(), "{report}");
    println!("{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_that_found_something_find_nothing_any_more() {
    let lines = SEEDS.lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.filter_map(|line| line.split_whitespace().next());
    for seed in seeds {
        play(seed.parse().expect("each line begins with a seed")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_nobody_has_played_finds_nothing() {
    play(u64::from(rand::random::<u32>())).await;
}
