//! Takes jobs from one queue and answers them.
