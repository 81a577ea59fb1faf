//! `POST /users`, and how bodies are read.

use dev::http::Answer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, assert_utc, at_once, id, items, path, person};

impl Service {
    async fn post(&self, body: impl Into<String>) -> Answer {
        self.client.post("/users").body("application/json", body.into()).await
    }
}

#[tokio::test]
async fn a_registered_user_is_answered_in_full_and_found_at_its_location() {
    let service = Service::start();
    let answer = service.client.post("/users").json(&json!({ "email": "Ada@Example.org", "name": "Ada" })).await.expect(201);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("etag"), "\"1\"");
    let user = answer.json();
    let (id, created_at) = (id(&user), &user["created_at"]);
    assert_eq!(
        user,
        json!({
            "id": id,
            "email": "Ada@Example.org",
            "name": "Ada",
            "status": "active",
            "created_at": created_at,
            "updated_at": created_at,
            "version": 1,
        })
    );
    assert_utc(created_at);
    let uuid = Uuid::parse_str(id).expect("a UUID");
    assert_eq!((uuid.get_version_num(), uuid.to_string().as_str()), (7, id), "lower case");
    assert_eq!(answer.header("location"), format!("/users/{id}"));
    assert_eq!(service.client.get(answer.header("location")).await.expect(200).json(), user);
}

