//! A program that runs beside the test, with its log, ended with it.

use std::{
    collections::HashSet,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex},
};

use super::until;

/// One process; killed on drop, its log shown if the test fails.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; what it says goes to a file in `folder`.
    pub(super) fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log can be made");
        let again = out.try_clone().expect("a file can be opened twice");
        let child = command
            // Those that end with their stdin end with the test, however that ends.
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(again)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {:?}: {error}", command.get_program()));
        Self { name: name.to_owned(), child, log }
    }

    /// The id of its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Kills it the hard way.
    pub(super) fn kill(&mut self) {
        // It may be dead already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal by its name.
    pub(super) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("`kill` can be run").success(), "`kill` failed");
    }

    /// Waits until it has ended by itself.
    pub(super) async fn end(&mut self) -> ExitStatus {
        let name = self.name.clone();
        until(&format!("{name} has ended"), async || {
            self.ended().ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(LAST_LINES);
            eprintln!("--- {}\n{}", self.name, lines[last..].join("\n"));
        }
    }
}

/// How much of a log is shown when a test fails.
const LAST_LINES: usize = 12;

/// Finds a port that nobody listens on, another one each time.
///
/// It is below the range from which the system takes local ports: there, a client that dials
/// a server that is away could be connected to itself.
pub(super) fn free_port() -> u16 {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        let port = rand::random_range(10_000..20_000);
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && TAKEN.lock().expect("no holder of this lock panics").insert(port) {
            return port;
        }
    }
}

/// The folder of the workspace.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the gateway is a folder of it")
}

/// A file or folder of the tests.
pub(super) fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// Makes sure that something is there that `make test` prepares.
pub(super) fn prepared(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing; `make test` makes it", path.display());
    path
}

/// The Python that has what the workers and publishers import.
pub(super) fn python() -> PathBuf {
    match std::env::var_os("PNEUMATIC_PYTHON") {
        Some(python) => python.into(),
        None => prepared(root().join("target/venv/bin/python")),
    }
}
