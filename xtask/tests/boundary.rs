//! The compiler guards the boundary between the services.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cargo_metadata::Message;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::process::cargo;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder")
}

/// The compiled sqlx of the services, beside its dependencies.
static SQLX: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = cargo()
        .args(["build", "--bin", "users", "--bin", "orders", "--message-format=json"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let library = Message::parse_stream(&*output.stdout).flatten().find_map(|message| match message {
        Message::CompilerArtifact(artifact) if artifact.target.name == "sqlx" => {
            artifact.filenames.into_iter().find(|file| file.extension() == Some("rlib"))
        }
        _ => None,
    });
    library.expect("sqlx is built").into_std_path_buf()
});

/// Compiles a statement as a part of the service's crate, and returns the compiler's errors.
fn compile(service: &str, role: &str, database: &TestDatabase, query: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("statement.rs");
    let code = format!("pub fn statement() {{ let _ = {query}; }}\n");
    std::fs::write(&source, code).expect("written");
    let variable = format!("{}_DATABASE_URL", service.to_uppercase());
    let output = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--out-dir"])
        .arg(folder.path())
        .arg("--extern")
        .arg(format!("sqlx={}", SQLX.display()))
        .arg("-L")
        .arg(format!("dependency={}", SQLX.parent().expect("in a folder").display()))
        .arg(&source)
        .current_dir(root())
        .env("CARGO", env!("CARGO"))
        .env("CARGO_MANIFEST_DIR", root().join("services").join(service))
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", folder.path())
        .env(variable, database.url_as(role))
        .output()
        .expect("rustc runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn a_statement_that_crosses_the_line_does_not_compile() {
    let database = TestDatabase::create();
    let of_orders = |query| compile("orders", ORDERS_ROLE, &database, query);
    let of_users = |query| compile("users", USERS_ROLE, &database, query);

    // A service may read its own tables and the other's published view.
    of_orders(r#"sqlx::query!("select name from customers")"#).expect("the published view may be read");
    of_users(r#"sqlx::query!("select open_count from open_orders")"#).expect("the published view may be read");
    of_users(r#"sqlx::query!("select name from users")"#).expect("its own table may be read");

    let crossing = [
        (of_orders(r#"sqlx::query!("select name from users")"#), "permission denied for table users"),
        (
            of_orders(r#"sqlx::query!("select o.id from orders o join users u on u.id = o.user_id")"#),
            "permission denied for table users",
        ),
        (of_orders(r#"sqlx::query!("update users set name = 'x' returning id")"#), "permission denied for table users"),
        (of_users(r#"sqlx::query!("select status from orders")"#), "permission denied for table orders"),
        (
            of_users(r#"sqlx::query!("delete from user_events returning version")"#),
            "permission denied for table user_events",
        ),
    ];
    for (outcome, reason) in crossing {
        let message = outcome.expect_err("it compiles");
        assert!(message.contains(reason), "{message}");
    }

    // README.md shows this message. The number at its end is a line of Postgres' source.
    let message = of_orders(r#"sqlx::query!("select name from users where id = $1", id)"#).expect_err("it compiles");
    let said = "error: error returned from database: permission denied for table users";
    assert!(message.lines().any(|line| line.starts_with(said)), "{message}");
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.lines().any(|line| line.starts_with(said)), "README.md does not show: {said}");
}
