//! What an operation is: its name, what it needs to be allowed, and what it does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::policy::{PolicyList, Tree};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::Server;
pub use crate::door::Authorized;
use crate::door::RequestMeta;
use crate::identity::Caller;

/// One call of the API. A file per operation holds its input, output and this; a line in the table makes it served.
pub trait Operation: Sized + Send + Sync + 'static {
    /// The service it belongs to; wire form, target prefix, signing name and event source hang on it.
    const SERVICE: Service;
    /// Its name, for example `CreateUser`.
    const NAME: &'static str;
    /// Whether it changes state: the audit record's `readOnly`, and replay protection (T-49).
    const EFFECT: Effect;
    /// Who may call it at all.
    const ACCESS: Access = Access::Policy;
    /// Longest life of a presigned request; `None` refuses them. Only for what may be repeated as long (T-46).
    const PRESIGNED: Option<Duration> = None;
    /// Members of input and output, at any depth, that the audit record hides.
    const SECRET_FIELDS: &'static [&'static str] = &[];
    /// The smallest valid input as JSON; the walk over the operations table calls every operation with it.
    const EXAMPLE: &'static str = "{}";
    /// The input: `#[serde(rename_all = "PascalCase", deny_unknown_fields)]`, wire names as in the service's model,
    /// fields of validated types. Serialized again for the audit record.
    type Input: DeserializeOwned + Serialize + Send + Sync;
    /// The output, wire names as in the service's model.
    type Output: Serialize + Send;

    /// Returns what the audit record tells beside input and output (`additionalEventData`).
    fn audit_extras(_: &Self::Input) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }

    /// Proves the caller of an operation under [`Access::Open`] by its input. `None` if nobody has to be proved before
    /// the work.
    fn prove(
        _input: &Self::Input,
        _server: &Server,
        _request: &RequestMeta,
    ) -> impl Future<Output = Result<Option<Caller>, ApiError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Returns every action and resource that must be allowed. Called before anything of the state is revealed:
    /// what is absent and what is forbidden look alike to a caller without permission, so an absent thing is named
    /// by the ARN it would have. An empty list is refused for operations under [`Access::Policy`].
    fn requirements(
        input: &Self::Input,
        server: &Server,
        caller: &Caller,
    ) -> impl Future<Output = Result<Vec<Requirement>, ApiError>> + Send;

    /// Does the work.
    fn run(
        call: &Authorized<Self>,
        server: &Arc<Server>,
    ) -> impl Future<Output = Result<Self::Output, ApiError>> + Send;
}

/// The services whose operations are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Security token service.
    Sts,
    /// Users, groups, policies.
    Iam,
    /// Nodes and sessions.
    Ssm,
    /// The audit trail.
    CloudTrail,
    /// What AWS's agent asks for beside its control channel.
    Ec2Messages,
    /// The channels of AWS's agent; they have paths of their own and no targets.
    SsmMessages,
    /// Nodes as instances of EC2, as far as clients of Instance Connect look at them.
    Ec2,
    /// Keys for sshd and tunnels.
    Ec2InstanceConnect,
    /// What AWS has no operation for.
    Munjigi,
}

