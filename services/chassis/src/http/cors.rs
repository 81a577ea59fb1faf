//! Pages of other origins that may call the service from a browser.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use clap::Args;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::context::{READ_AFTER, REQUEST_ID};

/// How long a browser remembers the answer.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The variable of the origins.
#[derive(Debug, Clone, Default, Args)]
pub struct Cors {
    /// the origins whose pages may call the service, such as `https://shop.example,https://admin.example`; `*`: any
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    cors_origins: Vec<HeaderValue>,
}

/// Reads an origin as browsers write it.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let uri: Option<Uri> = text.parse().ok();
    let is_origin = uri.is_some_and(|uri| {
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map(|name| name.as_str()));
        ["http", "https"].contains(&scheme) && authority.is_some_and(|name| text == format!("{scheme}://{name}"))
    });
    let value = HeaderValue::from_str(text).ok().filter(|_| is_origin || text == "*");
    value.ok_or_else(|| "must be origins such as https://shop.example, separated by commas, or *".to_owned())
}

impl Cors {
    /// The same router for pages of these origins. Without one, nothing is added.
    pub fn allow(&self, router: Router) -> Router {
        let origins = match &self.cors_origins[..] {
            [] => return router,
            [one] if one == "*" => AllowOrigin::from(Any),
            origins => AllowOrigin::list(origins.iter().cloned()),
        };
        let name = HeaderName::from_static;
        let sent = [
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            READ_AFTER,
            REQUEST_ID,
            name("idempotency-key"),
            name("traceparent"),
        ];
        let read = [
            header::ETAG,
            header::LINK,
            header::LOCATION,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            READ_AFTER,
            REQUEST_ID,
            name("idempotency-replayed"),
            name("ratelimit"),
            name("ratelimit-policy"),
        ];
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let layer = CorsLayer::new().allow_origin(origins).allow_methods(methods).allow_headers(sent);
        router.layer(layer.expose_headers(read).max_age(REMEMBERED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_nothing_else() {
        for right in ["https://shop.example", "http://localhost:3000", "*"] {
            origin(right).expect(right);
        }
        for wrong in ["", "shop.example", "https://shop.example/", "https://shop.example/a", "ftp://a", "null"] {
            origin(wrong).expect_err(wrong);
        }
    }
}
