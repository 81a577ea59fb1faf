//! The program's exit codes, and the refusals behind code 1.

use std::fmt;

/// The command is done, and the next one may run.
pub const DONE: u8 = 0;
/// The check failed or the step was refused: the audit has errors, rights or rows differ.
pub const NO: u8 = 1;
/// An error, or an unknown outcome: a database does not answer, an argument is wrong, the manifest cannot be read.
pub const FAILED: u8 = 2;

/// A refused step: the reason, and what to do. Nothing was changed, or every change was undone.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Returns [`Refused`] with the message unless the condition holds.
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
