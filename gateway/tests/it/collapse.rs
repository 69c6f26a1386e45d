//! Random mailboxes: whatever is dropped, a literal client ends as if nothing had been.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use gateway::{
    hub::frame::{About, Format, Frame},
    mirror::{Change, Version},
    outbox::{CloseReason, Mailbox, Outbox, Outgoing, mailbox},
    snapshot::{event_json, item_event_json},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use shard_router::feed::Position;

/// `sorted` keeps an order; `plain` and `teams` do not, and the items of `teams` stand alone.
const FEEDS: [&str; 3] = ["sorted", "plain", "teams"];

/// What `null` is shorter than a version.
const SHORTER: usize = 22;

#[derive(Debug, Clone)]
enum Step {
    Publish { feed: usize, at: usize },
    Change { feed: usize, item: usize },
    Hammer { feed: usize, item: usize, times: usize },
    Retract { feed: usize, item: usize },
    Move { item: usize, behind: usize },
    Lone { item: usize },
    Reset { feed: usize },
    Emit,
    Answer,
    Read(usize),
    Written,
}

fn step() -> impl Strategy<Value = Step> {
    let (feed, at) = (0_usize..2, 0_usize..6);
    prop_oneof![
        6 => (feed.clone(), at.clone()).prop_map(|(feed, at)| Step::Publish { feed, at }),
        9 => (feed.clone(), at.clone()).prop_map(|(feed, item)| Step::Change { feed, item }),
        2 => (feed.clone(), at.clone(), 1_usize..700)
            .prop_map(|(feed, item, times)| Step::Hammer { feed, item, times }),
        3 => (feed.clone(), at.clone()).prop_map(|(feed, item)| Step::Retract { feed, item }),
        3 => (at.clone(), at.clone()).prop_map(|(item, behind)| Step::Move { item, behind }),
        3 => at.prop_map(|item| Step::Lone { item }),
        1 => feed.prop_map(|feed| Step::Reset { feed }),
        1 => Just(Step::Emit),
        1 => Just(Step::Answer),
        4 => (1_usize..20).prop_map(Step::Read),
        1 => Just(Step::Written),
    ]
}

/// Ids and items, in order.
pub type Items = Vec<(String, String)>;

pub fn version(feed: usize, items: &Items) -> String {
    let (mut sum, mut before) = (Version::EMPTY, "");
    for (id, item) in items {
        sum.add(Version::of_item(before, id, item.as_bytes()));
        if feed == 0 {
            before = id;
        }
    }
    sum.to_string()
}

/// What was offered and not read.
struct Waits {
    frame: Frame,
    /// The newest of these is not to be dropped.
    item: Option<About>,
}

/// A gateway that is right, and a client that does what it is told.
struct Scene {
    bound: usize,
    outbox: Outbox,
    mailbox: Mailbox,
    truth: [Items; 3],
    shown: [Items; 3],
    waits: VecDeque<Waits>,
    count: usize,
    was_over: bool,
    snapshots: usize,
    largest: usize,
}

impl Scene {
    fn new(bound: usize) -> Self {
        let (outbox, mailbox) = mailbox(bound);
        let teams: Items = (0..6).map(|id| (id.to_string(), "{}".to_owned())).collect();
        let truth = [Items::new(), Items::new(), teams];
        Self {
            bound,
            outbox,
            mailbox,
            shown: truth.clone(),
            truth,
            waits: VecDeque::new(),
            count: 0,
            was_over: false,
            snapshots: 0,
            largest: 0,
        }
    }

