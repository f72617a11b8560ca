//! Answers as XML, by the output's shape.

use jiff::Timestamp;
use serde_json::Value;

use super::model::{Kind, Service};

/// Adds the members of a structure.
pub(super) fn members(out: &mut String, service: &Service, shape: &str, value: &Value) {
    let Some(shape) = service.shape(shape) else {
        return;
    };
    for (name, member) in &shape.members {
        if let Some(value) = value.get(name) {
            let tag = member.location.as_deref().unwrap_or(name);
            element(out, service, &member.shape, tag, value);
        }
    }
}

fn element(out: &mut String, service: &Service, name: &str, tag: &str, value: &Value) {
    let Some(shape) = service.shape(name) else {
        return;
    };
    open(out, tag);
    match (shape.r#type, value) {
        (Kind::Structure, _) => members(out, service, name, value),
        (Kind::List, Value::Array(items)) => {
            if let Some(member) = &shape.member {
                let tag = member.location.as_deref().unwrap_or("member");
                for item in items {
                    element(out, service, &member.shape, tag, item);
                }
            }
        }
        (_, Value::String(text)) => escape(out, text),
        (_, other) => escape(out, &other.to_string()),
    }
    close(out, tag);
}

/// Adds an element with text.
pub(super) fn text(out: &mut String, tag: &str, text: &str) {
    open(out, tag);
    escape(out, text);
    close(out, tag);
}

pub(super) fn open(out: &mut String, tag: &str) {
    out.push('<');
    out.push_str(tag);
    out.push('>');
}

pub(super) fn close(out: &mut String, tag: &str) {
    out.push_str("</");
    out.push_str(tag);
    out.push('>');
}

fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
}

/// As AWS writes times in XML: whole seconds.
pub(super) fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
