//! A socket.io gateway for live feeds on sharded Redis.

pub mod mirror;
