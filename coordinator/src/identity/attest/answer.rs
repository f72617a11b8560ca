//! STS's answer, read strictly: it is exactly one answer to `GetCallerIdentity`, or nothing.
//!
//! CVE-2020-16250 was the opposite: a lenient parser found the answer it looked for inside of another one
//! (<https://googleprojectzero.blogspot.com/2020/10/enter-the-vault-auth-issues-hashicorp-vault.html>).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Who signed, in STS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallerIdentity {
    pub(super) account: String,
    pub(super) arn: String,
    pub(super) user_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    #[serde(rename = "GetCallerIdentityResponse")]
    response: Object<Response>,
}

/// Below the root, what STS may add one day is left aside, unless it is one of our keys in another case.
#[derive(Deserialize)]
struct Response {
    #[serde(rename = "GetCallerIdentityResult")]
    result: Object<Answer>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    account: String,
    arn: String,
    user_id: String,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

/// A structure that is written as an object. Of itself serde takes a list of its fields too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Reader(PhantomData)).map(Self)
    }
}

/// The identity in an answer, or what is wrong with it, for the log.
pub(super) fn parse(body: &[u8]) -> Result<CallerIdentity, String> {
    let root: Object<Root> = serde_json::from_slice(body).map_err(|error| describe(&error))?;
    let Response { result, others } = root.0.response.0;
    without(&others, &["GetCallerIdentityResult"])?;
    let Answer {
        account,
        arn,
        user_id,
        others,
    } = result.0;
    without(&others, &["Account", "Arn", "UserId"])?;
    if account.is_empty() || arn.is_empty() || user_id.is_empty() {
        return Err("STS's answer has an empty part".to_owned());
    }
    Ok(CallerIdentity {
        account,
        arn,
        user_id,
    })
}

/// That none of these differs from one of ours in case only: another reader may take it for that.
fn without(others: &BTreeMap<String, IgnoredAny>, ours: &[&str]) -> Result<(), String> {
    let similar = |key: &String| ours.iter().any(|our| key.eq_ignore_ascii_case(our));
    if others.keys().any(similar) {
        return Err("STS's answer has one key twice, in different cases".to_owned());
    }
    Ok(())
}

/// The parser's words could repeat the body's, which may be anything.
fn describe(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Io | Category::Syntax => "is not JSON",
        Category::Eof => "ends early",
        Category::Data => "is not of the form of GetCallerIdentity's",
    };
    format!(
        "STS's answer {what} (line {}, column {})",
        error.line(),
        error.column()
    )
}
