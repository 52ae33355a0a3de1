use crate::Refusal;

/// Refuses text of more than `max_chars` characters, naming the field it came in.
///
/// # Errors
///
/// INVALID, with the details `field` and `maxChars`. NUL needs no check here: the door has refused it.
pub fn text(field: &'static str, value: &str, max_chars: usize) -> Result<(), Refusal> {
    // Most text is too short in bytes to be too long in characters, and then needs no counting.
    if value.len() <= max_chars || value.chars().nth(max_chars).is_none() {
        return Ok(());
    }
    Err(Refusal::invalid(format!("{field} is longer than {max_chars} characters"))
        .with("field", field)
        .with("maxChars", max_chars as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_count_and_bytes_do_not() {
        assert_eq!(text("name", "žluťoučký", 9), Ok(()));
        let refusal = text("name", "žluťoučký", 8).unwrap_err();
        assert_eq!(refusal.to_string(), "name is longer than 8 characters");
    }
}
