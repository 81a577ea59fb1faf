//! What a manifest may say, and what is said of a wrong one.

use super::*;

fn read(text: &str) -> Result<Manifest> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("split.toml");
    std::fs::write(&path, text).expect("written");
    Manifest::read(&path)
}

const TWO: &str = r#"
    source = "$DATABASE_URL"
    [owners.users]
    role = "users_svc"
    tables = ["users", "user_events"]
    [owners.users.rights]
    user_events = ["select", "insert"]
    [owners.orders]
    role = "orders_svc"
    tables = ["orders", 'shop."Order items"']
"#;

#[test]
fn what_is_wrong_with_a_manifest_is_said_in_its_own_words() {
    let manifest = read(TWO).expect("a manifest");
    assert_eq!(manifest.owner_of(&Qualified::new("shop", "Order items")), Some("orders"));
    assert!(manifest.owner("billing").expect_err("unknown").to_string().contains("orders, users"));
    for (from, to, said) in [
        ("\"orders\", 'shop", "\"users\", 'shop", "users is listed twice"),
        ("[owners.users]", "unowned = [\"orders\"]\n[owners.users]", "orders is listed twice, by orders and as unowned"),
        ("[owners.orders]", "[owners.Orders]", "the owner `Orders` needs a name"),
        ("user_events = [", "orders = [", "users has rights on orders"),
        ("role = \"orders_svc\"", "rolle = \"orders_svc\"", "unknown field `rolle`"),
        (
            "[owners.users]",
            "borrowings = [{ who = 'x', what = 'y', why = 'z', until = '2027-01-31' }]\n[owners.users]",
            "x, which is no owner",
        ),
        ("\"insert\"]", "\"insert; drop\"]", "`insert; drop` is no right"),
        (
            "[owners.users]",
            "borrowings = [{ who = 'users', what = 'y', why = 'z', until = 'soon' }]\n[owners.users]",
            "write a day",
        ),
        (
            "[owners.users]",
            "borrowings = [{ who = 'users', what = 'y', why = 'z', until = '2027-01-31', replace = 'y.sql' }]\n\
             [owners.users]",
            "only one of `replace` and `restore`",
        ),
    ] {
        let text = TWO.replacen(from, to, 1);
        let error = format!("{:#}", read(&text).expect_err(said));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_url_that_cannot_be_used_is_named_and_not_shown() {
    let error = Url("$SPLITCTL_TEST_UNSET".to_owned()).resolve("source").expect_err("unset").to_string();
    assert!(error.contains("SPLITCTL_TEST_UNSET is not set"), "{error}");
    let error = Url("mysql://me:secret@host/db".to_owned()).resolve("source").expect_err("no URL");
    let error = format!("{error:#}");
    assert!(error.starts_with("source cannot be used: it is not a Postgres URL") && !error.contains("secret"), "{error}");
    assert!(!format!("{:?}", Url("postgres://me:secret@host/db".to_owned())).contains("secret"));
}
