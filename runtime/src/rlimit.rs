//! Resource limits: `--ulimit` and the names of OCI.

use plan::{Error, Result};
use rustix::process::Resource;

use crate::spec::Rlimit;

/// `Rlimit::soft` and `hard` for no limit.
pub const UNLIMITED: u64 = u64::MAX;

const NAMES: [(&str, Resource); 16] = [
    ("AS", Resource::As),
    ("CORE", Resource::Core),
    ("CPU", Resource::Cpu),
    ("DATA", Resource::Data),
    ("FSIZE", Resource::Fsize),
    ("LOCKS", Resource::Locks),
    ("MEMLOCK", Resource::Memlock),
    ("MSGQUEUE", Resource::Msgqueue),
    ("NICE", Resource::Nice),
    ("NOFILE", Resource::Nofile),
    ("NPROC", Resource::Nproc),
    ("RSS", Resource::Rss),
    ("RTPRIO", Resource::Rtprio),
    ("RTTIME", Resource::Rttime),
    ("SIGPENDING", Resource::Sigpending),
    ("STACK", Resource::Stack),
];

/// The kernel's resource of a canonical name (`NOFILE`).
pub fn resource(name: &str) -> Option<Resource> {
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, r)| *r)
}

/// The canonical name of an OCI one (`RLIMIT_NOFILE`) or of `--ulimit`'s (`nofile`).
pub fn canonical(name: &str) -> Option<&'static str> {
    let bare = name.strip_prefix("RLIMIT_").unwrap_or(name);
    NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(bare)).map(|(n, _)| *n)
}

/// `--ulimit nofile=1024:2048`; one value is both, -1 is unlimited. Errors: Docker's texts.
pub fn parse(text: &str) -> Result<Rlimit> {
    let (name, values) = text.split_once('=').ok_or_else(|| {
        Error::invalid(format!("invalid ulimit argument: {text}"))
            .with_hint("write NAME=SOFT[:HARD], as in nofile=1024:2048")
    })?;
    let name = canonical(name).filter(|_| name.bytes().all(|b| b.is_ascii_lowercase())).ok_or_else(|| {
        let known: Vec<String> = NAMES.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
        Error::invalid(format!("invalid ulimit type: {name}")).with_hint(format!("known types: {}", known.join(", ")))
    })?;
    let (soft, hard) = match values.split(':').collect::<Vec<_>>()[..] {
        [both] => (number(text, both)?, number(text, both)?),
        [soft, hard] => (number(text, soft)?, number(text, hard)?),
        _ => {
            return Err(Error::invalid(format!(
                "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
            ))
            .with_hint("write NAME=SOFT[:HARD]"));
        }
    };
    if soft > hard {
        let message = match soft {
            UNLIMITED => format!("soft: -1 (unlimited), hard: {hard}"),
            _ => format!("{soft} > {hard}"),
        };
        return Err(Error::invalid(format!("ulimit soft limit must be less than or equal to hard limit: {message}"))
            .with_hint("raise the hard limit, the value after the colon"));
    }
    Ok(Rlimit { name: name.to_string(), soft, hard })
}

fn number(text: &str, value: &str) -> Result<u64> {
    match value.parse::<i64>() {
        Ok(-1) => Ok(UNLIMITED),
        Ok(n) if n >= 0 => Ok(n as u64),
        _ => Err(Error::invalid(format!("invalid ulimit argument: {text}"))
            .with_cause(format!("{value:?} is not a number"))
            .with_hint("limits are whole numbers, or -1 for unlimited")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: u64, hard: u64) -> Rlimit {
        Rlimit { name: name.into(), soft, hard }
    }

    #[test]
    fn ulimits_as_docker_reads_them() {
        assert_eq!(parse("nofile=1024:2048").unwrap(), limit("NOFILE", 1024, 2048));
        assert_eq!(parse("nproc=3").unwrap(), limit("NPROC", 3, 3));
        assert_eq!(parse("core=0:-1").unwrap(), limit("CORE", 0, UNLIMITED));
        assert_eq!(parse("memlock=-1:-1").unwrap(), limit("MEMLOCK", UNLIMITED, UNLIMITED));
    }

    #[test]
    fn wrong_ones_get_dockers_words() {
        for (text, expected) in [
            ("nofile", "invalid ulimit argument: nofile"),
            ("files=1", "invalid ulimit type: files"),
            ("NOFILE=1", "invalid ulimit type: NOFILE"),
            ("nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
            ("nofile=20:10", "ulimit soft limit must be less than or equal to hard limit: 20 > 10"),
            (
                "nofile=-1:10",
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 10",
            ),
            ("nofile=many", "invalid ulimit argument: nofile=many: \"many\" is not a number"),
            ("nofile=-2", "invalid ulimit argument: nofile=-2: \"-2\" is not a number"),
            ("nofile=", "invalid ulimit argument: nofile=: \"\" is not a number"),
            (
                "nofile=99999999999999999999",
                "invalid ulimit argument: nofile=99999999999999999999: \"99999999999999999999\" is not a number",
            ),
        ] {
            let e = parse(text).unwrap_err();
            assert_eq!(e.to_string(), expected);
            assert!(e.hint.is_some());
        }
    }

    #[test]
    fn oci_names_are_known() {
        assert_eq!(canonical("RLIMIT_RTPRIO"), Some("RTPRIO"));
        assert_eq!(canonical("RLIMIT_FOO"), None);
        for (name, r) in NAMES {
            assert_eq!(resource(name), Some(r));
        }
    }
}
