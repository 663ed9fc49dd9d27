//! Pulls from a registry made for the occasion, polite and hostile.

use super::*;
use crate::progress::Silent;
use crate::testing::{Scratch, gzip, image, tar_of};
use http::Patience;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the registry does with a path: the body and everything around it.
#[derive(Clone, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sends only so many bytes of the body, then hangs up.
    cut: Option<usize>,
    /// One byte at a time, with pauses that keep the connection alive.
    drip: bool,
    /// Does not say how long the body is.
    unbounded: bool,
}

fn ok(content_type: &str, body: &[u8]) -> Answer {
    Answer { status: 200, body: body.to_vec(), ..Answer::default() }.with("Content-Type", content_type)
}

impl Answer {
    fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Answers of each path in order; the last one stays.
type Script = Arc<Mutex<HashMap<String, Vec<Answer>>>>;

/// Every request: path and headers.
type Log = Arc<Mutex<Vec<(String, HashMap<String, String>)>>>;

struct Fake {
    port: u16,
    script: Script,
    log: Log,
}

impl Fake {
    fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Fake { port: listener.local_addr().unwrap().port(), script: Script::default(), log: Arc::default() };
        let (script, log) = (fake.script.clone(), fake.log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, log) = (script.clone(), log.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &script, &log));
            }
        });
        fake
    }

    fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().insert(path.to_owned(), answers.into_iter().collect());
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Publishes an image of gzip layers as `t:1`; returns its manifest.
    fn publish(&self, layers: &[Vec<u8>]) -> Vec<u8> {
        let blobs: Vec<Vec<u8>> = layers.iter().map(|l| gzip(l)).collect();
        let (config, manifest) = image(&blobs, layers);
        for blob in blobs.iter().chain([&config]) {
            self.on(&blob_path(blob), [ok("application/octet-stream", blob)]);
        }
        self.on("/v2/t/manifests/1", [ok(OCI_MANIFEST, &manifest)]);
        self.on(&format!("/v2/t/manifests/{}", Digest::of(&manifest)), [ok(OCI_MANIFEST, &manifest)]);
        manifest
    }

    fn requests(&self, path: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|(p, _)| p == path).count()
    }

    fn pull(&self, store: &Store, name: &str) -> Result<Pulled> {
        self.pull_for(store, name, None)
    }

    fn pull_for(&self, store: &Store, name: &str, platform: Option<&str>) -> Result<Pulled> {
        let options = PullOptions { platform: platform.map(str::to_owned), ..PullOptions::default() };
        pull_patiently(store, &self.reference(name), &options, &Silent, hasty())
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }

    /// The registry as reached by its own name, with a file for logins.
    fn registries(&self, scratch: &Scratch) -> Registries {
        Registries { login: Some(scratch.dir.join("config.json")), ..Registries::default() }
    }

    fn requests_log(&self) -> Vec<(String, HashMap<String, String>)> {
        self.log.lock().unwrap().clone()
    }
}

fn hasty() -> Patience {
    let ms = Duration::from_millis;
    Patience {
        retries: 3,
        pause: ms(1),
        longest: ms(20),
        idle: ms(500),
        connect: ms(500),
        document: ms(300),
        crawl: ms(300),
    }
}

fn blob_path(blob: &[u8]) -> String {
    format!("/v2/t/blobs/{}", Digest::of(blob))
}

