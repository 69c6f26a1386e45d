//! A few things by their numbers, in one allocation, or in none where there is nothing.

/// What stands under each number, in their order.
///
/// Numbers are mostly given out upwards, so what comes is put at the end; a tree would have
/// room for eleven where most views have one.
#[derive(Debug)]
pub(super) struct Sorted<T>(Vec<(u32, T)>);

/// Numbers alone.
pub(super) type Numbers = Sorted<()>;

impl<T> Sorted<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    fn find(&self, number: u32) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if *last < number => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&number, |(number, _)| *number),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.find(number).is_ok()
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.find(number).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.find(number).ok().map(|at| &mut self.0[at].1)
    }

    /// Puts something under a number; what stood there stands there no longer.
    pub(super) fn insert(&mut self, number: u32, value: T) {
        match self.find(number) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (number, value));
            }
        }
    }

    /// Takes out what stands under a number.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let (_, value) = self.0.remove(self.find(number).ok()?);
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
        Some(value)
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (u32, T)> {
        self.0.into_iter()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(number, _)| *number)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(steps in vec((any::<bool>(), 0..40u32), 0..200)) {
            let (mut sorted, mut tree) = (Sorted::new(), BTreeMap::new());
            for (step, (comes, number)) in steps.into_iter().enumerate() {
                if comes {
                    sorted.insert(number, step);
                    tree.insert(number, step);
                } else {
                    prop_assert_eq!(sorted.remove(number), tree.remove(&number));
                }
                prop_assert!(sorted.numbers().eq(tree.keys().copied()));
                prop_assert!(sorted.0.iter().map(|(_, value)| value).eq(tree.values()));
                prop_assert_eq!(sorted.get(number), tree.get(&number));
                prop_assert_eq!(sorted.contains(number), tree.contains_key(&number));
                prop_assert_eq!(sorted.is_empty(), tree.is_empty());
                prop_assert!(!sorted.is_empty() || sorted.0.capacity() <= 4);
            }
        }
    }
}
