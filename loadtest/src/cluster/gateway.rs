//! One gateway as a process.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Admin, ClusterError, Patience, config,
    process::{Process, Signal, free_port},
};

/// A gateway that keeps its ports over restarts.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    program: PathBuf,
    config: PathBuf,
    port: u16,
    admin: Admin,
}

impl Gateway {
    /// Starts a gateway by a configuration in which its ports are not filled in yet.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when the program is missing.
    pub fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        config: String,
    ) -> Result<Self, ClusterError> {
        let (port, admin) = (free_port(), free_port());
        let file = folder.join(format!("{name}.toml"));
        let config = config
            .replace(config::LISTEN, &port.to_string())
            .replace(config::ADMIN, &admin.to_string());
        fs::write(&file, config)
            .map_err(|source| ClusterError::File { path: file.clone(), source })?;
        let gateway = Self {
            process: Process::new(name, folder),
            program: program.to_owned(),
            config: file,
            port,
            admin: Admin::new(admin),
        };
        gateway.restart()?;
        Ok(gateway)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// Returns the process, to stop it or let it run.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the port where clients connect, on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns its admin listener.
    #[must_use]
    pub const fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Kills it as a power cut would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after [`Self::kill`]; does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when the program is missing.
    pub fn restart(&self) -> Result<(), ClusterError> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&self.config).env("NO_COLOR", "1");
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        self.process.start(&mut command)
    }

    /// Waits until it takes clients.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it ends or does not come to it.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        let patience = Patience::with(self.name());
        loop {
            self.process.alive()?;
            let answer = self.admin.ask("GET", "/readyz", None).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            patience.wait().await?;
        }
    }

    /// Lets it run if it was stopped, starts it if it was killed, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it does not come up.
    pub async fn heal(&self) -> Result<(), ClusterError> {
        self.process.signal(Signal::Continue);
        self.restart()?;
        self.ready().await
    }

    /// Reads what it counts: by the name with its labels as they are written.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Admin`] when it does not answer.
    pub async fn metrics(&self) -> Result<HashMap<String, f64>, ClusterError> {
        let answer = self.admin.ask("GET", "/metrics", None).await?;
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.filter_map(sample).collect())
    }
}
