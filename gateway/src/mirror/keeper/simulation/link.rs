//! The way to the shard and back: what is asked is done, and what is said is heard, or not.

use bytes::Bytes;
use rand::{RngExt, seq::SliceRandom};
use shard_router::{
    feed::{BadFeed, Touched},
    shard::{Heard, ShardError},
};

use super::{Action, MARKS, World};
use crate::mirror::keeper::{Answer, Effect};

impl World {
    /// The server has something to say to our connection.
    pub(super) fn say(&mut self, heard: Heard) {
        let lag = self.rng.random_range(0..120);
        self.told_until = self.told_until.max(self.now + lag);
        self.stream.push_back((self.told_until, heard));
    }

    pub(super) fn publish(&mut self, channel: &str, payload: Vec<u8>) {
        if self.connected && !self.deaf && self.subscribed.contains_key(channel.as_bytes()) {
            let channel = Bytes::copy_from_slice(channel.as_bytes());
            self.say(Heard::Notice { channel, payload: Bytes::from(payload) });
        }
    }

    /// The connection breaks: what is on its way may come or not.
    pub(super) fn lose(&mut self) {
        let come = self.rng.random_range(0..=self.stream.len());
        for (at, heard) in self.stream.split_off(come) {
            match heard {
                Heard::Confirmed { ticket } => self.unconfirmed.push((Vec::new(), ticket)),
                Heard::Up | Heard::Lost { .. } => self.stream.push_back((at, heard)),
                Heard::Notice { .. } | Heard::Refused { .. } => {}
            }
        }
        self.say(Heard::Lost { reason: "simulated".to_owned() });
        (self.connected, self.deaf) = (false, false);
        self.subscribed.clear();
        self.seen.lost += 1;
        let back = self.rng.random_range(10..2_000);
        self.after(back, Action::Reconnect);
    }

    pub(super) fn reconnect(&mut self) {
        self.connected = true;
        self.subscribed = self.wanted.clone();
        let mut tickets: Vec<u64> =
            std::mem::take(&mut self.unconfirmed).into_iter().map(|(_, ticket)| ticket).collect();
        tickets.shuffle(&mut self.rng);
        let later = tickets.split_off(self.rng.random_range(0..=tickets.len()));
        for ticket in tickets {
            self.say(Heard::Confirmed { ticket });
        }
        self.say(Heard::Up);
        for ticket in later {
            self.say(Heard::Confirmed { ticket });
        }
    }

    pub(super) fn execute(&mut self, effect: Effect) {
        let fails = self.hazards.faults && self.chance(30);
        let error = || ShardError::Away { shard: "one".into(), reason: "simulated".to_owned() };
        match effect {
            Effect::Subscribe { channels, ticket, .. } => {
                if !self.connected {
                    return self.unconfirmed.push((channels, ticket));
                }
                for channel in channels {
                    *self.subscribed.entry(channel).or_default() += 1;
                }
                if !self.deaf {
                    self.say(Heard::Confirmed { ticket });
                } else {
                    self.unconfirmed.push((Vec::new(), ticket));
                }
            }
            Effect::Unsubscribe { channels, .. } => {
                for channel in channels {
                    if let Some(count) = self.subscribed.get_mut(&channel) {
                        *count -= 1;
                        if *count == 0 {
                            self.subscribed.remove(&channel);
                        }
                    }
                }
            }
            Effect::Read { nonce, .. } | Effect::Settle { nonce, .. } => {
                // A script that failed may have been carried out all the same.
                let executed = !fails || self.chance(500);
                let answers = match &effect {
                    Effect::Read { feed, .. } => vec![self.redis.read(feed)],
                    Effect::Settle { touched, .. } => self.settle(touched),
                    _ => unreachable!("only reads come here"),
                };
                self.seen.bad += answers.iter().filter(|answer| answer.is_err()).count();
                if executed {
                    let is_lost = self.hazards.faults && self.chance(3);
                    if !is_lost {
                        self.publish(MARKS, nonce.to_string().into_bytes());
                    }
                }
                self.seen.failed += usize::from(fails);
                let answers = if fails { Err(error()) } else { Ok(answers) };
                let delay = self.rng.random_range(0..400);
                self.after(delay, Action::Answer { nonce, answers });
            }
            Effect::Verify { feeds, nonce, .. } => {
                let checked = feeds.iter().map(|feed| self.redis.verify(feed)).collect();
                self.publish(MARKS, nonce.to_string().into_bytes());
                let checked = if fails { Err(error()) } else { Ok(checked) };
                let delay = self.rng.random_range(0..400);
                self.after(delay, Action::Verified { nonce, checked });
            }
            Effect::Mark { nonce, .. } => {
                self.publish(MARKS, nonce.to_string().into_bytes());
                let sent = if fails { Err(error()) } else { Ok(()) };
                let delay = self.rng.random_range(0..100);
                self.after(delay, Action::Probed { nonce, sent });
            }
            Effect::Witness { .. } | Effect::Dismiss { .. } => {}
            Effect::Reset { .. } => {
                if self.connected {
                    self.lose();
                }
            }
        }
    }

    pub(super) fn settle(&mut self, touched: &[Touched]) -> Vec<Result<Answer, BadFeed>> {
        touched.iter().map(|touched| self.redis.settle(touched)).collect()
    }
}
