//! One process with its log, killed on drop; it may be stopped and let run by signals.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use super::ClusterError;

/// How much of a log is told when a process ended by itself.
const LAST_LINES: usize = 8;

/// A program that can be started again after it was killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    /// Held to start, signal or reap it; `None` while it is killed.
    child: Mutex<Option<Child>>,
}

/// A signal that a process cannot refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It does nothing until it is let run.
    Stop,
    /// It goes on.
    Continue,
}

impl Process {
    /// Names a process that is not started; what it will say goes to a file in `folder`.
    #[must_use]
    pub fn new(name: &str, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), log, child: Mutex::new(None) }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Start`] when the program is missing.
    pub fn start(&self, command: &mut Command) -> Result<(), ClusterError> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        if child.is_some() {
            return Ok(());
        }
        let failed = |source| ClusterError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        };
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let again = log.try_clone().map_err(failed)?;
        let started = command.stdin(Stdio::null()).stdout(log).stderr(again).spawn();
        *child = Some(started.map_err(|source| ClusterError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?);
        Ok(())
    }

    /// Kills it as a power cut would; nothing happens if it is killed already.
    pub fn kill(&self) {
        let child = self.child.lock().expect("no holder of this lock panics").take();
        if let Some(mut child) = child {
            // It may have ended by itself, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Signals it; nothing happens while it is killed.
    pub fn signal(&self, signal: Signal) {
        let Some(id) = self.id() else { return };
        let word = match signal {
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        // It may have ended between the two lines.
        let _ = Command::new("kill").args([word, &id.to_string()]).stderr(Stdio::null()).status();
    }

    /// Returns the id of the process; `None` while it is killed.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.lock().expect("no holder of this lock panics").as_ref().map(Child::id)
    }

    /// Makes sure that it has not ended by itself.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Ended`] with the end of its log when it has.
    pub fn alive(&self) -> Result<(), ClusterError> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let Some(status) = ended else { return Ok(()) };
        let lines = self.log();
        let lines: Vec<&str> = lines.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        Err(ClusterError::Ended { name: self.name.clone(), log: format!("{status}\n{last}") })
    }

    /// Returns what it has said, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Finds a port that nobody listens on.
///
/// It is below the range from which the system takes local ports: there, a client that dials
/// a server that is away could be connected to itself.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
