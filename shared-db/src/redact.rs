//! Errors of a login without what the URL's parameters say: a value may be a secret, and the log has the errors.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use sqlx::error::{DatabaseError, ErrorKind};

/// The error, with the same kind and SQLSTATE, and without `values` in its text.
pub(crate) fn redact(error: sqlx::Error, values: &[String]) -> sqlx::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if !values.iter().any(|value| text.contains(value)) {
        return error;
    }
    let text = values.iter().fold(text, |text, value| text.replace(value, "…"));
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().map(|code| code.into_owned());
            sqlx::Error::Database(Box::new(Redacted { text, code }))
        }
        sqlx::Error::Io(error) => sqlx::Error::Io(io::Error::new(error.kind(), text)),
        sqlx::Error::Tls(_) => sqlx::Error::Tls(text.into()),
        _ => sqlx::Error::Configuration(text.into()),
    }
}

/// An error of Postgres.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Redacted {
    text: String,
    code: Option<String>,
}

impl DatabaseError for Redacted {
    fn message(&self) -> &str {
        &self.text
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.as_deref().map(Cow::Borrowed)
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_loses_the_values() {
        let values = ["s3cret".to_owned()];
        let refused = Redacted { text: "no role s3cret".to_owned(), code: Some("28000".to_owned()) };
        let error = redact(sqlx::Error::Database(Box::new(refused)), &values);
        assert!(matches!(&error, sqlx::Error::Database(error) if error.code().as_deref() == Some("28000")));
        assert!(error.to_string().contains("no role …"), "{error}");
        let io = io::Error::new(io::ErrorKind::NotFound, "s3cret is missing");
        let error = redact(sqlx::Error::Io(io), &values);
        assert!(matches!(&error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::NotFound));
        for error in [sqlx::Error::Tls("s3cret".into()), sqlx::Error::Protocol("s3cret".into()), error] {
            let error = redact(error, &values);
            assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
        }
    }
}
