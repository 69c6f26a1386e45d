//! Takes values out of the layers, and notes every one that is not what it should be.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::value::{Dict, Value};
use humantime::format_duration;

use super::{
    layers::{Layers, join},
    mistakes::{Mistake, Mistakes, Origin},
    values,
};

/// How unlike an option's name a name may be to be taken for its misspelling.
const CLOSE: f64 = 0.75;

/// Longer than anything here is worth waiting for, and no clock overflows when it is added.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// One reading of a configuration.
///
/// A value that is wrong or missing reads as `None`, so that the reading goes on and
/// finds the next mistake; what was read counts only if [`Reading::finish`] says so.
#[derive(Debug)]
pub(super) struct Reading<'layers> {
    layers: &'layers Layers,
    folder: &'layers Path,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<String>>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'layers> Reading<'layers> {
    /// Begins; paths in the file are relative to `folder`.
    pub(super) fn new(layers: &'layers Layers, folder: &'layers Path) -> Self {
        Self {
            layers,
            folder,
            mistakes: RefCell::new(layers.mistakes.clone()),
            warnings: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Returns the whole file as a section.
    pub(super) fn root(&self) -> Section<'_> {
        Section {
            reading: self,
            path: String::new(),
            table: Some(&self.layers.root),
            known: vec![],
        }
    }

    /// Notes a mistake at a path, whether something stands there or not.
    pub(super) fn mistake(&self, path: &str, message: impl Into<String>) {
        self.note(self.layers.origin_of(path), path, message.into());
    }

    /// Notes what is allowed and yet odd.
    pub(super) fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    fn note(&self, origin: Origin, path: &str, message: String) {
        self.mistakes.borrow_mut().push(Mistake { origin, path: path.to_owned(), message });
    }

    /// Returns the warnings.
    ///
    /// # Errors
    ///
    /// Returns the mistakes if there are any, in the order of the file.
    pub(super) fn finish(self) -> Result<Vec<String>, Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes.dedup();
        if mistakes.is_empty() { Ok(self.warnings.into_inner()) } else { Err(Mistakes(mistakes)) }
    }

    /// Returns the path of every option that was looked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }
}

