//! Both engines side by side at the smallest size, with a real gateway and a real Redis.

use std::{path::Path, time::Duration};

use loadtest::{
    cluster::built_gateway,
    engines::{self, Measure, Plan},
    start::Engine,
    verdict::Verdict,
    wire::Protocol,
};

fn plan(measures: &[Measure], engines: &[Engine], protocol: Protocol) -> Plan {
    Plan {
        measures: measures.to_vec(),
        engines: engines.to_vec(),
        rounds: 1,
        protocol,
        few: 16,
        connections: 48,
        shared: 4,
        tasks: 2,
        rest: Duration::from_millis(100),
        handshakes: 16,
        listeners: 16,
        beside: 16,
        stalled: 4,
        stall: Duration::from_secs(1),
        // Nothing is timed here: this is how long it is waited for.
        heartbeat: Duration::from_secs(25),
        ramp: 500.0,
        gateway: built_gateway().unwrap(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(),
    }
}

#[tokio::test]
async fn memory_and_handshakes_of_both_engines_come_to_figures() {
    let measures = [Measure::Memory, Measure::Shared, Measure::Handshakes];
    let engines = [Engine::Pneumatic, Engine::Socketioxide];
    let report = engines::run(&plan(&measures, &engines, Protocol::Eio3), |_| {}).await.unwrap();
    let json = report.to_json();
    for engine in engines {
        for figure in ["idle_bytes", "shared_used_bytes", "handshake_cpu_microseconds"] {
            assert!(json["engines"][engine.label()][figure]["value"].is_f64(), "{json}");
        }
    }
    let table = report.table("make bench-engines");
    assert!(table.starts_with("| | pneumatic | socketioxide |\n|---|---|---|\n"), "{table}");
}

#[tokio::test]
async fn readers_that_stand_still_are_put_out_and_the_others_lose_nothing() {
    let plan = plan(&[Measure::Stalled], &[Engine::Pneumatic], Protocol::Eio4);
    let report = engines::run(&plan, |_| {}).await.unwrap();
    assert_eq!(report.shortcomings(), Vec::<String>::new(), "{report}");
}
