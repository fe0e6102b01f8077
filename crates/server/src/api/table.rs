//! The one table of operations. What is not in it is not served; what is in it is walked by the tests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::WireInput;
use super::error::ApiError;
use super::operation::{Access, Effect, Operation, Service};
use super::{cloudtrail, ec2, ec2_instance_connect, ec2messages, iam, munjigi, ssm, sts};
use crate::Server;
use crate::door::{self, RequestMeta};
use crate::identity::Caller;

/// What an entry's function returns.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// One operation with its types erased.
pub(crate) struct Entry {
    pub(crate) service: Service,
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    pub(crate) access: Access,
    /// Longest life of a presigned request.
    pub(crate) presigned: Option<Duration>,
    /// The smallest valid input as JSON.
    #[cfg_attr(not(test), expect(dead_code, reason = "the walk over the table calls with it"))]
    pub(crate) example: &'static str,
    /// Reads the input and passes the door.
    pub(crate) invoke: fn(Arc<Server>, Caller, WireInput, RequestMeta) -> Answer,
}

impl Entry {
    const fn of<O: Operation>() -> Self {
        Self {
            service: O::SERVICE,
            name: O::NAME,
            effect: O::EFFECT,
            access: O::ACCESS,
            presigned: O::PRESIGNED,
            example: O::EXAMPLE,
            invoke: |server, caller, input, request| {
                Box::pin(async move { door::call_wire::<O>(&server, &caller, input, request).await })
            },
        }
    }
}

/// Builds the table from a list of types.
macro_rules! operations {
    [$($operation:path),* $(,)?] => {
        /// All operations.
        pub(crate) static OPERATIONS: &[Entry] = &[$(Entry::of::<$operation>()),*];
    };
}

