//! `users health`, `orders health`: the program asks its own service how it is. An image without a shell has nothing else
//! that could ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::error::chain;
use crate::http::limits::duration;
use crate::tls::{Calling, Connector, Protocol, TlsConfig};

/// The largest answer read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What to ask, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Ask only whether the process serves, not whether it can do its work
    #[arg(long)]
    live: bool,
    /// The longest time for the answer
    #[arg(long, default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Asks the service that listens at `address` on this machine, encrypted as `tls` says. Exit code 0 if it is well, else 1.
///
/// # Errors
/// If the files of TLS cannot be used.
pub async fn run(options: &Options, address: SocketAddr, tls: &TlsConfig) -> Result<ExitCode, String> {
    let tls = tls.calling_itself()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let path = if options.live { "/health/live" } else { "/health/ready" };
    let url = format!("{scheme}://{}{path}", of_this_machine(address));
    let asked = tokio::time::timeout(options.timeout, ask(&url, tls, options.timeout)).await;
    let answer = asked.unwrap_or_else(|_elapsed| Err(format!("no answer within {:?}", options.timeout)));
    match answer {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(reason) => {
            eprintln!("{url}: {reason}");
            Ok(ExitCode::from(1))
        }
    }
}

/// Where a client on this machine reaches a service that listens at `address`.
fn of_this_machine(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(url: &str, tls: Option<Calling>, limit: Duration) -> Result<(), String> {
    let connector = Connector::new(tls, Protocol::Http1, limit);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(url).body(Empty::new()).map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| chain(&error))?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let problem: Option<Problem> = serde_json::from_slice(&body.to_bytes()).ok();
    Err(problem.map_or_else(|| status.to_string(), |problem| format!("{status}: {}", problem.detail)))
}

/// The part of a problem that says why.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_all_addresses_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let address = of_this_machine(listens.parse().expect("an address"));
            assert_eq!(address.to_string(), asked);
        }
    }
}