fn serve(stream: TcpStream, script: &Script, log: &Log) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        // The first byte of a TLS hello: we speak plain HTTP, and say so by hanging up.
        match reader.fill_buf() {
            Ok(start) if !start.is_empty() && start[0] != 0x16 => {}
            _ => break,
        }
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        // A GET is scripted by its path, anything else with its method.
        let path = if method == "GET" { target.to_owned() } else { format!("{method} {target}") };
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
                break;
            }
            let (name, value) = header.trim_end().split_once(": ").unwrap();
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|l: &String| l.parse().ok()).unwrap_or(0);
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent).unwrap();
        if length > 0 {
            headers.insert("body".to_owned(), String::from_utf8_lossy(&sent).into_owned());
        }
        let range =
            headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        log.lock().unwrap().push((path.clone(), headers));
        let answer = {
            let mut script = script.lock().unwrap();
            match script.get_mut(&path) {
                Some(answers) if answers.len() > 1 => answers.remove(0),
                Some(answers) => answers[0].clone(),
                None => Answer::status(404),
            }
        };
        let ranged = range.filter(|_| answer.status == 206);
        let status = if answer.status == 206 && ranged.is_none() { 200 } else { answer.status };
        let body = &answer.body[ranged.unwrap_or(0)..];
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        if let Some(from) = ranged {
            head += &format!("Content-Range: bytes {from}-{}/{}\r\n", answer.body.len() - 1, answer.body.len());
        }
        if !answer.unbounded {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = &body[..answer.cut.unwrap_or(body.len()).min(body.len())];
        let body = if method == "HEAD" { &[][..] } else { body };
        let sent =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"\r\n")).and_then(|()| {
                match answer.drip {
                    false => stream.write_all(body),
                    true => body.chunks(1).try_for_each(|byte| {
                        std::thread::sleep(Duration::from_millis(20));
                        stream.write_all(byte)
                    }),
                }
            });
        if sent.is_err() || answer.cut.is_some() || answer.unbounded {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn layers() -> Vec<Vec<u8>> {
    vec![tar_of(&[("a", &[7; 300_000]), ("dir/b", b"hello")]), tar_of(&[("dir/.wh.b", b""), ("c", b"see")])]
}

/// Nothing of a failed pull may be seen.
fn assert_nothing_visible(store: &Store) {
    assert!(store.images().unwrap().is_empty());
    let tmp: Vec<_> = std::fs::read_dir(store.root().join("tmp")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(tmp, ["content.lock"]);
}

/// As above, and of a broken image nothing stays at all.
fn assert_nothing_left(store: &Store) {
    assert_nothing_visible(store);
    let layers = std::fs::read_dir(store.root().join("layers"))
        .map_or(0, |d| d.filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".lock")).count());
    assert_eq!(layers, 0);
    assert_eq!(std::fs::read_dir(store.root().join("blobs/sha256")).map_or(0, Iterator::count), 0);
}

#[test]
fn a_pull_and_its_repetition() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let manifest = fake.publish(&layers());
    let pulled = fake.pull(&scratch.store, "t:1").unwrap();
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.digest, Digest::of(&manifest).to_string());
    let name = format!("127.0.0.1:{}/t", fake.port);
    assert_eq!(pulled.image.repo_tags, [format!("{name}:1")]);
    assert_eq!(pulled.image.repo_digests, [format!("{name}@{}", pulled.digest)]);
    assert_eq!(pulled.image.config.env, ["A=b"]);

    let (base, lower) = scratch.store.lower(&pulled.image);
    assert_eq!(lower.len(), 2);
    assert_eq!(std::fs::read(base.join(&lower[0]).join("c")).unwrap(), b"see");
    assert_eq!(std::fs::read(base.join(&lower[1]).join("dir/b")).unwrap(), b"hello");

    let again = fake.pull(&scratch.store, "t:1").unwrap();
    assert!(again.up_to_date);
    let by_digest = fake.pull(&scratch.store, &format!("t@{}", pulled.digest)).unwrap();
    assert!(by_digest.up_to_date);
    assert_eq!(fake.requests("/v2/t/manifests/1"), 2);
    let found = scratch.store.find(&pulled.image.id[7..19]).unwrap().unwrap();
    assert_eq!(found.id, pulled.image.id);
}

#[test]
fn an_index_is_searched_for_the_platform() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let manifest = fake.publish(&layers());
    let digest = Digest::of(&manifest);
    let entry = |arch: &str, digest: &str| {
        serde_json::json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len(),
            "platform": {"os": "linux", "architecture": arch}})
    };
    let other = format!("sha256:{}", "0".repeat(64));
    let index =
        serde_json::json!({"schemaVersion": 2, "manifests": [entry("s390x", &other), entry("amd64", digest.as_str())]});
    let index = index.to_string();
    fake.on("/v2/t/manifests/multi", [ok(OCI_INDEX, index.as_bytes())]);
    let pulled = fake.pull_for(&scratch.store, "t:multi", Some("linux/amd64")).unwrap();
    assert_eq!(pulled.digest, Digest::of(index.as_bytes()).to_string());
    assert_eq!(pulled.image.manifest, digest.to_string());
    let e = fake.pull_for(&scratch.store, "t:multi", Some("linux/arm64")).unwrap_err();
    assert_eq!(e.message, "no matching manifest for linux/arm64 in the manifest list entries");
    // A single manifest has no choice, but its configuration tells.
    let e = fake.pull_for(&scratch.store, "t:1", Some("linux/arm64")).unwrap_err();
    assert!(e.message.contains("does not match the specified platform (linux/arm64)"), "{e}");
}

