//! Why a document is refused, and why it cannot be resolved with the parameters given.

/// A refused document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// AWS's `InvalidDocumentContent`: what is wrong, and where.
    #[error("{path}: {message}")]
    Content {
        /// The place: a JSON path such as `$.inputs.kmsKeyId`, or line and column when the text is no JSON.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// AWS's `InvalidDocumentSchemaVersion`.
    #[error("$.schemaVersion: must be the text \"1.0\", the only version of session documents")]
    SchemaVersion,
    /// AWS's `MaxDocumentSizeExceeded`.
    #[error("the document has more than 64 KB")]
    TooLarge,
}

impl DocumentError {
    pub(super) fn at(path: &str, message: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), message: message.into() }
    }

    /// Returns the AWS error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Content { .. } => "InvalidDocumentContent",
            Self::SchemaVersion => "InvalidDocumentSchemaVersion",
            Self::TooLarge => "MaxDocumentSizeExceeded",
        }
    }
}

/// Why a document starts nothing with these parameters. Values given by the caller are never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The document has no such parameter.
    #[error("the document has no parameter `{0}`")]
    Unknown(String),
    /// A parameter without a default was not given.
    #[error("the parameter `{0}` is required")]
    Missing(String),
    /// Not exactly one value was given.
    #[error("the parameter `{0}` takes exactly one value")]
    NotOne(String),
    /// A value breaks the parameter's own rules.
    #[error("the value of the parameter `{name}` {why}")]
    Refused {
        /// The parameter.
        name: String,
        /// Which rule.
        why: String,
    },
    /// With the parameters put in, the document is not good.
    #[error("with these parameters the document is not good: {0}")]
    Document(#[from] DocumentError),
}
