//! Engine.io 3: what the clients of socket.io 1.x and 2.x send.
//!
//! Text that 1.x encoded twice is undone here, packet by packet, except in binary framing, where
//! no client does so.

use std::borrow::Cow;

use super::eio::{BadPayload, Bounds, Packet};
use crate::socket::mojibake;

/// How many digits a length may have.
const DIGITS: usize = 10;

/// Stands behind the length in binary framing.
const END_OF_LENGTH: u8 = 0xff;

/// The type of a packet with data of the layer above, as a byte.
const MESSAGE: u8 = 4;

/// Reads a text frame of a websocket.
///
/// # Errors
///
/// Returns [`BadPayload::Empty`] or [`BadPayload::Type`].
pub fn text_frame(text: &str) -> Result<Packet<'_>, BadPayload> {
    Packet::of_text(mojibake::undo(text).map_or(Cow::Borrowed(text), Cow::Owned))
}

/// Reads a binary frame of a websocket and returns its data, which stands behind the type.
///
/// # Errors
///
/// Returns [`BadPayload::Empty`], and [`BadPayload::Type`] for any type but that of a message.
pub fn binary_frame(frame: &[u8]) -> Result<&[u8], BadPayload> {
    match frame.split_first() {
        None => Err(BadPayload::Empty),
        Some((&MESSAGE, data)) => Ok(data),
        Some(_) => Err(BadPayload::Type),
    }
}

/// Reads the packets of a request whose content type is that of binary data, or not.
///
/// # Errors
///
/// Returns what is wrong with the first packet that is wrong; nothing of the request is to be
/// used then.
pub fn decode(body: &[u8], is_binary: bool, bounds: Bounds) -> Result<Vec<Packet<'_>>, BadPayload> {
    if is_binary { decode_binary(body, bounds) } else { decode_text(body, bounds) }
}

/// Reads packets that stand behind their lengths in UTF-16 units.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_text(body: &[u8], bounds: Bounds) -> Result<Vec<Packet<'_>>, BadPayload> {
    let mut rest = std::str::from_utf8(body).map_err(|_| BadPayload::Utf8)?;
    let mut packets = Vec::new();
    while packets.is_empty() || !rest.is_empty() {
        let (units, behind) = rest.split_once(':').ok_or(BadPayload::Length)?;
        let units = length(units.bytes().map(|digit| digit.wrapping_sub(b'0')))?;
        let packet;
        (packet, rest) = split_at_unit(behind, units).ok_or(BadPayload::Length)?;
        bounds.push(&mut packets, packet.len(), || match packet.strip_prefix('b') {
            Some(base64) => Packet::of_base64(base64.strip_prefix('4').ok_or(BadPayload::Type)?),
            None => text_frame(packet),
        })?;
    }
    Ok(packets)
}

/// Reads packets that stand behind their kinds and their lengths in bytes.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_binary(body: &[u8], bounds: Bounds) -> Result<Vec<Packet<'_>>, BadPayload> {
    let mut rest = body;
    let mut packets = Vec::new();
    while packets.is_empty() || !rest.is_empty() {
        let (kind, behind) = rest.split_first().ok_or(BadPayload::Empty)?;
        let end = behind.iter().take(DIGITS + 1).position(|byte| *byte == END_OF_LENGTH);
        let (digits, behind) = behind.split_at(end.ok_or(BadPayload::Length)?);
        let bytes = length(digits.iter().copied())?;
        let packet;
        (packet, rest) = behind[1..].split_at_checked(bytes).ok_or(BadPayload::Length)?;
        bounds.push(&mut packets, bytes, || match kind {
            0 => {
                let text = std::str::from_utf8(packet).map_err(|_| BadPayload::Utf8)?;
                Packet::of_text(Cow::Borrowed(text))
            }
            1 => Ok(Packet::Binary(Cow::Borrowed(binary_frame(packet)?))),
            _ => Err(BadPayload::Type),
        })?;
    }
    Ok(packets)
}

/// Reads a number from its digits.
fn length(digits: impl ExactSizeIterator<Item = u8>) -> Result<usize, BadPayload> {
    if digits.len() == 0 || digits.len() > DIGITS {
        return Err(BadPayload::Length);
    }
    let number = digits
        .into_iter()
        .try_fold(0_u64, |number, digit| (digit < 10).then(|| number * 10 + u64::from(digit)));
    number.and_then(|number| usize::try_from(number).ok()).ok_or(BadPayload::Length)
}

