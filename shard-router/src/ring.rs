//! The ring: which node owns a key.
//!
//! The ring is *ketama* with 160 points for an average node: MD5, names instead of
//! addresses, whole-number weights. It is pure: nodes in, owners out. Any ketama
//! library that keeps the integer rule of [`Ring::new`] finds the same owners.
//!
//! Source: `tests/vectors/`, placements on which uhashring 2.5, hashring 3.2.0 (npm),
//! libmemcached 1.1.4 and twemproxy 0.5.0 agree.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use md5::{Digest, Md5};

/// How many digests an average node has; each makes [`POINTS_PER_DIGEST`] points.
const DIGESTS_PER_NODE: u128 = 40;

/// An MD5 is four whole `u32`s.
const POINTS_PER_DIGEST: usize = 4;

/// How many places the circle has.
const CIRCLE: u64 = 1 << 32;

/// One node as the ring knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What is hashed: a logical name, never an address, so that a host can be replaced.
    pub name: String,
    /// How much of the circle it gets, relative to the other nodes.
    pub weight: u32,
}

/// One point on the circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Where it is.
    pub value: u32,
    /// The index of the node that owns it and the arc before it.
    pub node: usize,
}

/// Finds the owner of a key on a circle of 2^32 places.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring {
    nodes: Vec<Node>,
    /// In rising order, no two of the same value, never empty.
    points: Vec<Point>,
}

impl Ring {
    /// Lays out the circle.
    ///
    /// A node has `floor(40 * nodes * weight / sum of weights)` digests, in whole
    /// numbers. Digest `i` is the MD5 of `<name>-<i>`; it makes four points, each from
    /// four bytes, lowest first.
    ///
    /// # Errors
    ///
    /// Returns the first [`RingError`]: no node, a name that is empty or taken, a
    /// weight of zero or too small for a single point, or two points on one place,
    /// where libraries differ on the owner.
    pub fn new(nodes: &[Node]) -> Result<Self, RingError> {
        Self::new_or_all(nodes).map_err(|errors| {
            errors.into_iter().next().expect("a ring is refused for at least one reason")
        })
    }

    /// Does what [`Ring::new`] does, and returns every reason to refuse, at least one.
    ///
    /// Points are looked at only if names and weights are right.
    pub(crate) fn new_or_all(nodes: &[Node]) -> Result<Self, Vec<RingError>> {
        let mut errors = wrong_nodes(nodes);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut points = Vec::new();
        for (index, digests) in digests(nodes).into_iter().enumerate() {
            if digests == 0 {
                let name = nodes[index].name.clone();
                errors.push(RingError::NoPoint { index, name, weight: nodes[index].weight });
            }
            points.extend(points_of(&nodes[index].name, index, digests));
        }
        // The node takes part only so that the same tie is always told the same way.
        points.sort_unstable_by_key(|point: &Point| (point.value, point.node));
        errors.extend(points.windows(2).filter(|pair| pair[0].value == pair[1].value).map(
            |pair| RingError::Tie {
                value: pair[0].value,
                one: nodes[pair[0].node].name.clone(),
                other: nodes[pair[1].node].name.clone(),
            },
        ));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { nodes: nodes.to_vec(), points })
    }

    /// Returns the index of the node that owns `key`: that of the first point at or
    /// behind the key's hash, and of the very first point where none is.
    ///
    /// The key is hashed whole; [`tag`] comes before. The hash is the first four bytes
    /// of its MD5, lowest first.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> usize {
        self.owner_of_hash(values(&Md5::digest(key).into())[0])
    }

    fn owner_of_hash(&self, hash: u32) -> usize {
        let behind = self.points.partition_point(|point| point.value < hash);
        self.points.get(behind).unwrap_or(&self.points[0]).node
    }

    /// Returns the exact share of the circle that each node owns; together they are 1.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let mut arcs = vec![0_u64; self.nodes.len()];
        let last = self.points.last().expect("a ring has at least one point");
        let mut before = u64::from(last.value);
        let mut turn = CIRCLE;
        for point in &self.points {
            let value = u64::from(point.value);
            arcs[point.node] += value + turn - before;
            before = value;
            turn = 0;
        }
        arcs.into_iter().map(|arc| arc as f64 / CIRCLE as f64).collect()
    }

    /// Returns 32 hex digits that are the same wherever placement is the same.
    ///
    /// They are the MD5 over each point in rising order: its value in four bytes,
    /// lowest first, its node's name, a newline.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Md5::new();
        for point in &self.points {
            digest.update(point.value.to_le_bytes());
            digest.update(&self.nodes[point.node].name);
            digest.update(b"\n");
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the nodes in the order in which they were given.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns every point, in rising order.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

impl fmt::Debug for Ring {
    /// Leaves the points out: there are hundreds.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ring").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// Why nodes make no ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There is nobody to own anything.
    #[error("there is no node")]
    NoNode,
    /// A name is what is hashed, so there must be one.
    #[error("node {index} has an empty name")]
    EmptyName {
        /// Which node, counted from 0.
        index: usize,
    },
    /// Two nodes of one name would own the same points.
    #[error("node {index} has the name `{name}`, as node {first} has")]
    DuplicateName {
        /// Which node, counted from 0.
        index: usize,
        /// The node that had the name before.
        first: usize,
        /// The name.
        name: String,
    },
    /// A node of no weight would own nothing.
    #[error("node `{name}` has weight 0")]
    ZeroWeight {
        /// Which node, counted from 0.
        index: usize,
        /// Its name.
        name: String,
    },
    /// The other nodes are so heavy that this one would own nothing.
    #[error("node `{name}` has weight {weight}, too little beside the others for a single point")]
    NoPoint {
        /// Which node, counted from 0.
        index: usize,
        /// Its name.
        name: String,
        /// Its weight.
        weight: u32,
    },
    /// Two points lie on one place, where libraries differ on the owner.
    #[error("`{one}` and `{other}` have the same point {value}; one of them needs another name")]
    Tie {
        /// Where they lie.
        value: u32,
        /// The node of the one.
        one: String,
        /// The node of the other.
        other: String,
    },
}

/// Returns the part of a feed's name that is hashed.
///
/// This is the rule of Redis Cluster: what stands between the first `{` and the first
/// `}` behind it, if that is not empty; else the whole name.
///
/// ```
/// use shard_router::ring::tag;
///
/// assert_eq!(tag(b"{team.red}.members.7.tasks"), b"team.red");
/// assert_eq!(tag(b"team.red.members.7.tasks"), b"team.red.members.7.tasks");
/// assert_eq!(tag(b"{}.tasks"), b"{}.tasks");
/// ```
#[must_use]
pub fn tag(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|&byte| byte == b'{') else { return name };
    let inner = &name[open + 1..];
    match inner.iter().position(|&byte| byte == b'}') {
        None | Some(0) => name,
        Some(close) => &inner[..close],
    }
}

