//! A cluster of real processes comes up, is broken, and is healed.

use std::path::Path;

use loadtest::cluster::{Cluster, Plan, built_gateway, process::Signal};
use redis::{cmd, pipe};

#[tokio::test]
async fn what_was_killed_or_stopped_is_healed_with_its_data() {
    let plan = Plan {
        gateway: built_gateway().unwrap(),
        gateways: 2,
        shards: 3,
        keeps: true,
        server: String::new(),
        config: "[mirror]\nverify_every = \"2s\"\n".to_owned(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(),
    };
    let cluster = Cluster::start(&plan).await.unwrap();
    let folder = cluster.folder().to_owned();

    let shard = cluster.shard("team.red.board");
    let body = r#"{"item":{"n":1},"type":"sorted_feed"}"#.to_owned();
    let admin = cluster.gateways[0].admin();
    let answer = admin.ask("POST", "/api/feeds/team.red.board", Some(body)).await.unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    // The append-only file is written before the answer, so only a power cut could lose it.
    let mut ids = cmd("LRANGE");
    ids.arg("feed.ids:team.red.board").arg(0).arg(-1);
    shard.kill();
    assert!(shard.say::<Vec<String>>(&ids).await.is_err());
    cluster.gateways[1].kill();
    cluster.gateways[0].process().signal(Signal::Stop);
    cluster.heal().await.unwrap();
    assert_eq!(shard.say::<Vec<String>>(&ids).await.unwrap(), ["1"]);
    for gateway in &cluster.gateways {
        cluster.hears(gateway, shard).await.unwrap();
    }

    shard.kill();
    shard.restart_empty().await.unwrap();
    let mut both = pipe();
    both.atomic().add_command(ids.clone()).cmd("DBSIZE");
    assert_eq!(shard.pipe::<(Vec<String>, u64)>(&both).await.unwrap(), (vec![], 0));

    drop(cluster);
    assert!(!folder.exists());
}
