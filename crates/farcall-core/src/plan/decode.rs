//! Reads the writer's bytes by a plan and shows serde the reader's type.

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::codec::{CodecError, Step};
use crate::compact::{Decoder, Tally, bad_flag, no_variant};
use crate::schema::short;

use super::{FieldStep, Fields, Id, Node, Payload, Plan, Variant, number};

/// A deserializer of the value of one node.
pub(super) struct Reader<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    id: Id,
}

impl<'a, 'de> Reader<'a, 'de> {
    #[inline]
    pub(super) fn new(decoder: &'a mut Decoder<'de>, plan: &'a Plan) -> Reader<'a, 'de> {
        Reader { decoder, plan, id: plan.root }
    }

    #[inline]
    fn node(&self) -> &'a Node {
        &self.plan.nodes[self.id as usize]
    }

    /// Past the writer's option.
    fn unwrap(self, some: Id) -> Result<Self, CodecError> {
        match self.decoder.byte()? {
            0 => Err(needed()),
            1 => Ok(Reader { id: some, ..self }),
            byte => Err(bad_flag("an option", byte)),
        }
    }

    // What a node is shown as, by what the type asks for. Each type of the reader gets its own copy of what is called
    // for it here, so none is offered more than it may ask for.

    #[inline]
    fn number<V: Visitor<'de>>(self, node: &Node, visitor: V) -> Result<V::Value, CodecError> {
        match node {
            Node::Number { from, to } => number::read(self.decoder, *from, *to, visitor),
            _ => Err(another_type()),
        }
    }

    fn nothing<V: Visitor<'de>>(self, node: &Node, visitor: V) -> Result<V::Value, CodecError> {
        let Node::Nothing(skip) = node else { return Err(another_type()) };
        self.plan.skips.skip(self.decoder, *skip)?;
        visitor.visit_unit()
    }

    #[inline]
    fn list<V: Visitor<'de>>(self, node: &Node, visitor: V) -> Result<V::Value, CodecError> {
        let Reader { decoder, plan, .. } = self;
        let (element, count) = match node {
            Node::List(element) => (*element, decoder.count()?),
            Node::Array(element, count) => (*element, *count as usize),
            Node::Counted(element, wanted) => match decoder.count()? {
                count if count == *wanted as usize => (*element, count),
                count => return Err(wrong_count(count, *wanted)),
            },
            _ => return Err(another_type()),
        };
        decoder.nested(|decoder| {
            let tally = Tally::new(decoder, count);
            visitor.visit_seq(Elements { decoder, plan, element, tally })
        })
    }

    /// An array is a tuple to serde.
    fn tuple<V: Visitor<'de>>(self, node: &'a Node, visitor: V) -> Result<V::Value, CodecError> {
        let Node::Tuple(parts) = node else { return self.list(node, visitor) };
        let plan = self.plan;
        self.decoder.nested(|decoder| visitor.visit_seq(Parts { decoder, plan, parts, next: 0 }))
    }

    fn map<V: Visitor<'de>>(self, node: &Node, visitor: V) -> Result<V::Value, CodecError> {
        let (Node::Map(key, value), Reader { decoder, plan, .. }) = (node, self) else { return Err(another_type()) };
        let count = decoder.count()?;
        decoder.nested(|decoder| {
            let tally = Tally::new(decoder, count);
            visitor.visit_map(Entries { decoder, plan, key: *key, value: *value, tally })
        })
    }

    #[inline]
    fn fields<V: Visitor<'de>>(self, node: &'a Node, visitor: V) -> Result<V::Value, CodecError> {
        let Node::Struct(fields) = node else { return Err(another_type()) };
        self.decoder.nested(|decoder| visit_fields(decoder, self.plan, fields, visitor))
    }

    fn none<V: Visitor<'de>>(self, _: &Node, _: V) -> Result<V::Value, CodecError> {
        Err(another_type())
    }
}

#[cold]
fn needed() -> CodecError {
    CodecError::new("the writer sent None, this side needs a value: make it an Option or give it #[serde(default)]")
}

#[cold]
fn wrong_count(count: usize, wanted: u32) -> CodecError {
    CodecError::new(format!("the writer sent {count} elements, this side has an array of {wanted}: make it a Vec"))
}

#[cold]
fn unknown_variant(name: &str, enumeration: &str) -> CodecError {
    let name = short(name);
    CodecError::new(format!(
        "the writer sent the variant `{name}`, {enumeration} has none of that name here: add it, or one with #[serde(other)]"
    ))
}

/// A hand-written implementation, or `#[schema(as = …)]`, says another thing than it does.
#[cold]
fn another_type() -> CodecError {
    CodecError::new("the type reads something else than its schema says: correct its #[schema(as = Type)]")
}

