//! The token dance: a registry that wants to know us names the place where tokens are given.

use super::credentials::{Credential, basic};
use super::http::Client;
use super::target::Target;
use crate::manifest::printable;
use plan::{Error, Result};
use serde::Deserialize;

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// `bearer` or `basic`.
    pub scheme: String,
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    /// OAuth's name for it.
    access_token: Option<String>,
}

/// Reads the first challenge that can be answered: a header may list several, separated by the same
/// commas that separate their parameters (RFC 9110, 11.6.1).
pub(super) fn parse_challenge(header: &str) -> Option<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == ',' || c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let (value, tail) = parameter_value(value.trim_start())?;
            rest = tail.trim_start();
            // A token68 or a parameter before any scheme is nobody's.
            if let Some(challenge) = found.last_mut() {
                match word.to_ascii_lowercase().as_str() {
                    "realm" => challenge.realm = value,
                    "service" => challenge.service = Some(value),
                    "scope" => challenge.scope = Some(value),
                    _ => {}
                }
            }
        } else if word.is_empty() {
            rest = after.strip_prefix(',')?;
        } else {
            found.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                realm: String::new(),
                service: None,
                scope: None,
            });
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    let bearer = found.iter().find(|c| c.scheme == "bearer" && !c.realm.is_empty());
    bearer.or_else(|| found.iter().find(|c| c.scheme == "basic")).cloned()
}

/// A token or a quoted string with backslash escapes; and what follows.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[i + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// Gets a token: an anonymous one, or one for who is logged in. The login goes to the realm that the
/// registry names, over an encrypted connection or on this machine, as the protocol has it.
pub(super) fn fetch_token(
    client: &Client<'_>,
    challenge: &Challenge,
    default_scope: &str,
    login: Option<&Credential>,
) -> Result<String> {
    let mut query = Vec::new();
    if let Some(service) = &challenge.service {
        query.push(format!("service={}", encode(service)));
    }
    let scope = challenge.scope.as_deref().unwrap_or(default_scope);
    if !scope.is_empty() {
        query.push(format!("scope={}", encode(scope)));
    }
    let mut authorization = None;
    let mut form = None;
    match login {
        None => {}
        Some(Credential::Password { user, secret }) => {
            query.push(format!("account={}", encode(user)));
            authorization = Some(format!("Basic {}", basic(user, secret)));
        }
        Some(Credential::Identity(token)) => {
            let client_id = "rrun";
            form = Some(format!(
                "grant_type=refresh_token&refresh_token={}&client_id={client_id}&{}",
                encode(token),
                query.join("&")
            ));
            query.clear();
        }
    }
    let join = match (query.is_empty(), challenge.realm.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    let url = format!("{}{join}{}", challenge.realm, query.join("&"));
    let target = Target::parse(&url).map_err(|e| e.context("the registry names an unusable token server"))?;
    let reply = client.document_elsewhere(&target, authorization.as_deref(), form.as_deref())?;
    let bad = |why: String| {
        Error::system(format!("no token from {}", printable(&target.authority)))
            .with_cause(why)
            .with_hint("the registry's token server is out of order; try again later")
    };
    match (reply.status, login) {
        (200, _) => {}
        (401 | 403, None) => {
            return Err(Error::not_found("denied: the token server wants a login")
                .with_hint(format!("rrun login {}", client.name())));
        }
        (401 | 403, Some(_)) => {
            return Err(Error::not_found("unauthorized: incorrect username or password")
                .with_hint(format!("rrun login {} anew", client.name())));
        }
        (status, _) => return Err(bad(format!("it answered with status {status}"))),
    }
    let reply: TokenReply = serde_json::from_slice(&reply.body).map_err(|e| bad(e.to_string()))?;
    let token = reply.token.or(reply.access_token).unwrap_or_default();
    // It becomes part of a header.
    match !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(bad("the answer has no usable token".to_owned())),
    }
}

/// Percent-encoding for a query (RFC 3986: all but the unreserved characters).
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |s: Option<&str>| s.map(str::to_owned);
        Some(Challenge { scheme: "bearer".into(), realm: realm.into(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_as_registries_write_them() {
        for (header, want) in [
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
                bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push")),
            ),
            (r#"bearer  realm = "x" , service=plain"#, bearer("x", Some("plain"), None)),
            (r#"Basic realm="a, b", Bearer realm="y",error="invalid_token""#, bearer("y", None, None)),
            (r#"Negotiate, Bearer realm="q\"uoted""#, bearer("q\"uoted", None, None)),
            (
                r#"Basic realm="Registry""#,
                Some(Challenge { scheme: "basic".into(), realm: "Registry".into(), service: None, scope: None }),
            ),
            ("Bearer", None),
            (r#"Bearer realm="unterminated"#, None),
            ("", None),
            (",,,", None),
            ("=x", None),
        ] {
            assert_eq!(parse_challenge(header), want, "{header}");
        }
    }

    #[test]
    fn query_parameters_are_encoded() {
        assert_eq!(encode("repository:a/b:pull x&y=é"), "repository%3Aa%2Fb%3Apull%20x%26y%3D%C3%A9");
    }
}
