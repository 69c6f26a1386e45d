//! File and environment as one table of values, each of which knows where it comes from.

use std::collections::{BTreeMap, HashMap};

use figment::{
    Error, Figment, Metadata, Profile, Provider, Source,
    value::{Dict, Map, Tag, Value},
};
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Mistakes, Origin};

/// What the variables' names begin with.
const PREFIX: &str = "GATEWAY__";

/// Between the parts of a variable's name.
const SEPARATOR: &str = "__";

/// The merged values.
#[derive(Debug)]
pub(super) struct Layers {
    /// Knows by a value's tag which layer it is from.
    figment: Figment,
    /// The values.
    pub(super) root: Dict,
    /// Where each path stands in the file.
    places: Places,
    /// Whether somebody can look at those lines.
    has_lines: bool,
    /// What was wrong with the variables' names.
    pub(super) mistakes: Vec<Mistake>,
}

/// Where each path stands in a file, in bytes from its start and in lines.
#[derive(Debug, Default)]
struct Places(HashMap<String, (usize, usize)>);

impl Layers {
    /// Lays the variables over the text of a file, or over the one that is built in.
    ///
    /// # Errors
    ///
    /// Returns what keeps the text from being TOML.
    pub(super) fn new(
        text: &str,
        embedded: bool,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(Mistakes(errors.iter().map(|error| syntax_mistake(text, error)).collect()));
        }
        let mut places = Places::default();
        let file = places.dict(text, "", table.get_ref());
        let (variables, mistakes) = variables(&file, env);
        let mut figment = Figment::from(File(file));
        for variable in variables {
            figment = figment.merge(variable);
        }
        let root = figment.data().expect("no layer fails").remove(&Profile::Default);
        Ok(Self { root: root.unwrap_or_default(), figment, places, has_lines: !embedded, mistakes })
    }

    /// Tells where the value at a path comes from.
    pub(super) fn origin(&self, path: &str, value: &Value) -> Origin {
        match self.variable(value) {
            Some(name) => Origin::Environment(name.to_owned()),
            None => self.place(path),
        }
    }

    /// Tells where a path comes from; for one that is not there, what is around it.
    pub(super) fn origin_of(&self, path: &str) -> Origin {
        // A list that a variable holds has no entries of its own here.
        let option = path.split('[').next().unwrap_or(path);
        let value = option.split('.').try_fold(None, |above: Option<&Value>, key| {
            let table = above.map_or(Some(&self.root), Value::as_dict)?;
            table.get(key).map(Some)
        });
        match value.flatten() {
            Some(value) => self.origin(path, value),
            None => self.place(path),
        }
    }

    fn place(&self, path: &str) -> Origin {
        if !self.has_lines {
            return Origin::File;
        }
        let mut around = path;
        loop {
            if let Some((_, line)) = self.places.0.get(around) {
                return Origin::Line(*line);
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = &around[..end],
                None => return Origin::File,
            }
        }
    }

    /// Returns the name of the variable that a value is from.
    pub(super) fn variable(&self, value: &Value) -> Option<&str> {
        self.figment.get_metadata(value.tag())?.source.as_ref()?.custom()
    }

    /// Returns what orders paths as the file does; what is not in it comes last.
    pub(super) fn order(&self, path: &str) -> usize {
        self.places.0.get(path).map_or(usize::MAX, |(offset, _)| *offset)
    }
}

fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let origin = error.span().map_or(Origin::File, |span| Origin::Line(line(text, span.start)));
    Mistake { origin, path: String::new(), message: format!("is not TOML: {}", error.message()) }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

impl Places {
    fn dict(&mut self, text: &str, path: &str, table: &DeTable<'_>) -> Dict {
        let entries = table.iter().map(|(key, value)| {
            let path = join(path, key.get_ref());
            let offset = key.span().start;
            self.0.insert(path.clone(), (offset, line(text, offset)));
            (key.get_ref().to_string(), self.value(text, &path, value.get_ref()))
        });
        entries.collect()
    }

