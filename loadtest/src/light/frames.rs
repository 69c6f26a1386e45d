//! Frames of a websocket, as a client reads and writes them. Pure.

use std::str;

/// What this client takes at most in one message.
const MAX_MESSAGE: u64 = 256 << 20;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a server can say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Text(&'a str),
    Ping(&'a [u8]),
    Close,
    /// Something that is of no use here: binary data, a pong.
    Other,
}

/// Puts together what comes in pieces; holds nothing between two messages.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame.
    begun: Vec<u8>,
    /// The fragments of a message so far, and whether it is a text.
    fragments: Option<(bool, Vec<u8>)>,
}

impl Reader {
    /// Takes some bytes and hands over each message that is whole by them.
    ///
    /// Ends with the first error, which is one of the frames or one of `each`.
    pub(super) fn take<E: From<String>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.begun.is_empty() {
            let used = self.read(bytes, &mut each)?;
            self.begun.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(bytes);
        let used = self.read(&begun, &mut each)?;
        if used < begun.len() {
            begun.drain(..used);
            self.begun = begun;
        }
        Ok(())
    }

    fn read<E: From<String>>(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..])? {
            let begin = used + head.length;
            let Some(payload) = bytes.get(begin..begin + head.payload) else { break };
            self.frame(&head, payload, each)?;
            used = begin + head.payload;
        }
        Ok(used)
    }

    fn frame<E: From<String>>(
        &mut self,
        head: &Head,
        payload: &[u8],
        each: &mut impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match (head.opcode, self.fragments.take()) {
            (PING | PONG | CLOSE, _) if !head.is_last => {
                Err("a control frame in pieces".to_owned())?
            }
            (opcode @ (PING | PONG | CLOSE), fragments) => {
                self.fragments = fragments;
                each(match opcode {
                    PING => Message::Ping(payload),
                    CLOSE => Message::Close,
                    _ => Message::Other,
                })
            }
            (TEXT | BINARY, Some(_)) => Err("a message within another".to_owned())?,
            (TEXT, None) if head.is_last => each(text(payload)?),
            (BINARY, None) if head.is_last => each(Message::Other),
            (opcode @ (TEXT | BINARY), None) => {
                self.fragments = Some((opcode == TEXT, payload.to_vec()));
                Ok(())
            }
            (CONTINUATION, Some((is_text, mut message))) => {
                if (message.len() + payload.len()) as u64 > MAX_MESSAGE {
                    return Err(too_long())?;
                }
                message.extend_from_slice(payload);
                if !head.is_last {
                    self.fragments = Some((is_text, message));
                    return Ok(());
                }
                each(if is_text { text(&message)? } else { Message::Other })
            }
            (opcode, _) => Err(format!("a frame of kind {opcode}"))?,
        }
    }
}

fn text(payload: &[u8]) -> Result<Message<'_>, String> {
    str::from_utf8(payload).map(Message::Text).map_err(|_| "a text that is not UTF-8".to_owned())
}

fn too_long() -> String {
    format!("a message over {MAX_MESSAGE} bytes")
}

struct Head {
    opcode: u8,
    is_last: bool,
    /// Bytes of the head itself.
    length: usize,
    payload: usize,
}

impl Head {
    /// Reads a head; `None` where it is not whole yet.
    fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err("a frame with reserved bits".to_owned());
        }
        if second & MASKED != 0 {
            return Err("a masked frame from a server".to_owned());
        }
        let (length, payload) = match second {
            126 => match rest.first_chunk() {
                Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (10, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            length => (2, u64::from(*length)),
        };
        if payload > MAX_MESSAGE {
            return Err(too_long());
        }
        let payload = usize::try_from(payload).map_err(|_| too_long())?;
        Ok(Some(Self { opcode: first & 0x0f, is_last: first & FIN != 0, length, payload }))
    }
}

