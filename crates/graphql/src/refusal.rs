use std::{borrow::Cow, fmt};

use async_graphql::Value;

/// Why a request, or a field of it, was not answered: `extensions.code` of every error that leaves a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed, or a value in it breaks a rule. Sending it again will not help.
    Invalid,
    /// What it names does not exist, or is not the caller's to see.
    NotFound,
    /// The state of things speaks against it. The details say what the state is.
    Conflict,
    /// It needs to be known who asks.
    Unauthenticated,
    /// It is known who asks, and they may not.
    Forbidden,
    /// Too often. Later will help.
    RateLimited,
    /// It would cost more than one request may.
    TooComplex,
    /// Our fault. The trace id finds it in the log.
    Internal,
}

impl Code {
    /// The code as clients read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::TooComplex => "TOO_COMPLEX",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An answer of no, for the client to read: a code, a message, and typed details beside the code.
///
/// A resolver returns it with `?`: it arrives as the error's source, where the door finds it again.
///
/// ```
/// # use graphql::Refusal;
/// Refusal::conflict("the stock has changed").with("field", "expectedOnHand").with("current", 7);
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<(&'static str, Value)>,
}

impl Refusal {
    /// What a client is told of a database error by its SQLSTATE, where it is the client's to mend: a value no column
    /// can hold, which got here in a cursor (class 22), or others who change the same (55P03, 40001, 40P01).
    pub fn of_sqlstate(code: &str) -> Option<Self> {
        match code {
            _ if code.starts_with("22") => Some(Self::invalid("a value is out of range")),
            "55P03" | "40001" | "40P01" => Some(Self::conflict("others are changing the same; try again")),
            _ => None,
        }
    }

    /// A refusal with [`Code::Invalid`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// A refusal with [`Code::NotFound`].
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// A refusal with [`Code::Conflict`].
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// A refusal with [`Code::Unauthenticated`].
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    /// A refusal with [`Code::Forbidden`].
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// A refusal with [`Code::RateLimited`].
    pub fn rate_limited(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::RateLimited, message)
    }

    /// A refusal with [`Code::TooComplex`].
    pub fn too_complex(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::TooComplex, message)
    }

    /// Adds a detail: `extensions.<name>` of the error. `code` and `traceId` are taken.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its details, in the order in which they were added.
    pub fn details(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.details.iter().map(|(name, value)| (*name, value))
    }

    fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }
}
