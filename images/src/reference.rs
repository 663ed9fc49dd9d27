//! Image names: `alpine`, `ghcr.example/team/app:1.2`, `localhost:5000/x@sha256:…`.
//!
//! The grammar is that of the distribution specification, the shorthand that of Docker: no domain
//! means `docker.io`, there one word means `library/<word>`, no tag and no digest means `latest`.

use crate::digest::Digest;
use plan::{Error, Result};
use std::fmt;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const INVALID: &str = "invalid reference format";

/// A complete name of an image. `Display` writes the short form that people type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as a person types it. Errors carry Docker's texts.
    pub fn parse(text: &str) -> Result<Reference> {
        if text.is_empty() {
            return Err(Error::invalid(INVALID).with_hint("give an image name, such as alpine:3.20"));
        }
        if text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            ))
            .with_hint("this looks like an image ID; name the image instead"));
        }
        let (text, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|e| e.context(INVALID))?)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(text);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{OFFICIAL}{path}"),
            false => path.to_owned(),
        };
        let lower = path.to_ascii_lowercase();
        if lower != path && lower.split('/').all(valid_component) {
            return Err(Error::invalid(format!("{INVALID}: repository name ({path}) must be lowercase"))
                .with_hint(format!("did you mean {}?", text.to_ascii_lowercase())));
        }
        if !valid_domain(domain) || !path.split('/').all(valid_component) || !tag.is_none_or(valid_tag) {
            return Err(Error::invalid(INVALID)
                .with_cause(format!("{text:?}"))
                .with_hint("a name reads [registry[:port]/]repository[:tag][@sha256:digest]"));
        }
        if path.len() > 255 {
            return Err(Error::invalid("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry as named, `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository in full: `docker.io/library/alpine`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// As people write the repository: `alpine`.
    pub fn familiar_repository(&self) -> String {
        // Only docker.io is left out, so that the short form reads back as the same name.
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The full form, which is the key in the store: `docker.io/library/alpine:latest`. A name with
    /// a digest drops its tag, because the digest alone decides what it means.
    pub fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, Some(tag)) => format!("{}:{tag}", self.repository()),
            (None, None) => self.repository(),
        }
    }

    /// The same repository at a digest.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a registry only if it cannot be a Docker Hub user: it has a dot, a port or
/// upper case, or is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|c| c.is_ascii_uppercase()) =>
        {
            // The old name of the same registry.
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(v6) => {
            let Some((address, rest)) = v6.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return valid_port(port),
                None => return rest.is_empty(),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |l: &str| {
        let b = l.as_bytes();
        !b.is_empty()
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
            && b[0] != b'-'
            && b[b.len() - 1] != b'-'
    };
    domain.len() <= 255 && host.split('.').all(label) && port.is_none_or(valid_port)
}

fn valid_port(port: &str) -> bool {
    port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn valid_component(component: &str) -> bool {
    let is_word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let b = component.as_bytes();
    if b.is_empty() || !is_word(b[0]) || !is_word(b[b.len() - 1]) {
        return false;
    }
    b.chunk_by(|x, y| is_word(*x) == is_word(*y))
        .all(|run| is_word(run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|c| *c == b'-'))
}

fn valid_tag(tag: &str) -> bool {
    let b = tag.as_bytes();
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    !b.is_empty() && b.len() <= 128 && word(b[0]) && b.iter().all(|c| word(*c) || matches!(c, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_people_type() {
        for (text, canonical, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/library/alpine:x", "docker.io/library/alpine:x", "alpine:x"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest", "bitnami/redis:latest"),
            ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("[fd00::1]/x", "[fd00::1]/x:latest", "[fd00::1]/x:latest"),
            ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
            ("reg.example/a__b/c--d.e_f:_.-", "reg.example/a__b/c--d.e_f:_.-", "reg.example/a__b/c--d.e_f:_.-"),
            ("alpine:V1", "docker.io/library/alpine:V1", "alpine:V1"),
        ] {
            let r = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(r.canonical(), canonical, "{text}");
            assert_eq!(r.to_string(), familiar, "{text}");
            assert_eq!(Reference::parse(&r.to_string()).unwrap(), r, "{text}");
            assert_eq!(Reference::parse(&r.canonical()).unwrap(), r, "{text}");
        }
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let r = Reference::parse(&format!("alpine@{D}")).unwrap();
        assert_eq!(r.canonical(), format!("docker.io/library/alpine@{D}"));
        assert_eq!(r.to_string(), format!("alpine@{D}"));
        let r = Reference::parse(&format!("alpine:3@{D}")).unwrap();
        assert_eq!((r.tag(), r.canonical()), (Some("3"), format!("docker.io/library/alpine@{D}")));
        assert_eq!(r.to_string(), format!("alpine:3@{D}"));
    }

    #[test]
    fn upper_case_gets_dockers_sentence() {
        let e = Reference::parse("Foo").unwrap_err();
        assert_eq!(e.message, "invalid reference format: repository name (library/Foo) must be lowercase");
        let e = Reference::parse("localhost:5000/a/B:x").unwrap_err();
        assert_eq!(e.message, "invalid reference format: repository name (a/B) must be lowercase");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            " ",
            "-",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:",
            ":a",
            "a:b:c",
            "a@",
            "@",
            "a@sha256:1",
            "a@b",
            "a..b",
            "a_-b",
            "a___b",
            ".a",
            "a.",
            "-rf",
            "../x",
            "a/../b",
            "a\n",
            "a\0",
            "é",
            "a:-x",
            "a:.x",
            "reg.example:/x",
            "reg.example:99999/x",
            "[::1/x",
            "[zz]/x",
            "-a.example/x",
            "http://a/b",
            "a?b",
            &long,
            &long_tag,
        ] {
            let e = Reference::parse(bad).expect_err(bad);
            assert!(e.kind == plan::Kind::Invalid && !e.to_string().contains('\n'), "{bad:?}: {e}");
        }
        let e = Reference::parse(&"ab".repeat(32)).unwrap_err();
        assert!(e.message.contains("cannot specify 64-byte hexadecimal strings"));
    }
}
