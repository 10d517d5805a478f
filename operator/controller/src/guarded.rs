//! An object of others, as it comes from the API server: it can be of a shape that this operator does not know, and as
//! large as the API server allows. Neither stops the others.
//!
//! kube's `DeserializeGuard` does the first. It buffers the whole object, twice, in maps of 700 bytes each: 1.4 MB of
//! `{"":0}` in free-form parameters are 130 MB then, more than the operator may have. So here what is built up is counted.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use kube::Resource;
use kube::api::ObjectMeta;
use provisioning_api::names::GROUP;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::Error;

/// Most values of an object, `managedFields` aside; each map counts for 16.
pub const MAX_VALUES: usize = 100_000;
/// What a map counts for: it takes as much room as so many numbers.
const MAP: usize = 16;
/// Entries of a map that its own price covers, and what each further one counts for: key, value and their places.
const SMALL: usize = 64;
const ENTRY: usize = 5;
/// Deepest nesting. serde_json gives a whole answer up beyond 127 levels, and a list holds its objects two levels down.
const MAX_DEPTH: u8 = 64;
/// Most of our own labels, and annotations, that are kept of an object that is too large.
const MAX_KEPT: usize = 32;

/// An object, or why it can't be read.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that can't be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its name and the like; without `managedFields`.
    pub metadata: ObjectMeta,
    /// Path and words of the first field that is not as it should be.
    pub error: String,
    /// It is larger than anything that is of use: nothing but its metadata was read, and nobody should try.
    pub is_too_large: bool,
}

/// Who wrote which field is not kept: nobody asks, and it takes much room.
impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let room = Room(Cell::new(Some(MAX_VALUES)));
        let mut value = Part { room: &room, at: At::Object, depth: 0 }.deserialize(deserializer)?;
        let is_too_large = room.0.get().is_none();
        let read = if is_too_large {
            Err(format!("it has more than {MAX_VALUES} values, or more than {MAX_DEPTH} levels"))
        } else {
            serde_path_to_error::deserialize::<_, K>(&value)
                .map_err(|error| format!("{}: {}", error.path(), error.inner()))
        };
        Ok(Guarded(match read {
            Ok(object) => Ok(object),
            Err(error) => {
                let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
                let mut metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
                if is_too_large {
                    [&mut metadata.labels, &mut metadata.annotations].into_iter().flatten().for_each(keep_ours);
                }
                Err(Unreadable { metadata, error, is_too_large })
            }
        }))
    }
}

