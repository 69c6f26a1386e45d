//! Random histories of feeds, told well and badly, held against what is true.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shard_router::feed::{Content, Kind, Position, Settled, Touched};

use super::{Applied, Mirror, Notice, Repair, Version, literal, literal::Client};

/// Cases of each property below; with 100,000 seeded histories they run in seconds.
const CASES: u32 = 256;
const HISTORIES: u64 = 100_000;
/// One in so many of them is told badly as well, which takes longer.
const TOLD_BADLY: u64 = 4;

/// Few ids, so that histories meet; odd ones, as only other writers use them.
const IDS: [&str; 14] =
    ["1", "2", "3", "4", "5", "6", "7", "é", "a:b", "end", "x:", "begin", "", ":1"];
/// How many of them can stand before a place.
const TELLABLE: usize = 11;

/// One write, from numbers of any size: what, to which id, which item, where.
type Write = (u8, u8, u8, u8);

/// What happens to a notice on its way.
type Fate = u8;

/// The feed as it is in Redis.
struct Truth {
    content: Content,
}

impl Truth {
    fn empty(kind: Kind) -> Self {
        Self { content: Content { kind, entries: Vec::new(), bad_ids: 0 } }
    }

    /// Carries out a write and returns what its writer announces.
    fn write(&mut self, (verb, id, item, place): Write, ids: &[&str]) -> Vec<Notice> {
        let id = ids[usize::from(id) % ids.len()].to_owned();
        let item = Bytes::from(format!("{{\"n\":{}}}", item % 4));
        let entries = &mut self.content.entries;
        let known = entries.iter().position(|(held, _)| *held == id);
        match (verb % 5, known) {
            (0 | 1, Some(at)) => {
                entries[at].1 = item.clone();
                let is_publish = verb % 5 == 0;
                if is_publish {
                    vec![Notice::Publish { id, item }]
                } else {
                    vec![Notice::Edit { id, item }]
                }
            }
            (2, Some(at)) => {
                entries.remove(at);
                vec![Notice::Retract { id }]
            }
            (3, None) => vec![Notice::Retract { id }],
            (3 | 4, Some(at)) if self.content.kind == Kind::Sorted => {
                let entry = entries.remove(at);
                vec![self.insert(entry, place)]
            }
            (3 | 4, Some(_)) => Vec::new(),
            (_, None) if self.content.kind == Kind::Sorted => {
                let publish = Notice::Publish { id: id.clone(), item: item.clone() };
                vec![publish, self.insert((id, item), place)]
            }
            (_, None) => {
                entries.push((id.clone(), item.clone()));
                vec![Notice::Publish { id, item }]
            }
            (5.., Some(_)) => unreachable!("a verb is below five"),
        }
    }

    fn insert(&mut self, entry: (String, Bytes), place: u8) -> Notice {
        let (entries, id) = (&mut self.content.entries, entry.0.clone());
        let neighbour = |entries: &[(String, Bytes)]| {
            let at = usize::from(place / 4) % entries.len();
            (at, entries[at].0.clone())
        };
        let (at, position) = match place % 4 {
            0 if !entries.is_empty() => {
                let (at, next) = neighbour(entries);
                (at, Position::Before(next))
            }
            1 if !entries.is_empty() => {
                let (at, previous) = neighbour(entries);
                (at + 1, Position::After(previous))
            }
            2 => (0, Position::Begin),
            _ => (entries.len(), Position::End),
        };
        entries.insert(at, entry);
        Notice::Position { id, position }
    }

    /// Answers a settling read; `noise` lists ids that are no content.
    fn settled(&self, touched: &Touched, noise: bool) -> Settled {
        let entries = &self.content.entries;
        let item = |id: &String| Some(entries.iter().find(|(held, _)| held == id)?.1.clone());
        let mut order: Vec<Bytes> =
            entries.iter().map(|(id, _)| Bytes::from(id.clone().into_bytes())).collect();
        if noise {
            order.insert(0, Bytes::from_static(b"\xff"));
            order.insert(0, Bytes::from_static(b"n\0ul"));
            order.extend_from_within(2..);
        }
        let order = (self.content.kind == Kind::Sorted).then_some(order);
        Settled { kind: self.content.kind, items: touched.ids.iter().map(item).collect(), order }
    }
}

/// A mirror and a client that hears all it tells.
struct Heard {
    mirror: Mirror,
    client: Client,
    /// Clients that left, with the version of what they hold.
    away: Vec<(Client, Version)>,
    heard: usize,
}

impl Heard {
    fn new(content: &Content) -> Self {
        let mirror = Mirror::new(content);
        let client = Client::shown(&mirror);
        Self { mirror, client, away: Vec::new(), heard: 0 }
    }

    /// Lets a client leave now and then; it hears nothing more.
    fn leave_some(&mut self) {
        self.heard += 1;
        if self.heard.is_multiple_of(5) {
            self.away.push((self.client.clone(), self.mirror.version()));
        }
    }

