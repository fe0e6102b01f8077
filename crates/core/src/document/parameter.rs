//! Parameters of a document: what may be given, and the check of what is given.

use std::collections::BTreeMap;

use super::MAX_PARAMETERS;
use super::error::{DocumentError, ResolveError};
use super::pattern::Pattern;
use super::read::At;

/// Longest value in characters (the AWS model of StartSession).
const MAX_VALUE_CHARS: usize = 65_535;
/// Most allowed values of one parameter.
const MAX_ALLOWED: usize = 256;

/// How a value reaches the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// As text in the place of the placeholder.
    Text,
    /// As the environment variable `SSM_<name>`; the placeholder becomes a reference to it (`ENV_VAR`).
    Variable,
}

/// A parameter as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What the author says of it.
    pub description: String,
    /// The value when none is given; without it a value is required.
    pub default: Option<String>,
    /// How the value reaches the command.
    pub interpolation: Interpolation,
    allowed_values: Option<Vec<String>>,
    allowed_pattern: Option<Pattern>,
    least_chars: usize,
    most_chars: usize,
}

/// A parameter with its value.
#[derive(Debug, Clone)]
pub(super) struct Filled {
    pub(super) name: String,
    /// What stands in the place of its placeholders.
    pub(super) text: String,
    /// The variable, if it is one.
    pub(super) variable: Option<(String, String)>,
}

impl Filled {
    #[cfg(test)]
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), variable: None }
    }
}

/// Reads the object `parameters`.
pub(super) fn read_all(found: &At<'_>) -> Result<Vec<Parameter>, DocumentError> {
    let fields = found.fields()?;
    let parameters: Vec<Parameter> =
        fields.all().map(|(name, found)| Parameter::read(name, &found)).collect::<Result<_, _>>()?;
    if parameters.len() > MAX_PARAMETERS {
        return Err(found.wrong(format!("holds more than {MAX_PARAMETERS} parameters")));
    }
    Ok(parameters)
}

impl Parameter {
    fn read(name: &str, found: &At<'_>) -> Result<Self, DocumentError> {
        let fields = found.fields()?;
        fields.only(&[
            "type",
            "description",
            "default",
            "allowedValues",
            "allowedPattern",
            "minChars",
            "maxChars",
            "displayType",
            "interpolationType",
        ])?;
        let kind = fields.required("type")?;
        if kind.text()? != "String" {
            return Err(kind.wrong("must be String, the only type of parameters in a session document"));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let interpolation = match fields.get("interpolationType") {
            None => Interpolation::Text,
            Some(found) => match found.text()? {
                "ENV_VAR" => Interpolation::Variable,
                _ => return Err(found.wrong("must be ENV_VAR, or be left out")),
            },
        };
        let other = |b: u8| interpolation == Interpolation::Text && b".-".contains(&b);
        let first = name.bytes().next().is_some_and(word);
        if !first || name.len() > 255 || !name.bytes().all(|b| word(b) || other(b)) {
            let message =
                "a parameter's name has 1 to 255 letters, digits and underscores (and . and - without ENV_VAR)";
            return Err(found.wrong(message));
        }
        if let Some(display) = fields.get("displayType")
            && !["textfield", "textarea"].contains(&display.text()?)
        {
            return Err(display.wrong("must be textfield or textarea"));
        }
        let most = u32::try_from(MAX_VALUE_CHARS).unwrap_or(u32::MAX);
        let chars = |name: &str, otherwise: usize| -> Result<usize, DocumentError> {
            let number = fields.get(name).map(|found| found.number(0, most)).transpose()?.flatten();
            Ok(number.map_or(otherwise, |number| usize::try_from(number).unwrap_or(otherwise)))
        };
        let (least_chars, most_chars) = (chars("minChars", 0)?, chars("maxChars", MAX_VALUE_CHARS)?);
        if least_chars > most_chars {
            return Err(found.wrong("minChars is larger than maxChars"));
        }
        let pattern = |found: At<'_>| Pattern::parse(found.text()?).map_err(|why| found.wrong(why));
        let parameter = Self {
            name: name.to_owned(),
            description: fields.get("description").map(|found| found.text_of(2048)).transpose()?.unwrap_or_default(),
            default: fields.get("default").map(|found| found.text_of(MAX_VALUE_CHARS)).transpose()?,
            interpolation,
            allowed_values: fields.get("allowedValues").map(|found| allowed_values(&found)).transpose()?,
            allowed_pattern: fields.get("allowedPattern").map(pattern).transpose()?,
            least_chars,
            most_chars,
        };
        if let (Some(default), Some(found)) = (&parameter.default, fields.get("default")) {
            parameter.judge(default).map_err(|why| found.wrong(format!("the default {why}")))?;
        }
        Ok(parameter)
    }

    /// Tells whether what may be given is narrowed by a pattern or a list.
    pub(super) fn is_narrowed(&self) -> bool {
        self.allowed_values.is_some() || self.allowed_pattern.is_some()
    }

    /// Returns what the value breaks.
    fn judge(&self, value: &str) -> Result<(), String> {
        let chars = value.chars().count();
        if chars < self.least_chars || chars > self.most_chars {
            return Err(format!("must have {} to {} characters", self.least_chars, self.most_chars));
        }
        if value.contains('\0') {
            return Err("holds a NUL character".to_owned());
        }
        if let Some(allowed) = self.allowed_values.as_ref().filter(|allowed| !allowed.iter().any(|one| one == value)) {
            let shown: Vec<&str> = allowed.iter().take(10).map(String::as_str).collect();
            return Err(format!("is none of the allowed values ({})", shown.join(", ")));
        }
        match &self.allowed_pattern {
            Some(pattern) if !pattern.matches(value) => {
                Err(format!("does not match the allowed pattern {}", pattern.source()))
            }
            _ => Ok(()),
        }
    }
}

fn allowed_values(found: &At<'_>) -> Result<Vec<String>, DocumentError> {
    let values: Vec<String> =
        found.list()?.iter().map(|one| one.text().map(str::to_owned)).collect::<Result<_, _>>()?;
    if values.is_empty() || values.len() > MAX_ALLOWED {
        return Err(found.wrong(format!("must hold 1 to {MAX_ALLOWED} values")));
    }
    Ok(values)
}

/// Checks what is given and returns every parameter with its value, in the order of the document.
pub(super) fn values(
    parameters: &[Parameter],
    given: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Filled>, ResolveError> {
    if let Some(unknown) = given.keys().find(|name| !parameters.iter().any(|one| one.name == **name)) {
        return Err(ResolveError::Unknown(crate::policy::error::shown(unknown)));
    }
    parameters.iter().map(|parameter| value(parameter, given.get(&parameter.name))).collect()
}

fn value(parameter: &Parameter, given: Option<&Vec<String>>) -> Result<Filled, ResolveError> {
    let name = || parameter.name.clone();
    let text = match (given.map(Vec::as_slice), &parameter.default) {
        (Some([one]), _) => {
            parameter.judge(one).map_err(|why| ResolveError::Refused { name: name(), why })?;
            one.clone()
        }
        (Some(_), _) => return Err(ResolveError::NotOne(name())),
        (None, Some(default)) => default.clone(),
        (None, None) => return Err(ResolveError::Missing(name())),
    };
    Ok(match parameter.interpolation {
        Interpolation::Text => Filled { name: name(), text, variable: None },
        Interpolation::Variable => {
            let variable = format!("SSM_{}", parameter.name);
            Filled { name: name(), text: format!("${{{variable}}}"), variable: Some((variable, text)) }
        }
    })
}
