//! The options, section by section: their names, their defaults, and what they must be.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use shard_router::topology::{ShardNode, ShardUrl, Topology, UNVERSIONED};

use super::{
    Client, Config, DrainConfig, Edits, Emitter, Engine, MirrorConfig, Mistakes, RedisUrl, Server,
    jobs,
    layers::Layers,
    limits,
    read::{Entry, Reading, Section},
    session, tree, values,
};

/// Reads all sections.
pub(super) fn config(layers: &Layers, folder: &Path, embedded: bool) -> Result<Config, Mistakes> {
    let reading = Reading::new(layers, folder);
    let config = read(&reading, embedded);
    let warnings = reading.finish()?;
    Ok(Config { warnings, ..config })
}

pub(super) fn read(reading: &Reading<'_>, embedded: bool) -> Config {
    let mut root = reading.root();
    let server = server(root.section("server"));
    let admin = session::admin(reading, root.section("admin"), &server);
    let session = session::session(reading, root.section("session"), &server);
    let (shards, topology_file) = shards(reading, root.section("shards"));
    let (tree, subscribe) = tree::read(reading, root.section("tree"), root.section("subscribe"));
    let jobs = jobs::read(root.section("jobs"));
    let edits = edits(root.section("edits"));
    jobs::check_queues(reading, &jobs, &edits, &tree, &subscribe);
    let emitter = emitter(reading, root.section("emitter"));
    let mirror = mirror(root.section("mirror"));
    let drain = drain(reading, root.section("drain"));
    let limits = limits::read(root.section("limits"));
    root.finish();
    Config {
        server,
        admin,
        session,
        shards,
        topology_file,
        tree,
        jobs,
        subscribe,
        edits,
        emitter,
        mirror,
        drain,
        limits,
        embedded,
        warnings: Vec::new(),
    }
}

/// Only this machine, until somebody says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);
/// What everything is promised for.
const ENGINE: Engine = Engine::Pneumatic;
/// The node of a gateway that is alone.
const NODE: &str = "g1";

fn server(mut section: Section<'_>) -> Server {
    let listen = section.take("listen").and_then(|entry| address(&entry)).unwrap_or(LISTEN);
    let engine = section.take("engine").and_then(|entry| engine(&entry));
    let node = section.take("node").and_then(|entry| {
        entry.parsed("is 1 to 16 letters and digits", |text| {
            let is_tag = (1..=16).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_tag.then(|| text.to_owned())
        })
    });
    let origins = section.take("origins").and_then(|entry| {
        entry.list(|entry| {
            let right = "is an origin as browsers send it, such as `https://app.example.com`";
            entry.parsed(right, values::origin)
        })
    });
    let trusted_proxies = section.take("trusted_proxies").and_then(|entry| {
        entry.list(|entry| {
            let right = "is an address or a range of them, such as `10.0.0.0/8`";
            entry.parsed(right, |text| text.parse().ok())
        })
    });
    let require_origin = section.take("require_origin").and_then(|entry| entry.truth());
    let client = section.take("client").and_then(|entry| client(&entry));
    let ping_interval = section.take("ping_interval").and_then(|entry| entry.time());
    let ping_timeout = section.take("ping_timeout").and_then(|entry| entry.time());
    section.finish();
    Server {
        listen,
        engine: engine.unwrap_or(ENGINE),
        node: node.unwrap_or_else(|| NODE.to_owned()),
        // Other sites' pages may not use their visitors' sessions.
        origins: origins.unwrap_or_default(),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        // A program sends no Origin and has no visitor whose cookie it could misuse.
        require_origin: require_origin.unwrap_or(false),
        client: client.unwrap_or(Client::V4),
        ping_interval,
        ping_timeout,
    }
}

pub(super) fn address(entry: &Entry<'_>) -> Option<SocketAddr> {
    let right = "is an address with its port, such as `127.0.0.1:3000` or `[::]:3000`";
    entry.parsed(right, |text| text.parse().ok())
}

fn engine(entry: &Entry<'_>) -> Option<Engine> {
    entry.one_of(&[("pneumatic", Engine::Pneumatic), ("socketioxide", Engine::Socketioxide)])
}

