//! The front door: feed → shard → verb.
