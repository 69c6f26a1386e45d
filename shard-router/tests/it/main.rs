//! Promises that are kept across the crate's parts.

mod ring;
mod shardctl;