/// Splits a text behind so many UTF-16 units.
fn split_at_unit(text: &str, units: usize) -> Option<(&str, &str)> {
    let mut left = units;
    let mut chars = text.chars();
    while left > 0 {
        left = left.checked_sub(chars.next()?.len_utf16())?;
    }
    text.split_at_checked(text.len() - chars.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::engine::eio::{Form, Writer};

    const BOUNDS: Bounds = Bounds { packets: 4, packet_bytes: 30 };

    type Expected<'a> = Result<&'a [Packet<'a>], BadPayload>;

    #[track_caller]
    fn text(body: &[u8], expected: Expected<'_>) {
        assert_eq!(decode(body, false, BOUNDS).as_deref().map_err(|error| *error), expected);
    }

    #[track_caller]
    fn binary(body: &[u8], expected: Expected<'_>) {
        assert_eq!(decode(body, true, BOUNDS).as_deref().map_err(|error| *error), expected);
    }

    fn message(text: &str) -> Packet<'_> {
        Packet::Message(text.into())
    }

    fn data(data: &[u8]) -> Packet<'_> {
        Packet::Binary(data.into())
    }

    #[test]
    fn text_is_counted_in_utf16_units() {
        text(
            b"2:4021:42[\"welcome\",{\"a\":1}]",
            Ok(&[message("0"), message("2[\"welcome\",{\"a\":1}]")]),
        );
        text("4:4é🚀1:2".as_bytes(), Ok(&[message("é🚀"), Packet::Ping("".into())]));
        text(b"6:b4AQID", Ok(&[data(&[1, 2, 3])]));
        text(b"8:b4AQIDBA2:b4", Ok(&[data(&[1, 2, 3, 4]), data(&[])]));
        text(b"6:2probe1:5", Ok(&[Packet::Ping("probe".into()), Packet::Upgrade]));
    }

    #[test]
    fn text_that_1x_encoded_twice_is_counted_as_it_came_and_undone() {
        text("8:42[\"Ã©\"]1:1".as_bytes(), Ok(&[message("2[\"é\"]"), Packet::Close]));
        text("5:4\u{f0}\u{9f}\u{9a}\u{80}".as_bytes(), Ok(&[message("🚀")]));
        text("2:4é".as_bytes(), Ok(&[message("é")]));
        assert_eq!(text_frame("4Ã©"), Ok(message("é")));
        assert_eq!(text_frame("4é"), Ok(message("é")));
        // In binary framing text is plain: this one means what it says.
        binary(b"\x00\x05\xff4\xc3\x83\xc2\xa9", Ok(&[message("Ã©")]));
    }

    #[test]
    fn binary_framing_is_counted_in_bytes() {
        binary(b"\x00\x04\xff4\xe2\x82\xac", Ok(&[message("€")]));
        binary(b"\x01\x05\xff\x04\x01\x02\x03\x04", Ok(&[data(&[1, 2, 3, 4])]));
        binary(
            b"\x00\x02\xff40\x01\x01\xff\x04\x00\x01\xff1",
            Ok(&[message("0"), data(&[]), Packet::Close]),
        );
    }

    #[test]
    fn each_mistake_in_text_has_its_error() {
        for body in [
            "",
            "4",
            ":4",
            "x:4",
            "2:4",
            "-1:4",
            "+1:4",
            "1 :4",
            "1:4x",
            "00000000001:4",
            "1:41",
            "2:4🚀",
            "99999999999:4",
        ] {
            text(body.as_bytes(), Err(BadPayload::Length));
        }
        text(b"0:", Err(BadPayload::Empty));
        text(b"1:7", Err(BadPayload::Type));
        text(b"1:b", Err(BadPayload::Type));
        text(b"6:b2AQID", Err(BadPayload::Type));
        text(b"3:b4#", Err(BadPayload::Base64));
        text(b"2:4\xff", Err(BadPayload::Utf8));
        text(b"1:21:21:21:21:2", Err(BadPayload::TooMany));
        text(b"31:4xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", Err(BadPayload::TooLarge));
    }

    #[test]
    fn each_mistake_in_binary_framing_has_its_error() {
        binary(b"", Err(BadPayload::Empty));
        for body in [
            &b"\x00"[..],
            b"\x00\x01",
            b"\x00\xff4",
            b"\x00\x02\xff4",
            b"\x00\x0a\xff4",
            b"\x001\xff4",
            b"\x00\0\0\0\0\0\0\0\0\0\0\x01\xff4",
            b"\x00\x01\xff4\x00",
            b"\x00\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff4",
        ] {
            binary(body, Err(BadPayload::Length));
        }
        binary(b"\x00\x00\xff", Err(BadPayload::Empty));
        binary(b"\x01\x00\xff", Err(BadPayload::Empty));
        binary(b"\x01\x01\xff4", Err(BadPayload::Type));
        binary(b"\x02\x01\xff4", Err(BadPayload::Type));
        binary(b"\x00\x01\xff\x04", Err(BadPayload::Type));
        binary(b"\x00\x02\xff4\xff", Err(BadPayload::Utf8));
        binary(&b"\x00\x01\xff2".repeat(5), Err(BadPayload::TooMany));
        binary(&[&b"\x01\x03\x01\xff\x04"[..], &[0; 30]].concat(), Err(BadPayload::TooLarge));
    }

    #[test]
    fn binary_frames_begin_with_their_type() {
        assert_eq!(binary_frame(&[4, 1, 2, 3]), Ok(&[1, 2, 3][..]));
        assert_eq!(binary_frame(&[]), Err(BadPayload::Empty));
        assert_eq!(binary_frame(&[2, 1]), Err(BadPayload::Type));
    }

    #[test]
    fn what_is_written_is_read() {
        for (form, is_binary) in [(Form::Eio3Text, false), (Form::Eio3Binary, true)] {
            let mut writer = Writer::new(form);
            writer.text(&[b"4", "2[\"€🚀\"]".as_bytes()]);
            writer.binary(&[0, 255, 4]);
            let (body, _) = writer.finish();
            let expected = [message("2[\"€🚀\"]"), data(&[0, 255, 4])];
            assert_eq!(decode(&body, is_binary, BOUNDS).as_deref(), Ok(&expected[..]));
        }
    }
}
