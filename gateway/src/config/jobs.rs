//! Part of the reading.
