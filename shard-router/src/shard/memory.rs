//! The in-process shard.
