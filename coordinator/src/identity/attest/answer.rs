//! STS's answer, read strictly: it is exactly one answer to `GetCallerIdentity`, or nothing.
//!
//! CVE-2020-16250 was the opposite: a lenient parser found the answer it looked for inside of another one
//! (<https://googleprojectzero.blogspot.com/2020/10/enter-the-vault-auth-issues-hashicorp-vault.html>).

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    #[serde(rename = "GetCallerIdentityResult")]
    result: Object<Answer>,
    #[serde(rename = "ResponseMetadata", default)]
    _metadata: Option<Object<Metadata>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Answer {
    account: String,
    arn: String,
    user_id: String,
}

#[derive(Deserialize)]
struct Metadata {}

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
    let Answer {
        account,
        arn,
        user_id,
    } = root.0.response.0.result.0;
    if account.is_empty() || arn.is_empty() || user_id.is_empty() {
        return Err("STS's answer has an empty part".to_owned());
    }
    Ok(CallerIdentity {
        account,
        arn,
        user_id,
    })
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
