//! What networks, proxies and slow machines do to a connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway::{
    hub::frame::Frame,
    outbox::{CloseReason, Outbox},
    socket::Settings,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Link, Scene, endings::has_left, link::Trouble};
use crate::{clients::PATIENCE, stage::Stage};

pub async fn heartbeats(scene: Scene) -> Result<()> {
    let interval = Duration::from_millis(1_000);
    let settings = Settings {
        ping_interval: Some(interval),
        ping_timeout: Some(5 * interval),
        ..scene.settings()
    };
    let mut stage = Stage::start_with(&settings).await;
    // An upgrade is not over before what an engine may say at once is heard.
    let link = Link::to(stage.addr, Trouble::Slow(Duration::from_millis(50))).await;
    let mut client = scene.client_with(&link.url(), json!({ "packets": true }));
    let guest = stage.joins().await.context("it never joins")?;
    let kind = if scene.way.is_eio3() { "pong" } else { "ping" };
    // An upgrade has a pong of its own, on the websocket that is not the transport yet.
    let mut last = 0;
    for beat in 1..=3 {
        let packet = client.until_where("packet", |line| line["type"] == kind).await?;
        let after = packet["after"].as_u64().context("it is a number")?;
        let least = if beat == 1 { 900 } else { last + 600 };
        ensure!(after >= least, "{kind} {beat} came after {after} ms");
        last = after;
    }
    ensure!(client.call("echo", json!(1)).await? == 1);
    ensure!(guest.outbox.closed().is_none() && stage.handshakes() == 1);
    Ok(())
}

pub async fn stalled(scene: Scene) -> Result<()> {
    let (stall, heartbeat) = (Duration::from_secs(1), Duration::from_secs(2));
    let settings = Settings {
        stall,
        outbox_bytes: 256 << 20,
        ping_interval: Some(heartbeat),
        ping_timeout: Some(Duration::from_secs(20)),
        ..scene.settings()
    };
    let mut stage = Stage::start_with(&settings).await;
    let (mut good, hears) = scene.settled(&mut stage).await?;
    let link = Link::to(stage.addr, Trouble::None).await;
    let (mut still, guest) = scene.settled_over(&mut stage, &link).await?;
    link.stand_still(true);
    let began = Instant::now();
    // More than every buffer on the way.
    let piece = Frame::event("piece", format!("\"{}\"", "x".repeat(1 << 20)));
    for _ in 0..16 {
        guest.outbox.offer(&piece)?;
    }
    let within = stall + heartbeat + Duration::from_secs(2);
    let mut sent = 0;
    while guest.outbox.closed().is_none() && began.elapsed() < within {
        hears.outbox.offer(&Frame::event("number", sent.to_string()))?;
        sent += 1;
        sleep(Duration::from_millis(10)).await;
    }
    let closed = guest.outbox.closed();
    ensure!(closed == Some(CloseReason::Stalled), "{closed:?} after {:?}", began.elapsed());
    has_left(&guest).await?;
    ensure!(began.elapsed() < within, "it has left after {:?}", began.elapsed());
    for number in 0..sent {
        let heard = good.event("number").await?;
        ensure!(heard == number, "another one heard {heard} in place of {number}");
    }
    ensure!(hears.outbox.closed().is_none(), "another one was closed");
    link.stand_still(false);
    stage.joins().await.context("it does not come back")?;
    still.until_where("connect", |_| true).await?;
    still.event("initial").await?;
    Ok(())
}

/// Waits until a poll waits for something to be said.
async fn waits(link: &Link) -> Result<()> {
    let waited = timeout(PATIENCE, async {
        while link.waiting() != 1 {
            sleep(Duration::from_millis(10)).await;
        }
        // It has reached the engine as well.
        sleep(Duration::from_millis(50)).await;
    });
    waited.await.context("it does not poll")
}

fn count(outbox: &Outbox, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        outbox.offer(&Frame::event("number", number.to_string()))?;
    }
    Ok(())
}

pub async fn aborted(scene: Scene) -> Result<()> {
    again(scene, Link::abort_polls).await
}

pub async fn overlapping(scene: Scene) -> Result<()> {
    again(scene, Link::overlap_polls).await
}

/// Asks again in this way, five times, and says something while that happens and after it.
async fn again(scene: Scene, asks_again: impl Fn(&Link)) -> Result<()> {
    let mut stage = scene.stage().await;
    let link = Link::to(stage.addr, Trouble::None).await;
    let (mut client, guest) = scene.settled_over(&mut stage, &link).await?;
    for round in 0..5 {
        waits(&link).await?;
        asks_again(&link);
        // The connection has ended, and nobody has asked again.
        sleep(Duration::from_millis(50)).await;
        count(&guest.outbox, 4 * round..4 * round + 2)?;
        sleep(Duration::from_millis(150)).await;
        count(&guest.outbox, 4 * round + 2..4 * round + 4)?;
        for number in 4 * round..4 * round + 4 {
            let heard = client.event("number").await?;
            ensure!(heard == number, "heard {heard} in place of {number}");
        }
        ensure!(client.call("echo", json!(round)).await? == round);
    }
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    ensure!(client.left("disconnect").is_empty(), "it was disconnected");
    Ok(())
}
