//! `POST /orders`.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Service, id, time};

#[tokio::test]
async fn a_placed_order_is_answered_in_full_and_found_at_its_location() {
    let service = Service::start().await;
    let order = json!({
        "items": [
            { "sku": "tea \"green\" \\ 🍵", "quantity": 2, "unit_price_minor": 350 },
            { "unit_price_minor": 0, "quantity": 10_000, "sku": " " },
            { "sku": "tea \"green\" \\ 🍵", "quantity": 1, "unit_price_minor": 351 },
        ],
        "currency": "JPY",
        "user_id": service.user.to_string().to_uppercase(),
    });
    let answer = service.client.post("/orders").json(&order).await.expect(201);
    let placed = answer.json();
    assert_eq!(
        placed,
        json!({
            "id": placed["id"],
            "user_id": service.user,
            "customer": { "id": service.user, "name": "Ada", "status": "active" },
            "status": "placed",
            "currency": "JPY",
            "items": [
                { "line_no": 1, "sku": "tea \"green\" \\ 🍵", "quantity": 2, "unit_price_minor": 350 },
                { "line_no": 2, "sku": " ", "quantity": 10_000, "unit_price_minor": 0 },
                { "line_no": 3, "sku": "tea \"green\" \\ 🍵", "quantity": 1, "unit_price_minor": 351 },
            ],
            "total_minor": 1051,
            "placed_at": placed["placed_at"],
            "updated_at": placed["placed_at"],
            "version": 1,
        })
    );
    time(&placed["placed_at"]);
    let parsed = Uuid::parse_str(id(&placed)).expect("a UUID");
    assert_eq!((parsed.get_version_num(), parsed.to_string().as_str()), (7, id(&placed)));

    assert_eq!(answer.header("etag"), r#""1-1""#);
    assert_eq!(answer.header("location"), format!("/orders/{}", id(&placed)));
    let read = service.client.get(answer.header("location")).await.expect(200);
    assert_eq!((read.header("etag"), read.json()), (r#""1-1""#, placed));
}

/// 10^15 is beyond a 32-bit float and within what every reader of JSON numbers holds exactly.
#[tokio::test]
async fn the_total_of_the_largest_order_is_exact() {
    let service = Service::start().await;
    // As long as the limits allow: 100 lines of 64 characters of 4 bytes.
    let item = json!({ "sku": "🍵".repeat(64), "quantity": 10_000, "unit_price_minor": 1_000_000_000 });
    let order = json!({ "user_id": service.user, "currency": "EUR", "items": vec![item.clone(); 100] });
    let placed = service.client.post("/orders").json(&order).await.expect(201).json();
    let read = service.read(id(&placed)).await;
    assert_eq!(read["total_minor"].as_i64(), Some(1_000_000_000_000_000));
    assert_eq!(read["items"].as_array().map(Vec::len), Some(100));
    assert_eq!(read["items"][99]["line_no"], 100);

    let cheaper = json!({ "sku": "🍵", "quantity": 9_999, "unit_price_minor": 999_999_999 });
    let mut items = vec![item; 99];
    items.push(cheaper);
    let order = json!({ "user_id": service.user, "currency": "EUR", "items": items });
    let placed = service.client.post("/orders").json(&order).await.expect(201);
    assert!(placed.text().contains(r#""total_minor":999998999990001,"#), "{}", placed.text());
}

/// A request where one value is this JSON text.
fn with(service: &Service, field: &str, json: &str) -> String {
    let value = |name: &str, usual: String| if name == field { json.to_owned() } else { usual };
    format!(
        r#"{{"user_id":{},"currency":{},"items":{}}}"#,
        value("user_id", format!("\"{}\"", service.user)),
        value("currency", r#""EUR""#.to_owned()),
        value(
            "items",
            format!(
                r#"[{{"sku":"a","quantity":1,"unit_price_minor":1}},{}]"#,
                value(
                    "item",
                    format!(
                        r#"{{"sku":{},"quantity":{},"unit_price_minor":{}}}"#,
                        value("sku", r#""tea""#.to_owned()),
                        value("quantity", "2".to_owned()),
                        value("unit_price_minor", "350".to_owned()),
                    ),
                ),
            ),
        ),
    )
}

#[tokio::test]
async fn every_value_within_the_limits_is_taken() {
    let service = Service::start().await;
    let cases = [
        ("quantity", "1", json!(1)),
        ("quantity", "10000", json!(10_000)),
        ("quantity", "1.0", json!(1)),
        ("quantity", "1e3", json!(1_000)),
        ("quantity", "1E+2", json!(100)),
        ("quantity", "0.01e2", json!(1)),
        ("unit_price_minor", "0", json!(0)),
        ("unit_price_minor", "-0", json!(0)),
        ("unit_price_minor", "-0.0", json!(0)),
        ("unit_price_minor", "1000000000", json!(1_000_000_000)),
        ("unit_price_minor", "1e9", json!(1_000_000_000)),
        ("sku", r#""x""#, json!("x")),
        // 64 scalar values: 128 UTF-16 units, 256 bytes.
        ("sku", &format!("\"{}\"", "🍵".repeat(64)), json!("🍵".repeat(64))),
        ("sku", r#""\ud83c\udf75 \u0074ea""#, json!("🍵 tea")),
        // Stored in normal form C.
        ("sku", r#""cafe\u0301""#, json!("café")),
        ("sku", r#"" '; drop table orders; -- %s ""#, json!(" '; drop table orders; -- %s ")),
    ];
    for (field, value, stored) in cases {
        let body = with(&service, field, value);
        let answer = service.client.post("/orders").body("application/json", body).await;
        let placed = answer.expect(201).json();
        assert_eq!(placed["items"][1][field], stored, "{field}: {value}");
    }
}

#[tokio::test]
async fn every_value_outside_the_limits_is_refused_with_its_place() {
    let service = Service::start().await;
    let too_many = format!("[{}]", vec![r#"{"sku":"a","quantity":1,"unit_price_minor":1}"#; 101].join(","));
    let sku_too_long = format!("\"{}\"", "🍵".repeat(65));
    let not_strings = ["null", "1", "true", "[]", "{}", r#"["EUR"]"#];
    let not_integers = [
        "null",
        "true",
        r#""1""#,
        "[]",
        "{}",
        "1.5",
        "1e-1",
        "-1",
        "1e400",
        "-1e400",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551617",
        "123456789012345678901234567890",
    ];
    let cases: [(&str, &str, &[&str]); 8] = [
        ("user_id", "/user_id", &not_strings),
        (
            "user_id",
            "/user_id",
            &[
                r#""""#,
                r#""nobody""#,
                r#""0198c0de000070008000000000000000""#,
                r#""{0198c0de-0000-7000-8000-000000000000}""#,
                r#""urn:uuid:0198c0de-0000-7000-8000-000000000000""#,
                r#"" 0198c0de-0000-7000-8000-000000000000""#,
                r#""0198c0de-0000-7000-8000-00000000000g""#,
            ],
        ),
        ("currency", "/currency", &not_strings),
        ("currency", "/currency", &[r#""""#, r#""eur""#, r#""Eur""#, r#""EU""#, r#""EURO""#, r#"" EUR""#, r#""€€€""#]),
        ("items", "/items", &["null", "1", "true", r#""tea""#, "{}", "[]", &too_many]),
        ("item", "/items/1", &["null", "1", "true", r#""tea""#, "[]"]),
        ("sku", "/items/1/sku", &not_strings),
        (
            "sku",
            "/items/1/sku",
            &[
                r#""""#,
                &sku_too_long,
                r#""a\u0000b""#,
                r#""a\nb""#,
                r#""\u001b[31m""#,
                r#""\u007f""#,
                r#""\u0085""#,
                r#""\ud83c""#,
                r#""\udf75\ud83c""#,
            ],
        ),
    ];
    let integers = [("quantity", "/items/1/quantity"), ("unit_price_minor", "/items/1/unit_price_minor")];
    let integers = integers.map(|(field, pointer)| (field, pointer, &not_integers[..]));
    let limits: [(&str, &str, &[&str]); 2] = [
        ("quantity", "/items/1/quantity", &["0", "-0", "10001", "10000.5", "1e4000000000"]),
        ("unit_price_minor", "/items/1/unit_price_minor", &["-1", "1000000001", "0.1", "1e10"]),
    ];
    for (field, pointer, values) in cases.into_iter().chain(integers).chain(limits) {
        for value in values {
            let body = with(&service, field, value);
            let answer = service.client.post("/orders").body("application/json", body.clone()).await;
            assert_eq!(answer.pointers(), [pointer], "{body}");
        }
    }
    assert_eq!(service.rows().await, [0, 0, 0]);
}

#[tokio::test]
async fn all_faults_of_a_body_are_told_at_once() {
    let service = Service::start().await;
    let body = r#"{
        "user_id": 7, "currency": "DEM", "coupon": "x", "a/b~c": null, "status": "paid", "currency": "EUR",
        "items": [
            { "sku": "fine", "quantity": 1, "unit_price_minor": 1 },
            { "sku": "", "quantity": 0, "unit_price_minor": -1, "line_no": 7 },
            { },
            { "sku": "fine", "quantity": "1", "unit_price_minor": 1, "quantity": 1 },
            [ ]
        ]
    }"#;
    let answer = service.client.post("/orders").body("application/json", body).await;
    let problem = answer.clone().problem(422, "");
    for error in problem["errors"].as_array().expect("errors") {
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
    }
    let mut pointers = answer.pointers();
    pointers.sort_unstable();
    // A field that stands there twice may be told once or twice.
    pointers.dedup();
    let mut expected = [
        "/user_id",
        "/currency",
        "/coupon",
        "/a~1b~0c",
        "/status",
        "/items/1/sku",
        "/items/1/quantity",
        "/items/1/unit_price_minor",
        "/items/1/line_no",
        "/items/2/sku",
        "/items/2/quantity",
        "/items/2/unit_price_minor",
        "/items/3/quantity",
        "/items/4",
    ];
    expected.sort_unstable();
    assert_eq!(pointers, expected);

    for (body, expected) in [
        ("{}", &["/currency", "/items", "/user_id"][..]),
        ("[]", &[""]),
        ("null", &[""]),
        ("1e400", &[""]),
        (r#""{}""#, &[""]),
    ] {
        let mut pointers = service.client.post("/orders").body("application/json", body).await.pointers();
        pointers.sort_unstable();
        assert_eq!(pointers, expected, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_malformed() {
    let service = Service::start().await;
    let bodies: [&[u8]; 12] = [
        b"",
        b"  ",
        b"{",
        b"nul",
        b"{}{}",
        b"{'user_id':1}",
        b"{\"items\":[1,]}",
        b"{\"quantity\":NaN}",
        b"{\"quantity\":01}",
        b"{\"sku\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{\"sku\":\"a\x00b\"}",
    ];
    for body in bodies {
        let answer = service.client.post("/orders").body("application/json", body).await;
        let problem = answer.problem(400, "");
        assert_eq!(problem["instance"], "/orders", "{body:?}");
    }
}

#[tokio::test]
async fn a_body_is_json_by_its_media_type_and_64_kib_at_most() {
    let service = Service::start().await;
    let order = service.order().to_string();
    for media_type in ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"] {
        service.client.post("/orders").body(media_type, order.clone()).await.expect(201);
    }
    for media_type in ["", "text/plain", "application/merge-patch+json", "application/jsonx", "json", "text/json"] {
        let answer = service.client.post("/orders").body(media_type, order.clone()).await;
        // `Accept-Patch` is for PATCH.
        assert!(!answer.headers.contains_key("accept-patch"), "{media_type}");
        answer.problem(415, "");
    }
    service.client.post("/orders").await.problem(415, "");

    let padded = |length: usize| format!("{order}{}", " ".repeat(length - order.len()));
    service.client.post("/orders").body("application/json", padded(65_536)).await.expect(201);
    service.client.post("/orders").body("application/json", padded(65_537)).await.problem(413, "");
    service.client.post("/orders").body("application/json", padded(1 << 22)).await.problem(413, "");
}

/// <https://www.six-group.com/en/products-services/financial-information/data-standards.html>, list one, as of 2026.
const ACTIVE: &str = "
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CLF
    CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT
    MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS
    VED VES VND VUV WST XAD XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG";
/// No longer on it, or never.
const NOT_ACTIVE: &str = "
    ANG ATS BEF BGN BYR CSK CUC DEM ECS EEK ESP FIM FRF GRD HRK IEP ITL LTL LUF LVL MRO NLG PTE ROL SIT SKK SLL STD SUR TRL
    USS VEB VEF YUG ZMK ZWD ZWL ZWR BTC AAA ZZZ";

#[tokio::test]
async fn every_active_currency_can_be_ordered_in_and_no_other() {
    let service = Service::start().await;
    // For nobody, so that an accepted one shows and makes no order.
    let order = |code: &str| with(&service, "currency", &format!("\"{code}\"")).replace(&service.user.to_string(), NOBODY);
    for code in ACTIVE.split_whitespace() {
        let answer = service.client.post("/orders").body("application/json", order(code)).await;
        assert_eq!(answer.json()["type"], "urn:problem-type:unknown-user", "{code}");
    }
    for code in NOT_ACTIVE.split_whitespace() {
        let answer = service.client.post("/orders").body("application/json", order(code)).await;
        assert_eq!(answer.pointers(), ["/currency"], "{code}");
    }
}

const NOBODY: &str = "0198c0de-0000-7000-8000-000000000000";

#[tokio::test]
async fn only_an_active_user_can_order_and_a_refusal_leaves_nothing_behind() {
    let service = Service::start().await;
    let nobody = Uuid::parse_str(NOBODY).expect("a UUID");
    for unknown in [nobody, Uuid::nil(), Uuid::max()] {
        let answer = service.client.post("/orders").json(&service.order_of(unknown)).await;
        let problem = answer.problem(422, "unknown-user");
        assert_eq!(problem["errors"][0]["pointer"], "/user_id", "{problem}");
    }
    service.set_user_status(service.user, "deactivated").await;
    service.client.post("/orders").json(&service.order()).await.problem(409, "user-deactivated");
    assert_eq!(service.rows().await, [0, 0, 0]);

    service.set_user_status(service.user, "active").await;
    service.place().await;
    assert_eq!(service.rows().await, [1, 1, 1]);
}