/// A table of the configuration, there or not.
#[derive(Debug)]
pub(super) struct Section<'r> {
    reading: &'r Reading<'r>,
    path: String,
    table: Option<&'r Dict>,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// Takes the value of an option.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry<'r>> {
        self.known.push(key);
        self.reading.asked.borrow_mut().insert(join(&self.path, key));
        self.table?.get(key).map(|value| self.entry(key, value))
    }

    /// Takes a section below this one, empty where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r> {
        match self.take(key).and_then(|entry| entry.section()) {
            Some(section) => section,
            None => Section {
                reading: self.reading,
                path: join(&self.path, key),
                table: None,
                known: Vec::new(),
            },
        }
    }

    /// Takes everything, under names that the file gives, in its order.
    pub(super) fn take_all(&self) -> Vec<(&'r str, Entry<'r>)> {
        let table = self.table.into_iter().flatten();
        let mut all: Vec<_> =
            table.map(|(key, value)| (key.as_str(), self.entry(key, value))).collect();
        all.sort_by_key(|(_, entry)| self.reading.layers.order(&entry.path));
        all
    }

    /// Names an option of this section in full.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes a mistake at an option of this section.
    pub(super) fn mistake(&self, key: &str, message: impl Into<String>) {
        let path = self.path(key);
        self.reading.mistake(&path, message);
    }

    /// Ends the section: whatever was not taken is no option.
    pub(super) fn finish(self) {
        for (name, entry) in self.take_all() {
            if self.known.contains(&name) {
                continue;
            }
            let what = if self.path.is_empty() { "section" } else { "option" };
            let lower = name.to_ascii_lowercase();
            let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(&lower, known);
            let closest = self
                .known
                .iter()
                .copied()
                .max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
            let hint = match closest.filter(|known| likeness(known) >= CLOSE) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("there are `{}`", self.known.join("`, `")),
            };
            entry.mistake(format!("is no {what}; {hint}"));
        }
    }

    fn entry(&self, key: &str, value: &'r Value) -> Entry<'r> {
        Entry { reading: self.reading, path: join(&self.path, key), value }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Entry<'r> {
    reading: &'r Reading<'r>,
    pub(super) path: String,
    value: &'r Value,
}

impl<'r> Entry<'r> {
    /// Notes a mistake here.
    pub(super) fn mistake(&self, message: impl Into<String>) {
        let origin = self.reading.layers.origin(&self.path, self.value);
        self.reading.note(origin, &self.path, message.into());
    }

    /// Reads a table.
    pub(super) fn section(&self) -> Option<Section<'r>> {
        let table = self.value.as_dict().or_else(|| self.wrong("is a section"))?;
        let (reading, path) = (self.reading, self.path.clone());
        Some(Section { reading, path, table: Some(table), known: Vec::new() })
    }

    /// Tells whether a table stands here.
    pub(super) fn is_section(&self) -> bool {
        self.value.as_dict().is_some()
    }

    /// Reads a text.
    pub(super) fn text(&self) -> Option<&'r str> {
        self.value.as_str().or_else(|| self.wrong("is a text"))
    }

    /// Reads a text that no mistake shows.
    pub(super) fn secret_text(&self) -> Option<&'r str> {
        if self.value.as_str().is_none() {
            self.mistake("is a text");
        }
        self.value.as_str()
    }

    /// Reads a text that is not empty and whose bytes may stand in a key of Redis.
    pub(super) fn name(&self) -> Option<String> {
        let text = self.text()?;
        let is_fine = !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control);
        if is_fine {
            return Some(text.to_owned());
        }
        self.wrong("is 1 to 256 bytes without control characters")
    }

    /// Reads a text that `parse` knows; `right` says what it should be.
    pub(super) fn parsed<T>(&self, right: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value.as_str().and_then(parse).or_else(|| self.wrong(right))
    }

    /// Reads one of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let right = format!("is one of {}", known.join(", "));
        self.parsed(&right, |text| words.iter().find(|(word, _)| *word == text).map(|(_, it)| *it))
    }

    /// Reads `true` or `false`.
    pub(super) fn truth(&self) -> Option<bool> {
        let truth = match self.variable_text() {
            Some(text) => text.parse().ok(),
            None => self.value.to_bool(),
        };
        truth.or_else(|| self.wrong("is `true` or `false`"))
    }

    /// Reads a whole number.
    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).or_else(|| {
            self.wrong(&format!("is a whole number from {} to {}", range.start(), range.end()))
        })
    }

    fn integer(&self) -> Option<i128> {
        match self.variable_text() {
            Some(text) => text.trim().parse().ok(),
            None => self.value.to_i128(),
        }
    }

    /// Reads a time from a millisecond to a day.
    pub(super) fn time(&self) -> Option<Duration> {
        self.time_or_none().filter(|time| {
            let is_enough = *time >= Duration::from_millis(1);
            if !is_enough {
                self.mistake("is at least `1ms`");
            }
            is_enough
        })
    }

    /// Reads a time of at most a day, which may be none at all.
    pub(super) fn time_or_none(&self) -> Option<Duration> {
        let right = "is a time with its unit, such as `10s`, `500ms` or `2m`";
        self.parsed(right, values::duration).filter(|time| {
            let is_too_long = *time > LONGEST;
            if is_too_long {
                let (most, time) = (format_duration(LONGEST), format_duration(*time));
                self.mistake(format!("is at most `{most}`, not `{time}`"));
            }
            !is_too_long
        })
    }

    /// Reads a size of so many bytes.
    pub(super) fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let size = match self.value.as_str() {
            Some(text) => values::size(text),
            None => self.integer().and_then(|bytes| usize::try_from(bytes).ok()),
        };
        let size = size.or_else(|| self.wrong("is a size, such as `1MiB`, `64KiB` or `512B`"))?;
        let (least, most) = (range.start(), range.end());
        if size < *least {
            self.mistake(format!("is at least {least} bytes, not {size}"));
        } else if size > *most {
            self.mistake(format!("is at most {most} bytes, not {size}"));
        }
        range.contains(&size).then_some(size)
    }

    /// Reads a path, which is relative to the folder of the file.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.text().map(|text| self.reading.folder.join(text))
    }

    /// Reads a list of texts; a variable holds them with commas between, or as TOML.
    ///
    /// `None` if it is no list; entries of it that `read` does not take are left out.
    pub(super) fn list<T>(&self, read: impl Fn(&Entry<'_>) -> Option<T>) -> Option<Vec<T>> {
        let values = match self.variable_text() {
            Some(text) => list_of_variable(text, self.value),
            None => self.value.clone().into_array(),
        };
        let Some(values) = values else {
            // It may hold secrets, so it is not repeated.
            self.mistake("is a list, such as `[\"one\", \"two\"]`");
            return None;
        };
        let entries = values.iter().enumerate().filter_map(|(index, value)| {
            let path = format!("{}[{index}]", self.path);
            read(&Entry { reading: self.reading, path, value })
        });
        Some(entries.collect())
    }

    /// Reads a list of tables.
    pub(super) fn sections(&self) -> Option<Vec<Section<'r>>> {
        let values = self.value.as_array().or_else(|| self.wrong("is a list of tables"))?;
        let sections = values.iter().enumerate().filter_map(|(index, value)| {
            let path = format!("{}[{index}]", self.path);
            Entry { reading: self.reading, path, value }.section()
        });
        Some(sections.collect())
    }

    /// Reads whatever stands here as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        json(self.value)
    }

    /// Notes that this is not what it should be, and says what it is.
    pub(super) fn wrong<T>(&self, right: &str) -> Option<T> {
        self.mistake(format!("{right}, not {}", describe(self.value)));
        None
    }

    /// Returns the text if a variable set it: there, a number is a text as well.
    fn variable_text(&self) -> Option<&'r str> {
        self.reading.layers.variable(self.value).and_then(|_| self.value.as_str())
    }
}

fn list_of_variable(text: &str, origin: &Value) -> Option<Vec<Value>> {
    let texts: Vec<String> = if text.trim_start().starts_with('[') {
        #[derive(serde::Deserialize)]
        struct List {
            list: Vec<String>,
        }
        toml::from_str::<List>(&format!("list = {text}")).ok()?.list
    } else {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    Some(texts.into_iter().map(|text| Value::String(origin.tag(), text)).collect())
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("`{}`", text.escape_debug()),
        Value::Char(_, char) => format!("`{}`", char.escape_debug()),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(number), _) => format!("the number {number}"),
            (None, Some(number)) => format!("the number {number}"),
            (None, None) => "a number".to_owned(),
        },
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(_, text) => text.as_str().into(),
        Value::Char(_, char) => char.to_string().into(),
        Value::Bool(_, truth) => (*truth).into(),
        Value::Num(_, number) => match number.to_i128().and_then(|it| i64::try_from(it).ok()) {
            Some(number) => number.into(),
            None => number.to_f64().into(),
        },
        Value::Empty(..) => serde_json::Value::Null,
        Value::Dict(_, table) => {
            table.iter().map(|(key, value)| (key.clone(), json(value))).collect()
        }
        Value::Array(_, values) => values.iter().map(json).collect(),
    }
}
