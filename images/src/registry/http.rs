//! GET requests to a registry: which scheme, which redirects, which headers to whom, and when to try
//! again.

use super::auth;
use super::resolve::SystemResolver;
use super::target::Target;
use crate::manifest::printable;
use crate::progress::{Progress, ProgressEvent};
use plan::{Error, Result};
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request, Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

/// How long to wait for what, and how often to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Further attempts after a failure that may pass.
    pub retries: u32,
    /// The first pause; each next one is twice as long.
    pub pause: Duration,
    /// The longest pause, also when the registry asks for more.
    pub longest: Duration,
    /// Silence on a connection.
    pub idle: Duration,
    /// To establish a connection, TLS included.
    pub connect: Duration,
    /// For a whole document, the body included.
    pub document: Duration,
    /// A blob of which less than [`SLOWEST`] bytes came in this time is given up.
    pub crawl: Duration,
}

/// Bytes in a period of [`Patience::crawl`]: less is a connection kept alive, not a transfer.
pub(super) const SLOWEST: u64 = 16 << 10;

impl Default for Patience {
    fn default() -> Patience {
        let s = Duration::from_secs;
        Patience {
            retries: 4,
            pause: s(1),
            longest: s(60),
            idle: s(30),
            connect: s(10),
            document: s(120),
            crawl: s(60),
        }
    }
}

/// Redirects in a row: registries need one or two.
const MAX_REDIRECTS: usize = 10;
/// Token replies and error bodies.
pub(super) const MAX_REPLY: u64 = 1 << 20;
/// One read of a blob; also what hides behind each connection, so three layers stay below 1 MiB.
const INPUT_BUFFER: usize = 256 << 10;

/// A small answer, wholly read.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no answer, and whether another attempt may have one.
pub(super) struct Failure {
    pub error: Box<Error>,
    pub may_pass: bool,
    /// The registry's own wish (Retry-After).
    pub wait: Option<Duration>,
}

impl Failure {
    pub fn passing(error: Error) -> Failure {
        Failure { error: Box::new(error), may_pass: true, wait: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error: Box::new(error), may_pass: false, wait: None }
    }
}

/// One registry, for the duration of a pull; shared by its threads.
pub(super) struct Client<'a> {
    /// As named by the user, for messages.
    name: String,
    authority: String,
    /// What a token is asked for when the registry does not say: `repository:<path>:pull`.
    scope: String,
    pub patience: Patience,
    pub progress: &'a dyn Progress,
    /// Settled by the first answer.
    https: OnceLock<bool>,
    /// For the world: certificates verified, proxies of the environment used.
    outside: OnceLock<Agent>,
    /// For this machine: no proxy and any certificate, as Docker treats 127.0.0.0/8.
    inside: OnceLock<Agent>,
    token: Mutex<Option<String>>,
}

