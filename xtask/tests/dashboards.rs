//! Metrics, dashboards and alerts: Prometheus' own tools read what the real programs say, and a real Prometheus, from
//! Debian's package, answers each panel's query.
#![allow(clippy::disallowed_methods, reason = "a test may block")]

mod documents;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dev::http::Client;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::{until, within};
use documents::{build, root};
use serde_json::{Value, json};
use sources::{files, read};
use tempfile::TempDir;

/// The gauge that says whether a standby is read.
const READABLE: &str = "db_standby_readable{";

/// Both services, each of which asks the other one, reads its events, has a standby, and may move.
struct Services {
    users: Client,
    orders: Client,
    /// The addresses of operators.
    admin: [String; 2],
    _running: [Leashed; 2],
    _databases: [TestDatabase; 3],
}

impl Services {
    async fn start() -> Self {
        let programs = build(&["users", "orders"], false, &[]).expect("the services build");
        let databases = [TestDatabase::create(), TestDatabase::own("users"), TestDatabase::own("orders")];
        let [users, users_grpc, users_admin, orders, orders_admin] = std::array::from_fn(|_| free_address().to_string());
        let variables = [
            ("USERS_DATABASE_URL", databases[0].url_as(USERS_ROLE)),
            ("ORDERS_DATABASE_URL", databases[0].url_as(ORDERS_ROLE)),
            // A primary may stand in its own list of standbys.
            ("USERS_DATABASE_READ_URL", databases[0].url_as(USERS_ROLE)),
            ("ORDERS_DATABASE_READ_URL", databases[0].url_as(ORDERS_ROLE)),
            ("USERS_DATABASE_NEXT_URL", databases[1].url_as(USERS_ROLE)),
            ("ORDERS_DATABASE_NEXT_URL", databases[2].url_as(ORDERS_ROLE)),
            ("USERS_ADDR", users.clone()),
            ("USERS_GRPC_ADDR", users_grpc),
            ("ORDERS_ADDR", orders.clone()),
            ("EVENTS_VIA", "feed".to_owned()),
            ("CUSTOMERS_VIA", "grpc".to_owned()),
            ("OPEN_ORDERS_VIA", "http".to_owned()),
            ("DATABASE_MAX_CONNECTIONS", "2".to_owned()),
            ("DATABASE_QUEUE_TIMEOUT", "20s".to_owned()),
        ];
        let start = |program: &str, admin: &str| {
            let mut command = Command::new(programs.join(program));
            command.envs(variables.iter().map(|(name, value)| (name, value))).env("ADMIN_ADDR", admin);
            command.env("RUST_LOG", "warn").current_dir(std::env::temp_dir());
            Leashed::start(&command, Signal::SIGTERM).expect("it runs")
        };
        let running = [start("users", &users_admin), start("orders", &orders_admin)];
        let (users, orders) = (Client::at(users), Client::at(orders));
        until("both are ready", async || users.is_ready().await && orders.is_ready().await).await;
        let admin = [users_admin, orders_admin];
        for admin in &admin {
            let is_read = |metrics: &str| metrics.lines().any(|line| line.starts_with(READABLE) && line.ends_with(" 1"));
            until("it is read", async || is_read(&Client::at(admin).get("/metrics").await.text())).await;
        }
        Self { users, orders, admin, _running: running, _databases: databases }
    }

    /// A few requests of each kind, and some that are refused.
    async fn work(&self, round: usize) {
        let person = json!({ "email": format!("person-{round}@example.org"), "name": "Person" });
        let user = self.users.post("/users").json(&person).await.expect(201).json()["id"].clone();
        let item = json!({ "sku": "tea", "quantity": 1, "unit_price_minor": 350 });
        let request = json!({ "user_id": user, "currency": "EUR", "items": [item] });
        let order = self.orders.post("/orders").json(&request).await.expect(201).json()["id"].clone();
        let order = order.as_str().expect("an id");
        self.orders.get(format!("/orders/{order}")).await.expect(200);
        self.orders.post(format!("/orders/{order}/ship")).await.expect(409);
        self.orders.post(format!("/orders/{order}/cancel")).json(&json!({})).await.expect(200);
        let user = user.as_str().expect("an id");
        self.users.get(format!("/users/{user}")).await.expect(200);
        self.users.get("/users/nobody").await.expect(404);
        self.users.delete(format!("/users/{user}")).await;
        // More at once than there are connections, so that some wait. Reads do not, while there are standbys.
        let registering = (0..6).map(|number| {
            let person = json!({ "email": format!("other-{round}-{number}@example.org"), "name": "Other" });
            tokio::spawn(self.users.post("/users").json(&person).into_future())
        });
        let person = json!({ "email": format!("buyer-{round}@example.org"), "name": "Buyer" });
        let buyer = self.users.post("/users").json(&person).await.expect(201).json()["id"].clone();
        let order = json!({ "user_id": buyer, "currency": "EUR", "items": request["items"] });
        let ordering = (0..6).map(|_| tokio::spawn(self.orders.post("/orders").json(&order).into_future()));
        for answer in registering.chain(ordering).collect::<Vec<_>>() {
            answer.await.expect("an answer").expect(201);
        }
        for service in [(&self.users, "/users"), (&self.orders, "/orders")] {
            let asked = (0..12).map(|_| service.0.get(service.1).into_future());
            let asked: Vec<_> = asked.map(tokio::spawn).collect();
            for answer in asked {
                answer.await.expect("an answer").expect(200);
            }
        }
    }
}

