//! `shardctl` as a shell sees it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

#[test]
fn where_tells_each_feeds_shard_without_its_password() {
    let folder = folder(&[(
        "gateway.toml",
        r#"
        [server]
        listen = "127.0.0.1:3000"

        [shards]
        nodes = [
          { name = "shard-01", url = "redis://ann:s3cret@10.0.0.1/2" },
          { name = "shard-02", url = "redis://:s3cret@10.0.0.2:7001" },
        ]
        "#,
    )]);
    let output = shardctl(folder.path(), &["-c", "gateway.toml", "where", "d", "{b}.tasks", "b"]);
    assert_eq!(
        told(&output),
        "\
FEED       HASHED  SHARD     URL
d          d       shard-02  redis://:***@10.0.0.2:7001
{b}.tasks  b       shard-01  redis://ann:***@10.0.0.1:6379/2
b          b       shard-01  redis://ann:***@10.0.0.1:6379/2
"
    );
}

#[test]
fn ring_tells_the_fingerprint_that_other_libraries_find() {
    let nodes: String = (1..=5)
        .map(|n| format!("[[nodes]]\nname = \"shard-{n:02}\"\nurl = \"redis://10.0.0.{n}\"\n"))
        .collect();
    let folder = folder(&[
        ("etc/gateway.toml", "[shards]\ntopology = \"topology.toml\"\n"),
        ("etc/topology.toml", &format!("version = 12\n{nodes}")),
    ]);
    // The fingerprint is that of `bare-5` in rings.json.
    let expected = "\
version      12
fingerprint  367001ca8bd339597d1fd4dd28407b95

SHARD     WEIGHT  POINTS  SHARE
";
    let by_config = shardctl(folder.path(), &["--config", "etc/gateway.toml", "ring"]);
    assert!(told(&by_config).starts_with(expected), "{}", told(&by_config));
    let bare = shardctl(folder.path(), &["ring", "--config", "etc/topology.toml"]);
    assert_eq!(told(&bare), told(&by_config));
}

#[test]
fn without_a_configuration_there_is_one_shard_in_memory() {
    let folder = folder(&[("gateway.toml", "[server]\n")]);
    let expected = "FEED  HASHED  SHARD     URL\na     a       shard-01  memory:\n";
    assert_eq!(told(&shardctl(folder.path(), &["where", "a"])), expected);

    let output = shardctl(folder.path(), &["--config", "gateway.toml", "where", "a"]);
    assert_eq!(told(&output), expected);
    assert_eq!(complaint(&output), "gateway.toml names no shards; there is one in memory.\n");
}

#[test]
fn every_mistake_is_listed_and_the_exit_code_is_2() {
    let folder = folder(&[
        (
            "gateway.toml",
            r#"
            [shards]
            nodes = [{ name = "a", url = "redis://:s3cret@h:x" }, { name = "a", url = "rediss://h" }]
            "#,
        ),
        ("both.toml", "[shards]\nnodes = []\ntopology = \"t.toml\"\n"),
        ("away.toml", "[shards]\ntopology = \"t.toml\"\n"),
    ]);
    check_refused(
        folder.path(),
        "gateway.toml",
        "\
gateway.toml has 3 mistakes:
  shards.nodes[0].url: has a port that is not a number from 1 to 65535
  shards.nodes[1].url: `rediss://` is not supported yet
  shards.nodes[1].name: `a` is the name of nodes[0] already
",
    );
    check_refused(
        folder.path(),
        "both.toml",
        "\
both.toml has a mistake:
  shards.topology: stands beside `nodes`; only one of them may
",
    );
    check_refused(
        folder.path(),
        "away.toml",
        "\
t.toml has a mistake:
  cannot be read: No such file or directory (os error 2)
",
    );
}

#[track_caller]
fn check_refused(folder: &Path, config: &str, expected: &str) {
    let output = shardctl(folder, &["--config", config, "ring"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(complaint(&output), expected);
    assert!(output.stdout.is_empty());
}

fn shardctl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shardctl"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("shardctl was built with this test")
}

#[track_caller]
fn told(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", complaint(output));
    str::from_utf8(&output.stdout).expect("shardctl writes UTF-8")
}

fn complaint(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("shardctl writes UTF-8")
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder for a test can be made");
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a file is in a folder")).unwrap();
        fs::write(file, text).unwrap();
    }
    folder
}
