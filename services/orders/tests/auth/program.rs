//! The real programs: which variables they need, and what they say.

use std::process::{Command, Output, Stdio};

use dev::postgres::{ORDERS_ROLE, TestDatabase};
use tempfile::TempDir;

/// The program, which must end by itself.
fn run(variables: &[(&str, &str)]) -> Output {
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command.env("ORDERS_DATABASE_URL", "postgres://orders_svc@127.0.0.1:9/shop").envs(variables.iter().copied());
    command.output().expect("the program runs")
}

#[test]
fn without_tokens_a_service_listens_on_loopback_only() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8082"] {
        for auth in [&[][..], &[("AUTH", "off")]] {
            let ended = run(&[auth, &[("ORDERS_ADDR", address)]].concat());
            let message = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(2), "{message}");
            for word in ["ORDERS_ADDR", "AUTH=jwt", "ALLOW_UNAUTHENTICATED=yes"] {
                assert!(message.contains(word), "{word} in {message}");
            }
        }
    }
}

#[test]
fn without_tokens_operators_are_on_loopback_only_too() {
    let ended = run(&[("ADMIN_ADDR", "0.0.0.0:0")]);
    let message = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{message}");
    for word in ["ADMIN_ADDR", "AUTH=jwt", "ALLOW_UNAUTHENTICATED=yes"] {
        assert!(message.contains(word), "{word} in {message}");
    }
}

/// With tokens, what operators use needs none at their address, wherever that is.
#[tokio::test(flavor = "multi_thread")]
async fn operators_need_no_token_at_their_address() {
    let file = crate::support::KeysFile::new(&[&dev::issuer::SigningKey::eddsa("one")]);
    let (public, admin) = (dev::process::free_address(), dev::process::free_address());
    let everywhere = |address: std::net::SocketAddr| format!("0.0.0.0:{}", address.port());
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command.env("ORDERS_DATABASE_URL", "postgres://orders_svc@127.0.0.1:9/shop");
    command.env("ORDERS_ADDR", everywhere(public)).env("ADMIN_ADDR", everywhere(admin));
    command.env("AUTH", "jwt").env("AUTH_AUDIENCE", "shop").env("AUTH_JWKS_FILE", &file.path);
    let mut child = command.stderr(Stdio::null()).spawn().expect("a program");
    let (clients, operators) = (dev::http::Client::at(public), dev::http::Client::at(admin));
    dev::wait::until("it serves", async || std::net::TcpStream::connect(public).is_ok()).await;
    for path in ["/metrics", "/openapi.json", "/docs/", "/log-level"] {
        clients.get(path).await.problem(401, "");
        operators.get(path).await.expect(200);
    }
    clients.get("/health/live").await.expect(200);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn what_tokens_need_is_named_when_it_is_missing() {
    for (variables, named) in [
        (&[("AUTH", "jwt")][..], "AUTH_AUDIENCE"),
        (&[("AUTH", "jwt"), ("AUTH_AUDIENCE", "shop")], "AUTH_ISSUER"),
        (&[("AUTH", "jwt"), ("AUTH_AUDIENCE", "shop"), ("AUTH_JWKS_FILE", "/nowhere")], "AUTH_JWKS_FILE"),
        (&[("AUTH", "jwt"), ("AUTH_AUDIENCE", "shop"), ("AUTH_JWKS_URL", "http://example.org")], "AUTH_JWKS_URL"),
        (&[("AUTH", "basic")], "AUTH"),
        (&[("ALLOW_UNAUTHENTICATED", "perhaps")], "ALLOW_UNAUTHENTICATED"),
    ] {
        let ended = run(variables);
        let message = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{message}");
        assert!(message.contains(named), "{named} in {message}");
    }
}

#[test]
fn where_a_gateway_authenticates_a_service_listens_anywhere() {
    let database = TestDatabase::create();
    let url = database.url_as(ORDERS_ROLE);
    let variables = [("ORDERS_DATABASE_URL", &*url), ("ORDERS_ADDR", "0.0.0.0:0"), ("ALLOW_UNAUTHENTICATED", "yes")];
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null()).envs(variables).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut log = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("orders is listening") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut log, &mut line).expect("a log"), 0, "it ended");
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// A service that still waits for the issuer's keys.
#[test]
fn a_service_that_is_told_to_stop_while_it_starts_ends_well() {
    let issuer = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let url = format!("http://{}", issuer.local_addr().expect("an address"));
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
    command.env("ORDERS_DATABASE_URL", "postgres://orders_svc@127.0.0.1:9/shop").env("ORDERS_ADDR", "127.0.0.1:0");
    command.env("AUTH", "jwt").env("AUTH_AUDIENCE", "shop").env("AUTH_ISSUER", url);
    let mut child = command.spawn().expect("a program");
    issuer.set_nonblocking(true).expect("a listener");
    let mut asked = None;
    dev::wait::until_blocking("it asks for the keys", || {
        asked = asked.take().or_else(|| issuer.accept().ok());
        asked.is_some()
    });
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let mut ended = None;
    dev::wait::until_blocking("it ends", || {
        ended = child.try_wait().expect("a child");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|ended| ended.code()), Some(0));
}