fn is_installed(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        println!("not tried: {program} is missing; Debian has it in the package prometheus");
    }
    is_there
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault_in_the_metrics_of_the_programs() {
    if !is_installed("promtool") {
        return;
    }
    let services = Services::start().await;
    services.work(1).await;
    for admin in &services.admin {
        let metrics = Client::at(admin).get("/metrics").await.expect(200).text();
        let (described, shown): (Vec<_>, Vec<_>) = metrics.lines().partition(|line| line.starts_with('#'));
        assert!(described.len() > 40 && shown.len() > 60, "{metrics}");
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut checking = promtool.spawn().expect("promtool");
        checking.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("read");
        let checked = checking.wait_with_output().expect("promtool");
        let said = [checked.stdout, checked.stderr].concat();
        assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}

/// A panel of a dashboard, and one of its queries.
struct Query {
    at: String,
    expression: String,
}

fn queries() -> Vec<Query> {
    let mut found = Vec::new();
    let dashboards = files("deploy/grafana", "json");
    assert_eq!(dashboards.len(), 3, "{dashboards:?}");
    let mut uids = BTreeSet::new();
    for file in dashboards {
        let dashboard: Value = serde_json::from_str(&read(&file)).expect("JSON");
        assert!(uids.insert(dashboard["uid"].to_string()), "{}: its uid is not its own", file.display());
        for panel in dashboard["panels"].as_array().expect("panels") {
            let at = format!("{}: {}", file.display(), panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}: no description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}: no unit");
            for target in panel["targets"].as_array().expect("queries") {
                assert_eq!(target["datasource"]["uid"], "prometheus", "{at}");
                let expression = target["expr"].as_str().expect("a query").to_owned();
                found.push(Query { at: at.clone(), expression });
            }
        }
    }
    assert!(found.len() > 40);
    found
}

/// A Prometheus that scrapes both services each second.
fn start_prometheus(folder: &Path, admin: &[String; 2]) -> (Client, Leashed) {
    let [users, orders] = admin;
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [{}]\n\
         scrape_configs:\n\
         - {{job_name: users, static_configs: [{{targets: ['{users}']}}]}}\n\
         - {{job_name: orders, static_configs: [{{targets: ['{orders}']}}]}}\n",
        root().join("deploy/prometheus/alerts.yml").display()
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, configuration).expect("written");
    let address = free_address();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).args(["--log.level=error"]);
    (Client::at(address), Leashed::start(&command, Signal::SIGTERM).expect("prometheus runs"))
}

/// How many series answer, whose values are numbers.
async fn series(prometheus: &Client, expression: &str) -> usize {
    let query: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = prometheus.get(format!("/api/v1/query?query={query}")).await.expect(200).json();
    let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    series.iter().filter(|one| one["value"][1].as_str().is_some_and(|value| value != "NaN")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_panel_shows_data_of_the_real_programs() {
    if !is_installed("prometheus") {
        return;
    }
    let services = Services::start().await;
    let folder = TempDir::new().expect("a folder");
    let (prometheus, _running) = start_prometheus(folder.path(), &services.admin);
    until("Prometheus answers", async || prometheus.get("/-/ready").send().await.is_ok_and(|answer| answer.status == 200))
        .await;
    let mut pending = queries();
    let mut round = 0;
    // A rate needs two scrapes between which something has happened.
    let shown = within(Duration::from_secs(90), "each panel shows data", async || {
        round += 1;
        services.work(round).await;
        let mut lacking = Vec::new();
        for query in pending.drain(..) {
            if series(&prometheus, &query.expression).await == 0 {
                lacking.push(query);
            }
        }
        pending = lacking;
        Ok::<_, anyhow::Error>(pending.is_empty())
    })
    .await;
    let lacking: Vec<String> = pending.iter().map(|query| format!("{}: {}", query.at, query.expression)).collect();
    assert!(shown.is_ok() && lacking.is_empty(), "without data:\n{}", lacking.join("\n"));
    assert_eq!(series(&prometheus, "ALERTS").await, 0, "an alert fires while all is well");
}

#[test]
fn each_alert_links_to_what_to_do_about_it() {
    let page = read("docs/operations.md");
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts = rules.matches("- alert: ").count();
    let links: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert!(alerts >= 5 && links.len() == alerts, "{links:?}");
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(|heading| heading.to_lowercase()).collect();
    for link in links {
        let anchor = link.trim_matches('"').rsplit_once('#').expect("an anchor").1;
        assert!(headings.contains(anchor), "{anchor} is no heading of docs/operations.md: {headings:?}");
    }
}
