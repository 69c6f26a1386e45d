//! Polling payloads of engine.io 3, and frames of its websockets.

use crate::{
    check_error,
    socket::{
        engine::{
            eio::{BadPayload, Bounds, Form, Packet, Writer},
            eio3,
        },
        mojibake,
    },
    within,
};

const BOUNDS: Bounds = Bounds { packets: 64, packet_bytes: 2_048 };

/// Checks one input as text, as binary framing, and as a frame.
pub fn check(input: &[u8]) {
    for is_binary in [false, true] {
        let memory = 4 * input.len() + 3 * BOUNDS.packets * size_of::<Packet<'_>>();
        match within(memory, || eio3::decode(input, is_binary, BOUNDS)) {
            Ok(packets) => check_packets(&packets, input.len()),
            Err(error) => check_error(error.label(), &error),
        }
    }
    if let Ok(data) = eio3::binary_frame(input) {
        assert_eq!(data, &input[1..]);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let packet = eio3::text_frame(text);
        assert_eq!(packet == Err(BadPayload::Empty), text.is_empty());
    }
}

/// Checks that packets are bounded, and are the same when they are written and read again.
pub(crate) fn check_packets(packets: &[Packet<'_>], input: usize) {
    assert!((1..=BOUNDS.packets).contains(&packets.len()));
    assert!(packets.iter().map(bytes).sum::<usize>() <= input);
    for form in [Form::Eio3Text, Form::Eio3Binary] {
        // What looks as if it had been encoded twice is undone once more.
        let is_undone = packets.iter().any(|packet| mojibake::undo(&text(packet)).is_some());
        if form == Form::Eio3Text && is_undone {
            continue;
        }
        let body = write(packets, form);
        let bounds = Bounds { packet_bytes: usize::MAX, ..BOUNDS };
        let again = eio3::decode(&body, form == Form::Eio3Binary, bounds);
        assert_eq!(again.as_deref(), Ok(packets));
    }
}

/// Writes packets as an answer.
pub(crate) fn write(packets: &[Packet<'_>], form: Form) -> Vec<u8> {
    let mut writer = Writer::new(form);
    for packet in packets {
        match packet {
            Packet::Binary(data) => writer.binary(data),
            packet => {
                let text = text(packet);
                let (kind, rest) = text.split_at(1);
                writer.text(&[kind.as_bytes(), rest.as_bytes()]);
            }
        }
    }
    assert!(!writer.is_empty());
    let length = writer.len();
    let (body, content_type) = writer.finish();
    assert_eq!((body.len(), content_type), (length, form.content_type()));
    body
}

fn text(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Open(text) => format!("0{text}"),
        Packet::Close => "1".to_owned(),
        Packet::Ping(text) => format!("2{text}"),
        Packet::Pong(text) => format!("3{text}"),
        Packet::Message(text) => format!("4{text}"),
        Packet::Binary(_) => String::new(),
        Packet::Upgrade => "5".to_owned(),
        Packet::Noop => "6".to_owned(),
    }
}

fn bytes(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::Binary(data) => data.len(),
        packet => text(packet).len(),
    }
}
