//! Promises that are kept across the crate's parts; some need a `redis-server` on the PATH.

mod contract;
mod redis;
mod ring;
mod server;
mod shardctl;
mod topology;
