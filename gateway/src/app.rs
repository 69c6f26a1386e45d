//! Builds the parts; the one file where all meet.

use std::{sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use shard_router::{router::Router as Feeds, topology::Topology};
use tokio::runtime::Handle;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    admin::{self, Admin},
    auth::{self, Authenticator},
    config::{Config, SessionFormat},
    control::{self, Control, Inbox},
    demo,
    drain::Drain,
    limits::{Admission, Bounds},
    live::{self, Listener, Live},
    mirror::keeper,
    outbox::CloseReason,
    rpc::{Rpc, edit},
    session, socket,
    topology::Watch,
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
    admission: Admission,
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
const INBOUND: usize = 1_024;

/// Hands what the live state hears to those who want it.
struct Ears {
    rpc: Arc<Rpc>,
    control: Inbox,
    drain: Drain,
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

    fn deaf(&self, is_deaf: bool) {
        self.drain.set_deaf(is_deaf);
    }
}

impl App {
    /// Builds a gateway; shards and stores that are away are tried until they are there.
    ///
    /// # Errors
    ///
    /// Returns [`BuildError`].
    pub async fn build(config: Config, metrics: PrometheusHandle) -> Result<Self, BuildError> {
        let auth = Arc::new(authenticator(&config)?);
        let feeds = Arc::new(Feeds::open(config.shards.clone()));
        let core = Core::start(&config, &config.shards, feeds.clone(), auth.clone(), metrics);
        let drain = &core.drain;
        if config.embedded {
            demo::seed(&feeds).await?;
            start_workers(&config, &feeds, &Arc::new(config.tree.clone()), drain);
            let queues = config.jobs.values().flat_map(crate::config::Job::queues).collect();
            demo::start_worker(&feeds, queues, &drain.tracker, &drain.stop);
        }
        let settings = socket_settings(&config, drain);
        let admission = settings.admission.clone();
        let mut public = socket::router(&settings, auth, core.accept);
        if config.embedded {
            public = public.merge(demo::router());
        }
        Ok(Self { public, admin: core.admin, drain: core.drain, live: core.live, admission })
    }

    /// Closes every client and waits for what is under way; returns whether all ended in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.drain.begin();
        self.admission.close();
        self.drain.stop.cancel();
        if self.live.close_all(CloseReason::Draining).await.is_err() {
            warn!("The live state had stopped before its clients.");
        }
        tokio::time::sleep(CLOSING).await;
        self.drain.finish(deadline).await
    }
}

/// Everything of a gateway but its engine: what stands behind a [`socket::Connection`].
pub struct Core {
    /// Takes over a connection.
    pub accept: socket::Accept,
    /// What operators and backends reach.
    pub admin: Router,
    /// Where feeds are heard.
    pub live: Live,
    /// How it stops.
    pub drain: Drain,
}

