//! `cargo xtask replica`: sets a service's replica beside what the other one publishes, puts it behind the view, and takes
//! it back.

mod compare;
mod switch;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use dev::postgres::{Cluster, connect};
use dev::wait::block_on;
use sqlx::PgConnection;

use crate::up::database::DATABASE;
use crate::up::{folder, load_variables};

/// What to do with a replica.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compares replicas with what is published, row by row. Exit code 0 when they are equal, 1 when not, 2 when nobody knows
    Compare(CompareOptions),
    /// Puts a replica behind the view that its service reads, and behind its rule
    Use(SwitchOptions),
    /// Puts the other service's tables behind view and rule again
    Release(SwitchOptions),
}

/// What to compare.
#[derive(Debug, Args)]
pub struct CompareOptions {
    /// Which replicas; all of them if none is named
    replicas: Vec<Replica>,
    /// How long a row may differ, in seconds: its event may be on its way
    #[arg(long, default_value_t = 10)]
    patience: u64,
    /// Lines for people, or one JSON object a line
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What to switch.
#[derive(Debug, Args)]
pub struct SwitchOptions {
    /// Which replica
    replica: Replica,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Replica {
    /// What orders knows of users: `customers_replica`, behind the view `customers`
    Customers,
    /// What users knows of orders: `open_orders_replica`, behind the view `open_orders`
    OpenOrders,
}

impl Replica {
    const ALL: [Self; 2] = [Self::Customers, Self::OpenOrders];

    fn view(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::OpenOrders => "open_orders",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Customers => "customers_replica",
            Self::OpenOrders => "open_orders_replica",
        }
    }

    /// The service it belongs to.
    fn service(self) -> &'static str {
        match self {
            Self::Customers => "orders",
            Self::OpenOrders => "users",
        }
    }

    /// The lock that whoever keeps it up holds.
    fn consumer(self) -> &'static str {
        match self {
            Self::Customers => "orders: consumer of users' events",
            Self::OpenOrders => "users: consumer of orders' events",
        }
    }

    fn parked_events(self) -> &'static str {
        match self {
            Self::Customers => "orders_parked_events",
            Self::OpenOrders => "users_parked_events",
        }
    }

    /// What the other service says: key, version, and everything else that counts.
    fn published(self) -> &'static str {
        match self {
            Self::Customers => "select id as key, version, jsonb_build_array(name, status) as content from users",
            Self::OpenOrders => {
                "select id as key, version, jsonb_build_array(user_id) as content
                 from orders where status in ('placed', 'paid', 'shipped')"
            }
        }
    }

    /// The same as the replica has it.
    fn replicated(self) -> &'static str {
        match self {
            Self::Customers => {
                "select id as key, version, jsonb_build_array(name, status) as content from customers_replica"
            }
            Self::OpenOrders => {
                "select order_id as key, version, jsonb_build_array(user_id) as content
                 from open_orders_replica where is_open"
            }
        }
    }
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub fn run(command: &Command) -> Result<ExitCode> {
    let done = load_variables().and_then(|()| do_it(command));
    match (done, command) {
        // Not to be taken for a difference.
        (Err(error), Command::Compare(_)) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(2))
        }
        (done, _) => done,
    }
}

fn do_it(command: &Command) -> Result<ExitCode> {
    block_on(async || {
        let mut owner = owner().await?;
        match command {
            Command::Compare(options) => compare::run(&mut owner, options).await,
            Command::Use(options) => switch::put_behind(&mut owner, options.replica).await,
            Command::Release(options) => switch::release(&mut owner, options.replica).await,
        }
    })
}

/// The shared database as its owner: the one that `DATABASE_URL` names, or that of a running `up`.
async fn owner() -> Result<PgConnection> {
    let url = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => Cluster::url_of_running(&folder::path(None).join(folder::CLUSTER), DATABASE).context(
            "no `cargo xtask up` runs here, and DATABASE_URL is not set: set it to the shared database's URL for its owner",
        )?,
    };
    connect(&url).await.context("the shared database cannot be reached as its owner")
}
