//! The embedded default's demo: its page, its people and tasks, and a worker that ships.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use shard_router::{
    feed::{FeedError, FeedType, Job, NewFeed, Post},
    router::Router as Feeds,
    worker::Worker,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{auth, rpc::edit};

const PAGE: &str = include_str!("../assets/demo/index.html");
const STYLE: &str = include_str!("../assets/demo/demo.css");
const BOARD: &str = include_str!("../assets/demo/board.js");
const SCRIPT: &str = include_str!("../assets/demo/demo.js");
const SEED: &str = include_str!("../assets/demo/seed.json");
/// Nothing but what the gateway itself serves.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:";

/// Builds the routes of the page.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", PAGE)))
        .route("/demo/demo.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/demo/board.js", get(async || file("text/javascript; charset=utf-8", BOARD)))
        .route("/demo/demo.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/demo/users", get(users))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Lists the people who may be chosen; the page offers the first two.
async fn users() -> Json<Value> {
    let people = auth::demo::USERS.iter().take(2).map(|id| {
        let mut name = (*id).to_owned();
        name[..1].make_ascii_uppercase();
        json!({ "id": id, "name": name })
    });
    Json(people.collect())
}

#[derive(Deserialize)]
struct Seed {
    teams: Vec<SeedTeam>,
}

#[derive(Deserialize)]
struct SeedTeam {
    id: String,
    attrs: Box<RawValue>,
    members: Vec<SeedMember>,
}

#[derive(Deserialize)]
struct SeedMember {
    id: String,
    attrs: Box<RawValue>,
    tasks: Vec<Box<RawValue>>,
}

/// Fills the shards with the demo's team, unless it is there already.
///
/// # Errors
///
/// Returns [`FeedError`] when a shard does not take it.
pub async fn seed(feeds: &Feeds) -> Result<(), FeedError> {
    let seed: Seed = serde_json::from_str(SEED).expect("the seed is what the demo reads");
    let plain = |item: &RawValue, id: &str| Post {
        item: item.get().to_owned().into(),
        id: Some(id.to_owned()),
        ..Post::default()
    };
    for team in &seed.teams {
        if feeds.item("teams", &team.id).await?.is_some() {
            continue;
        }
        for member in &team.members {
            let members = format!("team.{}.members", team.id);
            for task in &member.tasks {
                let new = NewFeed { feed_type: FeedType::SortedFeed, max_length: None };
                let post = Post { item: task.get().to_owned().into(), new, ..Post::default() };
                feeds.post(&format!("{members}.{}.tasks", member.id), post).await?;
            }
            feeds.post(&members, plain(&member.attrs, &member.id)).await?;
        }
        feeds.post("teams", plain(&team.attrs, &team.id)).await?;
    }
    Ok(())
}

/// Starts the worker that ships tasks: it marks them as done and shipped.
pub fn start_worker(
    feeds: &Arc<Feeds>,
    queues: Vec<String>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    for queue in queues {
        let handler = {
            let feeds = feeds.clone();
            move |job: Job| -> BoxFuture<'static, Vec<u8>> {
                let feeds = feeds.clone();
                Box::pin(async move { ship(&feeds, &job).await.to_string().into_bytes() })
            }
        };
        let (worker, stop) = (Worker::new(feeds.clone(), queue.clone(), handler), stop.clone());
        tracker.spawn(async move {
            if let Err(error) = worker.run(stop).await {
                error!(queue, %error, "The queue of the demo cannot be worked on.");
            }
        });
    }
}

/// What a `shipTask` job says.
#[derive(Deserialize)]
struct Ship {
    feed: String,
    id: String,
    user: String,
    #[serde(default)]
    teams: Vec<String>,
}

async fn ship(feeds: &Feeds, job: &Job) -> Value {
    let Ok(ship) = serde_json::from_slice::<Ship>(&job.item) else {
        return json!({ "code": 400, "error": "the job names no task" });
    };
    // The board's own tasks only: a job's data is what a client sent.
    let mine =
        ship.teams.iter().any(|team| ship.feed.starts_with(&format!("team.{team}.members.")));
    if !mine || !ship.feed.ends_with(".tasks") {
        return json!({ "code": 403, "error": "you may not ship this task" });
    }
    let marks = BTreeMap::from([("done", true), ("shipped", true)]);
    let change = marks.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    match edit::merge_into(feeds, &ship.feed, &ship.id, &change, &job.id).await {
        Ok(()) => json!({ "code": 200, "result": { "shipped": ship.id, "by": ship.user } }),
        Err(error) => error.to_json(),
    }
}
