//! What is deployed: images, compose files, Kubernetes' manifests, systemd's units. No engine runs here, so the tests do
//! what can be done without one: they run an image's content in an empty folder, and compare files with what the programs
//! know.
#![allow(clippy::disallowed_methods, reason = "a test may block")]

mod documents;
mod sources;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dev::issuer::{SigningKey, jwks};
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::until_blocking;
use documents::{Document, build, root};
use sources::{files, read};
use tempfile::TempDir;

/// The user of distroless images called `nonroot`.
const NONROOT: &str = "65532:65532";

/// The shared libraries in the image `gcr.io/distroless/cc-debian12`, which a program may need.
const LIBRARIES: [&str; 10] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libcrypto.so.3",
    "libssl.so.3",
];

/// Variables of other programs, by their prefix, or whole.
const OTHERS: &[&str] = &[
    "AF_",
    "BUILD_REVISION",
    "GF_",
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE",
    "KAFKA_CONTROLLER_LISTENER_NAMES",
    "KAFKA_CONTROLLER_QUORUM_VOTERS",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS",
    "KAFKA_INTER_BROKER_LISTENER_NAME",
    "KAFKA_LISTENERS",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
    "KAFKA_LOG_DIRS",
    "KAFKA_NODE_ID",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR",
    "KAFKA_PROCESS_ROLES",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
];

/// The files that say how something is deployed.
fn deployed() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["Dockerfile", "docker-compose.yml", "docker-compose.postgres.yml"].iter().map(PathBuf::from).collect();
    for ending in ["yaml", "service"] {
        found.extend(files("deploy", ending));
    }
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// The words of a text that look like variables: capitals joined by `_`, and AUTH.
fn variables(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let is_variable = |word: &&str| {
        let capitals = word.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
        *word == "AUTH" || (capitals && word.trim_matches('_').contains('_'))
    };
    words.filter(is_variable).collect()
}

