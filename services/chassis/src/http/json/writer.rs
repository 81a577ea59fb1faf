//! Writes the JSON that `serde_json` writes, with less work for what answers consist of: names of fields and short texts.
//! `serde_json` looks at each byte of both for characters to escape, which took a quarter of all instructions for a page of
//! orders. Here a name of a field is written as it is, also one of `#[serde(rename)]`: it must have no such character. The
//! keys of a map must be texts. All else is `serde_json`'s work.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{self, Error as _, Serializer as _};
use serde_json::{Error, Serializer};

/// How `serde_json` names a struct whose only field is JSON that stands as it is.
const RAW: &str = "$serde_json::private::";

/// Appends one value.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

/// Whether the text stands in JSON as it is. It is looked at in blocks of one size, of which the last may overlap the one
/// before: the processor compares all bytes of a block at once.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    if let Some(last) = bytes.last_chunk::<16>() {
        let (blocks, _) = bytes.as_chunks::<16>();
        return blocks.iter().fold(true, |plain, block| plain & is_plain_block(block)) & is_plain_block(last);
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => is_plain_block(first) && is_plain_block(last),
        _ => bytes.iter().all(is_plain_byte),
    }
}

/// Without an early end, so that the bytes can be compared at once.
fn is_plain_block<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & is_plain_byte(byte))
}

fn is_plain_byte(&byte: &u8) -> bool {
    (byte >= b' ') & (byte != b'"') & (byte != b'\\')
}

impl<'a> Writer<'a> {
    fn open(self, start: &str, end: &'static str) -> Parts<'a> {
        self.0.extend_from_slice(start.as_bytes());
        Parts { to: self.0, is_first: true, end }
    }

    /// Opens the object around the content of an enum's variant.
    fn open_variant(self, variant: &str, start: &str, end: &'static str) -> Result<Parts<'a>, Error> {
        self.0.push(b'{');
        Writer(self.0).serialize_str(variant)?;
        self.0.push(b':');
        Ok(self.open(start, end))
    }
}

/// Hands scalars on to `serde_json`.
macro_rules! hand_on {
    ($($method:ident($type:ty)),+ $(,)?) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            Serializer::new(self.0).$method(value)
        })+
    };
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    hand_on! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_f32(f32), serialize_f64(f64), serialize_char(char), serialize_bytes(&[u8]),
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if !is_plain(text) {
            return Serializer::new(self.0).serialize_str(text);
        }
        self.0.reserve(text.len() + 2);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        Ok(())
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        Serializer::new(self.0).collect_str(value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Serializer::new(self.0).serialize_unit()
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let parts = self.open_variant(variant, "", "}")?;
        value.serialize(Writer(parts.to))?;
        parts.close()
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Parts<'a>, Error> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _length: usize) -> Result<Parts<'a>, Error> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Parts<'a>, Error> {
        self.open_variant(variant, "[", "]}")
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(self.open("{", "}"))
    }

    fn serialize_struct(self, name: &'static str, _length: usize) -> Result<Parts<'a>, Error> {
        Ok(if name.starts_with(RAW) { self.open("", "") } else { self.open("{", "}") })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Parts<'a>, Error> {
        self.open_variant(variant, "{", "}}")
    }
}

/// Appends the parts of an array or an object.
pub(super) struct Parts<'a> {
    to: &'a mut Vec<u8>,
    is_first: bool,
    end: &'static str,
}

impl Parts<'_> {
    fn separate(&mut self) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.to.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.separate();
        value.serialize(Writer(self.to))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        if name.starts_with(RAW) {
            let mut serializer = Serializer::new(&mut *self.to);
            let mut raw = serializer.serialize_struct(name, 1)?;
            ser::SerializeStruct::serialize_field(&mut raw, name, value)?;
            return ser::SerializeStruct::end(raw);
        }
        debug_assert!(is_plain(name), "a name that is no identifier: {name}");
        self.separate();
        self.to.reserve(name.len() + 3);
        self.to.push(b'"');
        self.to.extend_from_slice(name.as_bytes());
        self.to.extend_from_slice(b"\":");
        value.serialize(Writer(self.to))
    }

    fn close(self) -> Result<(), Error> {
        self.to.extend_from_slice(self.end.as_bytes());
        Ok(())
    }
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.separate();
        let start = self.to.len();
        key.serialize(Writer(self.to))?;
        if self.to.get(start) == Some(&b'"') { Ok(()) } else { Err(Error::custom("a key that is no text")) }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.to.push(b':');
        value.serialize(Writer(self.to))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

