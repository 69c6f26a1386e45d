//! When each client's session is looked at again, and who was to say what it holds by now.
//!
//! One round for all instead of a timer for each.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use crate::hub::ClientId;

/// How long a client that asked to resume may take to say what it holds.
const RESUME_WITHIN: Duration = Duration::from_secs(5);
/// Into how many parts a round is divided; its clients are spread evenly over them.
const PARTS: u32 = 256;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The clients of each part; who has left is taken out at the next turn.
    parts: Vec<Vec<ClientId>>,
    /// Which part is next, when, and how long each takes.
    next: usize,
    next_at: Instant,
    each: Duration,
    /// When who resumes is late; the same for all, so the first is the earliest.
    claims: VecDeque<(Instant, ClientId)>,
}

impl Rounds {
    /// Begins a round in which each client has a turn every `recheck`.
    pub(super) fn new(recheck: Duration, now: Instant) -> Self {
        let each = recheck / PARTS;
        let parts = vec![Vec::new(); PARTS as usize];
        Self { parts, next: 0, next_at: now + each, each, claims: VecDeque::new() }
    }

    /// Gives a client its turns.
    pub(super) fn add(&mut self, client: ClientId) {
        // Numbers are given out one after the other, so no part has many more than others.
        let part = client.0 % u64::from(PARTS);
        self.parts[usize::try_from(part).expect("there are few parts")].push(client);
    }

    /// Returns whose turn it is; forgets who is not here any more.
    pub(super) fn due(
        &mut self,
        now: Instant,
        is_here: impl Fn(ClientId) -> bool,
    ) -> Vec<ClientId> {
        let mut due = Vec::new();
        // After a long pause one round is enough.
        for _ in 0..PARTS {
            if self.next_at > now {
                return due;
            }
            let part = &mut self.parts[self.next];
            part.retain(|client| is_here(*client));
            part.shrink_to(part.len() + part.len() / 4);
            due.extend_from_slice(part);
            self.next = (self.next + 1) % self.parts.len();
            self.next_at += self.each;
        }
        self.next_at = now + self.each;
        due
    }

    /// Notes that a client is to say what it holds.
    pub(super) fn expect_claims(&mut self, client: ClientId, now: Instant) {
        self.claims.push_back((now + RESUME_WITHIN, client));
    }

    /// Returns who had as long as it may to say what it holds.
    pub(super) fn late(&mut self, now: Instant) -> Vec<ClientId> {
        let count = self.claims.partition_point(|(at, _)| *at <= now);
        let late = self.claims.drain(..count).map(|(_, client)| client).collect();
        if self.claims.is_empty() {
            mem::take(&mut self.claims);
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const RECHECK: Duration = Duration::from_secs(30);

    #[test]
    fn each_client_has_one_turn_a_round_and_all_are_spread_evenly() {
        let began = Instant::now();
        let mut rounds = Rounds::new(RECHECK, began);
        (0..10_000).for_each(|client| rounds.add(ClientId(client)));
        let (mut turns, mut most) = (HashMap::new(), 0);
        for tick in 1..=300 {
            let due = rounds.due(began + tick * Duration::from_millis(100), |_| true);
            most = most.max(due.len());
            due.into_iter().for_each(|client| *turns.entry(client).or_insert(0) += 1);
        }
        assert_eq!(turns.len(), 10_000);
        assert!(turns.values().all(|turns| *turns == 1));
        assert!(most <= 2 * 10_000_usize.div_ceil(PARTS as usize), "{most} at once");
    }

    #[test]
    fn who_has_left_has_no_turn_and_a_pause_is_not_made_up_for() {
        let began = Instant::now();
        let mut rounds = Rounds::new(RECHECK, began);
        (0..10).for_each(|client| rounds.add(ClientId(client)));
        let due = rounds.due(began + 10 * RECHECK, |client| client.0 < 3);
        assert_eq!(due, [ClientId(0), ClientId(1), ClientId(2)]);
        assert!(rounds.due(began + 10 * RECHECK, |_| true).is_empty());
        assert_eq!(rounds.due(began + 11 * RECHECK, |_| true).len(), 3);
    }

    #[test]
    fn who_does_not_say_what_it_holds_is_late_once() {
        let (mut rounds, now) = (Rounds::new(RECHECK, Instant::now()), Instant::now());
        rounds.expect_claims(ClientId(1), now);
        rounds.expect_claims(ClientId(2), now + Duration::from_secs(1));
        assert!(rounds.late(now + Duration::from_secs(4)).is_empty());
        assert_eq!(rounds.late(now + RESUME_WITHIN), [ClientId(1)]);
        assert_eq!(rounds.late(now + 2 * RESUME_WITHIN), [ClientId(2)]);
        assert!(rounds.late(now + 3 * RESUME_WITHIN).is_empty());
    }
}
