//! A listener that keeps the whole tree, and counts what came of each event.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    light::Listener,
    tree::{Effect, Tree},
};

/// What a `resume` may be long: a gateway takes 64 KiB in a message.
const RESUME: usize = 60 << 10;

/// How much of an event is quoted.
const QUOTE: usize = 200;

/// A client's tree, and its account.
#[derive(Debug)]
pub struct Follower {
    /// What it shows.
    pub tree: Tree,
    /// What was done to it.
    pub counts: Counts,
    /// The first thing that came and that no server may send.
    pub broken: Option<String>,
    /// The first event that left the tree as it was.
    pub repeat: Option<String>,
}

/// What was done to a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often it began anew.
    pub initials: u64,
    /// How often it went on where it had been.
    pub resumes: u64,
    /// Feeds that a `resume` left, or brought up to date by events.
    pub resumed: u64,
    /// Feeds that a `resume` brought anew.
    pub reset: u64,
    /// Events about items that left the tree as it was.
    pub repeats: u64,
    /// Events about feeds that are not held.
    pub strays: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.initials += other.initials;
        self.resumes += other.resumes;
        self.resumed += other.resumed;
        self.reset += other.reset;
        self.repeats += other.repeats;
        self.strays += other.strays;
    }
}

#[derive(Debug, Deserialize)]
struct Answer<'a> {
    code: u16,
    #[serde(default)]
    resumed: u64,
    #[serde(default)]
    reset: u64,
    #[serde(borrow)]
    collection: Option<&'a RawValue>,
}

impl Follower {
    /// Begins with nothing; the user's own model will answer to this feed.
    #[must_use]
    pub fn new(user_feed: &str) -> Self {
        Self { tree: Tree::new(user_feed), counts: Counts::default(), broken: None, repeat: None }
    }

    fn answered(&mut self, event: &str, answer: &Answer<'_>) -> Result<(), String> {
        match (event, answer.code, answer.collection) {
            ("resume", 200, _) => {
                // Without a feed named or brought, the answer was an `initial`.
                self.counts.resumes += u64::from(answer.resumed + answer.reset > 0);
                self.counts.resumed += answer.resumed;
                self.counts.reset += answer.reset;
                Ok(())
            }
            ("resume", code, _) => Err(format!("resume was answered {code}")),
            ("subscribe", 200, Some(collection)) => {
                self.tree.subscribed(collection.get()).map_err(|broken| broken.to_string())
            }
            _ => Ok(()),
        }
    }
}

impl Listener for Follower {
    fn resume(&mut self) -> String {
        self.tree.resume(RESUME)
    }

    fn event(&mut self, name: &str, argument: &str) {
        if !Tree::knows(name) {
            return;
        }
        match self.tree.apply(name, argument) {
            Ok(Effect::Changed) if name == "initial" => self.counts.initials += 1,
            // A `reset` may bring what is held: its feed's version was forgotten.
            Ok(effect) if effect.is_repeat() && name != "reset" => {
                self.counts.repeats += 1;
                self.repeat.get_or_insert_with(|| quoted(name, argument));
            }
            Ok(Effect::NoFeed) => self.counts.strays += 1,
            Ok(_) => {}
            Err(broken) => {
                self.broken.get_or_insert_with(|| format!("{}: {broken}", quoted(name, argument)));
            }
        }
    }

    fn answer(&mut self, event: &str, argument: &str, answer: &str) {
        let read = serde_json::from_str(answer).map_err(|error| error.to_string());
        if let Err(broken) = read.and_then(|read| self.answered(event, &read)) {
            self.broken.get_or_insert_with(|| format!("{event} {argument}: {broken}"));
        }
    }
}

fn quoted(name: &str, argument: &str) -> String {
    format!("{name} {}", argument.chars().take(QUOTE).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_counted_by_what_it_did() {
        let mut follower = Follower::new("users");
        assert_eq!(follower.resume(), r#"{"feeds":{}}"#);
        follower.event("initial", r#"{"attrs":{"id":"ann"}}"#);
        follower.answer("resume", "", r#"{"code":200,"resumed":0,"reset":0}"#);
        let collection = r#"{"code":200,"collection":{"id":"x","v":null,"models":[]}}"#;
        follower.answer("subscribe", "", collection);
        follower.answer("subscribe", "", r#"{"code":403,"error":"no"}"#);
        let publish = r#"{"feed":"x","id":"1","item":1,"v":null}"#;
        follower.event("publish", publish);
        follower.event("publish", publish);
        follower.event("publish", r#"{"feed":"y","id":"1","item":1,"v":null}"#);
        follower.event(
            "reset",
            r#"{"feed":"x","parent":null,"name":null,"collection":
            {"id":"x","v":null,"models":[{"id":"1","attrs":{"value":1}}]}}"#,
        );
        follower.event("other", "");
        follower.answer("resume", "", r#"{"code":200,"resumed":3,"reset":1}"#);
        assert_eq!(
            follower.counts,
            Counts { initials: 1, resumes: 1, resumed: 3, reset: 1, repeats: 1, strays: 1 }
        );
        assert_eq!(follower.broken, None);
        assert_eq!(follower.repeat, Some(format!("publish {publish}")));
        follower.answer("resume", "", r#"{"code":409}"#);
        assert!(follower.broken.is_some());
    }
}
