//! Members by score, equal scores by their bytes.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
};

use bytes::Bytes;

/// A sorted set with Redis's order.
#[derive(Debug, Default)]
pub(super) struct Zset {
    scores: HashMap<Bytes, f64>,
    order: BTreeSet<Ranked>,
}

/// A member at its place.
#[derive(Debug)]
struct Ranked(f64, Bytes);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl Zset {
    /// Sets a member's score; `true` where the member is new.
    pub(super) fn add(&mut self, member: Bytes, score: f64) -> bool {
        // Negative zero and zero are one score.
        let score = score + 0.0;
        let old = self.scores.insert(member.clone(), score);
        if let Some(old) = old {
            self.order.remove(&Ranked(old, member.clone()));
        }
        self.order.insert(Ranked(score, member));
        old.is_none()
    }

    /// Takes a member out; `false` where it was not in.
    pub(super) fn remove(&mut self, member: &Bytes) -> bool {
        let Some(score) = self.scores.remove(member) else { return false };
        self.order.remove(&Ranked(score, member.clone()))
    }

    pub(super) fn score(&self, member: &Bytes) -> Option<f64> {
        self.scores.get(member).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    /// Goes through the members in their order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, f64)> {
        self.order.iter().map(|Ranked(score, member)| (member, *score))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_are_ordered_by_bytes() {
        let mut zset = Zset::default();
        for (member, score) in [("b", 1.0), ("a", 1.0), ("é", 0.5), ("z", -0.0), ("y", 0.0)] {
            assert!(zset.add(Bytes::from_static(member.as_bytes()), score));
        }
        assert!(!zset.add(Bytes::from_static(b"b"), 0.5));
        let order: Vec<_> = zset.iter().map(|(member, _)| &**member).collect();
        assert_eq!(order, [&b"y"[..], b"z", b"b", "é".as_bytes(), b"a"]);
        assert!(zset.remove(&Bytes::from_static(b"z")));
        assert_eq!(zset.len(), 4);
    }
}
