//! What is not possible, and what an engine is known not to do. All else has to pass.

use gateway::socket::EngineKind;

use super::{
    Transport::{Polling, Upgrade, Websocket},
    Way,
};

/// What is expected of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Pass,
    /// It is played, and has to fail with one of these seen.
    Fail {
        reason: &'static str,
        seen: &'static [&'static str],
    },
    /// There is nothing to play.
    NotPossible(&'static str),
}

/// Some cells of one engine, or of all.
struct Rule {
    engine: Option<EngineKind>,
    behaviours: &'static [&'static str],
    of: fn(Way) -> bool,
    expected: Expected,
}

const SOCKETIOXIDE: Option<EngineKind> = Some(EngineKind::Socketioxide);

/// The first that fits decides.
const RULES: &[Rule] = &[
    Rule {
        engine: None,
        behaviours: &[
            "silent probe",
            "probe closed at once",
            "probe closed when answered",
            "closed during upgrade",
            "60 messages during an upgrade",
        ],
        of: |way| way.transport != Upgrade,
        expected: Expected::NotPossible("This client does not upgrade."),
    },
    Rule {
        engine: None,
        behaviours: &["aborted poll", "overlapping polls"],
        of: |way| way.transport == Websocket,
        expected: Expected::NotPossible("A websocket has no polls."),
    },
    Rule {
        engine: None,
        behaviours: &["aborted poll", "overlapping polls"],
        of: |way| way.transport == Upgrade,
        expected: Expected::NotPossible("Once it is upgraded it polls no more."),
    },
    Rule {
        engine: None,
        behaviours: &["state recovery declined"],
        of: |way| way.version < "4",
        expected: Expected::NotPossible("Clients before 4.6 do not ask for it."),
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["binary calls", "server asks"],
        of: |_| true,
        expected: Expected::NotPossible(
            "The gateway hands socketioxide only what it sends by itself: events and answers of \
             one JSON argument.",
        ),
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["silent probe", "probe closed at once", "probe closed when answered"],
        of: |way| way.transport == Upgrade,
        expected: Expected::Fail {
            reason: "A probe that fails, or is given up after ten seconds, ends the polling \
                     session; the client comes back, probes again, and so on.",
            seen: &["mailbox is closed", "no event came", "handshakes"],
        },
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["heartbeats"],
        of: |way| !way.is_eio3(),
        expected: Expected::Fail {
            reason: "3.x and 4.x are asked for the first time at once.",
            seen: &["ping 1 came after", "no packet came"],
        },
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["overlapping polls"],
        of: |way| way.transport == Polling,
        expected: Expected::Fail {
            reason: "A second poll ends the session.",
            seen: &["mailbox is closed", "no event came"],
        },
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["60 kB"],
        of: |way| way.version < "2" && way.transport == Polling,
        expected: Expected::Fail {
            reason: "What 1.x encodes twice is measured as it comes, so that 60 kB that are not \
                     ASCII are too much for `limits.max_message_bytes`.",
            seen: &["answer to echo: no ack came"],
        },
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["unknown namespace"],
        of: Way::is_eio3,
        expected: Expected::Fail {
            reason: "1.x and 2.x hear an object where they expect a text.",
            seen: &[r#"{"message":"Invalid namespace"}"#],
        },
    },
    Rule {
        engine: SOCKETIOXIDE,
        behaviours: &["namespace with query"],
        of: Way::is_eio3,
        expected: Expected::Fail {
            reason: "The query is taken for a part of the name, and the page is never told that \
                     it is refused.",
            seen: &["no error came after"],
        },
    },
];

/// Tells what is expected of a cell.
pub fn expected(engine: EngineKind, behaviour: &str, way: Way) -> Expected {
    let fits = |rule: &&Rule| {
        rule.engine.is_none_or(|only| only == engine)
            && rule.behaviours.contains(&behaviour)
            && (rule.of)(way)
    };
    RULES.iter().find(fits).map_or(Expected::Pass, |rule| rule.expected)
}

#[test]
fn every_rule_has_a_cell() {
    use super::{BEHAVIOURS, ways};
    for rule in RULES {
        for name in rule.behaviours {
            assert!(BEHAVIOURS.iter().any(|behaviour| behaviour.name == *name), "{name}");
        }
        assert!(ways().any(rule.of), "{:?}", rule.expected);
    }
}
