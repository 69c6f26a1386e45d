//! Many socket.io clients at once, and an honest account of what they saw.
//!
//! `flags` say what is wanted, `runner` lets [`user`]s in, holds them and lets a `publisher`
//! speak to them; `summary` says what came of it.
//!
//! [`cluster`] starts and breaks real shards and gateways; [`light`] clients live through that,
//! each with a [`tree`], its copy of all that it may see. [`chaos`] breaks all of it at random and
//! compares what they hold with Redis.
//!
//! The rest is pure: `wire`, `stamp`, `receipts`, `sample`.

pub mod board;
pub mod chaos;
pub mod cluster;
pub mod cookies;
pub mod crowd;
pub mod document;
pub mod drops;
pub mod engines;
pub mod flags;
pub mod follower;
pub mod latency;
pub mod light;
pub mod progress;
pub mod publisher;
pub mod receipts;
pub mod runner;
pub mod sample;
pub mod stamp;
pub mod start;
pub mod storm;
pub mod summary;
pub mod tree;
pub mod user;
pub mod verdict;
pub mod wire;
pub mod world;