impl<K> Guarded<K> {
    /// The object of an answer.
    ///
    /// # Errors
    /// [`Error::Unreadable`], with this description of the object.
    pub fn readable(self, described: &str) -> Result<K, Error> {
        let object = described.to_owned();
        self.0.map_err(|unreadable| Error::Unreadable { object, error: unreadable.error })
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

fn keep_ours(map: &mut BTreeMap<String, String>) {
    let prefix = format!("{GROUP}/");
    *map = std::mem::take(map).into_iter().filter(|(key, _)| key.starts_with(&prefix)).take(MAX_KEPT).collect();
}

/// How many values there is room for; none once it was not enough.
struct Room(Cell<Option<usize>>);

impl Room {
    fn take(&self, count: usize, depth: u8) -> bool {
        let left = self.0.get().and_then(|left| left.checked_sub(count));
        self.0.set(left.filter(|_| depth <= MAX_DEPTH));
        self.0.get().is_some()
    }
}

/// Where in an object a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Object,
    Metadata,
    Inside,
}

/// Reads one value and all within it, as far as there is room; the rest is passed over. The first two levels are read in any
/// case, for an object has to keep its name: what can be large lies below.
#[derive(Clone, Copy)]
struct Part<'a> {
    room: &'a Room,
    at: At,
    /// How many lists and maps it is in.
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let part = Part { at: At::Inside, depth: self.depth + 1, ..self };
        let mut list = Vec::new();
        while part.room.take(1, part.depth) {
            let Some(value) = sequence.next_element_seed(part)? else { return Ok(list.into()) };
            list.push(value);
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Part { room, at, depth } = self;
        let depth = depth + 1;
        let mut map = Map::new();
        let has_room = room.take(MAP, depth);
        if !has_room && at == At::Inside {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(map.into());
        }
        while let Some(key) = entries.next_key::<String>()? {
            let inner = match (at, key.as_str()) {
                (At::Object, "metadata") => At::Metadata,
                _ => At::Inside,
            };
            // A large map costs more by the entry than a small one by itself.
            let has_room = room.take(if map.len() < SMALL { 1 } else { ENTRY }, depth);
            if (at, key.as_str()) == (At::Metadata, "managedFields") || (at == At::Inside && !has_room) {
                entries.next_value::<IgnoredAny>()?;
            } else {
                map.insert(key, entries.next_value_seed(Part { room, at: inner, depth })?);
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use provisioning_api::Taskserv;
    use serde_json::json;

    use super::*;

    fn taskserv(parameters: &Value) -> Value {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Taskserv",
            "metadata": {"labels": {"tier": "web"}, "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
                "name": "cache", "namespace": "marsh", "uid": "u-1"},
            "spec": {"extension": {"name": "redis"}, "servers": ["heron"], "parameters": parameters}})
    }

    fn read(object: &Value) -> Guarded<Taskserv> {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn what_can_be_read_is_as_it_is_without_the_guard() {
        let object = taskserv(&json!({"a": [1, -2, 1.5, null, true, "x", {"b": {}}]}));
        let guarded = read(&object).0.unwrap();
        let mut plain: Taskserv = serde_json::from_value(object).unwrap();
        assert!(plain.metadata.managed_fields.take().is_some());
        assert_eq!(guarded, plain);
    }

    #[test]
    fn what_cannot_be_read_has_its_metadata_and_the_field() {
        let mut object = taskserv(&json!({}));
        object["spec"]["servers"] = json!("heron");
        let guarded = read(&object);
        assert_eq!((guarded.name_any().as_str(), guarded.labels().get("tier").unwrap().as_str()), ("cache", "web"));
        let unreadable = guarded.0.unwrap_err();
        assert!(unreadable.error.starts_with("spec.servers: invalid type: string"), "{}", unreadable.error);
        assert!(!unreadable.is_too_large && unreadable.metadata.managed_fields.is_none());
    }

    #[test]
    fn of_an_object_without_end_nothing_but_its_metadata_is_built_up() {
        let crowd = |count: usize, of: &Value| Value::Array(vec![of.clone(); count]);
        let maps = json!({"": 0});
        for (parameters, fits) in [
            (crowd(5_000, &maps), true),
            (crowd(200_000, &maps), false),
            (crowd(90_000, &json!(0)), true),
            (crowd(300_000, &json!(0)), false),
            (crowd(400, &crowd(400, &json!([]))), false),
            ((0..10_000).map(|number| (format!("k{number}"), json!("b"))).collect::<Map<_, _>>().into(), true),
            ((0..30_000).map(|number| (format!("k{number}"), json!("b"))).collect::<Map<_, _>>().into(), false),
        ] {
            let guarded = read(&taskserv(&json!({"a": parameters})));
            assert_eq!(guarded.name_any(), "cache");
            match guarded.0 {
                Ok(_) => assert!(fits),
                Err(unreadable) => assert!(!fits && unreadable.is_too_large, "{}", unreadable.error),
            }
        }
        // Before the name.
        let mut object = taskserv(&json!({}));
        let labels: Map<String, Value> = (0..200_000).map(|number| (format!("a{number}"), json!(""))).collect();
        object["metadata"]["labels"] = labels.into();
        let guarded = read(&object);
        assert!((guarded.name_any().as_str(), guarded.uid().as_deref()) == ("cache", Some("u-1")));
        let unreadable = guarded.0.unwrap_err();
        assert!(unreadable.is_too_large && unreadable.metadata.labels.unwrap().is_empty());
    }

    #[test]
    fn an_object_without_a_bottom_does_not_spoil_the_list_that_it_is_in() {
        let text = |levels: usize| {
            let deep = "[".repeat(levels) + &"]".repeat(levels);
            let deep = taskserv(&json!({"a": "DEEP"})).to_string().replace("\"DEEP\"", &deep);
            format!("{{\"items\": [{deep}, {}]}}", taskserv(&json!({})))
        };
        let read = |levels: usize| {
            let list: BTreeMap<String, Vec<Guarded<Taskserv>>> = serde_json::from_str(&text(levels)).unwrap();
            let items = &list["items"];
            assert!(items[1].0.is_ok());
            assert_eq!(items[0].name_any(), "cache");
            items[0].0.is_ok()
        };
        assert!(read(40));
        for levels in [64, 110, 200, 10_000] {
            assert!(!read(levels), "{levels}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in ["7", "[]", r#"{"metadata": 7}"#, r#"{"spec": {}"#] {
            assert!(serde_json::from_str::<Guarded<Taskserv>>(text).is_err(), "{text}");
        }
    }
}
