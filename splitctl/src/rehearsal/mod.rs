//! A rehearsal: the whole way, out and back, between two throw-away databases. The real databases are only read.

mod expectation;
mod fingerprint;
mod load;
mod locale;
mod original;
pub mod record;
mod report;
mod rows;
mod sample;
mod scratch;
mod standin;
mod tables;
mod way;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use sqlx::query_scalar;

use crate::database::{address, choose, connect, with_database};
use crate::endpoint::{Endpoint, each_host};
use crate::exit::require;
use crate::manifest::{KnownStatement, Manifest, Owner, Url};
use crate::moving::plan::Weight;
use crate::moving::{self, Database, Move, Side, plan, try_subscription};
use crate::names::Qualified;
use crate::output::note;
use crate::proof;
use expectation::Measured;
use fingerprint::Fingerprint;
use load::Access;
use original::Original;
pub use report::Report;
use report::{Moving, Server};
pub use rows::Rows;
use scratch::Scratch;
use standin::Made;
use way::Way;

/// Flags of `rehearse`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The rows to use: all, about a thousand of each table with all that their foreign keys need, or none. By default all,
    /// or a sample if all would take more than ten minutes
    #[arg(long)]
    pub rows: Option<Rows>,
    /// A server for the throw-away databases, as the URL of an operator. By default the target's server
    #[arg(long)]
    pub scratch: Option<String>,
    /// Keep the throw-away databases. The next rehearsal drops them
    #[arg(long)]
    pub keep: bool,
    /// Also run triggers and functions that reach outside of the database. They are always listed
    #[arg(long)]
    pub reach_outside: bool,
    /// Another folder for the report. It is always written to `rehearsals`, beside the manifest
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Rehearses the move of an owner. Whatever happens, the throw-away databases are dropped, unless they are to be kept.
///
/// # Errors
/// If the rehearsal cannot be made. What it finds is in the report.
pub async fn run(path: &Path, owner_name: &str, options: &Options) -> Result<Report> {
    let manifest = Manifest::read(path)?;
    let mut report = Report { owner: owner_name.to_owned(), ..Report::default() };
    report.at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    report.splitctl = env!("CARGO_PKG_VERSION").to_owned();
    let begun = Instant::now();
    let real = plan_real(path, owner_name, &mut report).await?;
    let url = match &options.scratch {
        Some(url) => Url(url.clone()).resolve("--scratch")?,
        None => real.target.clone(),
    };
    let mut scratch = Scratch::open(&choose(&url).await?, owner_name).await?;
    scratch.is_elsewhere = options.scratch.is_some();
    if scratch.is_elsewhere && manifest.owner(owner_name)?.login.is_some() {
        report
            .unchecked
            .push("the application's login: the roles of --scratch are stand-ins, which cannot log in".to_owned());
    }
    report.scratch = scratch.address();
    let rehearsed = tokio::select! {
        rehearsed = Box::pin(rehearse(&manifest, &real, &mut scratch, options, &mut report)) => rehearsed,
        signal = interrupted() => signal,
    };
    let dropped = if options.keep {
        let kept = [Side::Source, Side::Target].map(|side| scratch.database(side));
        note(format_args!("kept on {}: {}", scratch.address(), kept.join(", ")));
        Ok(())
    } else {
        scratch.drop().await
    };
    if let (Err(_), Err(left)) = (&rehearsed, &dropped) {
        note(format_args!("warning: {left:#}"));
    }
    rehearsed?;
    dropped?;
    report.seconds = begun.elapsed().as_secs_f64();
    let mut source = connect(&real.source).await?;
    let after = Measured::read(&mut source, &real.moving).await?;
    report.expected = expectation::estimate(&report, real.before, after);
    for page in record::write(&report, path, options.report.as_deref())? {
        note(format_args!("the report is in {}", page.display()));
    }
    Ok(report)
}

/// The real databases, as the rehearsal knows them.
struct Real {
    source: String,
    target: String,
    /// The address of the target's server for other servers, if the manifest names one.
    target_from_source: Option<String>,
    /// The tables and views that move.
    moving: Vec<Qualified>,
    known: Vec<KnownStatement>,
    before: Measured,
}

/// Makes the plan of the real databases, and measures what moves.
async fn plan_real(path: &Path, owner_name: &str, report: &mut Report) -> Result<Real> {
    note("rehearsal: plan of the real databases");
    let mut the_move = Move::look(path, owner_name).await?;
    require!(
        !the_move.is_open(),
        "{owner_name}: its move is open, and a rehearsal goes from the beginning: end the move with `splitctl abort \
         {owner_name}`, or go on with `splitctl status {owner_name}`"
    );
    report.take_plan(Box::pin(plan::make(&mut the_move)).await?.findings);
    let (known, notes) = proof::known_statements(&mut the_move).await?;
    notes.into_iter().for_each(|note| report.add(Weight::Note, "statements", note));
    let Move { owner, source, target, .. } = &mut the_move;
    let role: String = query_scalar("select current_user::text").fetch_one(&mut source.connection).await?;
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    report.by = format!("{user}, as the role {role}");
    report.servers = [&*source, &*target]
        .map(|database| Server { side: database.side, address: address(&database.url), version: database.version })
        .into();
    report.fingerprint = Some(Fingerprint::read(owner, source, target.version).await?);
    let tables = moving::tables(&mut source.connection, &owner.tables).await?;
    report.tables = tables
        .into_iter()
        .map(|table| Moving { name: table.name, rows: table.estimate, bytes: table.bytes, rehearsed: 0 })
        .collect();
    let moving = owner.relations();
    let target_from_source = owner.target_from_source.as_ref();
    let target_from_source = target_from_source.map(|url| url.resolve_for_server("target_from_source")).transpose()?;
    Ok(Real {
        before: Measured::read(&mut source.connection, &moving).await?,
        source: source.url.clone(),
        target: target.url.clone(),
        target_from_source,
        moving,
        known,
    })
}

