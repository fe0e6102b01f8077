//! The grammar of policy documents: strict reading of the JSON form into compiled statements.
//!
//! A document the evaluator does not fully understand is refused with its place and a sentence; nothing is skipped.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::ActionPattern;
use super::arn_match::ResourcePattern;
use super::condition::{Condition, Operator};
use super::error::{Fault, Lines, PolicyError, Warning, shown};
use super::json::{self, Member, Node, Value};
use super::principal::{PrincipalElement, PrincipalPattern};
use super::statement::{ActionElement, ResourceElement, Statement};
use super::{remarks, size};

/// Where a policy is attached, which decides what its statements may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyKind {
    /// To a user, group or role.
    Identity,
    /// To a user or role, as the most it may do.
    Boundary,
    /// Passed when a session was made.
    Session,
    /// To a resource: says who may do what to it.
    Resource,
    /// To a role: says who may assume it; has no `Resource`.
    Trust,
    /// To an organization's root, unit or account, for callers or for resources.
    Organization,
}

impl PolicyKind {
    /// Tells whether statements of this kind name principals.
    pub const fn names_principals(self) -> bool {
        matches!(self, Self::Resource | Self::Trust)
    }
}

/// A parsed and compiled policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    kind: PolicyKind,
    id: Option<Box<str>>,
    statements: Box<[Statement]>,
    warnings: Box<[Warning]>,
}

impl Policy {
    /// Reads a document of a kind.
    ///
    /// # Errors
    /// The document is longer than [`size::SIMULATED_DOCUMENT`] characters, is no JSON, repeats a key, nests too deep,
    /// or breaks the grammar of IAM policies: the error says where and how. Quotas that depend on where the policy is
    /// stored are the caller's to check with [`size`].
    pub fn parse(text: &str, kind: PolicyKind) -> Result<Self, PolicyError> {
        let lines = Lines::new(text);
        Self::read(text, kind, &lines).map_err(|fault| lines.error(fault))
    }

    fn read(text: &str, kind: PolicyKind, lines: &Lines<'_>) -> Result<Self, Fault> {
        if text.chars().nth(size::SIMULATED_DOCUMENT).is_some() {
            return Err(Fault::new(0, format!("the document is longer than {} characters", size::SIMULATED_DOCUMENT)));
        }
        let root = json::read(text)?;
        let members = object(&root, "a policy document")?;
        let (mut version, mut id, mut statements) = (None, None, None);
        for member in members {
            match member.name.as_str() {
                "Version" => version = Some(read_version(&member.value)?),
                "Id" => id = Some(string(&member.value, "Id")?.into()),
                "Statement" => statements = Some(member),
                _ => return Err(unknown(member, "a policy document", "Version, Id and Statement")),
            }
        }
        let statements = statements.ok_or_else(|| Fault::new(root.start, "the document has no `Statement` element"))?;
        let language = Language { kind, variables: version.unwrap_or(false), lines };
        let nodes = one_or_many(&statements.value, "Statement")?;
        let read: Vec<Statement> = nodes.iter().map(|node| language.statement(node)).collect::<Result<_, _>>()?;
        unique_sids(&read, nodes)?;
        let mut warnings = remarks::on_statements(&read, kind);
        if version.is_none() && text.contains("${") {
            let position = lines.position(root.start);
            let message =
                "without `\"Version\": \"2012-10-17\"` the text `${…}` is no variable but plain text".to_owned();
            warnings.push(Warning { position, message });
        }
        Ok(Self { kind, id, statements: read.into(), warnings: warnings.into() })
    }

    /// Returns what kind of policy the document was read as.
    pub fn kind(&self) -> PolicyKind {
        self.kind
    }

    /// Returns the document's `Id`, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns remarks on what is legal in the document but probably not meant.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Tells how many statements the document has.
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// Returns the condition keys that conditions and variables of the document ask for, as written, in alphabetical
    /// order, each once.
    pub fn context_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for statement in &self.statements {
            let resources = match &statement.resource {
                ResourceElement::Any(patterns) | ResourceElement::Not(patterns) => patterns.as_ref(),
                ResourceElement::Absent => &[],
            };
            let templates = resources.iter().filter_map(ResourcePattern::template);
            let templates = templates.chain(statement.conditions.iter().flat_map(Condition::templates));
            keys.extend(templates.flat_map(|template| template.variables()).map(|variable| &variable.key));
            keys.extend(statement.conditions.iter().map(Condition::key));
        }
        keys.sort_by_key(|key| key.folded());
        keys.dedup();
        keys.into_iter().map(|key| key.shown().to_owned()).collect()
    }

    pub(super) fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

/// What the statements of a document may hold.
struct Language<'l> {
    kind: PolicyKind,
    /// `${…}` is a variable.
    variables: bool,
    lines: &'l Lines<'l>,
}

/// The elements of a statement, not yet read.
#[derive(Default)]
struct Elements<'n> {
    sid: Option<&'n Member>,
    effect: Option<&'n Member>,
    principal: Option<&'n Member>,
    action: Option<&'n Member>,
    resource: Option<&'n Member>,
    condition: Option<&'n Member>,
}

