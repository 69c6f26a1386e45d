//! Behaviour, tested through the doors that clients use.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod engine;
mod real;
mod sessions;
mod stage;
