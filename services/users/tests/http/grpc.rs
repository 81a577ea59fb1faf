//! The gRPC interface, through a port.

use std::net::SocketAddr;
use std::time::Duration;

use dev::postgres::{TestDatabase, USERS_ROLE};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use uuid::Uuid;

use crate::operations::closed_url;
use crate::support::{Service, app, execute, id, settings};
use proto::users_client::UsersClient;
use proto::{BatchGetUsersRequest, GetUserRequest};

#[allow(clippy::all, clippy::doc_markdown, missing_docs, reason = "generated")]
mod proto {
    tonic::include_proto!("users.v1");
}

/// Serves gRPC on the database at `url`, until the test's runtime ends.
async fn serve(url: &str) -> Channel {
    let address = listen(url).await;
    Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("a connection")
}

async fn listen(url: &str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = users::grpc::routes(app(url, &settings())).await;
    tokio::spawn(chassis::grpc::serve(listener, routes, std::future::pending()));
    address
}

async fn start() -> (Service, UsersClient<Channel>) {
    let service = Service::start();
    let channel = serve(&service.database.url_as(USERS_ROLE)).await;
    (service, UsersClient::new(channel))
}

fn get(id: &str) -> GetUserRequest {
    GetUserRequest { id: id.to_owned() }
}

async fn batch(users: &mut UsersClient<Channel>, ids: &[&str]) -> Result<Vec<proto::User>, Code> {
    let request = BatchGetUsersRequest { ids: ids.iter().map(|id| (*id).to_owned()).collect() };
    users.batch_get_users(request).await.map(|answer| answer.into_inner().users).map_err(|status| status.code())
}

/// What gRPC should say of a user whom HTTP shows.
fn as_message(user: &Value) -> proto::User {
    let status = if user["status"] == "active" { proto::Status::Active } else { proto::Status::Deactivated };
    proto::User {
        id: id(user).to_owned(),
        name: user["name"].as_str().expect("a name").to_owned(),
        status: status.into(),
        version: user["version"].as_i64().expect("a version"),
    }
}

#[tokio::test]
async fn a_user_is_what_http_says_of_it() {
    let (service, mut users) = start().await;
    let ada = service.register("Ada").await;
    assert_eq!(users.get_user(get(id(&ada))).await.expect("Ada").into_inner(), as_message(&ada));

    service.client.delete(format!("/users/{}", id(&ada))).await.expect(204);
    let ada = service.client.get(format!("/users/{}", id(&ada))).await.expect(200).json();
    let answer = users.get_user(get(&id(&ada).to_uppercase())).await.expect("Ada").into_inner();
    assert_eq!((answer.status(), answer.version), (proto::Status::Deactivated, 2));
    assert_eq!(answer, as_message(&ada));
}

