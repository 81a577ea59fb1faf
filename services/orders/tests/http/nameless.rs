//! An engine of several nodes hands on no names of constraints. Then the SQLSTATE says which rule refused.

use serde_json::Value;
use uuid::Uuid;

use crate::support::{Service, id};

/// The service's rules and the foreign key, without names.
const NAMELESS: &str = "
    do $$
    declare
        rule oid;
    begin
        for rule in select oid from pg_proc where proname = 'orders_refuse_inactive_user' loop
            execute regexp_replace(pg_get_functiondef(rule), ', schema = [^;]*;', ';', 'g');
        end loop;
    end $$;
    alter table orders drop constraint orders_user_id_fkey;
    create function refuse_strangers() returns trigger language plpgsql security definer as $$
    begin
        if not exists (select from public.users where id = new.user_id) then
            raise exception 'a stranger' using errcode = '23503';
        end if;
        return new;
    end $$;
    create trigger refuse_strangers before insert on orders for each row execute function refuse_strangers()";

#[tokio::test]
async fn each_rule_is_recognised_without_the_name_of_its_constraint() {
    let service = Service::start().await;
    service.execute(NAMELESS).await;
    let place = async |user: Uuid| service.client.post("/orders").json(&service.order_of(user)).await;
    place(Uuid::now_v7()).await.problem(422, "unknown-user");

    // Where a replica is behind the view, it does not know the user yet.
    service.execute("delete from customers_replica").await;
    let placed: Value = place(service.user).await.expect(201).json();
    assert_eq!(placed["customer"]["name"], "Ada");

    service.step(id(&placed), "cancel").await;
    service.set_user_status(service.user, "deactivated").await;
    place(service.user).await.problem(409, "user-deactivated");
}
