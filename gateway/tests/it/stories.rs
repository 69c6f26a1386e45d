//! Stories: what a client of a gateway lives through, with shards in memory and no network.
//!
//! A client stands right behind the boundary at which engines hand connections over.

mod api;
mod calls;
mod client;
mod control;
mod edits;
mod events;
mod gateway;
mod idle;
mod initial;
mod jobs;
mod large;
mod model;
mod readiness;
mod repairs;
mod resume;
mod subscriptions;
mod teams;
mod topology;
mod tree;
mod trouble;
