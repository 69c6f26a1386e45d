//! Behaviour against a real `redis-server`, which must be installed.

mod redis;
mod server;
