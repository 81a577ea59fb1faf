//! A minimal server for the services' jobs: axum, tokio-postgres and the same statements, nothing else.

mod orders;
mod users;

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use bench::minimal::{Failure, serve, variable};
use bench::statements::{ORDER_CREATE, ORDER_PAGE, ORDER_READ, POINT_READ};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let connections: usize = variable("DATABASE_MAX_CONNECTIONS")?.parse()?;
    let users = pool(variable("USERS_DATABASE_URL")?, &[POINT_READ], connections)?;
    let orders = pool(variable("ORDERS_DATABASE_URL")?, &[ORDER_READ, ORDER_PAGE, ORDER_CREATE], connections)?;
    serve(
        Router::new()
            .route("/users/{id}", get(users::get).with_state(users))
            .route("/orders/{id}", get(orders::get).with_state(orders.clone()))
            .route("/orders", get(orders::list).post(orders::place).with_state(orders)),
    )
    .await
}

type Pool = deadpool::managed::Pool<Connector>;

/// Opens connections, and prepares the statements on each.
struct Connector {
    url: String,
    statements: &'static [&'static str],
}

impl Manager for Connector {
    type Type = (Client, Vec<Statement>);
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Self::Type, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        let mut prepared = Vec::new();
        for statement in self.statements {
            prepared.push(client.prepare(statement).await?);
        }
        Ok((client, prepared))
    }

    async fn recycle(&self, _: &mut Self::Type, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        Ok(())
    }
}

fn pool(url: String, statements: &'static [&'static str], connections: usize) -> Result<Pool> {
    Ok(Pool::builder(Connector { url, statements }).max_size(connections).build()?)
}

/// The rows of the pool's statement with this number.
async fn query(pool: &Pool, statement: usize, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
    let (client, statements) = &*pool.get().await?;
    Ok(client.query(&statements[statement], values).await?)
}
