"""A node's agent that speaks as AWS's own does, for tests; written from the protocol's description alone.

It registers, gets credentials with its RSA key, opens the control channel and serves shells and commands as the agent
would in container mode: the program runs as the agent's own user. It prints `ready <node id>` once the control channel
stands. SIGUSR1 breaks the data channels. Faults (--fault) make it hostile or deaf, or have
it end in the middle of a command's output.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import signal
import threading
import time
import uuid
import xml.etree.ElementTree as ElementTree

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ssm_session import VERSION, Session
from ssm_wire import Http, WebSocket, amz_now, log, pack, string_to_sign, unpack


class Agent:
    def __init__(self, options):
        self.options = options
        self.http = Http(options.endpoint, options.ca)
        self.region = options.region
        self.sessions = {}
        self.seen = set()
        self.control = None
        self.acknowledged = set()
        self.lock = threading.Lock()
        self.state = os.path.join(options.state, "registration.json")

    def call(self, target, service, body, authorize):
        headers = {"host": self.http.authority, "content-type": "application/x-amz-json-1.1", "x-amz-target": target}
        body = json.dumps(body).encode()
        if authorize:
            authorize("POST", "/", headers, body, service)
        status, answer = self.http.request("POST", "/", headers, body)
        if status != 200:
            raise RuntimeError(f"{target}: {status} {answer.decode()}")
        return json.loads(answer)

    def register(self):
        if os.path.exists(self.state):
            with open(self.state) as file:
                kept = json.load(file)
            self.node, self.fingerprint = kept["node"], kept["fingerprint"]
            self.key = serialization.load_pem_private_key(kept["key"].encode(), None)
            return
        self.key = rsa.generate_private_key(65537, 2048)
        self.fingerprint = str(uuid.uuid4())
        public = self.key.public_key().public_bytes(serialization.Encoding.DER,
                                                    serialization.PublicFormat.SubjectPublicKeyInfo)
        body = {"ActivationCode": self.options.code, "ActivationId": self.options.id, "Fingerprint": self.fingerprint,
                "PublicKey": base64.b64encode(public).decode(), "PublicKeyType": "Rsa"}
        assert len(body["PublicKey"]) == 392
        self.node = self.call("AmazonSSM.RegisterManagedInstance", "ssm", body, None)["InstanceId"]
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()).decode()
        os.makedirs(self.options.state, exist_ok=True)
        with open(self.state, "w") as file:
            json.dump({"node": self.node, "fingerprint": self.fingerprint, "key": pem}, file)

    def sign_rsa(self, method, target, headers, body, service):
        """RSASSA-PSS over the string to sign; X-Amz-Content-Sha256 is sent and not signed."""
        date = headers["x-amz-date"] = amz_now()
        scope = f"{date[:8]}/{self.region}/{service}/aws4_request"
        text, names = string_to_sign(method, target, headers, body, date, scope)
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        signature = base64.b64encode(self.key.sign(text.encode(), pss, hashes.SHA256())).decode()
        headers["X-Amz-Content-Sha256"] = hashlib.sha256(body).hexdigest()
        headers["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.node}/{scope}, SignedHeaders={names}, "
                                    f"Signature={signature}")

    def sign(self, method, target, headers, body, service):
        date = headers["x-amz-date"] = amz_now()
        headers["x-amz-security-token"] = self.credentials["SessionToken"]
        scope = f"{date[:8]}/{self.region}/{service}/aws4_request"
        text, names = string_to_sign(method, target, headers, body, date, scope)
        key = ("AWS4" + self.credentials["SecretAccessKey"]).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.credentials['AccessKeyId']}/{scope}, "
                                    f"SignedHeaders={names}, Signature={signature}")

    def role_token(self):
        body = {"Fingerprint": self.fingerprint}
        self.credentials = self.call("AmazonSSM.RequestManagedInstanceRoleToken", "ssm", body, self.sign_rsa)
        for member in ["AccessKeyId", "SecretAccessKey", "SessionToken", "TokenExpirationDate", "UpdateKeyPair"]:
            assert self.credentials[member] is not None, member
        assert self.credentials["TokenExpirationDate"] > time.time()

    def ssm(self, operation, body):
        return self.call(f"AmazonSSM.{operation}", "ssm", body, self.sign)

    def start_up(self):
        self.role_token()
        short = {"AgentName": "amazon-ssm-agent", "AgentVersion": VERSION, "InstanceId": self.node,
                 "PlatformType": "Linux"}
        assert self.ssm("UpdateInstanceInformation", short) == {}
        long = short | {"AgentStatus": "Active", "AvailabilityZone": "", "AvailabilityZoneId": "",
                        "ComputerName": self.options.name, "IPAddress": "192.0.2.7", "PlatformName": "Debian GNU/Linux",
                        "PlatformVersion": "12", "SSMConnectionChannel": ""}
        self.ssm("UpdateInstanceInformation", long)
        threading.Thread(target=self.poll, daemon=True).start()
        assert self.ssm("ListInstanceAssociations", {"InstanceId": self.node, "MaxResults": 20}) == {"Associations": []}

    def poll(self):
        body = {"Destination": self.node, "MessagesRequestId": str(uuid.uuid4()), "VisibilityTimeoutInSeconds": 10}
        try:
            answer = self.call("EC2WindowsMessageDeliveryService.GetMessages", "ec2messages", body, self.sign)
            assert answer["Messages"] == [], answer
        except (OSError, RuntimeError) as error:
            log("polling ended:", error)

    def create_channel(self, path, body):
        """POST for a token: 201 and XML, whatever the request is."""
        body = json.dumps(body).encode()
        headers = {"host": self.http.authority, "content-type": "application/json"}
        self.sign("POST", path, headers, body, "ssmmessages")
        status, answer = self.http.request("POST", path, headers, body, 15)
        if status != 201:
            raise PermissionError(answer.decode())
        return ElementTree.fromstring(answer).findtext("TokenValue")

    def steal(self, path):
        """Asks for a channel of somebody else, then for a socket with made-up tokens and with one of its own."""
        body = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "ClientId": ""}
        try:
            self.create_channel(path, body)
            print("stolen", path, flush=True)
        except PermissionError as error:
            print("refused", error, flush=True)
        own = self.create_channel(f"/v1/control-channel/{self.node}", body)
        for target, token in [(path, "made-up"), (path, own), (f"/v1/control-channel/{self.node}", "made-up")]:
            try:
                self.open_channel(target, body | {"TokenValue": token}).receive()
                print("stolen", target, flush=True)
            except ConnectionError as error:
                print("refused", error, flush=True)

    def open_channel(self, target, first):
        headers = {"host": self.http.authority}
        self.sign("GET", target, headers, b"", "ssmmessages")
        websocket = WebSocket(self.http, target, headers)
        websocket.send(1, json.dumps(first).encode())
        return websocket

    def serve(self):
        path = f"/v1/control-channel/{self.node}"
        token = self.create_channel(path, {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4())})
        self.control = self.open_channel(path + "?role=subscribe&stream=input", {
            "Cookie": None, "MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": token,
            "AgentVersion": VERSION, "PlatformType": "linux"})
        if self.options.fault == "garbage":
            for size in [0, 1, 119, 120, 5000]:
                self.control.send(2, os.urandom(size))
        if self.options.victim:
            threading.Thread(target=self.task_complete, args=(self.options.victim, "Success", ""), daemon=True).start()
        print(f"ready {self.node}", flush=True)
        while True:
            message = unpack(self.control.receive())
            if message:
                self.heard(*message)

    def heard(self, kind, _sequence, _flags, _id, _payload_type, payload):
        body = json.loads(payload)
        if kind == "interactive_shell":
            if body["TaskId"] in self.seen or self.options.fault == "deaf":
                return
            self.seen.add(body["TaskId"])
            session = Session(self, json.loads(body["Content"]))
            self.sessions[body["TaskId"]] = session
            threading.Thread(target=session.run, daemon=True).start()
        elif kind == "channel_closed":
            if session := self.sessions.get(body["SessionId"]):
                session.cancel()
        elif kind == "agent_task_acknowledge":
            self.acknowledged.add(body["MessageId"])

    def task_complete(self, session_id, status, output):
        for attempt in range(1, 4):
            message_id = uuid.uuid4()
            body = {"SchemaVersion": 1, "TaskId": session_id, "Topic": "agent_task_complete", "FinalTaskStatus": status,
                    "IsRoutingFailure": False, "AwsAccountId": "", "InstanceId": self.node, "Output": output,
                    "S3Bucket": "", "S3UrlSuffix": "", "CwlGroup": "", "CwlStream": "", "RetryNumber": attempt}
            try:
                self.control.send(2, pack("agent_task_complete", json.dumps(body).encode(), message_id=message_id))
            except OSError:
                pass
            time.sleep(1)
            if str(message_id) in self.acknowledged:
                return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--region", default="local-1")
    parser.add_argument("--id", default="")
    parser.add_argument("--code", default="")
    parser.add_argument("--name", default="aws-1")
    parser.add_argument("--fault", default="", choices=["", "deaf", "garbage", "hasty"])
    parser.add_argument("--patience", type=float, default=2, help="seconds for the last acknowledgements")
    parser.add_argument("--victim", default="", help="somebody else's session, which is said to be over")
    parser.add_argument("--steal", nargs="*", default=[], help="channels of others to ask for, then leave")
    agent = Agent(parser.parse_args())

    def break_channels(*_):
        for session in agent.sessions.values():
            if session.websocket and not session.over:
                session.websocket.drop()

    def leave(*_):
        for session in agent.sessions.values():
            session.cancel()
        os._exit(0)

    signal.signal(signal.SIGUSR1, break_channels)
    signal.signal(signal.SIGTERM, leave)
    agent.register()
    agent.start_up()
    for path in agent.options.steal:
        agent.steal(path)
    if agent.options.steal:
        return
    while True:
        try:
            agent.serve()
        except OSError as error:
            log("control channel:", error)
        # The agent waits longer, and doubles.
        time.sleep(1)


main()
