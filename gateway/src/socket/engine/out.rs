//! What waits to be written to one websocket: shared frames, and headers made for it.

use std::{collections::VecDeque, io::IoSlice};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    upper::Down,
    wire::{self, Opcode},
};
use crate::socket::Protocol;

/// The type of a packet with data of the layer above, as a byte: only engine.io 3 says it.
const MESSAGE: u8 = 4;

/// Pieces that wait to be written, in order. It holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Out(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    /// How much of the first was written.
    written: usize,
    /// How much is left.
    bytes: usize,
    /// How many pieces are snapshots.
    snapshots: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// How many bytes of a snapshot it has.
    snapshot: usize,
    /// Whether a frame begins with it.
    begins: bool,
    /// What kind of frame it is, where it stands before all that has not begun.
    urgent: Option<Opcode>,
}

impl Out {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.snapshots > 0)
    }

    /// Adds what comes from above.
    pub(super) fn push(&mut self, down: Down, protocol: Protocol, b64: bool) {
        match down {
            Down::Frame(frame) => {
                self.add(frame.websocket(protocol.format()), frame.snapshot_bytes(), true);
            }
            Down::Text { head, body, tail } => {
                let length = head.len() + body.len() + tail.len();
                self.add(headed(Opcode::Text, length, head.as_bytes()), 0, true);
                self.add(body, 0, false);
                self.add(Bytes::from_static(tail.as_bytes()), 0, false);
            }
            Down::Binary(data) if b64 => {
                let mark = match protocol {
                    Protocol::Eio3 => "b4",
                    Protocol::Eio4 => "b",
                };
                self.text(format!("{mark}{}", BASE64_STANDARD.encode(data)).as_bytes());
            }
            Down::Binary(data) => {
                let kind: &[u8] = match protocol {
                    Protocol::Eio3 => &[MESSAGE],
                    Protocol::Eio4 => &[],
                };
                self.add(headed(Opcode::Binary, kind.len() + data.len(), kind), 0, true);
                self.add(data, 0, false);
            }
            Down::Close(_) => {}
        }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.add(headed(Opcode::Text, text.len(), text), 0, true);
    }

    /// Puts a frame before all that has not begun to go out, in the place of one of its kind: who
    /// pings without reading gets one pong.
    pub(super) fn first(&mut self, opcode: Opcode, payload: &[u8]) {
        let bytes = headed(opcode, payload.len(), payload);
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += bytes.len();
        let at = waiting.whole();
        let urgent = |piece: &&Piece| piece.urgent.is_some();
        let same = |piece: &Piece| piece.urgent == Some(opcode);
        let older = waiting.pieces.range(at..).take_while(urgent).position(same);
        if let Some(older) = older.and_then(|older| waiting.pieces.remove(at + older)) {
            waiting.bytes -= older.bytes.len();
        }
        let piece = Piece { bytes, snapshot: 0, begins: true, urgent: Some(opcode) };
        waiting.pieces.insert(at, piece);
    }

    /// Drops all that has not begun to go out.
    pub(super) fn cut(&mut self) {
        let Some(waiting) = &mut self.0 else { return };
        let at = waiting.whole();
        for piece in waiting.pieces.drain(at..) {
            waiting.bytes -= piece.bytes.len();
            waiting.snapshots -= usize::from(piece.snapshot > 0);
        }
        self.0.take_if(|waiting| waiting.pieces.is_empty());
    }

    fn add(&mut self, bytes: Bytes, snapshot: usize, begins: bool) {
        if bytes.is_empty() {
            return;
        }
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += bytes.len();
        waiting.snapshots += usize::from(snapshot > 0);
        waiting.pieces.push_back(Piece { bytes, snapshot, begins, urgent: None });
    }

    /// Lists what is to be written next; returns how many slices it are.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(waiting) = &self.0 else { return 0 };
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&waiting.pieces) {
            let from = if count == 0 { waiting.written } else { 0 };
            *slice = IoSlice::new(&piece.bytes[from..]);
            count += 1;
        }
        count
    }

    /// Notes that so many bytes were written; returns how many of snapshots have gone out whole.
    pub(super) fn advance(&mut self, mut written: usize) -> usize {
        let Some(waiting) = &mut self.0 else { return 0 };
        waiting.bytes -= written;
        written += waiting.written;
        let mut gone = 0;
        while let Some(piece) = waiting.pieces.pop_front_if(|piece| piece.bytes.len() <= written) {
            written -= piece.bytes.len();
            gone += piece.snapshot;
            waiting.snapshots -= usize::from(piece.snapshot > 0);
        }
        waiting.written = written;
        self.0.take_if(|waiting| waiting.pieces.is_empty());
        gone
    }
}

