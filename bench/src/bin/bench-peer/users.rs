//! Users.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bench::minimal::{Failure, User, json};
use uuid::Uuid;

use crate::{Pool, query};

pub async fn get(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let rows = query(&pool, 0, &[&id]).await?;
    let Some(row) = rows.first() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let user = User {
        id: row.get(0),
        email: row.get(1),
        name: row.get(2),
        status: row.get(3),
        created_at: row.get(4),
        updated_at: row.get(5),
        version: row.get(6),
    };
    Ok(json(StatusCode::OK, &user))
}
