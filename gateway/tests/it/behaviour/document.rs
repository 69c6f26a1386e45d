//! The table as a page to be read.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use gateway::socket::EngineKind;
use serde_json::Value;

use super::{BEHAVIOURS, ENGINES, Expected, Transport, expected, table::VERSIONS, ways};

/// Where the page is.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md")
}

const HEAD: &str = "\
# Compatibility

Which clients find what on which engine. `make compatibility` plays every cell with the real npm \
packages in Node.js and writes this page; `make test` plays them all as well, and fails where a \
cell is not as it stands here, better ones included.

`✓` passes. `✗` fails, for the reason under its number. `–` is not possible, for the reason under \
its letter. P is a client with `transports: ['polling']`, W one with `['websocket']`, U one that \
begins with polling and upgrades, as browsers do.
";

/// Writes the page; `node` is the version that Node.js says it has.
pub fn text(node: &str) -> String {
    let mut text = HEAD.to_owned();
    let clients: Vec<_> = VERSIONS.iter().map(|version| package(version)).collect();
    let clients = clients.join(", ");
    let _ = write!(text, "\nsocket.io-client {clients}; {NODE}{node}.\n");
    for engine in ENGINES {
        section(&mut text, engine);
    }
    text.push_str("\n## Behaviours\n\n| behaviour | what is seen |\n|---|---|\n");
    for behaviour in BEHAVIOURS {
        let _ = writeln!(text, "| {} | {} |", behaviour.name, behaviour.promise);
    }
    text
}

/// What stands before the version of Node.js.
const NODE: &str = "Node.js ";

/// Reads from a page with which Node.js it was written.
pub fn node(page: &str) -> Option<&str> {
    let line = page.lines().find(|line| line.starts_with("socket.io-client "))?;
    line.split_once(NODE)?.1.strip_suffix('.')
}

/// The exact version of a client.
fn package(version: &str) -> String {
    let pinned: Value =
        serde_json::from_str(include_str!("../../js/package.json")).expect("it is JSON");
    let alias = pinned["dependencies"][format!("sio-{version}")].as_str().expect("it is pinned");
    alias.rsplit_once('@').expect("it is an alias").1.to_owned()
}

fn section(text: &mut String, engine: EngineKind) {
    let (mut failures, mut gaps) = (Vec::new(), Vec::new());
    let _ = write!(text, "\n## {}\n\n|", name(engine));
    for version in VERSIONS {
        for transport in Transport::ALL {
            let _ = write!(text, " | {version} {}", &transport.label()[..1].to_uppercase());
        }
    }
    text.push_str(" |\n|---");
    text.push_str(&"|:-:".repeat(VERSIONS.len() * Transport::ALL.len()));
    text.push_str("|\n");
    for behaviour in BEHAVIOURS {
        let _ = write!(text, "| {}", behaviour.name);
        for way in ways() {
            let _ = match expected(engine, behaviour.name, way) {
                Expected::Pass => write!(text, " | ✓"),
                Expected::Fail { reason, .. } => {
                    write!(text, " | ✗ {}", place(&mut failures, reason) + 1)
                }
                Expected::NotPossible(reason) => {
                    let letter = b"abcdefghijklmnopqrstuvwxyz"[place(&mut gaps, reason)] as char;
                    write!(text, " | – {letter}")
                }
            };
        }
        text.push_str(" |\n");
    }
    let failures = failures.iter().zip(1..).map(|(reason, number)| format!("{number}: {reason}"));
    let gaps = gaps.iter().zip('a'..).map(|(reason, letter)| format!("{letter}: {reason}"));
    text.push('\n');
    for line in gaps.chain(failures) {
        let _ = writeln!(text, "- {line}");
    }
}

/// Finds a reason among those that were given, or adds it.
fn place(reasons: &mut Vec<&'static str>, reason: &'static str) -> usize {
    let found = reasons.iter().position(|given| *given == reason);
    found.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    })
}

/// The engine's name in a configuration.
pub const fn name(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Pneumatic => "pneumatic",
        EngineKind::Socketioxide => "socketioxide",
    }
}
