//! Requests to a registry: which scheme, which redirects, which headers to whom, and when to try again.

use super::agent::{inside, outside, plain_cause, unverified};
use super::auth;
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::target::Target;
use crate::manifest::printable;
use crate::progress::{Progress, ProgressEvent};
use plan::{Error, Result};
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Method, Request, Response, header};
use ureq::{Agent, AsSendBody, Body, SendBody};

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

/// What is asked of the registry's API.
pub(super) struct Ask<'r> {
    pub method: Method,
    /// From `/v2/` on, with the query.
    pub path: &'r str,
    pub accept: &'r str,
    /// Where in the document to begin.
    pub offset: u64,
    pub sent: Sent<'r>,
}

/// The body of a request. It can be sent again: after a token was fetched, after a failure.
#[derive(Clone, Copy)]
pub(super) enum Sent<'r> {
    Nothing,
    Document {
        media_type: &'r str,
        bytes: &'r [u8],
    },
    /// Opens anew for each attempt, `size` bytes.
    Blob {
        size: u64,
        open: &'r (dyn Fn() -> Result<Box<dyn Read + 'r>> + Sync),
    },
}

impl<'r> Ask<'r> {
    pub fn get(path: &'r str, accept: &'r str, offset: u64) -> Ask<'r> {
        Ask { method: Method::GET, path, accept, offset, sent: Sent::Nothing }
    }
}

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

/// One registry or mirror, for the duration of a pull or push; shared by its threads.
pub(super) struct Client<'a> {
    endpoint: Endpoint,
    /// What a token is asked for when the registry does not say: `repository:<path>:pull`.
    scope: String,
    /// Asked once, and only by a registry that wants to know.
    login: &'a (dyn Fn() -> Result<Option<Credential>> + Sync),
    pub patience: Patience,
    pub progress: &'a dyn Progress,
    /// Settled by the first answer.
    https: OnceLock<bool>,
    outside: OnceLock<Agent>,
    inside: OnceLock<Agent>,
    /// The `Authorization` header that the registry last accepted.
    authorization: Mutex<Option<String>>,
}

