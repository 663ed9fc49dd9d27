//! Restart policies: what they are called, when they say yes, and how long they wait.

use plan::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first wait; each one after it is twice as long.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Who ran this long has not failed to start: the next wait is the first one again.
const SOUND: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    #[default]
    No,
    Always,
    UnlessStopped,
    OnFailure,
}

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    pub name: Name,
    /// 0 is no maximum; only with `on-failure`.
    pub maximum: u32,
}

impl Name {
    pub fn as_str(self) -> &'static str {
        match self {
            Name::No => "no",
            Name::Always => "always",
            Name::UnlessStopped => "unless-stopped",
            Name::OnFailure => "on-failure",
        }
    }
}

impl Policy {
    /// `no`, `always`, `unless-stopped`, `on-failure[:n]`; nothing is `no`.
    ///
    /// # Errors
    /// Docker's texts.
    pub fn parse(text: &str) -> Result<Policy> {
        let wrong = |message: String| {
            Error::invalid(message).with_hint("one of no, always, unless-stopped, on-failure, on-failure:5")
        };
        let (name, count) = match text.split_once(':') {
            Some(("", _)) => {
                return Err(wrong("invalid restart policy format: no policy provided before colon".into()));
            }
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let maximum = match count {
            Some(count) => count
                .parse::<u32>()
                .map_err(|_| wrong("invalid restart policy format: maximum retry count must be an integer".into()))?,
            None => 0,
        };
        let name = match name {
            "" | "no" => Name::No,
            "always" => Name::Always,
            "unless-stopped" => Name::UnlessStopped,
            "on-failure" => Name::OnFailure,
            other => {
                return Err(wrong(format!(
                    "invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
                    other.escape_debug()
                )));
            }
        };
        if count.is_some() && name != Name::OnFailure {
            return Err(wrong("invalid restart policy: maximum retry count can only be used with 'on-failure'".into()));
        }
        Ok(Policy { name, maximum })
    }

    pub fn is_none(self) -> bool {
        self.name == Name::No
    }

    /// Whether a container that ended by itself with `code`, after `restarts` of them, runs again.
    pub fn again(self, code: i32, restarts: u32) -> bool {
        match self.name {
            Name::No => false,
            Name::Always | Name::UnlessStopped => true,
            Name::OnFailure => code != 0 && (self.maximum == 0 || restarts < self.maximum),
        }
    }

    /// Whether a container that ended with `code` (255 if the machine went down with it) runs after a
    /// boot. What `rrun stop` ended stays down, except with `always`.
    pub fn after_boot(self, stopped: bool, code: i32, restarts: u32) -> bool {
        match self.name {
            Name::No => false,
            Name::Always => true,
            Name::UnlessStopped => !stopped,
            Name::OnFailure => !stopped && self.again(code, restarts),
        }
    }
}

/// How long to wait before the next start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff(Option<Duration>);

impl Backoff {
    /// The wait after a life of `lived`.
    pub fn next(&mut self, lived: Duration) -> Duration {
        let wait = match self.0.filter(|_| lived < SOUND) {
            None => FIRST,
            Some(last) => (last * 2).min(LONGEST),
        };
        self.0 = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_in_dockers_words() {
        let failing = Policy::parse("on-failure:3").unwrap();
        assert_eq!(failing, Policy { name: Name::OnFailure, maximum: 3 });
        assert!(failing.again(1, 2) && !failing.again(1, 3) && !failing.again(0, 0));
        assert!(Policy::parse("").unwrap().is_none() && Policy::parse("no").unwrap().is_none());
        let always = Policy::parse("always").unwrap();
        let unless = Policy::parse("unless-stopped").unwrap();
        assert!(always.again(0, 9) && unless.again(0, 9));
        assert!(always.after_boot(true, 0, 0) && !unless.after_boot(true, 0, 0) && unless.after_boot(false, 0, 0));
        assert!(!failing.after_boot(false, 0, 0) && failing.after_boot(false, 255, 0));
        for (text, says) in [
            ("sometimes", "unknown policy 'sometimes'"),
            (":3", "no policy provided before colon"),
            ("on-failure:x", "maximum retry count must be an integer"),
            ("on-failure:-1", "maximum retry count must be an integer"),
            ("always:3", "maximum retry count can only be used with 'on-failure'"),
        ] {
            let e = Policy::parse(text).unwrap_err();
            assert!(e.message.contains(says), "{text}: {e}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_sound_life() {
        let mut backoff = Backoff::default();
        let mut short = || backoff.next(Duration::from_secs(1));
        assert_eq!((short(), short(), short()), (FIRST, FIRST * 2, FIRST * 4));
        let long: Vec<Duration> = (0..20).map(|_| short()).collect();
        assert_eq!(long.last(), Some(&LONGEST));
        assert_eq!(backoff.next(SOUND), FIRST);
    }
}
