//! The ring against placements that independent ketama libraries agree on.

use serde::Deserialize;
use serde_json::Value;
use shard_router::ring::{Node, Ring, tag};

#[derive(Deserialize)]
struct PinnedRing {
    nodes: Vec<PinnedNode>,
    points: usize,
    /// One hex digit per key.
    owners: String,
    // Float traps pin owners and the count of points alone.
    first_points: Option<Vec<(u32, String)>>,
    last_points: Option<Vec<(u32, String)>>,
    fingerprint_md5: Option<String>,
    counts: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct PinnedNode {
    name: String,
    weight: u32,
}

#[derive(Deserialize)]
struct TagCase {
    key: String,
    hashed_part: String,
    owner: usize,
}

#[test]
fn owners_are_those_that_four_libraries_agree_on() {
    let rings = pinned_rings(include_str!("../vectors/rings.json"));
    assert_eq!(rings.len(), 7);
    for (title, pinned) in rings {
        let ring = check_owners(&title, &pinned);

        let points: Vec<(u32, String)> = ring
            .points()
            .iter()
            .map(|point| (point.value, ring.nodes()[point.node].name.clone()))
            .collect();
        let first = pinned.first_points.expect("rings.json pins first points");
        let last = pinned.last_points.expect("rings.json pins last points");
        assert_eq!(points[..first.len()], first, "{title}");
        assert_eq!(points[points.len() - last.len()..], last, "{title}");
        assert_eq!(Some(ring.fingerprint()), pinned.fingerprint_md5, "{title}");
    }
}

#[test]
fn no_digest_is_lost_where_float_arithmetic_loses_one() {
    let rings = pinned_rings(include_str!("../vectors/float-traps.json"));
    assert_eq!(rings.len(), 3);
    for (title, pinned) in rings {
        check_owners(&title, &pinned);
    }
    // Sizes at which npm's float64, then twemproxy's and libmemcached's float32 err.
    for size in [7, 14, 28, 49, 56, 98, 25, 47, 50, 55, 61] {
        assert_eq!(even_ring(size).points().len(), 160 * size, "{size} even nodes");
    }
}

#[test]
fn names_with_one_tag_have_one_owner() {
    let vectors: Value = parsed(include_str!("../vectors/hash-tags.json"));
    let cases: Vec<TagCase> = serde_json::from_value(vectors["cases"].clone()).unwrap();
    let rings = pinned_rings(include_str!("../vectors/rings.json"));
    let (_, pinned) = rings
        .iter()
        .find(|(title, _)| vectors["ring"] == title.as_str())
        .expect("hash-tags.json names a ring of rings.json");
    let ring = pinned.ring();
    assert_eq!(cases.len(), 8);
    for TagCase { key, hashed_part, owner } in cases {
        assert_eq!(tag(key.as_bytes()), hashed_part.as_bytes(), "{key}");
        assert_eq!(ring.owner(tag(key.as_bytes())), owner, "{key}");
    }
}

#[test]
fn shares_are_what_many_keys_find() {
    let keys = keys();
    for (title, pinned) in pinned_rings(include_str!("../vectors/rings.json")) {
        let ring = pinned.ring();
        let shares = ring.shares();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{title}");
        let counts = pinned.counts.expect("rings.json pins counts");
        for (node, (share, count)) in shares.iter().zip(counts).enumerate() {
            let found = count as f64 / keys.len() as f64;
            assert!((share - found).abs() < 0.02, "{title}: node {node} {share} {found}");
        }
    }
}

#[test]
fn a_new_shard_takes_keys_and_no_key_moves_elsewhere() {
    let (before, after) = (even_ring(5), even_ring(6));
    let keys = keys();
    let moved: Vec<&String> = keys
        .iter()
        .filter(|key| before.owner(key.as_bytes()) != after.owner(key.as_bytes()))
        .collect();
    assert!(moved.iter().all(|key| after.owner(key.as_bytes()) == 5));
    let share = moved.len() as f64 / keys.len() as f64;
    assert!((0.12..0.22).contains(&share), "{share} of all keys moved");
}

#[test]
fn the_names_that_we_recommend_never_tie() {
    // Even rings of fewer nodes hold a part of these points.
    assert_eq!(even_ring(256).points().len(), 160 * 256);
}

#[track_caller]
fn check_owners(title: &str, pinned: &PinnedRing) -> Ring {
    let ring = pinned.ring();
    assert_eq!(ring.points().len(), pinned.points, "{title}");

    let keys = keys();
    assert_eq!((keys.len(), pinned.owners.len()), (10_000, 10_000), "{title}");
    let mut counts = vec![0; pinned.nodes.len()];
    for (key, expected) in keys.iter().zip(pinned.owners.chars()) {
        let owner = ring.owner(key.as_bytes());
        assert_eq!(Some(owner as u32), expected.to_digit(16), "{title}: {key}");
        counts[owner] += 1;
    }
    if let Some(expected) = &pinned.counts {
        assert_eq!(&counts, expected, "{title}");
    }
    ring
}

impl PinnedRing {
    fn ring(&self) -> Ring {
        let nodes: Vec<Node> = self
            .nodes
            .iter()
            .map(|node| Node { name: node.name.clone(), weight: node.weight })
            .collect();
        Ring::new(&nodes).expect("pinned nodes make a ring")
    }
}

fn pinned_rings(text: &str) -> Vec<(String, PinnedRing)> {
    let Value::Object(rings) = parsed(text)["rings"].take() else {
        panic!("vectors hold rings by title")
    };
    rings
        .into_iter()
        .map(|(title, ring)| (title, serde_json::from_value(ring).expect("a pinned ring")))
        .collect()
}

fn keys() -> Vec<String> {
    serde_json::from_value(parsed(include_str!("../vectors/keys.json"))["keys"].take())
        .expect("keys are strings")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("vectors are JSON")
}

fn even_ring(size: usize) -> Ring {
    let nodes: Vec<Node> =
        (1..=size).map(|n| Node { name: format!("shard-{n:02}"), weight: 1 }).collect();
    Ring::new(&nodes).expect("names `shard-NN` do not tie")
}
