//! Packets of engine.io, and how several of them stand in one answer to a poll.

use std::borrow::Cow;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};

/// Reads base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// One packet; its text is without the type in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Opens a session; only servers say so.
    Open(Cow<'a, str>),
    /// Ends the session.
    Close,
    /// Asks for a pong with the same text.
    Ping(Cow<'a, str>),
    /// Answers a ping.
    Pong(Cow<'a, str>),
    /// Carries text of the layer above.
    Message(Cow<'a, str>),
    /// Carries binary data of the layer above.
    Binary(Cow<'a, [u8]>),
    /// Ends polling: from now on the websocket is used.
    Upgrade,
    /// Says nothing.
    Noop,
}

impl<'a> Packet<'a> {
    /// Reads a packet that is text, its type first.
    ///
    /// # Errors
    ///
    /// Returns [`BadPayload::Empty`] or [`BadPayload::Type`].
    pub fn of_text(text: Cow<'a, str>) -> Result<Self, BadPayload> {
        let kind = *text.as_bytes().first().ok_or(BadPayload::Empty)?;
        match kind {
            b'0' => Ok(Self::Open(rest(text))),
            b'1' => Ok(Self::Close),
            b'2' => Ok(Self::Ping(rest(text))),
            b'3' => Ok(Self::Pong(rest(text))),
            b'4' => Ok(Self::Message(rest(text))),
            b'5' => Ok(Self::Upgrade),
            b'6' => Ok(Self::Noop),
            _ => Err(BadPayload::Type),
        }
    }

    /// Reads the data of a binary packet from base64.
    pub(super) fn of_base64(text: &str) -> Result<Self, BadPayload> {
        let data = LENIENT.decode(text).map_err(|_| BadPayload::Base64)?;
        Ok(Self::Binary(Cow::Owned(data)))
    }
}

/// What may come in one request; its bytes are bounded by whoever read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many packets.
    pub packets: usize,
    /// How many bytes one packet may have, its type and base64 included.
    pub packet_bytes: usize,
}

impl Bounds {
    /// Puts a packet that has so many bytes to the others.
    pub(super) fn push<'a>(
        self,
        packets: &mut Vec<Packet<'a>>,
        bytes: usize,
        packet: impl FnOnce() -> Result<Packet<'a>, BadPayload>,
    ) -> Result<(), BadPayload> {
        if packets.len() >= self.packets {
            return Err(BadPayload::TooMany);
        }
        if bytes > self.packet_bytes {
            return Err(BadPayload::TooLarge);
        }
        packets.push(packet()?);
        Ok(())
    }
}

/// What a client may not put into a request, or into a frame of a websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// A packet has not even a type.
    #[error("packet is empty")]
    Empty,
    /// Nobody knows this type of packet, or it may not stand here.
    #[error("packet has an unknown type")]
    Type,
    /// A length is no number, or does not end where the packet does.
    #[error("length of a packet is wrong")]
    Length,
    /// Text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// Binary data is not base64.
    #[error("binary data is not base64")]
    Base64,
    /// There are more packets than may come at once.
    #[error("too many packets at once")]
    TooMany,
    /// A packet has more bytes than it may have.
    #[error("packet is too large")]
    TooLarge,
}

impl BadPayload {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Type => "packet_type",
            Self::Length => "packet_length",
            Self::Utf8 => "utf8",
            Self::Base64 => "base64",
            Self::TooMany => "too_many",
            Self::TooLarge => "too_large",
        }
    }
}

/// How the packets of one answer stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Engine.io 4: with a separator between them.
    Eio4,
    /// Engine.io 3 for clients that say `b64`: each behind its length in UTF-16 units.
    Eio3Text,
    /// Engine.io 3 for all others: each behind its kind and its length in bytes.
    Eio3Binary,
}

impl Form {
    /// Returns the content type, which the oldest clients compare literally.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Eio4 | Self::Eio3Text => "text/plain; charset=UTF-8",
            Self::Eio3Binary => "application/octet-stream",
        }
    }
}

/// Writes the packets of one answer.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    body: Vec<u8>,
}

impl Writer {
    /// Begins an answer.
    #[must_use]
    pub const fn new(form: Form) -> Self {
        Self { form, body: Vec::new() }
    }

