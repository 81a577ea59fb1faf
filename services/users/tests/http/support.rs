//! What every test begins with.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dev::http::{Answer, Call, Client};
use dev::postgres::{TestDatabase, USERS_ROLE};
use serde_json::{Value, json};
use shared_db::{Database, Settings};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::task::JoinHandle;
use users::open_orders::OpenOrders;
use users::{App, router};

use crate::home;

#[path = "../../../chassis/tests/contract/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod contract;

/// What the service promises of its events. Every event that a test receives is compared with it.
pub static CONTRACT: LazyLock<contract::Contract> =
    LazyLock::new(|| contract::Contract::read(concat!(env!("CARGO_MANIFEST_DIR"), "/contract")));

/// The service, and its database.
pub struct Service {
    pub client: Client,
    pub database: TestDatabase,
}

impl Service {
    /// A new service without users.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, with other settings of its database than the usual.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let database = home::database();
        let mut settings = settings();
        change(&mut settings);
        let client = client(&database.url_as(USERS_ROLE), &settings);
        Self { client, database }
    }

    /// Registers a user of this name.
    pub async fn register(&self, name: &str) -> Value {
        self.client.post("/users").json(&person(name)).await.expect(201).json()
    }

    /// The user as it is now.
    pub async fn get(&self, user: &Value) -> Value {
        self.client.get(path(user)).await.expect(200).json()
    }

    /// All events of a user, oldest first.
    pub async fn history(&self, user: &Value) -> Vec<Value> {
        let page = self.client.get(format!("{}/events?limit=100", path(user))).await.expect(200).json();
        assert_eq!(page["next_cursor"], Value::Null);
        let events = items(&page);
        CONTRACT.check(&events);
        events
    }

    /// The next `count` events of the feed at `link`, and the link to those after them. It waits for them: a transaction
    /// of another test may hold them back for a while, since all databases of a server count the same transactions. Even
    /// the creation of another test's database is one, and a slow disk makes it longer than a poll.
    pub async fn follow(&self, link: &str, count: usize) -> (Vec<Value>, String) {
        let (mut events, mut link) = (Vec::new(), link.to_owned());
        let deadline = Instant::now() + Duration::from_secs(120);
        while events.len() < count {
            assert!(link.contains("wait=30"), "{link} waits");
            let answer = self.client.get(&link).await.expect(200);
            let batch = array(&answer.json());
            assert!(!batch.is_empty() || Instant::now() < deadline, "nothing came after {events:?}");
            // Some tests insert events without a user.
            CONTRACT.check(batch.iter().filter(|event| event["data"]["id"].is_string()));
            events.extend(batch);
            link = next(&answer).expect("the feed goes on");
        }
        assert_eq!(events.len(), count, "{events:?}");
        (events, link)
    }

    /// Runs statements as the owner of the schema.
    pub async fn execute(&self, statements: &str) {
        execute(&mut self.database.owner().await, statements).await;
    }

    /// A number the owner asks for.
    pub async fn number(&self, query: &str) -> i64 {
        number(&mut self.database.owner().await, query).await
    }

    /// Inserts an order of `user`, in `status`.
    pub async fn add_order(&self, user: &Value, status: &str) {
        self.execute(&insert_order(user, status)).await;
    }

    /// Delivers all orders of `user`.
    pub async fn deliver_orders(&self, user: &Value) {
        self.execute(&home::deliver_orders(id(user))).await;
    }

    /// Waits until `count` connections of the service wait for a lock.
    pub async fn until_blocked(&self, count: i64) {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and application_name = 'users' and wait_event_type = 'Lock'";
        self.until(waiting, count).await;
    }

    /// Waits until the owner gets `number` as the answer to `query`.
    pub async fn until(&self, query: &str, number: i64) {
        dev::postgres::until(&mut self.database.owner().await, &format!("select ({query}) = {number}")).await;
    }
}

/// The usual settings, but with patience for a machine that has much else to do.
pub fn settings() -> Settings {
    Settings::new("users", 10).with_patience(Duration::from_secs(40))
}

/// The service on the database at `url`.
pub fn client(url: &str, settings: &Settings) -> Client {
    Client::router(router(app(url, settings)))
}

/// The state of the service on the database at `url`.
pub fn app(url: &str, settings: &Settings) -> App {
    App::new(Database::new(url, settings).expect("a URL"), OpenOrders::local())
}

/// A statement that inserts an order of `user`, in `status`.
pub fn insert_order(user: &Value, status: &str) -> String {
    home::insert_order(id(user), status)
}

/// Runs statements.
#[expect(clippy::disallowed_methods, reason = "the owner's statements: they are not to be checked under the service's role")]
pub async fn execute(connection: &mut PgConnection, statements: &str) {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The first column of the only row.
#[expect(clippy::disallowed_methods, reason = "the owner's statements: they are not to be checked under the service's role")]
pub async fn number(connection: &mut PgConnection, query: &str) -> i64 {
    let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(connection).await;
    row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
}

/// Who registers under this name.
pub fn person(name: &str) -> Value {
    json!({ "email": format!("{name}@example.org"), "name": name })
}

/// Starts a call: it runs while the test goes on.
pub fn start(call: Call) -> JoinHandle<Answer> {
    tokio::spawn(call.into_future())
}

/// Makes all the calls at once.
pub async fn at_once(calls: impl IntoIterator<Item = Call>) -> Vec<Answer> {
    let calls: Vec<_> = calls.into_iter().map(start).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("an answer"));
    }
    answers
}

/// The id of what was answered.
pub fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// The path of a user.
pub fn path(user: &Value) -> String {
    format!("/users/{}", id(user))
}

/// The elements of a JSON array.
pub fn array(value: &Value) -> Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}")).clone()
}

/// The items of a page.
pub fn items(page: &Value) -> Vec<Value> {
    array(&page["items"])
}

/// One field of each.
pub fn each<'a>(values: &'a [Value], field: &str) -> Vec<&'a Value> {
    values.iter().map(|value| &value[field]).collect()
}

/// Where the `Link` header with `rel="next"` leads.
pub fn next(answer: &Answer) -> Option<String> {
    answer.headers.contains_key("link").then(|| {
        let link = answer.header("link");
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        target.unwrap_or_else(|| panic!("{link} is no link to what is next")).to_owned()
    })
}

/// The claim that this is a time in RFC 3339, in UTC.
#[track_caller]
pub fn assert_utc(time: &Value) {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no text"));
    assert!(text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
}
