//! Whether two templates could name the same feed.

use std::collections::HashSet;

use super::template::{Part, Template, is_plain};

impl Template {
    /// Tells whether some name is made by both templates, for whatever values.
    ///
    /// Equal placeholders and broken UTF-8 in values are not looked at: where only they
    /// keep two templates apart, this says that they overlap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (left, right) = (Steps::of(self), Steps::of(other));
        let mut seen = HashSet::new();
        let mut open = vec![(State::default(), State::default())];
        while let Some((here, there)) = open.pop() {
            if !seen.insert((here, there)) {
                continue;
            }
            if left.is_end(here) && right.is_end(there) {
                return true;
            }
            for byte in 0..=u8::MAX {
                for here in left.after(here, byte) {
                    for there in right.after(there, byte) {
                        open.push((here, there));
                    }
                }
            }
        }
        false
    }
}

/// One step of a template: a byte of a literal, or a value of at least one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Byte(u8),
    Value,
}

struct Steps(Vec<Step>);

/// How far a name has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    step: usize,
    within: Within,
}

/// Where in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Within {
    /// Before it.
    #[default]
    Before,
    /// In a value, which might end here.
    Value,
    /// Behind a `%`.
    Percent,
    /// Behind a `%` and its first digit.
    Digit(u8),
}

impl Steps {
    fn of(template: &Template) -> Self {
        let steps = template.parts.iter().flat_map(|part| match part {
            Part::Literal(text) => text.bytes().map(Step::Byte).collect(),
            Part::Placeholder(_) => vec![Step::Value],
        });
        Self(steps.collect())
    }

    fn is_end(&self, state: State) -> bool {
        match state.within {
            Within::Before => state.step == self.0.len(),
            Within::Value => state.step + 1 == self.0.len(),
            Within::Percent | Within::Digit(_) => false,
        }
    }

    /// Returns where one more byte may lead.
    fn after(&self, state: State, byte: u8) -> impl Iterator<Item = State> + use<> {
        let next = State { step: state.step + 1, within: Within::Before };
        // A value that might end here may also have ended.
        let ended = (state.within == Within::Value).then(|| self.one_after(next, byte)).flatten();
        self.one_after(state, byte).into_iter().chain(ended)
    }

    fn one_after(&self, State { step, within }: State, byte: u8) -> Option<State> {
        match (self.0.get(step)?, within) {
            (Step::Byte(expected), _) => {
                (*expected == byte).then_some(State { step: step + 1, within: Within::Before })
            }
            (Step::Value, within) => Some(State { step, within: within_value(within, byte)? }),
        }
    }
}

fn within_value(within: Within, byte: u8) -> Option<Within> {
    match within {
        Within::Before | Within::Value => match byte {
            b'%' => Some(Within::Percent),
            _ => is_plain(byte).then_some(Within::Value),
        },
        Within::Percent => hex(byte).map(Within::Digit),
        // What need not be escaped is not: `%41` is never made for `A`.
        Within::Digit(high) => (!is_plain(high << 4 | hex(byte)?)).then_some(Within::Value),
    }
}

/// Reads an upper-case hexadecimal digit.
const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