/// Writes a text, masked by this key as a client must.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str, mask: [u8; 4]) {
    write(out, TEXT, text.as_bytes(), mask);
}

/// Writes the answer to a ping.
pub(super) fn write_pong(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    write(out, PONG, payload, mask);
}

/// Writes a close without a reason.
pub(super) fn write_close(out: &mut Vec<u8>, mask: [u8; 4]) {
    write(out, CLOSE, &1000u16.to_be_bytes(), mask);
}

fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(FIN | opcode);
    match payload.len() {
        length @ ..126 => out.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, 0, payload, [0; 4]);
        let mask_at = out.len() - payload.len() - 4;
        out.drain(mask_at..mask_at + 4);
        out[0] = first;
        out[1] &= !MASKED;
        out
    }

    /// Reads in pieces of each size, and expects the same of all.
    #[track_caller]
    fn check(bytes: &[u8], expected: &Result<Vec<String>, String>) {
        for size in [1, 2, 3, 7, 64, 1000, bytes.len().max(1)] {
            let mut reader = Reader::default();
            let mut heard = Vec::new();
            let read = bytes.chunks(size).try_for_each(|piece| {
                reader.take(piece, |message| {
                    heard.push(match message {
                        Message::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
                        message => format!("{message:?}"),
                    });
                    Ok::<(), String>(())
                })
            });
            assert_eq!(read.map(|()| heard), *expected, "in pieces of {size}");
            if expected.is_ok() {
                assert_eq!((reader.begun.capacity(), reader.fragments), (0, None));
            }
        }
    }

    #[test]
    fn messages_are_put_together_whatever_the_pieces() {
        let long = "é".repeat(40_000);
        let bytes = [
            frame(0x81, b"42[\"x\"]"),
            frame(0x81, &[b'a'; 126]),
            frame(0x01, "in é".as_bytes()),
            frame(0x89, b"still there?"),
            frame(0x00, b" three"),
            frame(0x80, b" parts"),
            frame(0x82, b"\xff\xfe"),
            frame(0x02, b"\xff"),
            frame(0x80, b""),
            frame(0x8a, b""),
            frame(0x81, long.as_bytes()),
            frame(0x81, b""),
            frame(0x88, &1001u16.to_be_bytes()),
        ];
        let expected = [
            "Text(\"42[\\\"x\\\"]\")",
            "126 bytes",
            &format!("Ping({:?})", b"still there?"),
            "Text(\"in é three parts\")",
            "Other",
            "Other",
            "Other",
            "80000 bytes",
            "Text(\"\")",
            "Close",
        ];
        check(&bytes.concat(), &Ok(expected.map(ToOwned::to_owned).to_vec()));
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        for (bytes, error) in [
            (frame(0xc1, b"x"), "a frame with reserved bits"),
            (frame(0x80, b"x"), "a frame of kind 0"),
            (frame(0x83, b"x"), "a frame of kind 3"),
            (frame(0x09, b""), "a control frame in pieces"),
            (frame(0x81, b"\xff"), "a text that is not UTF-8"),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), "a message within another"),
            (vec![0x81, 0x81], "a masked frame from a server"),
            ([&[0x81, 127][..], &u64::MAX.to_be_bytes()].concat(), &too_long()),
        ] {
            check(&bytes, &Err(error.to_owned()));
        }
    }

    #[test]
    fn a_text_is_masked() {
        for length in [0, 5, 125, 126, 0xffff, 0x1_0000] {
            let mut out = Vec::new();
            let text = "x".repeat(length);
            write_text(&mut out, &text, [1, 2, 3, 4]);
            let payload = out.split_off(out.len() - length);
            let shown: Vec<u8> =
                payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(shown, text.as_bytes());
            assert_eq!((out[0], out[1] & MASKED), (0x81, MASKED));
            let unmasked = frame(0x81, text.as_bytes());
            assert_eq!(out[2..out.len() - 4], unmasked[2..unmasked.len() - length]);
        }
    }
}
