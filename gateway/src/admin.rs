//! The second listener: health, metrics, and the HTTP API for backends.
//!
//! Errors are `application/problem+json` (RFC 9457) with `status`, `title` and `detail`, and
//! `errors` for a bad body. Everything but the health checks wants the bearer token; where
//! none is configured, whoever is on this machine may, but no foreign page in its browser.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use shard_router::{
    feed::{BadPosition, FeedError, FeedType, Kind, NewFeed, Position, Post},
    router::Router as Feeds,
    topology::Topology,
};
use subtle::ConstantTimeEq;

use crate::{
    auth::origin,
    config::Secret,
    control::{Control, ControlError, Message, Op},
    drain::Drain,
    hub::Room,
    identity::UserId,
    live::Live,
    mirror::Mirror,
    snapshot,
};

/// What the admin listener answers from.
#[derive(Clone)]
pub struct Admin {
    /// Where feeds are read and written.
    pub feeds: Arc<Feeds>,
    /// What reaches every gateway.
    pub control: Arc<Control>,
    /// What is heard here.
    pub live: Live,
    /// Whether the gateway is ready.
    pub drain: Drain,
    /// What has been counted.
    pub metrics: PrometheusHandle,
    /// What a request must bear.
    pub token: Option<Secret>,
    /// How large an item may be, in bytes.
    pub max_item_bytes: usize,
}

/// How much larger than its item a body may be: its other fields, and escapes.
const BODY_SLACK: usize = 64 << 10;

/// Builds the routes.
pub fn router(admin: Admin) -> Router {
    let limit = DefaultBodyLimit::max(admin.max_item_bytes + BODY_SLACK);
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/topology", get(topology))
        .route("/api/feeds/{feed}", get(read_feed).post(post_item))
        .route("/api/feeds/{feed}/{id}", axum::routing::put(put_item).delete(delete_item))
        .route("/api/feeds/{feed}/{id}/position", post(move_item))
        .route("/api/rooms/{room}/emit", post(emit))
        .route("/api/users/{user}", get(inspect))
        .route("/api/users/{user}/disconnect", post(disconnect))
        .route("/api/users/{user}/refresh", post(refresh))
        .layer(middleware::from_fn_with_state(admin.clone(), authorize));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
        })
        .layer(limit)
        .with_state(admin)
}

/// An answer that says what was wrong.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<String>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }

    fn bad(errors: Vec<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            detail: "the body is not what is wanted".to_owned(),
            errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if self.status == StatusCode::BAD_REQUEST {
            body["errors"] = self.errors.into();
        }
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        let status = match &error {
            FeedError::BadName(_) | FeedError::BadId { .. } => {
                return Self::bad(vec![error.to_string()]);
            }
            FeedError::UnknownItem { .. } => StatusCode::NOT_FOUND,
            FeedError::WrongKind { .. }
            | FeedError::UnknownNeighbour { .. }
            | FeedError::SameItem(_)
            | FeedError::BadFeed(_) => StatusCode::CONFLICT,
            FeedError::Shard(cause) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, cause.to_string());
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Bad(detail) => Self::bad(vec![detail]),
            ControlError::Stopped(stopped) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
            }
        }
    }
}

/// What the path names, percent-decoded once.
struct InPath<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::from_request_parts(parts, state).await;
        let Path(named) = named.map_err(|rejection| {
            let (status, detail) = (rejection.status(), rejection.body_text());
            Problem { status, errors: vec![detail.clone()], detail }
        })?;
        Ok(Self(named))
    }
}

/// The body as it was sent.
struct Sent(Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| {
            let (status, detail) = (rejection.status(), rejection.body_text());
            Problem { status, errors: vec![detail.clone()], detail }
        })?;
        Ok(Self(body))
    }
}

async fn authorize(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let Some(token) = &admin.token else {
        return match check_local(request.uri(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(why) => Problem::new(StatusCode::FORBIDDEN, why).into_response(),
        };
    };
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
    });
    let fits = given.is_some_and(|given| given.ct_eq(token.expose().as_bytes()).into());
    if fits {
        next.run(request).await
    } else {
        Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is wanted, and not this one")
            .into_response()
    }
}

/// Lets in who is on this machine and is no foreign page in its browser.
///
/// Without a token loopback is the whole protection, and a browser is behind it: any page may
/// send requests to it, and one whose name was pointed at 127.0.0.1 may read the answers.
fn check_local(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut hosts = named.chain(uri.authority().map(Authority::as_str));
    if !hosts.all(origin::is_loopback) {
        return Err("without a token, only requests to localhost or a loopback address are taken");
    }
    let sites = headers.get_all("sec-fetch-site");
    if sites.iter().any(|site| site != "same-origin" && site != "none") {
        return Err("without a token, requests of other sites' pages are not taken");
    }
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = |page: &HeaderValue| {
        page.to_str().ok().zip(own).is_some_and(|(page, own)| origin::is_same(page, own))
    };
    if !headers.get_all(header::ORIGIN).iter().all(is_own) {
        return Err("without a token, requests of other origins' pages are not taken");
    }
    Ok(())
}

/// Balancers want exactly 404 from a gateway that is to get no new clients.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.drain.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::NOT_FOUND, "not ready\n").into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, admin.metrics.render()).into_response()
}

async fn topology(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.feeds.topology().as_deref().map_or(Value::Null, shown))
}

/// A topology as an operator sees it; passwords are not told.
fn shown(topology: &Topology) -> Value {
    let shards = topology.shards.iter().zip(topology.shares());
    let shards = shards.map(|(shard, share)| {
        json!({ "name": shard.name, "url": shard.url.to_string(), "weight": shard.weight, "share": share })
    });
    json!({
        "version": topology.version,
        "fingerprint": topology.ring().fingerprint(),
        "shards": shards.collect::<Vec<_>>(),
    })
}

