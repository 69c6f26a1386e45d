//! What is wrong with a configuration, all of it at once.

use std::{fmt, io, path::Path};

/// One mistake: where it is, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it comes from.
    pub origin: Origin,
    /// The option, such as `server.listen` or `shards.nodes[1].url`; empty for the file itself.
    pub path: String,
    /// A clause that goes on after the path, such as `is a number`.
    pub message: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the file, counted from one.
    Line(usize),
    /// The file as a whole: something is not there.
    File,
    /// The variable of this name.
    Environment(String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        // One mistake is one line, whatever a library had to say.
        let words: Vec<_> = self.message.split_whitespace().collect();
        out.write_str(&words.join(" "))?;
        match &self.origin {
            Origin::Line(line) => write!(out, " (line {line})"),
            Origin::File => Ok(()),
            Origin::Environment(name) => write!(out, " (from {name})"),
        }
    }
}

/// Every mistake in a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let message = format!("{} cannot be read: {error}", path.display());
        Self(vec![Mistake { origin: Origin::File, path: String::new(), message }])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
