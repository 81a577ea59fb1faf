//! What the program's exit codes say.

/// It is done, and nothing stands against going on.
pub const DONE: u8 = 0;
/// It was looked at, and the answer is no: the audit has errors, rights have drifted, rows differ, a step was refused.
pub const NO: u8 = 1;
/// It could not be done, or nobody knows: a database that does not answer, a wrong argument, a manifest that cannot be read.
pub const FAILED: u8 = 2;
