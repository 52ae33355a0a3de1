//! What people write about products, checked before it goes any further.

use std::collections::HashMap;

use rust_decimal::Decimal;

/// The most products in one [`Batch`].
pub const MAX_BATCH_ROWS: usize = 10_000;

/// The most there can be of one product. Far below 32 bits, so that no sum of a few of them is beyond GraphQL's `Int`.
pub const MAX_ON_HAND: i64 = 1_000_000_000;

const MAX_SKU_CHARS: usize = 64;
const MAX_NAME_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 10_000;
const PRICE_DECIMALS: u32 = 2;

/// One unit more than the price's column holds.
const PRICE_BOUND: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);

/// What is said of a product, as it came in: what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Form {
    /// 1 to 64 characters, none of them a control character, no white space at the ends.
    pub sku: Option<String>,
    /// 1 to 200 characters, none of them a control character, no white space at the ends.
    pub name: Option<String>,
    /// At most 10 000 characters, without NUL.
    pub description: Option<String>,
    /// Not negative, below 10 000 000 000, of at most two decimals: more are refused and never rounded.
    pub price: Option<Decimal>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The field, as clients spell it.
    pub field: &'static str,
    /// What is wrong, beginning with the field.
    pub message: String,
}

impl Invalid {
    /// `message` goes on after the field's name.
    pub fn new(field: &'static str, message: impl std::fmt::Display) -> Self {
        Self { field, message: format!("{field} {message}") }
    }
}

/// An edit of a product, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit(Form);

impl Edit {
    /// Checks a form.
    ///
    /// # Errors
    /// All that is wrong with it, which may be that there is nothing in it.
    pub fn of(form: Form) -> Result<Self, Vec<Invalid>> {
        let mut wrong = check(&form);
        if form == Form::default() {
            wrong.push(Invalid::new("input", "changes nothing"));
        }
        if wrong.is_empty() { Ok(Self(form)) } else { Err(wrong) }
    }

    pub(super) fn form(&self) -> &Form {
        &self.0
    }
}

/// A product to be, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    sku: String,
    name: String,
    description: String,
    price: Decimal,
    on_hand: i64,
}

