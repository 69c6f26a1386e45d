//! The topology: which shards there are, and which of them owns a feed.
//!
//! A topology comes from the gateway's configuration or from a document of its own,
//! and is checked whole: every mistake is told together, each with its path. It opens
//! no connection.

use std::fmt;

use serde::Deserialize;

use crate::ring::{Node, Ring, RingError, tag};

mod document;
mod url;

pub use document::Shards;
pub use url::{RedisUrl, ShardUrl, ShardUrlError};

/// The version of a topology that stands in a configuration, which names none.
pub const UNVERSIONED: u64 = 0;

/// A node of weight 1 beside others of weight 1 has 160 points, as stock libraries give it.
const DEFAULT_WEIGHT: u32 = 1;

/// The shards of one version and the ring between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Rises with each change.
    pub version: u64,
    /// In the order in which [`Topology::owner`] counts.
    pub shards: Vec<ShardSpec>,
    ring: Ring,
}

/// One shard: what it is called, where it is, how much it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSpec {
    /// The logical name, which alone decides placement.
    pub name: String,
    /// Where it is now.
    pub url: ShardUrl,
    /// How much it takes, relative to the others.
    pub weight: u32,
}

impl Topology {
    /// Lays out the ring of `shards`.
    ///
    /// # Errors
    ///
    /// Returns [`TopologyError`], whose source says which shards make no ring and why.
    pub fn new(version: u64, shards: Vec<ShardSpec>) -> Result<Self, TopologyError> {
        let nodes: Vec<Node> = shards.iter().map(ShardSpec::node).collect();
        let ring = Ring::new(&nodes).map_err(|source| TopologyError { version, source })?;
        Ok(Self { version, shards, ring })
    }

    /// Reads the nodes of a configuration.
    ///
    /// # Errors
    ///
    /// Returns every [`Mistake`], each with a path such as `nodes[1].url`.
    pub fn from_nodes(version: u64, nodes: &[ShardNode]) -> Result<Self, Vec<Mistake>> {
        let drafts = nodes.iter().cloned().map(Draft::from).collect();
        judge(version, drafts, Vec::new())
    }

    /// Returns the index of the shard that owns `feed`.
    ///
    /// Only the feed's [`tag`] is hashed, so that feeds of one tag stay together.
    #[must_use]
    pub fn owner(&self, feed: &str) -> usize {
        self.ring.owner(tag(feed.as_bytes()))
    }

    /// Returns the ring; its nodes are the shards, in the same order.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Returns the exact share of all tags that each shard owns; together they are 1.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        self.ring.shares()
    }
}

impl Default for Topology {
    /// Returns one shard in this process, `shard-01`, for a first run without Redis.
    fn default() -> Self {
        let shard =
            ShardSpec { name: "shard-01".into(), url: ShardUrl::Memory, weight: DEFAULT_WEIGHT };
        Self::new(UNVERSIONED, vec![shard]).expect("one named shard makes a ring")
    }
}

impl ShardSpec {
    fn node(&self) -> Node {
        Node { name: self.name.clone(), weight: self.weight }
    }
}

/// Why shards make no topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shards of topology {version} make no ring")]
pub struct TopologyError {
    version: u64,
    source: RingError,
}

impl TopologyError {
    /// Returns what is wrong with the shards, as the ring sees them.
    #[must_use]
    pub const fn ring_error(&self) -> &RingError {
        &self.source
    }
}

/// One shard as a configuration writes it: `{ name, url, weight }`, weight 1 if left out.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardNode {
    /// The logical name.
    pub name: String,
    /// The URL, not yet read.
    pub url: String,
    /// How much the shard takes, relative to the others.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

impl fmt::Debug for ShardNode {
    /// Shows the URL only as far as it is known to hold no password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ShardNode")
            .field("name", &self.name)
            .field("url", &self.url.parse::<ShardUrl>())
            .field("weight", &self.weight)
            .finish()
    }
}

/// One thing that is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is, as `nodes[1].url`; empty for the document as a whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Mistake {
    /// Returns the same mistake of a table that is itself at `parent`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => parent.to_owned(),
            path => format!("{parent}.{path}"),
        };
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)
    }
}

/// What could be read of a node; what is missing is a mistake already told.
struct Draft {
    name: Option<String>,
    url: Option<String>,
    weight: Option<u32>,
}

impl From<ShardNode> for Draft {
    fn from(ShardNode { name, url, weight }: ShardNode) -> Self {
        Self { name: Some(name), url: Some(url), weight: Some(weight) }
    }
}

