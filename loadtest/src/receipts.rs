//! What one client received of what was published. Pure.

/// A set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// Makes an empty set for numbers below `bound`.
    #[must_use]
    pub fn below(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(64)])
    }

    /// Puts a number in; `false` where it was in, or does not fit.
    pub fn insert(&mut self, number: usize) -> bool {
        let Some(word) = self.0.get_mut(number / 64) else { return false };
        let bit = 1 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Counts them.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts those that are in `other` too.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> u64 {
        self.0.iter().zip(&other.0).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}

/// The notes of one client that hears the feed.
#[derive(Debug, Clone, Default)]
pub struct Receipts {
    seen: Numbers,
    last: Option<usize>,
    /// How many came that had come before.
    pub twice: u64,
    /// How many came behind one that was published later.
    pub disordered: u64,
}

impl Receipts {
    /// Begins with nothing of `count`.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self { seen: Numbers::below(count), ..Self::default() }
    }

    /// Notes one that came within a whole state, where it may come again; `true` where it is new.
    pub fn note_state(&mut self, number: usize) -> bool {
        let is_new = self.seen.insert(number);
        self.last = self.last.max(Some(number));
        is_new
    }

    /// Notes one; `true` where it is new.
    pub fn note(&mut self, number: usize) -> bool {
        if !self.seen.insert(number) {
            self.twice += 1;
            return false;
        }
        if self.last.is_some_and(|last| number < last) {
            self.disordered += 1;
        }
        self.last = self.last.max(Some(number));
        true
    }
}

/// What all clients together received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Clients that hear the feed, times what was published.
    pub expected: u64,
    /// How many of those came.
    pub received: u64,
    /// How many did not.
    pub missing: u64,
    /// How many came again.
    pub twice: u64,
    /// How many came late in order.
    pub disordered: u64,
}

impl Account {
    /// Holds what clients noted against what was published.
    pub fn of<'a>(published: &Numbers, clients: impl IntoIterator<Item = &'a Receipts>) -> Self {
        let mut account = Self::default();
        for receipts in clients {
            let received = receipts.seen.shared_with(published);
            account.expected += published.len();
            account.received += received;
            account.missing += published.len() - received;
            account.twice += receipts.twice;
            account.disordered += receipts.disordered;
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(numbers: &[usize]) -> Receipts {
        let mut receipts = Receipts::of(200);
        for &number in numbers {
            receipts.note(number);
        }
        receipts
    }

    #[test]
    fn what_is_lost_repeated_and_swapped_is_found() {
        let mut published = Numbers::below(200);
        for number in [0, 1, 63, 64, 65, 199] {
            assert!(published.insert(number));
        }
        let whole = receipts(&[0, 1, 63, 64, 65, 199]);
        let lost = receipts(&[0, 1, 64, 199]);
        let twice = receipts(&[0, 1, 1, 63, 64, 64, 65, 199]);
        let swapped = receipts(&[1, 0, 63, 65, 64, 199]);
        let none = receipts(&[]);
        assert_eq!(
            Account::of(&published, [&whole, &lost, &twice, &swapped, &none]),
            Account { expected: 30, received: 22, missing: 8, twice: 2, disordered: 2 }
        );
    }

    #[test]
    fn what_was_not_confirmed_is_not_expected() {
        let mut published = Numbers::below(200);
        published.insert(1);
        let more = receipts(&[0, 1, 2]);
        let account = Account::of(&published, [&more]);
        assert_eq!((account.expected, account.received, account.missing), (1, 1, 0));
        assert!(!published.insert(200 + 64), "does not fit");
        assert!(Numbers::below(9).is_empty());
    }
}
