//! The proof in a cutover: the part that changes nothing, before writers wait.

use anyhow::Result;

use super::steps::Attempt;
use crate::exit::require;
use crate::moving::plan::Weight;
use crate::moving::{Side, crash_point};
use crate::output::note;
use crate::proof::{self, Extent, Finding};

/// How many warnings are shown.
const SHOWN: usize = 10;

impl Attempt<'_> {
    /// The rest of step 1. What the application is known to run must work on the other side. Each switch to the target is
    /// proven, and the first one back; a later rollback leads to where it has worked since.
    pub(super) async fn prove_other_side(&mut self) -> Result<()> {
        let to = self.the_move.lives().other();
        if to == Side::Source && !self.the_move.is_first_switch(to) {
            return Ok(());
        }
        let proof = Box::pin(proof::prove(self.the_move, to, Extent::Plans)).await?;
        let errors: Vec<&str> = proof.errors().map(|finding| finding.text.as_str()).collect();
        let found = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
        require!(errors.is_empty(), "the proof of the {to} found {found}, nothing was changed:\n  {}", errors.join("\n  "));
        let warnings = proof.findings.iter().filter(|finding| finding.weight == Weight::Warning);
        for Finding { text, .. } in warnings.clone().take(SHOWN) {
            note(format_args!("the proof of the {to} warns: {text}"));
        }
        let (more, unchecked) = (warnings.skip(SHOWN).count(), proof.unchecked.len());
        if more + unchecked > 0 {
            let owner_name = &self.the_move.owner_name;
            note(format_args!(
                "the proof of the {to} has {more} more warnings, and {unchecked} statements are unchecked: `splitctl prove \
                 {owner_name}` lists them"
            ));
        }
        crash_point("other side proven");
        Ok(())
    }
}