impl Language<'_> {
    fn statement(&self, node: &Node) -> Result<Statement, Fault> {
        let elements = Elements::sort(object(node, "a statement")?)?;
        let missing = |name: &str| Fault::new(node.start, format!("the statement has no `{name}` element"));
        let allows = read_effect(elements.effect.ok_or_else(|| missing("Effect"))?)?;
        let principal = self.principal(node, elements.principal, allows)?;
        let action = read_actions(elements.action.ok_or_else(|| missing("Action"))?)?;
        let resource = match (self.kind, elements.resource) {
            (PolicyKind::Trust, None) => ResourceElement::Absent,
            (PolicyKind::Trust, Some(member)) => {
                let message = format!("a trust policy has no `{}`: it speaks of its own role", member.name);
                return Err(Fault::new(member.at, message));
            }
            (_, Some(member)) => self.resources(member)?,
            (_, None) => return Err(missing("Resource")),
        };
        Ok(Statement {
            sid: elements.sid.map(|member| self.sid(&member.value)).transpose()?.flatten(),
            allows,
            principal,
            action,
            resource,
            conditions: elements.condition.map(|member| self.conditions(member)).transpose()?.unwrap_or_default(),
            start: self.lines.position(node.start),
            end: self.lines.position(node.end.saturating_sub(1)),
        })
    }

    /// Reads a Sid; an empty one is none.
    fn sid(&self, node: &Node) -> Result<Option<Arc<str>>, Fault> {
        let sid = string(node, "Sid")?;
        let blank_allowed = self.kind.names_principals();
        if sid.chars().all(|c| c.is_ascii_alphanumeric() || (blank_allowed && c == ' ')) {
            return Ok((!sid.is_empty()).then(|| sid.into()));
        }
        Err(Fault::new(node.start, format!("Sid `{}` has other characters than A-Z, a-z and 0-9", shown(sid))))
    }

    fn principal(
        &self,
        statement: &Node,
        member: Option<&Member>,
        allows: bool,
    ) -> Result<Option<PrincipalElement>, Fault> {
        match (self.kind.names_principals(), member) {
            (false, None) => Ok(None),
            (false, Some(member)) => {
                let message = format!("`{}` stands only in resource and trust policies", member.name);
                Err(Fault::new(member.at, message))
            }
            (true, None) => {
                Err(Fault::new(statement.start, "the statement has no `Principal`: say to whom the policy applies"))
            }
            (true, Some(member)) => {
                let names = read_principals(&member.value)?;
                match (member.name.as_str(), allows) {
                    ("NotPrincipal", true) => Err(Fault::new(
                        member.at,
                        "`NotPrincipal` with `Allow` would let everybody else in; it stands only with `Deny`",
                    )),
                    ("NotPrincipal", false) => Ok(Some(PrincipalElement::Not(names))),
                    _ => Ok(Some(PrincipalElement::Named(names))),
                }
            }
        }
    }

    fn resources(&self, member: &Member) -> Result<ResourceElement, Fault> {
        let read = |node: &Node| {
            let text = string(node, &member.name)?;
            ResourcePattern::parse(text, self.variables).map_err(|message| Fault::new(node.start, message))
        };
        let patterns: Vec<_> = one_or_many(&member.value, &member.name)?.iter().map(read).collect::<Result<_, _>>()?;
        let patterns = patterns.into();
        Ok(if member.name == "Resource" { ResourceElement::Any(patterns) } else { ResourceElement::Not(patterns) })
    }

    fn conditions(&self, member: &Member) -> Result<Box<[Condition]>, Fault> {
        let mut conditions = Vec::new();
        for block in object(&member.value, "`Condition`")? {
            let operator = Operator::parse(&block.name).ok_or_else(|| {
                Fault::new(block.at, format!("condition operator `{}` does not exist", shown(&block.name)))
            })?;
            for key in object(&block.value, &format!("condition operator `{}`", block.name))? {
                if key.name.is_empty() || key.name.contains("${") {
                    let message = "a condition key is a plain name such as `aws:SourceIp`; variables stand in values";
                    return Err(Fault::new(key.at, message));
                }
                conditions.push(self.condition(operator, key)?);
            }
        }
        Ok(conditions.into())
    }

    fn condition(&self, operator: Operator, key: &Member) -> Result<Condition, Fault> {
        let nodes = match &key.value.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(&key.value),
        };
        let values: Vec<String> = nodes.iter().map(condition_value).collect::<Result<_, _>>()?;
        Condition::compile(operator, &key.name, &values, self.variables).map_err(|(index, message)| {
            let at = nodes.get(index).map_or(key.at, |node| node.start);
            Fault::new(at, format!("{message} (condition key `{}`)", shown(&key.name)))
        })
    }
}

