//! One HTTP question and its answer, with a bound on everything. No redirects, no cookies, no compression.

use std::{
    convert::Infallible,
    env, fs,
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_rustls::{
    TlsConnector,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
    rustls::{self, ClientConfig, RootCertStore, crypto::aws_lc_rs},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Uri,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// A connection to one address is waited for so long, before the next one is tried.
const CONNECT: Duration = Duration::from_secs(4);
/// Addresses of one name that are tried.
const MAX_TRIED: usize = 3;
/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Where systems keep the certificates that they trust; `SSL_CERT_FILE` names another file.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Asks over HTTP and HTTPS.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Where trusted certificates are; `None`: where the system has them.
    roots: Option<String>,
    tls: Mutex<Option<Arc<ClientConfig>>>,
}

pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) agent: &'a str,
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
    #[error("its URL can't be used")]
    Url,
    #[error("the name {host} is not known: {source}")]
    Name { host: String, source: io::Error },
    #[error("the name {0} has no address")]
    NoAddress(String),
    #[error("can't connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error(
        "no trusted certificates were found on this system; install ca-certificates, or name them in SSL_CERT_FILE"
    )]
    NoRoots,
    #[error("can't use the certificates of {file}: {source}")]
    Roots { file: String, source: io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS with {host}: {source}")]
    Handshake { host: String, source: io::Error },
    #[error("no name for a certificate: {0}")]
    ServerName(#[from] InvalidDnsNameError),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request can't be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Client {
    /// Asks once. The caller bounds the time.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let uri: Uri = request.url.parse().map_err(|_| HttpError::Url)?;
        let encrypted = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or(HttpError::Url)?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let stream = connect(&name, port).await?;
        if encrypted {
            let server = ServerName::try_from(name.clone())?;
            let connector = TlsConnector::from(self.tls()?);
            let stream = connector.connect(server, stream.compat()).await;
            let stream = stream.map_err(|source| HttpError::Handshake { host: name, source })?;
            talk(TokioIo::new(stream.compat()), &uri, request).await
        } else {
            talk(TokioIo::new(stream), &uri, request).await
        }
    }

    /// Reads the trusted certificates when they are first needed.
    fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*tls {
            return Ok(Arc::clone(config));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(self.roots.clone())?)
            .with_no_client_auth();
        Ok(Arc::clone(tls.insert(Arc::new(config))))
    }
}

fn roots(file: Option<String>) -> Result<RootCertStore, HttpError> {
    let named = file.or_else(|| env::var("SSL_CERT_FILE").ok().filter(|file| !file.is_empty()));
    let found = || ROOTS.iter().find(|file| fs::metadata(file).is_ok()).map(|file| (*file).to_owned());
    let file = named.or_else(found).ok_or(HttpError::NoRoots)?;
    let bytes = fs::read(&file).map_err(|source| HttpError::Roots { file, source })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok));
    if roots.is_empty() { Err(HttpError::NoRoots) } else { Ok(roots) }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(|source| HttpError::Name { host: host.to_owned(), source })?;
    let mut error = HttpError::NoAddress(host.to_owned());
    for address in addresses.take(MAX_TRIED) {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        match stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(source) => error = HttpError::Connect { address, source },
        }
    }
    Err(error)
}

async fn talk<S>(stream: S, uri: &Uri, request: Request<'_>) -> Result<Answer, HttpError>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let Request { method, agent, token, body, limit, .. } = request;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake::<_, Full<Bytes>>(stream).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut head = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header(USER_AGENT, agent)
        .header(CONNECTION, "close");
    if let Some(token) = token {
        head = head.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if body.is_some() {
        head = head.header(CONTENT_TYPE, "application/json");
    }
    let asked = head.body(Full::from(body.unwrap_or_default()))?;
    let exchange = async {
        let (head, mut body) = sender.send_request(asked).await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if bytes.len() + data.len() > limit {
                    return Err(HttpError::TooLong(limit));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes })
    };
    // The connection's own error comes out of the exchange as well; it lives as long as the exchange.
    let connection = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = connection => match never {},
    }
}

#[cfg(test)]
mod tests {
    use futures_rustls::{TlsAcceptor, pki_types::PrivateKeyDer, rustls::ServerConfig};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
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
                let Ok(stream) = acceptor.accept(stream.compat()).await else { continue };
                let mut stream = stream.compat();
                let mut request = [0; 1_024];
                let length = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..length].starts_with(b"GET /signal?network=elohim HTTP/1.1\r\n"));
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
            }
        });
        (address, cert.der().clone())
    }

    /// A client that trusts this certificate, which lies in the file for as long.
    fn trusting(certificate: CertificateDer<'_>) -> (Client, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = data_encoding::BASE64.encode(&certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(file.path(), pem).unwrap();
        (Client { roots: Some(file.path().display().to_string()), ..Client::default() }, file)
    }

    async fn ask(client: &Client, url: &str) -> Result<Answer, HttpError> {
        let request = Request { method: "GET", url, agent: "kinfolk/test", token: None, body: None, limit: 100 };
        client.ask(request).await
    }

    #[tokio::test]
    async fn who_has_a_trusted_certificate_for_its_name_is_asked() {
        let (address, certificate) = serve().await;
        let (client, _file) = trusting(certificate);
        let port = address.port();
        let answer = ask(&client, &format!("https://localhost:{port}/signal?network=elohim")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        // The certificate is for another name.
        let error = ask(&client, &format!("https://127.0.0.1:{port}/signal?network=elohim")).await.unwrap_err();
        assert!(matches!(error, HttpError::Handshake { .. }), "{error}");
    }

    #[tokio::test]
    async fn who_has_none_is_not() {
        let (address, _) = serve().await;
        let (_, other) = serve().await;
        let (client, _file) = trusting(other);
        let url = format!("https://localhost:{}/signal?network=elohim", address.port());
        let error = ask(&client, &url).await.unwrap_err();
        assert!(matches!(error, HttpError::Handshake { .. }), "{error}");
        let client = Client { roots: Some("/nowhere/roots.pem".into()), ..Client::default() };
        let error = ask(&client, &url).await.unwrap_err();
        assert!(matches!(error, HttpError::Roots { .. }), "{error}");
    }
}
