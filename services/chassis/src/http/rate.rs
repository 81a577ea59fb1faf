//! How many requests one client may send: by the algorithm GCRA, from the crate `governor`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tower::ServiceExt;

use crate::auth::Auth;
use crate::http::addresses::Network;
use crate::http::problem::Problem;

/// The policy in force, and what the client has left: draft-ietf-httpapi-ratelimit-headers-10.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// After so many requests, clients that have their full rate again are forgotten.
const FORGET_AFTER: usize = 10_000;

/// A number of requests in a unit of time, such as `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    window: Duration,
}

impl Rate {
    /// Reads `100/s`, `600/m` or `1000/h`.
    ///
    /// # Errors
    /// The form it must have.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(requests, unit)| {
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            Some(Self { requests: requests.parse().ok()?, window: Duration::from_secs(seconds) })
        });
        parts.ok_or_else(|| "must be a number of requests and a unit, such as 100/s, 600/m or 1000/h".to_owned())
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    /// The subject of a token that the service accepts, wherever it comes from.
    Subject(Arc<str>),
    Network(Network),
}

/// The requests of each client.
pub(super) struct Rates {
    rate: Rate,
    policy: HeaderValue,
    auth: Auth,
    clients: RateLimiter<Client, DashMapStateStore<Client>, DefaultClock, StateInformationMiddleware>,
    counted: AtomicUsize,
}

/// Marks a request that is one too many. The layer around every request refuses it, so that its answer has all that the
/// others have. A browser's preflight is answered before that layer: without its answer, no page could read the 429.
#[derive(Clone)]
pub(super) struct TooMany;

impl TooMany {
    pub(super) fn problem(&self) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests: see the header RateLimit")
    }
}

/// What the answer to a counted request says of the limit.
struct Standing {
    left: u32,
    /// Seconds until the client may send another request. `None` if this one was admitted.
    refused_for: Option<u64>,
}

impl Rates {
    /// The limit of each subject that `auth` knows, and of each address without one.
    pub(super) fn new(rate: Rate, auth: Auth) -> Self {
        let Rate { requests, window } = rate;
        let quota = Quota::with_period(window / requests.get()).expect("a rate is above zero").allow_burst(requests);
        let policy = format!("\"default\";q={requests};w={}", window.as_secs());
        Self {
            rate,
            policy: HeaderValue::from_str(&policy).expect("numbers are harmless"),
            auth,
            clients: RateLimiter::dashmap(quota).with_middleware(),
            counted: AtomicUsize::new(0),
        }
    }

    /// Counts a request, and has `router` answer or refuse it. Checks of health are not counted.
    pub(super) async fn answer(
        &self,
        address: IpAddr,
        mut request: Request,
        router: Router,
    ) -> Result<Response, Infallible> {
        if request.uri().path().starts_with("/health/") {
            return router.oneshot(request).await;
        }
        // A token that is not accepted counts for its address: whoever invents subjects gains nothing.
        let subject = self.auth.subject(request.headers());
        let client = subject.map_or_else(|| Client::Network(Network::of(address)), Client::Subject);
        let standing = self.count(&client);
        if standing.refused_for.is_some() {
            request.extensions_mut().insert(TooMany);
        }
        let mut response = router.oneshot(request).await?;
        self.describe(&standing, &mut response);
        Ok(response)
    }

    fn count(&self, client: &Client) -> Standing {
        if self.counted.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            self.clients.retain_recent();
            self.clients.shrink_to_fit();
        }
        match self.clients.check_key(client) {
            Ok(admitted) => Standing { left: admitted.remaining_burst_capacity(), refused_for: None },
            Err(refused) => {
                let wait = refused.wait_time_from(self.clients.clock().now());
                // Rounded up: an earlier request would be refused again.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Standing { left: 0, refused_for: Some(seconds.max(1)) }
            }
        }
    }

    /// Adds the headers to the answer.
    fn describe(&self, standing: &Standing, response: &mut Response) {
        let Rate { requests, window } = self.rate;
        let used = requests.get().saturating_sub(standing.left);
        let reset = (f64::from(used) * window.as_secs_f64() / f64::from(requests.get())).ceil();
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(POLICY, self.policy.clone());
        headers
            .extend(HeaderValue::from_str(&format!("\"default\";r={};t={reset}", standing.left)).map(|text| (LIMIT, text)));
        let refused_for = standing.refused_for.filter(|_| status == StatusCode::TOO_MANY_REQUESTS);
        headers.extend(refused_for.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_number_and_a_unit() {
        let rate = |requests, seconds| Rate {
            requests: NonZeroU32::new(requests).expect("above zero"),
            window: Duration::from_secs(seconds),
        };
        assert_eq!(Rate::parse("100/s"), Ok(rate(100, 1)));
        assert_eq!(Rate::parse("5/m"), Ok(rate(5, 60)));
        assert_eq!(Rate::parse("7/h"), Ok(rate(7, 3600)));
        for wrong in ["100", "0/s", "-1/s", "1/d", "/s", "1/", "1/s/s"] {
            Rate::parse(wrong).expect_err(wrong);
        }
    }
}
