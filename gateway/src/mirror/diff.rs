//! Repair by difference: the fewest events from what is held to what was read.

use std::{
    collections::{HashMap, HashSet},
    str,
    sync::Arc,
};

use bytes::Bytes;
use shard_router::feed::{Content, Kind, Settled, Touched};

use super::{Doubt, Event, Mirror, Repair, order::Place, owned};

/// What has to be done to a mirror.
#[derive(Debug, Default)]
struct Plan<'a> {
    retracts: Vec<Place>,
    changes: Vec<(Place, &'a Bytes)>,
    /// From the first place of the new order to the last.
    steps: Vec<Step<'a>>,
    /// Listed ids of which neither the mirror nor the read has the item.
    unread: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// This item stands where it should once all others do.
    Stay(Place),
    /// This item goes right behind the one of the step before.
    Shift(Place),
    /// This item appears right behind the one of the step before.
    Publish(&'a str, &'a Bytes),
}

impl Mirror {
    /// Makes the mirror what a whole read found, and tells the difference.
    ///
    /// Events are retracts, changes, then publishes and positions from the first place to
    /// the last, with as few positions as can be. It is a [`Repair::Reset`] where they would
    /// be more than the items there are now, and where a feed of several items got or lost
    /// its order.
    pub fn replace(&mut self, content: &Content) -> Repair {
        self.drop_held();
        let order_begins_or_ends = self.kind != content.kind && self.len() > 1;
        if order_begins_or_ends {
            *self = Self::new(content);
            return Repair::Reset;
        }
        self.kind = content.kind;
        let wanted = content.entries.iter().map(|(id, item)| (id.as_str(), Some(item)));
        let plan = self.plan(wanted);
        self.carry_out(&plan)
    }

    /// Puts right what notices touched, and in a sorted feed the whole order.
    ///
    /// # Errors
    ///
    /// Returns a [`Doubt`], and changes nothing, when the feed is of another kind now or
    /// lists ids whose items this read did not ask for; it must be read as a whole, or
    /// settled with [`Doubt::Unread`] ids asked too.
    pub fn settle(&mut self, touched: &Touched, found: &Settled) -> Result<Repair, Doubt> {
        self.drop_held();
        if self.kind != found.kind {
            return Err(Doubt::OtherKind { was: self.kind, is: found.kind });
        }
        if touched.ids.len() != found.items.len() {
            return Err(Doubt::Unanswered);
        }
        let read: HashMap<&str, Option<&Bytes>> = touched
            .ids
            .iter()
            .zip(&found.items)
            .map(|(id, item)| (id.as_str(), item.as_ref()))
            .collect();
        let plan = match (self.kind, &found.order) {
            (Kind::Unknown, _) => Plan::default(),
            (Kind::Plain, _) => self.plan_touched(touched, &read),
            (Kind::Sorted, None) => return Err(Doubt::Unanswered),
            (Kind::Sorted, Some(order)) => {
                let listed = order.iter().filter_map(|id| str::from_utf8(id).ok());
                self.plan(listed.filter(|id| !id.contains('\0')).filter_map(
                    |id| match read.get(id) {
                        Some(Some(item)) => Some((id, Some(*item))),
                        Some(None) => None,
                        None => Some((id, None)),
                    },
                ))
            }
        };
        if !plan.unread.is_empty() {
            return Err(Doubt::Unread(plan.unread));
        }
        Ok(self.carry_out(&plan))
    }

