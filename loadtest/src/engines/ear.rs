//! A client that keeps nothing but the number of the next event.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::light::{Listener, Lost};

/// Before the number in an item.
const KEY: &str = "\"number\":";

/// Writes an item that an [`Ear`] can place.
pub(super) fn item(number: u32, padding: usize) -> String {
    format!(r#"{{{KEY}{number},"title":"{}"}}"#, "x".repeat(padding))
}

/// What all clients of a stage write on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    entered: AtomicU64,
    /// Events that came where they should.
    heard: AtomicU64,
    /// Events that came twice or out of order.
    odd: AtomicU64,
    /// Connections that ended, and why the first did; held for one note.
    lost: Mutex<(u64, Option<String>)>,
}

impl Tally {
    pub(super) fn entered(&self) -> u64 {
        self.entered.load(Relaxed)
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    pub(super) fn odd(&self) -> u64 {
        self.odd.load(Relaxed)
    }

    /// Returns how many connections ended, and why the first did.
    pub(super) fn lost(&self) -> (u64, Option<String>) {
        self.lost.lock().expect("no holder of this lock panics").clone()
    }
}

/// Hears one feed's numbered items; nothing else says `number`.
#[derive(Debug)]
pub(super) struct Ear {
    tally: Arc<Tally>,
    next: u32,
}

impl Ear {
    pub(super) const fn new(tally: Arc<Tally>) -> Self {
        Self { tally, next: 0 }
    }
}

impl Listener for Ear {
    fn resume(&mut self) -> String {
        String::new()
    }

    fn event(&mut self, name: &str, argument: &str) {
        if name == "initial" {
            self.tally.entered.fetch_add(1, Relaxed);
        } else if let Some(number) = number(argument) {
            let is_next = number == self.next;
            let count = if is_next { &self.tally.heard } else { &self.tally.odd };
            count.fetch_add(1, Relaxed);
            self.next = number + 1;
        }
    }

    fn lost(&mut self, why: &Lost) {
        // Being cut is what this program does itself.
        if *why != Lost::Cut {
            let mut lost = self.tally.lost.lock().expect("no holder of this lock panics");
            lost.0 += 1;
            lost.1.get_or_insert_with(|| why.to_string());
        }
    }
}

fn number(argument: &str) -> Option<u32> {
    let rest = argument.split_once(KEY)?.1;
    let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_placed() {
        let tally = Arc::new(Tally::default());
        let mut ear = Ear::new(tally.clone());
        ear.event("initial", "{}");
        for number in [0, 1, 1, 2, 4, 5] {
            let item = item(number, 3);
            ear.event("publish", &format!(r#"{{"feed":"x","id":"{number}","item":{item}}}"#));
        }
        ear.event("retract", r#"{"feed":"x","id":"1"}"#);
        ear.lost(&Lost::Cut);
        ear.lost(&Lost::Closed);
        assert_eq!((tally.entered(), tally.heard(), tally.odd()), (1, 4, 2));
        assert_eq!(tally.lost(), (1, Some("closed by the server".to_owned())));
    }
}
