//! The change from polling to a websocket, and what comes of one that fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use gateway::{
    hub::frame::Frame,
    outbox::Letter,
    socket::{EngineKind, Settings},
};
use serde_json::json;
use tokio::time::sleep;

use super::{Client, Link, Scene, Transport, link::Trouble};
use crate::stage::{Guest, Stage};

/// Between two of 60 messages: together they take longer than an upgrade.
const PACE: Duration = Duration::from_millis(4);

pub async fn sixty(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let link = Link::to(stage.addr, Trouble::Slow(Duration::from_millis(30))).await;
    let mut client = scene.client(&link.url());
    let guest = stage.joins().await.context("it never joins")?;
    let every = u64::try_from(PACE.as_millis())?;
    client.until("connect").await?;
    client.say(json!({ "cmd": "count", "name": "tell", "to": 60, "every": every }));
    for number in 0..60 {
        guest.outbox.offer(&Frame::event("number", number.to_string()))?;
        if number % 3 == 0 && scene.engine == EngineKind::Pneumatic {
            guest.outbox.letter(letter(number))?;
        }
        sleep(PACE).await;
    }
    for number in 0..60 {
        let (told, counted) = (client.event("told").await?, client.event("number").await?);
        ensure!(told == number, "told {told} in place of {number}");
        ensure!(counted == number, "heard {counted} in place of {number}");
        if number % 3 == 0 && scene.engine == EngineKind::Pneumatic {
            let data = client.event("data").await?;
            let expected =
                json!([{ "type": "Buffer", "data": [number] }, { "type": "Buffer", "data": [] }]);
            ensure!(data == expected, "heard {data} in place of {expected}");
        }
    }
    scene.on_its_last_transport(&mut client).await?;
    ensure!(client.call("echo", json!(1)).await? == 1);
    let more = client.left("event").iter().filter(|line| line["name"] != "initial").count();
    ensure!(more == 0, "{more} came twice");
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    Ok(())
}

/// An event with binary data: nothing may come between its parts, on whichever transport.
fn letter(number: u8) -> Letter {
    let placeholder = |num| json!({ "_placeholder": true, "num": num });
    Letter {
        answers: None,
        args: json!(["data", [placeholder(0), placeholder(1)]]).to_string(),
        attachments: vec![Bytes::from(vec![number]), Bytes::new()],
        call: None,
    }
}

pub async fn silent(scene: Scene) -> Result<()> {
    // Beyond the ten seconds after which an engine gives a probe up.
    fails(scene, Trouble::Silent, Duration::from_secs(12)).await
}

pub async fn closed(scene: Scene) -> Result<()> {
    fails(scene, Trouble::Closed, Duration::from_secs(1)).await
}

pub async fn unanswered(scene: Scene) -> Result<()> {
    fails(scene, Trouble::Unanswered, Duration::from_secs(1)).await
}

/// An engine may answer a poll early while a probe is under way, ten times a second.
const POLLS_PER_SECOND: usize = 12;

/// Plays an upgrade that fails, and sees for so long that polling goes on.
async fn fails(scene: Scene, trouble: Trouble, how_long: Duration) -> Result<()> {
    assert_eq!(scene.way.transport, Transport::Upgrade, "only an upgrade has a probe");
    let settings = Settings { stall: Duration::from_secs(5), ..scene.settings() };
    let mut stage = Stage::start_with(&settings).await;
    let link = Link::to(stage.addr, trouble).await;
    let mut client = scene.client(&link.url());
    let guest = stage.joins().await.context("it never joins")?;
    client.event("initial").await?;
    let (began, before) = (Instant::now(), link.polls());
    let mut number = 0;
    while began.elapsed() < how_long {
        talks(&mut client, &guest, number).await.with_context(|| {
            format!("after {:?}, {} handshakes", began.elapsed(), stage.handshakes())
        })?;
        number += 1;
        sleep(Duration::from_millis(250)).await;
    }
    // Each round has an event and an answer, which may be two polls.
    let polls = link.polls() - before;
    let most = 2 * number + POLLS_PER_SECOND * usize::try_from(how_long.as_secs() + 1)?;
    ensure!(polls <= most, "{polls} polls in {how_long:?} for {number} rounds");
    ensure!(stage.handshakes() == 1, "{} handshakes", stage.handshakes());
    ensure!(client.left("disconnect").is_empty(), "{:?}", client.left("disconnect"));
    Ok(())
}

async fn talks(client: &mut Client, guest: &Guest, number: usize) -> Result<()> {
    guest.outbox.offer(&Frame::event("number", number.to_string()))?;
    let heard = client.event("number").await?;
    ensure!(heard == number, "heard {heard} in place of {number}");
    ensure!(client.call("echo", json!(number)).await? == number);
    Ok(())
}
