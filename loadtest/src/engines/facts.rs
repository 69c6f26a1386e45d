//! What machine this is, and which versions run on it.

use std::{fmt, fs, path::Path, process::Command};

/// What the figures belong to; what cannot be found is `unknown`.
#[derive(Debug, Clone)]
pub struct Facts {
    processor: String,
    cores: usize,
    memory: u64,
    kernel: String,
    gateway: String,
    redis: String,
}

impl Facts {
    /// Looks at this machine, and asks the programs for their versions.
    #[must_use]
    pub fn now(gateway: &Path) -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal:")
            .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name")
                .map_or_else(unknown, |text| text.trim_start_matches([':', ' ']).to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: kilobytes.unwrap_or_default() >> 20,
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|text| !text.is_empty())
                .unwrap_or_else(unknown),
            gateway: version(gateway),
            redis: version(Path::new("redis-server")),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory, kernel, gateway, redis } = self;
        write!(
            out,
            "{cores} cores ({processor}), {memory} GiB, Linux {kernel}; {gateway}; Redis {redis}; \
             gateway, Redis and clients on the one machine"
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

/// Returns the first line of what a program says of its version, or what stands behind `v=`.
fn version(program: &Path) -> String {
    let said = Command::new(program).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    let line = said.lines().next().unwrap_or_default();
    let number = line.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or(line);
    if number.is_empty() { unknown() } else { number.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_unknown() {
        assert_eq!(version(Path::new("no such program")), "unknown");
        assert_eq!(field("a: 1\nb: 2 kB", "b:"), Some("2 kB".to_owned()));
        assert_eq!(field("a: 1", "b:"), None);
        assert!(Facts::now(Path::new("no such program")).to_string().contains("; unknown; "));
    }
}
