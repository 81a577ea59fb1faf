//! `PATCH`, `DELETE` and reactivation of a user.

use dev::http::Answer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, assert_utc, at_once, each, path, person};

impl Service {
    async fn patch(&self, user: &Value, changes: Value) -> Answer {
        self.client.patch(path(user)).json(&changes).await
    }

    async fn deactivate(&self, user: &Value) -> Answer {
        self.client.delete(path(user)).await
    }

    async fn reactivate(&self, user: &Value) -> Answer {
        self.client.post(format!("{}/reactivate", path(user))).await
    }

    /// The types of a user's events, oldest first.
    async fn story(&self, user: &Value) -> Vec<String> {
        let history = self.history(user).await;
        each(&history, "type").into_iter().map(|kind| kind.as_str().expect("a type").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let service = Service::start();
    let user = service.register("ada").await;
    let mut expected = user.clone();
    let steps = [
        ("application/merge-patch+json", json!({ "name": " Ada L. " }), json!({ "name": "Ada L." })),
        ("application/json", json!({ "email": "ada@example.com" }), json!({ "email": "ada@example.com" })),
        (
            "Application/Merge-Patch+JSON; charset=utf-8",
            json!({ "email": "a@b", "name": "A" }),
            json!({ "email": "a@b", "name": "A" }),
        ),
    ];
    for (number, (media_type, changes, changed)) in steps.into_iter().enumerate() {
        let answer = service.client.patch(path(&user)).body(media_type, changes.to_string()).await.expect(200);
        let now = answer.json();
        for (field, value) in changed.as_object().expect("an object") {
            expected[field] = value.clone();
        }
        expected["version"] = json!(number + 2);
        assert_utc(&now["updated_at"]);
        assert!(now["updated_at"].as_str() >= expected["updated_at"].as_str(), "{now}");
        expected["updated_at"] = now["updated_at"].clone();
        assert_eq!(now, expected);
        assert_eq!(answer.header("etag"), format!("\"{}\"", number + 2));
        assert_eq!(service.get(&user).await, expected);
    }
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_the_version_and_tells_nobody() {
    let service = Service::start();
    let user = service.register("ada").await;
    for nothing in [json!({}), json!({ "name": "ada" }), json!({ "name": "  ada ", "email": "ada@example.org" })] {
        let answer = service.patch(&user, nothing).await.expect(200);
        assert_eq!((answer.header("etag"), answer.json()), ("\"1\"", user.clone()));
    }
    assert_eq!(service.story(&user).await, ["user.registered.v1"]);
}

#[tokio::test]
async fn a_patch_is_checked_like_a_registration() {
    let service = Service::start();
    let user = service.register("ada").await;
    let invalid: [(&str, &[&str]); 9] = [
        // A merge patch takes a field away with null, but no user is without these.
        (r#"{"email":null}"#, &["/email"]),
        (r#"{"name":null,"email":null}"#, &["/email", "/name"]),
        (r#"{"name":"  ","email":"nobody"}"#, &["/email", "/name"]),
        (r#"{"name":"A\u0000"}"#, &["/name"]),
        (r#"{"name":"Ada","name":"Bob"}"#, &["/name"]),
        (r#"{"status":"deactivated"}"#, &["/status"]),
        (r#"{"id":"x"}"#, &["/id"]),
        ("[]", &[""]),
        ("null", &[""]),
    ];
    for (body, pointers) in invalid {
        for media_type in ["application/merge-patch+json", "application/json"] {
            let faults = service.client.patch(path(&user)).body(media_type, body).await.pointers();
            assert_eq!(faults, pointers, "{body}");
        }
    }
    service.client.patch(path(&user)).body("application/json", "{").await.problem(400, "");
    assert_eq!(service.get(&user).await, user);
}

#[tokio::test]
async fn an_email_of_another_user_cannot_be_taken_over() {
    let service = Service::start();
    let (ada, bob) = (service.register("ada").await, service.register("bob").await);
    service.patch(&bob, json!({ "email": "ADA@example.org" })).await.problem(409, "email-taken");
    assert_eq!(service.get(&bob).await, bob);
    assert_eq!(service.story(&bob).await, ["user.registered.v1"]);
    // One's own is no other's.
    let ada = service.patch(&ada, json!({ "email": "Ada@Example.org" })).await.expect(200).json();
    assert_eq!((&ada["email"], &ada["version"]), (&json!("Ada@Example.org"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_change_to_one_email_at_once_one_gets_it() {
    let service = Service::start();
    let mut users = Vec::new();
    for number in 0..12 {
        users.push(service.register(&format!("user{number}")).await);
    }
    let change = json!({ "email": "wanted@example.org" });
    let answers = at_once(users.iter().map(|user| service.client.patch(path(user)).json(&change))).await;
    let (changed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((changed.len(), refused.len()), (1, 11));
    for answer in refused {
        answer.problem(409, "email-taken");
    }
}

#[tokio::test]
async fn a_command_with_if_match_is_done_on_that_version_only() {
    let service = Service::start();
    let user = service.register("ada").await;
    for other in ["\"2\"", "W/\"1\"", "1", "\"11\"", "\"0\", \"2\"", "\"\"", "", "\"*\""] {
        let calls = [
            service.client.patch(path(&user)).json(&json!({ "name": "Ada" })),
            service.client.patch(path(&user)).json(&json!({})),
            service.client.delete(path(&user)),
            service.client.post(format!("{}/reactivate", path(&user))),
        ];
        for call in calls {
            call.header("if-match", other).await.problem(412, "");
        }
    }
    assert_eq!(service.get(&user).await, user);

    let patch = |number: i32| service.client.patch(path(&user)).json(&json!({ "name": number.to_string() }));
    patch(1).header("if-match", "\"1\"").await.expect(200);
    patch(2).header("if-match", "*").await.expect(200);
    patch(3).header("if-match", "\"1\", \"3\"").await.expect(200);
    patch(4).header("if-match", "\"1\"").header("if-match", "\"4\"").await.expect(200);
    service.client.delete(path(&user)).header("if-match", "\"5\"").await.expect(204);
    // Also where there would be nothing to do.
    service.client.delete(path(&user)).header("if-match", "\"5\"").await.problem(412, "");
    let back = service.client.post(format!("{}/reactivate", path(&user))).header("if-match", "\"6\"").await.expect(200);
    assert_eq!(back.header("etag"), "\"7\"");
}

/// The tag of an order, `"<order version>-<customer version>"`, may begin like that of a user.
#[tokio::test]
async fn the_tag_of_an_order_is_none_of_a_user() {
    let service = Service::start();
    let user = service.register("ada").await;
    let patch = service.client.patch(path(&user)).json(&json!({ "name": "Ada" }));
    patch.header("if-match", "\"1-1\"").await.problem(412, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_to_one_version_one_is_done() {
    let service = Service::start();
    let user = service.register("ada").await;
    let answers = at_once((0..16).map(|number| {
        let patch = service.client.patch(path(&user)).json(&json!({ "name": number.to_string() }));
        patch.header("if-match", "\"1\"")
    }))
    .await;
    let (changed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((changed.len(), refused.len()), (1, 15));
    for answer in refused {
        answer.problem(412, "");
    }
    assert_eq!(service.get(&user).await, changed[0].json());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_are_all_done_one_after_the_other() {
    let service = Service::start();
    let user = service.register("ada").await;
    let answers =
        at_once((0..30).map(|number| service.client.patch(path(&user)).json(&json!({ "name": number.to_string() })))).await;
    let mut answered: Vec<_> = answers.into_iter().map(|answer| answer.expect(200).json()).collect();
    answered.sort_by_key(|user| user["version"].as_i64());
    let versions: Vec<_> = (2..=31).map(Value::from).collect();
    assert_eq!(each(&answered, "version"), versions.iter().collect::<Vec<_>>(), "one for each, and no gap");

    // The history tells the same as the answers, change by change.
    let history = service.history(&user).await;
    let told: Vec<_> = history[1..].iter().map(|event| event["data"].clone()).collect();
    assert_eq!(told, answered);
    assert_eq!(service.get(&user).await, answered[29]);
}

#[tokio::test]
async fn a_user_is_deactivated_and_reactivated_any_number_of_times() {
    let service = Service::start();
    let user = service.register("ada").await;
    assert_eq!(service.reactivate(&user).await.expect(200).json(), user, "active already");
    for _ in 0..2 {
        assert_eq!(service.deactivate(&user).await.expect(204).body.len(), 0);
    }
    let gone = service.get(&user).await;
    assert_eq!((&gone["status"], &gone["version"]), (&json!("deactivated"), &json!(2)));
    assert_eq!((&gone["name"], &gone["email"], &gone["created_at"]), (&user["name"], &user["email"], &user["created_at"]));
    for _ in 0..2 {
        let answer = service.reactivate(&user).await.expect(200);
        let back = answer.json();
        assert_eq!((&back["status"], &back["version"], answer.header("etag")), (&json!("active"), &json!(3), "\"3\""));
    }
    service.deactivate(&user).await.expect(204);
    let expected = ["user.registered.v1", "user.deactivated.v1", "user.reactivated.v1", "user.deactivated.v1"];
    assert_eq!(service.story(&user).await, expected, "what changes nothing is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivating_many_times_at_once_is_deactivating_once() {
    let service = Service::start();
    let user = service.register("ada").await;
    for answer in at_once((0..16).map(|_| service.client.delete(path(&user)))).await {
        answer.expect(204);
    }
    let reactivate = format!("{}/reactivate", path(&user));
    for answer in at_once((0..16).map(|_| service.client.post(&reactivate))).await {
        assert_eq!(answer.expect(200).json()["version"], 3);
    }
    assert_eq!(service.story(&user).await, ["user.registered.v1", "user.deactivated.v1", "user.reactivated.v1"]);
}

#[tokio::test]
async fn a_deactivated_user_is_not_changed() {
    let service = Service::start();
    let user = service.register("ada").await;
    service.deactivate(&user).await.expect(204);
    for changes in [json!({ "name": "Ada" }), json!({ "email": "a@b" }), json!({})] {
        service.patch(&user, changes).await.problem(409, "user-deactivated");
    }
    assert_eq!(service.get(&user).await["version"], 2);
    service.reactivate(&user).await.expect(200);
    service.patch(&user, json!({ "name": "Ada" })).await.expect(200);
}

#[tokio::test]
async fn a_user_with_open_orders_is_not_deactivated() {
    let service = Service::start();
    for open in ["placed", "paid", "shipped"] {
        let user = service.register(open).await;
        service.add_order(&user, "delivered").await;
        service.add_order(&user, open).await;
        service.deactivate(&user).await.problem(409, "open-orders");
        assert_eq!(service.get(&user).await, user);
        assert_eq!(service.story(&user).await, ["user.registered.v1"]);
        service.deliver_orders(&user).await;
        service.deactivate(&user).await.expect(204);
    }
    let user = service.register("done").await;
    service.add_order(&user, "cancelled").await;
    service.deactivate(&user).await.expect(204);
}

#[tokio::test]
async fn of_several_faults_404_comes_before_412_and_412_before_409() {
    let service = Service::start();
    let (active, taken, gone) =
        (service.register("active").await, service.register("taken").await, service.register("gone").await);
    service.deactivate(&gone).await.expect(204);
    service.add_order(&active, "placed").await;
    let unknown = json!({ "id": Uuid::now_v7() });
    let email_taken = json!({ "email": "taken@example.org" });

    // The same requests with a tag that matches nothing, and without.
    let calls = |user: &Value| {
        [
            service.client.patch(path(user)).json(&email_taken),
            service.client.delete(path(user)),
            service.client.post(format!("{}/reactivate", path(user))),
        ]
    };
    for call in calls(&unknown) {
        call.header("if-match", "\"99\"").await.problem(404, "");
    }
    for call in calls(&unknown) {
        call.header("if-match", "*").await.problem(404, "");
    }
    for user in [&active, &gone] {
        for call in calls(user) {
            call.header("if-match", "\"99\"").await.problem(412, "");
        }
    }
    let [patch, delete, _] = calls(&active);
    patch.header("if-match", "\"1\"").await.problem(409, "email-taken");
    delete.header("if-match", "\"1\"").await.problem(409, "open-orders");
    let [patch, _, _] = calls(&gone);
    patch.header("if-match", "\"2\"").await.problem(409, "user-deactivated");
    assert_eq!(service.get(&taken).await, taken);
}

/// Two instances of the service may have clocks that differ.
#[tokio::test]
async fn time_does_not_run_backwards_for_a_user() {
    let service = Service::start();
    let user = service.register("ada").await;
    service.execute("update users set updated_at = now() + interval '1 hour'").await;
    let before = service.get(&user).await;
    let after = service.patch(&user, json!({ "name": "Ada" })).await.expect(200).json();
    assert_eq!(after["updated_at"], before["updated_at"]);
    assert_eq!(service.history(&user).await[1]["time"], before["updated_at"]);
}

/// A change that changes nothing may repeat one whose answer was lost.
#[tokio::test]
async fn every_answer_to_a_change_says_where_it_is_and_the_document_says_so() {
    let service = Service::start();
    let registered = service.client.post("/users").json(&person("ada")).await.expect(201);
    let user = registered.json();
    let mut answers = vec![registered];
    for _ in 0..2 {
        answers.push(service.patch(&user, json!({ "name": "Ada L." })).await.expect(200));
        answers.push(service.deactivate(&user).await.expect(204));
        answers.push(service.deactivate(&user).await.expect(204));
        answers.push(service.reactivate(&user).await.expect(200));
        answers.push(service.reactivate(&user).await.expect(200));
    }
    for answer in &answers {
        // Without standbys it has nothing to decide.
        let seen = answer.header("read-after");
        for read in [path(&user), "/users".to_owned(), format!("{}/events", path(&user)), "/events".to_owned()] {
            service.client.get(read).header("read-after", seen).await.expect(200);
        }
    }
    let document = service.client.get("/openapi.json").await.expect(200).json();
    let changes = [("/users", "post", "201"), ("/users/{id}", "patch", "200"), ("/users/{id}", "delete", "204")];
    for (path, method, status) in changes {
        let answer = &document["paths"][path][method]["responses"][status];
        assert!(answer["headers"]["read-after"]["schema"].is_object(), "{method} {path}: {answer}");
    }
    for path in ["/users", "/users/{id}", "/users/{id}/events", "/events"] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("parameters");
        assert!(parameters.iter().any(|it| it["name"] == "read-after" && it["in"] == "header"), "{path}");
    }
}
