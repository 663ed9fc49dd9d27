//! The one place where an error is printed.

use plan::Error;

/// `rrun: message: cause`, the step it happened in, what the undo left, and one line of remedy.
pub fn print(error: &Error) {
    eprint!("{}", text(error));
}

fn text(error: &Error) -> String {
    let mut out = format!("rrun: {error}\n");
    if let Some(step) = &error.step {
        out.push_str(&format!("while: {step}\n"));
    }
    for note in &error.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    if let Some(hint) = &error.hint {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_cause_step_and_remedy() {
        let e = Error::os("create veth", 1).with_step("plug a cable").with_hint("run as root");
        assert_eq!(
            text(&e),
            "rrun: create veth: operation not permitted (EPERM)\nwhile: plug a cable\nhint: run as root\n"
        );
    }
}