impl<'a> Client<'a> {
    pub fn new(domain: &str, repository: &str, patience: Patience, progress: &'a dyn Progress) -> Client<'a> {
        // Docker Hub's API lives under another name than its images.
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        Client {
            name: domain.to_owned(),
            authority: authority.to_ascii_lowercase(),
            scope: format!("repository:{repository}:pull"),
            patience,
            progress,
            https: OnceLock::new(),
            outside: OnceLock::new(),
            inside: OnceLock::new(),
            token: Mutex::new(None),
        }
    }

    /// A whole document of at most `limit` bytes. Any final status is an answer; what may pass has
    /// been retried.
    pub fn document(&self, path: &str, accept: &str, limit: u64) -> Result<Reply> {
        self.patiently(|| self.get(path, accept, 0).and_then(|response| self.read_whole(response, limit)))
    }

    /// As [`Client::document`], from a server that is not the registry and hears nothing of ours.
    pub fn document_elsewhere(&self, target: &Target) -> Result<Reply> {
        if !target.https && !target.is_loopback() {
            return Err(Error::system(format!("{} wants to be asked unencrypted", printable(&target.authority)))
                .with_hint("the registry is set up wrongly, or somebody is in between"));
        }
        self.patiently(|| {
            let response = self.follow(target.clone(), "application/json", 0, None)?;
            self.read_whole(response, MAX_REPLY)
        })
    }

    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => {
                    failures += 1;
                    self.pause("", failures, failure, None)?;
                }
            }
        }
    }

    /// Sleeps after failure number `failures` in a row, or gives it back as final.
    /// Wakes up early when `stop` is set.
    pub fn pause(&self, layer: &str, failures: u32, failure: Failure, stop: Option<&AtomicBool>) -> Result<()> {
        if !failure.may_pass || failures > self.patience.retries {
            return Err(*failure.error);
        }
        let doubled = self.patience.pause * 2u32.saturating_pow(failures - 1);
        let pause = failure.wait.unwrap_or(doubled).min(self.patience.longest);
        let cause = failure.error.to_string();
        self.progress.event(layer, ProgressEvent::Retrying { attempt: failures, pause, cause: &cause });
        let until = Instant::now() + pause;
        while !stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// One request to the registry, with the token dance. The answer is final: no redirect, no 401
    /// that a token would have cured, nothing that may pass.
    pub fn get(&self, path: &str, accept: &str, offset: u64) -> Result<Response<Body>, Failure> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.get_with(path, accept, offset, token.as_deref())?;
        if response.status() != 401 {
            return Ok(response);
        }
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = headers.iter().filter_map(|h| auth::parse_challenge(h.to_str().ok()?)).next();
        let Some(challenge) = challenge.filter(|c| c.scheme == "bearer") else { return Ok(response) };
        drop(response);
        let fresh = auth::fetch_token(self, &challenge, &self.scope)?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh.clone());
        self.get_with(path, accept, offset, Some(&fresh))
    }

    fn get_with(&self, path: &str, accept: &str, offset: u64, token: Option<&str>) -> Result<Response<Body>, Failure> {
        let target = |https| Target { https, authority: self.authority.clone(), path: path.to_owned() };
        if let Some(https) = self.https.get() {
            return self.follow(target(*https), accept, offset, token);
        }
        let first = self.follow(target(true), accept, offset, token);
        let plain = target(false);
        if first.is_err() && plain.is_loopback() {
            let second = self.follow(plain, accept, offset, token)?;
            let _ = self.https.set(false);
            return Ok(second);
        }
        if first.is_ok() {
            let _ = self.https.set(true);
        }
        first
    }

    /// Follows redirects; the token goes only to the origin it was given for (CVE-2019-10214).
    fn follow(&self, start: Target, accept: &str, offset: u64, token: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut target = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let token = token.filter(|_| target.same_origin(&start));
            let response = self.send(&target, accept, offset, token)?;
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
                    target = target.redirected(location.unwrap_or(""))?;
                }
                status @ (408 | 425 | 429 | 500..=599) => {
                    let wait = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                    let error = Error::system(format!("registry {} answered with status {status}", self.name));
                    let error = match status {
                        429 => error
                            .with_cause("too many requests")
                            .with_hint("wait a few minutes, or log in where that raises the limit"),
                        _ => error.with_hint("the registry is out of order; try again later"),
                    };
                    return Err(Failure {
                        error: Box::new(error),
                        may_pass: true,
                        wait: wait.map(Duration::from_secs),
                    });
                }
                _ => return Ok(response),
            }
        }
        Err(Error::system(format!("registry {} redirects in a circle", self.name))
            .with_cause(format!("more than {MAX_REDIRECTS} redirects"))
            .with_hint("the registry is set up wrongly")
            .into())
    }

    fn send(&self, target: &Target, accept: &str, offset: u64, token: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request = Request::get(target.url()).header(header::ACCEPT, accept);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|e| Error::system("unusable request").with_cause(e.to_string()))?;
        let agent = match target.is_loopback() {
            true => self.inside.get_or_init(|| self.agent(true)),
            false => self.outside.get_or_init(|| self.agent(false)),
        };
        agent.run(request).map_err(|e| self.unreachable(target, e))
    }

    fn agent(&self, inside: bool) -> Agent {
        let roots = if inside { RootCerts::WebPki } else { trusted_roots() };
        let tls = TlsConfig::builder().root_certs(roots).disable_verification(inside).build();
        let p = &self.patience;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("rrun/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(INPUT_BUFFER)
            .timeout_connect(Some(p.connect))
            .timeout_recv_response(Some(p.idle))
            .timeout_per_read(Some(p.idle))
            .timeout_per_write(Some(p.idle))
            .tls_config(tls);
        if inside {
            config = config.proxy(None);
        }
        Agent::with_parts(config.build(), DefaultConnector::new(), SystemResolver)
    }

    /// Reads a body of at most `limit` bytes, in bounded time: a drip of bytes keeps no one waiting.
    pub fn read_whole(&self, response: Response<Body>, limit: u64) -> Result<Reply, Failure> {
        let (parts, body) = response.into_parts();
        let announced = body.content_length();
        let too_long = || {
            Error::invalid(format!(
                "registry {} sends more than {} MiB where a document belongs",
                self.name,
                limit >> 20
            ))
        };
        if announced.is_some_and(|n| n > limit) {
            return Err(too_long().into());
        }
        let deadline = Instant::now() + self.patience.document;
        let mut reader = body.into_reader();
        let mut bytes = Vec::new();
        let mut chunk = [0u8; 16 << 10];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body: bytes }),
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(e) => return Err(self.broken(e)),
            }
            if bytes.len() as u64 > limit {
                return Err(too_long().into());
            }
            if Instant::now() > deadline {
                return Err(self.too_slow());
            }
        }
    }

    pub fn too_slow(&self) -> Failure {
        Failure::passing(
            Error::system(format!("registry {} is too slow", self.name)).with_cause("hardly any bytes arrive"),
        )
    }

    /// A connection that broke while a body was read.
    pub fn broken(&self, e: std::io::Error) -> Failure {
        let error = Error::system(format!("the connection to registry {} broke", self.name));
        Failure::passing(
            error.with_cause(plain_cause(&ureq::Error::from(e))).with_hint("try again; what is complete is kept"),
        )
    }

    fn unreachable(&self, target: &Target, e: ureq::Error) -> Failure {
        let whom = match target.authority == self.authority {
            true => format!("registry {}", self.name),
            false => printable(&target.authority),
        };
        let cause = plain_cause(&e);
        let kind = if let ureq::Error::Io(io) = &e { Some(io.kind()) } else { None };
        // A registry that never answered is not waited for: a person wants to know at once.
        let answered = self.https.get().is_some();
        let (may_pass, hint) = match (&e, kind) {
            // What rustls has against the other side arrives as an I/O error.
            (ureq::Error::Rustls(_) | ureq::Error::Tls(_), _) | (_, Some(ErrorKind::InvalidData)) => {
                let hint = match cause.contains("certificate") {
                    true => "add the authority of its certificate to /etc/ssl/certs/ca-certificates.crt",
                    false => "does it speak TLS? Only registries on this machine are asked unencrypted",
                };
                (false, hint)
            }
            (ureq::Error::HostNotFound, _) => (false, "check the spelling of the registry's name"),
            (_, Some(ErrorKind::ConnectionRefused)) => (answered, "check that the registry is running, and its port"),
            (_, Some(ErrorKind::Other)) => (answered, "check the network and /etc/resolv.conf"),
            _ => (answered, "check the network, and HTTPS_PROXY if a proxy is needed"),
        };
        let error = Error::system(format!("{whom} cannot be reached")).with_cause(cause).with_hint(hint);
        Failure { error: Box::new(error), may_pass, wait: None }
    }
}

/// The innermost reason, in one line.
fn plain_cause(e: &ureq::Error) -> String {
    match e {
        ureq::Error::Io(io) => match io.raw_os_error() {
            Some(n) => plan::errno_name(n),
            None => printable(&io.to_string()),
        },
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::Rustls(e) => printable(&e.to_string()),
        other => printable(&other.to_string()),
    }
}

/// What the administrator of this machine trusts; without such a file, Mozilla's list as of the
/// build.
fn trusted_roots() -> RootCerts {
    let files = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    for file in files {
        let Ok(pem) = std::fs::read(file) else { continue };
        let certs: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if !certs.is_empty() {
            return RootCerts::Specific(Arc::new(certs));
        }
    }
    RootCerts::WebPki
}
