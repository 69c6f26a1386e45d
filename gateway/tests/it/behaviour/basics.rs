//! Connecting, and being refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::{Client, Scene};

/// Longer than any client waits before it tries again.
const LONG: Duration = Duration::from_secs(4);

pub async fn cookie(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, guest) = scene.settled(&mut stage).await?;
    ensure!(guest.session.identity.user.as_str() == "ann", "{:?}", guest.session);
    ensure!(guest.protocol.label() == if scene.way.is_eio3() { "eio3" } else { "eio4" });
    ensure!(client.call("echo", json!(1)).await? == 1);
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    Ok(())
}

pub async fn refusal(scene: Scene) -> Result<()> {
    let stage = scene.stage().await;
    let mut client = scene.client_with(&stage.url(), json!({ "cookie": null }));
    is_refused(&scene, &mut client, "unauthorized").await?;
    sleep(LONG).await;
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    ensure!(stage.seen.lock().expect("nobody panics").is_empty(), "it joined");
    ensure!(client.left("connect").is_empty(), "it was connected");
    Ok(())
}

/// Waits for a refusal in the form of the client's generation.
pub async fn is_refused(scene: &Scene, client: &mut Client, reason: &str) -> Result<()> {
    // Errors of a transport are told in the same way, and may come before.
    if scene.way.is_eio3() {
        client.until_where("error", |line| line["value"] == reason).await?;
    } else {
        client.until_where("connect_error", |line| line["message"] == reason).await?;
    }
    Ok(())
}

pub async fn initial(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let mut client = scene.client_with(&stage.url(), json!({ "query": "resume=1" }));
    let guest = stage.joins().await.context("it never joins")?;
    let initial = client.event("initial").await?;
    let expected = json!({ "user": "ann", "resume": true, "text": "é 日本 🚀" });
    ensure!(initial == expected, "{initial}");
    ensure!(guest.resume);
    scene.on_its_last_transport(&mut client).await?;
    client.emit("tell", json!(["last"]));
    ensure!(client.event("told").await? == "last");
    let more = client.left("event");
    ensure!(more.is_empty(), "{more:?}");
    Ok(())
}

pub async fn unknown_namespace(scene: Scene) -> Result<()> {
    let stage = scene.stage().await;
    let mut client = scene.client_with(&stage.url(), json!({ "namespace": "/chat" }));
    is_refused(&scene, &mut client, "Invalid namespace").await?;
    // 1.x and 2.x have joined `/` over the same connection; it lives on.
    let joined = stage.seen.lock().expect("nobody panics").len();
    ensure!(joined == usize::from(scene.way.is_eio3()), "{joined} have joined");
    sleep(LONG / 8).await;
    for guest in stage.seen.lock().expect("nobody panics").iter() {
        ensure!(!guest.has_left.load(std::sync::atomic::Ordering::SeqCst), "it has left `/`");
    }
    Ok(())
}

pub async fn namespace_with_query(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let own = scene.client_with(&stage.url(), json!({ "namespace": "/?resume=1" }));
    let guest = stage.joins().await.context("it never joins `/`")?;
    ensure!(guest.resume, "the query behind `/` did not reach the handshake");
    drop(own);
    let other = json!({ "namespace": "/chat?token=x" });
    let mut client = scene.client_with(&stage.url(), other);
    is_refused(&scene, &mut client, "Invalid namespace").await
}
