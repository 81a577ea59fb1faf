//! What the benchmark and the server it compares with have in common.

pub mod statements;
