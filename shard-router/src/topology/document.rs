//! How a topology is written down, in TOML.
//!
//! Values are taken one by one, so that the first wrong one does not hide the others.
//! No mistake repeats what was written where a password may be.

use std::path::PathBuf;

use toml::{Table, Value};

use super::{DEFAULT_WEIGHT, Draft, Mistake, Topology, UNVERSIONED, judge};

/// Where a configuration says that the shards are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shards {
    /// In this very text.
    Here(Topology),
    /// In a file of their own, relative to the folder of the configuration.
    InFile(PathBuf),
    /// Nowhere, which leaves [`Topology::default`].
    Unsaid,
}

impl Shards {
    /// Looks for shards in the text of a gateway's configuration.
    ///
    /// They are `nodes` or `topology` in `[shards]`. A bare topology document is
    /// taken too. Nothing else in a configuration is looked at.
    ///
    /// # Errors
    ///
    /// Returns every [`Mistake`], each with a path such as `shards.nodes[1].url`.
    pub fn from_config(text: &str) -> Result<Self, Vec<Mistake>> {
        let mut document = parse(text)?;
        let is_bare = !document.contains_key("shards")
            && (document.contains_key("nodes") || document.contains_key("version"));
        if is_bare {
            return read_topology(document).map(Self::Here);
        }
        match document.remove("shards") {
            None => Ok(Self::Unsaid),
            Some(Value::Table(shards)) => Self::from_section(shards).map_err(|mistakes| {
                mistakes.into_iter().map(|mistake| mistake.within("shards")).collect()
            }),
            Some(other) => Err(vec![wrong_type("shards", "a table", &other)]),
        }
    }

    fn from_section(mut shards: Table) -> Result<Self, Vec<Mistake>> {
        match (shards.remove("topology"), shards.remove("nodes")) {
            (None, None) => Ok(Self::Unsaid),
            (Some(_), Some(_)) => {
                Err(vec![mistake("topology", "stands beside `nodes`; only one of them may")])
            }
            (Some(Value::String(file)), None) if file.is_empty() => {
                Err(vec![mistake("topology", "is empty")])
            }
            (Some(Value::String(file)), None) => Ok(Self::InFile(file.into())),
            (Some(other), None) => Err(vec![wrong_type("topology", "a string", &other)]),
            (None, Some(nodes)) => {
                let mut mistakes = Vec::new();
                match read_nodes(nodes, &mut mistakes) {
                    Some(drafts) => judge(UNVERSIONED, drafts, mistakes).map(Self::Here),
                    None => Err(mistakes),
                }
            }
        }
    }
}

impl Topology {
    /// Reads a topology document: `version` and `nodes`, in TOML.
    ///
    /// ```
    /// use shard_router::topology::Topology;
    ///
    /// let text = r#"
    ///     version = 3
    ///     nodes = [
    ///       { name = "shard-01", url = "redis://10.0.0.1:6379" },
    ///       { name = "shard-02", url = "redis://10.0.0.2:6379", weight = 2 },
    ///     ]
    /// "#;
    /// let topology = Topology::from_toml(text).unwrap();
    /// assert_eq!(topology.version, 3);
    /// assert_eq!(topology.shards[1].weight, 2);
    /// ```
    ///
    /// # Errors
    ///
    /// Returns every [`Mistake`], each with a path such as `nodes[1].url`. A text that
    /// is no TOML is one mistake, with its line.
    pub fn from_toml(text: &str) -> Result<Self, Vec<Mistake>> {
        parse(text).and_then(read_topology)
    }
}

fn parse(text: &str) -> Result<Table, Vec<Mistake>> {
    text.parse().map_err(|error: toml::de::Error| {
        // The error's own Display quotes the line, and a password with it.
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        vec![mistake("", format!("line {line} is not TOML: {}", error.message()))]
    })
}

