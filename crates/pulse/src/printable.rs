//! Text that a terminal shows as it is. What clients and clusters sent may have characters that move the cursor, change a
//! terminal, or reverse the order of the text; all output passes here and shows them as escapes.

use std::borrow::Cow;
use std::io::{self, Write};

/// Whether a terminal does not show the character, but obeys it. Line ends and tabs are part of our layout.
fn is_obeyed(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        // Directions (bidi), line separators and characters without a width. Joiners are parts of words and emojis.
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

/// Text for people, with escapes such as `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char.escape_unicode().to_string())
}

/// Text for people that takes one line, such as a cell of a table.
pub(crate) fn printable_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// JSON with escapes, which mean the same to a program.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |char| {
        let mut units = [0; 2];
        char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let chars = text.chars().map(|char| if is_obeyed(char) { escape(char) } else { char.to_string() });
    Cow::Owned(chars.collect())
}

/// Writes log records to stderr. Each write is one record.
#[derive(Clone, Copy)]
pub(crate) enum LogWriter {
    Json,
    Text {
        /// Whether the formatter writes colours. It escapes those of fields itself.
        ansi: bool,
    },
}

impl LogWriter {
    fn printable(self, record: &str) -> String {
        match self {
            Self::Json => printable_json(record).into_owned(),
            Self::Text { ansi } => {
                let (lines, end) = record.strip_suffix('\n').map_or((record, ""), |lines| (lines, "\n"));
                // A further line, such as one of a backtrace, never looks like a record.
                format!("{}{end}", text(lines, ansi).replace('\n', "\n    | "))
            }
        }
    }
}

/// Text in which colours stay if they are allowed.
fn text(text: &str, ansi: bool) -> String {
    let Some((before, after)) = text.split_once('\u{1b}').filter(|_| ansi) else { return printable(text).into_owned() };
    let mut shown = printable(before).into_owned();
    for piece in after.split('\u{1b}') {
        let colour = piece
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'))
            .filter(|(codes, _)| codes.chars().all(|code| code.is_ascii_digit() || code == ';'));
        match colour {
            Some((codes, rest)) => shown.extend(["\u{1b}[", codes, "m", &printable(rest)]),
            None => shown.extend([&printable("\u{1b}"), &printable(piece)].map(|text| text.as_ref())),
        }
    }
    shown
}

impl Write for LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(self.printable(&String::from_utf8_lossy(record)).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{7}e\re\u{e0041}\u{200b}";

    #[test]
    fn printable_text_has_nothing_that_a_terminal_obeys() {
        assert_eq!(printable(HOSTILE), r"a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{7}e\u{d}e\u{e0041}\u{200b}",);
        let harmless = "naïve – 中文 👩‍💻 שלום\n\ttwo".to_owned();
        assert_eq!(printable(&harmless), harmless);
        assert_eq!(printable_line("a\nb\tc"), r"a\nb\tc");
    }

    #[test]
    fn printable_json_means_the_same() {
        let value = serde_json::json!({ "name": HOSTILE, "é": "\u{202e}" });
        let json = value.to_string();
        let shown = printable_json(&json);
        assert!(!shown.contains(is_obeyed), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(value));
    }

    #[test]
    fn log_record_keeps_only_the_colours_of_the_formatter_and_its_own_line() {
        let text = |ansi: bool, record: &str| LogWriter::Text { ansi }.printable(record);
        assert_eq!(text(false, "a\nINFO b\u{202e}\n"), "a\n    | INFO b\\u{202e}\n");
        assert_eq!(text(true, "\u{1b}[32mINFO\u{1b}[0m a\u{9b}\n"), "\u{1b}[32mINFO\u{1b}[0m a\\u{9b}\n");
        assert_eq!(text(true, "\u{1b}]0;x\u{7}\u{1b}[2J\n"), "\\u{1b}]0;x\\u{7}\\u{1b}[2J\n");
        assert_eq!(text(false, "\u{1b}[32mINFO\n"), "\\u{1b}[32mINFO\n");
        assert_eq!(LogWriter::Json.printable("{\"a\":\"\u{202e}\"}\n"), "{\"a\":\"\\u202e\"}\n");
    }
}
