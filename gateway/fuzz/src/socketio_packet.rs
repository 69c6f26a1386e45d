//! Packets of socket.io.

use serde_json::{Value, value::RawValue};

use crate::{
    check_error,
    socket::engine::packet::{self, ATTACHMENTS, Kind, Packet},
    within,
};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let packet = match within(4 * text.len(), || packet::parse(text)) {
        Ok(packet) => packet,
        Err(error) => return check_error(error.label(), &error),
    };
    check_packet(&packet);
    let split = within(4 * text.len(), || packet::event(packet.data));
    match (packet.kind, split) {
        (Kind::Event | Kind::BinaryEvent, Ok((name, args))) => check_event(&name, &args),
        // The name may be half a surrogate pair; that it is there is known.
        (_, Err(error)) => check_error(error.label(), &error),
        (Kind::Ack | Kind::BinaryAck | Kind::Error, Ok(_)) => {}
        (kind, Ok(_)) => panic!("{kind:?} has no event"),
    }
}

/// Checks that a packet is bounded, and is the same when it is written and read again.
fn check_packet(packet: &Packet<'_>) {
    let Packet { kind, attachments, namespace, query, id, data } = *packet;
    assert!(attachments <= if kind.is_binary() { ATTACHMENTS } else { 0 });
    assert!(namespace.starts_with('/') && namespace.len() <= 1_024);
    assert!(id.is_none_or(|id| id < 1 << 53));
    if !data.is_empty() {
        assert!(serde_json::from_str::<&RawValue>(data).is_ok());
        // It can be taken apart without too deep a recursion, if all its numbers and texts can.
        let deep = serde_json::from_str::<Value>(data).map_err(|error| error.to_string());
        assert!(deep.is_ok() || deep.is_err_and(|error| !error.contains("recursion")));
    }
    let full = match query {
        Some(query) => format!("{namespace}?{query}"),
        None => namespace.to_owned(),
    };
    let head = packet::head(kind, attachments, &full, id);
    assert!(head.starts_with('4'));
    let again = head + data;
    assert_eq!(packet::parse(&again[1..]), Ok(*packet), "{again}");
}

fn check_event(name: &str, args: &str) {
    let inner = args.strip_prefix('[').expect("they are an array");
    let name = serde_json::to_string(name).expect("a text is JSON");
    let comma = if args == "[]" { "" } else { "," };
    let again = packet::event(&format!("[{name}{comma}{inner}"));
    let (again, rest) = again.expect("it was one before");
    assert_eq!((serde_json::to_string(&again).expect("a text is JSON"), &*rest), (name, args));
}
