//! Reading a foreign JSON document strictly, with complaints that name the place.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;

/// A value that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct Mismatch {
    /// Where, such as `workflow_job.labels[0]`.
    pub path: String,
    /// What should be there.
    pub expected: &'static str,
    /// What is there.
    pub found: String,
}

/// One place in a document; there may be nothing.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    value: Option<&'a Value>,
    place: Place<'a>,
}

/// The way to a node. Put into words only for a complaint.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Node<'a>, &'static str),
    Element(&'a Node<'a>, usize),
}

impl<'a> Node<'a> {
    /// The document itself, whatever it is.
    pub(super) fn document(document: &'a Value) -> Self {
        Self {
            value: Some(document),
            place: Place::Root,
        }
    }

    /// A node that must be an object.
    pub(super) fn as_object(self) -> Result<Self, Mismatch> {
        match self.value {
            Some(Value::Object(_)) => Ok(self),
            _ => Err(self.mismatch("an object")),
        }
    }

    /// A field, whatever it holds.
    pub(super) fn field(&'a self, name: &'static str) -> Self {
        Self {
            value: self.value.and_then(|value| value.get(name)),
            place: Place::Field(self, name),
        }
    }

    /// A field that holds an object.
    pub(super) fn object(&'a self, name: &'static str) -> Result<Self, Mismatch> {
        self.field(name).as_object()
    }

    /// A field that holds an object, null or nothing.
    pub(super) fn optional_object(&'a self, name: &'static str) -> Result<Option<Self>, Mismatch> {
        match self.field(name).value {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.object(name).map(Some),
        }
    }

    /// A field that holds text.
    pub(super) fn text(&'a self, name: &'static str) -> Result<&'a str, Mismatch> {
        self.field(name).as_text()
    }

    /// A field that holds text, null or nothing.
    pub(super) fn optional_text(&'a self, name: &'static str) -> Result<Option<&'a str>, Mismatch> {
        self.optional(name, Self::as_text)
    }

    /// A field that holds a whole number.
    pub(super) fn integer(&'a self, name: &'static str) -> Result<i64, Mismatch> {
        self.field(name).as_integer()
    }

    /// A field that holds a count, null or nothing.
    pub(super) fn optional_count(&'a self, name: &'static str) -> Result<Option<u32>, Mismatch> {
        self.optional(name, |node| {
            u32::try_from(node.as_integer()?)
                .map_err(|_| node.mismatch("a number from 0 to 4294967295"))
        })
    }

    /// A field that holds true or false.
    pub(super) fn boolean(&'a self, name: &'static str) -> Result<bool, Mismatch> {
        let node = self.field(name);
        node.value
            .and_then(Value::as_bool)
            .ok_or_else(|| node.mismatch("true or false"))
    }

    /// Whether there is a true.
    pub(super) fn is_true(&self) -> bool {
        self.value == Some(&Value::Bool(true))
    }

    /// A field that holds a time by RFC 3339, null or nothing.
    pub(super) fn optional_time(
        &'a self,
        name: &'static str,
    ) -> Result<Option<Timestamp>, Mismatch> {
        self.optional(name, |node| {
            node.as_text()?
                .parse()
                .map_err(|_| node.mismatch("an RFC 3339 time"))
        })
    }

    /// A field that holds a list of texts.
    pub(super) fn texts(&'a self, name: &'static str) -> Result<Vec<String>, Mismatch> {
        let list = self.field(name);
        list.elements()?
            .map(|node| node.as_text().map(str::to_owned))
            .collect()
    }

    /// The elements of a list.
    pub(super) fn elements(&'a self) -> Result<impl Iterator<Item = Node<'a>>, Mismatch> {
        let Some(Value::Array(elements)) = self.value else {
            return Err(self.mismatch("a list"));
        };
        Ok(elements.iter().enumerate().map(move |(index, value)| Node {
            value: Some(value),
            place: Place::Element(self, index),
        }))
    }

    fn optional<T>(
        &'a self,
        name: &'static str,
        read: impl FnOnce(&Node<'a>) -> Result<T, Mismatch>,
    ) -> Result<Option<T>, Mismatch> {
        let node = self.field(name);
        match node.value {
            None | Some(Value::Null) => Ok(None),
            Some(_) => read(&node).map(Some),
        }
    }

    fn as_text(&self) -> Result<&'a str, Mismatch> {
        self.value
            .and_then(Value::as_str)
            .ok_or_else(|| self.mismatch("a string"))
    }

    fn as_integer(&self) -> Result<i64, Mismatch> {
        self.value
            .and_then(Value::as_i64)
            .ok_or_else(|| self.mismatch("a whole number"))
    }

    fn mismatch(&self, expected: &'static str) -> Mismatch {
        let found = match self.value {
            None => "nothing".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Bool(_)) => "true or false".to_owned(),
            Some(Value::Number(number)) if expected.contains("number") => number.to_string(),
            Some(Value::Number(_)) => "a number".to_owned(),
            Some(Value::String(text)) if expected.contains("time") => {
                format!("{:?}", text.chars().take(40).collect::<String>())
            }
            Some(Value::String(_)) => "a string".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
        };
        Mismatch {
            path: self.place.to_string(),
            expected,
            found,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the document"),
            Self::Field(parent, name) => match parent.place {
                Place::Root => f.write_str(name),
                ref place => write!(f, "{place}.{name}"),
            },
            Self::Element(parent, index) => match parent.place {
                Place::Root => write!(f, "[{index}]"),
                ref place => write!(f, "{place}[{index}]"),
            },
        }
    }
}