    fn item(&mut self) -> String {
        self.count += 1;
        format!(r#"{{"own":{},"v":"{:024x}"}}"#, self.count, self.count)
    }

    /// Does one thing; `false` when the client was closed.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Publish { feed, at } => {
                let free = (0..8).map(|id| id.to_string());
                let held = |id: &String| self.truth[feed].iter().all(|(other, _)| other != id);
                let Some(id) = free.into_iter().find(held) else { return true };
                let item = self.item();
                let at = if feed == 0 { at % (self.truth[feed].len() + 1) } else { 0 };
                self.truth[feed].insert(at, (id.clone(), item.clone()));
                let position = (feed == 0).then(|| self.position(at));
                let change = Change::Publish { id: id.into(), item: Bytes::from(item), position };
                self.tell(feed, &change)
            }
            Step::Change { feed, item } => self.change(feed, item),
            Step::Hammer { feed, item, times } => (0..times).all(|_| self.change(feed, item)),
            Step::Retract { feed, item } => {
                let Some(at) = self.pick(feed, item) else { return true };
                let id = self.truth[feed].remove(at).0.into();
                self.tell(feed, &Change::Retract { id })
            }
            Step::Move { item, behind } => {
                let Some(from) = self.pick(0, item) else { return true };
                let moved = self.truth[0].remove(from);
                let to = behind % (self.truth[0].len() + 1);
                let id = moved.0.clone().into();
                self.truth[0].insert(to, moved);
                let position = self.position(to);
                self.tell(0, &Change::Position { id, position })
            }
            Step::Lone { item } => {
                let text = self.item();
                let (id, held) = &mut self.truth[2][item];
                held.clone_from(&text);
                let about = About::Lone { feed: "teams".into(), id: id.as_str().into() };
                let v = Version::of_one(id, text.as_bytes());
                let json = item_event_json("teams", id, text.as_bytes(), v);
                let frame = Frame::of_feed(about.clone(), "change", json);
                self.offer(frame, Some(about))
            }
            Step::Reset { feed } => {
                let json = json!({ "feed": feed, "items": self.truth[feed] });
                self.offer(Frame::snapshot("reset", json.to_string()), None)
            }
            // A backend may call its own events what it likes.
            Step::Emit => {
                let json = json!({ "feed": "none", "id": "1", "v": "1" });
                self.offer(Frame::event("change", json.to_string()), None)
            }
            Step::Answer => {
                let _ = self.outbox.ack(7, Frame::event("ack", "{}"));
                self.waits.push_back(Waits { frame: Frame::event("ack", "{}"), item: None });
                self.judge()
            }
            Step::Read(count) => {
                for _ in 0..count {
                    self.read();
                }
                true
            }
            Step::Written => {
                self.mailbox.let_go(std::mem::take(&mut self.snapshots));
                true
            }
        }
    }

    fn pick(&self, feed: usize, item: usize) -> Option<usize> {
        let count = self.truth[feed].len();
        (count > 0).then(|| item % count)
    }

    fn position(&self, at: usize) -> Position {
        match at.checked_sub(1) {
            Some(before) => Position::After(self.truth[0][before].0.clone()),
            None => Position::Begin,
        }
    }

    fn change(&mut self, feed: usize, item: usize) -> bool {
        let Some(at) = self.pick(feed, item) else { return true };
        let text = self.item();
        let (id, held) = &mut self.truth[feed][at];
        held.clone_from(&text);
        let change = Change::Change { id: id.as_str().into(), item: Bytes::from(text) };
        self.tell(feed, &change)
    }

    fn tell(&mut self, feed: usize, change: &Change) -> bool {
        let name: Arc<str> = FEEDS[feed].into();
        let v = version(feed, &self.truth[feed]).parse().unwrap();
        let (verb, json) = event_json(&name, change, Some(v));
        let about = match change {
            Change::Change { id, .. } => About::Change { feed: name, id: id.clone() },
            _ => About::Feed(name),
        };
        let item = about.is_change().then(|| about.clone());
        self.offer(Frame::of_feed(about, verb, json), item)
    }

    fn offer(&mut self, frame: Frame, item: Option<About>) -> bool {
        self.largest = self.largest.max(frame.snapshot_bytes());
        let _ = self.outbox.offer(&frame);
        self.waits.push_back(Waits { frame, item });
        self.judge()
    }

    /// Holds what the mailbox did against a count of all that waits.
    fn judge(&mut self) -> bool {
        let (mut newest, mut least, mut all) = (HashMap::new(), 0, 0);
        for waits in &self.waits {
            let weight = waits.frame.weight();
            all += weight;
            if let Some(item) = &waits.item {
                let before = newest.insert(item, weight);
                least -= before.unwrap_or(0);
            }
            least += weight;
        }
        self.was_over |= all > self.bound;
        let closed = self.outbox.closed();
        match closed {
            Some(reason) => {
                assert_eq!(reason, CloseReason::Slow);
                assert!(least > self.bound, "{least} could have waited");
            }
            None => {
                let least = least.saturating_sub(self.waits.len() * SHORTER);
                assert!(least <= self.bound + self.largest, "{least} wait");
            }
        }
        closed.is_none()
    }

    /// Reads one thing, and does what it says.
    fn read(&mut self) -> Option<()> {
        let frame = match self.mailbox.try_next()? {
            Outgoing::Event(frame) => frame,
            Outgoing::Ack(_, frame) => frame,
            Outgoing::Letter(letter) => panic!("not offered here: {letter:?}"),
            Outgoing::Close(reason) => panic!("closed: {reason:?}"),
        };
        self.snapshots += frame.snapshot_bytes();
        let told: Value = serde_json::from_str(frame.json(Format::Utf8)).unwrap();
        self.pass_over(&told);
        if frame.name() == "reset" {
            let feed = usize::try_from(told["feed"].as_u64().unwrap()).unwrap();
            self.shown[feed] = serde_json::from_value(told["items"].clone()).unwrap();
            return Some(());
        }
        let feed = FEEDS.iter().position(|feed| told["feed"] == *feed);
        let Some(feed) = feed else { return Some(()) };
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let item = told.get("item").map(Value::to_string);
        apply(&mut self.shown[feed], frame.name(), &text("id"), item, told["position"].as_str());
        let expected = match feed {
            2 => {
                let (id, item) = self.shown[2].iter().find(|(id, _)| *id == text("id")).unwrap();
                Version::of_one(id, item.as_bytes()).to_string()
            }
            _ => version(feed, &self.shown[feed]),
        };
        match told["v"].as_str() {
            Some(v) => assert_eq!(v, expected, "{told}"),
            None => assert!(self.was_over && feed != 2, "{told} has no version for no reason"),
        }
        Some(())
    }

    /// Finds what was read among what was offered: only superseded changes are skipped.
    fn pass_over(&mut self, told: &Value) {
        loop {
            let waits = self.waits.pop_front().expect("what is read was offered");
            let mut offered: Value = serde_json::from_str(waits.frame.json(Format::Utf8)).unwrap();
            if told["v"].is_null() && offered.get("v").is_some() {
                offered["v"] = Value::Null;
            }
            if offered == *told {
                return;
            }
            let superseded = waits.item.as_ref().is_some_and(|item| {
                self.waits.iter().any(|newer| newer.item.as_ref() == Some(item))
            });
            assert!(superseded && self.was_over, "{offered} was dropped before {told}");
        }
    }
}

