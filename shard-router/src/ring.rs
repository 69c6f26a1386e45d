//! Ketama.