/// How requests and answers of a service are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// json 1.1: operation in `X-Amz-Target`, JSON both ways.
    Json,
    /// query: operation in the form's `Action`, answers in XML.
    Query,
    /// ec2 query: as query, but lists are `Name.N`, answers have `<item>`, and errors a form of their own.
    Ec2,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 9] = [
        Self::Sts,
        Self::Iam,
        Self::Ssm,
        Self::CloudTrail,
        Self::Ec2,
        Self::Ec2InstanceConnect,
        Self::Ec2Messages,
        Self::SsmMessages,
        Self::Munjigi,
    ];

    /// Returns the wire form.
    pub const fn wire(self) -> Wire {
        match self {
            Self::Sts | Self::Iam => Wire::Query,
            Self::Ec2 => Wire::Ec2,
            Self::Ssm
            | Self::CloudTrail
            | Self::Ec2InstanceConnect
            | Self::Ec2Messages
            | Self::SsmMessages
            | Self::Munjigi => Wire::Json,
        }
    }

    /// Returns the name in the credential scope.
    pub const fn signing_name(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Iam => "iam",
            Self::Ssm => "ssm",
            Self::CloudTrail => "cloudtrail",
            Self::Ec2Messages => "ec2messages",
            Self::SsmMessages => "ssmmessages",
            Self::Ec2 => "ec2",
            Self::Ec2InstanceConnect => "ec2-instance-connect",
            Self::Munjigi => "munjigi",
        }
    }

    /// Returns what stands before the operation in `X-Amz-Target`; `None` for query services.
    pub const fn target_prefix(self) -> Option<&'static str> {
        match self {
            Self::Sts | Self::Iam | Self::Ec2 | Self::SsmMessages => None,
            Self::Ec2InstanceConnect => Some("AWSEC2InstanceConnectService."),
            Self::Ssm => Some("AmazonSSM."),
            Self::CloudTrail => Some("com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101."),
            Self::Ec2Messages => Some("EC2WindowsMessageDeliveryService."),
            Self::Munjigi => Some("Munjigi."),
        }
    }

    /// Returns `eventSource` of audit records.
    pub const fn event_source(self) -> &'static str {
        match self {
            Self::Sts => "sts.amazonaws.com",
            Self::Iam => "iam.amazonaws.com",
            Self::Ssm => "ssm.amazonaws.com",
            Self::CloudTrail => "cloudtrail.amazonaws.com",
            Self::Ec2Messages => "ec2messages.amazonaws.com",
            Self::SsmMessages => "ssmmessages.amazonaws.com",
            Self::Ec2 => "ec2.amazonaws.com",
            Self::Ec2InstanceConnect => "ec2-instance-connect.amazonaws.com",
            Self::Munjigi => "munjigi.local",
        }
    }

    /// Returns the API version.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Sts => "2011-06-15",
            Self::Iam => "2010-05-08",
            Self::Ssm => "2014-11-06",
            Self::CloudTrail => "2013-11-01",
            Self::Ec2Messages => "2014-12-01",
            Self::SsmMessages => "2017-12-01",
            Self::Ec2 => "2016-11-15",
            Self::Ec2InstanceConnect => "2018-04-02",
            Self::Munjigi => "2026-11-01",
        }
    }

    /// Returns the XML namespace of query answers.
    pub const fn xml_namespace(self) -> &'static str {
        match self {
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::Ec2 => "http://ec2.amazonaws.com/doc/2016-11-15/",
            Self::Ssm
            | Self::CloudTrail
            | Self::Ec2InstanceConnect
            | Self::Ec2Messages
            | Self::SsmMessages
            | Self::Munjigi => "",
        }
    }
}

/// Whether an operation changes state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only looks.
    Read,
    /// It changes something.
    Write,
}

/// Who may call an operation at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whom the policies allow.
    Policy,
    /// Any authenticated caller, about itself.
    Caller,
    /// AWS's agent on a node that is still registered, about this node ([`Principal::node`]); nobody else. What a
    /// user or role may call is never open to a node.
    ///
    /// [`Principal::node`]: crate::identity::Principal::node
    Node,
    /// AWS's agent, whose request is signed with the node's own key, about that node alone.
    NodeKey,
    /// Anybody: the operation proves the caller by other means. A fixed list (T-50).
    Open,
}

/// What stands before the tags of a resource in condition keys.
const RESOURCE_TAGS: [&str; 3] = ["aws:ResourceTag/", "ssm:resourceTag/", "ec2:ResourceTag/"];
/// Beginnings of the condition keys that only a resource has which is there.
const OF_RESOURCES: [&str; 5] = [RESOURCE_TAGS[0], RESOURCE_TAGS[1], RESOURCE_TAGS[2], TARGET_KIND, "munjigi:OsUser"];
/// Names what a target speaks to policies.
pub(crate) const TARGET_KIND: &str = "munjigi:TargetKind";

/// One action on one resource that must be allowed.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// For example `iam:CreateUser`.
    pub action: &'static str,
    /// The resource's ARN, or `*` for actions without a resource.
    pub resource: String,
    /// CloudFormation-style type for the audit record, for example `AWS::IAM::User`.
    pub resource_type: Option<&'static str>,
    /// The resource's own policy, which must let the caller or its account in.
    pub(crate) guard: Option<Arc<PolicyList>>,
    /// Condition keys beside the global ones.
    pub(crate) context: Vec<(String, Vec<String>, Values)>,
    /// Condition keys whose value will only be known later; whoever leaves them open asks again then.
    pub(crate) open: Vec<&'static str>,
    /// Condition keys that stand for a path and everything below it.
    pub(crate) trees: Vec<(&'static str, String, Tree)>,
    /// What a caller learns of the resource who is not allowed this. No part of what is needed.
    pub(crate) existence: Existence,
}

