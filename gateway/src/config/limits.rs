//! `[limits]`: what one client, and all of them, may ask for.

use std::{ops::RangeInclusive, time::Duration};

use super::{Limits, read::Section};

/// None: what a gateway holds depends on its machine.
const MAX_CONNECTIONS: u32 = 0;
/// More than join in the time of a slow round trip, and what that many take is little.
const MAX_PENDING: u32 = 10_000;
/// None: a screen on a wall and a load test are one user with many connections.
const MAX_CONNECTIONS_PER_USER: u32 = 0;
/// None: an office or a mobile carrier shows one address for thousands of people.
const MAX_CONNECTIONS_PER_IP: u32 = 0;
/// None: how many a machine takes in without falling behind is to be measured there.
const HANDSHAKES_PER_SECOND: u32 = 0;
/// None: open calls are bounded in any case, and a page that starts may ask much at once.
const MESSAGES_PER_SECOND: u32 = 0;
/// A page shows a few feeds beside its tree.
const MAX_SUBSCRIPTIONS: u32 = 100;
/// Some thousand events: a client that is further behind is served better by resuming.
const OUTBOX_BYTES: usize = 1 << 20;
/// A phone that changes its network is back or gone by then.
const STALL: Duration = Duration::from_secs(10);
/// A slow phone's handshake takes a few seconds; clients give up at 20 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A client sends calls, not files.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Half of an outbox, so that an event of any item finds room.
const MAX_ITEM_BYTES: usize = 512 << 10;

/// From one small event to what no machine has for each of its clients.
const OUTBOX_SIZES: RangeInclusive<usize> = 1 << 10..=1 << 30;
/// From a call of a few words to what is a file after all; the engine takes four in a request.
const MESSAGE_SIZES: RangeInclusive<usize> = 1 << 7..=64 << 20;

pub(super) fn read(mut section: Section<'_>) -> Limits {
    let mut count = |key: &'static str, default: u32| {
        let number = section.take(key).and_then(|entry| entry.number(0..=u32::MAX));
        // Zero is written for "no limit".
        Some(number.unwrap_or(default)).filter(|number| *number > 0)
    };
    let max_connections = count("max_connections", MAX_CONNECTIONS);
    let max_pending = count("max_pending", MAX_PENDING);
    let per_user = count("max_connections_per_user", MAX_CONNECTIONS_PER_USER);
    let per_ip = count("max_connections_per_ip", MAX_CONNECTIONS_PER_IP);
    let handshakes_per_second = count("handshakes_per_second", HANDSHAKES_PER_SECOND);
    let messages_per_second = count("messages_per_second", MESSAGES_PER_SECOND);
    let max_subscriptions = count("max_subscriptions", MAX_SUBSCRIPTIONS);
    let outbox_bytes = section.take("outbox_bytes").and_then(|entry| entry.size(OUTBOX_SIZES));
    let outbox_bytes = outbox_bytes.unwrap_or(OUTBOX_BYTES);
    let stall = section.take("stall").and_then(|entry| entry.time());
    let connect_timeout = section.take("connect_timeout").and_then(|entry| entry.time());
    let message = section.take("max_message_bytes").and_then(|entry| entry.size(MESSAGE_SIZES));
    let item = section.take("max_item_bytes").and_then(|entry| {
        let bytes = entry.size(1..=usize::MAX)?;
        if bytes > outbox_bytes / 2 {
            let half = outbox_bytes / 2;
            entry.mistake(format!("is at most half of `limits.outbox_bytes`, {half}, not {bytes}"));
        }
        Some(bytes)
    });
    section.finish();
    let as_size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Limits {
        max_connections: max_connections.map(as_size),
        max_pending: max_pending.map(as_size),
        max_connections_per_user: per_user.map(as_size),
        max_connections_per_ip: per_ip.map(as_size),
        handshakes_per_second,
        messages_per_second,
        max_subscriptions: max_subscriptions.map(as_size),
        outbox_bytes,
        stall: stall.unwrap_or(STALL),
        connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        max_message_bytes: message.unwrap_or(MAX_MESSAGE_BYTES),
        max_item_bytes: item.unwrap_or(MAX_ITEM_BYTES.min(outbox_bytes / 2)),
    }
}
