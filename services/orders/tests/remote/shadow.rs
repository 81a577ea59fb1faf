//! `CUSTOMERS_SHADOW`: compared beside the requests, without a trace in them.

use chassis::remote::Limits;
use dev::http::Client;
use dev::postgres::ORDERS_ROLE;
use dev::wait::until;
use orders::customers::Customers;
use orders::{App, router};
use shared_db::Database;

use crate::fake_users::{FakeUsers, Mode};
use crate::support::{Service, id, settings};

/// How many comparisons came to this outcome. Metrics belong to the process, so one test has to do all of this.
async fn count(client: &Client, outcome: &str) -> u64 {
    let metrics = client.get("/metrics").await.expect(200).text();
    let series = format!("customers_shadow_total{{outcome=\"{outcome}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse().expect("a number"));
    value.unwrap_or(0)
}

async fn until_counted(client: &Client, outcome: &str, more_than: u64) {
    until(format!("{outcome} is counted"), async || count(client, outcome).await > more_than).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_compared_and_never_changes_an_answer() {
    let (mut service, users) = (Service::start().await, FakeUsers::start().await);
    let database = Database::new(&service.database.url_as(ORDERS_ROLE), &settings(10)).expect("a URL");
    let customers = Customers::local(users.port(Limits::default())).shadowed_by(users.port(Limits::default()));
    service.client = Client::router(router(App::new(database, customers)));
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));

    let plain = service.client.get(&path).await.expect(200).json();
    until_counted(&service.client, "equal", 0).await;
    assert_eq!(count(&service.client, "mismatch").await, 0);

    // The same version under another name: one of the two is wrong.
    service.execute(&format!("update users set name = 'Lovelace' where id = '{}'", service.user)).await;
    assert_eq!(service.client.get(&path).await.expect(200).json()["customer"]["name"], "Lovelace");
    until_counted(&service.client, "mismatch", 0).await;
    service.execute(&format!("update users set name = 'Ada' where id = '{}'", service.user)).await;

    // However badly the shadow does, the answers are what they were; and no more than a few wait for it.
    for mode in [Mode::Fails, Mode::Hangs, Mode::Babbles] {
        users.now(mode);
        let errors = count(&service.client, "error").await;
        for _ in 0..20 {
            assert_eq!(service.client.get(&path).await.expect(200).json(), plain);
        }
        until_counted(&service.client, "error", errors).await;
    }
    assert!(count(&service.client, "left-out").await > 0, "all of them waited");
}