impl Draft {
    /// Checks a form and the initial stock, 0 to [`MAX_ON_HAND`].
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn of(form: Form, on_hand: i64) -> Result<Self, Vec<Invalid>> {
        let mut wrong = check(&form);
        if on_hand < 0 {
            wrong.push(Invalid::new("onHand", "must not be negative"));
        } else if on_hand > MAX_ON_HAND {
            wrong.push(Invalid::new("onHand", format_args!("must be at most {MAX_ON_HAND}")));
        }
        for (field, absent) in
            [("sku", form.sku.is_none()), ("name", form.name.is_none()), ("price", form.price.is_none())]
        {
            if absent {
                wrong.push(Invalid::new(field, "is missing"));
            }
        }
        match form {
            Form { sku: Some(sku), name: Some(name), description, price: Some(price) } if wrong.is_empty() => {
                Ok(Self { sku, name, description: description.unwrap_or_default(), price, on_hand })
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn sku(&self) -> &str {
        &self.sku
    }

    pub(super) fn into_sku(self) -> String {
        self.sku
    }
}

/// Products to be, of which no two have the same SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch(Vec<Draft>);

/// What is wrong with one row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRow {
    /// The row, counted from 0.
    pub row: usize,
    /// What is wrong with it.
    pub invalid: Invalid,
}

impl Batch {
    /// Puts checked rows together.
    ///
    /// # Errors
    /// All that is wrong with the rows, the SKUs that come twice included, by row.
    pub fn of(rows: impl IntoIterator<Item = Result<Draft, Vec<Invalid>>>) -> Result<Self, Vec<InvalidRow>> {
        let mut drafts = Vec::new();
        let mut wrong = Vec::new();
        let mut row_of_sku = HashMap::new();
        for (row, draft) in rows.into_iter().enumerate() {
            match draft {
                Ok(draft) => {
                    let first = *row_of_sku.entry(draft.sku.clone()).or_insert(row);
                    if first != row {
                        let invalid = Invalid::new("sku", format_args!("{:?} is also that of row {first}", draft.sku));
                        wrong.push(InvalidRow { row, invalid });
                    }
                    drafts.push(draft);
                }
                Err(invalid) => wrong.extend(invalid.into_iter().map(|invalid| InvalidRow { row, invalid })),
            }
        }
        if wrong.is_empty() { Ok(Self(drafts)) } else { Err(wrong) }
    }

    pub(super) fn drafts(&self) -> &[Draft] {
        &self.0
    }
}

/// Drafts as the columns of a table.
pub(super) struct Columns {
    pub(super) skus: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) descriptions: Vec<String>,
    pub(super) prices: Vec<Decimal>,
    pub(super) on_hands: Vec<i64>,
}

impl Columns {
    pub(super) fn of(drafts: &[Draft]) -> Self {
        Self {
            skus: drafts.iter().map(|draft| draft.sku.clone()).collect(),
            names: drafts.iter().map(|draft| draft.name.clone()).collect(),
            descriptions: drafts.iter().map(|draft| draft.description.clone()).collect(),
            prices: drafts.iter().map(|draft| draft.price).collect(),
            on_hands: drafts.iter().map(|draft| draft.on_hand).collect(),
        }
    }
}

fn check(form: &Form) -> Vec<Invalid> {
    let line = |field, text: &Option<String>, max_chars| text.as_deref().and_then(|text| line(field, text, max_chars));
    [
        line("sku", &form.sku, MAX_SKU_CHARS),
        line("name", &form.name, MAX_NAME_CHARS),
        form.description.as_deref().and_then(description),
        form.price.and_then(price),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is wrong with a text that stands in one line.
fn line(field: &'static str, text: &str, max_chars: usize) -> Option<Invalid> {
    let wrong = if text.is_empty() {
        "is empty".to_owned()
    } else if text.chars().nth(max_chars).is_some() {
        format!("is longer than {max_chars} characters")
    } else if text.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else if text.trim() != text {
        "begins or ends with white space".to_owned()
    } else {
        return None;
    };
    Some(Invalid::new(field, wrong))
}

fn description(text: &str) -> Option<Invalid> {
    if text.chars().nth(MAX_DESCRIPTION_CHARS).is_some() {
        let wrong = format_args!("is longer than {MAX_DESCRIPTION_CHARS} characters");
        return Some(Invalid::new("description", wrong));
    }
    text.contains('\0').then(|| Invalid::new("description", "contains NUL"))
}

fn price(price: Decimal) -> Option<Invalid> {
    let wrong = if price.is_sign_negative() && !price.is_zero() {
        "must not be negative"
    } else if price.normalize().scale() > PRICE_DECIMALS {
        "has more than 2 decimals"
    } else if price >= PRICE_BOUND {
        "must be less than 10000000000"
    } else {
        return None;
    };
    Some(Invalid::new("price", wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form {
            sku: Some("KETTLE-1".to_owned()),
            name: Some("Kettle".to_owned()),
            description: None,
            price: Some(Decimal::new(3990, 2)),
        }
    }

    fn wrong(form: Form, on_hand: i64) -> Vec<String> {
        let wrong = Draft::of(form, on_hand).err().unwrap_or_default();
        wrong.into_iter().map(|invalid| invalid.message).collect()
    }

    fn price(text: &str) -> Vec<String> {
        let price = Some(text.parse().unwrap());
        wrong(Form { price, ..form() }, 0)
    }

    #[test]
    fn a_good_form_is_a_draft() {
        assert_eq!(wrong(form(), 0), [""; 0]);
        assert_eq!(wrong(form(), MAX_ON_HAND), [""; 0]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let form = Form {
            sku: Some(" A".to_owned()),
            name: None,
            description: Some("x".repeat(10_001)),
            price: Some(Decimal::new(-1, 0)),
        };
        assert_eq!(
            wrong(form, -1),
            [
                "sku begins or ends with white space",
                "description is longer than 10000 characters",
                "price must not be negative",
                "onHand must not be negative",
                "name is missing",
            ]
        );
    }

    #[test]
    fn text_is_measured_in_characters() {
        for (sku, expected) in [
            ("é".repeat(64), None),
            ("é".repeat(65), Some("sku is longer than 64 characters")),
            (String::new(), Some("sku is empty")),
            ("A\nB".to_owned(), Some("sku contains a control character")),
            ("A\0B".to_owned(), Some("sku contains a control character")),
            ("A\u{a0}".to_owned(), Some("sku begins or ends with white space")),
        ] {
            let sku = Some(sku);
            assert_eq!(wrong(Form { sku, ..form() }, 0).first().map(String::as_str), expected);
        }
        let description = Some("line\nline\0".to_owned());
        assert_eq!(wrong(Form { description, ..form() }, 0), ["description contains NUL"]);
    }

    #[test]
    fn a_price_is_never_rounded() {
        for good in ["0", "-0", "0.1", "12.50", "12.500", "9999999999.99"] {
            assert_eq!(price(good), [""; 0], "{good}");
        }
        assert_eq!(price("0.001"), ["price has more than 2 decimals"]);
        assert_eq!(price("12.505"), ["price has more than 2 decimals"]);
        assert_eq!(price("10000000000"), ["price must be less than 10000000000"]);
        assert_eq!(price("-0.01"), ["price must not be negative"]);
    }

    #[test]
    fn an_edit_may_leave_out_what_stays() {
        let name = Some("Kettle".to_owned());
        assert!(Edit::of(Form { name, ..Form::default() }).is_ok());
        let nothing = Edit::of(Form::default()).unwrap_err();
        assert_eq!(nothing[0].message, "input changes nothing");
        let sku = Some(String::new());
        assert!(Edit::of(Form { sku, ..Form::default() }).is_err());
    }

    #[test]
    fn a_batch_names_the_rows_that_are_wrong() {
        let row = |sku: &str| Draft::of(Form { sku: Some(sku.to_owned()), ..form() }, 0);
        assert!(Batch::of([row("A"), row("a")]).is_ok());
        let wrong = Batch::of([row("A"), row(""), row("A"), row("A")]).unwrap_err();
        let wrong: Vec<_> = wrong.into_iter().map(|wrong| (wrong.row, wrong.invalid.message)).collect();
        let again = || "sku \"A\" is also that of row 0".to_owned();
        assert_eq!(wrong, [(1, "sku is empty".to_owned()), (2, again()), (3, again())]);
    }
}