operations![
    sts::AssumeRole,
    sts::AssumeRoleWithWebIdentity,
    sts::GetCallerIdentity,
    sts::GetSessionToken,
    iam::AddClientIDToOpenIDConnectProvider,
    iam::AddUserToGroup,
    iam::AttachGroupPolicy,
    iam::AttachRolePolicy,
    iam::AttachUserPolicy,
    iam::CreateAccessKey,
    iam::CreateGroup,
    iam::CreateOpenIDConnectProvider,
    iam::CreatePolicy,
    iam::CreatePolicyVersion,
    iam::CreateRole,
    iam::CreateUser,
    iam::CreateVirtualMFADevice,
    iam::DeactivateMFADevice,
    iam::DeleteAccessKey,
    iam::DeleteGroup,
    iam::DeleteGroupPolicy,
    iam::DeleteOpenIDConnectProvider,
    iam::DeletePolicy,
    iam::DeletePolicyVersion,
    iam::DeleteRole,
    iam::DeleteRolePermissionsBoundary,
    iam::DeleteRolePolicy,
    iam::DeleteSSHPublicKey,
    iam::DeleteUser,
    iam::DeleteUserPermissionsBoundary,
    iam::DeleteUserPolicy,
    iam::DeleteVirtualMFADevice,
    iam::DetachGroupPolicy,
    iam::DetachRolePolicy,
    iam::DetachUserPolicy,
    iam::EnableMFADevice,
    iam::GetAccessKeyLastUsed,
    iam::GetGroup,
    iam::GetGroupPolicy,
    iam::GetOpenIDConnectProvider,
    iam::GetPolicy,
    iam::GetPolicyVersion,
    iam::GetRole,
    iam::GetRolePolicy,
    iam::GetSSHPublicKey,
    iam::GetUser,
    iam::GetUserPolicy,
    iam::ListAccessKeys,
    iam::ListAttachedGroupPolicies,
    iam::ListAttachedRolePolicies,
    iam::ListAttachedUserPolicies,
    iam::ListEntitiesForPolicy,
    iam::ListGroupPolicies,
    iam::ListGroups,
    iam::ListGroupsForUser,
    iam::ListMFADevices,
    iam::ListOpenIDConnectProviders,
    iam::ListPolicies,
    iam::ListPolicyTags,
    iam::ListPolicyVersions,
    iam::ListRolePolicies,
    iam::ListRoleTags,
    iam::ListRoles,
    iam::ListSSHPublicKeys,
    iam::ListUserPolicies,
    iam::ListUserTags,
    iam::ListUsers,
    iam::ListVirtualMFADevices,
    iam::PutGroupPolicy,
    iam::PutRolePermissionsBoundary,
    iam::PutRolePolicy,
    iam::PutUserPermissionsBoundary,
    iam::PutUserPolicy,
    iam::RemoveClientIDFromOpenIDConnectProvider,
    iam::RemoveUserFromGroup,
    iam::ResyncMFADevice,
    iam::SetDefaultPolicyVersion,
    iam::SimulateCustomPolicy,
    iam::SimulatePrincipalPolicy,
    iam::TagPolicy,
    iam::TagRole,
    iam::TagUser,
    iam::UntagPolicy,
    iam::UntagRole,
    iam::UntagUser,
    iam::UpdateAccessKey,
    iam::UpdateAssumeRolePolicy,
    iam::UpdateGroup,
    iam::UpdateRole,
    iam::UpdateSSHPublicKey,
    iam::UpdateUser,
    iam::UploadSSHPublicKey,
    ssm::AddTagsToResource,
    ssm::CreateActivation,
    ssm::CreateDocument,
    ssm::DeleteActivation,
    ssm::DeleteDocument,
    ssm::DeregisterManagedInstance,
    ssm::DescribeActivations,
    ssm::DescribeDocument,
    ssm::DescribeDocumentPermission,
    ssm::DescribeInstanceInformation,
    ssm::DescribeSessions,
    ssm::GetConnectionStatus,
    ssm::GetDocument,
    ssm::ListAssociations,
    ssm::ListDocumentVersions,
    ssm::ListDocuments,
    ssm::ListInstanceAssociations,
    ssm::ListTagsForResource,
    ssm::ModifyDocumentPermission,
    ssm::RegisterManagedInstance,
    ssm::RemoveTagsFromResource,
    ssm::RequestManagedInstanceRoleToken,
    ssm::ResumeSession,
    ssm::StartSession,
    ssm::TerminateSession,
    ssm::UpdateDocument,
    ssm::UpdateDocumentDefaultVersion,
    ssm::UpdateInstanceInformation,
    ssm::UpdateManagedInstancePublicKey,
    ec2messages::GetMessages,
    cloudtrail::LookupEvents,
    ec2::DescribeInstanceConnectEndpoints,
    ec2::DescribeInstances,
    ec2::DescribeTags,
    ec2_instance_connect::SendSSHPublicKey,
    ec2_instance_connect::SendSerialConsoleSSHPublicKey,
    munjigi::ConfirmAccountRemoval,
    munjigi::DeleteAccountKeyFile,
    munjigi::DeleteAccountRule,
    munjigi::DescribeAccountKeyFiles,
    munjigi::DescribeAccountRules,
    munjigi::DescribeAccounts,
    munjigi::PutAccountKeyFile,
    munjigi::PutAccountRule,
    munjigi::ApproveSshLogin,
    munjigi::AttachSession,
    munjigi::DeleteTarget,
    munjigi::DescribeSshAuthority,
    munjigi::IssueSshCertificate,
    munjigi::ListSshCertificates,
    munjigi::RevokeSshCertificate,
    munjigi::RotateSshAuthority,
    munjigi::DescribeSshLogin,
    munjigi::DescribeTargets,
    munjigi::Explain,
    munjigi::LeaveNode,
    munjigi::ListNodes,
    munjigi::ListSessions,
    munjigi::OpenDataChannel,
    munjigi::PutTarget,
    munjigi::RegisterNode,
    munjigi::ReadAudit,
    munjigi::ReadRecording,
    munjigi::VerifyRecording,
    munjigi::VerifyTrail,
];

/// Finds an operation.
pub(crate) fn find(service: Service, name: &str) -> Option<&'static Entry> {
    OPERATIONS.iter().find(|entry| entry.service == service && entry.name == name)
}
