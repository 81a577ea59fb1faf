//! A gateway that answers in the place of users: that is an answer of nobody.

use chassis::remote::breaker::FAILURES;
use dev::http::Client;
use dev::postgres::ORDERS_ROLE;
use orders::customers::Customers;
use orders::{App, router};
use serde_json::Value;
use shared_db::Database;

use crate::dial::PATIENT;
use crate::fake_users::{FakeUsers, GatewayProblem, Mode};
use crate::support::{Service, id, settings};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_answers_is_never_an_unknown_user() {
    let service = Service::start().await;
    let order = service.place().await;
    let pages = [200, 302, 400, 403, 404, 410].map(|status| (status, Mode::Gateway(status)));
    let problems = |problem| [400, 403, 404, 410].map(|status| (status, Mode::Refuses(status, problem)));
    for (status, mode) in
        pages.into_iter().chain(problems(GatewayProblem::OfAnotherRequest)).chain(problems(GatewayProblem::Untyped))
    {
        let users = FakeUsers::start().await;
        users.now(mode);
        let database = Database::new(&service.database.url_as(ORDERS_ROLE), &settings(10)).expect("a URL");
        let client = Client::router(router(App::new(database, Customers::remote(users.port(PATIENT)))));
        for _ in 0..FAILURES {
            let placed = client.post("/orders").json(&service.order()).await;
            assert_eq!(placed.header("retry-after"), "1", "{status}");
            placed.problem(503, "");
            let read = client.get(format!("/orders/{}", id(&order))).await.expect(200).json();
            assert_eq!((&read["customer"], &read["customer_unavailable"]), (&Value::Null, &Value::Bool(true)), "{status}");
        }
        let ready = client.get("/health/ready").await.expect(200).json();
        assert_ne!(ready["circuit_breakers"]["users"], "closed", "{status}");
    }
    assert_eq!(service.rows().await[0], 1);
}
