//! What a request says beside its method, path and body, and what changes its meaning: for all routes in one place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv6Addr;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use uuid::Uuid;

use crate::auth::Needs;
use crate::auth::access::{Access, find};
use crate::http::body::check_media_type;
use crate::http::conditional::{Preconditions, Verdict};
use crate::http::path::parse_id;
use crate::http::problem::Problem;

/// The headers that are looked at. Most requests have none of them.
const HEADERS: [header::HeaderName; 4] = [header::CONTENT_ENCODING, header::EXPECT, header::IF_MATCH, header::IF_NONE_MATCH];

/// The routes of a service by template, each with its methods.
#[derive(Debug, Default)]
pub(crate) struct Routes(HashMap<String, Vec<Operation>>);

#[derive(Debug)]
struct Operation {
    method: Method,
    /// Whether the handler itself compares the preconditions with the resource's version.
    compares: bool,
    /// Whether it needs a body of JSON.
    needs_json: bool,
    /// What it asks of its callers.
    needs: Needs,
}

/// The answer that a request gets in place of its handler's.
pub(crate) enum Instead {
    /// It is not carried out.
    Before(Problem),
    /// Once it has succeeded: a precondition changes no answer that is an error (RFC 9110 §13.2.1).
    AfterSuccess(Problem),
}

impl Routes {
    /// The routes of an OpenAPI document. A route that compares versions has the parameter `if-match`.
    ///
    /// # Panics
    /// If `table` does not say what a route asks of its callers.
    pub(crate) fn read(document: &Value, table: &[Access]) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        Self(paths.map(|(path, operations)| (path.clone(), read_operations(path, operations, table))).collect())
    }

    /// What the request's route asks of its callers. `None` if there is no such route.
    pub(crate) fn needs(&self, request: &Request) -> Option<Needs> {
        let template = request.extensions().get::<MatchedPath>()?.as_str();
        match self.0.get(template) {
            Some(operations) => find_operation(operations, request.method()).map(|operation| operation.needs),
            // The document itself, and the page that shows it.
            None => Some(Needs::Token),
        }
    }

    /// Refuses a request that says what the service does not support, or that does not hold.
    pub(crate) fn refuse(&self, request: &Request) -> Option<Instead> {
        let headers = request.headers();
        if let Err(problem) = check_target(request).and_then(|()| check_host(request)).and_then(|()| check_transfer(headers))
        {
            return Some(Instead::Before(problem));
        }
        if !HEADERS.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        // The router answers unknown paths (404) and methods (405); they come first.
        let operation = self.find(request)?;
        if headers.get_all(header::EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            let detail = "the service knows no expectation but 100-continue";
            return Some(Instead::Before(Problem::new(StatusCode::EXPECTATION_FAILED, detail)));
        }
        if let Some(coding) = content_coding(headers) {
            let detail = format!("the service reads no body with the content coding {coding}: send it without one");
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
            return Some(Instead::Before(problem.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))));
        }
        // What has no version is there, and has no tag.
        if operation.compares {
            return None;
        }
        let is_reading = is_reading(request.method());
        let problem = match Preconditions::read(headers).judge_reading(None) {
            Verdict::Holds => return None,
            Verdict::Unchanged if is_reading => Problem::new(StatusCode::NOT_MODIFIED, "If-None-Match names what is there"),
            Verdict::Unchanged | Verdict::Fails => Problem::precondition_failed(),
        };
        if is_reading {
            return Some(Instead::AfterSuccess(problem));
        }
        let media_type = if operation.needs_json { check_media_type(request) } else { Ok(()) };
        Some(Instead::Before(media_type.err().unwrap_or(problem)))
    }

    fn find(&self, request: &Request) -> Option<&Operation> {
        let template = request.extensions().get::<MatchedPath>()?.as_str();
        // An id that is no UUID names nothing: the handler answers 404.
        if ids(template, request.uri().path()).any(|id| id.is_none()) {
            return None;
        }
        find_operation(self.0.get(template)?, request.method())
    }
}

