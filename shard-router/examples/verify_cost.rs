//! What verifying costs a Redis: fills a server of its own, verifies every feed, and says
//! how much of the server's processor that took.
//!
//! ```sh
//! cargo run --release -p shard-router --example verify_cost
//! cargo run --release -p shard-router --example verify_cost -- --sorted --feeds 100000
//! ```
//!
//! Needs a `redis-server` on the PATH.

use std::{error::Error, time::Instant};

use clap::Parser;
use shard_router::{
    router::Router,
    topology::{ShardSpec, Topology},
};

#[path = "../tests/it/server.rs"]
#[expect(dead_code, reason = "tests do more to a server than this")]
mod server;

use server::RedisServer;

/// How many feeds one command fills: it is a script, and a server is not to think it hangs.
const FILLED_AT_ONCE: usize = 1_000;

/// KEYS: none. ARGV: first and last number of a feed, items, bytes, `zset` or `list`.
const FILL: &str = "
    for feed = ARGV[1], ARGV[2] do
      local name = 'team.' .. feed .. '.members'
      for id = 1, ARGV[3] do
        if ARGV[5] == 'list' then
          redis.call('RPUSH', 'feed.ids:' .. name, id)
        else
          redis.call('ZADD', 'feed.ids:' .. name, '17000' .. feed .. '.' .. id, id)
        end
        local start = '{\"id\":\"' .. id .. '\",\"of\":' .. feed .. ',\"text\":\"'
        local item = start .. string.rep('x', ARGV[4] - #start - 2) .. '\"}'
        redis.call('HSET', 'feed.items:' .. name, id, item)
      end
      local kind = ARGV[5] == 'list' and 'sorted_feed' or 'feed'
      redis.call('HSET', 'feed.config:' .. name, 'type', kind)
    end";

#[derive(Debug, Parser)]
#[command(about = "Measures what verifying feeds costs a Redis")]
struct Flags {
    /// How many feeds there are.
    #[arg(long, default_value_t = 20_000)]
    feeds: usize,
    /// Items in each.
    #[arg(long, default_value_t = 20)]
    items: usize,
    /// Bytes of each item.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Feeds in one script.
    #[arg(long, default_value_t = 40)]
    batch: usize,
    /// Whether the feeds are sorted ones.
    #[arg(long)]
    sorted: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let server = RedisServer::start().await;
    fill(&server, &flags).await;

    let url = server.url().parse()?;
    let one = ShardSpec { name: "one".to_owned(), url, weight: 1 };
    let router = Router::open(Topology::new(1, vec![one])?);
    let names: Vec<String> = (0..flags.feeds).map(|feed| format!("team.{feed}.members")).collect();
    router.verify(0, &names[..1], "mark", "warm").await?;

    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "2000"]).await;
    server.cli(&["CONFIG", "SET", "slowlog-max-len", "1000000"]).await;
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    server.cli(&["SLOWLOG", "RESET"]).await;
    let (before, start) = (processor(&server).await, Instant::now());
    for batch in names.chunks(flags.batch) {
        for checked in router.verify(0, batch, "mark", "now").await? {
            checked?;
        }
    }
    let (used, took) = (processor(&server).await - before, start.elapsed());
    let slow = server.cli(&["SLOWLOG", "LEN"]).await;

    let batches = names.chunks(flags.batch).len();
    let script = number(&server, "commandstats", "usec=").await;
    let each = used * 1e6 / flags.feeds as f64;
    println!("{flags:?}, {took:.1?} in all");
    println!("processor of the server: {each:.1} µs a feed, everything counted");
    println!("100,000 such feeds a minute: {:.1} % of one core", each * 100_000.0 / 60e6 * 100.0);
    println!("one script: {:.2} ms on average", script / batches as f64 / 1e3);
    println!("scripts over 2 ms: {slow} of {batches}");
    Ok(())
}

async fn fill(server: &RedisServer, flags: &Flags) {
    let (items, bytes) = (flags.items.to_string(), flags.bytes.to_string());
    let kind = if flags.sorted { "list" } else { "zset" };
    for first in (0..flags.feeds).step_by(FILLED_AT_ONCE) {
        let last = (first + FILLED_AT_ONCE).min(flags.feeds) - 1;
        let (first, last) = (first.to_string(), last.to_string());
        server.cli(&["EVAL", FILL, "0", &first, &last, &items, &bytes, kind]).await;
    }
}

/// The seconds of processor that the server's main thread has used.
async fn processor(server: &RedisServer) -> f64 {
    number(server, "cpu", "used_cpu_user_main_thread:").await
        + number(server, "cpu", "used_cpu_sys_main_thread:").await
}

/// The number behind a word in what the server says of itself.
async fn number(server: &RedisServer, section: &str, word: &str) -> f64 {
    let info = server.cli(&["INFO", section]).await;
    let info = match section {
        "commandstats" => info.lines().find(|line| line.starts_with("cmdstat_evalsha:")),
        _ => Some(info.as_str()),
    };
    let (_, rest) = info.and_then(|info| info.split_once(word)).expect("the server says it");
    let digits = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().expect("it is a number")
}