#[tokio::test]
async fn every_fault_of_a_body_is_reported_at_once() {
    let service = Service::start();
    let body = json!({ "email": "nobody", "name": " ", "admin": true, "a/b~c": 1 });
    let problem = service.client.post("/users").json(&body).await.problem(422, "");
    assert_eq!(problem["instance"], "/users");
    let mut errors: Vec<_> = problem["errors"].as_array().expect("errors").iter().collect();
    errors.sort_by_key(|error| error["pointer"].to_string());
    let pointers: Vec<_> = errors.iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/admin", "/a~1b~0c", "/email", "/name"]);
    for error in errors {
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
    }
    assert_eq!(service.post("{}").await.pointers(), ["/email", "/name"]);
    assert_eq!(service.number("select count(*) from users").await, 0);
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_is_refused_where_it_stands() {
    let service = Service::start();
    for not_text in [
        "null",
        "true",
        "0",
        "-1.5e3",
        "1e999999",
        "123456789012345678901234567890123456789012345678901234567890",
        "[]",
        "[\"Ada\"]",
        "{}",
        "{\"name\":\"Ada\"}",
        // Well-formed JSON, but half of a character.
        r#""\ud800""#,
        r#""\udc00\ud800""#,
    ] {
        let faults = service.post(format!(r#"{{"email":"a@b","name":{not_text}}}"#)).await.pointers();
        assert_eq!(faults, ["/name"], "{not_text}");
        let faults = service.post(format!(r#"{{"email":{not_text},"name":"Ada"}}"#)).await.pointers();
        assert_eq!(faults, ["/email"], "{not_text}");
    }
    for no_object in ["null", "true", "1e999999", "\"email\"", "[]", r#"[{"email":"a@b","name":"Ada"}]"#] {
        assert_eq!(service.post(no_object).await.pointers(), [""], "{no_object}");
    }
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    let faulty = [
        (format!(r#"{{"email":"a@b","name":{deep}}}"#), "/name"),
        (format!(r#"{{"email":"a@b","name":"Ada","more":{deep}}}"#), "/more"),
        (deep, ""),
        (r#"{"email":"a@b","name":"Ada","email":"c@d"}"#.to_owned(), "/email"),
        (r#"{"email":"a@b","name":"Ada","n\u0061me":"Bob"}"#.to_owned(), "/name"),
        (r#"{"email":"a@b","name":"Ada","Name":"Ada"}"#.to_owned(), "/Name"),
        (r#"{"email":"a@b","name":"Ada","":"Ada"}"#.to_owned(), "/"),
    ];
    for (body, pointer) in faulty {
        assert_eq!(service.post(body).await.pointers(), [pointer]);
    }
    let many: Vec<_> = (0..5000).map(|n| format!("\"{n}\":0")).collect();
    service.post(format!("{{{}}}", many.join(","))).await.problem(422, "");
    assert_eq!(service.number("select count(*) from users").await, 0);
}

#[tokio::test]
async fn an_email_is_what_browsers_take_for_one() {
    let service = Service::start();
    let label = |length| format!("a@{}.example", "x".repeat(length));
    // The rule knows no limit for the part before the @; 254 is the service's for the whole.
    let long = |length: usize| format!("{}@b", "x".repeat(length - 2));
    let good = [
        "a@b",
        "a.b+c@d-e.example",
        "!#$%&'*+/=?^_`{|}~-@x.y",
        "..@1.2",
        ".dots.@example.org",
        "a@1",
        "a@b--c",
        "a@xn--bcher-kva.example",
        &label(63),
        &long(254),
    ];
    for email in good {
        let user = service.client.post("/users").json(&json!({ "email": email, "name": "Ada" })).await.expect(201).json();
        assert_eq!(user["email"], email);
    }
    let bad = [
        "",
        "  ",
        "ada",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b c",
        "a,b@c",
        "a@b,c@d",
        "a@b.",
        "a@.b",
        "a@b..c",
        "a@-b",
        "a@b-",
        "a@b-.c",
        "a@b_c",
        "a@[127.0.0.1]",
        "\"a b\"@c",
        "Ada <a@b>",
        "ä@b",
        "a@bücher.example",
        // KELVIN SIGN: a K to whoever ignores case in Unicode.
        "\u{212a}@b",
        "a\u{a0}@b",
        &label(64),
        &long(255),
    ];
    for email in bad {
        let faults = service.client.post("/users").json(&json!({ "email": email, "name": "Ada" })).await.pointers();
        assert_eq!(faults, ["/email"], "{email}");
    }
}

#[tokio::test]
async fn text_is_trimmed_and_measured_in_unicode_scalar_values() {
    let service = Service::start();
    let kept = [
        ("  Ada Lovelace  ".to_owned(), "Ada Lovelace".to_owned()),
        ("\u{3000}愛\u{a0}".to_owned(), "愛".to_owned()),
        // Beyond 16 bits, and one character to a reader where it is two scalar values.
        ("😀".repeat(200), "😀".repeat(200)),
        // In normal form C.
        ("e\u{301}".repeat(100), "é".repeat(100)),
        ("\u{212b}ngstr\u{f6}m".to_owned(), "\u{c5}ngstr\u{f6}m".to_owned()),
        // Names need joiners.
        ("\u{915}\u{94d}\u{200d}\u{937}".to_owned(), "\u{915}\u{94d}\u{200d}\u{937}".to_owned()),
        (format!("  {}  ", "x".repeat(200)), "x".repeat(200)),
        // Escapes stand for what they mean.
        ("\"\\/ <&>'%_".to_owned(), "\"\\/ <&>'%_".to_owned()),
    ];
    for (number, (name, expected)) in kept.into_iter().enumerate() {
        let body = json!({ "email": format!("  {number}@example.org "), "name": name });
        let user = service.client.post("/users").json(&body).await.expect(201).json();
        assert_eq!(user["name"], expected);
        assert_eq!(user["email"], format!("{number}@example.org"));
        assert_eq!(service.get(&user).await, user, "stored as answered");
    }
    let invisible =
        ["\u{200b}", "\u{200d}\u{feff}", "\u{2060}", "\u{3164}", "\u{2800}", "\u{ad}", "\u{301}"].map(str::to_owned);
    let bad = ["".to_owned(), " \u{3000} ".to_owned(), "😀".repeat(201), "e\u{301}".repeat(100) + "x"];
    for name in bad.into_iter().chain(invisible) {
        let body = json!({ "email": "a@b", "name": name });
        assert_eq!(service.client.post("/users").json(&body).await.pointers(), ["/name"], "{name}");
    }
}

#[tokio::test]
async fn a_control_character_in_text_is_refused() {
    let service = Service::start();
    // Those for the direction of writing let a name look like another one.
    let of_direction = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
    let of_devices = ['\0', '\u{1}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{9f}'];
    for control in of_devices.into_iter().chain(of_direction) {
        let name = format!("A{control}da");
        let faults = service.client.post("/users").json(&json!({ "email": "a@b", "name": name })).await.pointers();
        assert_eq!(faults, ["/name"], "{control:?}");
        let email = format!("a{control}@b");
        let faults = service.client.post("/users").json(&json!({ "email": email, "name": "Ada" })).await.pointers();
        assert_eq!(faults, ["/email"], "{control:?}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    let service = Service::start();
    let malformed: [&[u8]; 17] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"{\"email\":\"a@b\",\"name\":\"Ada\"",
        b"{\"email\":\"a@b\",\"name\":\"Ada\",}",
        b"{\"email\":\"a@b\",\"name\":\"Ada\"} {}",
        b"{email:\"a@b\"}",
        b"{'email':'a@b'}",
        b"{\"email\":\"a@b\" \"name\":\"Ada\"}",
        b"{\"email\":NaN}",
        b"{\"email\":01}",
        b"{\"email\":\"a\nb\"}",
        b"{\"email\":\"\\x\"}",
        b"\xef\xbb\xbf{}",
        b"{\"email\":\"\xff\"}",
        b"{\"email\":\"\xed\xa0\x80\"}",
    ];
    for body in malformed {
        let answer = service.client.post("/users").body("application/json", body.to_vec()).await;
        assert_eq!(answer.status, 400, "{:?}: {}", String::from_utf8_lossy(body), answer.text());
        answer.problem(400, "");
    }
    service.post("[".repeat(60_000)).await.problem(400, "");
}

#[tokio::test]
async fn only_json_is_taken() {
    let service = Service::start();
    let body = person("ada").to_string();
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/xml", "json", ""]
    {
        let answer = service.client.post("/users").body(media_type, body.clone()).await;
        assert!(!answer.headers.contains_key("accept-patch"));
        answer.problem(415, "");
    }
    service.client.post("/users").body("application/merge-patch+json", body.clone()).await.problem(415, "");
    let without = service.client.post("/users");
    without.await.problem(415, "");
    let user = service.client.post("/users").body("Application/JSON; charset=utf-8", body).await.expect(201).json();

    for media_type in ["text/plain", "application/json-patch+json", ""] {
        let answer = service.client.patch(path(&user)).body(media_type, "{}").await;
        let accepted: Vec<_> = answer.header("accept-patch").split(',').map(|one| one.trim().to_owned()).collect();
        assert_eq!(accepted, ["application/merge-patch+json", "application/json"]);
        answer.problem(415, "");
    }
}

#[tokio::test]
async fn a_body_has_64_kib_at_most() {
    let service = Service::start();
    let body = person("ada").to_string();
    let padded = |length: usize| body.clone() + &" ".repeat(length - body.len());
    service.post(padded(64 * 1024 + 1)).await.problem(413, "");
    let user = service.post(padded(64 * 1024)).await.expect(201).json();
    service.client.patch(path(&user)).body("application/json", " ".repeat(64 * 1024 + 1)).await.problem(413, "");
}

#[tokio::test]
async fn an_email_can_be_taken_once() {
    let service = Service::start();
    let ada = service.register("Ada").await;
    for email in ["Ada@example.org", "ada@EXAMPLE.org", " ADA@EXAMPLE.ORG "] {
        let body = json!({ "email": email, "name": "Another" });
        service.client.post("/users").json(&body).await.problem(409, "email-taken");
    }
    // A user who is gone comes back under the same address.
    service.client.delete(path(&ada)).await.expect(204);
    service.client.post("/users").json(&person("ada")).await.problem(409, "email-taken");
    // An address given up is free.
    service.client.post(format!("{}/reactivate", path(&ada))).await.expect(200);
    service.client.patch(path(&ada)).json(&json!({ "email": "ada@example.com" })).await.expect(200);
    service.client.post("/users").json(&person("ADA")).await.expect(201);
    assert_eq!(service.number("select count(*) from users").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_register_one_email_at_once_one_gets_it() {
    let service = Service::start();
    let answers = at_once((0..32).map(|number| {
        let email = if number % 2 == 0 { "ada@example.org" } else { "Ada@Example.ORG" };
        service.client.post("/users").json(&json!({ "email": email, "name": number.to_string() }))
    }))
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 31));
    for answer in refused {
        answer.problem(409, "email-taken");
    }
    // Who was refused left nothing behind, in the log neither.
    let page: Value = service.client.get("/users").await.expect(200).json();
    assert_eq!(items(&page), [made[0].json()]);
    assert_eq!(service.number("select count(*) from user_events").await, 1);
}
