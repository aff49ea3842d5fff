//! AMF0 values, read within bounds and written (Adobe AMF0 specification).
//!
//! Everything a publisher sends as AMF passes here before anything else parses it. A broken bound
//! is an error; what a text says is not: encoders send titles in the code page of their machine,
//! and [`read_lossy`] reads them.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Objects and arrays within each other.
const NESTING_MAX: usize = 16;
/// Values of one message.
const VALUES_MAX: usize = 512;
/// Bytes of a string.
const STRING_BYTES_MAX: usize = 8 << 10;

/// The values break a bound or are cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the AMF values are damaged or beyond their bounds")]
pub struct BadAmf;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A flag.
    Boolean(bool),
    /// A text.
    Text(String),
    /// An object or ECMA array, in the order it was written.
    Object(Vec<(String, Self)>),
    /// A strict array.
    List(Vec<Self>),
    /// Null, undefined, and every form that commands have no use for.
    Null,
}

impl Value {
    /// A text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The property of an object.
    pub fn property(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(properties) => properties
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Reads all values of a message.
///
/// # Errors
/// [`BadAmf`] when a bound is broken or the bytes end early.
pub fn read(bytes: Bytes) -> Result<Vec<Value>, BadAmf> {
    Reader::new(Texts::Utf8).all(bytes)
}

/// Reads all values of a message; what is not UTF-8 in a text becomes U+FFFD.
///
/// # Errors
/// [`BadAmf`] when a bound is broken or the bytes end early.
pub fn read_lossy(bytes: Bytes) -> Result<Vec<Value>, BadAmf> {
    Reader::new(Texts::Lossy).all(bytes)
}

/// What a text that is not UTF-8 is.
#[derive(Clone, Copy)]
enum Texts {
    Utf8,
    Lossy,
}

struct Reader {
    left: usize,
    texts: Texts,
}

impl Reader {
    const fn new(texts: Texts) -> Self {
        Self {
            left: VALUES_MAX,
            texts,
        }
    }

    fn all(mut self, mut bytes: Bytes) -> Result<Vec<Value>, BadAmf> {
        let mut values = Vec::new();
        while bytes.has_remaining() {
            values.push(self.value(&mut bytes, 0)?);
        }
        Ok(values)
    }

    fn value(&mut self, bytes: &mut Bytes, depth: usize) -> Result<Value, BadAmf> {
        self.left = self.left.checked_sub(1).ok_or(BadAmf)?;
        if depth > NESTING_MAX {
            return Err(BadAmf);
        }
        match short(bytes.try_get_u8())? {
            0 => Ok(Value::Number(short(bytes.try_get_f64())?)),
            1 => Ok(Value::Boolean(short(bytes.try_get_u8())? != 0)),
            2 => {
                let length = usize::from(short(bytes.try_get_u16())?);
                self.text(bytes, length).map(Value::Text)
            }
            3 => self.object(bytes, depth),
            5 | 6 => Ok(Value::Null),
            // A reference to an object: nothing we read needs one.
            7 => short(bytes.try_get_u16()).map(|_index| Value::Null),
            8 => {
                // The count is a hint; the end marker counts.
                short(bytes.try_get_u32())?;
                self.object(bytes, depth)
            }
            10 => self.list(bytes, depth),
            11 => {
                short(bytes.try_get_f64())?;
                short(bytes.try_get_u16()).map(|_zone| Value::Null)
            }
            12 | 15 => {
                let length =
                    usize::try_from(short(bytes.try_get_u32())?).map_err(|_wide| BadAmf)?;
                skip(bytes, length).map(|_unused| Value::Null)
            }
            13 => Ok(Value::Null),
            16 => {
                let length = usize::from(short(bytes.try_get_u16())?);
                skip(bytes, length)?;
                self.object(bytes, depth).map(|_typed| Value::Null)
            }
            _ => Err(BadAmf),
        }
    }

    fn object(&mut self, bytes: &mut Bytes, depth: usize) -> Result<Value, BadAmf> {
        let mut properties = Vec::new();
        loop {
            let length = usize::from(short(bytes.try_get_u16())?);
            if length == 0 && bytes.first() == Some(&9) {
                bytes.advance(1);
                return Ok(Value::Object(properties));
            }
            let name = self.text(bytes, length)?;
            properties.push((name, self.value(bytes, depth + 1)?));
        }
    }

    fn list(&mut self, bytes: &mut Bytes, depth: usize) -> Result<Value, BadAmf> {
        let count = usize::try_from(short(bytes.try_get_u32())?).map_err(|_wide| BadAmf)?;
        if count > self.left {
            return Err(BadAmf);
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.value(bytes, depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn text(&self, bytes: &mut Bytes, length: usize) -> Result<String, BadAmf> {
        let text = skip(bytes, length)?;
        match self.texts {
            Texts::Utf8 => std::str::from_utf8(&text)
                .map(str::to_owned)
                .map_err(|_invalid| BadAmf),
            Texts::Lossy => Ok(String::from_utf8_lossy(&text).into_owned()),
        }
    }
}

fn short<T>(read: Result<T, bytes::TryGetError>) -> Result<T, BadAmf> {
    read.map_err(|_short| BadAmf)
}

/// The bytes of a text.
fn skip(bytes: &mut Bytes, length: usize) -> Result<Bytes, BadAmf> {
    if length > STRING_BYTES_MAX || bytes.remaining() < length {
        return Err(BadAmf);
    }
    Ok(bytes.split_to(length))
}

/// Writes values one after another.
pub fn write(values: &[Value]) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    for value in values {
        put(&mut out, value);
    }
    out.freeze()
}

/// Writes what a data message says: its name, and its facts as an ECMA array, which is where FFmpeg
/// looks for them.
pub(crate) fn write_facts(name: &str, facts: &[(String, Value)]) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    put(&mut out, &Value::text(name));
    out.put_u8(8);
    out.put_u32(u32::try_from(facts.len()).unwrap_or(u32::MAX));
    put_properties(&mut out, facts);
    out.freeze()
}

fn put(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => {
            out.put_u8(0);
            out.put_f64(*number);
        }
        Value::Boolean(flag) => out.put_slice(&[1, u8::from(*flag)]),
        Value::Text(text) => {
            out.put_u8(2);
            put_text(out, text);
        }
        Value::Object(properties) => {
            out.put_u8(3);
            put_properties(out, properties);
        }
        Value::List(values) => {
            out.put_u8(10);
            out.put_u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
            for value in values {
                put(out, value);
            }
        }
        Value::Null => out.put_u8(5),
    }
}

fn put_properties(out: &mut BytesMut, properties: &[(String, Value)]) {
    for (name, value) in properties {
        put_text(out, name);
        put(out, value);
    }
    out.put_slice(&[0, 0, 9]);
}

/// Texts here are ours or were read within [`STRING_BYTES_MAX`], at most three times as long when
/// every byte became U+FFFD, so the length fits.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            (-1e9..1e9_f64).prop_map(Value::Number),
            "[a-zA-Z0-9 ]{0,20}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                proptest::collection::vec(("[a-z]{1,8}", inner), 0..5).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(values in proptest::collection::vec(value(), 0..6)) {
            prop_assert_eq!(read(write(&values)), Ok(values));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(Bytes::from(bytes));
        }
    }

    #[test]
    fn nesting_lists_and_strings_beyond_their_bounds_are_refused() {
        let nested: Vec<u8> = [10, 0, 0, 0, 1].repeat(10_000);
        let endless = vec![10, 0xff, 0xff, 0xff, 0xff, 5];
        let many = vec![5; VALUES_MAX + 1];
        let past_the_end = vec![2, 0, 9, b'a'];
        let not_utf8 = vec![2, 0, 1, 0xff];
        for bad in [nested, endless, many, past_the_end] {
            assert_eq!(read(Bytes::from(bad.clone())), Err(BadAmf));
            assert_eq!(read_lossy(Bytes::from(bad)), Err(BadAmf));
        }
        assert_eq!(read(Bytes::from(not_utf8)), Err(BadAmf));
    }

    /// A title in Latin-1, as a property's text and as its name.
    #[test]
    fn texts_that_are_not_utf8_are_read_with_a_mark_in_their_place() {
        let bytes = [
            &[3, 0, 3, b'c', 0xe9, b'x', 2, 0, 2, 0xfc, b'b', 0, 0, 9][..],
            &[5],
        ];
        let object = Value::Object(vec![("c\u{fffd}x".into(), Value::text("\u{fffd}b"))]);
        let read = read_lossy(Bytes::from(bytes.concat()));
        assert_eq!(read, Ok(vec![object, Value::Null]));
    }

    #[test]
    fn forms_without_use_become_null() {
        let date = [11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let long = [12, 0, 0, 0, 2, b'h', b'i'];
        let typed = [16, 0, 1, b'T', 0, 1, b'a', 5, 0, 0, 9];
        let reference = [7, 0, 0];
        let all = [&date[..], &long, &typed, &reference].concat();
        assert_eq!(read(Bytes::from(all)), Ok(vec![Value::Null; 4]));
    }
}
