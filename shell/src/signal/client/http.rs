//! One HTTP question and its answer, with a bound on everything. No redirects, no proxies, no cookies, no compression.

use std::{sync::OnceLock, time::Duration};

use reqwest::{ClientBuilder, Method, header::HeaderMap, redirect::Policy};

use crate::api::client::with_causes;

/// For the name, all its addresses together, and TLS.
const CONNECT: Duration = Duration::from_secs(12);

/// Asks over HTTP and HTTPS.
#[derive(Debug)]
pub(super) struct Client {
    agent: String,
    plain: OnceLock<reqwest::Client>,
    /// Made only when it is needed: it reads the certificates that this system trusts.
    encrypted: OnceLock<reqwest::Client>,
}

pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) token: Option<&'a str>,
    /// JSON.
    pub(super) body: Option<Vec<u8>>,
    /// The longest body of an answer, in bytes.
    pub(super) limit: usize,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(
        "TLS can't be used: {}; install ca-certificates, or name a file of trusted certificates in SSL_CERT_FILE",
        with_causes(.0)
    )]
    Tls(reqwest::Error),
    #[error("{}", with_causes(.0))]
    Http(reqwest::Error),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl From<reqwest::Error> for HttpError {
    /// Whoever is told knows the URL.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl Client {
    /// `agent` is what servers are told to be asked by.
    pub(super) fn new(agent: String) -> Self {
        Self { agent, plain: OnceLock::new(), encrypted: OnceLock::new() }
    }

    /// Asks once. The caller bounds the time.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let Request { method, url, token, body, limit } = request;
        let mut asked = self.of(url)?.request(method, url);
        if let Some(token) = token {
            asked = asked.bearer_auth(token);
        }
        if let Some(body) = body {
            asked = asked.header("content-type", "application/json").body(body);
        }
        let mut answer = asked.send().await?;
        let mut body = Vec::new();
        while let Some(data) = answer.chunk().await? {
            if body.len() + data.len() > limit {
                return Err(HttpError::TooLong(limit));
            }
            body.extend_from_slice(&data);
        }
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body })
    }

    fn of(&self, url: &str) -> Result<&reqwest::Client, HttpError> {
        let encrypted = url.starts_with("https://");
        let place = if encrypted { &self.encrypted } else { &self.plain };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let builder = self.builder();
        let builder = if encrypted { builder } else { builder.tls_certs_only([]) };
        let client = builder.build().map_err(HttpError::Tls)?;
        Ok(place.get_or_init(|| client))
    }

    fn builder(&self) -> ClientBuilder {
        reqwest::Client::builder()
            .user_agent(self.agent.as_str())
            .connect_timeout(CONNECT)
            .redirect(Policy::none())
            .no_proxy()
            // The next question comes a quarter of an hour later.
            .pool_max_idle_per_host(0)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use reqwest::Certificate;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            ServerConfig,
            crypto::aws_lc_rs,
            pki_types::{CertificateDer, PrivateKeyDer},
        },
    };

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

    /// A server that has a certificate for `localhost`, and the certificate.
    async fn serve() -> (SocketAddr, CertificateDer<'static>) {
        let rcgen::CertifiedKey { cert, key_pair } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(key_pair.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1_024];
                let length = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..length].starts_with(b"GET /signal?network=elohim HTTP/1.1\r\n"));
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
            }
        });
        (address, cert.der().clone())
    }

    /// A client that trusts this certificate and no other.
    fn trusting(certificate: &CertificateDer<'_>) -> Client {
        let client = Client::new("kinfolk/test".into());
        let trusted = Certificate::from_der(certificate).unwrap();
        client.encrypted.set(client.builder().tls_certs_only([trusted]).build().unwrap()).unwrap();
        client
    }

    async fn ask(client: &Client, url: &str) -> Result<Answer, HttpError> {
        client.ask(Request { method: Method::GET, url, token: None, body: None, limit: 100 }).await
    }

    fn is_about_tls(told: &Result<Answer, HttpError>) -> bool {
        told.as_ref().is_err_and(|error| error.to_string().contains("invalid peer certificate"))
    }

    #[tokio::test]
    async fn who_has_a_trusted_certificate_for_its_name_is_asked() {
        let (address, certificate) = serve().await;
        let client = trusting(&certificate);
        let port = address.port();
        let answer = ask(&client, &format!("https://localhost:{port}/signal?network=elohim")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        // The certificate is for another name.
        let told = ask(&client, &format!("https://127.0.0.1:{port}/signal?network=elohim")).await;
        assert!(is_about_tls(&told), "{told:?}");
    }

    #[tokio::test]
    async fn who_has_none_is_not() {
        let (address, _) = serve().await;
        let (_, other) = serve().await;
        let url = format!("https://localhost:{}/signal?network=elohim", address.port());
        let told = ask(&trusting(&other), &url).await;
        assert!(is_about_tls(&told), "{told:?}");
        // Nor by what the system trusts; on one that trusts nobody, that is said.
        let error = ask(&Client::new("kinfolk/test".into()), &url).await.unwrap_err().to_string();
        assert!(error.contains("invalid peer certificate") || error.contains("install ca-certificates"), "{error}");
    }
}
