//! All clients of a run.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Plan, Stage,
    faults::{Fault, Spell, seconds},
    node::{self, NodeClient},
    proxy::Proxy,
    report::Difference,
    truth::{Truth, Wanted},
    watch::Watch,
    world::PUBLIC,
};
use crate::{
    cluster::cookie,
    light::{Client, Listener, Lost, Options},
    wire::Protocol,
};

/// Clients of one Node process.
const TOGETHER: usize = 4;
/// Of all connections so many are cut, or stall, at a time.
const SHARE: f64 = 0.15;

/// Bytes of a `resume`: a gateway takes 64 KiB.
const RESUME: usize = 60 << 10;
/// What a light client's socket holds, so that one that does not read is felt soon.
const RECEIVE_BUFFER: u32 = 64 << 10;
/// Between two attempts to connect, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// How long after a subscription was not granted it is asked for again.
pub(super) const ASKS_AGAIN: Duration = Duration::from_secs(1);

/// The clients, and how to trouble them.
#[derive(Debug)]
pub struct Fleet {
    lights: Arc<[Client<Ear>]>,
    light_watches: Vec<Watch>,
    _subscribing: AbortOnDropHandle<()>,
    processes: Vec<node::Process>,
    proxy: Proxy,
}

impl Fleet {
    /// Starts the clients; they connect by themselves.
    ///
    /// # Errors
    ///
    /// Returns what is missing.
    pub async fn start(stage: &Arc<Stage>, plan: &Plan, rng: &mut StdRng) -> io::Result<Self> {
        let ports = stage.cluster.gateways.iter().map(|gateway| gateway.port()).collect();
        let proxy = Proxy::start(ports, rng.random()).await?;
        let mut processes = Vec::new();
        let numbers: Vec<usize> = (0..plan.nodes).collect();
        let folder = node::folder().map_err(io::Error::other)?;
        for numbers in numbers.chunks(TOGETHER) {
            let (specs, clients): (Vec<Value>, Vec<NodeClient>) =
                numbers.iter().map(|number| node_client(stage, plan, &proxy, *number, rng)).unzip();
            processes.push(node::Process::start(&folder, &specs, clients)?);
        }
        let (has_initial, at) = mpsc::unbounded_channel();
        let (lights, light_watches): (Vec<_>, Vec<_>) =
            (0..plan.lights).map(|at| light(stage, plan, at, has_initial.clone(), rng)).unzip();
        let lights: Arc<[Client<Ear>]> = lights.into();
        let task = tokio::spawn(subscribe(lights.clone(), at));
        let subscribing = AbortOnDropHandle::new(task);
        Ok(Self { lights, light_watches, _subscribing: subscribing, processes, proxy })
    }

    /// Returns the accounts of all clients.
    pub fn watches(&self) -> impl Iterator<Item = &Watch> {
        let nodes = self.processes.iter().flat_map(|process| process.clients());
        nodes.map(|client| &client.watch).chain(&self.light_watches)
    }

    /// Looks at what the libraries in Node show themselves; tells where that differs.
    pub async fn shown(&self, stage: &Stage, truth: &Truth) -> Vec<Difference> {
        let mut differences = Vec::new();
        for process in &self.processes {
            for (at, client) in process.clients().iter().enumerate() {
                let user = client.watch.user();
                let Some(teams) = stage.rights.teams(&user) else { continue };
                let what = match process.shows(at).await {
                    Ok(Some(tree)) => {
                        truth.difference(&tree, &Wanted { user: &user, teams: &teams })
                    }
                    Ok(None) => Some("its process does not say what it shows".to_owned()),
                    Err(problem) => Some(problem),
                };
                if let Some(what) = what {
                    let client = format!("{}, in Node", client.watch.name());
                    differences.push(Difference { client, user, what });
                }
            }
        }
        differences
    }

    /// Has a user's clients connect again that were sent away for good.
    pub async fn revive(&self, user: &str) {
        for process in &self.processes {
            for (at, client) in process.clients().iter().enumerate() {
                if client.watch.user() == user {
                    process.connect(at);
                }
            }
        }
        for (light, watch) in self.lights.iter().zip(&self.light_watches) {
            if watch.user() == user && !light.is_in() {
                light.come_back().await;
            }
        }
    }

    /// Cuts or stalls some connections.
    pub(super) async fn trouble(
        &self,
        stage: &Stage,
        fault: Fault,
        mut rng: StdRng,
        spell: &Spell,
    ) {
        let some: Vec<usize> = (0..self.lights.len()).filter(|_| rng.random_bool(SHARE)).collect();
        let what = fault.label();
        if fault == Fault::CutClients {
            let count = self.proxy.cut(SHARE, &mut rng);
            stage.journal.note(format!("{what}: {count} in Node, {} others", some.len()));
            for at in some {
                self.lights[at].cut(seconds(&mut rng, 0.0, 3.0)).await;
            }
            return;
        }
        // Some are beyond what a gateway waits for.
        let length = seconds(&mut rng, 0.5, 13.0);
        stage.journal.note(format!("{what}: {} for {length:?}", some.len()));
        join_all(some.iter().map(|at| self.lights[*at].stop_reading())).await;
        let nodes = || self.processes.iter().flat_map(|process| process.clients());
        let watches = || {
            let lights = some.iter().map(|at| &self.light_watches[*at]);
            nodes().map(|client| &client.watch).chain(lights)
        };
        watches().for_each(Watch::pauses);
        let stalled = self.proxy.stall(SHARE, &mut rng);
        spell.last(length).await;
        drop(stalled);
        for at in &some {
            self.lights[*at].go_on_reading().await;
        }
        watches().for_each(Watch::reads);
    }
}