/// Makes a topology of what was read, or adds to `mistakes` what only shows now.
fn judge(
    version: u64,
    drafts: Vec<Draft>,
    mut mistakes: Vec<Mistake>,
) -> Result<Topology, Vec<Mistake>> {
    let all_placeable = drafts.iter().all(|draft| draft.name.is_some() && draft.weight.is_some());

    let mut urls = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        match draft.url.as_deref().map(str::parse::<ShardUrl>) {
            Some(Ok(url)) => urls.push(url),
            Some(Err(error)) => mistakes
                .push(Mistake { path: format!("nodes[{index}].url"), message: error.to_string() }),
            None => {}
        }
    }

    // A node without a name cannot be told from others; the others keep their index.
    let (places, nodes): (Vec<usize>, Vec<Node>) = drafts
        .into_iter()
        .enumerate()
        .filter_map(|(place, draft)| {
            let weight = draft.weight.unwrap_or(DEFAULT_WEIGHT);
            Some((place, Node { name: draft.name?, weight }))
        })
        .unzip();
    let ring = match Ring::new_or_all(&nodes) {
        Ok(ring) if mistakes.is_empty() => ring,
        refused => {
            let mut errors = refused.err().unwrap_or_default();
            errors.retain(|error| all_placeable || !depends_on_every_node(error));
            mistakes.extend(errors.iter().map(|error| ring_mistake(error, &places)));
            mistakes.sort_by_key(|mistake| node_of(&mistake.path));
            return Err(mistakes);
        }
    };
    let shards = nodes
        .into_iter()
        .zip(urls)
        .map(|(Node { name, weight }, url)| ShardSpec { name, url, weight })
        .collect();
    Ok(Topology { version, shards, ring })
}

/// Tells whether a node that could not be read may be what is missing.
const fn depends_on_every_node(error: &RingError) -> bool {
    match error {
        RingError::NoNode | RingError::NoPoint { .. } | RingError::Tie { .. } => true,
        RingError::EmptyName { .. }
        | RingError::DuplicateName { .. }
        | RingError::ZeroWeight { .. } => false,
    }
}

fn ring_mistake(error: &RingError, places: &[usize]) -> Mistake {
    let at = |index: usize, field: &str| format!("nodes[{}].{field}", places[index]);
    let (path, message) = match error {
        RingError::NoNode => ("nodes".to_owned(), "needs at least one shard".to_owned()),
        RingError::EmptyName { index } => (at(*index, "name"), "is empty".to_owned()),
        RingError::DuplicateName { index, first, name } => (
            at(*index, "name"),
            format!("`{name}` is the name of nodes[{}] already", places[*first]),
        ),
        RingError::ZeroWeight { index, .. } => {
            (at(*index, "weight"), format!("must be from 1 to {}", u32::MAX))
        }
        RingError::NoPoint { index, .. } => {
            (at(*index, "weight"), "is too little beside the others for a single point".to_owned())
        }
        RingError::Tie { .. } => ("nodes".to_owned(), error.to_string()),
    };
    Mistake { path, message }
}

/// Returns the index in `nodes[index].…`; what is not about one node comes first.
fn node_of(path: &str) -> Option<usize> {
    path.strip_prefix("nodes[")?.split_once(']')?.0.parse().ok()
}

const fn default_weight() -> u32 {
    DEFAULT_WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, url: &str, weight: u32) -> ShardNode {
        ShardNode { name: name.into(), url: url.into(), weight }
    }

    #[test]
    fn a_feed_goes_where_its_tag_goes() {
        let names = ["shard-01", "shard-02", "shard-03", "shard-04", "shard-05"];
        let nodes = names.map(|name| node(name, "memory:", 1));
        let topology = Topology::from_nodes(7, &nodes).unwrap();
        let whole: Vec<usize> = (0..50).map(|n| topology.owner(&format!("red.{n}"))).collect();
        let tagged: Vec<usize> = (0..50).map(|n| topology.owner(&format!("{{red}}.{n}"))).collect();
        assert!((0..5).all(|shard| whole.contains(&shard)), "{whole:?}");
        assert!(tagged.iter().all(|&shard| shard == topology.owner("red")), "{tagged:?}");
        assert_eq!(topology.version, 7);
        assert_eq!(topology.shares(), topology.ring().shares());
    }

    #[test]
    fn shards_that_make_no_ring_make_no_topology() {
        let error = Topology::new(3, Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "shards of topology 3 make no ring");
        assert_eq!(error.ring_error(), &RingError::NoNode);
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn nodes_of_a_configuration_are_judged_as_those_of_a_document() {
        let nodes = [node("a", "nowhere", 0), node("a", "redis://:s3cret@h", 1)];
        assert!(!format!("{nodes:?}").contains("s3cret"));
        let mistakes = Topology::from_nodes(1, &nodes).unwrap_err();
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "nodes[0].url: begins with none of `redis://` and `memory:`",
                "nodes[0].weight: must be from 1 to 4294967295",
                "nodes[1].name: `a` is the name of nodes[0] already",
            ]
        );
    }

    #[test]
    fn a_node_weighs_1_unless_it_says_otherwise() {
        let node: ShardNode = toml::from_str("name = 'a'\nurl = 'memory:'").unwrap();
        assert_eq!(node.weight, 1);
        assert!(toml::from_str::<ShardNode>("name = 'a'\nurl = 'memory:'\nport = 1").is_err());
    }
}
