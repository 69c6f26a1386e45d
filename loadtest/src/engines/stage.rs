//! One gateway with one engine, one Redis, and the clients of one measure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shard_router::{feed::FeedType, router::Router};
use tokio::time::sleep;

use super::{
    Failure, Plan,
    ear::{Ear, Tally},
};
use crate::{
    cluster::{self, Cluster, Gateway},
    crowd,
    light::{self, Client, Options},
    sample::Sample,
    start::Engine,
    wire::Protocol,
    world::World,
};

/// How many users are a team.
pub(super) const TEAM: usize = 8;
/// The feed that clients subscribe beside their tree.
pub(super) const FEED: &str = "public.news";
/// How long events may take to arrive once all are published.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How long a gateway may take to see that clients are gone.
const LEAVING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) world: World,
    pub(super) router: Router,
    protocol: Protocol,
    ramp: f64,
    /// How many connections a user has.
    each: usize,
}

/// Some clients and what they heard.
pub(super) struct Crowd {
    pub(super) clients: Vec<Client<Ear>>,
    pub(super) tally: Arc<Tally>,
}

impl Stage {
    /// Starts it with so many users of so many connections; `server` and `config` are more of the
    /// configuration.
    pub(super) async fn start(
        plan: &Plan,
        engine: Engine,
        users: usize,
        each: usize,
        server: &str,
        config: &str,
    ) -> Result<Self, Failure> {
        let cluster = Cluster::start(&cluster::Plan {
            gateway: plan.gateway.clone(),
            gateways: 1,
            shards: 1,
            keeps: false,
            server: Engine::line(Some(engine)) + server,
            config: config.to_owned(),
            folder: plan.folder.clone(),
        })
        .await?;
        let world = World { users, members: TEAM, tasks: plan.tasks };
        world.write(&cluster).await?;
        let router = cluster.router();
        router.create_feed(FEED, FeedType::Feed, None).await?;
        let Plan { protocol, ramp, .. } = *plan;
        Ok(Self { cluster, world, router, protocol, ramp, each })
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.cluster.gateways[0]
    }

    /// Returns what the gateway used so far.
    pub(super) fn sample(&self) -> Result<Sample, Failure> {
        let sample = self.gateway().process().id().and_then(|id| Sample::of(&[id]));
        sample.ok_or(Failure::Unseen)
    }

    /// Starts clients until there are so many, and waits until all show their state.
    ///
    /// They come from addresses from `from` on, so that crowds do not take each other's ports.
    pub(super) async fn let_in(
        &self,
        crowd: &mut Crowd,
        clients: usize,
        from: usize,
        receive_buffer: Option<u32>,
    ) -> Result<(), Failure> {
        let targets: Arc<[_]> = Arc::new([([127, 0, 0, 1], self.gateway().port()).into()]);
        let tally = &crowd.tally;
        let new = crowd::start(crowd.clients.len()..clients, self.ramp, |number| {
            let user = self.world.user(number / self.each % self.world.users);
            let options = Options {
                source: Some(light::source(from + number)),
                seed: number as u64,
                receive_buffer,
                ..Options::new(targets.clone(), self.protocol, cluster::cookie(&user))
            };
            Client::spawn(options, Ear::new(tally.clone()))
        })
        .await;
        crowd.clients.extend(new);
        crowd::enter(clients, || tally.entered(), || tally.lost().1).await?;
        Ok(())
    }

    /// Waits until the gateway has no more clients than these.
    pub(super) async fn wait_until_left(&self, clients: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + LEAVING;
        while self.connections().await? > clients as f64 && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Returns how many clients the gateway says it has.
    async fn connections(&self) -> Result<f64, Failure> {
        let metrics = self.gateway().metrics().await?;
        let connections = metrics.iter().filter(|(name, _)| {
            name.strip_prefix("gateway_connections").is_some_and(|rest| rest.starts_with('{'))
        });
        Ok(connections.map(|(_, count)| count).sum())
    }
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { clients: Vec::new(), tally: Arc::default() }
    }

    /// Lets every client hear [`FEED`].
    pub(super) async fn subscribe(&self) -> Result<(), Failure> {
        let argument = format!(r#"{{"feed":"{FEED}"}}"#);
        for client in &self.clients {
            let answer = client.call("subscribe", &argument).await?;
            if !answer.contains(r#""code":200"#) {
                return Err(Failure::Subscribe(answer));
            }
        }
        Ok(())
    }

    /// Waits until so many events have come to all together.
    pub(super) async fn hear(&self, sent: u64) -> Result<(), Failure> {
        let arrived = crowd::wait(sent, ARRIVAL, || self.tally.heard()).await;
        if arrived >= sent {
            return Ok(());
        }
        let first = self.tally.lost().1.unwrap_or_else(|| "no client was lost".to_owned());
        Err(Failure::Lost { sent, arrived, first })
    }

    /// Cuts every connection, and waits until they are.
    pub(super) async fn leave(self) {
        for client in self.clients {
            client.end().await;
        }
    }
}
