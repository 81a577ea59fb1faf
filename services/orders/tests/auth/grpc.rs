//! Tokens in the metadata of gRPC.

use chassis::auth::Auth;
use dev::issuer::SigningKey;
use dev::postgres::{TestDatabase, USERS_ROLE};
use serde_json::json;
use shared_db::Database;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use users::open_orders::OpenOrders;

use crate::support::{ANY, AUDIENCE, KeysFile, OWN, claims, id, open_at, settings};
use proto::users_client::UsersClient;
use proto::{BatchGetUsersRequest, GetUserRequest};

#[allow(clippy::all, clippy::doc_markdown, missing_docs, reason = "generated")]
mod proto {
    tonic::include_proto!("users.v1");
}

/// users, by gRPC and by HTTP.
async fn start(auth: Auth) -> (Channel, dev::http::Client, TestDatabase) {
    let database = TestDatabase::create();
    let opened = Database::new(&database.url_as(USERS_ROLE), &settings("users")).expect("a URL");
    let app = users::App::new(opened, OpenOrders::local()).for_callers(auth);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = users::grpc::routes(app.clone()).await;
    tokio::spawn(chassis::grpc::serve(listener, routes, std::future::pending()));
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("a connection");
    (channel, dev::http::Client::router(users::router(app)), database)
}

fn bearing<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
    }
    request
}

async fn find(channel: &Channel, id: &str, token: &str) -> Result<String, Status> {
    let request = bearing(GetUserRequest { id: id.to_owned() }, token);
    UsersClient::new(channel.clone()).get_user(request).await.map(|user| user.into_inner().id)
}

async fn find_all(channel: &Channel, ids: &[&str], token: &str) -> Result<Vec<String>, Status> {
    let request = bearing(BatchGetUsersRequest { ids: ids.iter().map(|id| (*id).to_owned()).collect() }, token);
    let answer = UsersClient::new(channel.clone()).batch_get_users(request).await?;
    Ok(answer.into_inner().users.into_iter().map(|user| user.id).collect())
}

#[tokio::test]
async fn a_call_needs_the_same_tokens_as_http() {
    let key = SigningKey::rs256("one");
    let (channel, http, _database) = start(KeysFile::new(&[&key]).auth().await).await;
    let admin = key.token(&claims("admin", ANY));
    let mut ids = Vec::new();
    for name in ["ada", "eve"] {
        let body = json!({ "email": format!("{name}@example.org"), "name": name });
        ids.push(id(&http.bearing(&admin).post("/users").json(&body).await.expect(201).json()));
    }
    let [ada, eve] = [&*ids[0], &*ids[1]];
    for (token, code) in [
        (String::new(), Code::Unauthenticated),
        ("nonsense".to_owned(), Code::Unauthenticated),
        (SigningKey::eddsa("one").token(&claims("admin", ANY)), Code::Unauthenticated),
        (key.token(&claims(ada, "orders:read:any")), Code::PermissionDenied),
        (key.token(&claims("a service", OWN)), Code::PermissionDenied),
    ] {
        assert_eq!(find(&channel, ada, &token).await.expect_err("refused").code(), code);
        assert_eq!(find_all(&channel, &[ada], &token).await.expect_err("refused").code(), code);
    }
    let own = key.token(&claims(ada, OWN));
    assert_eq!(find(&channel, ada, &own).await.expect("oneself"), ada);
    assert_eq!(find(&channel, eve, &own).await.expect_err("hidden").code(), Code::NotFound);
    assert_eq!(find_all(&channel, &[ada, eve], &own).await.expect("oneself"), [ada]);
    assert_eq!(find(&channel, eve, &admin).await.expect("everybody"), eve);
    assert_eq!(find_all(&channel, &[ada, eve], &admin).await.expect("everybody").len(), 2);
}

async fn reflects(channel: &Channel, token: &str) -> Result<(), Code> {
    let request = bearing(futures_util::stream::iter([ServerReflectionRequest::default()]), token);
    let answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(request).await;
    answers.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn health_needs_no_token_and_reflection_none_on_loopback() {
    let key = SigningKey::eddsa("one");
    let file = KeysFile::new(&[&key]);
    let health = async |channel: &Channel| {
        let service = "users.v1.Users".to_owned();
        HealthClient::new(channel.clone()).check(HealthCheckRequest { service }).await.expect("an answer");
    };
    let (channel, _http, _database) = start(file.auth().await).await;
    health(&channel).await;
    assert_eq!(reflects(&channel, "").await, Ok(()));

    let path = file.path.to_str().expect("text");
    let options = [("auth", "jwt"), ("auth-jwks-file", path), ("auth-audience", AUDIENCE)];
    let (channel, _http, _database) = start(open_at("0.0.0.0:8080", &options).await.expect("keys")).await;
    health(&channel).await;
    assert_eq!(reflects(&channel, "").await, Err(Code::Unauthenticated));
    assert_eq!(reflects(&channel, &key.token(&claims("anybody", ""))).await, Ok(()));
}
