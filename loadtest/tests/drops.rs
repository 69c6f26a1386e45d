//! A short drop benchmark, with real gateways and shards.

use std::{path::Path, time::Duration};

use loadtest::{
    cluster::built_gateway,
    drops::{self, Plan},
    verdict::Verdict,
};

fn plan() -> Plan {
    Plan {
        clients: 50,
        users: 25,
        ramp: 500.0,
        items: 20,
        rate: 5.0,
        payload: 20,
        every: Duration::from_secs(1),
        away: Duration::from_millis(200),
        settle: Duration::from_secs(20),
        resumes: true,
        seed: 7,
        engine: None,
        gateway: built_gateway().unwrap(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(),
    }
}

#[tokio::test]
async fn clients_that_are_cut_lose_nothing_and_hear_nothing_twice() {
    let report = drops::run(&plan()).await.unwrap();
    assert_eq!(report.shortcomings(), Vec::<String>::new(), "{report}");
    let json = report.to_json();
    assert_eq!((&json["delivered"], &json["pairs"]), (&1000.into(), &1000.into()));
    assert_eq!(json["initials"], 50, "nobody starts anew: {report}");
    assert_eq!((&json["twice_on_the_wire"], &json["again_in_states"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn clients_that_start_anew_lose_nothing_either() {
    let report = drops::run(&Plan { resumes: false, ..plan() }).await.unwrap();
    assert_eq!(report.shortcomings(), Vec::<String>::new(), "{report}");
    assert!(report.to_json()["again_in_states"].as_u64().unwrap() > 0, "{report}");
}
