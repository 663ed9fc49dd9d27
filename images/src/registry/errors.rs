//! A registry's refusal in Docker's words.

use super::http::Reply;
use crate::manifest::printable;
use crate::reference::Reference;
use plan::Error;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    errors: Vec<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    code: String,
    message: String,
}

/// Says why `reply` is not what was asked for: a manifest under `tag` (or digest) of the reference,
/// or a blob when there is none.
pub(super) fn explain(reference: &Reference, manifest: Option<&str>, reply: &Reply) -> Error {
    let (code, words) = reason(reply);
    let repository = reference.familiar_repository();
    if matches!(reply.status, 401 | 403) || matches!(code.as_str(), "denied" | "unauthorized") {
        return Error::not_found(format!(
            "pull access denied for {repository}, repository does not exist or may require authorization: {words}"
        ))
        .with_hint(format!("check the spelling; for a private image: rrun login {}", reference.domain()));
    }
    if reply.status == 404 && code == "name unknown" {
        return Error::not_found(format!("repository {repository} not found: {words}"))
            .with_hint("check the spelling of registry and repository");
    }
    match manifest {
        Some(wanted) if reply.status == 404 => {
            let joint = if wanted.contains(':') { '@' } else { ':' };
            Error::not_found(format!("manifest for {repository}{joint}{wanted} not found: {words}"))
                .with_hint("the repository has no such tag or digest; check its spelling")
        }
        Some(_) => Error::system(format!("registry {} refuses the manifest of {reference}", reference.domain()))
            .with_cause(words),
        None if reply.status == 404 => Error::system("the registry does not have it")
            .with_cause(words)
            .with_hint("the image was pushed incompletely: ask its maker to push it again"),
        None => Error::system(format!("registry {} refuses it", reference.domain())).with_cause(words),
    }
}

/// The registry's own words, or the status where it has none.
pub(super) fn words(reply: &Reply) -> String {
    reason(reply).1
}

/// The code of the first error in lower case, and the whole of it.
fn reason(reply: &Reply) -> (String, String) {
    let wire: Wire = serde_json::from_slice(&reply.body).unwrap_or_default();
    let reason = wire.errors.into_iter().next().unwrap_or_default();
    let code = printable(&reason.code).to_ascii_lowercase().replace('_', " ");
    let words = match (code.as_str(), printable(&reason.message)) {
        ("", _) => format!("status {}", reply.status),
        (code, message) if message.is_empty() => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    (code, words)
}

/// A web page where a document belongs.
pub(super) fn looks_like_html(reply: &Reply) -> bool {
    let start = reply.body.trim_ascii_start();
    start.get(..5).is_some_and(|s| s.eq_ignore_ascii_case(b"<html") || s.eq_ignore_ascii_case(b"<!doc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_words() {
        let r = Reference::parse("alpine:9").unwrap();
        let say = |status, body: &str, manifest| {
            let reply = Reply { status, headers: Default::default(), body: body.as_bytes().to_vec() };
            explain(&r, manifest, &reply).to_string()
        };
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(say(404, unknown, Some("9")), "manifest for alpine:9 not found: manifest unknown: manifest unknown");
        let name = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
        assert_eq!(
            say(404, name, Some("9")),
            "repository alpine not found: name unknown: repository name not known to registry"
        );
        let denied = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required\u001b[2J\nx"}]}"#;
        assert_eq!(
            say(401, denied, Some("9")),
            "pull access denied for alpine, repository does not exist or may require authorization: unauthorized: authentication required [2J x"
        );
        assert_eq!(say(404, "<html>", Some("9")), "manifest for alpine:9 not found: status 404");
        assert_eq!(say(404, "", None), "the registry does not have it: status 404");
    }
}
