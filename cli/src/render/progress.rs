//! The progress of a pull or push: redrawn bars on a terminal, one plain line per change elsewhere. On standard error,
//! so that standard output stays what a script wants.

use super::table::human_size;
use images::progress::{Progress, ProgressEvent};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often bars are redrawn at most: a terminal is slower than a loopback registry.
const REDRAW: Duration = Duration::from_millis(60);

pub struct Bars {
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    /// Layers in the order of their first event, with the text of each line.
    lines: Vec<(String, String)>,
    drawn: usize,
    last: Option<Instant>,
}

impl Bars {
    pub fn new() -> Bars {
        Bars {
            terminal: std::io::stderr().is_terminal(),
            state: Mutex::new(State { lines: Vec::new(), drawn: 0, last: None }),
        }
    }
}

impl Progress for Bars {
    fn event(&self, layer: &str, event: ProgressEvent<'_>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let heading = match event {
            ProgressEvent::Resolved { tag, repository } => Some(format!("{tag}: Pulling from {repository}")),
            ProgressEvent::Pushing { repository } => Some(format!("The push refers to repository [{repository}]")),
            ProgressEvent::Passed { mirror, cause } => Some(format!("WARNING: mirror {mirror} passed over: {cause}")),
            _ => None,
        };
        if let Some(heading) = heading {
            eprintln!("{heading}");
            return;
        }
        let (text, settled) = words(&event, self.terminal);
        let Some(text) = text else { return };
        let known = state.lines.iter().position(|(l, _)| l == layer);
        let changed = match known {
            Some(i) => std::mem::replace(&mut state.lines[i].1, text.clone()) != text,
            None => {
                state.lines.push((layer.to_string(), text.clone()));
                true
            }
        };
        if !self.terminal {
            if changed {
                eprintln!("{}", line(layer, &text));
            }
            return;
        }
        let due = state.last.is_none_or(|t| t.elapsed() >= REDRAW);
        if changed && (due || settled || known.is_none()) {
            state.redraw();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.terminal && !state.lines.is_empty() {
            state.redraw();
        }
    }
}

impl State {
    /// Goes up over what was drawn and writes every line anew, in one write.
    fn redraw(&mut self) {
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for (layer, text) in &self.lines {
            let _ = writeln!(out, "\r\x1b[2K{}", line(layer, text));
        }
        self.drawn = self.lines.len();
        self.last = Some(Instant::now());
        // A closed terminal must not stop a pull.
        let _ = std::io::stderr().write_all(out.as_bytes());
    }
}

fn line(layer: &str, text: &str) -> String {
    if layer.is_empty() { text.to_string() } else { format!("{layer}: {text}") }
}

/// The words for an event, and whether the layer has come to rest. Elsewhere than on a terminal the
/// bytes as they arrive are not worth a line.
fn words(event: &ProgressEvent<'_>, terminal: bool) -> (Option<String>, bool) {
    match event {
        ProgressEvent::Resolved { .. } | ProgressEvent::Pushing { .. } | ProgressEvent::Passed { .. } => (None, false),
        ProgressEvent::Uploading { done, total } if terminal => (Some(bar("Pushing", *done, *total)), false),
        ProgressEvent::Uploading { .. } => (Some("Pushing".into()), false),
        ProgressEvent::Uploaded => (Some("Pushed".into()), true),
        ProgressEvent::UploadedBefore => (Some("Layer already exists".into()), true),
        ProgressEvent::Waiting => (Some("Waiting".into()), false),
        ProgressEvent::Downloading { done, total } if terminal => (Some(bar("Downloading", *done, *total)), false),
        ProgressEvent::Downloading { .. } => (Some("Downloading".into()), false),
        ProgressEvent::Extracting { done, total } if terminal => (Some(bar("Extracting", *done, *total)), false),
        ProgressEvent::Extracting { .. } => (Some("Extracting".into()), false),
        ProgressEvent::Retrying { attempt, pause, cause } => {
            (Some(format!("Retrying in {:.1} s (attempt {attempt}): {cause}", pause.as_secs_f32())), true)
        }
        ProgressEvent::Done => (Some("Pull complete".into()), true),
        ProgressEvent::Exists => (Some("Already exists".into()), true),
    }
}

fn bar(verb: &str, done: u64, total: u64) -> String {
    if total == 0 {
        return format!("{verb} {}", human_size(done));
    }
    let filled = usize::try_from(done.min(total) * 30 / total).unwrap_or(30);
    let arrow = if filled < 30 { ">" } else { "" };
    format!("{verb} [{:<30}] {}/{}", "=".repeat(filled) + arrow, human_size(done), human_size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_how_far_it_is() {
        assert_eq!(bar("Downloading", 0, 1000), "Downloading [>                             ] 0B/1kB");
        assert_eq!(bar("Downloading", 500, 1000), "Downloading [===============>              ] 500B/1kB");
        assert_eq!(bar("Downloading", 1000, 1000), "Downloading [==============================] 1kB/1kB");
        assert_eq!(bar("Extracting", 7, 0), "Extracting 7B");
    }
}
