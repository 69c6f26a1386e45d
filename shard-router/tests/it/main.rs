//! Behaviour against a real `redis-server`, which must be installed.

mod contract;
mod redis;
mod server;
