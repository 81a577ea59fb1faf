//! What the program's exit codes say.

use std::fmt;

/// It is done, and nothing stands against going on.
pub const DONE: u8 = 0;
/// It was looked at, and the answer is no: the audit has errors, rights have drifted, rows differ, a step was refused.
pub const NO: u8 = 1;
/// It could not be done, or nobody knows: a database that does not answer, a wrong argument, a manifest that cannot be read.
pub const FAILED: u8 = 2;

/// A step that was refused: what stands against it, and what to do. Nothing was changed, or everything was taken back.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Refuses unless it holds.
macro_rules! require {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(anyhow::Error::new($crate::exit::Refused(format!($($why)+))));
        }
    };
}
pub(crate) use require;

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Refused>()) { NO } else { FAILED }
}