    /// Plans the way to the whole content; an item that is `None` is to stay as it is.
    fn plan<'a>(&self, wanted: impl Iterator<Item = (&'a str, Option<&'a Bytes>)>) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut wanted_places = vec![false; self.order.capacity()];
        let mut new_ids = HashSet::new();
        // Mostly the order is as it was: then the next place is known without a search.
        let mut expected = self.order.first();
        for (id, item) in wanted {
            let place =
                expected.filter(|place| self.order.get(*place).is(id)).or_else(|| self.find(id));
            let Some(place) = place else {
                match item {
                    _ if !new_ids.insert(id) => {}
                    Some(item) => plan.steps.push(Step::Publish(id, item)),
                    None => plan.unread.push(id.to_owned()),
                }
                continue;
            };
            expected = self.order.next(place);
            if std::mem::replace(&mut wanted_places[place.index()], true) {
                continue;
            }
            plan.steps.push(Step::Stay(place));
            plan.rewrite_where_other(self, place, item);
        }
        plan.retracts = self.order.places().filter(|place| !wanted_places[place.index()]).collect();
        if self.kind == Kind::Sorted {
            self.plan_shifts(&mut plan.steps);
        }
        plan
    }

    /// Plans for a feed without order what was read of some of its items.
    fn plan_touched<'a>(
        &self,
        touched: &'a Touched,
        read: &HashMap<&'a str, Option<&'a Bytes>>,
    ) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut done = HashSet::new();
        for id in touched.ids.iter().map(String::as_str).filter(|id| done.insert(*id)) {
            match (self.find(id), read[id]) {
                (Some(place), None) => plan.retracts.push(place),
                (Some(place), item) => plan.rewrite_where_other(self, place, item),
                (None, Some(item)) => plan.steps.push(Step::Publish(id, item)),
                (None, None) => {}
            }
        }
        plan
    }

    /// Lets the longest run of items that already follow each other stay, and shifts the rest.
    fn plan_shifts(&self, steps: &mut [Step<'_>]) {
        let mut ranks = vec![0; self.order.capacity()];
        for (rank, place) in self.order.places().enumerate() {
            ranks[place.index()] = rank;
        }
        let kept: Vec<(usize, Place)> = steps
            .iter()
            .enumerate()
            .filter_map(|(at, step)| match step {
                Step::Stay(place) => Some((at, *place)),
                Step::Shift(_) | Step::Publish(..) => None,
            })
            .collect();
        let kept_ranks: Vec<usize> = kept.iter().map(|(_, place)| ranks[place.index()]).collect();
        for (stays, (at, place)) in longest_increasing(&kept_ranks).into_iter().zip(kept) {
            if !stays {
                steps[at] = Step::Shift(place);
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan<'_>) -> Repair {
        let (mut shifts, mut publishes) = (0, 0);
        for step in &plan.steps {
            match step {
                Step::Stay(_) => {}
                Step::Shift(_) => shifts += 1,
                Step::Publish(..) => publishes += 1,
            }
        }
        let events = plan.retracts.len() + plan.changes.len() + shifts + publishes;
        let mut tellable = events <= self.len() - plan.retracts.len() + publishes;
        let mut told = Vec::with_capacity(if tellable { events } else { 0 });
        let mut tell = |event: Event| {
            if tellable {
                told.push(event);
            }
        };

        for place in &plan.retracts {
            tell(self.retract(*place));
        }
        for (place, item) in &plan.changes {
            tell(self.rewrite(*place, owned(item)));
        }
        let mut previous = None;
        let mut untellable = false;
        for step in &plan.steps {
            let place = match step {
                Step::Stay(place) => *place,
                Step::Shift(place) => {
                    untellable |= self.check_tellable(previous).is_err();
                    tell(self.shift(*place, previous));
                    *place
                }
                Step::Publish(id, item) if self.kind == Kind::Sorted => {
                    untellable |= self.check_tellable(previous).is_err();
                    tell(self.publish(previous, Arc::from(*id), owned(item)));
                    self.find(id).expect("what was published is held")
                }
                Step::Publish(id, item) => {
                    tell(self.publish(self.order.last(), Arc::from(*id), owned(item)));
                    continue;
                }
            };
            previous = Some(place);
        }
        tellable &= !untellable;

        if self.order.is_sparse() {
            self.pack();
        }
        match events {
            0 => Repair::Nothing,
            _ if tellable => Repair::Events(told),
            _ => {
                // Who returns is not to be told either what nobody was told.
                self.forget_history();
                Repair::Reset
            }
        }
    }
}

impl<'a> Plan<'a> {
    fn rewrite_where_other(&mut self, mirror: &Mirror, place: Place, item: Option<&'a Bytes>) {
        if let Some(item) = item.filter(|item| mirror.order.get(place).text() != **item) {
            self.changes.push((place, item));
        }
    }
}

/// Marks the members of a longest increasing subsequence of different numbers.
fn longest_increasing(numbers: &[usize]) -> Vec<bool> {
    // For each length, where the run of that length with the smallest end has its end.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut members = vec![false; numbers.len()];
    let mut member = ends.last().copied();
    while let Some(at) = member {
        members[at] = true;
        member = before[at];
    }
    members
}

#[cfg(test)]
mod tests {
    use Kind::{Plain, Sorted, Unknown};

    use super::*;
    use crate::mirror::{Change, Notice};

    /// Reads `1=a 2=b`.
    fn content(kind: Kind, text: &str) -> Content {
        let entries = text.split_whitespace().map(|entry| {
            let (id, item) = entry.split_once('=').expect("an entry has an item");
            (id.to_owned(), Bytes::from(item.to_owned()))
        });
        Content { kind, entries: entries.collect(), bad_ids: 0 }
    }

    fn touched(ids: &[&str]) -> Touched {
        Touched { feed: "feed".to_owned(), ids: ids.iter().map(|id| (*id).to_owned()).collect() }
    }

    fn told(repair: Repair) -> String {
        let events = match repair {
            Repair::Nothing => return "nothing".to_owned(),
            Repair::Reset => return "reset".to_owned(),
            Repair::Events(events) => events,
        };
        let texts = events.into_iter().map(|event| match event.change {
            Change::Publish { id, position: None, .. } => format!("publish {id}"),
            Change::Publish { id, position: Some(position), .. } => {
                format!("publish {id} {position}")
            }
            Change::Change { id, .. } => format!("change {id}"),
            Change::Retract { id } => format!("retract {id}"),
            Change::Position { id, position } => format!("position {id} {position}"),
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(old: (Kind, &str), new: (Kind, &str), expected: &str) {
        let new = content(new.0, new.1);
        let mut mirror = Mirror::new(&content(old.0, old.1));
        assert_eq!(told(mirror.replace(&new)), expected);
        assert_eq!(mirror.kind(), new.kind);
        assert_eq!(mirror.version(), Mirror::new(&new).version());
    }

    #[test]
    fn a_repair_retracts_then_changes_then_places_from_first_to_last() {
        check(
            (Sorted, "1=a 2=b 3=c 4=d 5=e 6=f"),
            (Sorted, "7=g 6=f 1=a 3=x 4=d 8=h 5=e"),
            "retract 2, change 3, publish 7 begin:, position 6 7:, publish 8 4:",
        );
        check(
            (Plain, "1=a 2=b 3=c"),
            (Plain, "4=d 3=x 1=a 5=e"),
            "retract 2, change 3, publish 4, publish 5",
        );
    }

    #[test]
    fn the_order_of_a_plain_feed_is_not_told() {
        check((Plain, "1=a 2=b"), (Plain, "2=b 1=a"), "nothing");
        check((Sorted, "1=a 2=b"), (Sorted, "2=b 1=a"), "position 2 begin:");
    }

    #[test]
    fn more_events_than_items_are_one_reset() {
        check((Plain, "1=a 2=b"), (Plain, "1=a"), "retract 2");
        check((Plain, "1=a 2=b 3=c"), (Plain, "1=a"), "reset");
        check((Plain, "1=a"), (Plain, ""), "reset");
        check((Plain, "1=a"), (Plain, "2=b"), "reset");
        check((Unknown, ""), (Plain, "1=a 2=b"), "publish 1, publish 2");
    }

    #[test]
    fn an_order_that_begins_or_ends_is_a_reset() {
        check((Plain, "1=a 2=b"), (Sorted, "1=a 2=b"), "reset");
        check((Sorted, "1=a 2=b"), (Plain, "1=a 2=b"), "reset");
        check((Plain, "1=a"), (Sorted, "2=b 1=a"), "publish 2 begin:");
        check((Sorted, "1=a"), (Plain, "1=a"), "nothing");
        check((Plain, ""), (Sorted, "1=a"), "publish 1 begin:");
        check((Sorted, ""), (Unknown, ""), "nothing");
    }

    #[test]
    fn a_place_that_clients_would_misread_is_a_reset() {
        check((Sorted, "begin=a 1=b"), (Sorted, "begin=a 2=c 1=b"), "reset");
        check((Sorted, "begin=a 1=b"), (Sorted, "begin=a 1=b 2=c"), "publish 2 1:");
    }

    #[test]
    fn settling_compares_the_whole_order_and_the_items_touched() {
        let mut mirror = Mirror::new(&content(Sorted, "1=a 2=b 3=c"));
        let item = Some(Bytes::from_static(b"x"));
        let order = ["3", "2", "5", "2", "1", "4"].map(|id| Bytes::from_static(id.as_bytes()));
        let order = Some(order.to_vec());
        let found = Settled { kind: Sorted, items: vec![item.clone(), None, item], order };
        mirror.apply(&Notice::Publish { id: "4".to_owned(), item: Bytes::new() });
        assert!(mirror.has_held());
        let repair = mirror.settle(&touched(&["4", "5", "2"]), &found).expect("all was asked");
        assert!(!mirror.has_held(), "a mark never parts the halves of an insert");
        assert_eq!(told(repair), "change 2, position 3 begin:, position 2 3:, publish 4 1:");
    }

    #[test]
    fn settling_leaves_alone_what_was_not_touched_in_a_plain_feed() {
        let mut mirror = Mirror::new(&content(Plain, "1=a 2=b 3=c"));
        let item = Some(Bytes::from_static(b"b"));
        let items = vec![None, item.clone(), item, None, None];
        let found = Settled { kind: Plain, items, order: None };
        let repair = mirror.settle(&touched(&["1", "2", "4", "5", "1"]), &found);
        assert_eq!(repair.map(told).as_deref(), Ok("retract 1, publish 4"));
        assert_eq!(mirror.version(), Mirror::new(&content(Plain, "2=b 3=c 4=b")).version());
    }

    #[test]
    fn a_settling_read_that_does_not_fit_is_doubted() {
        #[track_caller]
        fn check(found: Settled, expected: Doubt) {
            let mut mirror = Mirror::new(&content(Sorted, "1=a"));
            let version = mirror.version();
            assert_eq!(mirror.settle(&touched(&["1"]), &found), Err(expected));
            assert_eq!(mirror.version(), version);
        }
        let items = vec![Some(Bytes::from_static(b"b"))];
        let order = Some(["2", "1", "3", "2"].map(|id| Bytes::from_static(id.as_bytes())).to_vec());
        check(
            Settled { kind: Plain, items: items.clone(), order: None },
            Doubt::OtherKind { was: Sorted, is: Plain },
        );
        check(Settled { kind: Sorted, items: items.clone(), order: None }, Doubt::Unanswered);
        check(Settled { kind: Sorted, items: vec![], order: order.clone() }, Doubt::Unanswered);
        let unread = vec!["2".to_owned(), "3".to_owned()];
        check(Settled { kind: Sorted, items, order }, Doubt::Unread(unread));
    }

    #[test]
    fn the_longest_run_that_is_in_order_is_found() {
        #[track_caller]
        fn check(numbers: &[usize], expected: &[usize]) {
            let members = longest_increasing(numbers);
            let run: Vec<usize> =
                numbers.iter().zip(members).filter_map(|(n, is)| is.then_some(*n)).collect();
            assert_eq!(run, expected);
        }
        check(&[], &[]);
        check(&[0, 1, 2], &[0, 1, 2]);
        check(&[2, 1, 0], &[0]);
        check(&[5, 0, 1, 6, 2, 3], &[0, 1, 2, 3]);
    }
}
