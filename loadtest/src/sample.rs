//! What the kernel says of a process, and of this one's bounds.

use std::time::Duration;

/// Clock ticks a second in `/proc/PID/stat`: Linux has told programs 100 on every machine since 2.6.
const TICKS: u32 = 100;

/// What a server used so far, all its processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

impl Sample {
    /// Takes a sample of these processes; `None` where one of them cannot be seen.
    #[must_use]
    pub fn of(pids: &[u32]) -> Option<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            sum.cpu += cpu(&stat)?;
            sum.rss += rss(&status)?;
        }
        Some(sum)
    }
}

/// Reads the fields 14 and 15; the second one, a name, may hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_secs(1) * user.checked_add(system)? / TICKS)
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Counts the connections that are open at a local port; `None` where they cannot be seen.
#[must_use]
pub fn established(port: u16) -> Option<usize> {
    let lines = std::fs::read_to_string("/proc/net/tcp").ok()?;
    Some(lines.lines().filter(|line| is_established(line, port)).count())
}

/// Reads the local address, the remote one and the state, which is 1 for an open connection.
fn is_established(line: &str, port: u16) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local =
        fields.next().and_then(|local| u16::from_str_radix(local.split_once(':')?.1, 16).ok());
    local == Some(port) && fields.nth(1) == Some("01")
}

/// Raises the number of descriptors this process may have as far as it is let; returns it.
#[must_use]
pub fn raise_descriptors(wanted: u64) -> u64 {
    rlimit::increase_nofile_limit(wanted)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("7 (a"), None);
        assert_eq!(rss("Name:\tx\nVmRSS:\t  1024 kB\n"), Some(1 << 20));
        assert_eq!(rss("Name:\tx\n"), None);
    }

    #[test]
    fn an_open_connection_is_known_by_its_local_port() {
        let line = "   0: 0100007F:0BB8 0200007F:A1B2 01 00000000:00000000 00:00000000";
        assert!(is_established(line, 3000));
        assert!(!is_established(line, 3001));
        assert!(!is_established(&line.replace(" 01 ", " 06 "), 3000));
        assert!(!is_established("  sl  local_address rem_address   st", 3000));
    }

    #[test]
    fn this_process_can_be_seen_and_no_other_of_that_number() {
        assert!(Sample::of(&[std::process::id()]).is_some_and(|sample| sample.rss > 0));
        assert_eq!(Sample::of(&[std::process::id(), u32::MAX]), None);
        assert_eq!(Sample::of(&[]), Some(Sample::default()));
    }
}
