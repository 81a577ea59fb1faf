//! The address of a database, as libpq reads it. splitctl's own sessions are sqlx's; `pg_dump` and the servers, which
//! connect to each other, use libpq. Both read URLs, but other names and other defaults.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// Parameters that sqlx reads, with libpq's names for them. An empty name: libpq has none, and needs none.
const OF_BOTH: [(&str, &str); 18] = [
    ("sslmode", "sslmode"),
    ("ssl-mode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("ssl-cert", "sslcert"),
    ("sslkey", "sslkey"),
    ("ssl-key", "sslkey"),
    ("statement-cache-capacity", ""),
    ("host", "host"),
    ("hostaddr", "hostaddr"),
    ("port", "port"),
    ("dbname", "dbname"),
    ("user", "user"),
    ("password", "password"),
    ("application_name", "application_name"),
    ("options", "options"),
];

/// Parameters of libpq that sqlx does not know, and may do without: they make no connection weaker, and lead nowhere else.
const OF_LIBPQ: [&str; 12] = [
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "fallback_application_name",
    "gssencmode",
    "target_session_attrs",
    "load_balance_hosts",
    "sslsni",
    "sslnegotiation",
];

/// Parameters that name files, and the variables that sqlx and libpq read instead.
const CERTIFICATES: [(&str, &str); 3] = [("sslrootcert", "PGSSLROOTCERT"), ("sslcert", "PGSSLCERT"), ("sslkey", "PGSSLKEY")];

/// Which programs read a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// splitctl, and libpq on this machine and on the servers.
    Both,
    /// The server of the other side alone.
    Server,
}

/// Checks a URL. The message says what is wrong, and repeats no value.
///
/// # Errors
/// If it is no Postgres URL, or has a parameter that a reader would ignore although it changes the connection.
pub fn check(url: &str, reader: Reader) -> Result<()> {
    let each = each_host(url);
    for one in &each {
        check_one(one, reader)?;
    }
    let attributes = parameters(&each[0])?.into_iter().rfind(|(name, _)| name == "target_session_attrs");
    ensure!(
        each.len() == 1 || attributes.is_some_and(|(_, value)| ["read-write", "primary"].contains(&&*value)),
        "it names several hosts: add `target_session_attrs=read-write`, so that every session uses the primary"
    );
    Ok(())
}

/// The same URL for each of its hosts, in their order.
pub fn each_host(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.to_owned()] };
    let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    hosts.split(',').map(|host| format!("{scheme}://{login}{host}{behind}")).collect()
}

fn check_one(url: &str, reader: Reader) -> Result<()> {
    const SHAPE: &str = "it is not a Postgres URL (postgres://role:password@host:port/database)";
    ensure!(url.starts_with("postgres://") || url.starts_with("postgresql://"), SHAPE);
    let parsed = Url::parse(url).ok().context(SHAPE)?;
    for (name, value) in parsed.query_pairs() {
        let of_sqlx = OF_BOTH.iter().any(|(known, _)| *known == name) || setting_of(&name).is_some();
        let is_known = of_sqlx || reader == Reader::Server || OF_LIBPQ.contains(&&*name);
        ensure!(
            is_known && name != "replication",
            "its parameter `{name}` would not hold for all sessions of splitctl: remove it, or write what it stands for"
        );
        ensure!(
            name != "host" || !value.contains(','),
            "its parameter `host` names several hosts: write them before the path"
        );
    }
    PgConnectOptions::from_str(url).ok().context("a value in it is not valid")?;
    Ok(())
}

/// Parameters by libpq's names. A parameter that is named twice has its last value.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    parameters: Vec<(String, String)>,
}

/// Without the password.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str, otherwise: &str| self.get(name).unwrap_or(otherwise).to_owned();
        let host = self.get("host").or(self.get("hostaddr")).unwrap_or("localhost").to_owned();
        write!(formatter, "{host}:{}/{}", part("port", "5432"), part("dbname", ""))
    }
}

