//! Users, and the rules for changing them: without a database, without HTTP, without async.

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The most characters of an email address.
pub const MAX_EMAIL: usize = 254;
/// The most characters of a name.
pub const MAX_NAME: usize = 200;

/// A person who may place orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `UUIDv7`.
    pub id: Uuid,
    /// As typed; see [`is_email`].
    pub email: String,
    /// How the person wants to be called; [`MAX_NAME`] characters at most.
    pub name: String,
    /// Whether the user may order.
    pub status: Status,
    /// When the user registered.
    pub created_at: DateTime<Utc>,
    /// When the user last changed.
    pub updated_at: DateTime<Utc>,
    /// How many events the user has.
    pub version: i64,
}

/// Whether a user may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// May order.
    Active,
    /// May not order, but can be reactivated.
    Deactivated,
}

impl Status {
    /// The status in the database, in JSON and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }

    /// Reads [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Deactivated].into_iter().find(|status| status.as_str() == text)
    }
}

/// An order, as users sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The order's id.
    pub id: Uuid,
    /// The user who placed it.
    pub user_id: Uuid,
    /// Whether it is placed, paid or shipped.
    pub is_open: bool,
    /// The order's version.
    pub version: i64,
}

/// The changes of a user. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The new email address.
    pub email: Option<String>,
    /// The new name.
    pub name: Option<String>,
}

/// The error of a change: a deactivated user cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user is deactivated: reactivate it first")]
pub struct Deactivated;

impl User {
    /// The first version of a user.
    pub fn register(id: Uuid, email: String, name: String, now: DateTime<Utc>) -> Self {
        let now = now.trunc_subsecs(6);
        Self { id, email, name, status: Status::Active, created_at: now, updated_at: now, version: 1 }
    }

    /// The user after `changes`. `None` if the changes change nothing.
    ///
    /// # Errors
    /// If the user is deactivated.
    pub fn change(&self, changes: &Changes, now: DateTime<Utc>) -> Result<Option<Self>, Deactivated> {
        if self.status == Status::Deactivated {
            return Err(Deactivated);
        }
        let email = changes.email.as_ref().unwrap_or(&self.email);
        let name = changes.name.as_ref().unwrap_or(&self.name);
        if *email == self.email && *name == self.name {
            return Ok(None);
        }
        Ok(Some(Self { email: email.clone(), name: name.clone(), ..self.next(now) }))
    }

    /// The user with `status`. `None` if the user has it already.
    pub fn with_status(&self, status: Status, now: DateTime<Utc>) -> Option<Self> {
        (self.status != status).then(|| Self { status, ..self.next(now) })
    }

    /// The next version. Its time is never before the previous one's, even if another instance's clock is ahead.
    fn next(&self, now: DateTime<Utc>) -> Self {
        Self { updated_at: now.trunc_subsecs(6).max(self.updated_at), version: self.version + 1, ..self.clone() }
    }
}

/// Whether `text` is an email address by the rule of `<input type=email>`:
/// <https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address>.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !local.is_empty() && local.bytes().all(is_local) && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_address_is_what_browsers_take_for_one() {
        for text in ["a@b", "a.b+c@d-e.example", "!#$%&'*+/=?^_`{|}~-@x.y", "..@1.2"] {
            assert!(is_email(text), "{text}");
        }
        let long_label = format!("a@{}", "x".repeat(64));
        for text in ["", "@", "a@", "@b", "a b@c", "a@b..c", "a@-b", "a@b-", "a@b@c", "ä@b", "a@b.", long_label.as_str()] {
            assert!(!is_email(text), "{text}");
        }
    }

    #[test]
    fn time_does_not_run_backwards_and_no_change_is_no_version() {
        let now = Utc::now();
        let user = User::register(Uuid::nil(), "a@b".into(), "A".into(), now);
        let earlier = now - chrono::TimeDelta::seconds(5);
        let changed = user.change(&Changes { name: Some("B".into()), email: None }, earlier);
        let changed = changed.expect("active").expect("changed");
        assert_eq!((changed.updated_at, changed.version), (user.updated_at, 2));
        assert_eq!(changed.change(&Changes { name: Some("B".into()), email: None }, now), Ok(None));
        let gone = changed.with_status(Status::Deactivated, now).expect("was active");
        assert_eq!(gone.change(&Changes::default(), now), Err(Deactivated));
        assert_eq!(gone.with_status(Status::Deactivated, now), None);
    }
}
