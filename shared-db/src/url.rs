//! The URL of a service's database: where it is written, and how it is read.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// A database URL that cannot be used. Its text never repeats the URL, which holds a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// The scheme is not Postgres'.
    #[error("must start with postgres:// or postgresql://")]
    Scheme,
    /// The text is not a URL, or a parameter has a value that it cannot have.
    #[error("is not a valid Postgres URL (postgres://role:password@host:port/database)")]
    Malformed,
    /// The URL has a parameter that the driver does not know. It would be ignored, and its value logged.
    #[error("has the unknown parameter `{0}`: this program knows {known}", known = PARAMETERS.join(", "))]
    Parameter(String),
    /// The file with the URL cannot be read.
    #[error("names {}, which cannot be read ({error})", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// The parameters of a URL that the driver knows.
const PARAMETERS: [&str; 11] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "hostaddr", "port", "dbname", "user", "password", "options"];
/// Other names of them, and what is set anyway.
const MORE_PARAMETERS: [&str; 7] =
    ["ssl-mode", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key", "statement-cache-capacity", "application_name"];

/// Where the URL of a database is. It holds a password, so it is never shown: `Display` is the name of its variable.
#[derive(Clone)]
pub struct DatabaseUrl {
    variable: String,
    place: Place,
    /// Which of its hosts is meant, if the URL names several.
    host: Option<usize>,
}

#[derive(Clone)]
enum Place {
    Text(String),
    /// A file, which may change.
    File(PathBuf),
}

impl DatabaseUrl {
    /// The URL in `variable`, or in the file that `<variable>_FILE` names. `None` if neither is set.
    ///
    /// # Errors
    /// If both are.
    pub fn choose(variable: &str, text: Option<&str>, file: Option<&Path>) -> Result<Option<Self>, String> {
        let variable = variable.to_owned();
        match (text, file) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(Self { variable, place: Place::Text(text.to_owned()), host: None })),
            (None, Some(path)) => {
                Ok(Some(Self { variable: format!("{variable}_FILE"), place: Place::File(path.to_owned()), host: None }))
            }
            (Some(_), Some(_)) => Err(format!("{variable} and {variable}_FILE are both set: unset one")),
        }
    }

    /// Whether the URL may change while the program runs.
    pub(crate) fn may_change(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// A URL for each host that it names, as `postgres://role:password@first:5432,second:5432/database`.
    pub(crate) fn hosts(&self) -> Result<Vec<Self>, InvalidUrl> {
        let number = split_hosts(&self.read_all()?).len();
        Ok((0..number).map(|host| Self { host: Some(host), ..self.clone() }).collect())
    }

    /// The URL as it is now.
    pub(crate) fn read(&self) -> Result<String, InvalidUrl> {
        let text = self.read_all()?;
        match self.host {
            None => Ok(text),
            Some(host) => split_hosts(&text).into_iter().nth(host).ok_or(InvalidUrl::Malformed),
        }
    }

    fn read_all(&self) -> Result<String, InvalidUrl> {
        match &self.place {
            Place::Text(text) => Ok(text.clone()),
            Place::File(path) => match fs::read_to_string(path) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(error) => Err(InvalidUrl::File { path: path.clone(), error }),
            },
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.variable)
    }
}

impl From<&str> for DatabaseUrl {
    fn from(text: &str) -> Self {
        Self { variable: "the URL".to_owned(), place: Place::Text(text.to_owned()), host: None }
    }
}

impl From<&String> for DatabaseUrl {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&DatabaseUrl> for DatabaseUrl {
    fn from(url: &DatabaseUrl) -> Self {
        url.clone()
    }
}

/// What a URL says.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) options: PgConnectOptions,
    /// Whether the certificate is verified only because the URL does not say what to do.
    pub(crate) is_verified_by_default: bool,
    /// The values of the parameters, which no log may show.
    pub(crate) values: Vec<String>,
}

/// Reads a URL. Without `sslmode`, the certificate of a host that is not this machine is verified.
pub(crate) fn parse(text: &str) -> Result<Parsed, InvalidUrl> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(InvalidUrl::Scheme);
    }
    let query = query(text)?;
    if let Some(name) = unknown_parameter(query) {
        return Err(InvalidUrl::Parameter(name));
    }
    // sqlx's own message repeats parts of the URL.
    let options = PgConnectOptions::from_str(text).map_err(|_| InvalidUrl::Malformed)?;
    let says_so = names(query).any(|name| matches!(name, "sslmode" | "ssl-mode")) || std::env::var_os("PGSSLMODE").is_some();
    let values = values(text);
    if says_so || is_local(&options) {
        return Ok(Parsed { options, is_verified_by_default: false, values });
    }
    Ok(Parsed { options: options.ssl_mode(PgSslMode::VerifyFull), is_verified_by_default: true, values })
}

