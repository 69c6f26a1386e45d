//! What is seen while it runs; the only file that knows indicatif.

use indicatif::{ProgressBar, ProgressStyle};

use crate::board::{Board, Count};

/// A bar of the clients that are in, and a line of figures, on standard error.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows a bar where standard error is a terminal, and nothing elsewhere.
    #[must_use]
    pub fn shown(connections: usize) -> Self {
        let bar = ProgressBar::new(connections as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} in {elapsed} {msg}");
        bar.set_style(style.expect("the template is right"));
        Self(bar)
    }

    /// Shows nothing.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Shows what the board says now.
    pub fn show(&self, step: &'static str, board: &Board) {
        self.0.set_position(board.get(Count::In));
        let [failed, lost, events] =
            [Count::Failed, Count::Lost, Count::Events].map(|count| board.get(count));
        self.0.set_message(format!("· {failed} failed · {lost} lost · {events} events · {step}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
