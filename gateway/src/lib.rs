//! A socket.io gateway for live feeds on sharded Redis.
//!
//! One way in: `socket → session → {subscription, snapshot, rpc} → live → shard-router`.
//! One way out: a shard's notice reaches the feed's mirror, becomes an event, is encoded
//! once, and is dropped as shared bytes into the outbox of each client in the feed's rooms.

pub mod admin;
pub mod app;
pub mod auth;
pub mod config;
pub mod control;
pub mod demo;
pub mod drain;
pub mod hub;
pub mod identity;
pub mod limits;
pub mod live;
pub mod metrics;
pub mod mirror;
pub mod outbox;
pub mod protocol;
pub mod rpc;
pub mod serve;
pub mod session;
pub mod snapshot;
pub mod socket;
pub mod topology;
pub mod tree;
pub mod worker;
