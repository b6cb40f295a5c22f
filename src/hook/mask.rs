//! Replaces secrets in a stream of bytes, wherever the stream is cut into reads.
//!
//! Invariant: no byte of a whole value is passed on, nor the beginning of one at the stream's end. What is not
//! recognised: a value that was encoded, reversed or otherwise changed by the script.

/// Shorter lines of a value that has several are too common to be replaced one by one.
const PART_BYTES_MIN: usize = 4;
const MASK: &[u8] = b"***";

/// The secrets to look for, and bytes that may be the beginning of one.
pub(super) struct Mask {
    /// Longest first, so that a value that begins with another one goes as a whole.
    values: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Mask {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut values: Vec<Vec<u8>> = Vec::new();
        for secret in secrets.map(str::trim_end).filter(|secret| !secret.is_empty()) {
            values.push(secret.as_bytes().to_vec());
            // A key of several lines may be printed with something before each.
            let parts = secret.lines().map(str::trim).filter(|part| part.len() >= PART_BYTES_MIN);
            values.extend(parts.map(|part| part.as_bytes().to_vec()));
        }
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values, held: Vec::new() }
    }

    /// Takes the next bytes; gives what is certain by now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            if self.values.iter().any(|value| value.len() > rest.len() && value.starts_with(rest)) {
                break;
            }
            match self.values.iter().find(|value| rest.starts_with(value)) {
                Some(value) => {
                    shown.extend_from_slice(MASK);
                    at += value.len();
                }
                None => {
                    shown.push(rest[0]);
                    at += 1;
                }
            }
        }
        self.held.drain(..at);
        shown
    }

    /// The end: what was held back could have become a secret, so it is not shown.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { held } else { MASK.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut mask = Mask::new(secrets.iter().copied());
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| mask.push(piece)).collect();
        shown.extend(mask.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn values_are_replaced_across_reads() {
        assert_eq!(masked(&["hunter2"], &[b"pw=hun", b"ter", b"2;"]), "pw=***;");
        assert_eq!(masked(&["hunter2"], &[b"hunhunter2 hunt"]), "hun*** ***");
        assert_eq!(masked(&["abc", "abcdef"], &[b"abcde", b"f abcx abc"]), "*** ***x ***");
        assert_eq!(masked(&["", "\n"], &[b"as it is\n"]), "as it is\n");
    }

    #[test]
    fn each_line_of_a_key_is_a_secret() {
        let key = "-----BEGIN-----\nMIIEpAIBAAKCAQEA\n--\n-----END-----\n";
        assert_eq!(masked(&[key], &[key.as_bytes()]), "***\n");
        assert_eq!(masked(&[key], &[b"1 MIIEpAIBAAKCAQEA\n2 --\n"]), "1 ***\n2 --\n");
    }

    proptest! {
        #[test]
        fn no_value_is_left_however_the_stream_is_cut(
            secrets in prop::collection::vec("[ab]{1,5}", 1..4),
            text in "[abc\n]{0,60}",
            cuts in prop::collection::vec(0..60_usize, 0..6),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let whole = masked(&secrets, &[text.as_bytes()]);
            for secret in &secrets {
                prop_assert!(!whole.contains(secret), "{whole:?} holds {secret:?}");
            }
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(masked(&secrets, &pieces), whole);
        }
    }
}
