//! Calls go inward only, and each library has one address.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// The parts from the outside in; a part knows those below it, and itself.
///
/// Parts on one line know nothing of each other.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["app", "serve"],
    &["admin", "demo"],
    &["control", "topology", "worker"],
    // What an engine hands over is below the sessions that take it; the engines are above.
    &["session"],
    &["rpc"],
    &["socket"],
    &["auth"],
    &["live"],
    &["snapshot"],
    &["mirror"],
];

/// What anyone may use; they know only each other and, where said, what they carry.
const ANYONE: &[&str] =
    &["config", "drain", "hub", "identity", "limits", "metrics", "outbox", "protocol", "tree"];

/// What is known against the order, and why that is right.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("demo", "rpc", "the demo's worker merges as the built-in one does"),
    ("metrics", "socket", "a label is the protocol of a connection"),
    ("protocol", "mirror", "a client that returns names versions"),
    ("protocol", "snapshot", "texts are written as JSON in one place"),
];

/// Which files may name a library.
const ADDRESSES: &[(&[&str], &[&str])] = &[
    // In `socket.rs` the name means the module.
    (&["socketioxide"], &["socket/socketioxide.rs", "socket/socketioxide/", "socket.rs"]),
    (&["engineioxide"], &["socket/socketioxide.rs"]),
    (&["fred"], &["auth/store.rs"]),
    (&["figment"], &["config.rs", "config/"]),
    (&["metrics_exporter_prometheus"], &["admin.rs", "metrics.rs", "app.rs"]),
    (&["jsonschema"], &["config/schema.rs"]),
    (&["axum"], &["admin.rs", "app.rs", "demo.rs", "serve.rs", "socket.rs", "socket/"]),
];

/// Files that speak of nothing but values: no clock, no await, nothing to read from or write to.
const PURE: &[&str] = &[
    "snapshot.rs",
    "tree.rs",
    "tree/",
    "mirror/version.rs",
    "mirror/diff.rs",
    "socket/engine/eio.rs",
    "socket/engine/eio3.rs",
    "socket/engine/eio4.rs",
    "socket/engine/packet.rs",
    "socket/engine/wire.rs",
];

#[test]
fn calls_go_inward_only() {
    let mut wrong = String::new();
    for Line { file, number, text } in code() {
        let from = part(&file);
        for to in parts_named(&text) {
            if !may_know(&from, &to) {
                writeln!(
                    wrong,
                    "gateway/src/{file}:{number}: `{from}` must not know `{to}`: {text}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "calls go inward only, see ORDER in layering.rs\n{wrong}");
}

#[test]
fn each_library_has_one_address() {
    let mut wrong = String::new();
    for Line { file, number, text } in code() {
        for (libraries, addresses) in ADDRESSES {
            let lives_here = addresses.iter().any(|address| {
                file == *address || address.ends_with('/') && file.starts_with(address)
            });
            let named = libraries.iter().find(|library| names_crate(&text, library));
            if let Some(library) = named
                && !lives_here
            {
                writeln!(
                    wrong,
                    "gateway/src/{file}:{number}: `{library}` lives in {addresses:?} only: {text}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "each library has one address\n{wrong}");
}

#[test]
fn pure_files_know_no_clock_and_no_await() {
    let mut wrong = String::new();
    for Line { file, number, text } in code() {
        let is_pure =
            PURE.iter().any(|pure| file == *pure || pure.ends_with('/') && file.starts_with(pure));
        let tells = [".await", "Instant::", "SystemTime", "tokio::", "std::fs"];
        if is_pure && let Some(tell) = tells.iter().find(|tell| text.contains(**tell)) {
            writeln!(wrong, "gateway/src/{file}:{number}: `{tell}` in a pure file: {text}")
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_part_has_its_place() {
    let known: Vec<_> = ORDER.iter().copied().flatten().chain(ANYONE).copied().collect();
    let library = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    for part in library.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let part = part.trim_end_matches(';');
        assert!(known.contains(&part), "`{part}` stands neither in ORDER nor in ANYONE");
    }
}

fn may_know(from: &str, to: &str) -> bool {
    let excepted = EXCEPTIONS.iter().any(|(one, other, _)| *one == from && *other == to);
    if from == to || excepted {
        return true;
    }
    let depth = |part: &str| ORDER.iter().position(|line| line.contains(&part));
    match (depth(from), depth(to)) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(from), Some(to)) => from < to,
    }
}

struct Line {
    file: String,
    number: usize,
    text: String,
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Lists the lines of code without comments and tests; a `use` over many lines is one.
fn code() -> Vec<Line> {
    let mut files = Vec::new();
    collect(&source(), &mut files);
    assert!(files.len() > 30, "the sources are here");
    let mut lines = Vec::new();
    for path in files {
        let file = path.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
        let is_test = file.contains("/tests") || file.contains("/simulation");
        if file == "lib.rs" || is_test {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut open: Option<(usize, String)> = None;
        for (index, line) in text.lines().enumerate() {
            if line == "#[cfg(test)]" {
                break;
            }
            let code = line.split("//").next().unwrap_or_default().trim();
            let (number, mut whole) = open.take().unwrap_or((index + 1, String::new()));
            whole.push_str(code);
            let is_use = whole.starts_with("use ") || whole.starts_with("pub use ");
            if is_use && !whole.ends_with(';') {
                open = Some((number, whole));
            } else if !whole.is_empty() {
                lines.push(Line { file: file.clone(), number, text: whole });
            }
        }
    }
    lines
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn part(file: &str) -> String {
    file.split(['/', '.']).next().unwrap().to_owned()
}

/// Lists the parts that a line names as `crate::part` or `crate::{part, …}`.
fn parts_named(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        // `pub(in crate::…)` and the like name nobody else.
        let before = text[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == '$') {
            continue;
        }
        let rest = &text[at + found.len()..];
        if !rest.starts_with('{') {
            parts.push(word(rest));
            continue;
        }
        let (mut depth, mut start) = (0, true);
        for (index, char) in rest.char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && start && (char.is_alphanumeric() || char == '_') {
                parts.push(word(&rest[index..]));
                start = false;
            }
            start |= depth == 1 && matches!(char, '{' | ',');
        }
    }
    parts
}

fn word(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

fn names_crate(text: &str, library: &str) -> bool {
    text.match_indices(&format!("{library}::")).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || "_:".contains(char))
    })
}

#[test]
fn what_a_line_names_is_read_right() {
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(parts_named(text), expected, "{text}");
    }
    check("use crate::metrics;", &["metrics"]);
    check(
        "use crate::{hub::{Room, frame::Frame},metrics,tree::Tree,};",
        &["hub", "metrics", "tree"],
    );
    check("crate::config::Job::queues", &["config"]);
    check("use shard_crate::a;", &[]);
    assert!(may_know("session", "live") && !may_know("live", "session"));
    assert!(may_know("live", "hub") && !may_know("hub", "live"));
    assert!(names_crate("let x = fred::Client;", "fred") && !names_crate("alfred::x", "fred"));
}