fn read_topology(mut document: Table) -> Result<Topology, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let version =
        take(&mut document, "version", "", &mut mistakes, whole_number::<u64>("0 or more"));
    let drafts = match document.remove("nodes") {
        Some(nodes) => read_nodes(nodes, &mut mistakes),
        None => {
            mistakes.push(mistake("nodes", "is missing"));
            None
        }
    };
    unknown_keys(&document, "", "`version` and `nodes`", &mut mistakes);
    match drafts {
        Some(drafts) => judge(version.unwrap_or(UNVERSIONED), drafts, mistakes),
        None => Err(mistakes),
    }
}

/// Reads what an array of nodes holds; `None`, if it is no array, is a mistake told.
fn read_nodes(nodes: Value, mistakes: &mut Vec<Mistake>) -> Option<Vec<Draft>> {
    let Value::Array(nodes) = nodes else {
        mistakes.push(wrong_type("nodes", "an array of tables", &nodes));
        return None;
    };
    let drafts = nodes
        .into_iter()
        .enumerate()
        .map(|(index, node)| read_node(node, &format!("nodes[{index}]"), mistakes))
        .collect();
    Some(drafts)
}

fn read_node(node: Value, path: &str, mistakes: &mut Vec<Mistake>) -> Draft {
    let Value::Table(mut node) = node else {
        mistakes.push(wrong_type(path, "a table", &node));
        return Draft { name: None, url: None, weight: None };
    };
    node.entry("weight").or_insert_with(|| i64::from(DEFAULT_WEIGHT).into());
    let weights = format!("from 1 to {}", u32::MAX);
    let draft = Draft {
        name: take(&mut node, "name", path, mistakes, string),
        url: take(&mut node, "url", path, mistakes, string),
        weight: take(&mut node, "weight", path, mistakes, whole_number::<u32>(&weights)),
    };
    unknown_keys(&node, path, "`name`, `url` and `weight`", mistakes);
    draft
}

/// Takes a value out of `table`; `None` is a mistake already told.
fn take<T>(
    table: &mut Table,
    key: &str,
    parent: &str,
    mistakes: &mut Vec<Mistake>,
    read: impl FnOnce(Value) -> Result<T, String>,
) -> Option<T> {
    let value = table.remove(key).ok_or_else(|| "is missing".to_owned());
    value.and_then(read).map_err(|message| mistakes.push(mistake(join(parent, key), message))).ok()
}