/// What hears a light client.
#[derive(Debug)]
pub struct Ear {
    watch: Watch,
    at: usize,
    has_initial: mpsc::UnboundedSender<usize>,
}

impl Listener for Ear {
    fn resume(&mut self) -> String {
        self.watch.resume(RESUME)
    }

    fn event(&mut self, name: &str, argument: &str) {
        if self.watch.event(name, argument) {
            // Nobody subscribes any more when the run is over.
            let _ = self.has_initial.send(self.at);
        }
    }

    fn answer(&mut self, event: &str, argument: &str, answer: &str) {
        self.watch.answer(event, argument, answer);
    }

    fn connected(&mut self) {
        self.watch.connected();
    }

    fn lost(&mut self, _: &Lost) {
        self.watch.lost();
    }
}

/// Has each client that got an `initial` subscribe to what it wants, until that is granted.
async fn subscribe(lights: Arc<[Client<Ear>]>, mut at: mpsc::UnboundedReceiver<usize>) {
    while let Some(at) = at.recv().await {
        let lights = lights.clone();
        tokio::spawn(async move {
            let light = &lights[at];
            let wanted = light.listener().watch.wanted();
            for feed in wanted {
                let argument = json!({ "feed": feed }).to_string();
                // A client that is lost meanwhile gets another `initial`.
                while let Ok(answer) = light.call("subscribe", &argument).await {
                    let answer = serde_json::from_str::<Value>(&answer).unwrap_or_default();
                    if answer["code"] == 200 {
                        break;
                    }
                    sleep(ASKS_AGAIN).await;
                }
            }
        });
    }
}

fn light(
    stage: &Arc<Stage>,
    plan: &Plan,
    at: usize,
    has_initial: mpsc::UnboundedSender<usize>,
    rng: &mut StdRng,
) -> (Client<Ear>, Watch) {
    let user = stage.world.users.choose(rng).expect("there are users");
    let protocol = [Protocol::Eio4, Protocol::Eio3][at % 2];
    let targets = stage.cluster.gateways.iter();
    let targets =
        targets.map(|gateway| SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.port()))).collect();
    let resumes = plan.resumes && at % 4 < 2;
    let options = Options {
        first: rng.random_range(0..stage.cluster.gateways.len()),
        roams: true,
        resumes,
        receive_buffer: Some(RECEIVE_BUFFER),
        pause: PAUSES.0,
        max_pause: PAUSES.1,
        timeout: Duration::from_secs(5),
        seed: rng.random(),
        ..Options::new(targets, protocol, cookie(&user.session))
    };
    let kind = if resumes { "resumes" } else { "legacy" };
    let name = format!("light-{at} ({}, {kind})", protocol.label());
    let watch = Watch::new(name, &user.id, &wanted(rng), stage.clone());
    let ear = Ear { watch: watch.clone(), at, has_initial };
    (Client::spawn(options, ear), watch)
}

fn node_client(
    stage: &Arc<Stage>,
    plan: &Plan,
    proxy: &Proxy,
    number: usize,
    rng: &mut StdRng,
) -> (Value, NodeClient) {
    let user = stage.world.users.choose(rng).expect("there are users");
    let version = ["4.8", "2.5.0"][number % 2];
    // A poll of one connection may not go to another gateway.
    let (transport, url) = if number % 4 == 3 {
        let gateway = stage.cluster.gateways.choose(rng).expect("there are gateways");
        ("polling", format!("http://127.0.0.1:{}", gateway.port()))
    } else {
        ("websocket", proxy.url())
    };
    // Every other one of the new and of the old keeps its state by our own library.
    let capsule = plan.resumes && number % 8 < 4 && transport == "websocket";
    let spec = json!({
        "capsule": capsule,
        "query": if capsule { "resume=1" } else { "" },
        "version": version,
        "url": url,
        "transports": [transport],
        "cookie": cookie(&user.session),
        "userFeed": super::world::USERS,
        // As the library has it, but for the longest pause.
        "extra": { "reconnectionDelay": 1000, "reconnectionDelayMax": 2000 },
    });
    let keeps = if capsule { "capsule.js" } else { "literal" };
    let name = format!("node-{number} ({version}, {transport}, {keeps})");
    // What capsule.js subscribes to again by itself, the account on the wire does not see.
    let wanted = if capsule { Vec::new() } else { wanted(rng) };
    (spec, NodeClient { watch: Watch::new(name, &user.id, &wanted, stage.clone()) })
}

/// What a client subscribes to by name.
fn wanted(rng: &mut StdRng) -> Vec<String> {
    PUBLIC.iter().filter(|_| rng.random_bool(0.4)).map(|feed| (*feed).to_owned()).collect()
}
