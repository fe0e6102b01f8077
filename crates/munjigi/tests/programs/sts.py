"""Roles, temporary credentials, MFA devices and providers by boto3, and what is refused with AWS's own codes.

Everything is written, read back and written again, as Terraform does: what was written is what is read. Prints "ok" at
the end; any surprise is an exception with its place.
"""
import base64
import hashlib
import hmac
import json
import struct
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ONCE = Config(retries={"max_attempts": 1})
iam = boto3.client("iam", config=ONCE)
sts = boto3.client("sts", config=ONCE)
account = sts.get_caller_identity()["Account"]


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, (code, found, arguments)
        return found["Message"]
    raise AssertionError((code, arguments, answer))


def policy(action, **more):
    statement = {"Effect": "Allow", "Action": action, "Resource": "*", **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


def session(credentials):
    return boto3.Session(
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )


def totp(seed, step):
    mac = hmac.new(base64.b32decode(seed), struct.pack(">Q", step), hashlib.sha1).digest()
    at = mac[-1] & 15
    return "%06d" % ((struct.unpack(">I", mac[at : at + 4])[0] & 0x7FFFFFFF) % 1000000)


# Roles: written, read back, changed, read back.
trust = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"],
                   "Principal": {"AWS": f"arn:aws:iam::{account}:user/admin"}}],
}
refused("MalformedPolicyDocument", iam.create_role, RoleName="bad", AssumeRolePolicyDocument="{")
nobody = json.loads(json.dumps(trust).replace("user/admin", "user/nobody"))
message = refused("MalformedPolicyDocument", iam.create_role, RoleName="bad", AssumeRolePolicyDocument=json.dumps(nobody))
assert "Invalid principal in policy" in message, message
made = iam.create_role(RoleName="ops", Path="/team/", AssumeRolePolicyDocument=json.dumps(trust), Description="for work",
                       MaxSessionDuration=7200, Tags=[{"Key": "team", "Value": "blue"}])["Role"]
assert made["Arn"] == f"arn:aws:iam::{account}:role/team/ops" and made["RoleId"].startswith("AROA"), made
refused("EntityAlreadyExists", iam.create_role, RoleName="OPS", AssumeRolePolicyDocument=json.dumps(trust))
for _ in range(2):
    read = iam.get_role(RoleName="ops")["Role"]
    assert read["AssumeRolePolicyDocument"] == trust, read
    assert (read["Description"], read["MaxSessionDuration"]) == ("for work", 7200), read
    assert read["Tags"] == [{"Key": "team", "Value": "blue"}], read
refused("NoSuchEntity", iam.get_role, RoleName="nothing")
assert [role["RoleName"] for role in iam.list_roles(PathPrefix="/team/")["Roles"]] == ["ops"]
iam.update_role(RoleName="ops", Description="for more work", MaxSessionDuration=3600)
trust["Statement"].append({"Effect": "Allow", "Action": "sts:SetSourceIdentity", "Principal": {"AWS": account}})
iam.update_assume_role_policy(RoleName="ops", PolicyDocument=json.dumps(trust))
read = iam.get_role(RoleName="ops")["Role"]
assert read["AssumeRolePolicyDocument"] == trust and read["MaxSessionDuration"] == 3600, read
refused("ValidationError", iam.update_role, RoleName="ops", MaxSessionDuration=60 * 60 * 13)

iam.put_role_policy(RoleName="ops", PolicyName="own", PolicyDocument=json.dumps(policy("iam:GetRole")))
assert iam.get_role_policy(RoleName="ops", PolicyName="own")["PolicyDocument"] == policy("iam:GetRole")
assert iam.list_role_policies(RoleName="ops")["PolicyNames"] == ["own"]
refused("NoSuchEntity", iam.get_role_policy, RoleName="ops", PolicyName="other")

