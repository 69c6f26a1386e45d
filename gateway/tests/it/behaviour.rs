//! One suite over every client, transport, behaviour and engine, with the real npm clients.
//!
//! A cell of the table passes, fails, or is not possible; which it is, and why, stands in
//! `expected.rs`. The test of an engine plays all cells and fails where one is not as it is
//! expected, better ones included. `docs/compatibility.md` is the same table to be read, written
//! by `make compatibility`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use gateway::socket::{EngineKind, Settings};
use serde_json::{Value, json};

use crate::{
    clients::{Client, Herd},
    stage::{ENGINES, Guest, Stage, settings_of},
};

mod basics;

mod document;
mod endings;
mod expected;
mod link;
mod messages;
mod returning;
mod roads;
mod table;
mod upgrades;

use expected::{Expected, expected};
use link::Link;
use table::{BEHAVIOURS, Behaviour, Transport, Way, ways};

/// How many cells are played at once.
const AT_ONCE: usize = 24;

/// How long one cell may take.
const LONGEST: Duration = Duration::from_secs(45);

/// What a cell is played with.
#[derive(Debug, Clone)]
struct Scene {
    engine: EngineKind,
    way: Way,
    herd: Herd,
}

impl Scene {
    fn settings(&self) -> Settings {
        settings_of(self.engine)
    }

    async fn stage(&self) -> Stage {
        Stage::start_of(self.engine).await
    }

    /// Opens a client of the cell's generation and transport, with a cookie of ann's.
    fn client(&self, url: &str) -> Client {
        self.client_with(url, json!({}))
    }

    fn client_with(&self, url: &str, more: Value) -> Client {
        let mut spec = json!({
            "version": self.way.version,
            "url": url,
            "transports": self.way.transport.names(),
            "cookie": "demo=ann",
        });
        let more = more.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(more);
        self.herd.open(spec)
    }

    /// Opens a client and waits until it has its state and its last transport.
    async fn settled(&self, stage: &mut Stage) -> Result<(Client, Guest)> {
        let client = self.client(&stage.url());
        self.settle(stage, client).await
    }

    async fn settled_over(&self, stage: &mut Stage, link: &Link) -> Result<(Client, Guest)> {
        self.settle(stage, self.client(&link.url())).await
    }

    async fn settle(&self, stage: &mut Stage, mut client: Client) -> Result<(Client, Guest)> {
        let guest = stage.joins().await.context("it never joins")?;
        client.event("initial").await?;
        self.on_its_last_transport(&mut client).await?;
        Ok((client, guest))
    }

    /// Waits for the end of an upgrade, where there is one.
    async fn on_its_last_transport(&self, client: &mut Client) -> Result<()> {
        let last = self.way.transport.names()[self.way.transport.names().len() - 1];
        client.until_where("transport", |line| line["name"] == last).await?;
        Ok(())
    }
}

/// Plays one cell; what was seen, where it failed.
async fn play(behaviour: &'static Behaviour, scene: Scene) -> Result<()> {
    let cell = tokio::spawn((behaviour.play)(scene));
    match tokio::time::timeout(LONGEST, cell).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(panic)) => Err(anyhow::anyhow!("{panic}")),
        Err(_) => Err(anyhow::anyhow!("it was not over after {LONGEST:?}")),
    }
}

/// Plays all cells of an engine whose behaviour or client has `wanted` in its name; returns what
/// was not as expected.
async fn surprises(engine: EngineKind, wanted: &str) -> Vec<String> {
    let herd = Herd::start();
    let longest_first = BEHAVIOURS.iter().rev();
    let cells = longest_first.flat_map(|behaviour| ways().map(move |way| (behaviour, way)));
    let cells =
        cells.filter(|(behaviour, way)| format!("{} {way}", behaviour.name).contains(wanted));
    let possible = cells.filter(|(behaviour, way)| {
        !matches!(expected(engine, behaviour.name, *way), Expected::NotPossible(_))
    });
    let played = stream::iter(possible).map(|(behaviour, way)| {
        let scene = Scene { engine, way, herd: herd.clone() };
        async move {
            let began = Instant::now();
            let seen = play(behaviour, scene).await;
            let took = began.elapsed().as_secs_f32();
            let cell = format!("{engine:?}: {}, {way} ({took:.1} s)", behaviour.name);
            match (expected(engine, behaviour.name, way), seen) {
                (Expected::Pass | Expected::NotPossible(_), Ok(())) => None,
                (Expected::Fail { seen, .. }, Err(error))
                    if seen.iter().any(|seen| format!("{error:#}").contains(seen)) =>
                {
                    None
                }
                (Expected::Fail { reason, .. }, Ok(())) => {
                    Some(format!("{cell} passed, and should fail: {reason}"))
                }
                (_, Err(error)) => Some(format!("{cell} failed: {error:#}")),
            }
        }
    });
    played.buffer_unordered(AT_ONCE).filter_map(async |surprise| surprise).collect().await
}

/// Plays all cells of an engine, or those alone that the environment's `CELLS` names in part.
async fn is_as_expected(engine: EngineKind) {
    no_surprises(engine, &std::env::var("CELLS").unwrap_or_default()).await;
}

async fn no_surprises(engine: EngineKind, wanted: &str) {
    let surprises = surprises(engine, wanted).await;
    assert!(surprises.is_empty(), "{} cells\n{}", surprises.len(), surprises.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pneumatic_does_what_is_expected_of_it() {
    is_as_expected(EngineKind::Pneumatic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socketioxide_does_what_is_expected_of_it() {
    is_as_expected(EngineKind::Socketioxide).await;
}

#[test]
fn what_is_written_has_a_cell_for_every_combination() {
    let written = std::fs::read_to_string(document::path()).unwrap_or_default();
    let node = document::node(&written).unwrap_or_default();
    assert!(
        written == document::text(node),
        "docs/compatibility.md is not what the table says; `make compatibility` writes it"
    );
}

/// What `make compatibility` runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it writes docs/compatibility.md"]
async fn write_what_each_engine_does() {
    for engine in ENGINES {
        no_surprises(engine, "").await;
    }
    let node = std::process::Command::new("node").arg("--version").output();
    let node = String::from_utf8(node.expect("`node` is installed").stdout).expect("it is text");
    let text = document::text(node.trim().trim_start_matches('v'));
    std::fs::write(document::path(), text).expect("docs can be written");
}

/// Makes a behaviour's function one that a table can hold.
fn cell<F: Future<Output = Result<()>> + Send + 'static>(
    cell: F,
) -> BoxFuture<'static, Result<()>> {
    cell.boxed()
}
