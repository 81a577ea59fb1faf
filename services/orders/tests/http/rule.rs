//! The rule that spans both services: no open order for a user who is not active. Users acts by the SQL it uses.

use dev::http::Answer;
use dev::postgres::{USERS_ROLE, connect};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Service, at_once, execute, id, try_execute, value};

/// Deactivates a user as the users service does: whether it was done, or refused for open orders.
async fn deactivate(users: &mut PgConnection, user: Uuid) -> bool {
    let deactivated = "status = 'deactivated', version = version + 1";
    let statement = format!("update users set {deactivated} where id = '{user}' and status = 'active'");
    match try_execute(users, &statement).await {
        Ok(changed) => {
            assert_eq!(changed, 1);
            true
        }
        Err(error) => {
            let constraint = error.as_database_error().and_then(|error| error.constraint());
            assert_eq!(constraint, Some("users_no_open_orders"), "{error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_an_order_and_a_deactivation_at_once_one_is_refused() {
    const ROUNDS: usize = 100;
    let service = Service::start().await;
    let mut users = connect(&service.database.url_as(USERS_ROLE)).await.expect("the users service's role");
    let ids: Vec<Uuid> = (0..ROUNDS).map(|_| Uuid::now_v7()).collect();
    let rows: Vec<_> = ids.iter().map(|id| format!("('{id}', '{id}', 'Eve', 'active', now(), now(), 1)")).collect();
    execute(&mut users, &format!("insert into users values {}", rows.join(", "))).await;
    for (round, user) in ids.into_iter().enumerate() {
        // One order, or several that hold the user's row together.
        let calls = (0..1 + round % 3).map(|_| service.client.post("/orders").json(&service.order_of(user)));
        let orders = tokio::spawn(at_once(calls.collect::<Vec<_>>()));
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        let deactivated = deactivate(&mut users, user).await;
        let answers = orders.await.expect("answers");
        let placed = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(deactivated, placed == 0, "round {round}: {:?}", answers.iter().map(Answer::text).collect::<Vec<_>>());
        for refused in answers.into_iter().filter(|answer| answer.status != 201) {
            refused.problem(409, "user-deactivated");
        }
    }
    let broken: i64 = value(
        &mut service.database.owner().await,
        "select count(*) from orders join users on users.id = user_id
         where users.status <> 'active' and orders.status in ('placed', 'paid', 'shipped')",
    )
    .await;
    assert_eq!(broken, 0);
}

/// The order waits for the deactivation's end, and then sees what came of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_a_deactivation_that_is_under_way() {
    let service = Service::start().await;
    let mut users = connect(&service.database.url_as(USERS_ROLE)).await.expect("the users service's role");
    for commit in [false, true] {
        let mut transaction = users.begin().await.expect("a transaction");
        assert!(deactivate(&mut transaction, service.user).await);
        let order = tokio::spawn(service.client.post("/orders").json(&service.order()).into_future());
        service.until_blocked("orders", &order).await;
        if commit {
            transaction.commit().await.expect("committed");
            order.await.expect("an answer").problem(409, "user-deactivated");
        } else {
            transaction.rollback().await.expect("rolled back");
            let placed = order.await.expect("an answer").expect(201).json();
            assert!(!deactivate(&mut users, service.user).await);
            service.step(id(&placed), "cancel").await;
        }
    }
}

#[tokio::test]
async fn a_user_cannot_be_deactivated_while_an_order_is_open() {
    let service = Service::start().await;
    let mut users = connect(&service.database.url_as(USERS_ROLE)).await.expect("the users service's role");
    let order = service.place().await;
    for step in ["pay", "ship", "deliver"] {
        assert!(!deactivate(&mut users, service.user).await, "before {step}");
        service.step(id(&order), step).await;
    }
    let cancelled = service.place_and(&["pay"]).await;
    assert!(!deactivate(&mut users, service.user).await);
    service.step(id(&cancelled), "cancel").await;
    assert!(deactivate(&mut users, service.user).await);
    assert_eq!(service.read(id(&order)).await["customer"]["status"], "deactivated");
    // What is over is read and refused as ever.
    service.client.post(format!("/orders/{}/pay", id(&order))).await.problem(409, "invalid-transition");
}