#[test]
fn the_token_goes_to_the_registry_and_nowhere_else() {
    let (fake, elsewhere, scratch) = (Fake::start(), Fake::start(), Scratch::new());
    let contents = layers();
    let manifest = fake.publish(&contents);
    let challenge = format!(r#"Bearer realm="{}",service="s""#, elsewhere.url("/token?x=1"));
    fake.on(
        "/v2/t/manifests/1",
        [Answer::status(401).with("WWW-Authenticate", &challenge), ok(OCI_MANIFEST, &manifest)],
    );
    let token_path = "/token?x=1&service=s&scope=repository%3At%3Apull";
    elsewhere.on(token_path, [ok("application/json", br#"{"token":"sesame"}"#)]);
    let blob = gzip(&contents[0]);
    let location = elsewhere.url("/cdn/blob?sig=1");
    fake.on(&blob_path(&blob), [Answer::status(307).with("Location", &location)]);
    elsewhere.on("/cdn/blob?sig=1", [ok("", &blob)]);
    fake.pull(&scratch.store, "t:1").unwrap();

    let log = fake.log.lock().unwrap();
    assert!(!log[0].1.contains_key("authorization"));
    assert!(log[1..].iter().all(|(_, h)| h.get("authorization").is_some_and(|a| a == "Bearer sesame")));
    let log = elsewhere.log.lock().unwrap();
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|(_, h)| !h.contains_key("authorization")));
}

#[test]
fn refusals_in_dockers_words() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let basic = Answer::status(401).with("WWW-Authenticate", r#"Basic realm="x""#);
    fake.on("/v2/t/manifests/private", [basic]);
    fake.on("/v2/t/manifests/page", [ok("text/html", b"<HTML><body>Sign in</body>")]);
    fake.on("/v2/t/manifests/loop", [Answer::status(302).with("Location", "/v2/t/manifests/loop")]);
    fake.on("/v2/t/manifests/down", [Answer::status(503)]);
    fake.on("/v2/t/manifests/huge", [ok(OCI_MANIFEST, &vec![b' '; (MAX_DOCUMENT + 1) as usize])]);
    let endless = Answer { unbounded: true, ..ok(OCI_MANIFEST, &vec![b' '; (MAX_DOCUMENT + 1) as usize]) };
    fake.on("/v2/t/manifests/endless", [endless]);
    fake.on("/v2/t/manifests/drip", [Answer { drip: true, ..ok(OCI_MANIFEST, &[b' '; 1000]) }]);
    fake.on("/v2/t/manifests/both", [ok(OCI_INDEX, br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#)]);
    fake.on("/v2/t/manifests/lie", [ok(OCI_INDEX, b"{}").with("Docker-Content-Digest", "sha256:0")]);
    for (tag, words) in [
        ("private", "pull access denied for"),
        ("nope", "not found: status 404"),
        ("page", "answered with a web page"),
        ("loop", "redirects in a circle"),
        ("down", "status 503"),
        ("huge", "more than 4 MiB"),
        ("endless", "more than 4 MiB"),
        ("drip", "too slow"),
        ("both", "at once"),
        ("lie", "does not match its digest"),
    ] {
        let e = fake.pull(&scratch.store, &format!("t:{tag}")).unwrap_err().to_string();
        assert!(e.contains(words) && !e.contains('\n'), "{tag}: {e}");
    }
    assert_eq!(fake.requests("/v2/t/manifests/down"), 4);
    assert_nothing_visible(&scratch.store);
}

#[test]
fn what_may_pass_is_tried_again() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let contents = layers();
    let manifest = fake.publish(&contents);
    let busy = Answer::status(429).with("Retry-After", "1000");
    fake.on("/v2/t/manifests/1", [busy, Answer::status(500), ok(OCI_MANIFEST, &manifest)]);
    let blob = gzip(&contents[0]);
    // Broken once with ranges, once without, then whole.
    let ranged = Answer { status: 206, cut: Some(blob.len() / 3), ..ok("", &blob) };
    let plain = Answer { cut: Some(blob.len() / 2), ..ok("", &blob) };
    fake.on(&blob_path(&blob), [ranged.clone(), plain, ranged, ok("", &blob)]);
    fake.pull(&scratch.store, "t:1").unwrap();
    let path = blob_path(&blob);
    let ranges: Vec<Option<String>> =
        fake.log.lock().unwrap().iter().filter(|(p, _)| *p == path).map(|(_, h)| h.get("range").cloned()).collect();
    let third = blob.len() / 3;
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1], Some(format!("bytes={third}-")));
    assert_eq!(ranges.len(), 4);
}

#[test]
fn hostile_blobs_leave_nothing() {
    let contents = layers();
    let blob = gzip(&contents[0]);
    let (mut longer, mut other) = (blob.clone(), blob.clone());
    longer.push(0);
    let last = other.len() - 1;
    other[last] ^= 1;
    for (answer, words) in [
        (ok("", &blob[..blob.len() - 1]), "the size is wrong"),
        (ok("", &longer), "the size is wrong"),
        (Answer { unbounded: true, ..ok("", &longer) }, "the size is wrong"),
        (ok("", &other), "does not match the digest"),
        (ok("", &vec![b'x'; blob.len()]), "does not match the digest"),
        (Answer { cut: Some(10), ..ok("", &blob) }, "broke"),
        (Answer { cut: Some(10), unbounded: true, ..ok("", &blob) }, "broke"),
        (Answer { drip: true, ..ok("", &blob) }, "too slow"),
        (Answer::status(404), "does not have it"),
        (Answer::status(307).with("Location", "http://reg.example/x"), "unencrypted"),
    ] {
        let (fake, scratch) = (Fake::start(), Scratch::new());
        fake.publish(&contents);
        fake.on(&blob_path(&blob), [answer]);
        let e = fake.pull(&scratch.store, "t:1").unwrap_err().to_string();
        assert!(e.contains(words) && e.contains(Digest::of(&blob).short()), "{words}: {e}");
        assert_nothing_visible(&scratch.store);
        if e.contains("size") || e.contains("digest") {
            assert_nothing_left(&scratch.store);
        }
    }
}

#[test]
fn a_configuration_that_lies_about_its_layers_is_refused() {
    let contents = layers();
    let blobs: Vec<Vec<u8>> = contents.iter().map(|l| gzip(l)).collect();
    // The diff IDs of other layers; then one too few.
    let lies = [vec![contents[1].clone(), contents[0].clone()], vec![contents[0].clone()]];
    for (lie, words) in std::iter::zip(lies, ["does not match the diff ID", "disagree"]) {
        let (fake, scratch) = (Fake::start(), Scratch::new());
        let (config, manifest) = image(&blobs, &lie);
        for blob in blobs.iter().chain([&config]) {
            fake.on(&blob_path(blob), [ok("", blob)]);
        }
        fake.on("/v2/t/manifests/1", [ok(OCI_MANIFEST, &manifest)]);
        let e = fake.pull(&scratch.store, "t:1").unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        assert_nothing_left(&scratch.store);
    }
}

#[test]
fn concurrent_pulls_fetch_each_layer_once() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let contents = layers();
    fake.publish(&contents);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| fake.pull(&scratch.store, "t:1").unwrap());
        }
    });
    for layer in &contents {
        assert_eq!(fake.requests(&blob_path(&gzip(layer))), 1);
    }
    assert_eq!(scratch.store.images().unwrap().len(), 1);
}

