//! Requests as forms: from `TagSpecification.1.Tag.2.Key=a` to a JSON value in the model's own names.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::model::{Flaw, Kind, Member, Protocol, Service, Shape, Wrong};

/// What stands below a name.
#[derive(Default)]
struct Node {
    text: Option<String>,
    below: BTreeMap<String, Node>,
}

/// The parameters of a form by the input's shape, and what was wrong with it.
pub(super) fn parse(
    service: &Service,
    shape: &str,
    form: &[(String, String)],
) -> (Value, Vec<Wrong>) {
    let mut reader = Reader {
        service,
        wrong: Vec::new(),
    };
    let mut root = Node::default();
    for (name, value) in form {
        if matches!(name.as_str(), "Action" | "Version") {
            continue;
        }
        let node = name.split('.').fold(&mut root, |node, part| {
            node.below.entry(part.to_owned()).or_default()
        });
        if node.text.replace(value.clone()).is_some() {
            reader.flaw(Flaw::Invalid, name, "is there twice");
        }
    }
    let value = reader.value(shape, &root, "");
    (value, reader.wrong)
}

struct Reader<'a> {
    service: &'a Service,
    wrong: Vec<Wrong>,
}

impl Reader<'_> {
    fn flaw(&mut self, flaw: Flaw, at: &str, text: &str) {
        self.wrong.push(Wrong::new(flaw, at, text.to_owned()));
    }

    fn value(&mut self, shape: &str, node: &Node, at: &str) -> Value {
        let service = self.service;
        let Some(shape) = service.shape(shape) else {
            return Value::Null;
        };
        match shape.r#type {
            Kind::Structure => self.structure(shape, node, at),
            Kind::List => self.list(shape, node, at),
            kind => self.scalar(kind, node, at),
        }
    }

    fn structure(&mut self, shape: &Shape, node: &Node, at: &str) -> Value {
        let mut out = Map::new();
        for (name, below) in &node.below {
            let place = join(at, name);
            let known = shape
                .members
                .iter()
                .find(|(member, about)| self.name(member, about) == *name);
            match known {
                Some((member, about)) => {
                    let value = self.value(&about.shape, below, &place);
                    out.insert(member.clone(), value);
                }
                None => self.flaw(Flaw::Unknown, &place, "is not in the model"),
            }
        }
        Value::Object(out)
    }

    /// A member's name in a form.
    fn name(&self, name: &str, member: &Member) -> String {
        let location = member.location.as_deref().unwrap_or(name);
        match (self.service.protocol, &member.query) {
            (Protocol::Ec2, Some(query)) => query.clone(),
            (Protocol::Ec2, None) => {
                let mut letters = location.chars();
                let first = letters.next().map(|first| first.to_ascii_uppercase());
                first.into_iter().chain(letters).collect()
            }
            _ => location.to_owned(),
        }
    }

    /// EC2 numbers items right below the list's name, others below `member`.
    fn list(&mut self, shape: &Shape, node: &Node, at: &str) -> Value {
        let Some(member) = &shape.member else {
            return Value::Null;
        };
        let node = match (self.service.protocol, &node.text) {
            (Protocol::Ec2, None) => node,
            // A list that is sent although it is empty.
            (_, Some(text)) if text.is_empty() && node.below.is_empty() => {
                return Value::Array(Vec::new());
            }
            _ => {
                let name = member.location.as_deref().unwrap_or("member");
                match node.below.get(name) {
                    Some(items) if node.below.len() == 1 => items,
                    _ => {
                        self.flaw(Flaw::Invalid, at, "is no list");
                        return Value::Array(Vec::new());
                    }
                }
            }
        };
        let mut items = BTreeMap::new();
        for (number, below) in &node.below {
            match number.parse::<usize>() {
                Ok(place) if place >= 1 => {
                    let value = self.value(&member.shape, below, &join(at, number));
                    items.insert(place, value);
                }
                _ => self.flaw(Flaw::Unknown, &join(at, number), "is not in the model"),
            }
        }
        if items.keys().copied().ne(1..=items.len()) {
            self.flaw(Flaw::Invalid, at, "is not numbered 1, 2, 3, …");
        }
        Value::Array(items.into_values().collect())
    }

    fn scalar(&mut self, kind: Kind, node: &Node, at: &str) -> Value {
        if !node.below.is_empty() {
            self.flaw(Flaw::Unknown, at, "has nothing below it in the model");
        }
        let text = node.text.as_deref().unwrap_or_default();
        let parsed = match kind {
            Kind::Integer | Kind::Long => text.parse::<i64>().ok().map(Value::from),
            Kind::Double | Kind::Float => text.parse::<f64>().ok().map(Value::from),
            Kind::Boolean => text.parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        // What has the wrong type stays text, which the model then refuses.
        parsed.unwrap_or_else(|| Value::from(text))
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}