    /// Returns how many bytes the answer has so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.body.len()
    }

    /// Tells whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Writes a text packet that comes in pieces, its type first; together they are UTF-8.
    pub fn text(&mut self, pieces: &[&[u8]]) {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        self.body.reserve(bytes + 12);
        match self.form {
            Form::Eio4 => self.separate(),
            Form::Eio3Text => {
                let units: usize = pieces.iter().map(|piece| utf16_units(piece)).sum();
                self.body.extend_from_slice(units.to_string().as_bytes());
                self.body.push(b':');
            }
            Form::Eio3Binary => self.binary_head(0, bytes),
        }
        for piece in pieces {
            self.body.extend_from_slice(piece);
        }
    }

    /// Writes a binary packet.
    pub fn binary(&mut self, data: &[u8]) {
        match self.form {
            Form::Eio4 => {
                self.separate();
                self.body.push(b'b');
                self.base64(data);
            }
            Form::Eio3Text => {
                let units = "b4".len() + data.len().div_ceil(3) * 4;
                self.body.extend_from_slice(format!("{units}:b4").as_bytes());
                self.base64(data);
            }
            Form::Eio3Binary => {
                self.binary_head(1, data.len() + 1);
                self.body.push(4);
                self.body.extend_from_slice(data);
            }
        }
    }

    /// Returns the answer and its content type.
    #[must_use]
    pub fn finish(self) -> (Vec<u8>, &'static str) {
        (self.body, self.form.content_type())
    }

    fn separate(&mut self) {
        if !self.body.is_empty() {
            self.body.push(super::eio4::SEPARATOR);
        }
    }

    fn binary_head(&mut self, kind: u8, bytes: usize) {
        self.body.push(kind);
        self.body.extend(bytes.to_string().bytes().map(|digit| digit - b'0'));
        self.body.push(0xff);
    }

    fn base64(&mut self, data: &[u8]) {
        let begin = self.body.len();
        self.body.resize(begin + data.len().div_ceil(3) * 4, 0);
        BASE64_STANDARD
            .encode_slice(data, &mut self.body[begin..])
            .expect("the room is as large as padded base64 is");
    }
}

/// Takes the type off the front, which is one byte.
fn rest(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[1..]),
        Cow::Owned(mut text) => {
            text.remove(0);
            Cow::Owned(text)
        }
    }
}

/// Counts the UTF-16 units of a piece of UTF-8: one for the first byte of each character, one
/// more where a character has four.
fn utf16_units(piece: &[u8]) -> usize {
    piece.iter().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, write: impl FnOnce(&mut Writer), expected: &[u8]) {
        let mut writer = Writer::new(form);
        assert!(writer.is_empty());
        write(&mut writer);
        assert_eq!(writer.len(), expected.len());
        let (body, content_type) = writer.finish();
        assert_eq!(body, expected, "{}", String::from_utf8_lossy(&body));
        assert_eq!(content_type, form.content_type());
    }

    #[test]
    fn each_generation_gets_its_framing() {
        let connect = |writer: &mut Writer| {
            writer.text(&[b"40"]);
            writer.text(&[b"4", b"2[\"welcome\"", b",{\"a\":1}]"]);
        };
        check(Form::Eio4, connect, b"40\x1e42[\"welcome\",{\"a\":1}]");
        check(Form::Eio3Text, connect, b"2:4021:42[\"welcome\",{\"a\":1}]");
        check(
            Form::Eio3Binary,
            connect,
            b"\x00\x02\xff40\x00\x02\x01\xff42[\"welcome\",{\"a\":1}]",
        );
        let binary = |writer: &mut Writer| {
            writer.text(&[b"6"]);
            writer.binary(&[1, 2, 3]);
            writer.binary(&[]);
        };
        check(Form::Eio4, binary, b"6\x1ebAQID\x1eb");
        check(Form::Eio3Text, binary, b"1:66:b4AQID2:b4");
        check(
            Form::Eio3Binary,
            binary,
            b"\x00\x01\xff6\x01\x04\xff\x04\x01\x02\x03\x01\x01\xff\x04",
        );
    }

    #[test]
    fn lengths_are_utf16_units_as_text_and_bytes_in_binary() {
        let wide = |writer: &mut Writer| writer.text(&[b"4\xe2", b"\x82\xac\xf0\x9f\x9a\x80"]);
        check(Form::Eio3Text, wide, "4:4€🚀".as_bytes());
        check(Form::Eio3Binary, wide, b"\x00\x08\xff4\xe2\x82\xac\xf0\x9f\x9a\x80");
        check(
            Form::Eio3Binary,
            |writer| writer.text(&["4€".as_bytes()]),
            b"\x00\x04\xff4\xe2\x82\xac",
        );
    }

    #[track_caller]
    fn read(text: &str, expected: Result<Packet<'_>, BadPayload>) {
        assert_eq!(Packet::of_text(text.into()), expected);
        assert_eq!(Packet::of_text(text.to_owned().into()), expected);
    }

    #[test]
    fn every_type_of_packet_is_read() {
        read("0{}", Ok(Packet::Open("{}".into())));
        read("1", Ok(Packet::Close));
        read("2probe", Ok(Packet::Ping("probe".into())));
        read("3", Ok(Packet::Pong("".into())));
        read("42[\"é\"]", Ok(Packet::Message("2[\"é\"]".into())));
        read("5", Ok(Packet::Upgrade));
        read("6", Ok(Packet::Noop));
        read("7", Err(BadPayload::Type));
        read("é", Err(BadPayload::Type));
        read("", Err(BadPayload::Empty));
    }
}
