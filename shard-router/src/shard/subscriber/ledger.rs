//! The conversation on one subscription connection: what is due, said, and answered.
//!
//! Pure: steps and answers in, steps and marks out.

use std::{collections::VecDeque, mem};

use bytes::Bytes;

use super::{Broken, CHUNK, Ticket, channels::Channels};

/// How many channels may be said and not answered yet.
///
/// Answers are read in between, so that a hundred thousand of them never fill the server's
/// output buffer for this connection.
const WINDOW: usize = 4 * CHUNK;

/// One step of the conversation: said to the server, or a place in the order of its answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Subscribe(Vec<Bytes>),
    Unsubscribe(Vec<Bytes>),
    Ping,
    /// All that was wanted on connect is answered.
    Up,
    /// All that these calls wanted is answered.
    Confirm(Vec<Ticket>),
}

/// A place in the order of answers that is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Up,
    Confirm(Vec<Ticket>),
}

/// A step that was said, and how many of its channels are answered.
#[derive(Debug)]
struct Unanswered {
    step: Step,
    answered: usize,
}

impl Step {
    pub(super) fn channels(&self) -> &[Bytes] {
        match self {
            Self::Subscribe(channels) | Self::Unsubscribe(channels) => channels,
            Self::Ping | Self::Up | Self::Confirm(_) => &[],
        }
    }
}

/// What will be said, what was said and not answered, and what holds once it is.
///
/// The server answers in order, so the oldest unanswered step is the one that it answers;
/// anything else is a broken conversation and the end of the connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) due: VecDeque<Step>,
    unanswered: VecDeque<Unanswered>,
    /// How many channels were said and not answered.
    waiting: usize,
    /// Whether [`Heard::Up`] was told for this connection.
    pub(super) is_up: bool,
}

impl Ledger {
    /// Has channels subscribed that are not; `said` is what is subscribed once everything due
    /// is said and answered, here and below.
    pub(super) fn want(&mut self, said: &mut Channels, channels: impl IntoIterator<Item = Bytes>) {
        let new = channels.into_iter().filter(|channel| said.say(channel));
        let new: Vec<Bytes> = new.collect();
        self.due.extend(new.chunks(CHUNK).map(|chunk| Step::Subscribe(chunk.to_vec())));
    }

    /// Has channels left that are subscribed.
    pub(super) fn leave(&mut self, said: &mut Channels, channels: impl IntoIterator<Item = Bytes>) {
        let old = channels.into_iter().filter(|channel| said.unsay(channel));
        let old: Vec<Bytes> = old.collect();
        self.due.extend(old.chunks(CHUNK).map(|chunk| Step::Unsubscribe(chunk.to_vec())));
    }

    /// Takes the next step to say, unless too much is unanswered.
    pub(super) fn next_due(&mut self) -> Option<Step> {
        let is_window_open = self.waiting < WINDOW;
        if is_window_open { self.due.pop_front() } else { None }
    }

    pub(super) fn on_step_said(&mut self, step: Step) {
        self.waiting += step.channels().len();
        self.unanswered.push_back(Unanswered { step, answered: 0 });
    }

    /// Takes the oldest mark if everything before it is answered.
    pub(super) fn reached(&mut self) -> Option<Mark> {
        match self.unanswered.front()?.step {
            Step::Subscribe(_) | Step::Unsubscribe(_) | Step::Ping => None,
            Step::Up | Step::Confirm(_) => match self.unanswered.pop_front()?.step {
                Step::Confirm(tickets) => Some(Mark::Confirm(tickets)),
                _ => Some(Mark::Up),
            },
        }
    }

    pub(super) fn on_subscribed(&mut self, channel: &Bytes) -> Result<(), Broken> {
        self.on_channel(channel, |step| matches!(step, Step::Subscribe(_)))
    }

    pub(super) fn on_unsubscribed(&mut self, channel: &Bytes) -> Result<(), Broken> {
        self.on_channel(channel, |step| matches!(step, Step::Unsubscribe(_)))
    }

    pub(super) fn on_channel(
        &mut self,
        channel: &Bytes,
        is_it: fn(&Step) -> bool,
    ) -> Result<(), Broken> {
        let oldest = self.unanswered.front_mut().filter(|oldest| is_it(&oldest.step));
        let Some(oldest) = oldest else { return Err(out_of_order()) };
        if oldest.step.channels().get(oldest.answered) != Some(channel) {
            return Err(out_of_order());
        }
        oldest.answered += 1;
        self.waiting -= 1;
        if oldest.answered == oldest.step.channels().len() {
            self.unanswered.pop_front();
        }
        Ok(())
    }

    pub(super) fn on_pong(&mut self) -> Result<(), Broken> {
        match self.unanswered.pop_front() {
            Some(Unanswered { step: Step::Ping, .. }) => Ok(()),
            _ => Err(out_of_order()),
        }
    }