    /// Lets everybody come back: the events since what each holds lead to what is held now.
    fn return_all(&self) {
        for (client, v) in &self.away {
            if let Some(events) = self.mirror.since(*v) {
                let mut client = client.clone();
                events.for_each(|event| client.catch_up(event));
                client.check_same(&self.client);
            }
        }
    }

    /// Follows a notice; returns whether it was doubted, and then checks that nothing changed.
    fn apply(&mut self, notice: &Notice) -> bool {
        self.leave_some();
        match self.mirror.apply(notice) {
            Applied::Nothing | Applied::Held => false,
            Applied::Event(event) => {
                self.client.apply(&event);
                assert_eq!(event.v, self.mirror.version());
                false
            }
            Applied::Doubt(_) => {
                assert!(!self.mirror.has_held());
                self.check_in_step();
                true
            }
        }
    }

    fn repair(&mut self, repair: &Repair) {
        match repair {
            Repair::Nothing => self.client.follow(self.mirror.kind()),
            Repair::Events(events) => {
                assert!(!events.is_empty() && events.len() <= self.mirror.len());
                self.client.follow(self.mirror.kind());
                for event in events {
                    self.client.apply(event);
                }
            }
            Repair::Reset => self.client = Client::shown(&self.mirror),
        }
        self.check_in_step();
    }

    /// Checks that the client shows what the mirror holds, under the version it has.
    fn check_in_step(&self) {
        let entries: Vec<(String, Bytes)> = self
            .mirror
            .iter()
            .map(|(id, item)| (id.to_owned(), Bytes::copy_from_slice(item)))
            .collect();
        let version = literal::version(self.mirror.kind(), &entries);
        assert_eq!(self.mirror.version().to_string(), version);
        let mut previous = None;
        for (id, item) in &entries {
            assert_eq!(self.mirror.get(id), Some(&**item));
            assert_eq!(self.mirror.before(id), previous);
            previous = Some(id);
        }
        self.client.check(&Content { kind: self.mirror.kind(), entries, bad_ids: 0 });
    }

    fn check(&self, truth: &Truth) {
        self.check_in_step();
        self.return_all();
        self.client.check(&truth.content);
        assert_eq!(self.mirror.kind(), truth.content.kind);
    }
}

/// Every notice comes, once and in order.
fn told_well(kind: Kind, writes: &[Write]) {
    let mut truth = Truth::empty(kind);
    let mut heard = Heard::new(&truth.content);
    for write in writes {
        for notice in truth.write(*write, &IDS[..TELLABLE]) {
            assert!(!heard.apply(&notice), "{notice:?} fits");
        }
    }
    heard.check(&truth);
}

/// Notices are lost, swapped and late; some doubts are read at once, and in the end all is
/// settled.
fn told_badly(kind: Kind, writes: &[Write], fates: &[Fate]) {
    let mut truth = Truth::empty(kind);
    let mut heard = Heard::new(&truth.content);
    let mut touched = Touched { feed: "feed".to_owned(), ids: Vec::new() };
    let mut late = Vec::new();
    let mut fates = fates.iter().cycle();
    for write in writes {
        let mut notices = truth.write(*write, &IDS);
        for notice in &notices {
            if !touched.ids.iter().any(|id| id == notice.id()) {
                touched.ids.push(notice.id().to_owned());
            }
        }
        let fate = fates.next().expect("fates go round");
        match fate % 8 {
            0 => notices.clear(),
            1 => notices.truncate(1),
            2 => notices.reverse(),
            3 => late.append(&mut notices),
            4 => notices.append(&mut late),
            _ => {}
        }
        let doubted = notices.iter().filter(|notice| heard.apply(notice)).count() > 0;
        if doubted && *fate >= 128 {
            let repair = heard.mirror.replace(&truth.content);
            heard.repair(&repair);
            heard.check(&truth);
        }
    }
    for notice in &late {
        heard.apply(notice);
    }

    let few =
        Touched { feed: "feed".to_owned(), ids: touched.ids.iter().take(2).cloned().collect() };
    match heard.mirror.settle(&few, &truth.settled(&few, true)) {
        Ok(repair) => heard.repair(&repair),
        Err(_) => heard.check_in_step(),
    }
    let repair = heard
        .mirror
        .settle(&touched, &truth.settled(&touched, writes.len().is_multiple_of(2)))
        .expect("whatever is listed was asked");
    heard.repair(&repair);
    heard.check(&truth);
    let again = heard.mirror.settle(&touched, &truth.settled(&touched, false));
    assert_eq!(again, Ok(Repair::Nothing));
    assert_eq!(heard.mirror.replace(&truth.content), Repair::Nothing);
}

/// One content becomes another.
fn replaced(old: &Content, new: &Content) {
    let mut heard = Heard::new(old);
    heard.away.push((heard.client.clone(), heard.mirror.version()));
    let repair = heard.mirror.replace(new);
    heard.repair(&repair);
    heard.client.check(new);
    heard.return_all();

    let gets_or_loses_order = old.kind != new.kind && old.entries.len() > 1;
    let fewest = fewest_events(old, new);
    match repair {
        Repair::Nothing => assert_eq!(fewest, 0),
        Repair::Events(events) => assert_eq!(events.len(), fewest),
        Repair::Reset => {
            let has_odd_ids = new.entries.iter().any(|(id, _)| IDS[TELLABLE..].contains(&&**id));
            assert!(fewest > new.entries.len() || gets_or_loses_order || has_odd_ids);
        }
    }
}

