//! Deliveries of the app's webhook, as GitHub recorded them. GitHub keeps them for three days and
//! never repeats one by itself.
//! <https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries>

use http::HeaderMap;
use http::Method;
use http::header::LINK;
use jiff::Timestamp;
use url::Url;

use super::errors::GithubError;
use super::json::Node;
use super::rest::GithubClient;
use super::transport::Call;

/// Pages of one look: 5,000 attempts.
const MAX_PAGES: u32 = 50;

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// GitHub's id of the attempt.
    pub id: i64,
    /// Id of the delivery, which all its attempts share.
    pub guid: String,
    /// When it was made.
    pub delivered_at: Timestamp,
    /// The event.
    pub event: String,
    /// The HTTP status that we answered; 0 or an error of GitHub's own if nothing was answered.
    pub status_code: i64,
}

impl Attempt {
    /// Whether it was answered well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }

    /// Whether it arrived, and was refused for what it is: whatever is in our way answers with 5xx, or not at all.
    #[must_use]
    pub fn refused(&self) -> bool {
        (400..500).contains(&self.status_code)
    }
}

/// Where to go on in a list that was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

/// Attempts, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// The attempts.
    pub attempts: Vec<Attempt>,
    /// Set if there are older ones in the time that was asked for.
    pub more: Option<Cursor>,
}

impl GithubClient {
    /// Attempts to deliver since a time, successful ones too: a delivery has failed only if none of
    /// its attempts succeeded. (GitHub's own filter by `status` leaves out attempts that never got
    /// an HTTP status.) One call reads 5,000 at most; `from` goes on where it stopped.
    ///
    /// # Errors
    /// When GitHub can't be asked.
    pub async fn deliveries(
        &self,
        since: Timestamp,
        from: Option<Cursor>,
    ) -> Result<Deliveries, GithubError> {
        let mut found = Deliveries {
            attempts: Vec::new(),
            more: from,
        };
        for _ in 0..MAX_PAGES {
            let at = found.more.take();
            let mut call = Call::get(vec!["app", "hook", "deliveries"]).query("per_page", "100");
            if let Some(Cursor(cursor)) = &at {
                call = call.query("cursor", cursor);
            }
            let reply = self.as_app(&call).await?;
            let document = reply.json()?;
            let list = Node::document(&document);
            for node in list.elements()? {
                // Others are not lost for it.
                let attempt = match attempt(&node) {
                    Ok(attempt) => attempt,
                    Err(error) => {
                        tracing::warn!(%error, "an attempt to deliver can't be read");
                        continue;
                    }
                };
                if attempt.delivered_at < since {
                    return Ok(found);
                }
                found.attempts.push(attempt);
            }
            found.more = next(&reply.headers);
            if found.more.is_none() || found.more == at {
                found.more = None;
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Asks GitHub to make another attempt.
    ///
    /// # Errors
    /// When GitHub can't be asked or refuses, such as for a delivery that is too old.
    pub async fn redeliver(&self, attempt: i64) -> Result<(), GithubError> {
        let id = attempt.to_string();
        let path = vec!["app", "hook", "deliveries", &id, "attempts"];
        self.as_app(&Call::new(Method::POST, path)).await.map(drop)
    }
}

fn attempt(node: &Node<'_>) -> Result<Attempt, GithubError> {
    let delivered_at = node
        .optional_time("delivered_at")?
        .ok_or_else(|| GithubError::Garbled("a delivery has no time".to_owned()))?;
    Ok(Attempt {
        id: node.integer("id")?,
        guid: node.text("guid")?.to_owned(),
        delivered_at,
        event: node.text("event")?.to_owned(),
        status_code: node.integer("status_code")?,
    })
}

/// The cursor of the next page. Only the cursor is taken from the header, not the address.
fn next(headers: &HeaderMap) -> Option<Cursor> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let address = next.trim().strip_prefix('<')?.split('>').next()?;
    let url = Url::parse(address).ok()?;
    let cursor = url.query_pairs().find(|(name, _)| name == "cursor")?.1;
    Some(Cursor(cursor.into_owned()))
}