fn client(entry: &Entry<'_>) -> Option<Client> {
    let client = entry.one_of(&[
        ("4", Some(Client::V4)),
        ("3", Some(Client::V3)),
        ("2", Some(Client::V2)),
        ("1", Some(Client::V1)),
        ("0.9", None),
    ])?;
    if client.is_none() {
        // As a page's default it would be a client that cannot connect.
        entry.mistake(
            "is `0.9`, which no engine of this version serves; its file alone is there, as \
             /socket.io/v0.9/socket.io.js",
        );
    }
    client
}

pub(super) fn redis_url(entry: &Entry<'_>) -> Option<RedisUrl> {
    let text = entry.secret_text()?;
    // The shards' own crate knows what can be reached; it repeats no password.
    match text.parse::<ShardUrl>() {
        Ok(ShardUrl::Redis(_)) => return Some(RedisUrl::new(text)),
        Ok(ShardUrl::Memory) => {
            entry.mistake("is the URL of a Redis, such as `redis://127.0.0.1:6379/0`");
        }
        Err(error) => {
            entry.mistake(format!(
                "is the URL of a Redis, such as `redis://127.0.0.1:6379/0`; this one {error}"
            ));
        }
    }
    None
}

fn shards(reading: &Reading<'_>, mut section: Section<'_>) -> (Topology, Option<PathBuf>) {
    let nodes = section.take("nodes");
    let topology = section.take("topology");
    let mut file = None;
    let shards = match (&nodes, &topology) {
        (Some(_), Some(topology)) => {
            topology.mistake("stands beside `nodes`; the shards are listed in one place");
            None
        }
        (None, Some(topology)) => topology_file(topology, &mut file),
        (Some(nodes), None) => shard_nodes(reading, nodes),
        (None, None) => {
            let message = "is missing; it lists the shards, unless `topology` names a file of them";
            section.mistake("nodes", message);
            None
        }
    };
    section.finish();
    // With a mistake there is no configuration, whatever stands here.
    (shards.unwrap_or_default(), file)
}

fn topology_file(entry: &Entry<'_>, file: &mut Option<PathBuf>) -> Option<Topology> {
    let path = entry.file()?;
    *file = Some(path.clone());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            entry.mistake(format!("is {}, which cannot be read: {error}", path.display()));
            return None;
        }
    };
    let read = Topology::from_toml(&text);
    for mistake in read.as_ref().err().into_iter().flatten() {
        entry.mistake(format!("is {}, where {mistake}", path.display()));
    }
    read.ok()
}

fn shard_nodes(reading: &Reading<'_>, entry: &Entry<'_>) -> Option<Topology> {
    let sections = entry.sections()?;
    let count = sections.len();
    let nodes = sections.into_iter().filter_map(|mut section| {
        let required = |section: &Section<'_>, key: &str, entry: &Option<Entry<'_>>| {
            if entry.is_none() {
                section.mistake(key, "is missing");
            }
        };
        let name = section.take("name");
        required(&section, "name", &name);
        let name = name.and_then(|entry| entry.text());
        let url = section.take("url");
        required(&section, "url", &url);
        let url = url.and_then(|entry| entry.secret_text());
        let weight = section.take("weight").map_or(Some(1), |entry| entry.number(1..=u32::MAX));
        section.finish();
        Some(ShardNode { name: name?.to_owned(), url: url?.to_owned(), weight: weight? })
    });
    let nodes: Vec<_> = nodes.collect();
    // With a node left out, the paths of the others would be wrong.
    if nodes.len() != count {
        return None;
    }
    let read = Topology::from_nodes(UNVERSIONED, &nodes);
    for mistake in read.as_ref().err().into_iter().flatten() {
        let mistake = mistake.clone().within("shards");
        reading.mistake(&mistake.path, mistake.message);
    }
    read.ok()
}

/// What the built-in worker's queues are called.
const EDITS_QUEUE: &str = "edits";
/// Edits of four feeds run at a time, and each feed's own keep their order.
const EDITS_PARTITIONS: NonZeroU32 = NonZeroU32::new(4).expect("four is not zero");
/// As long as a person waits for a button.
const EDITS_TIMEOUT: Duration = Duration::from_secs(10);

