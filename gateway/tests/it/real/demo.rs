//! The demo as a newcomer meets it: one command, one page, two windows.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

use super::{
    cluster::gateway,
    http,
    program::{Program, free_port, prepared, root, tests},
    until,
};

/// A browser starts slowly on a small machine; each of its own waits is bounded by itself.
const STORY: Duration = Duration::from_secs(120);

#[tokio::test]
async fn two_windows_show_each_others_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    prepared(tests("js/node_modules"));
    let (public, admin) = (free_port(), free_port());
    let mut command = gateway();
    command
        .env("GATEWAY__SERVER__LISTEN", format!("127.0.0.1:{public}"))
        .env("GATEWAY__ADMIN__LISTEN", format!("127.0.0.1:{admin}"));
    let mut program = Program::start("demo", folder.path(), &mut command);
    until("the demo's page is there", async || {
        let ended = program.ended();
        assert!(ended.is_none(), "the gateway ended: {ended:?}");
        let page = http::request(public, "GET", "/", &[], None).await?;
        if page.status == 200 { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;
    let story = Command::new("node")
        .arg(tests("js/browser.js"))
        .arg(format!("http://127.0.0.1:{public}"))
        .arg(root().join("target/screenshots"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let story = tokio::time::timeout(STORY, story).await.expect("the story ends in time");
    let story = story.expect("`node` is installed");
    let told = String::from_utf8_lossy(&story.stdout);
    assert!(story.status.success(), "{told}\n{}", String::from_utf8_lossy(&story.stderr));
    assert!(told.contains("ok    neither page complained"), "{told}");
    program.terminate();
    assert_eq!(program.end().await.code(), Some(0), "{}", program.log());
}