    fn value(&mut self, text: &str, path: &str, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(string) => Value::from(string.as_ref()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::from(number),
                    // Too large for any option; its digits say so in the mistake.
                    Err(_) => Value::from(number.to_string()),
                }
            }
            DeValue::Float(number) => Value::from(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Value::from(*truth),
            DeValue::Datetime(date) => Value::from(date.to_string()),
            DeValue::Array(array) => {
                let values = array.iter().enumerate().map(|(index, value)| {
                    let path = format!("{path}[{index}]");
                    let offset = value.span().start;
                    self.0.insert(path.clone(), (offset, line(text, offset)));
                    self.value(text, &path, value.get_ref())
                });
                Value::Array(Tag::Default, values.collect())
            }
            DeValue::Table(table) => Value::Dict(Tag::Default, self.dict(text, path, table)),
        }
    }
}

/// Names an option below a path, as it would be written in TOML.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

struct File(Dict);

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named("file")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// A variable whose name has found its option.
struct Variable {
    name: String,
    path: Vec<String>,
    value: String,
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment", Source::Custom(self.name.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let value = Value::from(self.value.as_str());
        let nested = self.path.iter().rev().fold(value, |value, key| {
            Value::Dict(Tag::Default, Dict::from([(key.clone(), value)]))
        });
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

fn variables(
    file: &Dict,
    env: impl IntoIterator<Item = (String, String)>,
) -> (Vec<Variable>, Vec<Mistake>) {
    let mut env: Vec<_> = env.into_iter().collect();
    env.sort();
    let mut variables: BTreeMap<Vec<String>, Variable> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in env {
        let Some(prefix) = name.get(..PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            continue;
        }
        let parts: Vec<_> = name[PREFIX.len()..].split(SEPARATOR).collect();
        let found = locate(file, &parts).and_then(|path| match variables.get(&path) {
            Some(other) => Err(format!("is set by {} as well", other.name)),
            None => Ok(path),
        });
        match found {
            Ok(path) => {
                variables.insert(path.clone(), Variable { name, path, value });
            }
            Err(message) => {
                let path = parts
                    .iter()
                    .fold(String::new(), |path, part| join(&path, &part.to_ascii_lowercase()));
                mistakes.push(Mistake { origin: Origin::Environment(name), path, message });
            }
        }
    }
    (variables.into_values().collect(), mistakes)
}

/// Finds the option that a variable's name means, whatever the case of its letters.
fn locate(file: &Dict, parts: &[&str]) -> Result<Vec<String>, String> {
    const FILE_ONLY: &str = "is set in the file only";
    let mut path: Vec<String> = Vec::new();
    let mut table = Some(file);
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let known = table
            .into_iter()
            .flat_map(|table| table.iter().filter(|(key, _)| key.eq_ignore_ascii_case(part)));
        let known: Vec<_> = known.collect();
        match known.as_slice() {
            [] => {
                // Names of jobs and of parts of the tree may have capitals, which a variable
                // cannot tell.
                let is_name = matches!(
                    path.last().map(String::as_str),
                    Some("jobs" | "tree" | "collections")
                );
                let is_inside =
                    path.first().is_some_and(|first| first == "jobs" || first == "tree");
                if part.is_empty() {
                    return Err("is the name of no option".to_owned());
                }
                if is_name || (is_inside && !is_last) {
                    return Err(format!(
                        "has no section in the file; names of jobs and of parts of the tree {}",
                        "are set there only"
                    ));
                }
                path.push(part.to_ascii_lowercase());
                table = None;
            }
            [(key, value)] => {
                path.push((*key).clone());
                let is_scalar_list = value.as_array().is_some_and(|values| {
                    values
                        .iter()
                        .all(|value| value.as_dict().is_none() && value.as_array().is_none())
                });
                table = match value {
                    Value::Dict(..) if is_last => {
                        return Err("is a section; its options are set one by one".to_owned());
                    }
                    Value::Dict(_, table) => Some(table),
                    Value::Array(..) if !is_scalar_list => return Err(FILE_ONLY.to_owned()),
                    _ if !is_last => return Err("is no section; nothing is below it".to_owned()),
                    _ => None,
                };
            }
            _ => return Err("may mean several names, which differ only in their case".to_owned()),
        }
    }
    Ok(path)
}
