//! What one client of the drop benchmark notes, and what all note together.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::FEED;
use crate::{
    follower::Follower,
    latency::Latency,
    light::{Listener, Lost},
    receipts::Receipts,
    stamp::{self, Stamp},
};

/// What all clients write on.
#[derive(Debug)]
pub(super) struct Tally {
    run: u64,
    began: Instant,
    entered: AtomicU64,
    arrived: AtomicU64,
    /// Each held for one note.
    replayed: Mutex<Latency>,
    live: Mutex<Latency>,
}

impl Tally {
    pub(super) fn new(run: u64) -> Self {
        Self {
            run,
            began: Instant::now(),
            entered: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            replayed: Mutex::default(),
            live: Mutex::default(),
        }
    }

    pub(super) fn stamp(&self, number: usize) -> Stamp {
        Stamp { run: self.run, number, nanos: self.now() }
    }

    /// How many clients have ever shown something.
    pub(super) fn entered(&self) -> u64 {
        self.entered.load(Relaxed)
    }

    /// How many pairs of a client and an item have come to be.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    pub(super) fn replayed(&self) -> Latency {
        self.replayed.lock().expect("no holder of this lock panics").clone()
    }

    pub(super) fn live(&self) -> Latency {
        self.live.lock().expect("no holder of this lock panics").clone()
    }

    fn note(&self, stamp: Stamp, is_live: bool) {
        let took = Duration::from_nanos(self.now().saturating_sub(stamp.nanos));
        let latency = if is_live { &self.live } else { &self.replayed };
        latency.lock().expect("no holder of this lock panics").record(took);
        self.arrived.fetch_add(1, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What one client shows, and what came to it.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) follower: Follower,
    pub(super) receipts: Receipts,
    /// Items that came again within a whole state.
    pub(super) again: u64,
    /// Connections that ended without having been cut.
    pub(super) lost: Vec<Lost>,
    tally: Arc<Tally>,
    has_entered: bool,
    /// Whether it is up to date since it connected: what comes from there on is live.
    is_live: bool,
}

impl Notes {
    pub(super) fn new(items: usize, tally: Arc<Tally>) -> Self {
        Self {
            follower: Follower::new("users"),
            receipts: Receipts::of(items),
            again: 0,
            lost: Vec::new(),
            tally,
            has_entered: false,
            is_live: false,
        }
    }

    /// The first thing that went wrong.
    pub(super) fn trouble(&self) -> Option<String> {
        self.follower.broken.clone().or_else(|| self.lost.first().map(ToString::to_string))
    }

    fn caught_up(&mut self) {
        self.is_live = true;
        if !self.has_entered && self.follower.tree.feed(FEED).is_some() {
            self.has_entered = true;
            self.tally.entered.fetch_add(1, Relaxed);
        }
    }
}

impl Listener for Notes {
    fn resume(&mut self) -> String {
        self.follower.resume()
    }

    fn event(&mut self, name: &str, argument: &str) {
        match name {
            "publish" => {
                if let Some(stamp) = Stamp::find(argument)
                    && self.receipts.note(stamp.number)
                {
                    self.tally.note(stamp, self.is_live);
                }
            }
            "initial" | "reset" => {
                for stamp in stamp::find_all(argument) {
                    if self.receipts.note_state(stamp.number) {
                        self.tally.note(stamp, self.is_live);
                    } else {
                        self.again += 1;
                    }
                }
            }
            _ => {}
        }
        self.follower.event(name, argument);
        if name == "initial" {
            self.caught_up();
        }
    }

    fn answer(&mut self, event: &str, argument: &str, answer: &str) {
        self.follower.answer(event, argument, answer);
        if event == "resume" {
            self.caught_up();
        }
    }

    fn connected(&mut self) {
        self.is_live = false;
    }

    fn lost(&mut self, why: &Lost) {
        if *why != Lost::Cut {
            self.lost.push(why.clone());
        }
    }
}