#[tokio::test]
async fn a_batch_gives_those_that_exist_once() {
    let (service, mut users) = start().await;
    let ada = service.register("Ada").await;
    let eve = service.register("Eve").await;
    let stranger = Uuid::now_v7().to_string();
    let mut found = batch(&mut users, &[id(&ada), &stranger, id(&eve), id(&ada)]).await.expect("users");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(found, [as_message(&ada), as_message(&eve)]);
    assert_eq!(batch(&mut users, &[]).await, Ok(Vec::new()));
    assert_eq!(batch(&mut users, &[&*stranger; 100]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn what_cannot_be_answered_has_the_code_that_says_why() {
    let (_service, mut users) = start().await;
    let code = async |id: &str| users.clone().get_user(get(id)).await.expect_err("no user").code();
    assert_eq!(code(&Uuid::now_v7().to_string()).await, Code::NotFound);
    for not_an_id in ["", "ada", "0198c0de-0000-7000-8000-00000000000", "\0"] {
        assert_eq!(code(not_an_id).await, Code::InvalidArgument, "{not_an_id:?}");
    }
    let stranger = Uuid::now_v7().to_string();
    assert_eq!(batch(&mut users, &[&stranger, "ada"]).await, Err(Code::InvalidArgument));
    assert_eq!(batch(&mut users, &[&*stranger; 101]).await, Err(Code::InvalidArgument));

    let mut away = UsersClient::new(serve(&closed_url()).await);
    let status = away.get_user(get(&stranger)).await.expect_err("no database");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the database cannot be used now"));
}

#[tokio::test]
async fn every_answer_carries_the_requests_id() {
    let (service, mut users) = start().await;
    let ada = service.register("Ada").await;
    let mut request = Request::new(get(id(&ada)));
    request.metadata_mut().insert("x-request-id", "mine-1".parse().expect("ASCII"));
    let answer = users.get_user(request).await.expect("Ada");
    assert_eq!(answer.metadata().get("x-request-id").expect("an id"), "mine-1");
    let status = users.get_user(get("nobody")).await.expect_err("no id");
    status.metadata().get("x-request-id").expect("an id").to_str().expect("text").parse::<Uuid>().expect("a new one");
}

#[tokio::test]
async fn its_health_is_that_of_its_database() {
    let service = Service::start();
    let until = async |url: &str, status: ServingStatus| {
        let mut health = HealthClient::new(serve(url).await);
        let request = HealthCheckRequest { service: "users.v1.Users".to_owned() };
        let mut news = health.watch(request).await.expect("a stream").into_inner();
        while news.message().await.expect("news").expect("more").status() != status {}
    };
    until(&service.database.url_as(USERS_ROLE), ServingStatus::Serving).await;
    until(&TestDatabase::empty().url_as(USERS_ROLE), ServingStatus::NotServing).await;
}

/// Probes of balancers ask without a name.
#[tokio::test]
async fn the_health_of_the_whole_server_is_that_of_its_service() {
    let service = Service::start();
    let ask = async |url: &str, name: &str| {
        let mut health = HealthClient::new(serve(url).await);
        let checked = health.check(HealthCheckRequest { service: name.to_owned() }).await;
        let watch = health.watch(HealthCheckRequest { service: name.to_owned() }).await;
        let mut news = watch.expect("a stream").into_inner();
        let mut last = news.message().await.expect("news").expect("more").status();
        // The first status may be the one before the first check.
        if checked.as_ref().is_ok_and(|checked| checked.get_ref().status() != last) {
            last = news.message().await.expect("news").expect("more").status();
        }
        (checked.map(|answer| answer.into_inner().status()).map_err(|status| status.code()), last)
    };
    let (here, away) = (service.database.url_as(USERS_ROLE), closed_url());
    for name in ["", "users.v1.Users"] {
        assert_eq!(ask(&here, name).await, (Ok(ServingStatus::Serving), ServingStatus::Serving), "{name:?}");
        assert_eq!(ask(&away, name).await, (Ok(ServingStatus::NotServing), ServingStatus::NotServing), "{name:?}");
    }
    let unknown = ask(&here, "users.v1.Unknown").await;
    assert_eq!(unknown, (Err(Code::NotFound), ServingStatus::ServiceUnknown));
}

#[tokio::test]
async fn watchers_hear_that_the_server_stops_and_do_not_hold_it_up() {
    let service = Service::start();
    let app = app(&service.database.url_as(USERS_ROLE), &settings());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (signal, signalled) = tokio::sync::oneshot::channel::<()>();
    let stop = app.health.stopping(async move { drop(signalled.await) }, Duration::from_millis(300));
    let server = tokio::spawn(chassis::grpc::serve(listener, users::grpc::routes(app.clone()).await, stop));
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("a connection");
    let mut health = HealthClient::new(channel.clone());
    let mut watches = Vec::new();
    for name in ["", "users.v1.Users"] {
        let request = HealthCheckRequest { service: name.to_owned() };
        let mut news = health.watch(request).await.expect("a stream").into_inner();
        while news.message().await.expect("news").expect("more").status() != ServingStatus::Serving {}
        watches.push(news);
    }
    // A stream that its client keeps open.
    let endless = futures_util::stream::pending::<ServerReflectionRequest>();
    let _reflection = ServerReflectionClient::new(channel).server_reflection_info(endless).await.expect("a stream");

    signal.send(()).expect("the server listens");
    for mut news in watches {
        assert_eq!(news.message().await.expect("news").expect("more").status(), ServingStatus::NotServing);
        assert!(news.message().await.is_ok_and(|more| more.is_none()), "the stream ends");
    }
    app.health.check().await.expect_err("not ready any more");
    let stopped = tokio::time::timeout(Duration::from_secs(15), server).await;
    stopped.expect("it does not wait for streams").expect("joined").expect("stopped");
}

/// The status of a call with this `grpc-timeout`, by a client that has no clock.
async fn call_within(address: SocketAddr, message: &[u8], timeout: &str) -> String {
    let tcp = TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = axum::http::Request::post(format!("http://{address}/users.v1.Users/GetUser"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout);
    let (answer, mut body) = client.send_request(request.body(()).expect("a request"), false).expect("sent");
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    // The server may have answered already.
    let _ = body.send_data([&[0], &length[..], message].concat().into(), true);
    let answer = answer.await.expect("an answer");
    answer.headers()["grpc-status"].to_str().expect("a status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_work() {
    let service = Service::start();
    let ada = service.register("Ada").await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "begin; lock table users in access exclusive mode").await;
    let address = listen(&service.database.url_as(USERS_ROLE)).await;
    let message = [b"\n\x24", id(&ada).as_bytes()].concat();
    for (timeout, least) in [("300m", 290), ("1u", 0)] {
        let begun = std::time::Instant::now();
        let status = call_within(address, &message, timeout).await;
        assert_eq!(status, (Code::DeadlineExceeded as i32).to_string(), "{timeout}");
        // The statement itself may wait for 40 s.
        let took = begun.elapsed().as_millis();
        assert!((least..20_000).contains(&took), "{timeout}: {took} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_send_no_message_take_nobodys_place() {
    let service = Service::start();
    let ada = service.register("Ada").await;
    let address = listen(&service.database.url_as(USERS_ROLE)).await;
    let call = |timeout| {
        let request = axum::http::Request::post(format!("http://{address}/users.v1.Users/GetUser"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout);
        request.body(()).expect("a request")
    };
    let mut kept = Vec::new();
    for _ in 0..41 {
        let tcp = TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
        tokio::spawn(connection);
        for _ in 0..250 {
            client = client.ready().await.expect("a free stream");
            kept.push(client.send_request(call("40S"), false).expect("sent"));
        }
        kept.push(client.ready().await.expect("a free stream").send_request(call("20m"), false).expect("sent"));
    }
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("a connection");
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("healthy");
    UsersClient::new(channel).get_user(get(id(&ada))).await.expect("Ada");
    // Only the methods that there are, once they have begun, are labels.
    let counted = "rpc_method=\"_OTHER\",rpc_response_status_code=\"DeadlineExceeded\"";
    dev::wait::until(counted, async || service.client.get("/metrics").await.text().contains(counted)).await;
    drop(kept);
}

#[tokio::test]
async fn a_message_above_the_limit_exhausts_it() {
    let (_service, mut users) = start().await;
    let status = users.get_user(get(&"x".repeat(65 * 1024))).await.expect_err("64 KiB at most");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let ids = vec![Uuid::now_v7().to_string(); 3000];
    let status = users.batch_get_users(proto::BatchGetUsersRequest { ids }).await.expect_err("64 KiB at most");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn the_older_reflection_tells_its_services_too() {
    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    let service = Service::start();
    let mut reflection = ServerReflectionClient::new(serve(&service.database.url_as(USERS_ROLE)).await);
    let request = MessageRequest::FileContainingSymbol("users.v1.Users.GetUser".to_owned());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let answers = reflection.server_reflection_info(futures_util::stream::iter([request])).await.expect("a stream");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one");
    assert!(format!("{answer:?}").contains("FileDescriptorResponse"), "{answer:?}");
}

#[tokio::test]
async fn reflection_tells_its_services() {
    let service = Service::start();
    let mut reflection = ServerReflectionClient::new(serve(&service.database.url_as(USERS_ROLE)).await);
    let request = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let answers = reflection.server_reflection_info(futures_util::stream::iter([request])).await.expect("a stream");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"users.v1.Users") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
