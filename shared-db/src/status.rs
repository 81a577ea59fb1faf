//! States of what a service owns, as columns of type `text`.

/// Decodes a type from a column of type `text` by its function `parse(&str) -> Option<Self>`. The services have no type in
/// common, and their domains know no database.
#[macro_export]
macro_rules! decode_status {
    ($status:ty) => {
        impl ::sqlx::Type<::sqlx::Postgres> for $status {
            fn type_info() -> ::sqlx::postgres::PgTypeInfo {
                <&str as ::sqlx::Type<::sqlx::Postgres>>::type_info()
            }
        }

        impl<'r> ::sqlx::Decode<'r, ::sqlx::Postgres> for $status {
            fn decode(value: ::sqlx::postgres::PgValueRef<'r>) -> Result<Self, ::sqlx::error::BoxDynError> {
                let text = <&str as ::sqlx::Decode<::sqlx::Postgres>>::decode(value)?;
                Self::parse(text).ok_or_else(|| format!("unknown status {text}").into())
            }
        }
    };
}
