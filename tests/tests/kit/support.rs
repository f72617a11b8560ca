//! A client that speaks to the fake GitHub as the app does.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use muster_tests::fakes::github::{FakeGithub, Options};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The call that makes a JIT configuration in the organisation.
pub(crate) const JITCONFIG: &str = "/orgs/acme/actions/runners/generate-jitconfig";

/// The fake and someone who talks to it.
pub(crate) struct App {
    pub(crate) github: FakeGithub,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let github = FakeGithub::start(options).await.unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .user_agent("kit")
            .build()
            .unwrap();
        let mut app = Self {
            github,
            client,
            token: String::new(),
        };
        app.token = app.token_for("acme").await;
        app
    }

    pub(crate) fn jwt(&self, iat: i64, exp: i64) -> String {
        let now = Timestamp::now().as_second();
        let claims = json!({
            "iss": self.github.app_id().to_string(), "iat": now + iat, "exp": now + exp,
        });
        let key = EncodingKey::from_rsa_pem(self.github.app_private_key_pem.as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
    }

    pub(crate) async fn token_for(&self, login: &str) -> String {
        let id = self.github.installation_id(login).unwrap();
        let answer = self
            .request(
                Method::POST,
                &format!("/app/installations/{id}/access_tokens"),
            )
            .bearer_auth(self.jwt(-60, 540))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        body(answer).await["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.github.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path)
            .bearer_auth(&self.token)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path)
            .bearer_auth(&self.token)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .bearer_auth(&self.token)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    /// A JIT configuration in the organisation; answers its id and blob.
    pub(crate) async fn register(&self, name: &str, labels: &[&str]) -> (u64, String) {
        let asked = json!({ "name": name, "runner_group_id": 1, "labels": labels });
        let answer = self
            .post("/orgs/acme/actions/runners/generate-jitconfig", &asked)
            .await;
        assert_eq!(answer.status(), 201);
        let body = body(answer).await;
        let blob = body["encoded_jit_config"].as_str().unwrap().to_owned();
        (body["runner"]["id"].as_u64().unwrap(), blob)
    }

    /// Ends a test: nothing may have departed from GitHub's description.
    pub(crate) fn assert_conforms(&self) {
        assert_eq!(self.github.violations(), Vec::<String>::new());
    }
}

pub(crate) async fn body(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}