/// Makes the stand-ins, and goes the way between them.
async fn rehearse(
    manifest: &Manifest,
    real: &Real,
    scratch: &mut Scratch,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let owner_name = report.owner.clone();
    let owner = manifest.owner(&owner_name)?;
    let mut named = vec![owner.role.clone()];
    named.extend(owner.owned_by.values().cloned());
    // The roles that the application has on the two sides.
    let acting: Vec<String> = [Some(&owner.role), owner.owned_by.get(&owner.role)].into_iter().flatten().cloned().collect();
    note("rehearsal: a stand-in of the source");
    let mut source = Original::open(Side::Source, &real.source, &named).await?;
    let made = standin::of_source(scratch, &mut source, &acting, options.rows).await?;
    drop(source);
    note_rows(report, &made);
    note_standin(report, made);
    note("rehearsal: a stand-in of the target");
    let mut target = Original::open(Side::Target, &real.target, &named).await?;
    let made = standin::of_target(scratch, &mut target).await?;
    drop(target);
    note_standin(report, made);
    let manifest = between(manifest, &owner_name, real, scratch).await?;
    let the_move = Box::pin(Move::open_with(manifest, &owner_name)).await?;
    let roles = [Side::Source, Side::Target].map(|side| the_move.role(side).to_owned());
    let access = Access::of(scratch, roles).await?;
    if access.is_none() {
        let role = &the_move.owner.role;
        report
            .unchecked
            .push(format!("{role}: no other role may act as it, so nothing worked while the switches were made"));
    }
    // A step that fails is a finding.
    let _ = Way::new(the_move, report, access, options.reach_outside).go().await;
    Ok(())
}

fn note_rows(report: &mut Report, made: &Made) {
    report.rows = made.choice.clone();
    for table in &mut report.tables {
        let found = made.filled.rows.iter().find(|(name, _)| *name == table.name);
        table.rehearsed = found.map_or(0, |(_, rows)| *rows);
        if report.rows.as_ref().is_some_and(|choice| choice.rows == Rows::All) {
            // The statistics only estimate.
            table.rows = table.rehearsed.cast_signed();
        }
    }
}

fn note_standin(report: &mut Report, made: Made) {
    report.unchecked.extend(made.notes);
    for role in made.roles {
        report.unchecked.push(format!("{role}: {} has no such role, so a stand-in took its place", report.scratch));
    }
}

/// The manifest of the move between the stand-ins. Both are on one server, which must reach itself: by the address that
/// splitctl uses, by the one that the source's server uses, or by its own port.
async fn between(manifest: &Manifest, owner_name: &str, real: &Real, scratch: &mut Scratch) -> Result<Manifest> {
    let (source, target) = (scratch.url(Side::Source), scratch.url(Side::Target));
    let port: String = query_scalar("show port").fetch_one(&mut scratch.admin).await?;
    let local = |url: &str| {
        let mut url = url::Url::parse(url)?;
        url.set_host(Some("127.0.0.1"))?;
        let _ = url.set_port(port.parse().ok());
        url.set_query(None);
        anyhow::Ok(url.to_string())
    };
    let by = |base: &String| [Side::Source, Side::Target].map(|side| with_database(base, &scratch.database(side)));
    let mut addresses = vec![None];
    addresses.extend(real.target_from_source.as_ref().filter(|_| !scratch.is_elsewhere).map(|base| Some(by(base))));
    addresses.extend(local(&source).ok().zip(local(&target).ok()).map(|(source, target)| Some([source, target])));
    let mut refused = None;
    for address in addresses {
        let endpoint = |url: &str, nth: usize| match &address {
            Some(servers) => Endpoint::of_a_server(&servers[nth]),
            None => Endpoint::of_this_process(url),
        };
        let from = Database::open(Side::Source, source.clone(), endpoint(&source, 0)?).await?;
        let mut to = Database::open(Side::Target, target.clone(), endpoint(&target, 1)?).await?;
        match try_subscription(&from, &mut to).await {
            Ok(()) => {
                let [source_from_target, target_from_source] = address.map_or([None, None], |urls| urls.map(Some));
                let mut manifest = manifest.clone();
                manifest.source = Url(source);
                manifest.source_from_target = source_from_target.map(Url);
                let owner = manifest.owners.get_mut(owner_name).context("the manifest has the owner")?;
                // Nobody needs a rehearsal after a failover.
                owner.failover = Some(false);
                owner.target = Some(Url(target));
                owner.target_from_source = target_from_source.map(Url);
                owner.known.clone_from(&real.known);
                owner.login = login(owner, owner_name, scratch)?;
                return Ok(manifest);
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.context("no address was tried")?).context("the server of the throw-away databases does not reach itself")
}

/// The application's login, in the throw-away target. Its role and password are those of the target's server.
fn login(owner: &Owner, owner_name: &str, scratch: &Scratch) -> Result<Option<Url>> {
    let Some(login) = owner.login.as_ref().filter(|_| !scratch.is_elsewhere) else { return Ok(None) };
    let login = login.resolve(&format!("owners.{owner_name}.login"))?;
    let (mut login, target) = (url::Url::parse(&each_host(&login)[0])?, url::Url::parse(&scratch.url(Side::Target))?);
    login.set_host(target.host_str())?;
    let _ = login.set_port(target.port());
    login.set_path(target.path());
    Ok(Some(Url(login.into())))
}

/// Returns when the process is to end.
async fn interrupted() -> Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    bail!("interrupted: the rehearsal has no result")
}