impl Endpoint {
    /// The endpoint that sqlx connects to in this process: with the defaults of its environment and its password file. A
    /// server has others.
    pub fn of_this_process(url: &str) -> Result<Self> {
        let each = each_host(url);
        let url = each[0].as_str();
        let options = PgConnectOptions::from_str(url).ok().context("the URL is not valid")?;
        let mut endpoint = Self { parameters: Vec::new() };
        for (name, variable) in CERTIFICATES {
            if let Ok(path) = std::env::var(variable) {
                endpoint.set(name, &path);
            }
        }
        let has_others = |name: &str| OF_LIBPQ.contains(&name) || CERTIFICATES.iter().any(|(known, _)| *known == name);
        for (name, value) in parameters(url)?.into_iter().filter(|(name, _)| has_others(name)) {
            endpoint.set(&name, &value);
        }
        // A URL holds every host and every name only if both are plain.
        let plain = options.clone().host("localhost").username("role").database("database").to_url_lossy();
        let socket = options.get_socket().map(|socket| socket.to_string_lossy().into_owned());
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        endpoint.set("host", &socket.unwrap_or(host));
        endpoint.set("port", &options.get_port().to_string());
        endpoint.set("user", options.get_username());
        endpoint.set("dbname", options.get_database().unwrap_or(options.get_username()));
        endpoint.set("sslmode", name_of(options.get_ssl_mode()));
        if let Some(password) = plain.password() {
            endpoint.set("password", &percent_decode_str(password).decode_utf8()?);
        }
        if let Some(settings) = options.get_options() {
            endpoint.set("options", settings);
        }
        endpoint.join_hosts(&each)?;
        Ok(endpoint)
    }

    /// The endpoint that a server reads. What the URL leaves out, the server's own environment says.
    pub fn of_a_server(url: &str) -> Result<Self> {
        let (mut endpoint, each) = (Self { parameters: Vec::new() }, each_host(url));
        for (name, value) in parameters(&each[0])? {
            endpoint.set(&name, &value);
        }
        endpoint.join_hosts(&each)?;
        Ok(endpoint)
    }

    /// If there are several URLs, libpq tries their hosts in this order.
    fn join_hosts(&mut self, each: &[String]) -> Result<()> {
        if each.len() < 2 {
            return Ok(());
        }
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for url in each {
            let known = parameters(url)?;
            let find = |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            hosts.push(find("host").unwrap_or_default());
            ports.push(find("port").unwrap_or_else(|| "5432".to_owned()));
        }
        self.set("host", &hosts.join(","));
        self.set("port", &ports.join(","));
        Ok(())
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets a parameter. Several `options` are joined.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.parameters.iter_mut().find(|(known, _)| known == name) {
            Some((_, options)) if name == "options" => *options = format!("{options} {value}"),
            Some((_, known)) => value.clone_into(known),
            None => self.parameters.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes a parameter out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(known, _)| known == name)?;
        Some(self.parameters.remove(at).1)
    }

    /// A connection string of libpq. It holds the password, if there is one.
    pub fn connection_string(&self) -> String {
        let quote = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
        let parts = self.parameters.iter().map(|(name, value)| format!("{name}='{}'", quote(value)));
        parts.collect::<Vec<_>>().join(" ")
    }

    /// Removes the password from a text: a server may repeat parts of a connection string that it cannot use.
    pub fn conceal(&self, text: &str) -> String {
        let passwords = ["password", "sslpassword"].iter().filter_map(|name| self.get(name));
        passwords.filter(|password| !password.is_empty()).fold(text.to_owned(), |text, one| text.replace(one, "…"))
    }
}

/// The parts and parameters of a URL, by libpq's names.
fn parameters(url: &str) -> Result<Vec<(String, String)>> {
    let url = Url::parse(url).ok().context("it is not a Postgres URL")?;
    let decoded = |text: &str| anyhow::Ok(percent_decode_str(text).decode_utf8()?.into_owned());
    let mut found = Vec::new();
    if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
        found.push(("host".to_owned(), decoded(host)?.trim_matches(['[', ']']).to_owned()));
    }
    let port = url.port().map(|port| port.to_string());
    found.extend(port.map(|port| ("port".to_owned(), port)));
    for (name, value) in [("user", url.username()), ("password", url.password().unwrap_or_default())] {
        if !value.is_empty() {
            found.push((name.to_owned(), decoded(value)?));
        }
    }
    let database = decoded(url.path().trim_start_matches('/'))?;
    if !database.is_empty() {
        found.push(("dbname".to_owned(), database));
    }
    for (name, value) in url.query_pairs() {
        let known = OF_BOTH.iter().find(|(known, _)| *known == name).map(|(_, known)| *known);
        match (known, setting_of(&name)) {
            (Some(""), _) => {}
            (Some(known), _) => found.push((known.to_owned(), value.into_owned())),
            (None, Some(setting)) => found.push(("options".to_owned(), format!("-c {setting}={value}"))),
            (None, None) => found.push((name.into_owned(), value.into_owned())),
        }
    }
    Ok(found)
}

