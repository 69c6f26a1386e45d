//! What happened when, in a file to read afterwards, and how often.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Mutex,
    time::Instant,
};

/// Counts and, with the time since the run began, lines.
#[derive(Debug)]
pub struct Journal {
    began: Instant,
    /// Held to write one line or raise one count.
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    file: File,
    counts: BTreeMap<String, u64>,
}

impl Journal {
    /// Begins a journal in a file.
    ///
    /// # Errors
    ///
    /// Returns why the file cannot be made.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let pages = Pages { file: File::create(path)?, counts: BTreeMap::new() };
        Ok(Self { began: Instant::now(), pages: Mutex::new(pages) })
    }

    /// Writes a line.
    pub fn note(&self, line: impl fmt::Display) {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut pages = self.pages.lock().expect("no holder of this lock panics");
        // A full disk must not end a run that finds bugs.
        let _ = writeln!(pages.file, "{seconds:9.3} {line}");
    }

    /// Counts something under a name such as `fault: stop of a shard`.
    pub fn count(&self, name: &str, by: u64) {
        let mut pages = self.pages.lock().expect("no holder of this lock panics");
        match pages.counts.get_mut(name) {
            Some(count) => *count += by,
            None => drop(pages.counts.insert(name.to_owned(), by)),
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.pages.lock().expect("no holder of this lock panics").counts.clone()
    }

    /// How long it has been since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.began.elapsed()
    }
}
