//! Looks at a document's bytes before the parser does, because the parser bounds neither.
//!
//! Parsing and validation take time that grows with the tokens, with their square in places. Brackets the parser
//! follows down to about a thousand levels, and then stops because its stack runs low, which it cannot see on every
//! platform.

use crate::Refusal;

/// How deep brackets may nest. The parser has the same limit for selection sets, and none for values and types.
const MAX_NESTING: usize = 64;

/// Refuses a document with more than `max_tokens` tokens, with brackets nested too deep, or with NUL in a string.
///
/// This lexes as the parser does, or stricter: a string it could see differently is one the parser would refuse.
pub(crate) fn scan(document: &str, max_tokens: usize) -> Result<(), Refusal> {
    let bytes = document.as_bytes();
    let (mut at, mut tokens, mut nesting) = (0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        at = match byte {
            b' ' | b',' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' => {
                at += run(bytes, at, |byte| byte != b'\n' && byte != b'\r');
                continue;
            }
            b'"' => end_of_string(bytes, at)?,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                at + run(bytes, at, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
            }
            b'{' | b'[' | b'(' => {
                nesting += 1;
                at + 1
            }
            b'}' | b']' | b')' => {
                nesting = nesting.saturating_sub(1);
                at + 1
            }
            b'.' => at + run(bytes, at, |byte| byte == b'.'),
            _ => at + 1,
        };
        tokens += 1;
        if nesting > MAX_NESTING {
            return Err(Refusal::too_complex(format!("the document nests deeper than {MAX_NESTING} brackets")));
        }
        if tokens > max_tokens {
            return Err(Refusal::too_complex(format!(
                "the document has more than {max_tokens} tokens: send data as variables"
            )));
        }
    }
    Ok(())
}

fn run(bytes: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes[start..].iter().take_while(|&&byte| belongs(byte)).count()
}

/// The index after the string that starts at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> Result<usize, Refusal> {
    let block = bytes[start..].starts_with(br#"""""#);
    let mut at = start + if block { 3 } else { 1 };
    while let Some(rest) = bytes.get(at..) {
        match rest {
            [0, ..] => return Err(nul()),
            [b'\\', b'"', b'"', b'"', ..] if block => at += 4,
            [b'"', b'"', b'"', ..] if block => return Ok(at + 3),
            [b'\\', b'u', b'0', b'0', b'0', b'0', ..] if !block => return Err(nul()),
            [b'\\', _, ..] if !block => at += 2,
            [b'"', ..] if !block => return Ok(at + 1),
            [b'\n' | b'\r', ..] if !block => break,
            [_, ..] => at += 1,
            [] => break,
        }
    }
    // Not left to the parser: it would take an open `"""` for an empty string and an open one, and find brackets
    // where this function sees text.
    Err(Refusal::invalid("the document has a string that does not end"))
}

/// PostgreSQL cannot store it, and nobody types it.
pub(crate) fn nul() -> Refusal {
    Refusal::invalid("text must not contain NUL")
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use proptest::prelude::*;

    use super::*;
    use crate::Code;

    fn refused(document: &str) -> Option<Code> {
        scan(document, 20).err().map(|refusal| refusal.code())
    }

    #[test]
    fn strings_and_comments_hide_brackets() {
        let brackets = "[{(".repeat(100);
        assert_eq!(refused(&format!(r#"{{a(b: "{brackets}")}} # {brackets}"#)), None);
        assert_eq!(refused(&format!(r#"{{a(b: """{brackets} \""" " {brackets}""")}}"#)), None);
        assert_eq!(refused(&format!("# {brackets}\n{{a(b: {brackets}")), Some(Code::TooComplex));
        assert_eq!(refused(&format!(r#"{{a(b: "\\" {brackets}"#)), Some(Code::TooComplex));
        assert_eq!(refused(&format!(r#"{{a(b: ["" {brackets}"#)), Some(Code::TooComplex));
    }

    #[test]
    fn an_open_string_hides_nothing() {
        for open in [r#"""""#, r#"""" "#, r#"""#, "\"x\n", r#""\"#] {
            assert_eq!(refused(&format!("{{a(b: {open}")), Some(Code::Invalid), "{open}");
        }
    }

    #[test]
    fn tokens_are_counted_as_the_specification_counts_them() {
        assert_eq!(refused(&format!("{{ {} }}", "a ".repeat(18))), None);
        assert_eq!(refused(&format!("{{ {} }}", "a ".repeat(19))), Some(Code::TooComplex));
        assert_eq!(refused(&format!("{{ {} }}", "...F, ".repeat(9))), None);
    }

    #[test]
    fn nul_is_refused_in_any_spelling() {
        for nul in [r#""\u0000""#, "\"a\0\"", "\"\"\"a\0\"\"\""] {
            assert_eq!(refused(&format!("{{a(b: {nul})}}")), Some(Code::Invalid), "{nul:?}");
        }
        assert_eq!(refused(r#"{a(b: "\\u0000")}"#), None);
    }

    proptest! {
        /// What the parser accepts, the scan accepts: they see the same strings, and brackets inside are text to both.
        #[test]
        fn what_parses_scans(
            quote in prop::sample::select(vec!["\"", "\"\"\""]),
            pieces in prop::collection::vec(
                prop::sample::select(vec!["{", "[[[", "#", "\"", "\"\"", "\\\"", "\\\"\"\"", "\\\\", "\\u0041", "\n", "ž", " "]),
                0..8,
            ),
        ) {
            let document = format!("{{a(b: {quote}{0}{quote} c: [{quote}{0}{quote}])}}", pieces.concat());
            if parse_query(&document).is_ok() {
                prop_assert_eq!(scan(&document, 1_000), Ok(()), "{}", document);
            }
        }
    }
}
