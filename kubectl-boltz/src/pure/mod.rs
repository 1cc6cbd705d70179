//! What is shown, as functions of objects and of the present. No calls.

pub mod accounts;
pub mod explain;
pub mod keys;
pub mod list;
pub mod object;
pub mod tree;
pub mod urgency;
pub mod users;
pub mod whose;

#[cfg(test)]
pub mod samples;