#[test]
fn every_variable_that_is_deployed_is_one_that_the_programs_know() {
    let page = Document::read(&root().join("docs/configuration.md"));
    let of_services = page.rows("services").into_iter().map(|row| row[1].clone());
    let known: BTreeSet<String> = of_services.chain(page.rows("tools").into_iter().map(|row| row[0].clone())).collect();
    assert!(known.contains("SHUTDOWN_DELAY") && known.contains("DATABASE_URL"), "{known:?}");
    let (mut unknown, mut seen) = (Vec::new(), BTreeSet::new());
    for file in deployed() {
        let text = read(&file);
        for variable in variables(&text) {
            let of_another =
                OTHERS.iter().any(|other| variable == *other || (other.ends_with('_') && variable.starts_with(other)));
            if known.contains(variable) {
                seen.insert(variable.to_owned());
            } else if !of_another {
                unknown.push(format!("{}: {variable}", file.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    for variable in ["AUTH", "USERS_DATABASE_URL", "ORDERS_DATABASE_URL_FILE", "STARTUP_TIMEOUT", "SHUTDOWN_DELAY"] {
        assert!(seen.contains(variable), "{variable} in {seen:?}");
    }
}

/// The variables that the `Dockerfile` sets in a target and in what that is made from.
fn image_variables(target: &str) -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let mut variables = Vec::new();
    let mut stage = target;
    while let Some((head, body)) = text
        .split("\nFROM ")
        .filter_map(|part| part.split_once('\n'))
        .find(|(head, _)| head.ends_with(&format!(" AS {stage}")))
    {
        for line in body.lines().filter_map(|line| line.strip_prefix("ENV ")) {
            let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
            variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        stage = head.split(' ').next().expect("a stage");
    }
    assert!(variables.contains(&("AUTH".to_owned(), "jwt".to_owned())), "{variables:?}");
    variables
}

/// The shared libraries that a program loads.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// What an image holds, in a folder that only root may change: a program and its libraries, and nothing else.
struct Image {
    folder: TempDir,
    program: &'static str,
}

impl Image {
    fn of(program: &'static str) -> Self {
        let folder = TempDir::new_in("/var/tmp").expect("a folder");
        let image = Self { folder, program };
        let built = build(&["users", "orders"], false, &[]).expect("the services build").join(program);
        image.add(&built, &format!("/usr/local/bin/{program}"));
        for library in libraries(&built) {
            let name = library.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(LIBRARIES.contains(&&*name), "{program} needs {name}, which the image does not have");
            image.add(&library, &library.display().to_string());
        }
        image.allow_reading();
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn add(&self, from: &Path, path: &str) {
        let to = self.path(path);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }

    /// Lets everybody read, and nobody but root write.
    fn allow_reading(&self) {
        let status = Command::new("chmod").args(["-R", "a+rX,go-w"]).arg(self.folder.path()).status();
        assert!(status.expect("chmod").success());
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o555)).expect("our folder");
    }

    /// The program in the image, as the image's user, with the image's variables and these.
    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={NONROOT}")).arg(self.folder.path());
        command.arg(format!("/usr/local/bin/{}", self.program)).args(arguments);
        command.env_clear().envs(image_variables(self.program)).envs(variables.iter().copied());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).output().expect("chroot")
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_content_of_an_image_serves_as_an_unprivileged_user_in_an_empty_folder() {
    if !is_root() {
        println!("not tried: chroot needs root");
        return;
    }
    for (program, role) in [("users", USERS_ROLE), ("orders", ORDERS_ROLE)] {
        let (image, database) = (Image::of(program), TestDatabase::create());
        let refused = image.run(&[], &[(&variable(program, "DATABASE_URL"), &database.url_as(role))]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("AUTH_AUDIENCE"), "an image asks for tokens by itself: {}", said(&refused));

        // As a secret is mounted: the image's user may read it.
        let secrets = image.path("/run/secrets");
        fs::create_dir_all(&secrets).expect("a folder");
        fs::write(secrets.join("database-url"), database.url_as(role)).expect("a secret");
        fs::write(secrets.join("jwks.json"), jwks([&SigningKey::eddsa("one")]).to_string()).expect("keys");
        let (address, grpc) = (free_address(), free_address());
        let listens = SocketAddr::new("0.0.0.0".parse().expect("an address"), address.port()).to_string();
        let file = variable(program, "DATABASE_URL_FILE");
        let (own, grpc) = (variable(program, "ADDR"), grpc.to_string());
        let variables = [
            (&*file, "/run/secrets/database-url"),
            (&*own, &*listens),
            ("USERS_GRPC_ADDR", &*grpc),
            ("AUTH_JWKS_FILE", "/run/secrets/jwks.json"),
            ("AUTH_AUDIENCE", "shop"),
        ];
        let before = image.run(&["health"], &variables);
        assert_eq!(before.status.code(), Some(1), "{}", said(&before));
        assert!(said(&before).contains(&format!("http://{address}/health/ready: ")), "{}", said(&before));

        let serving = Leashed::start(&image.command(&[], &variables), Signal::SIGTERM).expect("chroot");
        until_blocking("the image's own check passes", || image.run(&["health"], &variables).status.success());
        assert!(image.run(&["health", "--live"], &variables).status.success());
        assert_eq!(serving.stop().expect("it ends").code(), 0);
    }
}

fn variable(program: &str, rest: &str) -> String {
    format!("{}_{rest}", program.to_uppercase())
}

/// The address of a port that an image publishes, and the one that a manifest calls.
#[test]
fn the_ports_of_the_images_are_those_that_the_files_name() {
    for (program, ports) in [("users", &["8081", "50051"][..]), ("orders", &["8082"])] {
        let own = image_variables(program);
        for (port, rest) in ports.iter().zip(["ADDR", "GRPC_ADDR"]) {
            let listens = (variable(program, rest), format!("0.0.0.0:{port}"));
            assert!(own.contains(&listens), "{listens:?} in {own:?}");
            let manifest = read(format!("deploy/kubernetes/{program}.yaml"));
            assert!(manifest.contains(&format!("containerPort: {port}")), "{port}");
            assert!(read("docker-compose.yml").contains(&format!("127.0.0.1:{port}:{port}")), "{port}");
        }
    }
}

/// The workspace's folders are in the build's context, and what is copied beside them.
#[test]
fn an_image_is_built_from_the_whole_workspace() {
    let ignored = read(".dockerignore");
    let kept: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let members = read("Cargo.toml");
    let (_, members) = members.split_once("members = [").expect("members");
    let members = members.split(']').next().unwrap_or_default();
    let members = members.split(',').map(|member| member.trim().trim_matches('"').trim_end_matches("/*"));
    for needed in members.chain(["Cargo.toml", "Cargo.lock", ".cargo", "migrations"]) {
        assert!(kept.contains(needed), "{needed} is not in .dockerignore");
    }
    let sqlx = read("Cargo.lock");
    let version = sqlx.split("name = \"sqlx\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    assert!(read("Dockerfile").contains(&format!("sqlx-cli --locked --version {} ", version.expect("sqlx"))));
}

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("not tried: systemd-analyze is missing");
        return;
    }
    // The programs are not installed here, and systemd looks whether they are.
    let folder = TempDir::new().expect("a folder");
    let mut units = Vec::new();
    for unit in files("deploy/systemd", "service") {
        let text = read(&unit);
        let begin = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a program");
        let program = begin.split(' ').next().expect("a program");
        let path = folder.path().join(unit.file_name().expect("a name"));
        fs::write(&path, text.replace(&format!("ExecStart={program}"), "ExecStart=/bin/true")).expect("a unit");
        units.push(path);
    }
    assert_eq!(units.len(), 3);
    let verified = Command::new("systemd-analyze").arg("verify").args(&units).output().expect("it runs");
    assert!(verified.status.success() && said(&verified).is_empty(), "{}", said(&verified));
    for unit in &units {
        // An exposure of at most 2.0 on systemd's scale from 0 to 10.
        let arguments = ["security", "--no-pager", "--offline=yes", "--threshold=20"];
        let judged = Command::new("systemd-analyze").args(arguments).arg(unit).output().expect("it runs");
        assert!(judged.status.success(), "{}\n{}", String::from_utf8_lossy(&judged.stdout), said(&judged));
    }
}

#[test]
fn splitctl_has_completions_for_each_shell_and_a_page_for_each_command() {
    let splitctl = build(&["splitctl"], false, &[]).expect("splitctl builds").join("splitctl");
    let folder = TempDir::new().expect("a folder");
    let written = Command::new(&splitctl).arg("generate").arg(folder.path()).output().expect("it runs");
    assert!(written.status.success(), "{}", said(&written));
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    for file in ["splitctl.bash", "_splitctl", "splitctl.fish"] {
        assert!(read(&format!("completions/{file}")).contains("cutover"), "{file}");
    }
    let help = Command::new(&splitctl).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let (_, commands) = help.split_once("\nCommands:\n").expect("commands");
    let listed = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.contains(&"cutover") && !names.contains(&"generate"), "{names:?}");
    for name in names {
        let page = read(&format!("man/splitctl-{name}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(&format!("splitctl {name}")), "{name}: {page}");
    }
    assert!(read("man/splitctl.1").contains("manifest"));
}

#[test]
fn prometheus_accepts_its_configuration() {
    let folder = root().join("deploy/prometheus");
    match Command::new("promtool").args(["check", "config", "prometheus.yml"]).current_dir(folder).output() {
        Ok(output) => assert!(output.status.success(), "{}", said(&output)),
        Err(error) => println!("not tried: promtool ({error}); Debian has it in the package prometheus"),
    }
}