async fn read_feed(
    State(admin): State<Admin>,
    InPath(feed): InPath<String>,
) -> Result<Response, Problem> {
    let content = admin.feeds.all(&feed).await?;
    let kind = match content.kind {
        Kind::Sorted => "\"sorted_feed\"",
        Kind::Plain => "\"feed\"",
        Kind::Unknown => "null",
    };
    let mirror = Mirror::new(&content);
    let collection = snapshot::collection_json(&feed, &mirror, Some(mirror.version()));
    let models = collection.split_once(r#""models":"#).map_or("[]}", |(_, models)| models);
    let v = mirror.version();
    let body = format!(
        r#"{{"feed":{},"type":{kind},"v":"{v}","models":{models}"#,
        snapshot::string(&feed)
    );
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The body of a `POST` of an item.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewItem {
    item: Box<RawValue>,
    id: Option<String>,
    position: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    max_length: Option<u64>,
}

async fn post_item(
    State(admin): State<Admin>,
    InPath(feed): InPath<String>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body: NewItem = read_body(&body)?;
    let item = admin.item(&body.item)?;
    let mut errors = Vec::new();
    let position = body.position.as_deref().and_then(|text| read_position(text, &mut errors));
    let feed_type = match body.kind.as_deref() {
        None | Some("feed") => FeedType::Feed,
        Some("sorted_feed") => FeedType::SortedFeed,
        Some(other) => {
            errors.push(format!("`type` is `{other}` and neither `feed` nor `sorted_feed`"));
            FeedType::Feed
        }
    };
    if body.max_length == Some(0) {
        errors.push("`max_length` is 0; a feed keeps at least one item".to_owned());
    }
    if !errors.is_empty() {
        return Err(Problem::bad(errors));
    }
    let new = NewFeed { feed_type, max_length: body.max_length };
    let published = admin.feeds.post(&feed, Post { item, id: body.id, position, new }).await?;
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "id": published.id }))))
}

/// The body of a `PUT` of an item.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    item: Box<RawValue>,
}

async fn put_item(
    State(admin): State<Admin>,
    InPath((feed, id)): InPath<(String, String)>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body: Item = read_body(&body)?;
    let published = admin.feeds.put(&feed, &id, admin.item(&body.item)?).await?;
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "id": published.id }))))
}

async fn delete_item(
    State(admin): State<Admin>,
    InPath((feed, id)): InPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    if admin.feeds.retract(&feed, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(FeedError::UnknownItem { feed, id }.into())
    }
}

/// The body of a move.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    position: String,
}

async fn move_item(
    State(admin): State<Admin>,
    InPath((feed, id)): InPath<(String, String)>,
    Sent(body): Sent,
) -> Result<Json<Value>, Problem> {
    let body: Move = read_body(&body)?;
    let mut errors = Vec::new();
    let Some(position) = read_position(&body.position, &mut errors) else {
        return Err(Problem::bad(errors));
    };
    admin.feeds.position(&feed, &id, &position).await?;
    Ok(Json(json!({ "id": id })))
}

/// The body of an emit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emit {
    event: String,
    #[serde(default)]
    args: Vec<Box<RawValue>>,
}

async fn emit(
    State(admin): State<Admin>,
    InPath(room): InPath<String>,
    Sent(body): Sent,
) -> Result<StatusCode, Problem> {
    let body: Emit = read_body(&body)?;
    let room: Room = room.parse().map_err(|error| Problem::bad(vec![format!("{error}")]))?;
    let mut message = Message::new(Op::Emit);
    message.room = Some(room.to_string());
    message.event = Some(body.event);
    message.args = body.args;
    admin.control.tell(message).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn inspect(
    State(admin): State<Admin>,
    InPath(user): InPath<String>,
) -> Result<Json<Value>, Problem> {
    let stopped = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
    let sockets = admin.live.inspect(UserId::new(&user)).await.map_err(stopped)?;
    Ok(Json(json!({ "user": user, "sockets": sockets })))
}

/// The body of a disconnect, which may be left out.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    #[serde(default, rename = "final")]
    is_final: bool,
}

async fn disconnect(
    State(admin): State<Admin>,
    InPath(user): InPath<String>,
    Sent(body): Sent,
) -> Result<Json<Value>, Problem> {
    let body: Disconnect = if body.is_empty() { Disconnect::default() } else { read_body(&body)? };
    let mut message = Message::new(Op::Disconnect);
    message.is_final = body.is_final;
    admin.tell_user(message, user).await
}

async fn refresh(
    State(admin): State<Admin>,
    InPath(user): InPath<String>,
) -> Result<Json<Value>, Problem> {
    admin.tell_user(Message::new(Op::Refresh), user).await
}

impl Admin {
    async fn tell_user(&self, mut message: Message, user: String) -> Result<Json<Value>, Problem> {
        message.user = Some(user);
        let sockets = self.control.tell(message).await?;
        Ok(Json(json!({ "sockets": sockets })))
    }

    /// Returns an item as the exact text that was sent.
    fn item(&self, item: &RawValue) -> Result<Bytes, Problem> {
        let text = item.get();
        if text.len() > self.max_item_bytes {
            let detail =
                format!("the item has {} bytes and may have {}", text.len(), self.max_item_bytes);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }
}

fn read_body<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(vec![error.to_string()]))
}

fn read_position(text: &str, errors: &mut Vec<String>) -> Option<Position> {
    text.parse().map_err(|error: BadPosition| errors.push(format!("`position`: {error}"))).ok()
}