/// Lists what is wrong with names and weights.
fn wrong_nodes(nodes: &[Node]) -> Vec<RingError> {
    if nodes.is_empty() {
        return vec![RingError::NoNode];
    }
    let mut errors = Vec::new();
    let mut taken = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let name = node.name.clone();
        if name.is_empty() {
            errors.push(RingError::EmptyName { index });
        } else {
            match taken.entry(name.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(index);
                }
                Entry::Occupied(first) => {
                    let (first, name) = (*first.get(), name.clone());
                    errors.push(RingError::DuplicateName { index, first, name });
                }
            }
        }
        if node.weight == 0 {
            errors.push(RingError::ZeroWeight { index, name });
        }
    }
    errors
}

/// Returns how many digests each node has.
///
/// The rule is in whole numbers because float rules lose digests at sizes such as 7
/// and 25; 128 bits hold the product of any three of its factors.
fn digests(nodes: &[Node]) -> Vec<u128> {
    let sum: u128 = nodes.iter().map(|node| u128::from(node.weight)).sum();
    let count = nodes.len() as u128;
    nodes.iter().map(|node| DIGESTS_PER_NODE * count * u128::from(node.weight) / sum).collect()
}

fn points_of(name: &str, node: usize, digests: u128) -> impl Iterator<Item = Point> {
    (0..digests)
        .flat_map(move |digest| values(&Md5::digest(format!("{name}-{digest}")).into()))
        .map(move |value| Point { value, node })
}

fn values(digest: &[u8; 16]) -> [u32; POINTS_PER_DIGEST] {
    let (values, _) = digest.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_le_bytes(values[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[(&str, u32)]) -> Vec<Node> {
        weights.iter().map(|&(name, weight)| Node { name: name.to_owned(), weight }).collect()
    }

    #[track_caller]
    fn refused(weights: &[(&str, u32)], expected: &[&str]) {
        let errors = Ring::new_or_all(&nodes(weights)).expect_err("these make no ring");
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
        assert_eq!(Ring::new(&nodes(weights)), Err(errors[0].clone()));
    }

    #[test]
    fn a_ring_that_libraries_would_read_differently_is_refused() {
        refused(&[], &["there is no node"]);
        refused(
            &[("", 1), ("a", 0), ("a", 1), ("", 0)],
            &[
                "node 0 has an empty name",
                "node `a` has weight 0",
                "node 2 has the name `a`, as node 1 has",
                "node 3 has an empty name",
                "node `` has weight 0",
            ],
        );
        refused(
            &[("a", 1), ("b", 1000)],
            &["node `a` has weight 1, too little beside the others for a single point"],
        );
        refused(
            &[("shard-829", 1), ("shard-836", 1)],
            &["`shard-829` and `shard-836` have the same point 3486237664; \
               one of them needs another name"],
        );
    }

    #[test]
    fn the_heaviest_weights_do_not_overflow() {
        let ring = Ring::new(&nodes(&[("a", u32::MAX), ("b", u32::MAX), ("c", u32::MAX)]));
        let even = Ring::new(&nodes(&[("a", 1), ("b", 1), ("c", 1)]));
        assert_eq!(ring.unwrap().points(), even.unwrap().points());
    }

    #[test]
    fn a_point_owns_itself_and_the_arc_before_it() {
        let ring = Ring {
            nodes: nodes(&[("a", 1), ("b", 1)]),
            points: vec![Point { value: 10, node: 0 }, Point { value: 1 << 31, node: 1 }],
        };
        let check = |hash, expected| assert_eq!(ring.owner_of_hash(hash), expected, "{hash}");
        check(0, 0);
        check(10, 0);
        check(11, 1);
        check(1 << 31, 1);
        check((1 << 31) + 1, 0);
        check(u32::MAX, 0);

        let half = f64::from((1_u32 << 31) - 10) / CIRCLE as f64;
        assert_eq!(ring.shares(), [1.0 - half, half]);
    }

    #[test]
    fn one_node_owns_everything() {
        let ring = Ring::new(&nodes(&[("only", 3)])).unwrap();
        assert_eq!(ring.points().len(), 160);
        assert_eq!(ring.shares(), [1.0]);
        assert_eq!(ring.owner(b""), 0);
    }
}
