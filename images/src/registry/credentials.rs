//! Who the user is at a registry: Docker's `config.json`, and the helper programs it names.
//!
//! The file is shared with docker, podman and skopeo, so what rrun does not know in it is kept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use plan::{Error, Result, ResultExt};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        user: String,
        secret: String,
    },
    /// OAuth's refresh token, which a helper hands out instead of a password.
    Identity(String),
}

/// Never the secret itself: errors and logs are read by others (CVE-2019-13509).
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::Password { .. } => "Password",
            Credential::Identity(_) => "Identity",
        })
    }
}

/// Docker's user name for a secret that is a refresh token.
const TOKEN_USER: &str = "<token>";

/// `~/.docker/config.json`.
#[derive(Clone, Debug)]
pub struct Keyring {
    path: PathBuf,
}

impl Keyring {
    pub fn at(path: &Path) -> Keyring {
        Keyring { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept for a registry (`docker.io`, `reg.example:5000`).
    ///
    /// # Errors
    /// A damaged file, a helper that is missing or fails.
    pub fn find(&self, registry: &str) -> Result<Option<Credential>> {
        let config = self.load()?;
        if let Some(helper) = helper_of(&config, registry) {
            return helper_get(&helper, key_of(registry));
        }
        let Some(entry) = entry_key(&config, registry).and_then(|key| config["auths"].get(key)) else {
            return Ok(None);
        };
        let text = |name: &str| entry[name].as_str().filter(|t| !t.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::Identity(token.to_owned())));
        }
        if let Some((user, secret)) = text("username").zip(text("password")) {
            return Ok(Some(Credential::Password { user: user.to_owned(), secret: secret.to_owned() }));
        }
        let Some(auth) = text("auth") else { return Ok(None) };
        let plain = BASE64_STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match plain.as_deref().map(|p| p.trim_end_matches('\0')).and_then(|p| p.split_once(':')) {
            Some((user, secret)) => Ok(Some(Credential::Password { user: user.to_owned(), secret: secret.to_owned() })),
            None => Err(Error::invalid(format!("{}: the login for {registry} is damaged", self.path.display()))
                .with_hint(format!("rrun logout {registry}, then rrun login {registry}"))),
        }
    }

    /// Keeps a credential. Returns whether it went into the file itself, readable by whoever reads the file.
    ///
    /// # Errors
    /// As [`Keyring::find`]; a file that cannot be written.
    pub fn store(&self, registry: &str, credential: &Credential) -> Result<bool> {
        let mut config = self.load()?;
        let key = key_of(registry);
        if let Some(helper) = helper_of(&config, registry) {
            let (user, secret) = match credential {
                Credential::Password { user, secret } => (user.as_str(), secret.as_str()),
                Credential::Identity(token) => (TOKEN_USER, token.as_str()),
            };
            let order = json!({"ServerURL": key, "Username": user, "Secret": secret}).to_string();
            let (ok, answer) = helper_run(&helper, "store", &order)?;
            if !ok {
                return Err(helper_failed(&helper, &answer));
            }
            // Docker leaves an empty entry, by which its tools know that the helper has one.
            config["auths"][key] = json!({});
            self.save(&config)?;
            return Ok(false);
        }
        config["auths"][key] = match credential {
            Credential::Password { user, secret } => json!({"auth": basic(user, secret)}),
            Credential::Identity(token) => json!({"auth": basic(TOKEN_USER, ""), "identitytoken": token}),
        };
        self.save(&config)?;
        Ok(true)
    }

    /// Forgets a registry. Returns whether there was something to forget.
    ///
    /// # Errors
    /// As [`Keyring::store`].
    pub fn erase(&self, registry: &str) -> Result<bool> {
        let mut config = self.load()?;
        let mut known = false;
        if let Some(helper) = helper_of(&config, registry) {
            known = helper_run(&helper, "erase", key_of(registry))?.0;
        }
        if let Some(key) = entry_key(&config, registry).map(str::to_owned)
            && let Some(auths) = config["auths"].as_object_mut()
        {
            known |= auths.shift_remove(&key).is_some();
            self.save(&config)?;
        }
        Ok(known)
    }

    fn load(&self) -> Result<Value> {
        let bytes = match std::fs::read(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(json!({})),
            other => other.doing(|| format!("read {}", self.path.display()))?,
        };
        let config: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match config.is_object() {
            true => Ok(config),
            false => Err(Error::invalid(format!("{} is not a JSON object", self.path.display()))
                .with_hint("correct it, or move it away and log in again")),
        }
    }

    fn save(&self, config: &Value) -> Result<()> {
        // A file kept elsewhere and linked here stays linked.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let doing = || format!("write {}", path.display());
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(doing)?;
        }
        let tmp = path.with_extension(format!("tmp-{}", std::process::id()));
        let write = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
            file.write_all(format!("{config:#}\n").as_bytes())?;
            std::fs::rename(&tmp, &path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&tmp))).doing(doing)
    }
}