impl<'a> Client<'a> {
    /// `scope` in the words of the token protocol; empty for the registry as such.
    pub fn new(
        endpoint: Endpoint,
        scope: String,
        login: &'a (dyn Fn() -> Result<Option<Credential>> + Sync),
        patience: Patience,
        progress: &'a dyn Progress,
    ) -> Client<'a> {
        let https = OnceLock::new();
        if let Some(known) = endpoint.https {
            let _ = https.set(known);
        }
        Client {
            endpoint,
            scope,
            login,
            patience,
            progress,
            https,
            outside: OnceLock::new(),
            inside: OnceLock::new(),
            authorization: Mutex::new(None),
        }
    }

    /// As named by the user.
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// A whole document of at most `limit` bytes. Any final status is an answer; what may pass has
    /// been retried.
    pub fn document(&self, path: &str, accept: &str, limit: u64) -> Result<Reply> {
        self.patiently(|| self.ask(&Ask::get(path, accept, 0)).and_then(|response| self.read_whole(response, limit)))
    }

    /// One order to the registry and its short answer.
    pub fn order<'r>(&self, method: Method, path: &'r str, sent: Sent<'r>) -> Result<Reply> {
        let ask = Ask { method, path, accept: "*/*", offset: 0, sent };
        self.patiently(|| self.ask(&ask).and_then(|response| self.read_whole(response, MAX_REPLY)))
    }

    /// As [`Client::document`], from the token server, which is not the registry: it hears
    /// `authorization` (a login meant for it) and nothing else of ours.
    pub fn document_elsewhere(
        &self,
        target: &Target,
        authorization: Option<&str>,
        form: Option<&str>,
    ) -> Result<Reply> {
        let trusted = self.endpoint.insecure && target.authority == self.endpoint.authority;
        if !target.https && !target.is_loopback() && !trusted {
            return Err(Error::system(format!("{} wants to be asked unencrypted", printable(&target.authority)))
                .with_hint("the registry is set up wrongly, or somebody is in between"));
        }
        self.patiently(|| {
            let form =
                form.map(|f| Sent::Document { media_type: "application/x-www-form-urlencoded", bytes: f.as_bytes() });
            let method = if form.is_some() { Method::POST } else { Method::GET };
            let sent = form.unwrap_or(Sent::Nothing);
            let ask = Ask { method, path: "", accept: "application/json", offset: 0, sent };
            let response = self.follow(target.clone(), &ask, authorization)?;
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
    /// that a token or login would have cured, nothing that may pass.
    pub fn ask(&self, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.ask_as(ask, known.as_deref())?;
        if response.status() != 401 {
            return Ok(response);
        }
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = headers.iter().filter_map(|h| auth::parse_challenge(h.to_str().ok()?)).next();
        let Some(challenge) = challenge else { return Ok(response) };
        let login = (self.login)()?;
        let fresh = match (challenge.scheme.as_str(), &login) {
            ("bearer", login) => {
                // The body of this answer is nothing to anybody, and its connection is free again.
                drop(response);
                format!("Bearer {}", auth::fetch_token(self, &challenge, &self.scope, login.as_ref())?)
            }
            (_, Some(Credential::Password { user, secret })) => {
                let fresh = format!("Basic {}", super::credentials::basic(user, secret));
                if known.as_ref() == Some(&fresh) {
                    return Ok(response);
                }
                fresh
            }
            _ => return Ok(response),
        };
        let answer = self.ask_as(ask, Some(&fresh))?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(answer)
    }

    fn ask_as(&self, ask: &Ask<'_>, authorization: Option<&str>) -> Result<Response<Body>, Failure> {
        let Endpoint { authority, prefix, insecure, .. } = &self.endpoint;
        let target = |https| Target { https, authority: authority.clone(), path: format!("{prefix}{}", ask.path) };
        if let Some(https) = self.https.get() {
            return self.follow(target(*https), ask, authorization);
        }
        let first = self.follow(target(true), ask, authorization);
        let plain = target(false);
        if first.is_err() && (plain.is_loopback() || *insecure) {
            let second = self.follow(plain, ask, authorization)?;
            let _ = self.https.set(false);
            return Ok(second);
        }
        if first.is_ok() {
            let _ = self.https.set(true);
        }
        first
    }

    /// Where an upload goes on, out of the answer to its beginning: a path of this registry, or a
    /// place elsewhere, which hears no login of ours.
    pub fn upload_target(&self, location: &str) -> Result<Target> {
        let https = self.https.get().copied().unwrap_or(true);
        let path = format!("{}/v2/", self.endpoint.prefix);
        Target { https, authority: self.endpoint.authority.clone(), path }.redirected(location)
    }

    /// As [`Client::order`], to a place that the registry named.
    pub fn order_at(&self, method: Method, target: &Target, sent: Sent<'_>) -> Result<Reply> {
        let here = target.authority == self.endpoint.authority;
        self.patiently(|| {
            let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| here);
            let ask = Ask { method: method.clone(), path: "", accept: "*/*", offset: 0, sent };
            let response = self.follow(target.clone(), &ask, known.as_deref())?;
            self.read_whole(response, MAX_REPLY)
        })
    }

    /// Follows redirects; the token goes only to the origin it was given for (CVE-2019-10214).
    fn follow(&self, start: Target, ask: &Ask<'_>, authorization: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut target = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| target.same_origin(&start));
            let response = self.send(&target, ask, authorization)?;
            match response.status().as_u16() {
                // What changes something at the registry is not carried elsewhere.
                301 | 302 | 303 | 307 | 308 if matches!(ask.method, Method::GET | Method::HEAD) => {
                    let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
                    target = target.redirected(location.unwrap_or(""))?;
                }
                status @ (408 | 425 | 429 | 500..=599) => {
                    let wait = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                    let error = Error::system(format!("registry {} answered with status {status}", self.endpoint.name));
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
        Err(Error::system(format!("registry {} redirects in a circle", self.endpoint.name))
            .with_cause(format!("more than {MAX_REDIRECTS} redirects"))
            .with_hint("the registry is set up wrongly")
            .into())
    }

    fn send(&self, target: &Target, ask: &Ask<'_>, authorization: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request =
            Request::builder().method(ask.method.clone()).uri(target.url()).header(header::ACCEPT, ask.accept);
        if ask.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", ask.offset));
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        match ask.sent {
            Sent::Nothing if matches!(ask.method, Method::GET | Method::HEAD) => self.run(target, request.body(())),
            Sent::Nothing => self.run(target, request.body(&b""[..])),
            Sent::Document { media_type, bytes } => {
                self.run(target, request.header(header::CONTENT_TYPE, media_type).body(bytes))
            }
            Sent::Blob { size, open } => {
                let mut reader = open()?;
                let request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, size)
                    .body(SendBody::from_reader(&mut reader));
                self.run(target, request)
            }
        }
    }

    fn run(
        &self,
        target: &Target,
        request: std::result::Result<Request<impl AsSendBody>, ureq::http::Error>,
    ) -> Result<Response<Body>, Failure> {
        let request = request.map_err(|e| Error::system("unusable request").with_cause(e.to_string()))?;
        let agent = match target.is_loopback() {
            true => self.inside.get_or_init(|| inside(&self.patience)),
            false if self.endpoint.insecure && target.authority == self.endpoint.authority => {
                self.outside.get_or_init(|| unverified(&self.patience))
            }
            false => match self.outside.get() {
                Some(agent) => agent,
                None => {
                    let agent = outside(&self.endpoint, &self.patience)?;
                    self.outside.get_or_init(|| agent)
                }
            },
        };
        agent.run(request).map_err(|e| self.unreachable(target, e))
    }

    /// Reads a body of at most `limit` bytes, in bounded time: a drip of bytes keeps no one waiting.
    pub fn read_whole(&self, response: Response<Body>, limit: u64) -> Result<Reply, Failure> {
        let (parts, body) = response.into_parts();
        let announced = body.content_length();
        let too_long = || {
            Error::invalid(format!(
                "registry {} sends more than {} MiB where a document belongs",
                self.endpoint.name,
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
            Error::system(format!("registry {} is too slow", self.endpoint.name)).with_cause("hardly any bytes arrive"),
        )
    }

    /// A connection that broke while a body was read.
    pub fn broken(&self, e: std::io::Error) -> Failure {
        let error = Error::system(format!("the connection to registry {} broke", self.endpoint.name));
        Failure::passing(
            error.with_cause(plain_cause(&ureq::Error::from(e))).with_hint("try again; what is complete is kept"),
        )
    }

    fn unreachable(&self, target: &Target, e: ureq::Error) -> Failure {
        let whom = match target.authority == self.endpoint.authority {
            true => format!("registry {}", self.endpoint.name),
            false => printable(&target.authority),
        };
        let cause = plain_cause(&e);
        let kind = if let ureq::Error::Io(io) = &e { Some(io.kind()) } else { None };
        // A registry that never answered is not waited for: a person wants to know at once.
        let answered = self.https.get().is_some();
        let (may_pass, hint) = match (&e, kind) {
            // What rustls has against the other side arrives as an I/O error.
            (ureq::Error::Rustls(_) | ureq::Error::Tls(_), _) | (_, Some(ErrorKind::InvalidData)) => {
                let hint = if cause.contains("CaUsedAsEndEntity") {
                    // RFC 5280, 4.2.1.9; what `openssl req -x509` makes by default.
                    "its certificate is an authority's, not a server's: make it with basicConstraints=CA:FALSE"
                } else if cause.contains("certificate") {
                    "name its authority: [registries.\"HOST:PORT\"] ca = \"FILE.pem\" in the configuration"
                } else {
                    "does it speak TLS? [registries.\"HOST:PORT\"] insecure = true in the configuration allows plain HTTP"
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
