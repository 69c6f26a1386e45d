//! Finds each feed's Redis by consistent hashing and speaks the Thoonk contract there.
//!
//! A *feed* lives whole on one *shard*. [`ring`] says which, [`topology`] lists the
//! shards, [`router`] is the front door: feed → shard → verb. A [`shard`] is a Redis
//! or, for a first run and for tests, a keyspace in this process; both run the very
//! same Lua scripts, so that both keep the same promises.

pub mod feed;
pub mod ring;
pub mod router;
pub mod shard;
pub mod topology;
pub mod worker;
