//! What a script prints: secrets replaced, cut into lines, bounded, and its last lines kept for the error.

use std::collections::VecDeque;

use super::mask::Mask;

/// Lines that an error quotes.
const LAST_LINES: usize = 20;

/// Takes bytes as they come, and gives lines to a sink.
pub(super) struct Output<'a> {
    mask: Mask,
    line_bytes_max: usize,
    total_bytes_max: u64,
    sink: &'a mut dyn FnMut(&str),
    line: Vec<u8>,
    /// Bytes of the line that did not fit.
    dropped: u64,
    last: VecDeque<String>,
    lines: u64,
    bytes: u64,
    cut: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        mask: Mask,
        line_bytes_max: usize,
        total_bytes_max: u64,
        sink: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self {
            mask,
            line_bytes_max,
            total_bytes_max,
            sink,
            line: Vec::new(),
            dropped: 0,
            last: VecDeque::new(),
            lines: 0,
            bytes: 0,
            cut: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let shown = self.mask.push(bytes);
        self.split(&shown);
    }

    /// The end: a last line without its end counts too.
    pub(super) fn finish(&mut self) {
        let shown = self.mask.finish();
        self.split(&shown);
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    /// Lines given to the sink, and whether some were not.
    pub(super) fn lines(&self) -> (u64, bool) {
        (self.lines, self.cut)
    }

    /// The last lines, those included that the sink was not given.
    pub(super) fn last_lines(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn split(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let fits = part.len().min(self.line_bytes_max - self.line.len());
            self.line.extend_from_slice(&part[..fits]);
            self.dropped += (part.len() - fits) as u64;
            let Some(end) = end else { return };
            self.end_line();
            bytes = &bytes[end + 1..];
        }
    }

    fn end_line(&mut self) {
        let mut text = readable(&self.line);
        if self.dropped > 0 {
            text.push_str(&format!("… ({} more bytes)", self.dropped));
        }
        self.line.clear();
        self.dropped = 0;
        self.bytes += text.len() as u64 + 1;
        if !self.cut && self.bytes <= self.total_bytes_max {
            (self.sink)(&text);
            self.lines += 1;
        } else if !self.cut {
            self.cut = true;
            (self.sink)(&format!("… (output is cut here: it is longer than {} bytes)", self.total_bytes_max));
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }
}

/// As text, without what would move a terminal's cursor or change its colours.
fn readable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        secret: &str,
        line_bytes_max: usize,
        total: u64,
        pieces: &[&[u8]],
    ) -> (Vec<String>, String, bool) {
        let mut lines = Vec::new();
        let mut sink = |line: &str| lines.push(line.to_owned());
        let mut output = Output::new(Mask::new([secret].into_iter()), line_bytes_max, total, &mut sink);
        for piece in pieces {
            output.push(piece);
        }
        output.finish();
        let (last, cut) = (output.last_lines(), output.lines().1);
        (lines, last, cut)
    }

    #[test]
    fn lines_are_put_together_and_made_readable() {
        let (lines, last, cut) =
            shown("hunter2", 100, 1000, &[b"one\r\ntw", b"o\n\n\x1b[31mred\xff hunt", b"er2"]);
        assert_eq!(lines, ["one", "two", "", "\u{fffd}[31mred\u{fffd} ***"]);
        assert_eq!(last, lines.join("\n"));
        assert!(!cut);
    }

    #[test]
    fn a_long_line_is_cut_after_secrets_are_replaced() {
        let (lines, ..) = shown("hunter2", 10, 1000, &[b"1234567 hunter2 and more\nnext\n"]);
        assert_eq!(lines, ["1234567 **… (10 more bytes)", "next"]);
    }

    #[test]
    fn a_long_output_is_cut_and_its_end_is_kept() {
        let pieces: Vec<String> = (0..1000).map(|line| format!("line {line}\n")).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        let (lines, last, cut) = shown("", 100, 100, &pieces);
        assert!(cut);
        assert_eq!(lines.last().unwrap(), "… (output is cut here: it is longer than 100 bytes)");
        assert!(lines.iter().map(String::len).sum::<usize>() < 200);
        assert!(last.ends_with("line 998\nline 999") && last.lines().count() == LAST_LINES);
    }
}
