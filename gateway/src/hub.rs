//! Rooms per team, user and feed, and the fan-out of shared frames.

pub mod frame;
