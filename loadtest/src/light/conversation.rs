//! What a client says to what it hears: Engine.IO 3 and 4, socket.io in namespace `/`. Pure.

use std::time::Duration;

use super::{Listener, Lost};
use crate::wire::{Packet, Protocol, Timing};

/// What is asked with a callback and not answered yet.
#[derive(Debug)]
pub(super) struct Call<R> {
    pub(super) event: Box<str>,
    pub(super) argument: Box<str>,
    /// Who else wants to know the answer.
    pub(super) reply: Option<R>,
}

/// One connection from the open packet on.
#[derive(Debug)]
pub(super) struct Conversation<R> {
    protocol: Protocol,
    resumes: bool,
    timing: Option<Timing>,
    is_in: bool,
    next: u64,
    calls: Vec<(u64, Call<R>)>,
}

impl<R> Conversation<R> {
    pub(super) const fn new(protocol: Protocol, resumes: bool) -> Self {
        Self { protocol, resumes, timing: None, is_in: false, next: 0, calls: Vec::new() }
    }

    /// Tells whether the namespace is joined, so that calls may be made.
    pub(super) const fn is_in(&self) -> bool {
        self.is_in
    }

    /// Hears a text; what has to be said to it is handed to `say`.
    ///
    /// Returns a call that is answered, and its answer.
    pub(super) fn hear<'a>(
        &mut self,
        text: &'a str,
        listener: &mut impl Listener,
        say: &mut impl FnMut(&str),
    ) -> Result<Option<(Call<R>, &'a str)>, Lost> {
        let odd = || Lost::Protocol(text.chars().take(60).collect());
        match Packet::read(text).ok_or_else(odd)? {
            Packet::Open(timing) if self.timing.is_none() => {
                self.timing = Some(timing);
                if self.protocol == Protocol::Eio4 {
                    say("40");
                }
            }
            _ if self.timing.is_none() => return Err(odd()),
            Packet::Open(_) => return Err(odd()),
            Packet::Connected => {
                self.is_in = true;
                listener.connected();
                if self.resumes {
                    let (event, argument) = ("resume".into(), listener.resume().into());
                    self.call(Call { event, argument, reply: None }, say);
                }
            }
            Packet::Ping => say("3"),
            Packet::Event { name, array } => {
                let argument = argument(name, array).ok_or_else(odd)?;
                listener.event(name, argument);
            }
            Packet::Ack { call, array } => {
                let at = self.calls.iter().position(|(number, _)| *number == call);
                let (_, call) = self.calls.swap_remove(at.ok_or_else(odd)?);
                let answer = array.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let answer = answer.ok_or_else(odd)?;
                listener.answer(&call.event, &call.argument, answer);
                return Ok(Some((call, answer)));
            }
            Packet::Refused(reason) => return Err(Lost::Refused(reason)),
            Packet::Disconnected => return Err(Lost::Disconnected),
            Packet::Close => return Err(Lost::Closed),
            Packet::Pong | Packet::Other => {}
        }
        Ok(None)
    }

    /// Makes a call with one argument, which is JSON.
    pub(super) fn call(&mut self, call: Call<R>, say: &mut impl FnMut(&str)) {
        let Call { event, argument, .. } = &call;
        let number = self.next;
        say(&format!("42{number}[{},{argument}]", serde_json::Value::from(&**event)));
        self.next += 1;
        self.calls.push((number, call));
    }

    /// Returns how long the server may be silent, and how often it is pinged by us.
    pub(super) fn rhythm(&self) -> Option<(Duration, Option<Duration>)> {
        let Timing { interval, timeout } = self.timing?;
        Some((interval + timeout, (self.protocol == Protocol::Eio3).then_some(interval)))
    }
}

/// Returns the one argument of an event, or nothing where it has none.
fn argument<'a>(name: &str, array: &'a str) -> Option<&'a str> {
    let rest = array.get(name.len() + 3..)?.strip_suffix(']')?;
    Some(rest.strip_prefix(',').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Listener for Notes {
        fn resume(&mut self) -> String {
            r#"{"feeds":{}}"#.to_owned()
        }

        fn event(&mut self, name: &str, argument: &str) {
            self.0.push(format!("{name}: {argument}"));
        }

        fn answer(&mut self, event: &str, argument: &str, answer: &str) {
            self.0.push(format!("{event}({argument}) = {answer}"));
        }
    }

    const OPEN: &str = r#"0{"sid":"x","pingInterval":25000,"pingTimeout":20000}"#;

    /// Each line is what the server says, then what the client says to it.
    #[track_caller]
    fn check(protocol: Protocol, resumes: bool, lines: &[(&str, &[&str])], notes: &[&str]) {
        let mut conversation = Conversation::<()>::new(protocol, resumes);
        let mut listener = Notes::default();
        for (heard, expected) in lines {
            let mut said = Vec::new();
            conversation
                .hear(heard, &mut listener, &mut |text| said.push(text.to_owned()))
                .unwrap();
            assert_eq!(said, *expected, "{heard}");
        }
        assert_eq!(listener.0, notes);
    }

    #[test]
    fn each_generation_is_spoken() {
        let (initial, event) = (r#"42["initial",{"a":[1]}]"#, r#"42["change",{"b":2}]"#);
        let notes = [r#"initial: {"a":[1]}"#, r#"change: {"b":2}"#, "bare: "];
        let bare = r#"42["bare"]"#;
        check(
            Protocol::Eio4,
            false,
            &[
                (OPEN, &["40"]),
                (r#"40{"sid":"y"}"#, &[]),
                (initial, &[]),
                ("2", &["3"]),
                (event, &[]),
                (bare, &[]),
            ],
            &notes,
        );
        check(
            Protocol::Eio3,
            false,
            &[(OPEN, &[]), ("40", &[]), (initial, &[]), ("3", &[]), (event, &[]), (bare, &[])],
            &notes,
        );
    }

    #[test]
    fn a_resume_is_said_at_once_and_its_answer_told_in_order() {
        let answer = r#"430[{"code":200,"resumed":1,"reset":0}]"#;
        check(
            Protocol::Eio3,
            true,
            &[
                (OPEN, &[]),
                ("40", &[r#"420["resume",{"feeds":{}}]"#]),
                (r#"42["reset",{}]"#, &[]),
                (answer, &[]),
            ],
            &["reset: {}", r#"resume({"feeds":{}}) = {"code":200,"resumed":1,"reset":0}"#],
        );
    }

    #[test]
    fn an_end_and_what_is_no_protocol_are_told() {
        for (heard, lost) in [
            ("41", Lost::Disconnected),
            ("1", Lost::Closed),
            (r#"44{"message":"unauthorized"}"#, Lost::Refused("unauthorized".into())),
            ("437[]", Lost::Protocol("437[]".into())),
            (OPEN, Lost::Protocol(OPEN.into())),
            ("x", Lost::Protocol("x".into())),
        ] {
            let mut conversation = Conversation::<()>::new(Protocol::Eio4, false);
            let mut hear = |text| conversation.hear(text, &mut Notes::default(), &mut |_| {});
            assert!(hear(OPEN).is_ok());
            assert_eq!(hear(heard).unwrap_err(), lost);
        }
        let mut early = Conversation::<()>::new(Protocol::Eio4, false);
        assert!(early.hear("40", &mut Notes::default(), &mut |_| {}).is_err());
    }
}
