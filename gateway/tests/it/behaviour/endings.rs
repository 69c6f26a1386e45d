//! How a client's stay ends, and whether it comes back.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gateway::{hub::frame::Frame, outbox::CloseReason};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Client, Link, Scene, basics::is_refused, link::Trouble};
use crate::{
    clients::PATIENCE,
    stage::{Guest, Stage},
};

/// Longer than any client waits before it tries again.
const LONG: Duration = Duration::from_secs(4);

/// How long a client that was closed may take to be back.
const SOON: Duration = Duration::from_secs(8);

/// Waits until the inside has been told that the client has left.
pub async fn has_left(guest: &Guest) -> Result<()> {
    let waited = timeout(PATIENCE, async {
        while !guest.has_left.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.context("the inside is not told that it has left")
}

/// Waits for a client that was closed to be connected anew.
async fn comes_back(stage: &mut Stage, client: &mut Client, first: &Guest) -> Result<()> {
    let began = Instant::now();
    has_left(first).await?;
    let said = client.until("disconnect").await?;
    ensure!(said["reason"] != "io server disconnect", "{said}");
    let second = stage.joins().await.context("it does not come back")?;
    client.event("initial").await.context("it comes back and hears nothing")?;
    ensure!(began.elapsed() < SOON, "after {:?}", began.elapsed());
    ensure!(client.call("echo", json!(2)).await? == 2);
    ensure!(!second.has_left.load(Ordering::SeqCst), "it left again");
    ensure!(stage.handshakes() == 2, "{} handshakes", stage.handshakes());
    Ok(())
}

pub async fn drain(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, first) = scene.settled(&mut stage).await?;
    first.outbox.close(CloseReason::Draining);
    comes_back(&mut stage, &mut client, &first).await
}

pub async fn full_mailbox(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, first) = scene.settled(&mut stage).await?;
    let piece = Frame::event("piece", format!("\"{}\"", "x".repeat(600_000)));
    let mut offered = 0;
    while first.outbox.offer(&piece).is_ok() {
        offered += 1;
        ensure!(offered < 100, "it is never full");
    }
    ensure!(first.outbox.closed() == Some(CloseReason::Slow), "{:?}", first.outbox.closed());
    comes_back(&mut stage, &mut client, &first).await
}

pub async fn during_upgrade(scene: Scene) -> Result<()> {
    for delay in [0, 10, 40] {
        let mut stage = scene.stage().await;
        let link = Link::to(stage.addr, Trouble::Slow(Duration::from_millis(10))).await;
        let mut client = scene.client(&link.url());
        let first = stage.joins().await.context("it never joins")?;
        client.event("initial").await?;
        sleep(Duration::from_millis(delay)).await;
        first.outbox.close(CloseReason::Asked);
        has_left(&first).await?;
        let second = stage.joins().await.context("it does not come back")?;
        ensure!(client.call("echo", json!(2)).await? == 2, "closed after {delay} ms");
        ensure!(!second.has_left.load(Ordering::SeqCst), "it left again");
    }
    Ok(())
}

pub async fn session_end(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let link = Link::to(stage.addr, Trouble::None).await;
    let (mut client, guest) = scene.settled_over(&mut stage, &link).await?;
    link.forget_cookies();
    guest.outbox.close(CloseReason::SessionEnded);
    let said = client.until("disconnect").await?;
    ensure!(said["reason"] != "io server disconnect", "{said}");
    is_refused(&scene, &mut client, "unauthorized").await?;
    has_left(&guest).await?;
    sleep(LONG).await;
    ensure!(stage.handshakes() == 2, "{} handshakes", stage.handshakes());
    Ok(())
}

pub async fn for_good(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, guest) = scene.settled(&mut stage).await?;
    guest.outbox.close(CloseReason::AskedFinally);
    let said = client.until("disconnect").await?;
    ensure!(said["reason"] == "io server disconnect", "{said}");
    has_left(&guest).await?;
    sleep(LONG).await;
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    Ok(())
}

pub async fn leaves(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (client, guest) = scene.settled(&mut stage).await?;
    let began = Instant::now();
    client.say(json!({ "cmd": "disconnect" }));
    has_left(&guest).await?;
    ensure!(began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    ensure!(guest.outbox.closed().is_none(), "{:?}", guest.outbox.closed());
    Ok(())
}
