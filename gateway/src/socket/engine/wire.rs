//! Frames of a websocket (RFC 6455), as a server reads and writes them.
//!
//! Values in, values out: bytes of any cut become whole messages.

use std::mem;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use sha1::{Digest, Sha1};

/// How long a server's frame header is at most.
pub const HEAD: usize = 10;

/// How long a client's frame header is at most.
const CLIENT_HEAD: usize = 14;

/// How many bytes the payload of a control frame may have.
const CONTROL: usize = 125;

/// What RFC 6455 has a server put behind the client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further piece of a message.
    Continuation,
    /// Text, or the first piece of it.
    Text,
    /// Binary data, or the first piece of it.
    Binary,
    /// The last frame.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    const fn of(bits: u8) -> Result<Self, BadFrame> {
        match bits {
            0 => Ok(Self::Continuation),
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            _ => Err(BadFrame::Opcode(bits)),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A whole message or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A ping, with what its pong must repeat.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The client closes, perhaps with a code.
    Close(Option<u16>),
}

/// What a client may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The payload is not masked.
    #[error("frame is not masked")]
    Unmasked,
    /// A bit is set that belongs to an extension nobody agreed on.
    #[error("a reserved bit is set")]
    Reserved,
    /// Nobody knows this kind of frame.
    #[error("frame has the reserved opcode {0}")]
    Opcode(u8),
    /// A control frame is not whole.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A control frame has more than 125 bytes.
    #[error("control frame is too long")]
    LongControl,
    /// The length is written with more bytes than it needs, or has its highest bit set.
    #[error("length is not written as it must be")]
    Length,
    /// A message has more bytes than it may have.
    #[error("message is too large")]
    TooLarge,
    /// Nothing was begun that could be continued.
    #[error("continuation of nothing")]
    LoneContinuation,
    /// A message begins within another one.
    #[error("message begins within another one")]
    Interleaved,
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A close frame has one byte, or a code that nobody may send.
    #[error("close frame has no valid code")]
    CloseCode,
}

impl BadFrame {
    /// Returns the code that the closing server gives as its reason.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooLarge => 1009,
            _ => 1002,
        }
    }

    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::Reserved => "reserved_bit",
            Self::Opcode(_) => "opcode",
            Self::FragmentedControl => "fragmented_control",
            Self::LongControl => "long_control",
            Self::Length => "frame_length",
            Self::TooLarge => "too_large",
            Self::LoneContinuation => "lone_continuation",
            Self::Interleaved => "interleaved",
            Self::Utf8 => "utf8",
            Self::CloseCode => "close_code",
        }
    }
}

/// Makes messages of a client's bytes, however they are cut.
///
/// It holds nothing but its bound while no frame or message is partial. What it holds then grows
/// with the bytes that came, never with the length that was announced.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    /// The beginning of the next frame's header.
    head: [u8; CLIENT_HEAD],
    head_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Head>,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// The kind and the payload of a message so far.
    message: Option<(Opcode, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    is_last: bool,
    opcode: Opcode,
    /// Begins with the byte for the next byte of the payload.
    mask: [u8; 4],
    /// How many bytes of the payload are still to come.
    left: usize,
}

impl Decoder {
    /// Makes a decoder of messages of at most so many bytes.
    #[must_use]
    pub const fn new(max_message: usize) -> Self {
        Self { max_message, partial: None }
    }

    /// Tells whether it holds a part of a frame or of a message.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Takes the next message or control frame out of `input`, and takes away what it used.
    ///
    /// Without one, all of `input` is used and kept; more is needed. Pieces of a message are put
    /// together; a control frame between them comes at once.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the frame. The connection is to be closed then: what follows
    /// cannot be understood.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, BadFrame> {
        if let Some(partial) = &mut self.partial {
            let next = partial.next(input, self.max_message);
            self.partial.take_if(|partial| partial.is_idle());
            return next;
        }
        let mut partial = Partial::default();
        let next = partial.next(input, self.max_message);
        if !partial.is_idle() {
            self.partial = Some(Box::new(partial));
        }
        next
    }
}

