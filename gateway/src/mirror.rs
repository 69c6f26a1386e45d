//! A gateway's copy of one feed, which turns notices and reads into events.
//!
//! A notice is believed only where it fits exactly; where it does not, the mirror
//! stays as it is and says why, and its keeper reads the feed again. Every event
//! tells a change of the mirror and nothing else, so that a client that applies
//! events literally holds what the mirror holds.

pub use self::{
    notice::{BadNotice, Notice, Verb},
    version::{BadVersion, Version},
};

mod notice;
mod version;
