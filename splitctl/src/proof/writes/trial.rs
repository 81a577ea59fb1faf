//! The writes in the proof: on both sides, in transactions that are rolled back.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Change, Way, read, read_texts};
use crate::manifest::Owner;
use crate::moving::plan::Weight;
use crate::moving::{Move, Side};
use crate::names::Qualified;
use crate::proof::compare::Comparison;
use crate::proof::names::{Names, words};
use crate::proof::outside::Outside;
use crate::proof::plans::Refusal;
use crate::proof::session::{Mode, Session, Setting};
use crate::proof::{Finding, Proof, Unchecked, Written, open};

/// What became of each write to a table.
type Tried = Vec<(&'static str, Tries)>;

/// What became of a write.
enum Tries {
    Done,
    Not(&'static str),
    Refused(Refusal),
}

/// What the advice depends on.
struct Context {
    moving: BTreeSet<Qualified>,
    role: String,
    on: Side,
}

/// Writes to each table on both sides, and compares what the servers say.
pub(in crate::proof) async fn check(
    proof: &mut Proof,
    the_move: &mut Move,
    more: &[Setting],
    outside: &Outside,
    reach_outside: bool,
) -> Result<()> {
    let lives = the_move.lives();
    let (changes, empty) = read(the_move, lives).await?;
    for table in empty {
        proof.written.push(Written { table, write: "insert", result: "not tried: there is no row to copy".to_owned() });
    }
    // A rolled-back insert leaves its numbers drawn. Where nobody works, the sequences are put back.
    let closed = lives.other();
    let sequences = the_move.sequences(closed).await?;
    the_move.advance_sequences(closed).await?;
    let tried = check_each(proof, the_move, more, &changes, (outside, reach_outside)).await;
    the_move.put_back_sequences(closed, &sequences).await?;
    tried
}

async fn check_each(
    proof: &mut Proof,
    the_move: &mut Move,
    more: &[Setting],
    changes: &[Change],
    (outside, reach_outside): (&Outside, bool),
) -> Result<()> {
    let on = proof.side;
    let moving = the_move.relations(on.other()).await?.into_iter().collect();
    let context = Context { moving, role: the_move.role(on).to_owned(), on };
    let (mut before, _) = open(the_move, on.other(), more, Mode::Writing).await?;
    let (mut after, _) = open(the_move, on, more, Mode::Writing).await?;
    for change in changes {
        match outside.of(change.table()).filter(|_| !reach_outside) {
            Some(why) => add(proof, change.table(), "insert", &format!("not tried: {why}")),
            None => check_table(proof, &the_move.owner, change, (&mut before, &mut after), &context).await?,
        }
    }
    before.close().await?;
    after.close().await
}

async fn check_table(
    proof: &mut Proof,
    owner: &Owner,
    change: &Change,
    (before, after): (&mut Session, &mut Session),
    context: &Context,
) -> Result<()> {
    let on = proof.side;
    let (one, other) = tokio::try_join!(try_writes(before, change), try_writes(after, change))?;
    for ((write, before_says), (_, after_says)) in one.into_iter().zip(other) {
        let subject = format!("{write} on {}", change.table());
        let (weight, text, refusal) = match (before_says, after_says) {
            (_, Tries::Done) => {
                add(proof, change.table(), write, "done");
                continue;
            }
            (_, Tries::Not(why)) => {
                add(proof, change.table(), write, &format!("not tried: {why}"));
                continue;
            }
            (Tries::Refused(first), Tries::Refused(refusal)) if first.sqlstate == refusal.sqlstate => {
                let whose = if refusal.is_rule() { "the application's own rules refuse it" } else { "it fails" };
                (Weight::Note, format!("{whose} on both sides: {}", refusal.said()), refusal)
            }
            (_, Tries::Refused(refusal)) if refusal.is_of_the_moment() => {
                let why = format!("{} on the {on}", refusal.said());
                proof.unchecked.push(Unchecked { statement: subject, why });
                add(proof, change.table(), write, "refused");
                continue;
            }
            (_, Tries::Refused(refusal)) if refusal.is_rule() => {
                let text = format!(
                    "the application's own rules refuse it on the {on}, and not on the {}: {}. Compare what they read there",
                    on.other(),
                    refusal.said()
                );
                (Weight::Warning, text, refusal)
            }
            (_, Tries::Refused(refusal)) => {
                let advice = advise(&refusal, (before, after), context).await?;
                (Weight::Error, format!("{}. It works on the {}. {advice}", refusal.said(), on.other()), refusal)
            }
        };
        add(proof, change.table(), write, "refused");
        let finding = Finding::new(weight, &subject, format!("{subject}: {text}"));
        proof.add(owner, Finding { sqlstate: Some(refusal.sqlstate), ..finding });
    }
    Ok(())
}

fn add(proof: &mut Proof, table: &Qualified, write: &'static str, result: &str) {
    proof.written.push(Written { table: table.clone(), write, result: result.to_owned() });
}

/// What to do about the objects that the server's message names.
async fn advise(
    refusal: &Refusal,
    (before, after): (&mut Session, &mut Session),
    Context { moving, role, on }: &Context,
) -> Result<String, sqlx::Error> {
    let message = refusal.message.replace('"', " ");
    let named = words(&message).into_iter().map(|word| word.name).collect();
    let (before, after) = (&Names::read(before, &named).await?, &Names::read(after, &named).await?);
    let comparison = Comparison { on: *on, role, moving, is_shared: false, before, after };
    Ok(comparison.advise(&message, refusal, &BTreeSet::new()))
}

/// Inserts, updates and deletes, each behind a savepoint, with constraints checked at once.
async fn try_writes(session: &mut Session, change: &Change) -> Result<Tried> {
    session.begin_again().await?;
    session.fetch("set constraints all immediate; savepoint splitctl_write".to_owned()).await?;
    let (mut tried, mut key) = (Tried::new(), change.own_key());
    if change.way == Way::Replace {
        // A row like it can only be there after it.
        let deleted = try_one(session, change.delete(&key)).await?.0;
        let inserts = matches!(deleted, Tries::Done);
        tried.push(("delete", deleted));
        let insert = if inserts { change.insert() } else { None };
        tried.insert(0, ("insert", try_one(session, insert).await?.0));
        tried.insert(1, ("update", try_one(session, change.update(&key)).await?.0));
    } else {
        let (inserted, new) = try_one(session, change.insert()).await?;
        tried.push(("insert", inserted));
        if let Some(new) = new {
            key = new;
        }
        tried.push(("update", try_one(session, change.update(&key)).await?.0));
        tried.push(("delete", try_one(session, change.delete(&key)).await?.0));
    }
    session.begin_again().await?;
    Ok(tried)
}

async fn try_one(session: &mut Session, statement: Option<String>) -> Result<(Tries, Option<super::Key>)> {
    let Some(statement) = statement else { return Ok((Tries::Not("the role has no right to it, or reads no key"), None)) };
    match session.fetch(format!("{statement}; savepoint splitctl_write")).await {
        Ok(rows) => Ok((Tries::Done, rows.first().map(read_texts).transpose()?)),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            session.fetch("rollback to splitctl_write".to_owned()).await?;
            Ok((Tries::Refused(refusal), None))
        }
    }
}