impl Waiting {
    /// Returns the place of the first frame of which nothing has gone out.
    fn whole(&self) -> usize {
        let is_whole = |at: usize, piece: &Piece| piece.begins && (at > 0 || self.written == 0);
        let mut pieces = self.pieces.iter().enumerate();
        pieces.find(|(at, piece)| is_whole(*at, piece)).map_or(self.pieces.len(), |(at, _)| at)
    }
}

/// Makes the header of a frame and how its payload begins.
fn headed(opcode: Opcode, length: usize, begin: &[u8]) -> Bytes {
    let (head, head_length) = wire::head(opcode, length);
    let mut bytes = Vec::with_capacity(head_length + begin.len());
    bytes.extend_from_slice(&head[..head_length]);
    bytes.extend_from_slice(begin);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::frame::Frame;

    /// Reads what is to be written, so many bytes at a time.
    fn write(out: &mut Out, at_once: usize) -> (Vec<u8>, usize) {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = out.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(at_once);
        let snapshots = out.advance(bytes.len());
        (bytes, snapshots)
    }

    fn text(text: &'static str) -> Down {
        Down::Text { head: text.to_owned(), body: Bytes::new(), tail: "" }
    }

    #[test]
    fn whatever_the_kernel_takes_nothing_is_lost_or_said_twice() {
        for at_once in 1..40 {
            let mut out = Out::default();
            let frame = Frame::snapshot("initial", "{\"a\":1}");
            let head = "431[".to_owned();
            let ack = Down::Text { head, body: Bytes::from_static(b"{}"), tail: "]" };
            out.push(ack, Protocol::Eio4, false);
            out.push(Down::Frame(frame.clone()), Protocol::Eio4, false);
            out.push(Down::Binary(Bytes::from_static(&[1, 2])), Protocol::Eio3, false);
            out.push(Down::Binary(Bytes::from_static(&[1, 2])), Protocol::Eio4, true);
            let (mut all, mut snapshots) = (Vec::new(), 0);
            while !out.is_empty() {
                let left = out.bytes();
                let (bytes, gone) = write(&mut out, at_once);
                assert_eq!(out.bytes(), left - bytes.len());
                all.extend(bytes);
                snapshots += gone;
            }
            let expected: [&[u8]; 4] = [
                b"\x81\x07431[{}]",
                b"\x81\x1542[\"initial\",{\"a\":1}]",
                b"\x82\x03\x04\x01\x02",
                b"\x81\x05bAQI=",
            ];
            assert_eq!(all, expected.concat(), "{at_once}");
            assert_eq!((snapshots, out.has_snapshot()), (frame.snapshot_bytes(), false));
            assert!(out.0.is_none());
        }
    }

    #[test]
    fn what_is_urgent_stands_before_the_first_frame_that_has_not_begun() {
        let mut out = Out::default();
        out.push(text("4abc"), Protocol::Eio4, false);
        out.push(text("4def"), Protocol::Eio4, false);
        out.first(Opcode::Text, b"2");
        assert_eq!(write(&mut out, 5).0, b"\x81\x012\x81\x04");
        out.first(Opcode::Text, b"3");
        assert_eq!(write(&mut out, 100).0, b"4abc\x81\x013\x81\x044def");
    }

    #[test]
    fn of_urgent_frames_of_a_kind_the_newest_goes_out() {
        let mut out = Out::default();
        out.push(text("4abc"), Protocol::Eio4, false);
        write(&mut out, 1);
        for number in 0..100 {
            out.first(Opcode::Pong, &[number]);
            out.first(Opcode::Text, b"2");
        }
        let all = b"\x044abc\x81\x012\x8a\x01\x63";
        assert_eq!(out.bytes(), all.len());
        assert_eq!(write(&mut out, 100).0, all);
        assert!(out.is_empty());
        out.first(Opcode::Pong, b"abc");
        write(&mut out, 1);
        out.first(Opcode::Pong, b"d");
        assert_eq!(write(&mut out, 100).0, b"\x03abc\x8a\x01d");
    }

    #[test]
    fn a_cut_leaves_whole_frames() {
        let mut out = Out::default();
        let body = Bytes::from_static(b"body");
        let pieces = Down::Text { head: "4".to_owned(), body, tail: "]" };
        out.push(pieces.clone(), Protocol::Eio4, false);
        out.push(pieces, Protocol::Eio4, false);
        write(&mut out, 1);
        out.cut();
        out.first(Opcode::Close, &[3, 0xe9]);
        assert_eq!(write(&mut out, 100).0, b"\x064body]\x88\x02\x03\xe9");
        assert_eq!((out.bytes(), out.is_empty()), (0, true));
    }
}
