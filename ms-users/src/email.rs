//! E-mail addresses: one spelling for each.

use std::fmt;
use std::str::FromStr;

use email_address::{EmailAddress, Options};

/// The longest address a path can hold ([RFC 5321](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.3)).
const MAX_BYTES: usize = 254;

/// A valid address in lower case. Strictly, the part before the `@` could differ by case; no provider has it so, and two
/// accounts of one mailbox are a trap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// It is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an e-mail address")]
pub struct NoEmail;

impl FromStr for Email {
    type Err = NoEmail;

    fn from_str(text: &str) -> Result<Self, NoEmail> {
        // What is far too long is not worth being looked at.
        let text = text.get(..=2 * MAX_BYTES).map_or(text, |_| "").trim().to_lowercase();
        let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
        let valid = text.len() <= MAX_BYTES && EmailAddress::parse_with_options(&text, options).is_ok();
        if valid && !text.contains('\0') { Ok(Self(text)) } else { Err(NoEmail) }
    }
}

impl Email {
    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for spelling in ["ann@example.com", "Ann@Example.COM", " ANN@EXAMPLE.COM\n"] {
            assert_eq!(spelling.parse::<Email>().unwrap().as_str(), "ann@example.com");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(250));
        for text in ["", "ann", "ann@", "@example.com", "a b@example.com", "ann@example", "Ann <a@example.com>", &long]
        {
            assert_eq!(text.parse::<Email>(), Err(NoEmail), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_stable(text in ".{0,40}@.{0,20}\\.com") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str().parse::<Email>(), Ok(email.clone()));
            }
        }
    }
}
