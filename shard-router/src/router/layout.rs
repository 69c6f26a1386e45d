//! Which shard has which index, and how that changes with the topology.
//!
//! An index is given once: a shard keeps it as long as its name is in the topology, and
//! gets it again when it comes back. So whoever remembers where something is remembers
//! an index, and never means another shard by it.

use std::{fmt, sync::Arc};

use crate::{
    shard::{Shard, ShardError},
    topology::{ShardSpec, ShardUrl, Topology},
};

/// Makes a shard of what a topology says of it.
pub(super) type Open = dyn Fn(&ShardSpec) -> Arc<dyn Shard> + Send + Sync;

/// Says which shard has a feed, by its index.
pub(super) type Owner = dyn Fn(&str) -> usize + Send + Sync;

/// What a router came to with a topology: see [`Router::adopt`](super::Router::adopt).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The topology's version.
    pub version: u64,
    /// The name of every index, those of shards that are gone among them.
    pub names: Vec<String>,
    /// Shards to be connected to: new ones, and known ones that are somewhere else now.
    pub opened: Vec<usize>,
    /// Shards that are in the topology no longer; they have no feeds.
    pub closed: Vec<usize>,
}

/// The shards of one topology at their indexes.
pub(super) struct Layout {
    slots: Vec<Slot>,
    owner: Box<Owner>,
    pub(super) topology: Option<Arc<Topology>>,
}

/// One index.
#[derive(Debug)]
struct Slot {
    name: String,
    /// Where the shard is; nothing is known of those that a router was given as they are.
    url: Option<ShardUrl>,
    /// None while the shard is in no topology.
    shard: Option<Arc<dyn Shard>>,
}

impl fmt::Debug for Layout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Layout").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Layout {
    /// Lays out shards that stand in no topology.
    pub(super) fn fixed(shards: Vec<Arc<dyn Shard>>, owner: Box<Owner>) -> Self {
        let slot = |(index, shard)| Slot {
            // No shard of a topology has this name: it is no text that a person would choose.
            name: format!("\0{index}"),
            url: None,
            shard: Some(shard),
        };
        Self { slots: shards.into_iter().enumerate().map(slot).collect(), owner, topology: None }
    }

    /// Lays out the shards of the first topology.
    pub(super) fn first(topology: Topology, open: &Open) -> Self {
        let nothing = Self { slots: Vec::new(), owner: Box::new(|_| 0), topology: None };
        nothing.next(topology, open).0
    }

    /// Lays out the shards of a later topology; a shard that stays as it is is not opened anew.
    pub(super) fn next(&self, topology: Topology, open: &Open) -> (Self, Adopted) {
        let closed = |slot: &Slot| Slot { name: slot.name.clone(), url: None, shard: None };
        let mut slots: Vec<Slot> = self.slots.iter().map(closed).collect();
        let mut opened = Vec::new();
        let mut indexes = Vec::with_capacity(topology.shards.len());
        for spec in &topology.shards {
            let known = slots.iter().position(|slot| slot.name == spec.name);
            let index = known.unwrap_or(slots.len());
            let stays = self
                .slots
                .get(index)
                .filter(|old| old.url.as_ref() == Some(&spec.url))
                .and_then(|old| old.shard.clone());
            let shard = stays.unwrap_or_else(|| {
                opened.push(index);
                open(spec)
            });
            let slot =
                Slot { name: spec.name.clone(), url: Some(spec.url.clone()), shard: Some(shard) };
            match known {
                Some(index) => slots[index] = slot,
                None => slots.push(slot),
            }
            indexes.push(index);
        }
        let is_closed = |index: &usize| {
            self.slots.get(*index).is_some_and(|old| old.shard.is_some())
                && slots[*index].shard.is_none()
        };
        let adopted = Adopted {
            version: topology.version,
            names: slots.iter().map(|slot| slot.name.clone()).collect(),
            closed: (0..slots.len()).filter(is_closed).collect(),
            opened,
        };
        let topology = Arc::new(topology);
        let ring = topology.clone();
        let owner = Box::new(move |feed: &str| indexes[ring.owner(feed)]);
        (Self { slots, owner, topology: Some(topology) }, adopted)
    }

    pub(super) fn owner(&self, feed: &str) -> usize {
        (self.owner)(feed)
    }

    /// Returns a shard; one that is gone is away.
    pub(super) fn shard(&self, index: usize) -> Result<&Arc<dyn Shard>, ShardError> {
        let slot = &self.slots[index];
        slot.shard.as_ref().ok_or_else(|| ShardError::Away {
            shard: slot.name.as_str().into(),
            reason: "it is not in the topology any more".to_owned(),
        })
    }

    /// Lists the shards that there are, with their indexes.
    pub(super) fn shards(&self) -> impl Iterator<Item = (usize, &Arc<dyn Shard>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((index, slot.shard.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::memory::MemoryShard;

    fn topology(version: u64, shards: &[(&str, &str)]) -> Topology {
        let spec = |(name, url): &(&str, &str)| ShardSpec {
            name: (*name).to_owned(),
            url: url.parse().expect("the case has a URL"),
            weight: 1,
        };
        Topology::new(version, shards.iter().map(spec).collect()).expect("the case is a ring")
    }

    fn open(spec: &ShardSpec) -> Arc<dyn Shard> {
        Arc::new(MemoryShard::new(spec.name.as_str()))
    }

    const A: (&str, &str) = ("a", "redis://h:1");
    const B: (&str, &str) = ("b", "redis://h:2");
    const C: (&str, &str) = ("c", "redis://h:3");
    const MOVED_B: (&str, &str) = ("b", "redis://h:9");

    #[test]
    fn a_shard_keeps_its_index_whatever_stands_before_it() {
        let mut layout = Layout::first(topology(1, &[A, B]), &open);
        let mut check = |version, shards: &[_], opened: &[usize], closed: &[usize]| {
            let next = topology(version, shards);
            let (then, adopted) = layout.next(next.clone(), &open);
            assert_eq!(adopted.version, version);
            assert_eq!(adopted.names, ["a", "b", "c"]);
            assert_eq!((&*adopted.opened, &*adopted.closed), (opened, closed), "{shards:?}");
            for feed in (0..100).map(|number| format!("feed.{number}")) {
                let index = then.owner(&feed);
                assert_eq!(adopted.names[index], next.shards[next.owner(&feed)].name);
                assert!(then.shard(index).is_ok());
            }
            for (index, shard) in layout.shards() {
                let same = then.shard(index).is_ok_and(|now| Arc::ptr_eq(now, shard));
                let stays = !opened.contains(&index) && !closed.contains(&index);
                assert_eq!(same, stays, "shard {index} of {shards:?}");
            }
            layout = then;
        };
        check(2, &[C, B, A], &[2], &[]);
        check(3, &[B, C], &[], &[0]);
        check(4, &[MOVED_B, C], &[1], &[]);
        check(5, &[MOVED_B], &[], &[2]);
        check(6, &[C, MOVED_B], &[2], &[]);
        check(7, &[A, B, C], &[0, 1], &[]);
    }

    #[test]
    fn a_shard_that_is_gone_is_away() {
        let layout = Layout::first(topology(1, &[A, B]), &open);
        let (layout, _) = layout.next(topology(2, &[B]), &open);
        let error = layout.shard(0).unwrap_err();
        assert!(error.is_away());
        assert_eq!(error.to_string(), "shard `a` is away: it is not in the topology any more");
        assert_eq!(layout.shards().map(|(index, _)| index).collect::<Vec<_>>(), [1]);
    }
}