/// Does what one event says, literally.
pub fn apply(
    items: &mut Items,
    verb: &str,
    id: &str,
    item: Option<String>,
    position: Option<&str>,
) {
    let place = |items: &Items| match position {
        None => items.len(),
        Some("begin:") => 0,
        Some(after) => {
            let after = after.strip_suffix(':').expect("it says behind whom");
            items.iter().position(|(held, _)| held == after).expect("it is held") + 1
        }
    };
    let held = items.iter().position(|(held, _)| held == id);
    match verb {
        "publish" => {
            assert_eq!(held, None, "only what is new is published");
            items.insert(place(items), (id.to_owned(), item.unwrap()));
        }
        "change" => items[held.expect("it is held")].1 = item.unwrap(),
        "retract" => drop(items.remove(held.expect("it is held"))),
        "position" => {
            let moved = items.remove(held.expect("it is held"));
            items.insert(place(items), moved);
        }
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_of_a_full_mailbox_ends_as_if_nothing_had_been_dropped(
        bound in 600_usize..40_000,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut scene = Scene::new(bound);
        let is_open = steps.into_iter().all(|step| scene.step(step));
        if is_open {
            while scene.read().is_some() {}
            scene.truth[1].sort();
            scene.shown[1].sort();
            prop_assert_eq!(&scene.shown, &scene.truth);
            prop_assert!(scene.waits.is_empty());
        }
    }
}
