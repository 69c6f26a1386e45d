//! A doubly linked list in one allocation, its links being indices.
//!
//! Whatever is done at one place costs the same in a list of any length.

/// No place: before the first and behind the last.
const NOWHERE: u32 = u32::MAX;

/// Where a value sits; it stays there until it is removed or the list is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    fn of(link: u32) -> Option<Self> {
        (link != NOWHERE).then_some(Self(link))
    }

    fn link(place: Option<Self>) -> u32 {
        place.map_or(NOWHERE, |place| place.0)
    }

    /// A number below [`Order::capacity`], for tables beside the list.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Values in an order.
#[derive(Debug, Clone)]
pub(super) struct Order<T> {
    slots: Vec<Slot<T>>,
    first: u32,
    last: u32,
    /// The first of the free slots, of which each tells the next, and how many they are.
    free: u32,
    free_count: u32,
}

#[derive(Debug, Clone)]
struct Slot<T> {
    /// `None` while the slot is free.
    value: Option<T>,
    previous: u32,
    next: u32,
}

impl<T> Order<T> {
    /// Makes an empty list that can hold `capacity` values before it grows.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let slots = Vec::with_capacity(capacity);
        Self { slots, first: NOWHERE, last: NOWHERE, free: NOWHERE, free_count: 0 }
    }

    /// One more than the greatest index of a place.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free_count as usize
    }

    pub(super) fn first(&self) -> Option<Place> {
        Place::of(self.first)
    }

    pub(super) fn last(&self) -> Option<Place> {
        Place::of(self.last)
    }

    pub(super) fn previous(&self, place: Place) -> Option<Place> {
        Place::of(self.slots[place.index()].previous)
    }

    pub(super) fn next(&self, place: Place) -> Option<Place> {
        Place::of(self.slots[place.index()].next)
    }

    pub(super) fn get(&self, place: Place) -> &T {
        self.slots[place.index()].value.as_ref().expect("a place is filled until it is removed")
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut T {
        self.slots[place.index()].value.as_mut().expect("a place is filled until it is removed")
    }

    /// Walks from the first place to the last.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        std::iter::successors(self.first(), |place| self.next(*place))
    }

    /// Puts a value right behind `previous`, or before all others.
    ///
    /// # Panics
    ///
    /// Panics when four thousand million values are held already.
    pub(super) fn insert(&mut self, previous: Option<Place>, value: T) -> Place {
        let slot = Slot { value: Some(value), previous: NOWHERE, next: NOWHERE };
        let place = match Place::of(self.free) {
            Some(place) => {
                self.free = self.slots[place.index()].next;
                self.free_count -= 1;
                self.slots[place.index()] = slot;
                place
            }
            None => {
                let link = u32::try_from(self.slots.len()).expect("a feed has fewer than 2³² ids");
                self.slots.push(slot);
                Place(link)
            }
        };
        self.tie(previous, place);
        place
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, place: Place) -> T {
        self.untie(place);
        let slot = &mut self.slots[place.index()];
        slot.next = std::mem::replace(&mut self.free, place.0);
        self.free_count += 1;
        slot.value.take().expect("a place is filled until it is removed")
    }

    /// Puts the value at `place` right behind `previous`, or before all others.
    pub(super) fn shift(&mut self, place: Place, previous: Option<Place>) {
        self.untie(place);
        self.tie(previous, place);
    }

    /// Whether most of the memory is kept for values that are gone.
    pub(super) fn is_sparse(&self) -> bool {
        self.slots.len() > 64 && self.slots.len() / 4 > self.len()
    }

    /// Gives back the memory of values that are gone, which changes every place.
    pub(super) fn pack(&mut self) {
        let mut packed = Self::with_capacity(self.len());
        let mut next = self.first();
        while let Some(place) = next {
            next = self.next(place);
            let value = self.slots[place.index()].value.take();
            packed.insert(packed.last(), value.expect("a place is filled until it is removed"));
        }
        *self = packed;
    }

    fn tie(&mut self, previous: Option<Place>, place: Place) {
        let next = previous.map_or(self.first, |previous| self.slots[previous.index()].next);
        self.join(previous, Some(place));
        self.join(Some(place), Place::of(next));
    }

    fn untie(&mut self, place: Place) {
        self.join(self.previous(place), self.next(place));
    }

    /// Makes two places neighbours; `None` is the outside of the list.
    fn join(&mut self, left: Option<Place>, right: Option<Place>) {
        match left {
            Some(left) => self.slots[left.index()].next = Place::link(right),
            None => self.first = Place::link(right),
        }
        match right {
            Some(right) => self.slots[right.index()].previous = Place::link(left),
            None => self.last = Place::link(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(order: &Order<char>, expected: &str) {
        let forth: String = order.places().map(|place| *order.get(place)).collect();
        let back: String = std::iter::successors(order.last(), |place| order.previous(*place))
            .map(|place| *order.get(place))
            .collect();
        assert_eq!(forth, expected);
        assert_eq!(back, expected.chars().rev().collect::<String>());
        assert_eq!(order.len(), expected.len());
    }

    #[test]
    fn values_stand_where_they_are_put() {
        let mut order = Order::with_capacity(0);
        check(&order, "");
        let b = order.insert(None, 'b');
        let a = order.insert(None, 'a');
        let d = order.insert(order.last(), 'd');
        let c = order.insert(Some(b), 'c');
        check(&order, "abcd");
        order.shift(a, Some(d));
        check(&order, "bcda");
        order.shift(c, None);
        check(&order, "cbda");
        assert_eq!(order.remove(b), 'b');
        check(&order, "cda");
        assert_eq!(order.insert(Some(a), 'e'), b, "a free slot is used again");
        check(&order, "cdae");
        assert_eq!(order.capacity(), 4);
    }

    #[test]
    fn memory_of_many_values_is_given_back() {
        let mut order = Order::with_capacity(0);
        let places: Vec<Place> = (0..100).map(|_| order.insert(order.last(), 'x')).collect();
        for place in &places[..75] {
            order.remove(*place);
        }
        assert!(!order.is_sparse());
        for place in &places[75..80] {
            order.remove(*place);
        }
        order.insert(None, 'a');
        order.insert(order.last(), 'z');
        assert!(order.is_sparse());
        order.pack();
        assert_eq!(order.capacity(), 22);
        check(&order, &format!("a{}z", "x".repeat(20)));
    }
}