/// The id in the request's path, if it is one.
pub(crate) fn id_in_path(request: &Request) -> Option<Uuid> {
    ids(request.extensions().get::<MatchedPath>()?.as_str(), request.uri().path()).next()?
}

/// The ids of a path that its template names; `None` for one that is no UUID. They are decoded, as for the handler: the two
/// must see the same id.
fn ids<'a>(template: &'a str, path: &'a str) -> impl Iterator<Item = Option<Uuid>> + 'a {
    let parts = template.split('/').zip(path.split('/')).filter(|(known, _)| known.starts_with('{'));
    parts.map(|(_, part)| percent_decode_str(part).decode_utf8().ok().and_then(|part| parse_id(&part)))
}

fn find_operation<'a>(operations: &'a [Operation], method: &Method) -> Option<&'a Operation> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    operations.iter().find(|operation| operation.method == *method)
}

/// Whether the method only reads.
pub(crate) fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn read_operations(path: &str, operations: &Value, table: &[Access]) -> Vec<Operation> {
    let operations = operations.as_object().into_iter().flatten();
    let read = operations.filter_map(|(method, operation)| {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        let compares = parameters.any(|parameter| parameter["name"] == header::IF_MATCH.as_str());
        let needs = find(table, &method, path).unwrap_or_else(|| panic!("the table has no route {method} {path}"));
        let needs_json = operation["requestBody"]["required"] == true;
        Some(Operation { method, compares, needs_json, needs })
    });
    read.collect()
}

/// The first content coding that changes the body (RFC 9110 §8.4).
fn content_coding(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let values = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut changing = codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    changing.next().map(String::from_utf8_lossy)
}

/// Checks the target (RFC 9112 §3.2): a path, or a whole URL. The other forms are for proxies, and for a server as a whole.
fn check_target(request: &Request) -> Result<(), Problem> {
    let uri = request.uri();
    let is_http = uri.scheme_str().is_none_or(|scheme| scheme == "http" || scheme == "https");
    if uri.path().starts_with('/') && is_http && request.method() != Method::CONNECT {
        return Ok(());
    }
    Err(Problem::bad_request("the target must be a path such as /docs/, or an http URL with one: this server is no proxy"))
}

/// Checks that the body is framed as every recipient understands it (RFC 9112 §6.1): by `chunked` alone, or by its length.
fn check_transfer(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Problem::bad_request("the service knows no transfer coding but chunked, once")
            .header(header::CONNECTION, HeaderValue::from_static("close"))),
    }
}

/// Checks the host (RFC 9112 §3.2): HTTP/1.1 has one field `Host`, and it is a host with a port or without.
fn check_host(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).into_iter();
    let (first, more) = (hosts.next(), hosts.next());
    let reason = match (first, more) {
        (Some(_), Some(_)) => "the request has two Host fields",
        (None, _) if request.version() == Version::HTTP_11 => "the request has no Host field",
        (Some(host), None) if !is_host(host) => "the Host field is not a host, with or without a port",
        _ => return Ok(()),
    };
    Err(Problem::bad_request(reason))
}

/// A name, an IPv4 address or an IPv6 address in brackets; and a port, which may be empty (RFC 3986 §3.2).
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let is_name = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte))
    };
    let is_address = |text: &[u8]| str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    let end = bytes.iter().position(|byte| *byte == b']').map_or(0, |bracket| bracket + 1);
    let colon = bytes[end..].iter().position(|byte| *byte == b':').map_or(bytes.len(), |colon| end + colon);
    let (host, port) = (&bytes[..colon], bytes.get(colon + 1..).unwrap_or_default());
    let is_right = match host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        Some(address) => is_address(address),
        None => is_name(host),
    };
    is_right && port.iter().all(u8::is_ascii_digit)
}
