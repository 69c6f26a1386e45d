//! Builds the parts; the one file where all meet.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use shard_router::{router::Router as Feeds, topology::Topology};
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    admin::{self, Admin},
    auth::{self, Authenticator},
    config::{Config, SessionFormat},
    control::{self, Control, Inbox},
    demo,
    drain::Drain,
    live::{self, Listener, Live},
    mirror::keeper,
    outbox::CloseReason,
    rpc::Rpc,
    session,
    socket,
    tree::Tree,
    worker,
};

/// A gateway that is built and hears its shards; its routers are to be served.
#[derive(Debug)]
pub struct App {
    /// What clients reach.
    pub public: Router,
    /// What operators and backends reach.
    pub admin: Router,
    /// How it stops.
    pub drain: Drain,
    live: Live,
}

/// Why a gateway cannot be built from a configuration that is right in itself.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The session store's address cannot be used.
    #[error("session store cannot be used")]
    Store(#[from] auth::store::BadUrl),
    /// The demo could not be filled.
    #[error("demo could not be filled")]
    Demo(#[from] shard_router::feed::FeedError),
}

/// Events of one client that may wait for its session.
const INBOUND: usize = 256;

/// Hands what the live state hears to those who want it.
struct Ears {
    rpc: Arc<Rpc>,
    control: Inbox,
}

impl Listener for Ears {
    fn finished(&self, queue: &str, id: &str, result: Bytes) {
        self.rpc.finished(queue, id, &result);
    }

    fn control(&self, message: Bytes) {
        self.control.offer(message);
    }

    fn shard(&self, shard: usize, up: bool) {
        self.rpc.shard(shard, up);
    }
}

impl App {
    /// Builds a gateway; shards and stores that are away are tried until they are there.
    ///
    /// # Errors
    ///
    /// Returns [`BuildError`].
    pub async fn build(config: Config, topology: Topology, metrics: PrometheusHandle) -> Result<Self, BuildError> {
        let drain = Drain::default();
        let shown = shown(&topology);
        let shards = topology.shards.iter().map(|shard| shard.name.clone()).collect();
        let feeds = Arc::new(Feeds::open(topology));
        let auth = Arc::new(authenticator(&config)?);
        let tree = Arc::new(config.tree.clone());
        let allow = Arc::new(config.subscribe.clone());
        let rpc = Arc::new(Rpc::new(feeds.clone(), config.jobs.clone(), config.edits.clone()));
        let (inbox, heard) = control::inbox();
        let settings = live::Settings {
            keeper: keeper::Settings {
                settle: config.mirror.settle,
                linger: config.mirror.linger,
                mark_channel: format!("gateway.mark:{}", Uuid::new_v4().simple()),
                queues: Rpc::queues(&config.jobs, &config.edits),
            },
            tree: tree.clone(),
            allow: allow.clone(),
            shards,
        };
        let ears = Ears { rpc: rpc.clone(), control: inbox };
        let live = Live::start(settings, feeds.clone(), ears, &drain.tracker, drain.end.clone());
        let control = Arc::new(Control::new(live.clone(), feeds.clone(), auth.clone()));
        drain.tracker.spawn({
            let (control, end) = (control.clone(), drain.end.clone());
            async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = control.run(heard) => {}
                }
            }
        });
        if config.embedded {
            demo::seed(&feeds).await?;
            start_workers(&config, &feeds, &tree, &drain);
            let queues = config.jobs.values().flat_map(crate::config::Job::queues).collect();
            demo::start_worker(&feeds, queues, &drain.tracker, &drain.stop);
        }
        let parts = Arc::new(session::Parts {
            live: live.clone(),
            rpc,
            auth: auth.clone(),
            allow,
            tree,
            recheck: config.session.recheck,
            max_subscriptions: config.limits.max_subscriptions,
            messages_per_second: config.limits.messages_per_second,
            tracker: drain.tracker.clone(),
            end: drain.end.clone(),
        });
        let tracker = drain.tracker.clone();
        let accept: socket::Accept = Arc::new(move |connection| {
            tracker.spawn(session::run(connection, parts.clone()));
        });
        let mut public = socket::router(&socket_settings(&config), auth, accept);
        if config.embedded {
            public = public.merge(demo::router());
        }
        public = public.layer(middleware::from_fn_with_state(drain.clone(), refuse_newcomers));
        let admin = admin::router(Admin {
            feeds,
            control,
            live: live.clone(),
            drain: drain.clone(),
            metrics,
            token: config.admin.token.clone(),
            max_item_bytes: config.limits.max_item_bytes.min(config.limits.outbox_bytes / 2),
            topology: Arc::new(shown),
        });
        Ok(Self { public, admin, drain, live })
    }

    /// Closes every client and waits for what is under way; returns whether all ended in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.drain.begin();
        self.drain.stop.cancel();
        if self.live.close_all(CloseReason::Draining).await.is_err() {
            warn!("The live state had stopped before its clients.");
        }
        // Lets the engines write what closes a connection.
        tokio::time::sleep(CLOSING).await;
        self.drain.finish(deadline).await
    }
}

/// Sends new clients to another gateway while this one stops; those who are in go on.
async fn refuse_newcomers(State(drain): State<Drain>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let has = |key: &str| query.split('&').any(|pair| pair.split('=').next() == Some(key));
    let is_handshake = has("transport") && !has("sid");
    if drain.is_ready() || !is_handshake {
        return next.run(request).await;
    }
    let soon = [(RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, soon, "the gateway is stopping\n").into_response()
}

const CLOSING: Duration = Duration::from_millis(200);

/// Runs the built-in worker alone, as `gateway worker` does, until `drain` stops it.
pub fn start_workers(config: &Config, feeds: &Arc<Feeds>, tree: &Arc<Tree>, drain: &Drain) {
    worker::start(feeds, tree, &config.edits, &drain.tracker, &drain.stop);
}

fn authenticator(config: &Config) -> Result<Authenticator, auth::store::BadUrl> {
    let session = &config.session;
    let settings = match session.format {
        SessionFormat::Demo => auth::Settings::Demo,
        SessionFormat::Express => auth::Settings::Express {
            cookie: session.cookie.clone(),
            secrets: session.secrets.iter().map(|secret| secret.expose().to_owned()).collect(),
            store: session.store.as_str().to_owned(),
            prefix: session.prefix.clone(),
            pointers: auth::express::Pointers { user: session.user.clone(), teams: session.teams.clone() },
        },
    };
    Authenticator::new(settings).inspect_err(|error| error!(%error, "Session store cannot be used."))
}

fn socket_settings(config: &Config) -> socket::Settings {
    use crate::{config::Client, socket::bundle::Generation};
    let (server, limits) = (&config.server, &config.limits);
    socket::Settings {
        origins: auth::origin::Origins::new(server.origins.iter().cloned(), server.require_origin),
        stall: limits.stall,
        connect_timeout: limits.connect_timeout,
        max_message_bytes: limits.max_message_bytes,
        outbox_bytes: limits.outbox_bytes,
        inbound_queue: INBOUND,
        ping_interval: server.ping_interval,
        ping_timeout: server.ping_timeout,
        client: match server.client {
            Client::V1 => Generation::One,
            Client::V2 => Generation::Two,
            Client::V3 => Generation::Three,
            Client::V4 => Generation::Four,
        },
    }
}

/// A topology as `GET /api/topology` tells it; passwords are not told.
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
