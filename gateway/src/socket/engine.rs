//! Our own engine: socket.io 1.x to 4.x over engine.io 3 and 4.

pub mod upper;
