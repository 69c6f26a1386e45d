//! A socket.io gateway for live feeds on sharded Redis.
//!
//! One way in: `socket → session → {subscription, snapshot, rpc} → live → shard-router`.
//! One way out: a shard's notice reaches the feed's mirror, becomes an event, is encoded
//! once, and is dropped as shared bytes into the outbox of each client in the feed's rooms.

pub mod auth;
pub mod hub;
pub mod identity;
pub mod metrics;
pub mod outbox;
pub mod socket;