impl Partial {
    const fn is_idle(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn next(&mut self, input: &mut &[u8], max_message: usize) -> Result<Option<Frame>, BadFrame> {
        loop {
            let Some(mut head) = self.begin(input, max_message)? else {
                return Ok(None);
            };
            let buffer = match &mut self.message {
                Some((_, message)) if !head.opcode.is_control() => message,
                _ => &mut self.control,
            };
            let take = head.left.min(input.len());
            append(buffer, &input[..take], &mut head);
            *input = &input[take..];
            if head.left > 0 {
                self.frame = Some(head);
                return Ok(None);
            }
            if let Some(frame) = self.end(head)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Returns the frame whose payload comes next, if its header is whole.
    fn begin(&mut self, input: &mut &[u8], max_message: usize) -> Result<Option<Head>, BadFrame> {
        if let Some(frame) = self.frame.take() {
            return Ok(Some(frame));
        }
        let before = self.head_len;
        let take = (CLIENT_HEAD - before).min(input.len());
        self.head[before..before + take].copy_from_slice(&input[..take]);
        self.head_len += take;
        let Some((head, used)) = head_of_client(&self.head[..self.head_len])? else {
            *input = &input[take..];
            return Ok(None);
        };
        *input = &input[used - before..];
        self.head_len = 0;
        self.admit(&head, max_message)?;
        Ok(Some(head))
    }

    /// Refuses a frame that has no place here; begins a message.
    fn admit(&mut self, head: &Head, max_message: usize) -> Result<(), BadFrame> {
        let before = match (&self.message, head.opcode) {
            (_, opcode) if opcode.is_control() => return Ok(()),
            (None, Opcode::Continuation) => return Err(BadFrame::LoneContinuation),
            (Some(_), Opcode::Text | Opcode::Binary) => return Err(BadFrame::Interleaved),
            (Some((_, message)), _) => message.len(),
            (None, _) => 0,
        };
        if head.left > max_message.saturating_sub(before) {
            return Err(BadFrame::TooLarge);
        }
        self.message.get_or_insert_with(|| (head.opcode, Vec::new()));
        Ok(())
    }

    /// Makes of a whole frame what it completes.
    fn end(&mut self, head: Head) -> Result<Option<Frame>, BadFrame> {
        let frame = match head.opcode {
            Opcode::Ping => Frame::Ping(mem::take(&mut self.control).into()),
            Opcode::Pong => Frame::Pong(mem::take(&mut self.control).into()),
            Opcode::Close => Frame::Close(close_code(&mem::take(&mut self.control))?),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !head.is_last => {
                return Ok(None);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let (opcode, bytes) = self.message.take().ok_or(BadFrame::LoneContinuation)?;
                match opcode {
                    Opcode::Text => {
                        Frame::Text(String::from_utf8(bytes).map_err(|_| BadFrame::Utf8)?)
                    }
                    _ => Frame::Binary(bytes.into()),
                }
            }
        };
        Ok(Some(frame))
    }
}

/// Reads a client's header and tells its length, as soon as it is whole; refuses it as soon as
/// it is known to be wrong.
fn head_of_client(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadFrame> {
    let Some(first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(BadFrame::Reserved);
    }
    let opcode = Opcode::of(first & 0x0f)?;
    let is_last = first & 0x80 != 0;
    if opcode.is_control() && !is_last {
        return Err(BadFrame::FragmentedControl);
    }
    let Some(second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(BadFrame::Unmasked);
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL {
        return Err(BadFrame::LongControl);
    }
    let rest = &bytes[2..];
    let (length, rest, least) = match short {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest, 126),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest, 0x1_0000),
            None => return Ok(None),
        },
        short => (u64::from(short), rest, 0),
    };
    if length < least || length > i64::MAX as u64 {
        return Err(BadFrame::Length);
    }
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let left = usize::try_from(length).map_err(|_| BadFrame::TooLarge)?;
    Ok(Some((Head { is_last, opcode, mask: *mask, left }, bytes.len() - rest.len())))
}

/// Puts a piece of a frame's payload, unmasked, to the end of a buffer.
fn append(buffer: &mut Vec<u8>, piece: &[u8], head: &mut Head) {
    let before = buffer.len();
    if buffer.capacity() - before < piece.len() {
        // Doubles with what came; ends with the message, where its end is known.
        let more = piece.len().max(before);
        buffer.reserve_exact(if head.is_last { more.min(head.left) } else { more });
    }
    buffer.extend_from_slice(piece);
    unmask(&mut buffer[before..], head.mask);
    head.mask.rotate_left(piece.len() % 4);
    head.left -= piece.len();
}

/// Takes a mask off, eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Reads the payload of a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, BadFrame> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(BadFrame::CloseCode),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(BadFrame::CloseCode);
    }
    std::str::from_utf8(reason).map_err(|_| BadFrame::Utf8)?;
    Ok(Some(code))
}