fn string(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

/// Reads a whole number of type `T`, which is `range` in words.
fn whole_number<T: TryFrom<i64>>(range: &str) -> impl FnOnce(Value) -> Result<T, String> {
    move |value| match value {
        Value::Integer(number) => T::try_from(number).map_err(|_| format!("must be {range}")),
        other => Err(format!("must be a whole number, not {}", kind(&other))),
    }
}

fn unknown_keys(rest: &Table, parent: &str, known: &str, mistakes: &mut Vec<Mistake>) {
    let message = format!("is not known here; there are {known}");
    mistakes.extend(rest.keys().map(|key| mistake(join(parent, key), message.clone())));
}

fn wrong_type(path: &str, expected: &str, found: &Value) -> Mistake {
    mistake(path, format!("must be {expected}, not {}", kind(found)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "a truth value",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn mistake(path: impl Into<String>, message: impl Into<String>) -> Mistake {
    Mistake { path: path.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::topology::{ShardNode, ShardUrl};

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let mistakes = Topology::from_toml(text).expect_err("the document has mistakes");
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[track_caller]
    fn refused_config(text: &str, expected: &[&str]) {
        let mistakes = Shards::from_config(text).expect_err("the configuration has mistakes");
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        refused(
            r#"
            version = -1
            extra = true
            nodes = [
              { name = "a", url = "redis://h:port" },
              { name = "a", url = "memory:", weight = 0 },
              { url = 7, weight = "2", wieght = 2 },
              "shard-04",
              { name = "", url = "rediss://h" },
              { name = "b", url = "memory:", weight = 4294967296 },
              { name = "a", url = "memory:" },
            ]
            "#,
            &[
                "version: must be 0 or more",
                "extra: is not known here; there are `version` and `nodes`",
                "nodes[0].url: has a port that is not a number from 1 to 65535",
                "nodes[1].name: `a` is the name of nodes[0] already",
                "nodes[1].weight: must be from 1 to 4294967295",
                "nodes[2].name: is missing",
                "nodes[2].url: must be a string, not a whole number",
                "nodes[2].weight: must be a whole number, not a string",
                "nodes[2].wieght: is not known here; there are `name`, `url` and `weight`",
                "nodes[3]: must be a table, not a string",
                "nodes[4].url: `rediss://` is not supported yet",
                "nodes[4].name: is empty",
                "nodes[5].weight: must be from 1 to 4294967295",
                "nodes[6].name: `a` is the name of nodes[0] already",
            ],
        );
        refused("", &["version: is missing", "nodes: is missing"]);
        refused("version = 1\nnodes = []", &["nodes: needs at least one shard"]);
        refused("version = 1\nnodes = {}", &["nodes: must be an array of tables, not a table"]);
        refused(
            "version = 1\nnodes = [{}]",
            &["nodes[0].name: is missing", "nodes[0].url: is missing"],
        );
    }

    #[test]
    fn what_only_the_whole_ring_shows_is_told_beside_a_wrong_url() {
        refused(
            r#"
            version = 1
            nodes = [
              { name = "shard-829", url = "memory:" },
              { name = "shard-836", url = "nowhere" },
            ]
            "#,
            &[
                "nodes: `shard-829` and `shard-836` have the same point 3486237664; \
                 one of them needs another name",
                "nodes[1].url: begins with none of `redis://` and `memory:`",
            ],
        );
        refused(
            r#"
            version = 1
            nodes = [
              { name = "a", url = "memory:", weight = 1 },
              { name = "b", url = "memory:", weight = 1000 },
            ]
            "#,
            &["nodes[0].weight: is too little beside the others for a single point"],
        );
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_without_its_passwords() {
        for line in ["url = redis://:s3cret@h", "url = \"redis://:s3cret@h", "s3cret = 1 = 2"] {
            let mistakes = Topology::from_toml(&format!("version = 1\n\n{line}\n")).unwrap_err();
            let [mistake] = mistakes.as_slice() else { panic!("{mistakes:?}") };
            let said = mistake.to_string();
            assert!(said.starts_with("line 3 is not TOML: "), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn a_configuration_says_where_its_shards_are() {
        let nodes = r#"nodes = [{ name = "a", url = "memory:", weight = 2 }]"#;
        let node = ShardNode { name: "a".into(), url: "memory:".into(), weight: 2 };
        let here = |version| {
            Ok(Shards::Here(Topology::from_nodes(version, std::slice::from_ref(&node)).unwrap()))
        };
        let in_section = format!("[server]\nlisten = 1\n[shards]\n{nodes}");
        assert_eq!(Shards::from_config(&in_section), here(UNVERSIONED));
        assert_eq!(Shards::from_config(&format!("version = 4\n{nodes}")), here(4));
        assert_eq!(Shards::from_config("[server]"), Ok(Shards::Unsaid));
        assert_eq!(Shards::from_config("[shards]"), Ok(Shards::Unsaid));
        assert_eq!(
            Shards::from_config("[shards]\ntopology = \"t.toml\""),
            Ok(Shards::InFile(Path::new("t.toml").into()))
        );

        refused_config("shards = 1", &["shards: must be a table, not a whole number"]);
        refused_config(
            "nodes = 1",
            &["version: is missing", "nodes: must be an array of tables, not a whole number"],
        );
        refused_config(
            "[shards]\ntopology = \"t.toml\"\nnodes = []",
            &["shards.topology: stands beside `nodes`; only one of them may"],
        );
        refused_config("[shards]\ntopology = \"\"", &["shards.topology: is empty"]);
        refused_config(
            "[shards]\nnodes = [{ name = \"a\", url = \"redis://\" }]",
            &["shards.nodes[0].url: has no host that is a name, an IPv4 address or an IPv6 \
               address in brackets"],
        );
    }

    #[test]
    fn the_default_is_one_shard_in_memory() {
        let topology = Topology::default();
        assert_eq!(topology.shards.len(), 1);
        assert_eq!(topology.shards[0].name, "shard-01");
        assert_eq!(topology.shards[0].url, ShardUrl::Memory);
    }
}
