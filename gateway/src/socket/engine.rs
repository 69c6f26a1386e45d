//! Our own engine: socket.io 1.x to 4.x over engine.io 3 and 4.

pub mod eio;
pub mod eio3;
pub mod eio4;
pub mod packet;
pub mod upper;
pub mod wire;
