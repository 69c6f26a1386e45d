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
pub struct Window {
    packets: usize,
    given: u64,
    /// Where each packet on its way ends, in bytes since the beginning.
    ends: VecDeque<u64>,
}

impl Window {
    /// Makes a window of so many packets.
    #[must_use]
    pub const fn new(packets: usize) -> Self {
        Self { packets, given: 0, ends: VecDeque::new() }
    }

    /// Tells whether another packet may follow, now that so many bytes have gone out.
    ///
    /// What goes out besides packets makes the count run ahead; it is set right whenever nothing
    /// is on its way.
    pub fn has_room(&mut self, gone: u64) -> bool {
        while self.ends.front().is_some_and(|end| *end <= gone) {
            self.ends.pop_front();
        }
        if self.ends.is_empty() {
            self.given = self.given.max(gone);
        }
        self.ends.len() < self.packets && self.given.saturating_sub(gone) < BYTES
    }

    /// Notes that a packet was given, which takes at least so many bytes on the wire.
    pub fn give(&mut self, bytes: usize) {
        self.given += bytes as u64;
        self.ends.push_back(self.given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_full_by_packets_or_by_bytes_until_they_have_gone_out() {
        let mut window = Window::new(3);
        assert!(window.has_room(1_000));
        for _ in 0..3 {
            assert!(window.has_room(1_000));
            window.give(10);
        }
        assert!(!window.has_room(1_000));
        assert!(!window.has_room(1_009));
        assert!(window.has_room(1_010));
        assert!(window.has_room(1_030));
        window.give(1 << 20);
        assert!(!window.has_room(1_030));
        assert!(!window.has_room(900_000));
        assert!(window.has_room(1_000_000));
        assert!(window.has_room(2_000_000));
        window.give(10);
        assert!(window.has_room(2_000_000) && window.ends.len() == 1);
    }
}