impl<'n> Elements<'n> {
    /// Finds each member's place and refuses unknown ones and pairs that exclude each other.
    fn sort(members: &'n [Member]) -> Result<Self, Fault> {
        let mut elements = Self::default();
        for member in members {
            let place = match member.name.as_str() {
                "Sid" => &mut elements.sid,
                "Effect" => &mut elements.effect,
                "Principal" | "NotPrincipal" => &mut elements.principal,
                "Action" | "NotAction" => &mut elements.action,
                "Resource" | "NotResource" => &mut elements.resource,
                "Condition" => &mut elements.condition,
                _ => {
                    let known = "Sid, Effect, Principal, NotPrincipal, Action, NotAction, Resource, NotResource and \
                                 Condition";
                    return Err(unknown(member, "a statement", known));
                }
            };
            if let Some(earlier) = place.replace(member) {
                let message = format!("`{}` and `{}` exclude each other in one statement", earlier.name, member.name);
                return Err(Fault::new(member.at, message));
            }
        }
        Ok(elements)
    }
}

/// Returns whether the version knows variables.
fn read_version(node: &Node) -> Result<bool, Fault> {
    match string(node, "Version")? {
        "2012-10-17" => Ok(true),
        "2008-10-17" => Ok(false),
        other => Err(Fault::new(
            node.start,
            format!("Version `{}` does not exist; write 2012-10-17 (or 2008-10-17)", shown(other)),
        )),
    }
}

fn read_effect(member: &Member) -> Result<bool, Fault> {
    match string(&member.value, "Effect")? {
        "Allow" => Ok(true),
        "Deny" => Ok(false),
        other => {
            Err(Fault::new(member.value.start, format!("Effect `{}` is neither `Allow` nor `Deny`", shown(other))))
        }
    }
}

fn read_actions(member: &Member) -> Result<ActionElement, Fault> {
    let read = |node: &Node| {
        let text = string(node, &member.name)?;
        ActionPattern::parse(text).map_err(|message| Fault::new(node.start, message))
    };
    let patterns: Vec<_> = one_or_many(&member.value, &member.name)?.iter().map(read).collect::<Result<_, _>>()?;
    let patterns = patterns.into();
    Ok(if member.name == "Action" { ActionElement::Any(patterns) } else { ActionElement::Not(patterns) })
}

fn read_principals(node: &Node) -> Result<Box<[PrincipalPattern]>, Fault> {
    if let Value::Text(text) = &node.value {
        if text == "*" {
            return Ok([PrincipalPattern::Everybody].into());
        }
        let message = format!("principal `{}` stands without its kind; write {{\"AWS\": \"…\"}} or `*`", shown(text));
        return Err(Fault::new(node.start, message));
    }
    let mut patterns = Vec::new();
    for kind in object(node, "`Principal`")? {
        for name in one_or_many(&kind.value, &kind.name)? {
            let text = string(name, &kind.name)?;
            let at = if matches!(kind.name.as_str(), "AWS" | "Service" | "Federated" | "CanonicalUser") {
                name.start
            } else {
                kind.at
            };
            patterns.push(PrincipalPattern::parse(&kind.name, text).map_err(|message| Fault::new(at, message))?);
        }
    }
    if patterns.is_empty() {
        return Err(Fault::new(node.start, "`Principal` names nobody"));
    }
    Ok(patterns.into())
}

/// Returns a condition value in its text form.
fn condition_value(node: &Node) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        other => {
            let message = format!("a condition value is text, a number or a boolean, not {}", other.kind());
            Err(Fault::new(node.start, message))
        }
    }
}

fn unique_sids(statements: &[Statement], nodes: &[Node]) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for (statement, node) in statements.iter().zip(nodes) {
        if let Some(sid) = statement.sid.as_ref().filter(|sid| !seen.insert(Arc::clone(sid))) {
            return Err(Fault::new(node.start, format!("Sid `{}` stands at two statements", shown(sid))));
        }
    }
    Ok(())
}

fn object<'n>(node: &'n Node, what: &str) -> Result<&'n [Member], Fault> {
    match &node.value {
        Value::Object(members) => Ok(members),
        other => Err(Fault::new(node.start, format!("{what} is an object, not {}", other.kind()))),
    }
}

fn string<'n>(node: &'n Node, element: &str) -> Result<&'n str, Fault> {
    match &node.value {
        Value::Text(text) => Ok(text),
        other => Err(Fault::new(node.start, format!("`{}` holds text, not {}", shown(element), other.kind()))),
    }
}

/// Takes a single value as a list of one; an empty list says nothing and is refused.
fn one_or_many<'n>(node: &'n Node, element: &str) -> Result<&'n [Node], Fault> {
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            Err(Fault::new(node.start, format!("`{}` is an empty list", shown(element))))
        }
        Value::List(nodes) => Ok(nodes),
        _ => Ok(std::slice::from_ref(node)),
    }
}

fn unknown(member: &Member, place: &str, known: &str) -> Fault {
    Fault::new(member.at, format!("`{}` is no element of {place}; known are {known}", shown(&member.name)))
}