/// Counts what differs, finding the items that may stay by the longest common subsequence.
fn fewest_events(old: &Content, new: &Content) -> usize {
    let find = |content: &Content, id: &str| {
        content.entries.iter().find(|(held, _)| held == id).map(|(_, item)| item.clone())
    };
    let ids = |content: &Content, other: &Content| -> Vec<String> {
        let ids = content.entries.iter().map(|(id, _)| id.clone());
        ids.filter(|id| find(other, id).is_some()).collect()
    };
    let (old_kept, new_kept) = (ids(old, new), ids(new, old));
    let changes = old_kept.iter().filter(|id| find(old, id) != find(new, id)).count();
    let mut common = vec![vec![0; new_kept.len() + 1]; old_kept.len() + 1];
    for (row, old_id) in old_kept.iter().enumerate() {
        for (column, new_id) in new_kept.iter().enumerate() {
            common[row + 1][column + 1] = if old_id == new_id {
                common[row][column] + 1
            } else {
                common[row][column + 1].max(common[row + 1][column])
            };
        }
    }
    let kept = old_kept.len();
    let shifts = if new.kind == Kind::Sorted { kept - common[kept][kept] } else { 0 };
    old.entries.len() - kept + changes + shifts + new.entries.len() - kept
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Plain), Just(Kind::Sorted)]
}

/// Up to thirty items in any order, now and then with odd ids.
fn content() -> impl Strategy<Value = Content> {
    let ids = || (0..30usize).map(|id| format!("{id}"));
    let odd_ids = || IDS[..].iter().map(|id| (*id).to_owned());
    let ids = prop_oneof![
        4 => Just(ids().collect::<Vec<_>>()),
        1 => Just(odd_ids().collect::<Vec<_>>()),
    ];
    let ids = ids.prop_shuffle();
    (kind(), ids, vec(0..3u8, 30), 0..=30usize).prop_map(|(kind, ids, items, count)| {
        let items = items.into_iter().map(|item| Bytes::from(item.to_string()));
        Content { kind, entries: ids.into_iter().zip(items).take(count).collect(), bad_ids: 0 }
    })
}

/// A content, and another that a few writes led to.
fn contents() -> impl Strategy<Value = (Content, Content)> {
    (content(), vec(any::<Write>(), 0..12)).prop_map(|(old, writes)| {
        let ids: Vec<String> = (0..33).map(|id: u8| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut truth = Truth { content: old.clone() };
        for write in writes {
            truth.write(write, &ids);
        }
        (old, truth.content)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn events_lead_where_writes_lead(kind in kind(), writes in vec(any::<Write>(), 0..60)) {
        told_well(kind, &writes);
    }

    #[test]
    fn settling_heals_what_was_lost_late_or_swapped(
        kind in kind(),
        writes in vec(any::<Write>(), 0..60),
        fates in vec(any::<Fate>(), 1..20),
    ) {
        told_badly(kind, &writes, &fates);
    }

    #[test]
    fn any_content_becomes_any_other_by_the_fewest_events(old in content(), new in content()) {
        replaced(&old, &new);
    }

    #[test]
    fn a_content_becomes_a_later_one_by_the_fewest_events((old, new) in contents()) {
        replaced(&old, &new);
    }
}

#[test]
fn a_feed_that_shrinks_is_followed_on() {
    for kind in [Kind::Plain, Kind::Sorted] {
        let entries = (0..300).map(|id: u32| (id.to_string(), Bytes::from_static(b"item")));
        let mut truth = Truth { content: Content { kind, entries: entries.collect(), bad_ids: 0 } };
        let mut heard = Heard::new(&truth.content);
        for (id, _) in truth.content.entries.split_off(5) {
            heard.apply(&Notice::Retract { id });
        }
        heard.check(&truth);
        for write in [(4, 7, 1, 0), (4, 8, 2, 1), (0, 0, 3, 0), (4, 2, 0, 2)] {
            for notice in truth.write(write, &IDS[..TELLABLE]) {
                assert!(!heard.apply(&notice), "{notice:?} fits");
            }
        }
        heard.check(&truth);
    }
}

#[test]
fn many_seeded_histories_end_as_they_should() {
    for seed in 0..HISTORIES {
        let mut rng = StdRng::seed_from_u64(seed);
        let kind = if rng.random() { Kind::Plain } else { Kind::Sorted };
        let count = rng.random_range(0..40);
        let writes: Vec<Write> = (0..count).map(|_| rng.random()).collect();
        let fates: Vec<Fate> = (0..20).map(|_| rng.random()).collect();
        told_well(kind, &writes);
        if seed.is_multiple_of(TOLD_BADLY) {
            told_badly(kind, &writes, &fates);
        }
    }
}
