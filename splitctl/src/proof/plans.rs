//! Asks a server to prepare and plan statements, and to run none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use serde_json::Value;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgDatabaseError, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Column, Either, Error, Executor, SqlSafeStr, Statement as _, TypeInfo, query_as};

use super::known::Statement;
use super::session::Session;
use crate::names::{Qualified, quote_ident};

/// Why a server refuses a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub sqlstate: String,
    pub message: String,
    /// The function in which it happened.
    pub within: Option<String>,
}

impl Refusal {
    /// The server's refusal, or the error if the server did not answer.
    pub fn of(error: Error) -> Result<Self, Error> {
        match error {
            Error::Database(error) => {
                let context = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::r#where);
                let within = context.and_then(|context| context.lines().find(|line| line.contains("function ")));
                Ok(Self {
                    sqlstate: error.code().unwrap_or_default().into_owned(),
                    message: error.message().to_owned(),
                    within: within.map(str::to_owned),
                })
            }
            // The driver cannot read a type, such as that of several ranges.
            Error::Decode(why) | Error::ColumnDecode { source: why, .. } => {
                let message = format!("splitctl's driver does not know a type of it ({why})");
                Ok(Self { sqlstate: String::new(), message, within: None })
            }
            other => Err(other),
        }
    }

    /// The message, and where it happened.
    pub fn said(&self) -> String {
        let Self { sqlstate, message, within } = self;
        let within = within.as_ref().map(|within| format!(", in {within}")).unwrap_or_default();
        format!("{message} ({sqlstate}{within})")
    }

    /// Whether a constraint, a value's type or a function of the application refuses a row.
    pub fn is_rule(&self) -> bool {
        matches!(self.class(), "22" | "23" | "P0")
    }

    /// Whether another session or a time-out was in the way.
    pub fn is_of_the_moment(&self) -> bool {
        matches!(self.class(), "40" | "55" | "57")
    }

    /// The class of its SQLSTATE.
    pub fn class(&self) -> &str {
        self.sqlstate.get(..2).unwrap_or_default()
    }
}

/// What goes into a statement and comes out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signature {
    /// The types of the parameters.
    pub parameters: Vec<String>,
    /// The names and types of the columns of its result.
    pub columns: Vec<(String, String)>,
}

/// A plan, as far as it matters.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// The tables that it reads and writes.
    pub relations: BTreeSet<Qualified>,
    /// Whether Postgres plans such a statement at all.
    pub is_planned: bool,
}

/// What a server says of a statement.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// It does not prepare it.
    Unprepared(Refusal),
    /// It prepares it, and does not plan it.
    Unplanned(Refusal),
    /// It plans it. The role has the rights.
    Planned(Signature, Plan),
}

/// Asks for all statements: two messages for each.
pub(super) async fn ask(session: &mut Session, statements: &[Statement]) -> Result<Vec<Answer>> {
    let mut prepared = Vec::new();
    for statement in statements {
        prepared.push(prepare(session, &statement.text).await?);
    }
    session.begin_again().await?;
    // The driver names the statements itself.
    let named: Vec<(String, String)> = query_as(NAMES).persistent(false).fetch_all(&mut session.connection).await?;
    let names: HashMap<String, String> = named.into_iter().collect();
    let types = read_types(session, prepared.iter().flatten()).await?;
    let mut answers = Vec::new();
    for (statement, prepared) in statements.iter().zip(prepared) {
        answers.push(match prepared {
            Err(refusal) => Answer::Unprepared(refusal),
            Ok(prepared) => {
                let signature = signature(&prepared, &types);
                let name = names.get(&statement.text).map_or("", String::as_str);
                match plan(session, name, signature.parameters.len()).await? {
                    Ok(plan) => Answer::Planned(signature, plan),
                    Err(refusal) => Answer::Unplanned(refusal),
                }
            }
        });
    }
    Ok(answers)
}

/// The extended protocol takes one statement, so a second one behind a semicolon cannot end the transaction.
async fn prepare(session: &mut Session, text: &str) -> Result<Result<PgStatement, Refusal>, Error> {
    session.release_locks().await?;
    match (&mut session.connection).prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await {
        Ok(prepared) => Ok(Ok(prepared)),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            session.begin_again().await?;
            Ok(Err(refusal))
        }
    }
}

async fn plan(session: &mut Session, name: &str, parameters: usize) -> Result<Result<Plan, Refusal>, Error> {
    session.release_locks().await?;
    let nulls = vec!["null"; parameters].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    match session.fetch(format!("explain (format json, verbose, costs off) execute {}{nulls}", quote_ident(name))).await {
        Ok(rows) => {
            let text = rows.first().map(super::session::text).transpose()?.unwrap_or_default();
            Ok(Ok(read_plan(&serde_json::from_str(&text).unwrap_or_default())))
        }
        Err(error) => {
            let refusal = Refusal::of(error)?;
            session.begin_again().await?;
            Ok(Err(refusal))
        }
    }
}

fn read_plan(plan: &Value) -> Plan {
    let mut read = Plan::default();
    let mut left = vec![plan];
    while let Some(node) = left.pop() {
        match node {
            Value::Array(nodes) => left.extend(nodes),
            Value::Object(fields) => {
                left.extend(fields.values());
                read.is_planned |= fields.contains_key("Node Type");
                let field = |name: &str| fields.get(name).and_then(Value::as_str);
                if let (Some(schema), Some(name)) = (field("Schema"), field("Relation Name")) {
                    read.relations.insert(Qualified::new(schema, name));
                }
            }
            _ => {}
        }
    }
    read
}

fn parameters(statement: &PgStatement) -> &[PgTypeInfo] {
    match statement.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    }
}

fn signature(statement: &PgStatement, types: &BTreeMap<u32, String>) -> Signature {
    let name = |of: &PgTypeInfo| match of.oid().and_then(|oid| types.get(&oid.0)) {
        Some(name) => name.clone(),
        None => of.name().to_owned(),
    };
    Signature {
        parameters: parameters(statement).iter().map(name).collect(),
        columns: statement.columns().iter().map(|column| (column.name().to_owned(), name(column.type_info()))).collect(),
    }
}

/// The types' names with their schemas: the oids of one server say nothing to the other.
async fn read_types(
    session: &mut Session,
    statements: impl Iterator<Item = &PgStatement>,
) -> Result<BTreeMap<u32, String>, Error> {
    let of = |statement: &PgStatement| {
        let columns = statement.columns().iter().map(Column::type_info);
        parameters(statement).iter().chain(columns).filter_map(PgTypeInfo::oid).collect::<Vec<_>>()
    };
    let oids: BTreeSet<u32> = statements.flat_map(of).map(|oid| oid.0).collect();
    let oids: Vec<Oid> = oids.into_iter().map(Oid).collect();
    let named: Vec<(Oid, String)> = query_as(TYPES).persistent(false).bind(oids).fetch_all(&mut session.connection).await?;
    Ok(named.into_iter().map(|(oid, name)| (oid.0, name)).collect())
}

const NAMES: &str = r"
    select statement, name
    from pg_catalog.pg_prepared_statements
    where not from_sql";

const TYPES: &str = r"
    select t.oid, case when n.nspname = 'pg_catalog' then t.typname else format('%I.%I', n.nspname, t.typname) end::text
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where t.oid = any ($1)";
