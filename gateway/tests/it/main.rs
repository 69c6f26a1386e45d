//! The gateway through the doors that its clients use.

mod real;
