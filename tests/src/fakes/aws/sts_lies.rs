//! What may come back in place of an honest answer to `GetCallerIdentity`.

use super::faults::{Answer, Effect};

/// What may come back in place of an honest answer to `GetCallerIdentity`. Most claim that the caller
/// is someone, and none must be believed.
#[derive(Clone, Debug)]
pub enum StsLie {
    /// 400 with `Throttling`: worth another try.
    Throttled,
    /// 403 with `SignatureDoesNotMatch`.
    Forbidden,
    /// 307 to this address, with the identity in its body.
    Redirect(String),
    /// No text at all.
    Garbage,
    /// A page, such as a proxy's.
    Html,
    /// An honest XML answer, although JSON was asked for.
    Xml,
    /// JSON of `AssumeRole`, with a whole XML answer in one of its strings.
    OtherAction,
    /// Two JSON objects one after the other.
    TwoRoots,
    /// No `Arn`.
    MissingKey,
    /// `Arn` twice, the first of someone else.
    DuplicateKey,
    /// A member more at the root.
    UnknownRoot,
    /// An account that is not the one in the ARN.
    OtherAccount,
    /// Correct, but the status is 202.
    OddStatus,
    /// A correct answer with four megabytes of spaces around it.
    Oversize,
}

/// Whom an answer speaks of.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Twelve digits.
    pub account: String,
    /// Such as `arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0`.
    pub arn: String,
    /// Whatever.
    pub user_id: String,
}

impl StsLie {
    /// The effect to inject.
    pub fn effect(&self, claim: &Claim) -> Effect {
        let json = |status, body: String| Answer::new(status, "application/json", body);
        let Claim {
            account,
            arn,
            user_id,
        } = claim;
        let result = |inner: &str| {
            format!(
                r#"{{"GetCallerIdentityResponse":{{"GetCallerIdentityResult":{{{inner}}},"ResponseMetadata":{{"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}}}}}}"#
            )
        };
        let honest = result(&format!(
            r#""Account":"{account}","Arn":"{arn}","UserId":"{user_id}""#
        ));
        let xml = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>{arn}</Arn><UserId>{user_id}</UserId><Account>{account}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
        );
        Effect::Answer(match self {
            Self::Throttled => json(
                400,
                r#"{"Error":{"Code":"Throttling","Message":"Rate exceeded","Type":"Sender"},"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}"#.to_owned(),
            ),
            Self::Forbidden => json(
                403,
                r#"{"Error":{"Code":"SignatureDoesNotMatch","Message":"The request signature we calculated does not match the signature you provided.","Type":"Sender"},"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}"#.to_owned(),
            ),
            Self::Redirect(to) => {
                let mut answer = json(307, honest);
                answer.headers.push(("location".to_owned(), to.clone()));
                answer
            }
            Self::Garbage => Answer::new(200, "application/json", vec![0, 159, 146, 150, b'{']),
            Self::Html => Answer::new(
                200,
                "text/html",
                format!("<html><body>{xml}</body></html>"),
            ),
            Self::Xml => Answer::new(200, "text/xml", xml),
            Self::OtherAction => json(
                200,
                format!(
                    r#"{{"AssumeRoleResponse":{{"AssumeRoleResult":{{"SourceIdentity":{}}}}}}}"#,
                    serde_json::Value::from(xml)
                ),
            ),
            Self::TwoRoots => json(200, format!("{honest}{honest}")),
            Self::MissingKey => json(
                200,
                result(&format!(r#""Account":"{account}","UserId":"{user_id}""#)),
            ),
            Self::DuplicateKey => json(
                200,
                result(&format!(
                    r#""Account":"{account}","Arn":"arn:aws:sts::{account}:assumed-role/other/i-00000000000000000","Arn":"{arn}","UserId":"{user_id}""#
                )),
            ),
            Self::UnknownRoot => {
                let inner = honest.trim_start_matches('{');
                json(200, format!(r#"{{"Extra":{{}},{inner}"#))
            }
            Self::OtherAccount => json(
                200,
                result(&format!(
                    r#""Account":"999999999999","Arn":"{arn}","UserId":"{user_id}""#
                )),
            ),
            Self::OddStatus => json(202, honest),
            Self::Oversize => {
                let spaces = " ".repeat(4 << 20);
                json(200, format!("{spaces}{honest}"))
            }
        })
    }
}
