//! Names of feeds with placeholders in them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{ANY, TEAM, USER};
use crate::identity::{TeamId, UserId};

/// The bytes of a value that are written as `%` and two upper-case hex digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'@');

/// The name of a feed in which `{team}`, `{user}`, `{any}` or items' names stand for ids.
///
/// `{{` and `}}` are braces. Different ids always make different names, and
/// [`Template::parse`] takes back exactly what [`Template::fill`] put in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// As it stands; never empty, and never beside another literal.
    Literal(String),
    /// The escaped value of this name.
    Placeholder(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing stands there.
    #[error("is empty")]
    Empty,
    /// A brace that belongs to nothing.
    #[error("has a single `{0}`; a brace itself is written twice")]
    LoneBrace(char),
    /// Braces around something that is no name.
    #[error("has the placeholder `{{{0}}}`, whose name is not of letters, digits, `_` and `-`")]
    BadName(String),
    /// Nothing tells where the first value ends.
    #[error(
        "needs a byte such as `.` or `:` between `{{{0}}}` and `{{{1}}}`, \
         one that never stands in an escaped id"
    )]
    TooClose(String, String),
    /// A control character, which no feed name needs.
    #[error("has a control character in it")]
    Control,
}

impl Template {
    /// Returns the name with every placeholder replaced by its escaped value.
    ///
    /// # Panics
    ///
    /// Panics if a placeholder has no value. A template of the tree only names what its
    /// place gives a value, which is checked when the configuration is read.
    #[must_use]
    pub fn fill(&self, vars: &Vars) -> String {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Placeholder(placeholder) => {
                    let value = vars.get(placeholder).expect("every placeholder has a value here");
                    name.extend(utf8_percent_encode(value, ESCAPED));
                }
            }
        }
        name
    }

    /// Takes the values back out of a name; `None` if [`Template::fill`] never makes this name.
    ///
    /// What `{any}` stands for is checked and not kept.
    #[must_use]
    pub fn parse(&self, feed: &str) -> Option<Vars> {
        let mut vars = Vars::default();
        let mut rest = feed;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let placeholder = match part {
                Part::Literal(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Part::Placeholder(placeholder) => placeholder,
            };
            // The value ends where a byte comes that escaping never yields, less what the
            // following literal has before such a byte of its own.
            let run = rest.bytes().take_while(|byte| is_yielded(*byte)).count();
            let tail = match parts.peek() {
                Some(Part::Literal(text)) => {
                    text.bytes().take_while(|byte| is_yielded(*byte)).count()
                }
                _ => 0,
            };
            let (escaped, after) = rest.split_at(run.checked_sub(tail)?);
            rest = after;
            let value = unescape(escaped)?;
            if placeholder == ANY {
                continue;
            }
            match vars.get(placeholder) {
                Some(before) if before != value => return None,
                Some(_) => {}
                None => vars = vars.with(placeholder, &value)?,
            }
        }
        rest.is_empty().then_some(vars)
    }

    /// Lists the placeholders in the order in which they stand.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Returns the placeholder's name if the template is one placeholder and nothing else.
    #[must_use]
    pub fn single_placeholder(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Placeholder(name)] => Some(name),
            _ => None,
        }
    }

    /// Makes a template that names just this feed.
    #[must_use]
    pub fn literal(feed: &str) -> Self {
        Self { parts: vec![Part::Literal(feed.to_owned())] }
    }
}

/// Tells whether escaping ever yields this byte.
const fn is_yielded(byte: u8) -> bool {
    is_plain(byte) || byte == b'%'
}

/// Tells whether escaping leaves this byte as it is.
pub(super) const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'@')
}

/// Undoes escaping; `None` for what escaping never yields, and for nothing at all.
fn unescape(escaped: &str) -> Option<String> {
    let value = percent_decode_str(escaped).decode_utf8().ok()?;
    let is_canonical = utf8_percent_encode(&value, ESCAPED).to_string() == escaped;
    (is_canonical && !value.is_empty()).then(|| value.into_owned())
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(TemplateError::LoneBrace('{'))?;
                if !is_name(name) {
                    return Err(TemplateError::BadName(name.to_owned()));
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Placeholder(name.to_owned()));
                rest = after;
            } else if next == '}' {
                return Err(TemplateError::LoneBrace('}'));
            } else if next.is_control() {
                return Err(TemplateError::Control);
            } else {
                literal.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if parts.is_empty() {
            return Err(TemplateError::Empty);
        }
        separated(&parts)?;
        Ok(Self { parts })
    }
}

/// Tells whether a text may name a placeholder.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn separated(parts: &[Part]) -> Result<(), TemplateError> {
    let mut open: Option<&str> = None;
    for part in parts {
        match part {
            Part::Literal(text) if text.bytes().any(|byte| !is_yielded(byte)) => open = None,
            Part::Literal(_) => {}
            Part::Placeholder(name) => {
                if let Some(before) = open.replace(name) {
                    return Err(TemplateError::TooClose(before.to_owned(), name.clone()));
                }
            }
        }
    }
    Ok(())
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    out.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Placeholder(name) => write!(out, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// The values of placeholders by their names; a value is never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// Starts with `{team}`.
    #[must_use]
    pub fn team(team: &TeamId) -> Self {
        Self(BTreeMap::from([(TEAM.to_owned(), team.as_str().to_owned())]))
    }

    /// Starts with `{user}`.
    #[must_use]
    pub fn user(user: &UserId) -> Self {
        Self(BTreeMap::from([(USER.to_owned(), user.as_str().to_owned())]))
    }

    /// Adds a value; `None` for an empty one, which has no place in the name of a feed.
    ///
    /// An item whose id is empty breaks the contract of feeds and has nothing below it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        let mut vars = self.clone();
        vars.0.insert(name.to_owned(), value.to_owned());
        Some(vars)
    }

    /// Returns the value of a placeholder.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Lists names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
