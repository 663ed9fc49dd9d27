//! URLs, and where a redirect may lead.

use super::resolve::is_localhost;
use crate::manifest::printable;
use plan::{Error, Result};
use ureq::http::Uri;

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub https: bool,
    /// Host and port, lower case.
    pub authority: String,
    pub path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Target> {
        let bad = || Error::system(format!("unusable URL {:?}", printable(url)));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        // user:password@ in somebody else's URL is no business of ours.
        if authority.as_str().contains('@') {
            return Err(bad());
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Target { https, authority: authority.as_str().to_ascii_lowercase(), path: path.to_owned() })
    }

    pub fn host(&self) -> &str {
        match self.authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => self.authority.split(':').next().unwrap_or(&self.authority),
        }
    }

    /// On this machine, where unencrypted traffic has no listener but root.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        is_localhost(host) || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority, self.path)
    }

    pub fn same_origin(&self, other: &Target) -> bool {
        self.https == other.https && self.authority == other.authority
    }

    /// Where a Location header leads. Never from an encrypted connection to a plain one, and to a
    /// plain one at all only on this machine, or where we already are.
    pub fn redirected(&self, location: &str) -> Result<Target> {
        let next = if location.contains("://") {
            Target::parse(location)?
        } else if let Some(rest) = location.strip_prefix("//") {
            Target::parse(&format!("{}://{rest}", if self.https { "https" } else { "http" }))?
        } else {
            let base = self.path.split('?').next().unwrap_or("/");
            let path = match location.strip_prefix('/') {
                Some(_) => location.to_owned(),
                None => format!("{}/{location}", base.rsplit_once('/').map_or("", |(dir, _)| dir)),
            };
            Target { path, ..self.clone() }
        };
        let stays_plain = !self.https && (next.is_loopback() || next.authority == self.authority);
        match next.https || stays_plain {
            true => Ok(next),
            false => Err(Error::system(format!("{} redirects to an unencrypted address", printable(&self.authority)))
                .with_hint("the registry is set up wrongly, or somebody is in between")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let t = Target::parse("https://Reg.Example:5000/v2/?x=1").unwrap();
        assert_eq!((t.https, t.authority.as_str(), t.path.as_str()), (true, "reg.example:5000", "/v2/?x=1"));
        assert_eq!(t.url(), "https://reg.example:5000/v2/?x=1");
        for bad in ["", "/x", "ftp://x/", "https://", "file:///etc/passwd", "https://u:p@x/", "https://a b/", "x"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_machine() {
        for (url, local) in [
            ("http://127.0.0.1:5000/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:5000/", true),
            ("http://localhost/", true),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
        ] {
            assert_eq!(Target::parse(url).unwrap().is_loopback(), local, "{url}");
        }
    }

    #[test]
    fn redirects() {
        let secure = Target::parse("https://reg.example/v2/x/blobs/y?z").unwrap();
        let local = Target::parse("http://127.0.0.1:5000/v2/x").unwrap();
        let to = |from: &Target, location: &str| from.redirected(location).map(|t| t.url());
        assert_eq!(to(&secure, "https://cdn.example/a").unwrap(), "https://cdn.example/a");
        assert_eq!(to(&secure, "/a?b").unwrap(), "https://reg.example/a?b");
        assert_eq!(to(&secure, "a").unwrap(), "https://reg.example/v2/x/blobs/a");
        assert_eq!(to(&secure, "//cdn.example/a").unwrap(), "https://cdn.example/a");
        assert_eq!(to(&local, "http://localhost:1/a").unwrap(), "http://localhost:1/a");
        assert_eq!(to(&local, "https://cdn.example/a").unwrap(), "https://cdn.example/a");
        for (from, location) in [
            (&secure, "http://cdn.example/a"),
            (&secure, "http://127.0.0.1/a"),
            (&local, "http://cdn.example/a"),
            (&secure, "file://x/etc/passwd"),
        ] {
            assert!(to(from, location).is_err(), "{location}");
        }
    }
}
