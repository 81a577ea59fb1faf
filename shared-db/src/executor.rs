//! Where every statement of a service passes: [`Connection`] runs it, in a span of its own if its request is traced.

use std::fmt;
use std::ops::DerefMut;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};

use crate::pool::Connection;
use crate::traces::{self, Statement};

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connection")
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connection: &'c mut PgConnection = self.deref_mut();
        if !traces::is_sampled() {
            return connection.fetch_many(query);
        }
        let query = Parts::of(query);
        // It ends with the stream.
        let mut span = Statement::begin(query.sql.as_str());
        Box::pin(connection.fetch_many(query).inspect_err(move |error| span.fail(error)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connection: &'c mut PgConnection = self.deref_mut();
        if !traces::is_sampled() {
            return connection.fetch_optional(query);
        }
        let query = Parts::of(query);
        let mut span = Statement::begin(query.sql.as_str());
        let fetched = connection.fetch_optional(query).map(move |fetched| fetched.inspect_err(|error| span.fail(error)));
        fetched.boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.deref_mut().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.deref_mut().describe(sql)
    }
}

/// A query whose text can be looked at. sqlx gives the text only in exchange for the query.
struct Parts {
    sql: SqlStr,
    arguments: Result<Option<PgArguments>, BoxDynError>,
    is_persistent: bool,
}

impl Parts {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Self {
        let (arguments, is_persistent) = (query.take_arguments(), query.persistent());
        Self { sql: query.sql(), arguments, is_persistent }
    }
}

impl Execute<'_, Postgres> for Parts {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        std::mem::replace(&mut self.arguments, Ok(None))
    }

    fn persistent(&self) -> bool {
        self.is_persistent
    }
}
