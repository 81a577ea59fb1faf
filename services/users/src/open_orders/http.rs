//! Open orders by HTTP: `GET /open-orders`.

use axum::http::StatusCode;
use chassis::remote::{Http, RemoteError};
use serde::Deserialize;
use uuid::Uuid;

/// The fields that users reads of the response.
#[derive(Deserialize)]
struct Count {
    open_count: i64,
}

/// How many open orders the user has.
pub(super) async fn count_open_orders(orders: &Http, user_id: Uuid) -> Result<i64, RemoteError> {
    let answer = orders.get(&format!("/open-orders?user_id={user_id}")).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.json::<Count>()?.open_count),
        _ => Err(answer.unexpected()),
    }
}