impl Core {
    /// Starts the parts on `feeds`, whose shards are those of `topology`.
    #[must_use]
    pub fn start(
        config: &Config,
        topology: &Topology,
        feeds: Arc<Feeds>,
        auth: Arc<Authenticator>,
        metrics: PrometheusHandle,
    ) -> Self {
        let drain = Drain::default();
        let tree = Arc::new(config.tree.clone());
        let allow = Arc::new(config.subscribe.clone());
        let rpc = Arc::new(Rpc::new(feeds.clone(), config.jobs.clone(), config.edits.clone()));
        drain.tracker.spawn({
            let (metrics, end) = (metrics.clone(), drain.end.clone());
            async move {
                // What was recorded waits in memory until it is folded, also where nobody asks.
                while tokio::time::timeout(UPKEEP, end.cancelled()).await.is_err() {
                    metrics.run_upkeep();
                }
            }
        });
        let (inbox, heard) = control::inbox();
        let settings = live::Settings {
            keeper: keeper::Settings {
                settle: config.mirror.settle,
                linger: config.mirror.linger,
                verify_every: config.mirror.verify_every,
                max_bytes: config.mirror.max_bytes,
                max_feed_bytes: config.mirror.max_feed_bytes,
                mark_channel: format!("gateway.mark:{}", Uuid::new_v4().simple()),
                queues: Rpc::queues(&config.jobs, &config.edits),
            },
            tree: tree.clone(),
            allow: allow.clone(),
            shards: topology.shards.iter().map(|shard| shard.name.clone()).collect(),
            recheck: config.session.recheck,
        };
        let ears = Ears { rpc: rpc.clone(), control: inbox, drain: drain.clone() };
        let live = Live::start(settings, feeds.clone(), ears, &drain.tracker, drain.end.clone());
        if let Some(file) = &config.topology_file {
            let mut watch = Watch::new(file.clone(), topology.clone(), true);
            let (live, end) = (live.clone(), drain.end.clone());
            drain.tracker.spawn(async move {
                while let Some(topology) = watch.next(&end).await
                    && live.topology(topology).await.is_ok()
                {}
            });
        }
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
        let parts = Arc::new(session::Parts {
            live: live.clone(),
            rpc,
            auth,
            allow,
            tree,
            max_subscriptions: config.limits.max_subscriptions,
            messages_per_second: config.limits.messages_per_second,
            inbound_queue: INBOUND,
            tracker: drain.tracker.clone(),
            runtime: Handle::current(),
            end: drain.end.clone(),
        });
        let accept: socket::Accept =
            Arc::new(move |connection| session::accept(connection, parts.clone()));
        let admin = admin::router(Admin {
            feeds,
            control,
            live: live.clone(),
            drain: drain.clone(),
            metrics,
            token: config.admin.token.clone(),
            max_item_bytes: max_item_bytes(config),
        });
        Self { accept, admin, live, drain }
    }
}

/// How often what was counted is folded into its buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the engines have to write what closes a connection.
const CLOSING: Duration = Duration::from_millis(200);

/// Runs the built-in worker alone, as `gateway worker` does, until `drain` stops it.
pub fn start_workers(config: &Config, feeds: &Arc<Feeds>, tree: &Arc<Tree>, drain: &Drain) {
    worker::start(feeds, tree, &config.edits, bounds(config), &drain.tracker, &drain.stop);
}

fn bounds(config: &Config) -> edit::Bounds {
    edit::Bounds { timeout: config.edits.timeout, max_item_bytes: max_item_bytes(config) }
}

/// An event of any item must find room in an empty outbox.
fn max_item_bytes(config: &Config) -> usize {
    config.limits.max_item_bytes.min(config.limits.outbox_bytes / 2)
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
            pointers: auth::express::Pointers {
                user: session.user.clone(),
                teams: session.teams.clone(),
            },
        },
    };
    Authenticator::new(settings)
        .inspect_err(|error| error!(%error, "Session store cannot be used."))
}

fn socket_settings(config: &Config, drain: &Drain) -> socket::Settings {
    use crate::{
        config::{Client, Engine},
        socket::{EngineKind, bundle::Generation},
    };
    let (server, limits) = (&config.server, &config.limits);
    socket::Settings {
        admission: Admission::new(Bounds {
            connections: limits.max_connections,
            pending: limits.max_pending,
            per_user: limits.max_connections_per_user,
            per_ip: limits.max_connections_per_ip,
            handshakes_per_second: limits.handshakes_per_second,
            trusted_proxies: server.trusted_proxies.clone(),
        }),
        origins: auth::origin::Origins::new(server.origins.iter().cloned(), server.require_origin),
        stall: limits.stall,
        connect_timeout: limits.connect_timeout,
        max_message_bytes: limits.max_message_bytes,
        outbox_bytes: limits.outbox_bytes,
        engine: match server.engine {
            Engine::Pneumatic => EngineKind::Pneumatic,
            Engine::Socketioxide => EngineKind::Socketioxide,
        },
        node: server.node.clone(),
        ping_interval: server.ping_interval,
        ping_timeout: server.ping_timeout,
        drain: drain.clone(),
        client: match server.client {
            Client::V1 => Generation::One,
            Client::V2 => Generation::Two,
            Client::V3 => Generation::Three,
            Client::V4 => Generation::Four,
        },
    }
}