macro_rules! by_element {
    ($($kind:ident $method:ident),+ $(,)?) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })+
    };
}

by_element! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

macro_rules! by_field {
    ($($kind:ident),+) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })+
    };
}

by_field!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Serialize)]
    struct All<'a> {
        id: uuid::Uuid,
        text: &'a str,
        character: char,
        numbers: (i64, u64, f64, f32, i128),
        nothing: Option<()>,
        something: Option<&'a [&'a str]>,
        unit: (),
        moment: chrono::DateTime<chrono::Utc>,
        map: BTreeMap<&'a str, bool>,
        variants: [Variants<'a>; 4],
        raw: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
        #[serde(flatten)]
        rest: Rest<'a>,
    }

    #[derive(Debug, Serialize)]
    struct Rest<'a> {
        #[serde(rename = "more-text")]
        more: Wrapped<'a>,
    }

    #[derive(Debug, Serialize)]
    struct Wrapped<'a>(&'a str);

    #[derive(Debug, Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Variants<'a> {
        Unit,
        Newtype(&'a str),
        Tuple(u8, &'a str),
        Struct { empty: [u8; 0], text: &'a str },
    }

    fn ours(value: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        value.serialize(Writer(&mut bytes)).expect("JSON");
        String::from_utf8(bytes).expect("text")
    }

    proptest! {
        #[test]
        fn it_writes_what_serde_json_writes(
            text in ".*|[\"\\\\\u{0}-\u{20}a]*",
            number: i64,
            float: f64,
            seconds in 0_i64..1 << 33,
        ) {
            let raw = RawValue::from_string(format!("{{ \"raw\" : [{number} , null]}}")).expect("JSON");
            let value = All {
                id: uuid::Uuid::from_u64_pair(number.cast_unsigned(), 7),
                text: &text,
                character: text.chars().next().unwrap_or('"'),
                numbers: (number, number.cast_unsigned(), float, float as f32, number.into()),
                nothing: None,
                something: Some(&[&text, ""]),
                unit: (),
                moment: chrono::DateTime::from_timestamp(seconds, 5).expect("a moment"),
                map: [(&*text, true), ("b", false)].into(),
                variants: [
                    Variants::Unit,
                    Variants::Newtype(&text),
                    Variants::Tuple(1, &text),
                    Variants::Struct { empty: [], text: &text },
                ],
                raw: &raw,
                absent: None,
                rest: Rest { more: Wrapped(&text) },
            };
            let expected = serde_json::to_string(&value).expect("JSON");
            prop_assert_eq!(ours(&value), &*expected);
            let value: Value = serde_json::from_str(&expected).expect("JSON");
            prop_assert_eq!(ours(&value), value.to_string());
        }
    }

    #[test]
    fn a_character_to_escape_is_found_wherever_it_stands() {
        for length in 0..=50 {
            assert!(is_plain(&"a".repeat(length)));
            for at in 0..length {
                for (character, is_escaped) in [('"', true), ('\\', true), ('\0', true), ('\x1f', true), ('\x7f', false)] {
                    let text: String = (0..length).map(|index| if index == at { character } else { ' ' }).collect();
                    assert_eq!(is_plain(&text), !is_escaped, "{text:?}");
                }
            }
        }
        assert!(is_plain("äöü€😀 and more than one block"));
    }

    #[test]
    fn a_key_that_is_no_text_is_refused() {
        assert!(BTreeMap::from([((1, 2), 3)]).serialize(Writer(&mut Vec::new())).is_err());
        assert!(BTreeMap::from([(1, 2)]).serialize(Writer(&mut Vec::new())).is_err());
    }
}
