//! What mirrors cost: bytes of memory for each item, and time for each event.
//!
//! `cargo bench --bench mirror` prints both, for plain and sorted feeds of 20 items of 100
//! bytes. Memory is what the process grew by; time is the process's own CPU.

use std::time::Duration;

use bytes::Bytes;
use gateway::mirror::{Applied, Mirror, Notice, Version};
use shard_router::feed::{Content, Kind, Position};

const FEEDS: usize = 20_000;
const ITEMS: usize = 20;
const ITEM_BYTES: usize = 100;
const EVENTS: usize = 2_000_000;

fn main() {
    // Each kind in a process of its own, as what one leaves in memory serves the next.
    match std::env::args().last().as_deref() {
        Some("plain") => measure(Kind::Plain),
        Some("sorted") => measure(Kind::Sorted),
        _ => {
            for kind in ["plain", "sorted"] {
                let this = std::env::current_exe().expect("this program has a path");
                let ended = std::process::Command::new(this).arg(kind).status();
                assert!(ended.expect("this program can be started").success());
            }
        }
    }
}

fn measure(kind: Kind) {
    let before = resident();
    let (mut mirrors, took) =
        timed(|| (0..FEEDS).map(|feed| Mirror::new(&content(kind, feed))).collect::<Vec<_>>());
    let items = FEEDS * ITEMS;
    let grown = resident().saturating_sub(before);
    let counted: usize = mirrors.iter().map(Mirror::bytes).sum();
    println!("{kind:?} feeds of {ITEMS} items of {ITEM_BYTES} bytes");
    println!(
        "  memory    {} bytes an item beside its own {ITEM_BYTES}; {} counted in mirror.max_bytes",
        (grown / items).saturating_sub(ITEM_BYTES),
        counted / items - ITEM_BYTES
    );
    println!("  filling   {} ns an item", nanos(took, items));

    let notices: Vec<Notice> = (0..EVENTS).map(|number| edit(number)).collect();
    let mut told = 0;
    let ((), took) = timed(|| {
        for (number, notice) in notices.iter().enumerate() {
            let applied = mirrors[number % FEEDS].apply(notice);
            told += usize::from(matches!(applied, Applied::Event(_)));
        }
    });
    assert_eq!(told, EVENTS, "every notice is an event");
    println!(
        "  change    {} ns an event, its version and its place in the history with it",
        nanos(took, EVENTS)
    );
    let grown = resident().saturating_sub(before);
    println!(
        "  history   {} bytes an item after {} events of each feed",
        (grown / items).saturating_sub(ITEM_BYTES),
        EVENTS / FEEDS
    );

    if kind == Kind::Sorted {
        let ((), took) = timed(|| {
            for number in 0..EVENTS {
                let id = (number / FEEDS % ITEMS).to_string();
                let position = if number % 2 == 0 { Position::Begin } else { Position::End };
                std::hint::black_box(
                    mirrors[number % FEEDS].apply(&Notice::Position { id, position }),
                );
            }
        });
        println!("  position  {} ns an event", nanos(took, EVENTS));
    }
    let item = Bytes::from(vec![b'x'; ITEM_BYTES]);
    let (v, took) = timed(|| {
        let mut v = Version::EMPTY;
        for number in 0..EVENTS as u32 {
            v.add(Version::of_item("", &number.to_string(), &item));
        }
        v
    });
    std::hint::black_box(v);
    println!("  of that   {} ns are the hash of one item", nanos(took, EVENTS));
}

fn content(kind: Kind, feed: usize) -> Content {
    let entries = (0..ITEMS).map(|id| {
        let mut item = format!(r#"{{"feed":{feed},"item":{id},"pad":""#);
        item.push_str(&"x".repeat(ITEM_BYTES - 2 - item.len()));
        (id.to_string(), Bytes::from(item + r#""}"#))
    });
    Content { kind, entries: entries.collect(), bad_ids: 0 }
}

/// Writes one item of one feed; no two items are alike.
fn edit(number: usize) -> Notice {
    let mut item = format!(r#"{{"edit":{number},"pad":""#);
    item.push_str(&"x".repeat(ITEM_BYTES - 2 - item.len()));
    Notice::Edit { id: (number / FEEDS % ITEMS).to_string(), item: Bytes::from(item + r#""}"#) }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = cpu();
    let done = work();
    (done, cpu() - began)
}

fn nanos(took: Duration, count: usize) -> u128 {
    took.as_nanos() / count as u128
}

/// The CPU time of this process, in the kernel's ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let fields: Vec<&str> =
        stat[stat.rfind(')').expect("a name in brackets") + 2..].split(' ').collect();
    let ticks: u64 =
        [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number")).iter().sum();
    Duration::from_millis(ticks * 10)
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") * 1024
}
