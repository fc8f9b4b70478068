//! A variant's name, as traces write it.

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{Error, Impossible},
};

/// The name of an enum's variant: `dial_failed`. Of anything else: `other`.
///
/// It is what a trace calls it, so a figure is found in a trace; and a variant that is new needs no word here. Nothing
/// inside of the variant is looked at.
pub(super) fn kind_of(value: &impl Serialize) -> &'static str {
    match value.serialize(Namer) {
        Ok(name) | Err(Named(Some(name))) => name,
        Err(Named(None)) => "other",
    }
}

/// Stops at the variant's name.
struct Namer;

/// The name, where serde knows no other way to hand it back than an error.
#[derive(Debug)]
struct Named(Option<&'static str>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no enum")
    }
}

impl std::error::Error for Named {}

impl Error for Named {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

type Answer = Result<&'static str, Named>;
type No = Impossible<&'static str, Named>;

macro_rules! no_variant {
    ($($method:ident($($type:ty),*) -> $answer:ty;)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<$answer, Named> {
            Err(Named(None))
        })*
    };
}

impl Serializer for Namer {
    type Ok = &'static str;
    type Error = Named;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Answer {
        Ok(variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Answer {
        Ok(variant)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Named> {
        Err(Named(Some(variant)))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Named> {
        Err(Named(Some(variant)))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Answer {
        Err(Named(None))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Answer {
        Err(Named(None))
    }

    no_variant! {
        serialize_bool(bool) -> &'static str;
        serialize_i8(i8) -> &'static str;
        serialize_i16(i16) -> &'static str;
        serialize_i32(i32) -> &'static str;
        serialize_i64(i64) -> &'static str;
        serialize_u8(u8) -> &'static str;
        serialize_u16(u16) -> &'static str;
        serialize_u32(u32) -> &'static str;
        serialize_u64(u64) -> &'static str;
        serialize_f32(f32) -> &'static str;
        serialize_f64(f64) -> &'static str;
        serialize_char(char) -> &'static str;
        serialize_str(&str) -> &'static str;
        serialize_bytes(&[u8]) -> &'static str;
        serialize_none() -> &'static str;
        serialize_unit() -> &'static str;
        serialize_unit_struct(&'static str) -> &'static str;
        serialize_seq(Option<usize>) -> No;
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct(&'static str, usize) -> No;
    }
}

#[cfg(test)]
mod tests {
    use kinfolk_core::{Action, DialError, Event, PeerId, Reason, Source, StoredPeer};

    use super::*;

    #[test]
    fn variants_are_called_as_in_traces() {
        let peer: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let stored = StoredPeer { peer, pinned: false, blocked: false, relay: false, record: 0, addresses: vec![] };
        assert_eq!(kind_of(&Event::Wake), "wake");
        assert_eq!(kind_of(&Event::StoreLoaded { peers: vec![], nat: None, last: true }), "store_loaded");
        assert_eq!(kind_of(&Action::Remember(stored.clone())), "remember");
        assert_eq!(kind_of(&Reason::FoundBy(Source::Mdns)), "found_by");
        assert_eq!(kind_of(&DialError::Other("the library's words".into())), "other");
        assert_eq!(kind_of(&stored), "other", "no enum");
        assert_eq!(kind_of(&Some(Source::Mdns)), "other");
    }
}
