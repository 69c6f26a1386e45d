//! What is said, both ways.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use gateway::{
    hub::frame::{About, Frame},
    mirror::Change,
    outbox::Letter,
    snapshot::event_json,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Scene;
use crate::{clients::PATIENCE, stage::Guest};

/// What JSON, JavaScript and UTF-8 stumble over.
const AWKWARD: &str = "é ÿ 日本 🚀 \" \\ / \u{2028} \u{2029} \u{7f} \u{0} </script>";

pub async fn events(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, guest) = scene.settled(&mut stage).await?;
    let feed: Arc<str> = "team.é.tasks".into();
    let item = Bytes::from(json!({ "title": AWKWARD }).to_string());
    let position = Some("begin:".parse()?);
    let told = [
        Change::Publish { id: "7".into(), item: item.clone(), position },
        Change::Change { id: "7".into(), item },
        Change::Position { id: "7".into(), position: "8:".parse()? },
        Change::Retract { id: "7".into() },
    ];
    let mut expected = Vec::new();
    for change in &told {
        let (verb, json) = event_json(&feed, change, None);
        expected.push((verb, serde_json::from_str::<Value>(&json)?));
        guest.outbox.offer(&Frame::of_feed(About::Feed(feed.clone()), verb, json))?;
    }
    let reset = json!({ "feed": "teams", "parent": null, "name": "teams", "collection": null });
    guest.outbox.offer(&Frame::snapshot("reset", reset.to_string()))?;
    expected.push(("reset", reset));
    for (verb, expected) in expected {
        let told = client.event(verb).await?;
        ensure!(told == expected, "{verb}: {told}");
    }
    Ok(())
}

pub async fn text(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, guest) = scene.settled(&mut stage).await?;
    let value = json!({ AWKWARD: AWKWARD, "list": [1, { "b": 1.5, "a": null }] });
    // What 1.x encodes twice is within Latin-1, where it cannot be told by its characters.
    for value in [value, json!("é"), json!("ÿ€"), json!("\u{2028}")] {
        let answer = client.call("echo", value.clone()).await?;
        ensure!(answer == value, "answer: {answer}");
        client.emit("tell", json!([value]));
        let told = client.event("told").await?;
        ensure!(told == value, "event: {told}");
        guest.outbox.offer(&Frame::event("said", value.to_string()))?;
        let said = client.event("said").await?;
        ensure!(said == value, "said: {said}");
    }
    Ok(())
}

pub async fn large(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, _guest) = scene.settled(&mut stage).await?;
    for value in ["x".repeat(60_000), "é".repeat(20_000), "日".repeat(20_000)] {
        let answer = client.call("echo", json!(value)).await?;
        ensure!(answer == value, "answer of {:?} characters", answer.as_str().map(str::len));
        client.emit("tell", json!([value]));
        let told = client.event("told").await?;
        ensure!(told == value, "event of {:?} characters", told.as_str().map(str::len));
    }
    Ok(())
}

pub async fn calls(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, _guest) = scene.settled(&mut stage).await?;
    for number in 0..20 {
        let (args, ack) = ([json!({ "number": number })], json!(number));
        client.say(json!({ "cmd": "emit", "name": "echo", "args": args, "ack": ack }));
    }
    // One without a callback is heard all the same.
    client.emit("tell", json!(["quiet"]));
    for number in (0..20).rev() {
        let answer = client.until_where("ack", |line| line["id"] == number).await?;
        ensure!(answer["value"]["number"] == number, "{answer}");
    }
    ensure!(client.event("told").await? == "quiet");
    let more = client.left("ack");
    ensure!(more.is_empty(), "{more:?}");
    Ok(())
}

/// Binary data as Node writes it.
fn buffer(bytes: &[u8]) -> Value {
    json!({ "type": "Buffer", "data": bytes })
}

pub async fn binary_calls(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, _guest) = scene.settled(&mut stage).await?;
    let all: Vec<u8> = (0..=255).collect();
    for value in [
        buffer(&[0, 255, 7]),
        json!({ "a": buffer(&all), "b": [buffer(&[4]), "é", null] }),
        buffer(&[]),
        buffer(&all.repeat(80)),
    ] {
        let answer = client.call("mirror", value.clone()).await?;
        let short: String = answer.to_string().chars().take(200).collect();
        ensure!(answer == value, "{short}");
        ensure!(client.call("echo", json!("é")).await? == "é");
    }
    Ok(())
}

pub async fn binary_marked(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, _guest) = scene.settled(&mut stage).await?;
    client.emit("tell", json!([{ "id": buffer(&[0, 255, 7]) }]));
    let placeholder = json!({ "id": { "_placeholder": true, "num": 0 } });
    let marked = client.event("binary").await?;
    ensure!(marked == json!([placeholder]), "{marked}");
    ensure!(client.event("told").await? == placeholder);
    // The same text without binary data is not taken for it.
    client.emit("tell", json!([placeholder]));
    ensure!(client.event("told").await? == placeholder);
    client.emit("tell", json!(["last"]));
    ensure!(client.event("told").await? == "last");
    let marked = client.left("event");
    ensure!(marked.is_empty(), "{marked:?}");
    Ok(())
}

pub async fn asks(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, guest) = scene.settled(&mut stage).await?;
    let text = Letter {
        answers: None,
        args: json!(["ask", { "text": AWKWARD }]).to_string(),
        attachments: Vec::new(),
        call: Some(3),
    };
    let binary = Letter {
        answers: None,
        args: json!(["ask", { "_placeholder": true, "num": 0 }]).to_string(),
        attachments: vec![Bytes::from_static(&[0, 255, 4, 7])],
        call: Some(70_000),
    };
    guest.outbox.letter(text)?;
    let answer = answered(&guest, 3).await?;
    ensure!(serde_json::from_str::<Value>(&answer.0)? == json!([{ "text": AWKWARD }]));
    ensure!(answer.1.is_empty(), "{answer:?}");
    guest.outbox.letter(binary)?;
    let answer = answered(&guest, 70_000).await?;
    let placeholder = json!([{ "_placeholder": true, "num": 0 }]);
    ensure!(serde_json::from_str::<Value>(&answer.0)? == placeholder, "{answer:?}");
    ensure!(answer.1 == [Bytes::from_static(&[0, 255, 4, 7])], "{answer:?}");
    ensure!(client.call("echo", json!(1)).await? == 1);
    Ok(())
}

/// Waits for the answer to a letter.
async fn answered(guest: &Guest, call: u64) -> Result<(String, Vec<Bytes>)> {
    let waited = timeout(PATIENCE, async {
        loop {
            let answers = guest.answers.lock().expect("nobody panics").clone();
            if let Some((_, args, data)) = answers.into_iter().find(|answer| answer.0 == call) {
                return (args, data);
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.with_context(|| format!("letter {call} was never answered"))
}

pub async fn order(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let (mut client, _guest) = scene.settled(&mut stage).await?;
    for number in 0..200 {
        client.emit("tell", json!([number]));
    }
    for number in 0..200 {
        let told = client.event("told").await?;
        ensure!(told == number, "{told} in place of {number}");
    }
    client.emit("burst", json!([500]));
    for number in 0..500 {
        let told = client.event("number").await?;
        ensure!(told == number, "{told} in place of {number}");
    }
    Ok(())
}
