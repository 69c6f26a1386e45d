//! A Redis shard over fred.