/// `user:secret` as it stands in a header and in the file.
pub(super) fn basic(user: &str, secret: &str) -> String {
    BASE64_STANDARD.encode(format!("{user}:{secret}"))
}

/// Docker files its Hub under the address of an API that has long gone.
fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

/// The entry of a registry: older programs wrote URLs.
fn entry_key<'c>(config: &'c Value, registry: &str) -> Option<&'c str> {
    let auths = config["auths"].as_object()?;
    let bare = |key: &str| {
        let rest = key.trim_start_matches("https://").trim_start_matches("http://");
        rest.split('/').next().unwrap_or(rest).to_owned()
    };
    let exact = auths.keys().find(|k| *k == key_of(registry));
    let found = exact.or_else(|| auths.keys().find(|k| bare(k) == bare(key_of(registry))))?;
    Some(found)
}

fn helper_of(config: &Value, registry: &str) -> Option<String> {
    let own = config["credHelpers"].get(key_of(registry)).or_else(|| config["credHelpers"].get(registry));
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn helper_get(helper: &str, key: &str) -> Result<Option<Credential>> {
    let (ok, answer) = helper_run(helper, "get", key)?;
    if !ok {
        return match answer.contains("credentials not found") {
            true => Ok(None),
            false => Err(helper_failed(helper, &answer)),
        };
    }
    let reply: Value = serde_json::from_str(&answer).map_err(|_| helper_failed(helper, "its answer is not JSON"))?;
    let text = |name: &str| reply[name].as_str().unwrap_or_default().to_owned();
    Ok(Some(match reply["Username"].as_str() {
        Some(TOKEN_USER) => Credential::Identity(text("Secret")),
        _ => Credential::Password { user: text("Username"), secret: text("Secret") },
    }))
}

/// Runs `docker-credential-<helper> <verb>`: one line or document in, one out.
fn helper_run(helper: &str, verb: &str, input: &str) -> Result<(bool, String)> {
    // It becomes the name of a program.
    if !helper.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        return Err(Error::invalid(format!("credential helper {helper:?}: not a program's name")));
    }
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| format!("run {program}"))
        .map_err(|e| e.with_hint(format!("install it, or take \"{helper}\" out of Docker's config.json")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended without reading says why on its output.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().doing(|| format!("wait for {program}"))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

fn helper_failed(helper: &str, why: &str) -> Error {
    Error::system(format!("docker-credential-{helper} failed")).with_cause(crate::manifest::printable(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn password(user: &str, secret: &str) -> Credential {
        Credential::Password { user: user.into(), secret: secret.into() }
    }

    #[test]
    fn what_is_kept_is_found_and_the_rest_of_the_file_stays() {
        let scratch = Scratch::new();
        let path = scratch.dir.join("docker/config.json");
        let keyring = Keyring::at(&path);
        assert!(keyring.find("reg.example").unwrap().is_none());
        assert!(keyring.store("reg.example", &password("u", "p:q")).unwrap());
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["psFormat"] = json!("x");
        config["auths"]["https://old.example/v1/"] = json!({"auth": basic("o", "old")});
        std::fs::write(&path, config.to_string()).unwrap();
        assert_eq!(keyring.find("reg.example").unwrap(), Some(password("u", "p:q")));
        assert_eq!(keyring.find("old.example").unwrap(), Some(password("o", "old")));
        keyring.store("docker.io", &Credential::Identity("refresh".into())).unwrap();
        assert_eq!(keyring.find("docker.io").unwrap(), Some(Credential::Identity("refresh".into())));
        assert!(keyring.erase("reg.example").unwrap());
        assert!(!keyring.erase("reg.example").unwrap());
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(config["psFormat"], "x");
        assert!(config["auths"].get("https://index.docker.io/v1/").is_some());
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn damaged_files_are_named() {
        let scratch = Scratch::new();
        let path = scratch.dir.join("config.json");
        let keyring = Keyring::at(&path);
        std::fs::write(&path, "[]").unwrap();
        assert!(keyring.find("x").unwrap_err().message.contains("not a JSON object"));
        std::fs::write(&path, r#"{"auths":{"x":{"auth":"!"}}}"#).unwrap();
        assert!(keyring.find("x").unwrap_err().message.contains("damaged"));
        std::fs::write(&path, r#"{"credsStore":"../../bin/sh"}"#).unwrap();
        assert!(keyring.find("x").unwrap_err().message.contains("not a program's name"));
        std::fs::write(&path, r#"{"credsStore":"surely-missing"}"#).unwrap();
        assert!(keyring.find("x").unwrap_err().message.contains("docker-credential-surely-missing"));
    }
}