    /// Finds what a refusal means; returns the channel that is refused if it is a single one.
    ///
    /// A refused chunk is said again channel by channel, so that the one at fault is known
    /// and the others work; the marks behind it wait for that.
    pub(super) fn on_refused(
        &mut self,
        said: &mut Channels,
        error: &str,
    ) -> Result<Option<Bytes>, Broken> {
        let is_denied = error.starts_with("NOPERM");
        let refused = self.unanswered.pop_front().ok_or_else(out_of_order)?;
        match refused.step {
            // A user who may not ping is answered all the same.
            Step::Ping if is_denied => Ok(None),
            Step::Subscribe(mut channels) if is_denied && refused.answered == 0 => {
                self.waiting -= channels.len();
                if channels.len() == 1 {
                    let channel = channels.swap_remove(0);
                    said.unsay(&channel);
                    return Ok(Some(channel));
                }
                let (marks, others) = mem::take(&mut self.unanswered)
                    .into_iter()
                    .partition(|later| matches!(later.step, Step::Up | Step::Confirm(_)));
                self.unanswered = others;
                let marks: VecDeque<Unanswered> = marks;
                for mark in marks.into_iter().rev() {
                    self.due.push_front(mark.step);
                }
                for channel in channels.into_iter().rev() {
                    if said.is_said(&channel) {
                        self.due.push_front(Step::Subscribe(vec![channel]));
                    }
                }
                Ok(None)
            }
            _ => Err(error.to_owned()),
        }
    }

    /// Gives back the tickets that were not confirmed, oldest first.
    pub(super) fn into_tickets(self) -> impl Iterator<Item = Ticket> {
        let said = self.unanswered.into_iter().map(|unanswered| unanswered.step);
        said.chain(self.due).flat_map(|step| match step {
            Step::Confirm(tickets) => tickets,
            _ => Vec::new(),
        })
    }
}

fn out_of_order() -> Broken {
    "the server answered something that was not asked".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&'static str]) -> Vec<Bytes> {
        names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
    }

    fn ticket(number: u64) -> Ticket {
        Ticket { number, channels: Vec::new() }
    }

    /// Says everything due and returns it, as text.
    fn say(ledger: &mut Ledger) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(step) = ledger.next_due() {
            match &step {
                Step::Subscribe(channels) => said.push(format!("+{}", join(channels))),
                Step::Unsubscribe(channels) => said.push(format!("-{}", join(channels))),
                _ => {}
            }
            ledger.on_step_said(step);
        }
        said
    }

    fn join(channels: &[Bytes]) -> String {
        channels
            .iter()
            .map(|channel| String::from_utf8_lossy(channel))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_mark_is_reached_when_all_before_it_is_answered() {
        let (mut ledger, mut said) = (Ledger::default(), Channels::default());
        ledger.want(&mut said, channels(&["a", "b"]));
        ledger.due.push_back(Step::Confirm(vec![ticket(7)]));
        assert_eq!(say(&mut ledger), ["+a b"]);
        ledger.on_subscribed(&Bytes::from_static(b"a")).unwrap();
        assert_eq!(ledger.reached(), None);
        ledger.on_subscribed(&Bytes::from_static(b"b")).unwrap();
        assert_eq!(ledger.reached(), Some(Mark::Confirm(vec![ticket(7)])));

        ledger.want(&mut said, channels(&["a"]));
        ledger.due.push_back(Step::Confirm(vec![ticket(8)]));
        assert!(say(&mut ledger).is_empty(), "it is subscribed already");
        assert_eq!(ledger.reached(), Some(Mark::Confirm(vec![ticket(8)])));
    }

    #[test]
    fn a_refused_chunk_is_said_channel_by_channel_before_its_marks() {
        let (mut ledger, mut said) = (Ledger::default(), Channels::default());
        ledger.want(&mut said, channels(&["a", "secret"]));
        ledger.due.push_back(Step::Up);
        ledger.want(&mut said, channels(&["b"]));
        ledger.due.push_back(Step::Confirm(vec![ticket(1)]));
        assert_eq!(say(&mut ledger), ["+a secret", "+b"]);

        assert_eq!(ledger.on_refused(&mut said, "NOPERM no"), Ok(None));
        assert_eq!(say(&mut ledger), ["+a", "+secret"]);
        ledger.on_subscribed(&Bytes::from_static(b"b")).unwrap();
        assert_eq!(ledger.reached(), None);
        ledger.on_subscribed(&Bytes::from_static(b"a")).unwrap();
        assert_eq!(
            ledger.on_refused(&mut said, "NOPERM no"),
            Ok(Some(Bytes::from_static(b"secret")))
        );
        assert_eq!(ledger.reached(), Some(Mark::Up));
        assert_eq!(ledger.reached(), Some(Mark::Confirm(vec![ticket(1)])));
        assert_eq!(ledger.waiting, 0);

        ledger.want(&mut said, channels(&["a", "secret"]));
        assert_eq!(say(&mut ledger), ["+secret"], "who asks again is told again");
    }

    #[test]
    fn an_answer_to_nothing_is_the_end() {
        let (mut ledger, mut said) = (Ledger::default(), Channels::default());
        ledger.want(&mut said, channels(&["a", "b"]));
        say(&mut ledger);
        assert!(ledger.on_pong().is_err());
        let (mut ledger, mut said) = (Ledger::default(), Channels::default());
        ledger.want(&mut said, channels(&["a", "b"]));
        say(&mut ledger);
        assert!(ledger.on_subscribed(&Bytes::from_static(b"b")).is_err());
        assert!(ledger.on_unsubscribed(&Bytes::from_static(b"a")).is_err());
        assert!(ledger.on_refused(&mut said, "LOADING").is_err());
    }

    #[test]
    fn at_most_a_window_is_unanswered() {
        let (mut ledger, mut said) = (Ledger::default(), Channels::default());
        ledger.want(&mut said, (0..10 * CHUNK).map(|number| Bytes::from(number.to_string())));
        assert_eq!(say(&mut ledger).len(), WINDOW / CHUNK);
        ledger.on_subscribed(&Bytes::from_static(b"0")).unwrap();
        assert_eq!(say(&mut ledger).len(), 1);
    }
}
