//! Events by RabbitMQ, from the log of one service into the tables of the other, with the real program of orders.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

#[path = "by_broker/mod.rs"]
mod by_broker;
#[path = "http/dial.rs"]
mod dial;
mod killed;
#[expect(dead_code, reason = "shared with the suite of the move, which uses all of it")]
#[path = "../../../shared-db/tests/moves/mod.rs"]
mod moves;
#[expect(dead_code, reason = "shared with the suites through HTTP, which use all of it")]
#[path = "http/support.rs"]
mod support;

use broker::rabbitmq;
use chassis::events::{RabbitmqSettings, RabbitmqUrl};
use dev::rabbitmq::Server;

fn client(server: &Server) -> rabbitmq::Server {
    let url = RabbitmqUrl::Text(server.url());
    let settings = RabbitmqSettings { url, ca_file: None, max_age: None, max_bytes: None };
    rabbitmq::Server::new(settings).expect("a URL")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice() {
    let server = Server::start().expect("RabbitMQ runs");
    let variables = [("EVENTS_VIA", "rabbitmq".to_owned()), ("RABBITMQ_URL", server.url())];
    let broker = client(&server);
    by_broker::killed_at_any_point_relay_and_consumer_lose_nothing_and_do_nothing_twice(broker, &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_while_the_tables_move_to_and_fro_all_arrives_in_order() {
    let server = Server::start().expect("RabbitMQ runs");
    by_broker::what_is_announced_while_the_tables_move_to_and_fro_all_arrives_in_order(client(&server)).await;
}