/// The setting that a parameter `options[setting]` of sqlx names.
fn setting_of(name: &str) -> Option<&str> {
    name.strip_prefix("options[")?.strip_suffix(']')
}

fn name_of(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

/// Reads how long a connection may take (`connect_timeout`). `None` if the URL does not limit it.
///
/// # Errors
/// If the value is not a number of seconds.
pub fn patience(url: &str) -> Result<Option<std::time::Duration>> {
    let found = parameters(&each_host(url)[0])?.into_iter().rfind(|(name, _)| name == "connect_timeout");
    match found.map(|(_, value)| value.parse::<u64>()) {
        None | Some(Ok(0)) => Ok(None),
        // libpq waits for at least two seconds, too.
        Some(Ok(seconds)) => Ok(Some(std::time::Duration::from_secs(seconds.max(2)))),
        Some(Err(_)) => bail!("its parameter `connect_timeout` is not a number of seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Reader, check};

    #[test]
    fn a_url_of_sqlx_becomes_a_connection_string_of_libpq() {
        for (url, string) in [
            (
                "postgres://me:p%40s's@host:5/db",
                r"sslmode='prefer' host='host' port='5' user='me' dbname='db' password='p@s\'s'",
            ),
            (
                "postgres://a%40b@host/?ssl-mode=verify-full&statement-cache-capacity=0&ssl-ca=/a%20b.pem&connect_timeout=3",
                "sslrootcert='/a b.pem' connect_timeout='3' host='host' port='5432' user='a@b' dbname='a@b' \
                 sslmode='verify-full'",
            ),
            (
                "postgres://me@[::1]/db?options[work_mem]=1MB&options=-c%20jit%3Doff&sslmode=disable",
                "host='::1' port='5432' user='me' dbname='db' sslmode='disable' options='-c work_mem=1MB -c jit=off'",
            ),
            (
                "postgres:///db?host=/tmp/a&user=me&port=7&sslmode=disable",
                "host='/tmp/a' port='7' user='me' dbname='db' sslmode='disable'",
            ),
            (
                "postgres://me@%2Ftmp%2Fa/db?sslmode=disable",
                "host='/tmp/a' port='5432' user='me' dbname='db' sslmode='disable'",
            ),
        ] {
            let endpoint = Endpoint::of_this_process(url).expect(url).connection_string();
            let words = |text: &str| {
                let mut words: Vec<String> = text.split("' ").map(str::to_owned).collect();
                words.sort();
                words
            };
            assert_eq!(words(&format!("{endpoint} ")), words(&format!("{string} ")), "{url}");
        }
        for read in [Endpoint::of_this_process, Endpoint::of_a_server] {
            let several = read("postgres://me@a:1,b/db?target_session_attrs=read-write").expect("a URL");
            assert_eq!((several.get("host"), several.get("port")), (Some("a,b"), Some("1,5432")));
            assert_eq!((several.get("user"), several.get("target_session_attrs")), (Some("me"), Some("read-write")));
        }
        let server = Endpoint::of_a_server("postgres://h/db?passfile=/p&target_session_attrs=primary").expect("a URL");
        assert_eq!(server.connection_string(), "host='h' dbname='db' passfile='/p' target_session_attrs='primary'");
    }

    #[test]
    fn a_parameter_that_only_one_of_them_reads_is_named_without_its_value() {
        for (url, reason) in [
            ("postgres://a,b/db", "several hosts"),
            ("postgres://me:secret@a:1,b:2/db", "several hosts"),
            ("postgres://h/db?service=secret", "`service`"),
            ("postgres://h/db?passfile=secret", "`passfile`"),
            ("postgres://h/db?channel_binding=secret", "`channel_binding`"),
            ("postgres://h/db?sslmode=secret", "a value in it is not valid"),
            ("host=h password=secret", "not a Postgres URL"),
        ] {
            let error = format!("{:#}", check(url, Reader::Both).expect_err(url));
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        check("postgres://h/db?service=x&passfile=y", Reader::Server).expect("libpq alone reads it");
        check("postgres://me@a:1,b:2/db?target_session_attrs=read-write", Reader::Both).expect("both read it");
        check("postgresql://me@[::1]:5/db?connect_timeout=5&sslmode=require", Reader::Both).expect("both read it");
    }
}
