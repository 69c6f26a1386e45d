//! Engine.io 4: what the clients of socket.io 3.x and 4.x send.

use std::borrow::Cow;

use super::eio::{BadPayload, Bounds, Packet};

/// Stands between the packets of one request or answer.
pub const SEPARATOR: u8 = 0x1e;

/// Reads a text frame of a websocket.
///
/// # Errors
///
/// Returns [`BadPayload::Empty`] or [`BadPayload::Type`].
pub fn text_frame(text: &str) -> Result<Packet<'_>, BadPayload> {
    Packet::of_text(Cow::Borrowed(text))
}

/// Reads the packets of a request.
///
/// # Errors
///
/// Returns what is wrong with the first packet that is wrong; nothing of the request is to be
/// used then.
pub fn decode(body: &[u8], bounds: Bounds) -> Result<Vec<Packet<'_>>, BadPayload> {
    let text = std::str::from_utf8(body).map_err(|_| BadPayload::Utf8)?;
    let mut packets = Vec::new();
    for packet in text.split(char::from(SEPARATOR)) {
        bounds.push(&mut packets, packet.len(), || match packet.strip_prefix('b') {
            Some(base64) => Packet::of_base64(base64),
            None => text_frame(packet),
        })?;
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::engine::eio::{Form, Writer};

    const BOUNDS: Bounds = Bounds { packets: 4, packet_bytes: 20 };

    #[track_caller]
    fn check(body: &[u8], expected: Result<&[Packet<'_>], BadPayload>) {
        assert_eq!(decode(body, BOUNDS).as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn packets_are_read_between_separators() {
        let message = |text: &'static str| Packet::Message(text.into());
        check(
            b"40{\"sid\":\"x\"}\x1e42[\"x\"]",
            Ok(&[message("0{\"sid\":\"x\"}"), message("2[\"x\"]")]),
        );
        check(b"bAQID", Ok(&[Packet::Binary([1, 2, 3][..].into())]));
        check(
            b"bAQIDBA==\x1ebAQIDBA\x1eb",
            Ok(&[
                Packet::Binary([1, 2, 3, 4][..].into()),
                Packet::Binary([1, 2, 3, 4][..].into()),
                Packet::Binary([][..].into()),
            ]),
        );
        check(b"3\x1e1", Ok(&[Packet::Pong("".into()), Packet::Close]));
        check("42[\"é🚀\"]".as_bytes(), Ok(&[message("2[\"é🚀\"]")]));
        // What only 1.x does is left alone here.
        check("4Ã©".as_bytes(), Ok(&[message("Ã©")]));
    }

    #[test]
    fn each_mistake_has_its_error() {
        check(b"", Err(BadPayload::Empty));
        check(b"3\x1e", Err(BadPayload::Empty));
        check(b"\x1e3", Err(BadPayload::Empty));
        check(b"x", Err(BadPayload::Type));
        check(b"7", Err(BadPayload::Type));
        check(b"4\xff", Err(BadPayload::Utf8));
        check(b"b#", Err(BadPayload::Base64));
        check(b"bA", Err(BadPayload::Base64));
        check(b"3\x1e3\x1e3\x1e3\x1e3", Err(BadPayload::TooMany));
        check(b"4xxxxxxxxxxxxxxxxxxxx", Err(BadPayload::TooLarge));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(Form::Eio4);
        writer.text(&["42[\"é\"]".as_bytes()]);
        writer.binary(&[0, 255]);
        let (body, _) = writer.finish();
        let packets = [Packet::Message("2[\"é\"]".into()), Packet::Binary([0, 255][..].into())];
        check(&body, Ok(&packets));
    }
}
