"""Session Manager's and EC2 Instance Connect's calls as boto3 makes them: answers, and AWS's codes for what is wrong.

Prints "ok" at the end; any surprise is an exception with its place.
"""
import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

config = Config(retries={"max_attempts": 1})
ssm = boto3.client("ssm", config=config)
ec2 = boto3.client("ec2", config=config)
connect = boto3.client("ec2-instance-connect", config=config)
NODE = os.environ["NODE"]
INSTANCE = "i-" + NODE[len("mi-"):]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f someone@somewhere"


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, (code, found, arguments)
        return found["Message"]
    raise AssertionError((code, arguments, answer))


# Sessions.
assert ssm.get_connection_status(Target=NODE)["Status"] == "connected"
assert ssm.get_connection_status(Target="mi-00000000000000000")["Status"] == "notconnected"
for target in (NODE, INSTANCE, "web-1"):
    started = ssm.start_session(Target=target, Reason="looking")
    assert started["SessionId"].startswith("admin-") and started["TokenValue"], started
    assert started["StreamUrl"].startswith("wss://") and started["SessionId"] in started["StreamUrl"], started
    assert ssm.terminate_session(SessionId=started["SessionId"])["SessionId"] == started["SessionId"]
    # Again, as AWS: nothing more happens.
    assert ssm.terminate_session(SessionId=started["SessionId"])["SessionId"] == started["SessionId"]
assert "is not connected" in refused("TargetNotConnected", ssm.start_session, Target="mi-00000000000000000")
assert "is not connected" in refused("TargetNotConnected", ssm.start_session, Target="i-0123456789abcdef0")
refused("InvalidDocument", ssm.start_session, Target=NODE, DocumentName="No-Such-Document")
refused("ValidationException", ssm.start_session, Target=NODE, DocumentName="AWS-StartPortForwardingSession",
        Parameters={"nonsense": ["1"]})
refused("InvalidDocument", ssm.start_session, Target=NODE, DocumentName="AWS-StartPortForwardingSession",
        Parameters={"portNumber": ["70000"]})
refused("ValidationException", ssm.start_session, Target=NODE,
        DocumentName="AWS-StartPortForwardingSessionToRemoteHost", Parameters={"portNumber": ["80"]})
refused("DoesNotExistException", ssm.resume_session, SessionId="admin-0123456789abcdef0")
assert ssm.terminate_session(SessionId="admin-0123456789abcdef0")["SessionId"] == "admin-0123456789abcdef0"
assert ssm.describe_sessions(State="History", Filters=[{"key": "Target", "value": NODE}])["Sessions"]
refused("InvalidFilterKey", ssm.describe_sessions, State="Active",
        Filters=[{"key": "Target", "value": NODE}, {"key": "Target", "value": NODE}])

# Instances.
[reservation] = ec2.describe_instances(InstanceIds=[INSTANCE])["Reservations"]
[instance] = reservation["Instances"]
assert instance["InstanceId"] == INSTANCE and instance["State"]["Name"] == "running", instance
assert instance["PrivateIpAddress"].startswith("100.") and instance["VpcId"] and instance["SubnetId"], instance
assert "PublicIpAddress" not in instance, instance
assert ec2.describe_instances(Filters=[{"Name": "private-ip-address", "Values": [instance["PrivateIpAddress"]]}])[
    "Reservations"][0]["Instances"][0]["InstanceId"] == INSTANCE
refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
refused("InvalidInstanceID.Malformed", ec2.describe_instances, InstanceIds=["nonsense"])
ssm.add_tags_to_resource(ResourceType="ManagedInstance", ResourceId=NODE, Tags=[{"Key": "Role", "Value": "web"}])
[tag] = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [INSTANCE]}, {"Name": "key", "Values": ["Role"]}])[
    "Tags"]
assert tag["Value"] == "web", tag
[endpoint] = ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"]
assert endpoint["InstanceConnectEndpointId"].startswith("eice-") and endpoint["State"] == "create-complete", endpoint
assert endpoint["VpcId"] == instance["VpcId"], endpoint

# Keys.
def push(code, **changed):
    arguments = {"InstanceId": INSTANCE, "InstanceOSUser": "nobody-has-this-name", "SSHPublicKey": KEY, **changed}
    return refused(code, connect.send_ssh_public_key, **arguments)


push("EC2InstanceNotFoundException", InstanceId="i-0123456789abcdef0")
push("EC2InstanceNotFoundException", AvailabilityZone="nowhere-1a")
push("InvalidArgsException", InstanceId="i-UPPERCASE00")
push("InvalidArgsException", InstanceOSUser="two words")
push("InvalidArgsException", SSHPublicKey="ssh-rsa " + "A" * 100)
push("InvalidArgsException", SSHPublicKey=KEY + "\n" + KEY)
push("InvalidArgsException", SSHPublicKey='command="id" ' + KEY)
push("AuthException")
refused("SerialConsoleAccessDisabledException", connect.send_serial_console_ssh_public_key, InstanceId=INSTANCE,
        SerialPort=0, SSHPublicKey=KEY)

print("ok")
