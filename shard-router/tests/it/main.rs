//! Promises that are kept across the crate's parts.

mod redis;
mod ring;
mod server;
mod shardctl;
