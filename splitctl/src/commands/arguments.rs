//! Arguments that several commands share.

use clap::Args;

use crate::moving::Locking;
use crate::output::Output;

/// Arguments of a command that locks tables.
#[derive(Debug, Args)]
pub struct Act {
    /// The owner, as the manifest names it
    pub owner: String,
    #[command(flatten)]
    pub locking: Locking,
    #[command(flatten)]
    pub output: Output,
}