fn edits(mut section: Section<'_>) -> Edits {
    let queue = section.take("queue").and_then(|entry| entry.name());
    let partitions = section.take("partitions").and_then(|entry| jobs::partitions(&entry));
    let timeout = section.take("timeout").and_then(|entry| entry.time());
    section.finish();
    Edits {
        queue: queue.unwrap_or_else(|| EDITS_QUEUE.to_owned()),
        partitions: partitions.unwrap_or(EDITS_PARTITIONS),
        timeout: timeout.unwrap_or(EDITS_TIMEOUT),
    }
}

fn emitter(reading: &Reading<'_>, mut section: Section<'_>) -> Emitter {
    let url = section.take("url").and_then(|entry| redis_url(&entry));
    section.finish();
    if url.is_some() {
        reading.warn("emitter.url is set, and this version does not hear emitters yet");
    }
    Emitter { url }
}

/// A server's memory, less what clients and the system need.
const MIRROR_BYTES: usize = 1 << 30;
/// From a few boards to more memory than a server has.
const MIRROR_SIZES: RangeInclusive<usize> = 1 << 20..=1 << 40;
/// A feed that is larger is no state that a page would show.
const FEED_BYTES: usize = 16 << 20;
/// A page that is loaded again finds its feeds still there.
const LINGER: Duration = Duration::from_secs(60);
/// Writers' notices follow their writes within moments; a second forgives a slow one.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a notice that was never sent may go unseen.
const VERIFY_EVERY: Duration = Duration::from_secs(30);

fn mirror(mut section: Section<'_>) -> MirrorConfig {
    let max_bytes = section.take("max_bytes").and_then(|entry| entry.size(MIRROR_SIZES));
    let max_bytes = max_bytes.unwrap_or(MIRROR_BYTES);
    let max_feed_bytes = section.take("max_feed_bytes").and_then(|entry| {
        let bytes = entry.size(1 << 10..=usize::MAX)?;
        if bytes > max_bytes {
            entry.mistake(format!("is at most `mirror.max_bytes`, {max_bytes}, not {bytes}"));
        }
        Some(bytes)
    });
    let linger = section.take("linger").and_then(|entry| entry.time_or_none());
    let settle = section.take("settle").and_then(|entry| entry.time());
    let verify_every = section.take("verify_every").and_then(|entry| entry.time());
    section.finish();
    MirrorConfig {
        max_bytes,
        max_feed_bytes: max_feed_bytes.unwrap_or(FEED_BYTES.min(max_bytes)),
        linger: linger.unwrap_or(LINGER),
        settle: settle.unwrap_or(SETTLE),
        verify_every: verify_every.unwrap_or(VERIFY_EVERY),
    }
}

/// A balancer asks every second or two and wants to hear it twice.
const NOTICE: Duration = Duration::from_secs(5);
/// The other gateways take a whole gateway's clients at a bearable rate.
const SPREAD: Duration = Duration::from_secs(30);
/// What service managers grant is 90 s or can be set.
const DEADLINE: Duration = Duration::from_secs(60);

fn drain(reading: &Reading<'_>, mut section: Section<'_>) -> DrainConfig {
    let notice = section.take("notice").and_then(|entry| entry.time_or_none());
    let spread = section.take("spread").and_then(|entry| entry.time_or_none());
    let deadline = section.take("deadline").and_then(|entry| entry.time());
    section.finish();
    let drain = DrainConfig {
        notice: notice.unwrap_or(NOTICE),
        spread: spread.unwrap_or(SPREAD),
        deadline: deadline.unwrap_or(DEADLINE),
    };
    let needed = drain.notice.saturating_add(drain.spread);
    if needed > drain.deadline {
        let deadline = humantime::format_duration(drain.deadline);
        reading.warn(format!(
            "drain.deadline is {deadline}, before `notice` and `spread` are over ({}); \
             clients will be cut",
            humantime::format_duration(needed)
        ));
    }
    drain
}
