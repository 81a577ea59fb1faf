//! The rule that spans both services: no open order for a user who is not active. In the shared database it is exact.

use crate::support::{Service, execute, insert_order, path, start};

/// The service's own look at the open orders cannot see an order that is still being placed: the trigger does.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_being_placed_at_this_moment_counts_as_open() {
    let service = Service::start();
    for (end, status) in [("commit", 409), ("rollback", 204)] {
        let user = service.register(end).await;
        let mut orders = service.database.owner().await;
        execute(&mut orders, &format!("begin; {}", insert_order(&user, "placed"))).await;
        let deactivation = start(service.client.delete(path(&user)));
        service.until_blocked(1).await;
        execute(&mut orders, end).await;
        let answer = deactivation.await.expect("an answer").expect(status);
        if status == 409 {
            answer.problem(409, "open-orders");
            assert_eq!(service.get(&user).await, user);
        }
    }
}
