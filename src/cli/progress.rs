//! The progress line: on stderr, and only when it is a terminal.

use std::io::{self, IsTerminal, Write};

use crate::control::Progress;

/// One line that is overwritten with each step and wiped at the end.
pub(super) struct ProgressLine {
    terminal: bool,
    shown: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    pub(super) fn update(&mut self, progress: &Progress) {
        if !self.terminal {
            return;
        }
        let amount = match progress.total {
            Some(total) if total > 0 => {
                let percent = u128::from(progress.done) * 100 / u128::from(total);
                format!("{percent} %")
            }
            _ if progress.done > 0 => progress.done.to_string(),
            _ => String::new(),
        };
        self.say(format!("{} {amount}", progress.step).trim_end());
    }

    /// Shows a text of its own.
    pub(super) fn say(&mut self, text: &str) {
        if self.terminal {
            // A lost progress line harms nobody.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
            self.shown = true;
        }
    }

    /// Wipes the line, so that something else can be printed.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}
