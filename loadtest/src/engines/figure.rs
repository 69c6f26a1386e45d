//! The figures: what they are called, how they are written, and which of several counts. Pure.

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Memory of an idle connection that is a user of its own.
    Idle,
    /// The same after events.
    Used,
    /// How much of it the gateway itself counts as mirrors.
    Mirrored,
    /// Memory of an idle connection of a user with many.
    SharedIdle,
    /// The same after events.
    SharedUsed,
    /// CPU from the connection to `initial`.
    Handshake,
    /// CPU of an event that goes to all, of a burst.
    Burst,
    /// CPU of an event that goes to all, alone.
    Spaced,
    /// CPU of an event that goes to a team.
    Team,
    /// Readers that stood still and were put out in time.
    Gone,
    /// How long the last of them was there.
    Last,
    /// Events that the others did not get once and in order, and others that were put out.
    Harm,
}

/// Which of several values counts.
enum Choice {
    Median,
    Least,
    Most,
}

impl Figure {
    /// Returns what stands in the table's first column.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "RSS per idle websocket, each a user",
            Self::Used => "… after 20 events to each",
            Self::Mirrored => "… of which mirrors, by `gateway_mirror_bytes`",
            Self::SharedIdle => "RSS per idle websocket, many of a user",
            Self::SharedUsed => "… after 20 events to each, many of a user",
            Self::Handshake => "CPU from connect to `initial`",
            Self::Burst => "CPU per event delivered, bursts of 20 to all",
            Self::Spaced => "… one each 200 ms to all",
            Self::Team => "… 20 to each team of 8",
            Self::Gone => "stalled readers put out in time",
            Self::Last => "… the last of them after",
            Self::Harm => "events that others lacked, and others put out",
        }
    }

    /// Returns the name for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle_bytes",
            Self::Used => "used_bytes",
            Self::Mirrored => "mirrored_bytes",
            Self::SharedIdle => "shared_idle_bytes",
            Self::SharedUsed => "shared_used_bytes",
            Self::Handshake => "handshake_cpu_microseconds",
            Self::Burst => "burst_event_cpu_microseconds",
            Self::Spaced => "spaced_event_cpu_microseconds",
            Self::Team => "team_event_cpu_microseconds",
            Self::Gone => "stalled_gone_percent",
            Self::Last => "stalled_last_seconds",
            Self::Harm => "harm_to_others",
        }
    }

    /// Writes a value with its unit.
    #[must_use]
    pub fn write(self, value: f64) -> String {
        match self {
            Self::Idle | Self::Used | Self::Mirrored | Self::SharedIdle | Self::SharedUsed => {
                format!("{value:.0} B")
            }
            Self::Handshake | Self::Burst | Self::Spaced | Self::Team => format!("{value:.1} µs"),
            Self::Gone => format!("{value:.0} %"),
            Self::Last => format!("{value:.1} s"),
            Self::Harm => format!("{value:.0}"),
        }
    }

    /// Returns the one that counts: the median of what varies, the worst of what must hold.
    #[must_use]
    pub fn choose(self, values: &[f64]) -> f64 {
        let choice = match self {
            Self::Gone => Choice::Least,
            Self::Last | Self::Harm => Choice::Most,
            _ => Choice::Median,
        };
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        match choice {
            Choice::Median => f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            Choice::Least => at(0),
            Choice::Most => at(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_counts_by_its_median_and_what_must_hold_by_its_worst() {
        assert_eq!(Figure::Idle.choose(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(Figure::Idle.choose(&[5.0, 1.0, 3.0, 4.0]), 3.5);
        assert_eq!(Figure::Idle.choose(&[5.0]), 5.0);
        assert_eq!(Figure::Gone.choose(&[100.0, 99.0]), 99.0);
        assert_eq!(Figure::Harm.choose(&[0.0, 1.0]), 1.0);
        assert!(Figure::Idle.choose(&[]).is_nan());
        assert_eq!(Figure::Handshake.write(81.25), "81.2 µs");
    }
}
