//! `splitctl rollback`: a cutover to the source.

use std::path::Path;

use anyhow::Result;

use super::cutover::{self, Switch};
use crate::moving::Side;

/// Switches back to the source.
pub async fn run(command: Switch, manifest: &Path) -> Result<u8> {
    cutover::run(command, manifest, Side::Source).await
}