#[test]
fn a_damaged_store_is_mended_by_a_pull() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    fake.publish(&layers());
    let pulled = fake.pull(&scratch.store, "t:1").unwrap();
    let config = scratch.store.root().join("blobs/sha256").join(&pulled.image.id[7..]);
    std::fs::write(&config, b"{}").unwrap();
    assert!(scratch.store.find(&pulled.image.id).unwrap_err().to_string().contains("does not match its name"));
    assert_eq!(scratch.store.images().unwrap()[0].repo_tags, pulled.image.repo_tags);
    assert!(!fake.pull(&scratch.store, "t:1").unwrap().up_to_date);
    assert_eq!(scratch.store.find(&pulled.image.id).unwrap().unwrap().config.env, ["A=b"]);
}

#[test]
fn nobody_listens() {
    let scratch = Scratch::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let r = Reference::parse(&format!("127.0.0.1:{port}/t")).unwrap();
    let e = pull(&scratch.store, &r, &PullOptions::default(), &Silent).unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("registry 127.0.0.1:{port} cannot be reached: connection refused (ECONNREFUSED)")
    );
    assert!(e.hint.is_some());
}

/// An image in the scratch store under a name of the fake registry; its manifest and blobs.
fn local(fake: &Fake, scratch: &Scratch) -> (Vec<u8>, Vec<Vec<u8>>) {
    let source = Fake::start();
    let contents = layers();
    let manifest = source.publish(&contents);
    let pulled = source.pull(&scratch.store, "t:1").unwrap();
    scratch.store.tag(&pulled.image, &fake.reference("u:2")).unwrap();
    (manifest, contents.iter().map(|l| gzip(l)).collect())
}

