//! `[jobs]`: which calls become jobs.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    time::Duration,
};

use super::{
    Edits, Job, Schema,
    layers::join,
    read::{Entry, Reading, Section},
};
use crate::{
    protocol,
    tree::{Allow, Tree},
};

/// As long as a person waits for a button.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Some minutes' work; who calls then is told to come back.
const MAX_QUEUED: u32 = 10_000;
/// One queue, and so one order, until one worker's Redis is too slow for it.
const PARTITIONS: NonZeroU32 = NonZeroU32::MIN;
/// Each partition is a queue to be listened to by every gateway.
const MAX_PARTITIONS: u32 = 1_024;

/// The events that no client raises and that some generation's library still does not pass on.
const KEPT_BY_LIBRARIES: [&str; 3] = ["connect_failed", "connection", "message"];

pub(super) fn read(section: Section<'_>) -> BTreeMap<String, Job> {
    let jobs = section.take_all().into_iter().filter_map(|(name, entry)| {
        check_name(name, &entry);
        Some((name.to_owned(), job(name, entry.section()?)))
    });
    jobs.collect()
}

fn check_name(name: &str, entry: &Entry<'_>) {
    let is_fine = (1..=64).contains(&name.len()) && !name.contains(char::is_control);
    if !is_fine {
        entry.mistake("is no name of an event: 1 to 64 bytes without control characters");
    }
    if protocol::RESERVED.contains(&name) {
        entry.mistake(format!("cannot be a job; `{name}` is an event of the gateway's own"));
    }
    if protocol::RAISED_BY_CLIENTS.contains(&name) || KEPT_BY_LIBRARIES.contains(&name) {
        entry.mistake(format!("cannot be a job; socket.io keeps `{name}` for itself"));
    }
}

fn job(name: &str, mut section: Section<'_>) -> Job {
    let queue = section.take("queue").and_then(|entry| entry.name());
    let schema = section.take("schema").and_then(|entry| schema(&entry));
    let timeout = section.take("timeout").and_then(|entry| entry.time());
    let max_queued = section.take("max_queued").and_then(|entry| entry.number(1..=u32::MAX));
    let partitions = section.take("partitions").and_then(|entry| partitions(&entry));
    section.finish();
    Job {
        queue: queue.unwrap_or_else(|| name.to_owned()),
        schema,
        timeout: timeout.unwrap_or(TIMEOUT),
        max_queued: max_queued.unwrap_or(MAX_QUEUED).try_into().unwrap_or(usize::MAX),
        partitions: partitions.unwrap_or(PARTITIONS),
    }
}

pub(super) fn partitions(entry: &Entry<'_>) -> Option<NonZeroU32> {
    entry.number(1..=MAX_PARTITIONS).and_then(NonZeroU32::new)
}

fn schema(entry: &Entry<'_>) -> Option<Schema> {
    if entry.is_section() {
        return compiled(entry, "is", &entry.json());
    }
    let path = entry.file()?;
    let name = path.display();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            entry.mistake(format!("is {name}, which cannot be read: {error}"));
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(schema) => compiled(entry, &format!("is {name}, which is"), &schema),
        Err(error) => {
            entry.mistake(format!("is {name}, which is not JSON: {error}"));
            None
        }
    }
}

fn compiled(entry: &Entry<'_>, what: &str, schema: &serde_json::Value) -> Option<Schema> {
    let compiled = Schema::compile(schema);
    compiled.map_err(|error| entry.mistake(format!("{what} no JSON Schema: {error}"))).ok()
}

/// Notes queues that are something else as well.
///
/// A job put into the built-in worker's queue would be an edit that nobody checked, and a
/// client that may see a queue as a feed would see other people's jobs.
pub(super) fn check_queues(
    reading: &Reading<'_>,
    jobs: &BTreeMap<String, Job>,
    edits: &Edits,
    tree: &Tree,
    allow: &Allow,
) {
    let mut users: HashMap<String, String> = HashMap::new();
    let all = edits.queues().into_iter().map(|queue| (queue, "edits".to_owned()));
    let all: Vec<_> = all
        .chain(jobs.iter().flat_map(|(name, job)| {
            job.queues().into_iter().map(|queue| (queue, join("jobs", name)))
        }))
        .collect();
    for (queue, section) in all {
        let path = format!("{section}.queue");
        let is_in_tree = tree.place(&queue).is_some() || tree.attrs_feeds().any(|it| it == queue);
        let is_allowed = allow.0.iter().any(|template| template.parse(&queue).is_some());
        if is_in_tree || is_allowed {
            let place = if is_in_tree { "the tree" } else { "`subscribe.allow`" };
            reading
                .mistake(&path, format!("makes the queue `{queue}`, which {place} names a feed"));
        }
        if let Some(other) = users.insert(queue.clone(), section.clone())
            && other != section
        {
            reading.mistake(&path, format!("makes the queue `{queue}`, which is of `{other}`"));
        }
    }
}