/// What a caller learns of a resource that it may not use.
#[derive(Debug, Clone, Default)]
pub(crate) enum Existence {
    /// That it is there.
    #[default]
    Open,
    /// It is there and was named by what may be guessed: whoever may not know it gets the answer for what is not there and
    /// would have this ARN.
    Named(String),
    /// There is none.
    Absent,
}

impl PartialEq for Requirement {
    fn eq(&self, other: &Self) -> bool {
        let guards = match (&self.guard, &other.guard) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        guards
            && self.action == other.action
            && self.resource == other.resource
            && self.resource_type == other.resource_type
            && self.context == other.context
            && self.open == other.open
            && self.trees == other.trees
    }
}

/// How many values a condition key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    Single,
    Multi,
}

impl Requirement {
    /// Requires an action on a resource.
    pub fn new(action: &'static str, resource: impl ToString) -> Self {
        Self {
            action,
            resource: resource.to_string(),
            resource_type: None,
            guard: None,
            context: Vec::new(),
            open: Vec::new(),
            trees: Vec::new(),
            existence: Existence::Open,
        }
    }

    /// Requires an action that has no resource type.
    pub fn any(action: &'static str) -> Self {
        Self::new(action, "*")
    }

    /// Names the resource's type for the audit record.
    #[must_use]
    pub fn of_type(mut self, resource_type: &'static str) -> Self {
        self.resource_type = Some(resource_type);
        self
    }

    /// Has the resource guarded by its own policy, without which nobody gets in: a role by its trust policy.
    #[must_use]
    pub fn guarded_by(mut self, policy: Arc<PolicyList>) -> Self {
        self.guard = Some(policy);
        self
    }

    /// Says what a caller learns of the resource who is not allowed this.
    #[must_use]
    pub(crate) fn existing(mut self, existence: Existence) -> Self {
        self.existence = existence;
        self
    }

    /// Returns what would be needed if there were no such resource: under the ARN that it would have, and without what
    /// only an existing one has.
    #[must_use]
    pub(crate) fn without(mut self, arn: &str) -> Self {
        arn.clone_into(&mut self.resource);
        self.existence = Existence::Absent;
        self.context.retain(|(key, ..)| !OF_RESOURCES.iter().any(|own| key.starts_with(own)));
        self
    }

    /// Adds a single-valued condition key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((key.into(), vec![value.into()], Values::Single));
        self
    }

    /// Leaves a condition key open until its value is known ([`Context::leave_open`]).
    ///
    /// [`Context::leave_open`]: munjigi_core::policy::Context::leave_open
    #[must_use]
    pub fn with_open(mut self, key: &'static str) -> Self {
        self.open.push(key);
        self
    }

    /// Lets a condition key stand for a path and every path below it ([`Context::set_tree`]).
    ///
    /// [`Context::set_tree`]: munjigi_core::policy::Context::set_tree
    #[must_use]
    pub fn with_tree(mut self, key: &'static str, path: impl Into<String>, tree: Tree) -> Self {
        self.trees.push((key, path.into(), tree));
        self
    }

    /// Adds a multi-valued condition key; an empty set leaves it absent.
    #[must_use]
    pub fn with_many<V: Into<String>>(mut self, key: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        self.context.push((key.into(), values, Values::Multi));
        self
    }

    /// Adds the tags that the resource has, in all spellings (`aws:ResourceTag/`, `ssm:resourceTag/`,
    /// `ec2:ResourceTag/`).
    #[must_use]
    pub fn resource_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (key, value) in tags {
            for prefix in RESOURCE_TAGS {
                self = self.with(format!("{prefix}{key}"), value);
            }
        }
        self
    }

    /// Adds the tags that the call sets (`aws:RequestTag/`, `aws:TagKeys`).
    #[must_use]
    pub fn request_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut keys = Vec::new();
        for (key, value) in tags {
            self = self.with(format!("aws:RequestTag/{key}"), value);
            keys.push(key.to_owned());
        }
        self.with_many("aws:TagKeys", keys)
    }
}