/// Writes the header of a whole frame of a server, which is not masked, and tells its length.
#[must_use]
pub fn head(opcode: Opcode, len: usize) -> ([u8; HEAD], usize) {
    let mut head = [0; HEAD];
    head[0] = 0x80 | opcode.bits();
    let used = match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..126), _) => {
            head[1] = len;
            2
        }
        (_, Ok(len)) => {
            head[1] = 126;
            head[2..4].copy_from_slice(&len.to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(len as u64).to_be_bytes());
            HEAD
        }
    };
    (head, used)
}

/// Writes a server's close frame.
#[must_use]
pub const fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | Opcode::Close.bits(), 2, high, low]
}

/// Makes `Sec-WebSocket-Accept` of a client's `Sec-WebSocket-Key`.
#[must_use]
pub fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// Writes a client's frame; `first` is its first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let (head, used) = head(Opcode::Text, payload.len());
        let mut frame = head[..used].to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(MASK);
        let begin = frame.len();
        frame.extend(payload);
        unmask(&mut frame[begin..], MASK);
        frame
    }

    /// Decodes bytes that come in pieces of so many.
    fn decode(bytes: &[u8], piece: usize, max: usize) -> (Vec<Frame>, Option<BadFrame>) {
        let mut decoder = Decoder::new(max);
        let mut frames = Vec::new();
        for mut input in bytes.chunks(piece) {
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(input.is_empty());
        }
        (frames, None)
    }

    #[track_caller]
    fn check(pieces: &[Vec<u8>], expected: &[Frame], error: Option<BadFrame>) {
        let bytes = pieces.concat();
        for piece in [1, 2, 3, 5, 7, 64, bytes.len().max(1)] {
            let decoded = decode(&bytes, piece, 70_000);
            assert_eq!(decoded, (expected.to_vec(), error), "in pieces of {piece}");
        }
    }

    fn text(text: &str) -> Frame {
        Frame::Text(text.to_owned())
    }

    #[test]
    fn messages_and_control_frames_are_read_however_they_are_cut() {
        check(&[], &[], None);
        check(&[frame(0x81, b"Hello")], &[text("Hello")], None);
        check(&[frame(0x81, b"")], &[text("")], None);
        check(&[frame(0x82, b"\x00\xff")], &[Frame::Binary(Bytes::from_static(b"\x00\xff"))], None);
        check(&[frame(0x89, b"hi")], &[Frame::Ping(Bytes::from_static(b"hi"))], None);
        check(&[frame(0x8a, b"")], &[Frame::Pong(Bytes::new())], None);
        check(&[frame(0x88, b"")], &[Frame::Close(None)], None);
        check(&[frame(0x88, b"\x03\xe8bye")], &[Frame::Close(Some(1000))], None);
        for length in [125, 126, 127, 65_535, 65_536, 70_000] {
            let long = "é".repeat(length / 2) + &"x".repeat(length % 2);
            check(
                &[frame(0x81, long.as_bytes()), frame(0x81, b"next")],
                &[text(&long), text("next")],
                None,
            );
        }
        // Unmasked and masked bytes as RFC 6455 prints them.
        let printed = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
        check(&[printed], &[text("Hello")], None);
    }

    #[test]
    fn pieces_of_a_message_are_put_together_around_control_frames() {
        let ping = Frame::Ping(Bytes::from_static(b"p"));
        check(
            &[
                frame(0x01, b"Hel\xc3"),
                frame(0x89, b"p"),
                frame(0x00, b""),
                frame(0x80, b"\xa9lo"),
                frame(0x81, b"!"),
            ],
            &[ping, text("Helélo"), text("!")],
            None,
        );
        let binary = Frame::Binary(Bytes::from_static(b"abc"));
        check(&[frame(0x02, b"a"), frame(0x00, b"b"), frame(0x80, b"c")], &[binary], None);
    }

    #[test]
    fn each_mistake_has_its_error() {
        let error = |frames: &[Vec<u8>], error| check(frames, &[], Some(error));
        error(&[b"\x81\x05Hello".to_vec()], BadFrame::Unmasked);
        error(&[frame(0xc1, b"")], BadFrame::Reserved);
        error(&[frame(0xa1, b"")], BadFrame::Reserved);
        error(&[frame(0x91, b"")], BadFrame::Reserved);
        error(&[frame(0x83, b"")], BadFrame::Opcode(3));
        error(&[frame(0x8f, b"")], BadFrame::Opcode(15));
        error(&[frame(0x09, b"")], BadFrame::FragmentedControl);
        error(&[frame(0x89, &[0; 126])], BadFrame::LongControl);
        error(&[b"\x81\xfe\x00\x7d".to_vec()], BadFrame::Length);
        error(&[b"\x81\xff\0\0\0\0\0\0\xff\xff".to_vec()], BadFrame::Length);
        error(&[b"\x81\xff\x80\0\0\0\0\0\0\0".to_vec()], BadFrame::Length);
        error(&[b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff0000".to_vec()], BadFrame::TooLarge);
        error(&[frame(0x81, &[b'x'; 70_001])], BadFrame::TooLarge);
        error(&[frame(0x01, &[b'x'; 70_000]), frame(0x80, b"x")], BadFrame::TooLarge);
        error(&[frame(0x80, b"x")], BadFrame::LoneContinuation);
        error(&[frame(0x01, b"x"), frame(0x81, b"x")], BadFrame::Interleaved);
        error(&[frame(0x81, b"\xc3")], BadFrame::Utf8);
        error(&[frame(0x81, b"\xed\xa0\x80")], BadFrame::Utf8);
        error(&[frame(0x88, b"\x03\xe8\xff")], BadFrame::Utf8);
        error(&[frame(0x88, b"\x03")], BadFrame::CloseCode);
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            error(&[frame(0x88, &code.to_be_bytes())], BadFrame::CloseCode);
        }
        check(
            &[frame(0x81, b"a"), frame(0x80, b"")],
            &[text("a")],
            Some(BadFrame::LoneContinuation),
        );
    }

    #[test]
    fn mistakes_have_the_close_codes_of_the_standard() {
        assert_eq!(BadFrame::Unmasked.close_code(), 1002);
        assert_eq!(BadFrame::Utf8.close_code(), 1007);
        assert_eq!(BadFrame::TooLarge.close_code(), 1009);
        assert_eq!(close(1002), [0x88, 2, 3, 234]);
    }

    #[test]
    fn nothing_is_held_while_nothing_is_partial() {
        assert!(size_of::<Decoder>() <= 48);
        let mut decoder = Decoder::new(1_000);
        let message = frame(0x81, b"Hello");
        let (mut begin, mut end) = message.split_at(8);
        assert_eq!(decoder.next(&mut begin), Ok(None));
        assert!(decoder.is_partial());
        assert_eq!(decoder.next(&mut end), Ok(Some(text("Hello"))));
        assert!(!decoder.is_partial());
    }

    #[test]
    fn what_is_held_grows_with_what_came_and_not_with_what_is_announced() {
        let mut decoder = Decoder::new(1 << 30);
        let mut begin = &b"\x82\xff\0\0\0\0\x3f\0\0\0maskfour"[..];
        assert_eq!(decoder.next(&mut begin), Ok(None));
        let held = decoder.partial.unwrap().message.unwrap().1.capacity();
        assert!(held <= 64, "{held}");
    }

    #[test]
    fn headers_of_a_server_are_as_short_as_they_can_be() {
        let written = |len| {
            let (bytes, used) = head(Opcode::Text, len);
            bytes[..used].to_vec()
        };
        assert_eq!(written(0), [0x81, 0]);
        assert_eq!(written(125), [0x81, 125]);
        assert_eq!(written(126), [0x81, 126, 0, 126]);
        assert_eq!(written(65_535), [0x81, 126, 255, 255]);
        assert_eq!(written(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(head(Opcode::Pong, 3).0[0], 0x8a);
    }

    #[test]
    fn the_key_is_accepted_as_the_standard_shows() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
