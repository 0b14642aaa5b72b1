//! An HTTP client for tests.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::wait::PATIENCE;

/// A client of one base address, with or without a token.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    base: String,
    token: Option<String>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Http {
    /// A client for the paths under this address.
    pub fn new(base: impl Into<String>) -> Self {
        Self { client: client(), base: base.into(), token: None }
    }

    /// The same client with `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// A request for [`send`], without a body.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT` with a JSON body
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::PUT, path).json(body)).await
    }

    /// `PATCH` without a body
    pub async fn patch(&self, path: &str) -> Answer {
        send(self.request(Method::PATCH, path)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }
}

/// A client for `http://` URLs. The TLS configuration is not used. Without it reqwest would panic, because it
/// is built without a cryptography provider.
pub fn client() -> Client {
    let tls = ClientConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let builder = Client::builder().tls_backend_preconfigured(tls).timeout(PATIENCE);
    builder.build().expect("a client can be built")
}

/// Sends a request and reads the whole response.
///
/// # Panics
/// When there is no response.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
    Answer::read(response).await
}

impl Answer {
    async fn read(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap_or_else(|error| panic!("cut off: {error:?}"));
        Self { status, headers, text }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The value of a header; `None` if there is no header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Checks the status and returns the body as JSON, [`Value::Null`] for an empty one.
    ///
    /// # Panics
    /// When the status differs; the message has the whole response.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:#?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}
