//! Promises that are kept across the crate's parts.

mod contract;
mod redis;
mod ring;
mod server;
mod shardctl;
