//! The one message from a starting monitor to the command that started it.

use plan::{Error, Result, ResultExt, Spoken};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

/// How the start went. Crosses a pipe as one JSON object; the writer closes the pipe after it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The steps with their times, if `--explain` asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Vec<Spoken>>,
    /// What was asked for and could not be had, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The user's program runs (exec has succeeded).
    Ok(Started),
    Error(Error),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
}

impl Report {
    pub fn started(pid: i32) -> Report {
        Report { outcome: Outcome::Ok(Started { pid }), explain: None, warnings: Vec::new() }
    }

    pub fn failed(error: Error) -> Report {
        Report { outcome: Outcome::Error(error), explain: None, warnings: Vec::new() }
    }

    /// Writes it and closes the pipe. That nobody reads (the command was killed) is no error: the
    /// container has been started and goes on.
    pub fn send(&self, pipe: OwnedFd) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::io("encode the report", &e.into()))?;
        match File::from(pipe).write_all(&text) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.doing(|| "report to the command that started us"),
        }
    }

    /// Waits for the report of the monitor at the other end of `pipe`. Whoever calls this must have
    /// closed its own copy of the writing end.
    pub fn receive(pipe: OwnedFd) -> Result<Report> {
        let mut text = Vec::new();
        File::from(pipe).read_to_end(&mut text).doing(|| "read the monitor's report")?;
        if text.is_empty() {
            return Err(Error::system("the container's monitor ended before it could report")
                .with_hint("was it killed? `dmesg` shows whether memory ran out"));
        }
        serde_json::from_slice(&text)
            .map_err(|e| Error::system("the container's monitor sent a damaged report").with_cause(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Kind;

    fn cross(report: &Report) -> Report {
        let (read, write) = std::io::pipe().unwrap();
        report.send(write.into()).unwrap();
        Report::receive(read.into()).unwrap()
    }

    #[test]
    fn success_and_failure_cross_the_pipe() {
        let mut report = Report::started(42);
        report.warnings.push("no swap accounting".into());
        let back = cross(&report);
        assert!(matches!(back.outcome, Outcome::Ok(Started { pid: 42 })));
        assert_eq!((back.warnings, back.explain), (report.warnings, None));

        let error = Error::os("exec /nope", 2).with_kind(Kind::NoSuchProgram).with_hint("h").with_note("n");
        match cross(&Report::failed(error.clone())).outcome {
            Outcome::Error(e) => {
                assert_eq!(
                    (e.kind, e.to_string(), e.hint, e.notes),
                    (error.kind, error.to_string(), error.hint, error.notes)
                );
            }
            Outcome::Ok(_) => panic!("a failure came back as success"),
        }
    }

    #[test]
    fn a_monitor_that_dies_silently_is_noticed() {
        let (read, write) = std::io::pipe().unwrap();
        drop(write);
        assert!(Report::receive(read.into()).unwrap_err().to_string().contains("before it could report"));
    }

    #[test]
    fn nobody_listening_does_not_fail_the_container() {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        Report::started(1).send(write.into()).unwrap();
    }
}
