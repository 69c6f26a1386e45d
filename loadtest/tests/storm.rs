//! A small reconnect storm, with a real gateway and real shards.

use std::{path::Path, time::Duration};

use loadtest::{
    cluster::built_gateway,
    storm::{self, Plan},
    verdict::Verdict,
};

async fn check(resumes: bool) {
    let plan = Plan {
        clients: 60,
        members: 20,
        tasks: 2,
        ramp: 500.0,
        patience: Duration::from_secs(60),
        resumes,
        engine: None,
        gateway: built_gateway().unwrap(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(),
    };
    let report = storm::run(&plan).await.unwrap();
    assert_eq!(report.shortcomings(), Vec::<String>::new(), "{report}");
    let json = report.to_json();
    assert_eq!(json["feeds"], 2 * 3 + 60 + 60);
    assert_eq!(json["initials"], if resumes { 60 } else { 120 }, "{report}");
    assert_eq!(json["reset_feeds"], 0, "{report}");
}

#[tokio::test]
async fn a_new_gateway_reads_each_feed_once_however_many_start_anew() {
    check(false).await;
}

#[tokio::test]
async fn a_new_gateway_reads_each_feed_once_however_many_resume() {
    check(true).await;
}