#[inline]
fn visit_fields<'de, V: Visitor<'de>>(
    decoder: &mut Decoder<'de>,
    plan: &Plan,
    fields: &Fields,
    visitor: V,
) -> Result<V::Value, CodecError> {
    let mut steps = Steps { decoder, plan, steps: &fields.steps, next: 0 };
    let value = if fields.in_order { visitor.visit_seq(&mut steps)? } else { visitor.visit_map(&mut steps)? };
    steps.finish()?;
    Ok(value)
}

macro_rules! read_by_node {
    ($($method:ident($($arg:ident: $ty:ty),*) = $show:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, CodecError> {
            match self.node() {
                Node::Same => self.decoder.$method($($arg,)* visitor),
                Node::Unwrap(some) => self.unwrap(*some)?.$method($($arg,)* visitor),
                Node::Newtype(inner) => Reader { id: *inner, ..self }.$method($($arg,)* visitor),
                node => self.$show(node, visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_, 'de> {
    type Error = CodecError;

    read_by_node! {
        deserialize_any() = none;
        deserialize_bool() = none;
        deserialize_u8() = number;
        deserialize_u16() = number;
        deserialize_u32() = number;
        deserialize_u64() = number;
        deserialize_u128() = number;
        deserialize_i8() = number;
        deserialize_i16() = number;
        deserialize_i32() = number;
        deserialize_i64() = number;
        deserialize_i128() = number;
        deserialize_f32() = number;
        deserialize_f64() = number;
        deserialize_char() = none;
        deserialize_str() = none;
        deserialize_string() = none;
        deserialize_bytes() = list;
        deserialize_byte_buf() = list;
        deserialize_unit() = nothing;
        deserialize_unit_struct(name: &'static str) = nothing;
        deserialize_seq() = list;
        deserialize_tuple(count: usize) = tuple;
        deserialize_tuple_struct(name: &'static str, count: usize) = tuple;
        deserialize_map() = map;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) = fields;
        deserialize_identifier() = none;
        deserialize_ignored_any() = none;
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match self.node() {
            Node::Same => self.decoder.deserialize_enum(name, names, visitor),
            Node::Unwrap(some) => self.unwrap(*some)?.deserialize_enum(name, names, visitor),
            Node::Newtype(inner) => Reader { id: *inner, ..self }.deserialize_enum(name, names, visitor),
            Node::Enum(variants) => visitor.visit_enum(Choice { decoder: self.decoder, plan: self.plan, name, variants }),
            _ => Err(another_type()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.node() {
            Node::Same => self.decoder.deserialize_option(visitor),
            Node::Option(some) => match self.decoder.byte()? {
                0 => visitor.visit_none(),
                1 => self.decoder.nested(|decoder| visitor.visit_some(Reader { decoder, plan: self.plan, id: *some })),
                byte => Err(bad_flag("an option", byte)),
            },
            Node::Wrap(some) => visitor.visit_some(Reader { id: *some, ..self }),
            Node::Newtype(inner) => Reader { id: *inner, ..self }.deserialize_option(visitor),
            _ => Err(another_type()),
        }
    }
}

/// A list's elements.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    element: Id,
    tally: Tally,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.tally.begin(self.decoder) {
            return Ok(None);
        }
        match seed.deserialize(Reader { decoder: &mut *self.decoder, plan: self.plan, id: self.element }) {
            Ok(value) => self.tally.end(self.decoder).map(|()| Some(value)),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.tally.hint())
    }
}

/// A map's entries.
struct Entries<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    key: Id,
    value: Id,
    tally: Tally,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        if !self.tally.begin(self.decoder) {
            return Ok(None);
        }
        match seed.deserialize(Reader { decoder: &mut *self.decoder, plan: self.plan, id: self.key }) {
            Ok(key) => Ok(Some(key)),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CodecError> {
        match seed.deserialize(Reader { decoder: &mut *self.decoder, plan: self.plan, id: self.value }) {
            Ok(value) => self.tally.end(self.decoder).map(|()| value),
            Err(error) => Err(self.tally.locate(error)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.tally.hint())
    }
}

/// A tuple's parts.
struct Parts<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    parts: &'a [Id],
    next: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        let Some(&id) = self.parts.get(self.next) else { return Ok(None) };
        self.next += 1;
        let read = seed.deserialize(Reader { decoder: &mut *self.decoder, plan: self.plan, id });
        let index = self.next - 1;
        read.map(Some).map_err(|error| error.at(Step::Field(Some(index), index.to_string().into())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.len() - self.next)
    }
}

/// A struct's fields, in a sequence or by name.
struct Steps<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    steps: &'a [FieldStep],
    /// The step after the one whose name was given.
    next: usize,
}

impl<'a, 'de> Steps<'a, 'de> {
    /// The next step that makes a field; those before it are made.
    // Always: with a call for each step the decode of an order takes 1.32 of one without a plan, without 1.28.
    #[inline(always)]
    fn advance(&mut self) -> Result<Option<&'a FieldStep>, CodecError> {
        while let Some(step) = self.steps.get(self.next) {
            self.next += 1;
            match step {
                FieldStep::Skip(skip) => self.plan.skips.skip(self.decoder, *skip)?,
                FieldStep::Read { none_is_default: true, .. } if self.decoder.peek() == Some(0) => drop(self.decoder.byte()?),
                step => return Ok(Some(step)),
            }
        }
        Ok(None)
    }

    /// Past what the writer sent after the last field that the reader asked for: a sequence is not read to its end.
    #[inline]
    fn finish(&mut self) -> Result<(), CodecError> {
        match self.advance()? {
            None => Ok(()),
            Some(_) => Err(another_type()),
        }
    }

    #[inline(always)]
    fn read<T: DeserializeSeed<'de>>(&mut self, step: &'a FieldStep, seed: T) -> Result<T::Value, CodecError> {
        match step {
            FieldStep::Read { name, node, .. } => {
                let read = match self.plan.nodes[*node as usize] {
                    // Most fields of most types: what reads it knows nothing of plans.
                    Node::Same => seed.deserialize(&mut *self.decoder),
                    _ => seed.deserialize(Reader { decoder: &mut *self.decoder, plan: self.plan, id: *node }),
                };
                match read {
                    Ok(value) => Ok(value),
                    Err(error) => Err(locate(error, name)),
                }
            }
            FieldStep::Absent { name } => seed.deserialize(Absent).map_err(|error| locate(error, name)),
            FieldStep::Skip(_) => Err(another_type()),
        }
    }
}

#[cold]
fn locate(error: CodecError, field: &str) -> CodecError {
    error.at_field(field.to_owned())
}

impl<'de> SeqAccess<'de> for Steps<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        match self.advance()? {
            Some(step) => self.read(step, seed).map(Some),
            None => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for Steps<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CodecError> {
        match self.advance()? {
            Some(FieldStep::Read { name, .. } | FieldStep::Absent { name }) => {
                let name: de::value::StrDeserializer<'_, CodecError> = (**name).into_deserializer();
                seed.deserialize(name).map(Some)
            }
            Some(FieldStep::Skip(_)) | None => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CodecError> {
        self.read(&self.steps[self.next - 1], seed)
    }
}

/// The value of a field that was not sent.
struct Absent;

impl<'de> Deserializer<'de> for Absent {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// An enum's variant, by the writer's number.
struct Choice<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    /// The reader's enum.
    name: &'static str,
    variants: &'a [Variant],
}

impl<'a, 'de> EnumAccess<'de> for Choice<'a, 'de> {
    type Error = CodecError;
    type Variant = Held<'a, 'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Held<'a, 'de>), CodecError> {
        let number = self.decoder.varint()?;
        let variant = usize::try_from(number).ok().and_then(|number| self.variants.get(number));
        let Variant { name, known } = variant.ok_or_else(|| no_variant(number))?;
        let (to, payload) = known.as_ref().ok_or_else(|| unknown_variant(name, self.name))?;
        let to: de::value::U32Deserializer<CodecError> = (*to).into_deserializer();
        Ok((seed.deserialize(to)?, Held { decoder: self.decoder, plan: self.plan, name, payload }))
    }
}

/// What a variant holds.
struct Held<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    plan: &'a Plan,
    name: &'a str,
    payload: &'a Payload,
}

impl<'a, 'de> Held<'a, 'de> {
    fn nested<R>(self, read: impl FnOnce(&mut Decoder<'de>, &'a Plan) -> Result<R, CodecError>) -> Result<R, CodecError> {
        let read = self.decoder.nested(|decoder| read(decoder, self.plan));
        read.map_err(|error| error.at_variant(self.name.to_owned()))
    }
}

impl<'de> VariantAccess<'de> for Held<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        match self.payload {
            Payload::Unit(skip) => self.plan.skips.skip(self.decoder, *skip).map_err(|error| error.at_variant(self.name.to_owned())),
            _ => Err(another_type()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        match self.payload {
            Payload::Newtype(id) => self.nested(|decoder, plan| seed.deserialize(Reader { decoder, plan, id: *id })),
            _ => Err(another_type()),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        match self.payload {
            Payload::Tuple(parts) => self.nested(|decoder, plan| visitor.visit_seq(Parts { decoder, plan, parts, next: 0 })),
            _ => Err(another_type()),
        }
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        match self.payload {
            Payload::Struct(fields) => self.nested(|decoder, plan| visit_fields(decoder, plan, fields, visitor)),
            _ => Err(another_type()),
        }
    }
}
