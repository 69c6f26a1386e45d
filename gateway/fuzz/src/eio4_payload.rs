//! Polling payloads of engine.io 4.

use crate::{
    check_error, eio3_payload,
    socket::engine::{
        eio::{Bounds, Form, Packet},
        eio4,
    },
    within,
};

const BOUNDS: Bounds = Bounds { packets: 64, packet_bytes: 2_048 };

/// Checks one input.
pub fn check(input: &[u8]) {
    let memory = 4 * input.len() + 3 * BOUNDS.packets * size_of::<Packet<'_>>();
    match within(memory, || eio4::decode(input, BOUNDS)) {
        Ok(packets) => {
            assert!((1..=BOUNDS.packets).contains(&packets.len()));
            let body = eio3_payload::write(&packets, Form::Eio4);
            let bounds = Bounds { packet_bytes: usize::MAX, ..BOUNDS };
            assert_eq!(eio4::decode(&body, bounds).as_deref(), Ok(&packets[..]));
            // Engine.io 3 carries the same.
            eio3_payload::check_packets(&packets, input.len());
        }
        Err(error) => check_error(error.label(), &error),
    }
}
