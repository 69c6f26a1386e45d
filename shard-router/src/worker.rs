//! Typed workers over job queues.
