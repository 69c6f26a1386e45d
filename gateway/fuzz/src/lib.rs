//! What must hold for the gateway's decoders, whatever a client sends.
//!
//! They are built here by themselves, so that a fuzz target is there in seconds.

use std::alloc::System;

use cap::Cap;

#[path = "../../src/socket"]
pub mod socket {
    //! The decoders.

    pub mod mojibake;

    #[path = "engine"]
    pub mod engine {
        //! Those of our own engine.

        pub mod eio;
        pub mod eio3;
        pub mod eio4;
        pub mod packet;
        pub mod wire;
    }
}

pub mod eio3_payload;
pub mod eio4_payload;
pub mod socketio_packet;
pub mod websocket_frames;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What any decoder may allocate besides what its input has, in bytes.
const SLACK: usize = 4_096;

/// Runs a decoder, which may have allocated at most so many bytes at any time: more ends the
/// process.
fn within<T>(bytes: usize, decode: impl FnOnce() -> T) -> T {
    let before = MEMORY.allocated();
    MEMORY.set_limit(before + bytes + SLACK).expect("there is room for what is there");
    let decoded = decode();
    MEMORY.set_limit(usize::MAX).expect("there is no limit again");
    decoded
}

/// Checks what an error says of itself.
#[track_caller]
fn check_error(label: &str, error: &dyn std::error::Error) {
    let is_snake = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    assert!(is_snake && !label.is_empty(), "{label}");
    assert!(!error.to_string().is_empty());
}
