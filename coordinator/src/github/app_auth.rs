//! Acting as a GitHub App: its JSON Web Token, its installations and their tokens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use muster_core::Scope;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::cache::Cache;
use super::errors::{GithubError, SetupError};
use super::json::Node;
use super::rest::GithubClient;
use super::transport::Call;

/// How far in the past a token says it was made, for clocks that differ, and how long it is good.
/// GitHub accepts ten minutes at most.
/// <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>
const JWT_BACKDATED: i64 = 60;
const JWT_LIFE: i64 = 9 * 60;

/// How early an installation token is replaced, so that no call begins with one about to expire.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// A token is used so long whatever our clock says of its end; an expired one gets a 401.
const SHORTEST_USE: Duration = Duration::from_secs(60);

/// How long the installation of an account is remembered.
const INSTALLATION_TTL: Duration = Duration::from_secs(60 * 60);

/// Pages of installations that are looked through for an enterprise.
const MAX_PAGES: u32 = 20;

/// The app's key.
pub(super) struct AppKey {
    issuer: String,
    key: EncodingKey,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    iss: &'a str,
}

impl AppKey {
    /// Takes an RSA key as PEM, PKCS#1 as GitHub gives it or PKCS#8, and tries it.
    pub(super) fn new(issuer: String, pem: &SecretString) -> Result<Self, SetupError> {
        let key = EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes())
            .map_err(|e| SetupError::Key(e.to_string()))?;
        let key = Self { issuer, key };
        key.jwt(Timestamp::now())
            .map_err(|e| SetupError::Key(e.to_string()))?;
        Ok(key)
    }

    fn jwt(&self, now: Timestamp) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let now = now.as_second();
        let claims = Claims {
            iat: now - JWT_BACKDATED,
            exp: now + JWT_LIFE,
            iss: &self.issuer,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map(SecretString::from)
    }

    /// A token that speaks for the app.
    pub(super) fn token(&self) -> Result<SecretString, GithubError> {
        self.jwt(Timestamp::now())
            .map_err(|e| GithubError::Unaskable(format!("the app's token can't be signed: {e}")))
    }
}

/// What is known of installations.
#[derive(Debug)]
pub(super) struct Installations {
    /// By account: an installation covers an account, whichever of its repositories it may see.
    ids: Cache<Account, i64>,
    tokens: Cache<i64, Arc<SecretString>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Account {
    Owner(String),
    Enterprise(String),
}

impl Account {
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Organization(owner) | Scope::Repository { owner, .. } => {
                Self::Owner(owner.to_ascii_lowercase())
            }
            Scope::Enterprise(slug) => Self::Enterprise(slug.to_ascii_lowercase()),
        }
    }
}

impl Installations {
    pub(super) fn new() -> Self {
        Self {
            ids: Cache::new(),
            tokens: Cache::new(),
        }
    }
}

impl GithubClient {
    /// The installation that a scope belongs to.
    pub(super) async fn installation(&self, scope: &Scope) -> Result<i64, GithubError> {
        let cache = &self.installations().ids;
        let account = Account::of(scope);
        let found = cache.get(&account, async || {
            let id = self.look_up_installation(scope).await?;
            Ok((id, Instant::now() + INSTALLATION_TTL))
        });
        match found.await {
            // Who asked at the same time asked for another repository of this owner, which is out of reach.
            Err(GithubError::NotInstalled(other)) if other != *scope => {
                self.look_up_installation(scope).await
            }
            found => found,
        }
    }

    async fn look_up_installation(&self, scope: &Scope) -> Result<i64, GithubError> {
        let mut path = scope_path(scope);
        path.push("installation");
        match self.as_app(&Call::get(path)).await {
            Ok(reply) => Ok(Node::document(&reply.json()?).integer("id")?),
            // GitHub Enterprise Server has no such call for enterprises.
            Err(GithubError::NotFound(_)) => match scope {
                Scope::Enterprise(slug) => self
                    .enterprise_installation(slug)
                    .await?
                    .ok_or_else(|| GithubError::NotInstalled(scope.clone())),
                _ => Err(GithubError::NotInstalled(scope.clone())),
            },
            Err(error) => Err(error),
        }
    }

    async fn enterprise_installation(&self, slug: &str) -> Result<Option<i64>, GithubError> {
        for page in 1..=MAX_PAGES {
            let page = page.to_string();
            let call = Call::get(vec!["app", "installations"])
                .query("per_page", "100")
                .query("page", &page);
            let document = self.as_app(&call).await?.json()?;
            let list = Node::document(&document);
            let mut count = 0;
            for installation in list.elements()? {
                count += 1;
                if is_enterprise(&installation, slug)? {
                    return Ok(Some(installation.integer("id")?));
                }
            }
            if count < 100 {
                return Ok(None);
            }
        }
        Err(GithubError::Garbled(
            "there are too many installations to look through".to_owned(),
        ))
    }

    /// A token for calls of the installation that a scope belongs to.
    pub(super) async fn token(
        &self,
        scope: &Scope,
        installation: i64,
    ) -> Result<Arc<SecretString>, GithubError> {
        let cache = &self.installations().tokens;
        let token = cache.get(&installation, async || self.make_token(installation).await);
        match token.await {
            // The app was removed, and perhaps installed anew. Callers must not take this for an
            // answer about what they ask for.
            Err(GithubError::NotFound(_)) => {
                let ids = &self.installations().ids;
                ids.forget_all(|id| *id == installation);
                Err(GithubError::NotInstalled(scope.clone()))
            }
            other => other,
        }
    }

    async fn make_token(
        &self,
        installation: i64,
    ) -> Result<(Arc<SecretString>, Instant), GithubError> {
        let id = installation.to_string();
        let path = vec!["app", "installations", id.as_str(), "access_tokens"];
        let reply = self.as_app(&Call::new(Method::POST, path)).await?;
        let document: Value = reply.json()?;
        let answer = Node::document(&document);
        let token = SecretString::from(answer.text("token")?);
        let left = match answer.optional_time("expires_at")? {
            Some(end) => Duration::try_from(end.duration_since(Timestamp::now())),
            None => Ok(Duration::ZERO),
        };
        let usable = left.unwrap_or_default().saturating_sub(EARLY);
        let usable = usable.clamp(SHORTEST_USE, Duration::from_secs(60 * 60));
        Ok((Arc::new(token), Instant::now() + usable))
    }

    /// Forgets a token that GitHub refused, unless it was replaced meanwhile.
    pub(super) async fn forget_token(&self, installation: i64, refused: &Arc<SecretString>) {
        self.installations()
            .tokens
            .forget(&installation, |token| Arc::ptr_eq(token, refused))
            .await;
    }
}

fn is_enterprise(installation: &Node<'_>, slug: &str) -> Result<bool, GithubError> {
    let Some(account) = installation.optional_object("account")? else {
        return Ok(false);
    };
    let enterprise = installation.optional_text("target_type")? == Some("Enterprise");
    let named = account.optional_text("slug")?;
    Ok(enterprise && named.is_some_and(|named| named.eq_ignore_ascii_case(slug)))
}

/// The beginning of the paths of a scope.
pub(super) fn scope_path(scope: &Scope) -> Vec<&str> {
    match scope {
        Scope::Organization(login) => vec!["orgs", login],
        Scope::Repository { owner, name } => vec!["repos", owner, name],
        Scope::Enterprise(slug) => vec!["enterprises", slug],
    }
}
