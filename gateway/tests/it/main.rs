//! Behaviour, tested through the doors that clients use.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod admission;
mod behaviour;
mod bundles;
mod clients;
mod collapse;
mod engine;
mod layering;
mod real;
mod serving;
mod sessions;
mod slow;
mod stage;
mod stories;
mod wire;
