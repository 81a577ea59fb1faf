//! `GET /users` and `GET /users/{id}`.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, each, id, items, next, path};

impl Service {
    /// Registers `count` users one after the other; newest first.
    async fn register_many(&self, count: usize) -> Vec<Value> {
        let mut users = Vec::new();
        for number in 0..count {
            users.insert(0, self.register(&format!("user{number}")).await);
        }
        users
    }

    /// The answer to `GET`, which must refuse a query parameter.
    async fn refuses(&self, link: &str) {
        let problem = self.client.get(link).await.problem(400, "");
        assert_eq!(problem["instance"], link.split('?').next().expect("a path"), "{link}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_version_is_not_sent_it_again() {
    let service = Service::start();
    let user = service.register("ada").await;
    let user = service.client.patch(path(&user)).json(&json!({ "name": "Ada" })).await.expect(200).json();
    assert_eq!(service.client.get(path(&user)).await.expect(200).header("etag"), "\"2\"");
    for known in ["\"2\"", "W/\"2\"", "*", "\"1\", \"2\"", "\"1\",W/\"2\" , \"3\""] {
        let answer = service.client.get(path(&user)).header("if-none-match", known).await.expect(304);
        assert_eq!((answer.header("etag"), answer.body.len()), ("\"2\"", 0), "{known}");
    }
    service.client.get(path(&user)).header("if-none-match", "\"1\"").header("if-none-match", "\"2\"").await.expect(304);
    for other in ["\"1\"", "W/\"1\"", "\"1\", \"3\"", "\"22\"", "\"\"", "2", ""] {
        let answer = service.client.get(path(&user)).header("if-none-match", other).await.expect(200);
        assert_eq!((answer.header("etag"), answer.json()), ("\"2\"", user.clone()), "{other}");
    }
    let unknown = format!("/users/{}", Uuid::now_v7());
    service.client.get(unknown).header("if-none-match", "*").await.problem(404, "");
}

#[tokio::test]
async fn what_names_no_user_is_not_found() {
    let service = Service::start();
    let user = service.register("ada").await;
    let unknown = [
        Uuid::now_v7().to_string(),
        Uuid::nil().to_string(),
        "0".to_owned(),
        "ada".to_owned(),
        "ada@example.org".to_owned(),
        // Other spellings of a UUID that are not the one with hyphens.
        id(&user).replace('-', ""),
        format!("%7B{}%7D", id(&user)),
        format!("urn:uuid:{}", id(&user)),
        format!("{}0", id(&user)),
        format!("{}%00", id(&user)),
        "%00".to_owned(),
        "%ff%fe".to_owned(),
        "'%20or%201=1".to_owned(),
        "..%2fusers".to_owned(),
        "x".repeat(5000),
    ];
    for id in unknown {
        let path = format!("/users/{id}");
        let calls = [
            service.client.get(&path),
            service.client.get(format!("{path}/events")),
            service.client.patch(&path).json(&json!({ "name": "Ada" })),
            service.client.delete(&path),
            service.client.post(format!("{path}/reactivate")),
        ];
        for call in calls {
            let problem = call.await.problem(404, "");
            assert!(problem["instance"].as_str().is_some_and(|instance| instance.starts_with(&path)), "{problem}");
        }
    }
    let answer = service.client.get(path(&user).to_uppercase().replace("/USERS", "/users")).await.expect(200);
    assert_eq!(answer.json(), user, "the same UUID in upper case, answered in lower case");
}

#[tokio::test]
async fn pages_show_every_user_once_newest_first() {
    let service = Service::start();
    let mut users = service.register_many(47).await;
    service.client.delete(path(&users[30])).await.expect(204);
    users[30] = service.get(&users[30]).await;

    let (mut link, mut seen, mut sizes) = (Some("/users".to_owned()), Vec::new(), Vec::new());
    while let Some(at) = link {
        let answer = service.client.get(&at).await.expect(200);
        let page = answer.json();
        assert_eq!(page.as_object().expect("an object").len(), 2);
        link = next(&answer);
        match &link {
            Some(link) => {
                let cursor = page["next_cursor"].as_str().expect("a cursor as there is a link");
                assert_eq!(link, &format!("/users?cursor={cursor}"));
            }
            None => assert_eq!(page["next_cursor"], Value::Null),
        }
        sizes.push(items(&page).len());
        seen.extend(items(&page));
        // Who comes meanwhile belongs before the first page and moves nobody.
        service.register(&format!("late{}", sizes.len())).await;
    }
    assert_eq!(sizes, [20, 20, 7]);
    assert_eq!(seen, users);
}

#[tokio::test]
async fn a_limit_is_from_1_to_100_and_goes_with_the_link() {
    let service = Service::start();
    let users = service.register_many(6).await;
    let (mut link, mut seen) = (Some("/users?limit=2".to_owned()), Vec::new());
    while let Some(at) = link {
        let answer = service.client.get(&at).await.expect(200);
        assert_eq!(items(&answer.json()).len(), 2, "no empty page at the end");
        seen.extend(items(&answer.json()));
        link = next(&answer);
    }
    assert_eq!(seen, users);
    assert_eq!(items(&service.client.get("/users?limit=1").await.expect(200).json()), users[..1]);
    assert_eq!(items(&service.client.get("/users?limit=100").await.expect(200).json()), users);
    for limit in ["0", "101", "-1", "%2B5", "1.5", "1e1", "0x5", "ten", "", "99999999999999999999", "%00", "%ff", "5%20"] {
        service.refuses(&format!("/users?limit={limit}")).await;
        service.refuses(&format!("{}/events?limit={limit}", path(&users[0]))).await;
    }
}

#[tokio::test]
async fn a_parameter_that_is_unknown_or_stands_twice_is_refused() {
    let service = Service::start();
    let user = service.register("ada").await;
    for query in
        ["offset=1", "Limit=1", "emial=a@b", "=", "x", "limit=1&limit=1", "email=a@b&email=a@b", "limit=5&page=2", "wait=1"]
    {
        service.refuses(&format!("/users?{query}")).await;
    }
    for query in ["after=1", "id=1", "limit=1&limit=2"] {
        service.refuses(&format!("{}/events?{query}", path(&user))).await;
    }
    let first = service.client.get("/users?limit=1").await.expect(200).json();
    assert_eq!(first["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_cursor_that_the_list_did_not_issue_is_refused() {
    let service = Service::start();
    let users = service.register_many(3).await;
    let (ada, bob) = (path(&users[0]), path(&users[1]));
    for user in [&ada, &bob] {
        service.client.patch(user).json(&json!({ "name": "Changed" })).await.expect(200);
    }
    let cursor = async |list: &str| -> String {
        let page = service.client.get(format!("{list}?limit=1")).await.expect(200).json();
        page["next_cursor"].as_str().expect("a next page").to_owned()
    };
    let of_users = cursor("/users").await;
    let of_ada = cursor(&format!("{ada}/events")).await;
    let feed = next(&service.client.get("/events").await.expect(200)).expect("a link");
    let of_feed = feed.split_once("after=").expect("a cursor").1;

    // Each is good where it comes from, and nowhere else.
    service.client.get(format!("/users?cursor={of_users}")).await.expect(200);
    service.client.get(format!("{ada}/events?cursor={of_ada}")).await.expect(200);
    service.client.get(format!("/events?after={of_feed}")).await.expect(200);
    for foreign in [&of_ada, of_feed] {
        service.refuses(&format!("/users?cursor={foreign}")).await;
    }
    for foreign in [&of_users, of_feed] {
        service.refuses(&format!("{ada}/events?cursor={foreign}")).await;
    }
    for foreign in [&of_users, &of_ada] {
        service.refuses(&format!("/events?after={foreign}")).await;
    }
    service.refuses(&format!("{bob}/events?cursor={of_ada}")).await;

    let mut forged: Vec<String> = ["", "0", "%00", "%ff", "null", "AAAA", "ä", "eyJpZCI6MX0="].map(str::to_owned).into();
    forged.extend([id(&users[0]).to_owned(), format!("{of_users}="), format!("{of_users}A"), of_users[1..].to_owned()]);
    for at in 0..of_users.len() {
        let other = if of_users.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.push(format!("{}{other}{}", &of_users[..at], &of_users[at + 1..]));
    }
    for cursor in forged {
        let cursor = cursor.replace('ä', "%C3%A4");
        service.refuses(&format!("/users?cursor={cursor}")).await;
        service.refuses(&format!("{ada}/events?cursor={cursor}")).await;
        service.refuses(&format!("/events?after={cursor}")).await;
    }
}

#[tokio::test]
async fn an_email_finds_its_user_without_regard_to_case_and_nobody_else() {
    let service = Service::start();
    let ada = service.client.post("/users").json(&json!({ "email": "Ada.L+x@Example.org", "name": "Ada" }));
    let ada = ada.await.expect(201).json();
    let gone = service.register("gone").await;
    service.client.delete(path(&gone)).await.expect(204);

    for email in ["Ada.L%2Bx@Example.org", "ada.l%2bx%40example.org", "ADA.L%2BX@EXAMPLE.ORG"] {
        let answer = service.client.get(format!("/users?email={email}")).await.expect(200);
        assert_eq!(answer.json(), json!({ "items": [ada], "next_cursor": null }), "{email}");
        assert_eq!(next(&answer), None);
    }
    let found = service.client.get("/users?email=GONE@example.org&limit=1").await.expect(200).json();
    assert_eq!(items(&found)[0]["status"], "deactivated");
    for email in ["ada.l%2Bx@example.or", "da.l%2Bx@example.org", "%25@example.org", "___.__x@example.org", "nobody", "%ff"]
    {
        let nobody = service.client.get(format!("/users?email={email}")).await.expect(200).json();
        assert_eq!(nobody, json!({ "items": [], "next_cursor": null }), "{email}");
    }
    for email in ["", "%00", "a%0Ab", &"x".repeat(255)] {
        service.refuses(&format!("/users?email={email}")).await;
    }
}

#[tokio::test]
async fn the_email_filter_goes_with_paging() {
    let service = Service::start();
    let users = service.register_many(3).await;
    let page = service.client.get("/users?limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().expect("a next page");
    // The cursor stands after the newest user.
    let find = async |email: &str| {
        let page = service.client.get(format!("/users?email={email}&cursor={cursor}")).await.expect(200).json();
        items(&page)
    };
    assert_eq!(find("user2@example.org").await, [] as [Value; 0]);
    assert_eq!(find("user1@example.org").await, users[1..2]);
}

#[tokio::test]
async fn up_to_100_users_are_read_by_id_in_one_answer() {
    let service = Service::start();
    let users = service.register_many(30).await;
    let query = |ids: Vec<String>| ids.into_iter().map(|id| format!("id={id}")).collect::<Vec<_>>().join("&");
    let known: Vec<_> = users.iter().map(|user| id(user).to_owned()).collect();
    let unknown = |count: usize| (0..count).map(|_| Uuid::now_v7().to_string());

    // In any order, also more than a page would hold, each once.
    let mut asked: Vec<_> = known.iter().rev().cloned().chain(unknown(69)).collect();
    asked.push(known[3].to_uppercase());
    let answer = service.client.get(format!("/users?{}", query(asked))).await.expect(200);
    assert_eq!(answer.json(), json!({ "items": users, "next_cursor": null }));
    assert_eq!(next(&answer), None);

    let answer = service.client.get(format!("/users?{}", query(unknown(1).collect()))).await.expect(200);
    assert_eq!(answer.json(), json!({ "items": [], "next_cursor": null }), "unknown ones are left out");

    service.refuses(&format!("/users?{}", query(unknown(101).collect()))).await;
    for query in ["id=", "id=ada", "id=%00"] {
        service.refuses(&format!("/users?{query}")).await;
        service.refuses(&format!("/users?id={}&{query}", known[0])).await;
    }
    for other in ["limit=5", "email=a@b", "cursor=x", "x=1"] {
        service.refuses(&format!("/users?id={}&{other}", known[0])).await;
        service.refuses(&format!("/users?{other}&id={}", known[0])).await;
    }
}

#[tokio::test]
async fn users_are_told_apart_by_id_even_under_one_name() {
    let service = Service::start();
    let mut users = Vec::new();
    for email in ["a@example.org", "b@example.org"] {
        let body = json!({ "email": email, "name": "Ada" });
        users.push(service.client.post("/users").json(&body).await.expect(201).json());
    }
    assert_eq!(each(&users, "name"), ["Ada", "Ada"]);
    assert_ne!(id(&users[0]), id(&users[1]));
    assert_eq!(service.get(&users[0]).await, users[0]);
}