# A managed policy: created, read back, attached twice, changed by a version, drift-free all the way.
arn = iam.create_policy(PolicyName="look", PolicyDocument=json.dumps(policy("ssm:DescribeSessions")))["Policy"]["Arn"]
for _ in range(2):
    iam.attach_role_policy(RoleName="ops", PolicyArn=arn)
    attached = iam.list_attached_role_policies(RoleName="ops")["AttachedPolicies"]
    assert attached == [{"PolicyName": "look", "PolicyArn": arn}], attached
assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
second = policy(["ssm:DescribeSessions", "ssm:DescribeInstanceInformation"])
version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(second), SetAsDefault=True)["PolicyVersion"]
read = iam.get_policy_version(PolicyArn=arn, VersionId=version["VersionId"])["PolicyVersion"]
assert read["Document"] == second and read["IsDefaultVersion"], read
iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
entities = iam.list_entities_for_policy(PolicyArn=arn)
assert [role["RoleName"] for role in entities["PolicyRoles"]] == ["ops"], entities
iam.put_role_permissions_boundary(RoleName="ops", PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess")
assert iam.get_role(RoleName="ops")["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith("AdministratorAccess")
iam.delete_role_permissions_boundary(RoleName="ops")
iam.tag_role(RoleName="ops", Tags=[{"Key": "cost", "Value": "7"}])
iam.untag_role(RoleName="ops", TagKeys=["team"])
assert iam.list_role_tags(RoleName="ops")["Tags"] == [{"Key": "cost", "Value": "7"}]

# Sessions of the role.
role = made["Arn"]
answer = sts.assume_role(RoleArn=role, RoleSessionName="work", DurationSeconds=900, SourceIdentity="anna")
assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account}:assumed-role/ops/work", answer
assert answer["Credentials"]["AccessKeyId"].startswith("ASIA") and answer["SourceIdentity"] == "anna", answer
left = answer["Credentials"]["Expiration"].timestamp() - time.time()
assert 600 < left <= 900, left
ops = session(answer["Credentials"])
me = ops.client("sts", config=ONCE).get_caller_identity()
assert me["Arn"] == answer["AssumedRoleUser"]["Arn"] and me["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"], me
ops.client("ssm", config=ONCE).describe_sessions(State="Active")
ops.client("iam", config=ONCE).get_role(RoleName="ops")
refused("AccessDenied", ops.client("iam", config=ONCE).list_users)
refused("AccessDenied", ops.client("sts", config=ONCE).get_session_token)
for code, more in [
    ("ValidationError", {"DurationSeconds": 3601}),
    ("MalformedPolicyDocument", {"Policy": '{"Statement": 7}'}),
    ("PackedPolicyTooLarge", {"Policy": json.dumps(policy("ssm:*", Sid="x" * 2048))}),
    ("AccessDenied", {"RoleArn": f"arn:aws:iam::{account}:role/nothing"}),
    ("AccessDenied", {"SerialNumber": f"arn:aws:iam::{account}:mfa/nobody", "TokenCode": "123456"}),
]:
    refused(code, sts.assume_role, **{"RoleArn": role, "RoleSessionName": "work", **more})
narrow = sts.assume_role(RoleArn=role, RoleSessionName="narrow", Policy=json.dumps(policy("ssm:GetDocument")),
                         Tags=[{"Key": "team", "Value": "red"}], TransitiveTagKeys=["team"])
assert 0 < narrow["PackedPolicySize"] <= 100, narrow
refused("AccessDeniedException", session(narrow["Credentials"]).client("ssm", config=ONCE).describe_sessions, State="Active")

# Tokens that are not what was issued.
tampered = dict(answer["Credentials"])
token = tampered["SessionToken"]
tampered["SessionToken"] = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
refused("InvalidClientTokenId", session(tampered).client("sts", config=ONCE).get_caller_identity)
refused("UnrecognizedClientException", session(tampered).client("ssm", config=ONCE).describe_sessions, State="Active")

# Sessions of a user.
mine = sts.get_session_token(DurationSeconds=900)["Credentials"]
assert session(mine).client("sts", config=ONCE).get_caller_identity()["Arn"].endswith(":user/admin")
refused("AccessDenied", session(mine).client("iam", config=ONCE).list_users)
session(mine).client("sts", config=ONCE).assume_role(RoleArn=role, RoleSessionName="by-session")
refused("ValidationError", sts.get_session_token, SerialNumber=f"arn:aws:iam::{account}:mfa/x")

# A second factor.
device = iam.create_virtual_mfa_device(VirtualMFADeviceName="phone")["VirtualMFADevice"]
serial, seed = device["SerialNumber"], device["Base32StringSeed"]
assert serial == f"arn:aws:iam::{account}:mfa/phone" and len(seed) == 32, device
step = int(time.time()) // 30
refused("InvalidAuthenticationCode", iam.enable_mfa_device, UserName="admin", SerialNumber=serial,
        AuthenticationCode1=totp(seed, step), AuthenticationCode2=totp(seed, step))
step = int(time.time()) // 30
iam.enable_mfa_device(UserName="admin", SerialNumber=serial, AuthenticationCode1=totp(seed, step - 2),
                      AuthenticationCode2=totp(seed, step - 1))
assert [one["SerialNumber"] for one in iam.list_mfa_devices(UserName="admin")["MFADevices"]] == [serial]
listed = iam.list_virtual_mfa_devices(AssignmentStatus="Assigned")["VirtualMFADevices"]
assert [one["User"]["UserName"] for one in listed] == ["admin"], listed
proved = sts.get_session_token(SerialNumber=serial, TokenCode=totp(seed, int(time.time()) // 30))["Credentials"]
session(proved).client("iam", config=ONCE).list_users()
refused("DeleteConflict", iam.delete_virtual_mfa_device, SerialNumber=serial)
step = int(time.time()) // 30
iam.resync_mfa_device(UserName="admin", SerialNumber=serial, AuthenticationCode1=totp(seed, step),
                      AuthenticationCode2=totp(seed, step + 1))
iam.deactivate_mfa_device(UserName="admin", SerialNumber=serial)
iam.delete_virtual_mfa_device(SerialNumber=serial)
refused("NoSuchEntity", iam.delete_virtual_mfa_device, SerialNumber=serial)

# Providers.
made = iam.create_open_id_connect_provider(Url="https://ci.example.com/x", ClientIDList=["munjigi"],
                                           ThumbprintList=["ab" * 20])["OpenIDConnectProviderArn"]
assert made == f"arn:aws:iam::{account}:oidc-provider/ci.example.com/x", made
assert [one["Arn"] for one in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]] == [made]
iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=made, ClientID="other")
iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=made, ClientID="munjigi")
read = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=made)
assert (read["Url"], read["ClientIDList"], read["ThumbprintList"]) == ("ci.example.com/x", ["other"], ["ab" * 20]), read
refused("InvalidIdentityToken", sts.assume_role_with_web_identity, RoleArn=role, RoleSessionName="ci",
        WebIdentityToken="a.b.c")
iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=made)
refused("NoSuchEntity", iam.get_open_id_connect_provider, OpenIDConnectProviderArn=made)

# Taken down in Terraform's order; the role's sessions end with it.
refused("DeleteConflict", iam.delete_role, RoleName="ops")
refused("DeleteConflict", iam.delete_policy, PolicyArn=arn)
iam.detach_role_policy(RoleName="ops", PolicyArn=arn)
refused("NoSuchEntity", iam.detach_role_policy, RoleName="ops", PolicyArn=arn)
iam.delete_policy(PolicyArn=arn)
refused("NoSuchEntity", iam.get_policy, PolicyArn=arn)
iam.delete_role_policy(RoleName="ops", PolicyName="own")
time.sleep(1.1)  # The same request within one second is the same request, and would get its first answer again.
iam.delete_role(RoleName="ops")
refused("NoSuchEntity", iam.get_role, RoleName="ops")
refused("InvalidClientTokenId", ops.client("sts", config=ONCE).get_caller_identity)
print("ok")
