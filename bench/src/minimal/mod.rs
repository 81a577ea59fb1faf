//! What the minimal servers share: the shapes of their answers, and how they serve. They differ in the driver alone.

mod shapes;

use std::fmt::Display;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use shapes::{Customer, Line, NewItem, NewOrder, Order, Page, User};

/// The value of a variable that the benchmark sets.
///
/// # Errors
/// If it is not set.
pub fn variable(name: &'static str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

/// Serves the routes at `PEER_ADDR` until SIGTERM.
///
/// # Errors
/// If the address cannot be used.
pub async fn serve(routes: Router) -> Result<()> {
    let routes = routes.route("/health/ready", get(async || ()));
    // The server writes each answer whole, so waiting for more bytes would only delay it.
    let listener = TcpListener::bind(variable("PEER_ADDR")?).await?.tap_io(|stream| drop(stream.set_nodelay(true)));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, routes) => served?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The answer to a request that failed.
#[derive(Debug)]
pub struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error:#}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

/// An answer with this value.
///
/// # Panics
/// If the value is no JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Larger than almost every answer, so it rarely grows.
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, value).expect("strings and numbers are JSON");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