#[test]
fn a_push_sends_what_is_missing_and_the_manifest_last() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let (manifest, blobs) = local(&fake, &scratch);
    fake.on(&format!("HEAD /v2/u/blobs/{}", Digest::of(&blobs[0])), [Answer::status(200)]);
    let opened = |n: u8| Answer::status(202).with("Location", &format!("/v2/u/blobs/uploads/{n}?state=x"));
    fake.on("POST /v2/u/blobs/uploads/", [opened(1), opened(2)]);
    let missing = Digest::of(&blobs[1]);
    let document: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let config = document["config"]["digest"].as_str().unwrap().to_owned();
    let put =
        |n: u8, digest: &str| format!("PUT /v2/u/blobs/uploads/{n}?state=x&digest={}", digest.replace(':', "%3A"));
    // Fails once, and is begun anew.
    fake.on(&put(1, missing.as_str()), [Answer::status(503), Answer::status(201)]);
    fake.on(&put(2, &config), [Answer::status(201)]);
    fake.on("PUT /v2/u/manifests/2", [Answer::status(201)]);
    let r = fake.reference("u:2");
    let pushed = push::push_patiently(&scratch.store, &r, &Registries::default(), &Silent, hasty()).unwrap();
    assert_eq!(pushed.digest, Digest::of(&manifest).to_string());
    let log = fake.requests_log();
    let bodies: Vec<_> = log.iter().filter(|(p, _)| p.starts_with("PUT")).collect();
    assert_eq!(bodies.len(), 4);
    assert_eq!(bodies[3].0, "PUT /v2/u/manifests/2");
    assert_eq!(bodies[3].1["body"].as_bytes(), manifest);
    assert_eq!(bodies[1].1["content-length"], blobs[1].len().to_string());
    let e = push::push_patiently(&scratch.store, &fake.reference("u:9"), &Registries::default(), &Silent, hasty());
    assert!(e.unwrap_err().message.starts_with("An image does not exist locally with the tag: "));
    for there in [missing.as_str(), &config] {
        fake.on(&format!("HEAD /v2/u/blobs/{there}"), [Answer::status(200)]);
    }
    fake.on("PUT /v2/u/manifests/2", [Answer::status(403)]);
    let e = push::push_patiently(&scratch.store, &r, &Registries::default(), &Silent, hasty()).unwrap_err();
    assert!(e.to_string().contains("push access denied to"), "{e}");
}

