"""Session documents as Terraform and boto3 use them: plain calls, and what was written is what is read back.

Prints "ok" at the end; any surprise is an exception with its place.
"""
import json
import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ssm = boto3.client("ssm", config=Config(retries={"max_attempts": 1}))
NAME = "SSM-SessionManagerRunShell"


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, (code, found, arguments)
        return found["Message"]
    raise AssertionError((code, arguments, answer))


def content(**inputs):
    # As Terraform's jsonencode writes it: sorted keys, no blanks.
    document = {"schemaVersion": "1.0", "description": "Preferences", "sessionType": "Standard_Stream", "inputs": inputs}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


# What Terraform's aws_ssm_document does, in its order: create, read; update, set the default, read; delete, read.
first = content(
    s3BucketName="", s3KeyPrefix="", s3EncryptionEnabled=True, cloudWatchLogGroupName="",
    cloudWatchEncryptionEnabled=True, cloudWatchStreamingEnabled=False, kmsKeyId="", runAsEnabled=False,
    runAsDefaultUser="", idleSessionTimeout="20", maxSessionDuration="60", shellProfile={"linux": "date", "windows": ""},
)
tags = [{"Key": "managed-by", "Value": "terraform"}]


def read(version):
    described = ssm.describe_document(Name=NAME, DocumentVersion=version)["Document"]
    got = ssm.get_document(Name=NAME, DocumentVersion=version, DocumentFormat="JSON")
    kept = ssm.list_tags_for_resource(ResourceType="Document", ResourceId=NAME)["TagList"]
    shares = ssm.describe_document_permission(Name=NAME, PermissionType="Share")
    assert (shares["AccountIds"], shares["AccountSharingInfoList"]) == ([], [])
    for name in ("Name", "DocumentVersion", "DocumentFormat", "DocumentType", "Status"):
        assert described[name] == got[name], name
    del described["CreatedDate"]
    return described, got["Content"], kept


refused("InvalidDocument", ssm.describe_document, Name=NAME)
created = ssm.create_document(
    Name=NAME, Content=first, DocumentType="Session", DocumentFormat="JSON", Tags=tags, VersionName="one"
)["DocumentDescription"]
assert (created["Status"], created["HashType"], created["SchemaVersion"]) == ("Active", "Sha256", "1.0"), created
described, text, kept = read("$DEFAULT")
assert text == first and kept == tags, (text, kept)
assert read("$DEFAULT") == (described, text, kept), "reading twice gives the same"
assert {"Name": NAME, **{key: created[key] for key in ("Hash", "Owner", "PlatformTypes")}}.items() <= described.items()
refused("DocumentAlreadyExists", ssm.create_document, Name=NAME, Content=first, DocumentType="Session")
# Applying the same again changes nothing.
refused("DuplicateDocumentContent", ssm.update_document, Name=NAME, Content=first, DocumentVersion="1")
assert read("$DEFAULT") == (described, text, kept)

second = content(idleSessionTimeout="15", maxSessionDuration="45")
updated = ssm.update_document(Name=NAME, Content=second, DocumentFormat="JSON", DocumentVersion="1")
assert updated["DocumentDescription"]["DocumentVersion"] == "2", updated
assert read("$DEFAULT")[1] == first and read("$LATEST")[1] == second
default = ssm.update_document_default_version(Name=NAME, DocumentVersion="2")["Description"]
assert default["DefaultVersion"] == "2", default
described, text, _ = read("$DEFAULT")
assert text == second and (described["DefaultVersion"], described["LatestVersion"]) == ("2", "2"), described
yaml = ssm.get_document(Name=NAME, DocumentFormat="YAML")
assert (yaml["Content"], yaml["DocumentFormat"]) == (second, "YAML"), "a text in JSON is one in YAML too"
versions = ssm.list_document_versions(Name=NAME)["DocumentVersions"]
assert [(one["DocumentVersion"], one["IsDefaultVersion"]) for one in versions] == [("2", True), ("1", False)], versions
assert ssm.get_document(Name=NAME, VersionName="one")["Content"] == first
refused("DuplicateDocumentVersionName", ssm.update_document, Name=NAME, Content=first, DocumentVersion="2", VersionName="one")
refused("InvalidDocumentVersion", ssm.update_document, Name=NAME, Content=content(idleSessionTimeout="3"), DocumentVersion="1")
refused("InvalidDocumentVersion", ssm.get_document, Name=NAME, DocumentVersion="9")
refused("InvalidDocumentVersion", ssm.update_document_default_version, Name=NAME, DocumentVersion="9")
refused("InvalidDocumentOperation", ssm.delete_document, Name=NAME, DocumentVersion="2")
where = refused(
    "InvalidDocumentContent", ssm.update_document, Name=NAME, DocumentVersion="$LATEST", Content=content(idleTimeout="5")
)
assert "$.inputs.idleTimeout" in where, where
where = refused(
    "InvalidDocumentContent", ssm.update_document, Name=NAME, DocumentVersion="$LATEST",
    Content=content(idleSessionTimeout="61"),
)
assert "$.inputs.idleSessionTimeout" in where, where
refused(
    "InvalidDocumentSchemaVersion", ssm.update_document, Name=NAME, DocumentVersion="$LATEST", Content='{"schemaVersion":"2.2"}'
)
refused("MaxDocumentSizeExceeded", ssm.update_document, Name=NAME, DocumentVersion="$LATEST", Content=" " * 65537)

