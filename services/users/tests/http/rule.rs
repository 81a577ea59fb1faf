//! The rule that spans both services: no open order for a user who is not active. In the shared database it is exact.

use serde_json::json;

use crate::support::{Service, execute, insert_order, path, person, start};

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

/// The rule and the unique index, without names.
const NAMELESS: &str = "
    do $$
    declare
        rule oid;
    begin
        for rule in select oid from pg_proc where proname = 'users_refuse_open_orders' loop
            execute regexp_replace(pg_get_functiondef(rule), ', schema = [^;]*;', ';', 'g');
        end loop;
    end $$;
    drop index users_email_key;
    create function refuse_doubles() returns trigger language plpgsql security definer as $$
    begin
        if exists (select from public.users where email = new.email and id <> new.id) then
            raise exception 'a double' using errcode = '23505';
        end if;
        return new;
    end $$;
    create trigger refuse_doubles before insert or update on users for each row execute function refuse_doubles()";

/// An engine of several nodes hands on no names of constraints. Then the SQLSTATE says which rule refused.
#[tokio::test(flavor = "multi_thread")]
async fn each_rule_is_recognised_without_the_name_of_its_constraint() {
    let service = Service::start();
    service.execute(NAMELESS).await;
    let user = service.register("ada").await;
    service.client.post("/users").json(&person("ada")).await.problem(409, "email-taken");
    let other = service.register("eve").await;
    service.client.patch(path(&other)).json(&json!({ "email": user["email"] })).await.problem(409, "email-taken");

    let mut orders = service.database.owner().await;
    execute(&mut orders, &format!("begin; {}", insert_order(&user, "placed"))).await;
    let deactivation = start(service.client.delete(path(&user)));
    service.until_blocked(1).await;
    execute(&mut orders, "commit").await;
    deactivation.await.expect("an answer").problem(409, "open-orders");
}