#[test]
fn a_login_goes_to_the_registry_or_its_token_server_only() {
    let (fake, elsewhere, scratch) = (Fake::start(), Fake::start(), Scratch::new());
    let contents = layers();
    let manifest = fake.publish(&contents);
    let registries = fake.registries(&scratch);
    let keyring = Keyring::at(registries.login.as_ref().unwrap());
    let name = format!("127.0.0.1:{}", fake.port);
    keyring.store(&name, &Credential::Password { user: "me".into(), secret: "sesame".into() }).unwrap();
    let options = PullOptions { registries, ..PullOptions::default() };
    let blob = gzip(&contents[0]);
    fake.on(&blob_path(&blob), [Answer::status(307).with("Location", &elsewhere.url("/cdn"))]);
    elsewhere.on("/cdn", [ok("", &blob)]);

    let basic = Answer::status(401).with("WWW-Authenticate", r#"Basic realm="x""#);
    fake.on("/v2/t/manifests/1", [basic, ok(OCI_MANIFEST, &manifest)]);
    pull_patiently(&scratch.store, &fake.reference("t:1"), &options, &Silent, hasty()).unwrap();
    // "me:sesame"
    assert!(fake.requests_log()[1..].iter().all(|(_, h)| h["authorization"] == "Basic bWU6c2VzYW1l"));
    assert!(elsewhere.requests_log().iter().all(|(_, h)| !h.contains_key("authorization")));

    scratch.store.remove(&fake.reference("t:1").canonical(), true, &|_| None).unwrap();
    let challenge = format!(r#"Bearer realm="{}",service="s""#, elsewhere.url("/token"));
    fake.on(
        "/v2/t/manifests/1",
        [Answer::status(401).with("WWW-Authenticate", &challenge), ok(OCI_MANIFEST, &manifest)],
    );
    let token = "/token?service=s&scope=repository%3At%3Apull&account=me";
    elsewhere.on(token, [ok("application/json", br#"{"token":"t1"}"#)]);
    pull_patiently(&scratch.store, &fake.reference("t:1"), &options, &Silent, hasty()).unwrap();
    let log = elsewhere.requests_log();
    let asked = log.iter().find(|(p, _)| p == token).unwrap();
    assert_eq!(asked.1["authorization"], "Basic bWU6c2VzYW1l");
    assert_eq!(fake.requests_log().last().unwrap().1["authorization"], "Bearer t1");

    elsewhere.on(token, [Answer::status(401)]);
    let e = pull_patiently(&scratch.store, &fake.reference("t:none"), &options, &Silent, hasty());
    assert!(e.is_err());
    fake.on("/v2/", [Answer::status(401).with("WWW-Authenticate", r#"Basic realm="x""#)]);
    let credential = Credential::Password { user: "me".into(), secret: "wrong".into() };
    let e = log_in(&options.registries, &name, &credential).unwrap_err();
    assert_eq!(e.message, "unauthorized: incorrect username or password");
    fake.on("/v2/", [Answer::status(401).with("WWW-Authenticate", r#"Basic realm="x""#), ok("", b"{}")]);
    log_in(&options.registries, &name, &credential).unwrap();
}

#[test]
fn a_mirror_is_asked_first_and_passed_over_when_it_fails() {
    let (fake, mirror, scratch) = (Fake::start(), Fake::start(), Scratch::new());
    let contents = layers();
    let manifest = fake.publish(&contents);
    let name = format!("127.0.0.1:{}", fake.port);
    let registry = Registry { mirrors: vec![mirror.url("/cache/")], ..Registry::default() };
    let registries = Registries { hosts: [(name, registry)].into(), login: None };
    let options = PullOptions { registries, ..PullOptions::default() };
    let pull = || pull_patiently(&scratch.store, &fake.reference("t:1"), &options, &Silent, hasty()).unwrap();

    pull();
    assert!(mirror.requests("/cache/v2/t/manifests/1") > 0 && fake.requests("/v2/t/manifests/1") == 1);
    // A mirror that lies about a layer is no better than none.
    scratch.store.remove(&fake.reference("t:1").canonical(), true, &|_| None).unwrap();
    let blob = |bytes: &[u8]| format!("/cache{}", blob_path(bytes));
    let whole: Vec<Vec<u8>> = contents.iter().map(|l| gzip(l)).collect();
    let config = image(&whole, &contents).0;
    mirror.on("/cache/v2/t/manifests/1", [ok(OCI_MANIFEST, &manifest)]);
    mirror.on(&blob(&config), [ok("", &config)]);
    mirror.on(&blob(&whole[0]), [ok("", &whole[0])]);
    mirror.on(&blob(&whole[1]), [ok("", b"lie")]);
    pull();
    assert_eq!(fake.requests("/v2/t/manifests/1"), 2);
    // A whole one spares the registry.
    scratch.store.remove(&fake.reference("t:1").canonical(), true, &|_| None).unwrap();
    mirror.on(&blob(&whole[1]), [ok("", &whole[1])]);
    pull();
    assert_eq!(fake.requests("/v2/t/manifests/1"), 2);
}
