//! How much an engine holds for one client that has not gone out yet.
//!
//! socketioxide drops a client at its next heartbeat when its buffer is full at that moment, and
//! bounds that buffer by packets whatever their size. So the buffer is never filled: what goes
//! out is counted where it goes out, and the rest waits in the mailbox, which counts bytes.

use std::collections::VecDeque;

/// How many bytes may be on their way before more is handed to the engine.
const BYTES: u64 = 128 << 10;

/// What was given to an engine and is still on its way.
#[derive(Debug)]
pub(super) struct Window {
    packets: usize,
    given: u64,
    /// Where each packet on its way ends, in bytes since the beginning, and how many bytes of
    /// snapshots it has.
    ends: VecDeque<(u64, usize)>,
}

impl Window {
    /// Makes a window of so many packets.
    #[must_use]
    pub(super) const fn new(packets: usize) -> Self {
        Self { packets, given: 0, ends: VecDeque::new() }
    }

    /// Takes in how many bytes have gone out; returns how many of snapshots are new among them.
    ///
    /// What goes out besides packets makes the count run ahead; it is set right whenever nothing
    /// is on its way.
    pub(super) fn advance(&mut self, gone: u64) -> usize {
        let mut snapshots = 0;
        while let Some((_, bytes)) = self.ends.pop_front_if(|(end, _)| *end <= gone) {
            snapshots += bytes;
        }
        if self.ends.is_empty() {
            self.given = self.given.max(gone);
        }
        snapshots
    }

    /// Tells whether another packet may follow, now that so many bytes have gone out.
    #[must_use]
    pub(super) fn has_room(&self, gone: u64) -> bool {
        self.ends.len() < self.packets && self.given.saturating_sub(gone) < BYTES
    }

    /// Tells whether nothing is on its way.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tells whether a snapshot is on its way.
    #[must_use]
    pub(super) fn has_snapshot(&self) -> bool {
        self.ends.iter().any(|(_, snapshot)| *snapshot > 0)
    }

    /// Notes that a packet was given, which takes at least so many bytes on the wire, so many of
    /// them a snapshot's.
    pub(super) fn give(&mut self, bytes: usize, snapshot: usize) {
        self.given += bytes as u64;
        self.ends.push_back((self.given, snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(window: &mut Window, gone: u64, snapshots: usize, has_room: bool) {
        assert_eq!((window.advance(gone), window.has_room(gone)), (snapshots, has_room));
    }

    #[test]
    fn a_window_is_full_by_packets_or_by_bytes_until_they_have_gone_out() {
        let mut window = Window::new(3);
        for _ in 0..3 {
            check(&mut window, 1_000, 0, true);
            window.give(10, 0);
        }
        check(&mut window, 1_000, 0, false);
        check(&mut window, 1_009, 0, false);
        check(&mut window, 1_010, 0, true);
        check(&mut window, 1_030, 0, true);
        window.give(1 << 20, 1_000_000);
        assert!(window.has_snapshot());
        check(&mut window, 1_030, 0, false);
        check(&mut window, 900_000, 0, false);
        check(&mut window, 1_000_000, 0, true);
        check(&mut window, 2_000_000, 1_000_000, true);
        assert!(window.is_empty() && !window.has_snapshot());
        window.give(10, 0);
        check(&mut window, 2_000_000, 0, true);
        assert!(!window.is_empty());
    }
}