ssm.modify_document_permission(Name=NAME, PermissionType="Share", AccountIdsToAdd=["111122223333"])
assert ssm.describe_document_permission(Name=NAME, PermissionType="Share")["AccountIds"] == ["111122223333"]
refused("InvalidDocumentOperation", ssm.delete_document, Name=NAME)
ssm.modify_document_permission(Name=NAME, PermissionType="Share", AccountIdsToRemove=["111122223333"])
ssm.add_tags_to_resource(ResourceType="Document", ResourceId=NAME, Tags=[{"Key": "team", "Value": "a"}])
ssm.remove_tags_from_resource(ResourceType="Document", ResourceId=NAME, TagKeys=["managed-by"])
assert ssm.list_tags_for_resource(ResourceType="Document", ResourceId=NAME)["TagList"] == [{"Key": "team", "Value": "a"}]
refused("InvalidResourceId", ssm.list_tags_for_resource, ResourceType="Document", ResourceId="No-Such-Document")

listed = ssm.get_paginator("list_documents").paginate(PaginationConfig={"PageSize": 3})
names = [one["Name"] for page in listed for one in page["DocumentIdentifiers"]]
assert names == sorted(names) and NAME in names and "AWS-StartSSHSession" in names, names
own = ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])["DocumentIdentifiers"]
assert [one["Name"] for one in own] == [NAME], own
refused("InvalidFilterKey", ssm.list_documents, Filters=[{"Key": "Colour", "Values": ["red"]}])
refused("InvalidNextToken", ssm.list_documents, NextToken="nonsense")

ssm.delete_document(Name=NAME)
refused("InvalidDocument", ssm.describe_document, Name=NAME)
# Equal calls within a second have equal signatures, and are calls of their own on one connection all the same.
refused("InvalidDocument", ssm.delete_document, Name=NAME)
for _ in range(3):
    ssm.create_document(Name=NAME, Content=first, DocumentType="Session")
    refused("DocumentAlreadyExists", ssm.create_document, Name=NAME, Content=first, DocumentType="Session")
    assert ssm.get_document(Name=NAME)["Content"] == first
    ssm.delete_document(Name=NAME)
    refused("InvalidDocument", ssm.get_document, Name=NAME)

# Starting: what is wrong with a document or its parameters has AWS's codes.
node = os.environ["NODE"]
start = ssm.start_session
refused("InvalidDocument", start, Target=node, DocumentName="No-Such-Document")
refused("InvalidDocument", start, Target=node, DocumentName="AWS-RunShellScript", Parameters={"commands": ["ls"]})
refused("InvalidDocument", start, Target=node, DocumentName="AWS-StartSSHSession", Parameters={"portNumber": ["99999"]})
missing = refused("ValidationException", start, Target=node, DocumentName="AWS-StartInteractiveCommand")
assert "command" in missing, missing
unknown = refused(
    "ValidationException", start, Target=node, DocumentName="AWS-StartSSHSession", Parameters={"port": ["22"]}
)
assert "port" in unknown, unknown
refused("TargetNotConnected", start, Target="mi-00000000000000000", DocumentName="AWS-StartSSHSession")

# A key that this server cannot use is refused, not left out.
made = ssm.create_document(Name=NAME, Content=content(kmsKeyId="alias/sessions", s3BucketName="logs"), DocumentType="Session")
told = made["DocumentDescription"]["StatusInformation"]
assert "kmsKeyId" in told and "uploads none" in told, told
assert "kmsKeyId" in refused("InvalidDocument", start, Target=node)
ssm.delete_document(Name=NAME)
print("ok")
