//! Coming back to a state that was held before.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use axum::body::Body;
use gateway::{
    app::App, config::Config, drain::Drain, metrics, outbox::CloseReason, serve, socket::stall,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::{Client, Scene, document};

pub async fn recovery(scene: Scene) -> Result<()> {
    let mut stage = scene.stage().await;
    let mut client = scene.client(&stage.url());
    let first = stage.joins().await.context("it never joins")?;
    let connected = client.until("connect").await?;
    ensure!(connected["recovered"] != true, "{connected}");
    client.event("initial").await?;
    scene.on_its_last_transport(&mut client).await?;
    client.say(json!({ "cmd": "claim", "pid": "Fx1-private", "offset": "Q80ylJA" }));
    first.outbox.close(CloseReason::Asked);
    let second = stage.joins().await.context("it does not come back")?;
    let again = client.until("connect").await?;
    ensure!(again["recovered"] != true, "{again}");
    ensure!(again["id"] != connected["id"], "it has the id of before");
    client.event("initial").await?;
    second.outbox.offer(&gateway::hub::frame::Frame::event("number", "1"))?;
    // Exactly one argument: an offset would be a second.
    ensure!(client.event("number").await? == 1);
    Ok(())
}

/// A whole gateway, as it is without a configuration.
struct Whole {
    url: String,
    app: App,
    drain: Drain,
}

impl Drop for Whole {
    fn drop(&mut self) {
        for drain in [&self.drain, &self.app.drain] {
            drain.stop.cancel();
            drain.end.cancel();
        }
    }
}

impl Whole {
    async fn start(scene: &Scene) -> Result<Self> {
        let engine = document::name(scene.engine).to_owned();
        let env = [("GATEWAY__SERVER__ENGINE".to_owned(), engine)];
        let config = match Config::load(None, env) {
            Ok(config) => config,
            Err(mistakes) => bail!("{mistakes}"),
        };
        let (stall, silence) = (config.limits.stall, config.limits.connect_timeout);
        let app = App::build(config, metrics::install()).await?;
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", tcp.local_addr()?);
        let (listener, drain) = (stall::Listener::new(tcp, stall), Drain::default());
        serve::start(listener, app.public.clone(), stall::Stream::peer, silence, &drain);
        Ok(Self { url, app, drain })
    }

    /// Writes by the HTTP API.
    async fn write(&self, method: &str, path: &str, body: Value) -> Result<()> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))?;
        let response = self.app.admin.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{method} {path}: {status} {body:?}");
        Ok(())
    }
}

pub async fn capsule(scene: Scene) -> Result<()> {
    let gateway = Arc::new(Whole::start(&scene).await?);
    let spec = json!({ "capsule": true, "query": "resume=1" });
    let mut client = scene.client_with(&gateway.url, spec);
    client.until("ready").await?;
    client.event("initial").await?;
    is_in_step(&mut client).await?;

    let first = client.left("told").len();
    client.say(json!({ "cmd": "disconnect" }));
    client.until("disconnect").await?;
    client.say(json!({ "cmd": "connect" }));
    let ready = client.until("ready").await?;
    ensure!(ready["reset"] == 0 && ready["resumed"].as_u64() > Some(0), "{ready}");
    let told = client.left("told").split_off(first);
    ensure!(told.is_empty(), "nothing happened, and it is told {told:?}");

    client.say(json!({ "cmd": "disconnect" }));
    client.until("disconnect").await?;
    let members = "/api/feeds/team.red.members";
    gateway.write("POST", members, json!({ "item": { "name": "Zoë" }, "id": "zoe" })).await?;
    client.say(json!({ "cmd": "connect" }));
    client.until("ready").await?;
    is_in_step(&mut client).await?;
    let told = client.left("told").split_off(first);
    let published = told.iter().filter(|told| told["type"] == "publish" && told["id"] == "zoe");
    ensure!(published.count() == 1, "{told:?}");
    ensure!(told.iter().all(|told| told["type"] != "initial"), "{told:?}");
    let more = client.left("event");
    ensure!(more.iter().all(|event| event["name"] != "initial"), "it got initial again");
    Ok(())
}

/// Sees that capsule.js holds what a client that does literally what it is told holds.
async fn is_in_step(client: &mut Client) -> Result<()> {
    client.say(json!({ "cmd": "tree" }));
    let tree = client.until("tree").await?;
    ensure!(tree["problems"] == json!([]), "{}", tree["problems"]);
    ensure!(!tree["tree"]["collections"].is_null(), "{tree}");
    Ok(())
}