/// The URL once for each of its hosts. It need not be valid.
fn split_hosts(url: &str) -> Vec<String> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    let start = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let (before, hosts, behind) = (&url[..start], &url[start..end], &url[end..]);
    hosts.split(',').map(|host| format!("{before}{host}{behind}")).collect()
}

/// The words of all values: Postgres and the driver quote them one by one. Shorter ones are parts of any sentence.
fn values(url: &str) -> Vec<String> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    let words = |value: &str| value.split([' ', '=']).map(str::to_owned).collect::<Vec<_>>();
    let mut values: Vec<String> = url.query_pairs().flat_map(|(_, value)| words(&value)).collect();
    values.retain(|value| value.len() > 2);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// The parameters. If the host comes behind the `?`, it stands in a password, which would be shown in part.
fn query(url: &str) -> Result<&str, InvalidUrl> {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    if !before.contains('@') && query.contains('@') {
        return Err(InvalidUrl::Malformed);
    }
    Ok(query.split('#').next().unwrap_or_default())
}

fn names(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty())
}

/// The first parameter that the driver does not know.
fn unknown_parameter(query: &str) -> Option<String> {
    let mut unknown = names(query).filter(|name| {
        !PARAMETERS.contains(name)
            && !MORE_PARAMETERS.contains(name)
            && !name.starts_with("options[")
            && !name.starts_with("options%5B")
    });
    // The name is shown, so it must be short and harmless.
    unknown.next().map(|name| name.chars().filter(|letter| !letter.is_control()).take(64).collect())
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    options.get_socket().is_some() || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_named_and_its_value_is_not() {
        for name in ["connect_timeout", "sslmod", "SSLMODE", "channel_binding", "ssl%6dode"] {
            let error = parse(&format!("postgres://me@host/db?sslmode=disable&{name}=secret")).expect_err(name).to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
        for known in PARAMETERS.into_iter().filter(|name| !matches!(*name, "sslmode" | "port" | "hostaddr")) {
            parse(&format!("postgres://me@host/db?{known}=x")).expect(known);
        }
        parse("postgres://me@host/db?options=-c%20role%3Dx&options[lock_timeout]=1s&application_name=x").expect("known");
    }

    #[test]
    fn a_url_names_one_host_or_several() {
        let hosts = |url: &str| {
            let hosts = DatabaseUrl::from(url).hosts().expect(url).into_iter();
            hosts.map(|host| host.read().expect(url)).collect::<Vec<_>>()
        };
        let one = "postgres://me:a,b@host:1/db?sslmode=disable";
        assert_eq!(hosts(one), [one]);
        assert_eq!(
            hosts("postgres://me:a,b@first:1,[::1]:2,third/db?options=-c%20role%3Dx"),
            ["first:1", "[::1]:2", "third"].map(|host| format!("postgres://me:a,b@{host}/db?options=-c%20role%3Dx")),
        );
        for url in ["postgres://me@first,/db", "mysql://first,second/db", "", "postgres://me@first:x,second/db"] {
            let parsed = DatabaseUrl::from(url).hosts().expect(url).iter().try_for_each(|url| parse(&url.read()?).map(drop));
            assert!(parsed.is_err() || url == "postgres://me@first,/db", "{url}");
        }
    }

    #[test]
    fn no_part_of_a_password_is_shown() {
        for url in [
            "postgres://me:1?secret=x@host/db",
            "postgres://me:secret?secret&a@host/db",
            "postgres://me:secret@host:port/db",
            "postgres://me:secret@host/db?sslmode=secret",
            "postgres://me:secret@host/db?port=secret",
        ] {
            let error = parse(url).expect_err(url);
            assert!(matches!(error, InvalidUrl::Malformed) && !error.to_string().contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn the_certificate_of_another_machine_is_verified_unless_the_url_says_otherwise() {
        for url in
            ["postgres://me@db.example/x", "postgres://me@10.0.0.1/x", "postgres:///x?host=db", "postgres://[fe80::1]/x"]
        {
            let parsed = parse(url).expect(url);
            assert!(parsed.is_verified_by_default, "{url}");
            assert!(matches!(parsed.options.get_ssl_mode(), PgSslMode::VerifyFull), "{url}");
        }
        for url in [
            "postgres://me@127.0.0.1/x",
            "postgres://me@127.9.9.9/x",
            "postgres://me@[::1]/x",
            "postgres://me@localhost/x",
            "postgres:///x?host=/run/postgresql",
            "postgres://%2Frun%2Fpostgresql/x",
            "postgres://me@db.example/x?sslmode=disable",
            "postgres://me@db.example/x?ssl-mode=require",
        ] {
            let parsed = parse(url).expect(url);
            assert!(!parsed.is_verified_by_default, "{url}");
            assert!(!matches!(parsed.options.get_ssl_mode(), PgSslMode::VerifyFull), "{url}");
        }
    }
}
