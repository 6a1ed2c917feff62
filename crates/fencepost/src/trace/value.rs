//! Attributes of spans.

use super::text::Text;

/// The value of an attribute: a number, a truth value or a text.
///
/// ```
/// use fencepost::trace::Value;
/// assert_eq!(Value::from(4096_u32), Value::Unsigned(4096));
/// assert_eq!(Value::from("bf16"), Value::Text("bf16".into()));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(loom, allow(unreachable_pub))]
pub enum Value {
    /// A whole number.
    Signed(i64),
    /// A whole number that is not negative.
    Unsigned(u64),
    /// A number. Files hold any, also infinite ones and NaN.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
}

macro_rules! from {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}
from!(i8 => Signed, i16 => Signed, i32 => Signed, i64 => Signed);
from!(u8 => Unsigned, u16 => Unsigned, u32 => Unsigned, u64 => Unsigned);
from!(f32 => Float, f64 => Float, bool => Bool, &str => Text, String => Text);

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Unsigned(value as u64)
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Value {
        Value::Signed(value as i64)
    }
}

/// An attribute as it is noted.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) name: Text,
    pub(super) value: Value,
}

/// None take no memory. In a box of its own, so that they are one pointer in each span's slot.
#[allow(clippy::box_collection)]
pub(super) type Attributes = Option<Box<Vec<Noted>>>;

/// Of values with one name the last counts.
pub(super) fn note(attributes: &mut Attributes, name: &str, value: Value) {
    let noted = attributes.get_or_insert_default();
    let known = noted
        .iter_mut()
        .find(|known| known.name.bytes() == name.as_bytes());
    match known {
        Some(known) => known.value = value,
        None => {
            let name = Text::new(name);
            noted.push(Noted { name, value });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts_and_stands_where_the_first_did() {
        let mut attributes = None;
        for step in 0..5 {
            note(&mut attributes, "step", step.into());
            note(&mut attributes, "kind", "copy".into());
        }
        let noted = attributes.unwrap();
        let noted: Vec<_> = noted.iter().map(|it| (it.name.get(), &it.value)).collect();
        let (step, kind) = (Value::Signed(4), Value::Text("copy".into()));
        assert_eq!(noted, [("step".into(), &step), ("kind".into(), &kind)]);
    }
}
