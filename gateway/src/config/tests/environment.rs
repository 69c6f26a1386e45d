//! Variables over the file.

use super::{super::*, check_env, load};

#[test]
fn the_environment_wins_whatever_its_case() {
    let config = load(
        "[edits]\ntimeout = '1s'\n[jobs.shipTask]\ntimeout = '1s'\n[server]\nnode = 'a'\n",
        &[
            ("GATEWAY__EDITS__TIMEOUT", "20s"),
            ("GATEWAY__EDITS__PARTITIONS", "2"),
            ("gateway__server__Node", "b"),
            ("GATEWAY__SERVER__ORIGINS", "https://a.example, https://b.example"),
            ("GATEWAY__SERVER__REQUIRE_ORIGIN", "true"),
            ("GATEWAY__SERVER__CLIENT", "3"),
            ("GATEWAY__SESSION__SECRETS", "['a,b', \"c\"]"),
            ("GATEWAY__JOBS__SHIPTASK__TIMEOUT", "30s"),
            ("GATEWAY__JOBS__SHIPTASK__MAX_QUEUED", "5"),
            ("GATEWAY__LIMITS__OUTBOX_BYTES", "2MiB"),
            ("GATEWAY__LIMITS__MAX_MESSAGE_BYTES", "1024"),
            ("GATEWAY_LOG", "debug"),
            ("PATH", "/bin"),
            ("é", "x"),
        ],
    )
    .unwrap();
    assert_eq!(config.edits.timeout, Duration::from_secs(20));
    assert_eq!((config.edits.partitions.get(), config.server.node.as_str()), (2, "b"));
    assert_eq!(config.server.origins, ["https://a.example", "https://b.example"]);
    assert!(config.server.require_origin && config.server.client == Client::V3);
    let secrets: Vec<_> = config.session.secrets.iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["a,b", "c"]);
    let job = &config.jobs["shipTask"];
    assert_eq!((job.timeout, job.max_queued), (Duration::from_secs(30), 5));
    assert_eq!((config.limits.outbox_bytes, config.limits.max_message_bytes), (2 << 20, 1024));
}

#[test]
fn the_environment_is_checked_like_the_file() {
    check_env(
        "[shards]\nnodes = [{ name = 'a', url = 'memory:' }]\n[jobs.a]\n[jobs.A]\n[server]\n",
        &[
            ("GATEWAY__EDITS__TIMEOUT", "10"),
            ("GATEWAY__EDITS__PARTITIONS", "many"),
            ("GATEWAY__SERVER__LISTN", "x"),
            ("GATEWAY__SERVER__ORIGINS", "https://a.example,b"),
            ("GATEWAY__SERVER", "x"),
            ("GATEWAY__SERVER__NODE__X", "x"),
            ("GATEWAY__SERVER__TRUSTED_PROXIES", "[1"),
            ("GATEWAY__SHARDS__NODES__0__URL", "x"),
            ("GATEWAY__JOBS__NEW__QUEUE", "x"),
            ("GATEWAY__JOBS__A__QUEUE", "x"),
            ("GATEWAY__TREE__TEAM__COLLECTIONS__X", "x"),
            ("GATEWAY__", "x"),
            ("GATEWAY__ADMIN__TOKEN", "a"),
            ("gateway__admin__token", "b"),
        ],
        &[
            "\"\": is the name of no option (from GATEWAY__)",
            "edits.partitions: is a whole number from 1 to 1024, not `many` (from \
             GATEWAY__EDITS__PARTITIONS)",
            "edits.timeout: is a time with its unit, such as `10s`, `500ms` or `2m`, not `10` \
             (from GATEWAY__EDITS__TIMEOUT)",
            "jobs.a.queue: may mean several names, which differ only in their case (from \
             GATEWAY__JOBS__A__QUEUE)",
            "jobs.new.queue: has no section in the file; names of jobs and of parts of the tree \
             are set there only (from GATEWAY__JOBS__NEW__QUEUE)",
            "server: is a section; its options are set one by one (from GATEWAY__SERVER)",
            "server.listn: is no option; did you mean `listen`? (from GATEWAY__SERVER__LISTN)",
            "server.node: is 1 to 16 letters and digits, not a table (from GATEWAY__SERVER__NODE__X)",
            "server.origins[1]: is an origin as browsers send it, such as \
             `https://app.example.com`, not `b` (from GATEWAY__SERVER__ORIGINS)",
            "server.trusted_proxies: is a list, such as `[\"one\", \"two\"]` (from \
             GATEWAY__SERVER__TRUSTED_PROXIES)",
            "shards.nodes.0.url: is set in the file only (from GATEWAY__SHARDS__NODES__0__URL)",
            "tree.team.collections.x: has no section in the file; names of jobs and of parts of \
             the tree are set there only (from GATEWAY__TREE__TEAM__COLLECTIONS__X)",
            "admin.token: is set by GATEWAY__ADMIN__TOKEN as well (from gateway__admin__token)",
        ],
    );
}
