//! Frames of a websocket.

use crate::{
    check_error,
    socket::engine::wire::{self, BadFrame, Decoder, Frame, Opcode},
    within,
};

const MAX_MESSAGE: usize = 1_024;

/// Checks one input in one piece, byte by byte, and in two pieces.
pub fn check(input: &[u8]) {
    let whole = decode(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&bytes), whole, "byte by byte");
    let seed = input.iter().fold(7_usize, |seed, byte| seed.wrapping_mul(31) ^ *byte as usize);
    let (begin, end) = input.split_at(seed % (input.len() + 1));
    assert_eq!(decode(&[begin, end]), whole, "in pieces of {} and {}", begin.len(), end.len());
    let (frames, error) = whole;
    if let Some(error) = error {
        check_error(error.label(), &error);
        let [kind, length, high, low] = wire::close(error.close_code());
        assert_eq!((kind, length), (0x88, 2));
        assert!(matches!(u16::from_be_bytes([high, low]), 1002 | 1007 | 1009));
    }
    let written: Vec<u8> = frames.iter().flat_map(write).collect();
    assert_eq!(decode(&[&written]), (frames, None), "written again");
    assert_eq!(wire::accept(&input[..input.len().min(64)]).len(), 28);
}

fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, Option<BadFrame>) {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    // A frame of a client has at least six bytes.
    let memory = 4 * bytes + 3 * (bytes / 6 + 1) * size_of::<Frame>();
    let (frames, error) = within(memory, || {
        let mut decoder = Decoder::new(MAX_MESSAGE);
        let mut frames = Vec::new();
        for mut piece in pieces.iter().copied() {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(piece.is_empty(), "without a frame everything is used");
        }
        (frames, None)
    });
    for frame in &frames {
        match frame {
            Frame::Text(text) => assert!(text.len() <= MAX_MESSAGE),
            Frame::Binary(data) => assert!(data.len() <= MAX_MESSAGE),
            Frame::Ping(data) | Frame::Pong(data) => assert!(data.len() <= 125),
            Frame::Close(code) => assert!(code.is_none_or(|code| code >= 1000)),
        }
    }
    (frames, error)
}

/// Writes a frame as a client does.
fn write(frame: &Frame) -> Vec<u8> {
    const MASK: [u8; 4] = [0xa5, 0x01, 0xff, 0x3c];
    let code;
    let (opcode, payload) = match frame {
        Frame::Text(text) => (Opcode::Text, text.as_bytes()),
        Frame::Binary(data) => (Opcode::Binary, &data[..]),
        Frame::Ping(data) => (Opcode::Ping, &data[..]),
        Frame::Pong(data) => (Opcode::Pong, &data[..]),
        Frame::Close(Some(known)) => {
            code = known.to_be_bytes();
            (Opcode::Close, &code[..])
        }
        Frame::Close(None) => (Opcode::Close, &[][..]),
    };
    let (head, used) = wire::head(opcode, payload.len());
    let mut written = head[..used].to_vec();
    written[1] |= 0x80;
    written.extend(MASK);
    written.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    written
}
