//! When a client is asked for a sign of life, and when it is given up.
//!
//! Pure: the time comes from outside.

use std::time::{Duration, Instant};

use crate::socket::Protocol;

/// How late a ping may be sent as if it were in time.
const LATE: Duration = Duration::from_millis(50);

/// The signs of life of one client.
///
/// In engine.io 4 the server pings, for the first time after the interval, and waits for the
/// pong; in engine.io 3 the client pings, and the server waits for the next ping. Whatever
/// comes from the client is a sign of life, and so is what it takes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// When there is something to do, unless the client is heard before.
    next: Instant,
    /// What it is.
    then: Beat,
    interval: Millis,
    timeout: Millis,
}

/// A time in four bytes: every idle client holds two of them.
#[derive(Debug, Clone, Copy)]
struct Millis(u32);

impl Millis {
    fn of(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
    }

    const fn time(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// What a heartbeat asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// A ping is to be sent.
    Ping,
    /// The client is gone.
    Dead,
}

impl Heartbeat {
    pub(super) fn new(
        protocol: Protocol,
        interval: Duration,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        let (next, then) = match protocol {
            Protocol::Eio3 => (now + interval + timeout, Beat::Dead),
            Protocol::Eio4 => (now + interval, Beat::Ping),
        };
        // What engine.io 3 waits for is the time-out alone, of the whole time.
        let (interval, timeout) = match protocol {
            Protocol::Eio3 => (Duration::ZERO, interval + timeout),
            Protocol::Eio4 => (interval, timeout),
        };
        Self { next, then, interval: Millis::of(interval), timeout: Millis::of(timeout) }
    }

    /// Tells when [`Heartbeat::beat`] is to be asked.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Tells what is due, if anything is; a ping that is told is waited for from now on.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Beat> {
        if now < self.next {
            return None;
        }
        if self.then == Beat::Ping {
            // Looked at a little late, the client has no more time for it.
            let began = self.next.max(now - LATE);
            (self.next, self.then) = (began + self.timeout.time(), Beat::Dead);
            return Some(Beat::Ping);
        }
        Some(Beat::Dead)
    }

    /// Notes a sign of life that is no pong.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.then == Beat::Dead {
            self.next = now + self.timeout.time();
        }
    }

    /// Notes a pong.
    pub(super) fn pong(&mut self, now: Instant) {
        if self.then == Beat::Dead && self.interval.0 > 0 {
            (self.next, self.then) = (now + self.interval.time(), Beat::Ping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(20);

    fn heartbeat(protocol: Protocol) -> (Heartbeat, impl Fn(u64) -> Instant) {
        let began = Instant::now();
        let heartbeat = Heartbeat::new(protocol, INTERVAL, TIMEOUT, began);
        (heartbeat, move |seconds| began + Duration::from_secs(seconds))
    }

    #[test]
    fn a_new_client_is_pinged_after_the_interval_and_given_up_after_the_timeout() {
        let (mut heartbeat, at) = heartbeat(Protocol::Eio4);
        assert_eq!(heartbeat.beat(at(24)), None);
        assert_eq!(heartbeat.beat(at(25)), Some(Beat::Ping));
        assert_eq!(heartbeat.beat(at(44)), None);
        heartbeat.pong(at(44));
        assert_eq!((heartbeat.next(), heartbeat.beat(at(68))), (at(69), None));
        assert_eq!(heartbeat.beat(at(69)), Some(Beat::Ping));
        heartbeat.heard(at(80));
        assert_eq!(heartbeat.beat(at(99)), None);
        assert_eq!(heartbeat.beat(at(100)), Some(Beat::Dead));
    }

    #[test]
    fn an_old_client_is_given_up_when_nothing_came_for_both_times() {
        let (mut heartbeat, at) = heartbeat(Protocol::Eio3);
        assert_eq!(heartbeat.beat(at(44)), None);
        heartbeat.heard(at(44));
        heartbeat.pong(at(44));
        assert_eq!(heartbeat.beat(at(88)), None);
        assert_eq!(heartbeat.beat(at(89)), Some(Beat::Dead));
    }
}
