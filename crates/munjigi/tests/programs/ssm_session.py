"""One session of the test double for AWS's agent: data channel, acknowledgements, retransmission, the program."""

import fcntl
import json
import os
import pty
import pwd
import random
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
import uuid

from ssm_wire import log, pack, unpack

VERSION = "3.3.0.0"
PAYLOAD = 1024
OUTPUT, SIZE, REQUEST, RESPONSE, COMPLETE, FLAG, STDERR, EXIT = 1, 3, 5, 6, 7, 10, 11, 12


class Session:
    def __init__(self, agent, content):
        self.agent = agent
        self.id = content["SessionId"]
        self.content = content
        self.document = content["DocumentContent"]
        assert self.document["schemaVersion"] == "1.0"
        assert isinstance(self.document["inputs"]["cloudWatchStreamingEnabled"], bool)
        self.kind = self.document["sessionType"]
        self.lock = threading.RLock()
        self.websocket = None
        self.unacked = []  # [sequence, frame, last sent, attempts]
        self.next_out = 0
        self.expected = 0
        self.early = {}
        self.rtt, self.rttvar, self.rto = 0.1, 0.0, 0.2
        self.paused = False
        self.cancelled = False
        self.over = False
        self.process = None
        self.master = None
        self.response = threading.Event()
        self.handshake = None

    # The data channel.

    def connect(self):
        path = f"/v1/data-channel/{self.id}"
        delay = random.uniform(0.1, 0.2)
        for attempt in range(6):
            try:
                token = self.agent.create_channel(path, {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()),
                                                         "ClientId": ""})
                websocket = self.agent.open_channel(path + "?role=publish_subscribe", {
                    "MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": token, "ClientId": "",
                    "ClientInstanceId": self.agent.node})
                state = {"SchemaVersion": 1, "SessionState": "Connected", "SessionId": self.id}
                websocket.send(2, pack("agent_session_state", json.dumps(state).encode(), flags=3))
                self.websocket = websocket
                return True
            except PermissionError as error:
                if "Session is already terminated" in str(error):
                    log(self.id, "is terminated, says the server")
                    return False
            except OSError as error:
                log(self.id, "data channel:", error)
            time.sleep(delay)
            delay = min(delay * 2, 5)
        return False

    def receive_loop(self):
        while not self.over:
            websocket = self.websocket
            try:
                message = unpack(websocket.receive())
                if message:
                    self.heard(*message)
            except (OSError, ConnectionError):
                if self.over or self.cancelled:
                    return
                websocket.drop()
                if not self.connect():
                    return self.cancel()

    def heard(self, kind, sequence, _flags, message_id, payload_type, payload):
        if kind == "pause_publication":
            self.paused = True
            return
        if kind in ("start_publication", "input_stream_data", "acknowledge"):
            self.paused = False
        if kind == "channel_closed":
            self.cancel()
        elif kind == "acknowledge":
            self.acknowledge(json.loads(payload)["AcknowledgedMessageSequenceNumber"])
        elif kind == "input_stream_data":
            self.input(sequence, message_id, payload_type, payload)

    def input(self, sequence, message_id, payload_type, payload):
        if sequence < self.expected:
            return self.send_ack(sequence, message_id)
        if sequence > self.expected:
            self.send_ack(sequence, message_id)
            self.early[sequence] = (payload_type, payload)
            return
        if not self.process_input(payload_type, payload):
            return
        self.send_ack(sequence, message_id)
        self.expected += 1
        while self.expected in self.early:
            self.process_input(*self.early.pop(self.expected))
            self.expected += 1

    def process_input(self, payload_type, payload):
        """Returns whether the handler was ready; what it is not ready for is not acknowledged."""
        if payload_type == RESPONSE:
            self.handshake = json.loads(payload)
            self.response.set()
            return True
        if self.process is None:
            return False
        if self.master is None:
            for byte, number in ((3, signal.SIGINT), (0x1C, signal.SIGQUIT)):
                if payload_type == OUTPUT and payload == bytes([byte]):
                    self.process.send_signal(number)
        elif payload_type == OUTPUT:
            while payload:
                payload = payload[os.write(self.master, payload):]
        elif payload_type == SIZE:
            size = json.loads(payload)
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["cols"], 0, 0))
        elif payload_type == FLAG and payload == struct.pack(">I", 2):
            self.cancel()
        return True

    def send_ack(self, sequence, message_id):
        body = {"AcknowledgedMessageType": "input_stream_data", "AcknowledgedMessageId": str(message_id),
                "AcknowledgedMessageSequenceNumber": sequence, "IsSequentialMessage": True}
        self.write(pack("acknowledge", json.dumps(body).encode(), flags=3))

    def acknowledge(self, sequence):
        with self.lock:
            for entry in self.unacked:
                if entry[0] == sequence:
                    self.unacked.remove(entry)
                    took = time.monotonic() - entry[2]
                    self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.rtt - took)
                    self.rtt = 0.875 * self.rtt + 0.125 * took
                    self.rto = min(1.0, self.rtt + max(0.01, 4 * self.rttvar))
                    return

    def write(self, frame):
        try:
            self.websocket.send(2, frame)
        except OSError:
            pass

    def stream(self, payload_type, payload):
        """Sends stream data; it is remembered only after it was sent, as the agent does it."""
        with self.lock:
            sequence, self.next_out = self.next_out, self.next_out + 1
            frame = pack("output_stream_data", payload, sequence, 1 if sequence == 0 else 0, payload_type)
            self.write(frame)
            self.unacked.append([sequence, frame, time.monotonic()])

    def resend_loop(self):
        while not self.over:
            time.sleep(0.1)
            with self.lock:
                if self.unacked and not self.paused:
                    oldest = self.unacked[0]
                    if time.monotonic() - oldest[2] > self.rto:
                        self.write(oldest[1])
                        oldest[2] = time.monotonic()

    # The program.

    def run(self):
        status, output = "Failed", ""
        try:
            if not self.connect():
                output = "no data channel"
                return
            for loop in (self.receive_loop, self.resend_loop):
                threading.Thread(target=loop, daemon=True).start()
            if self.agent.options.fault == "garbage":
                for size in [0, 1, 119, 4000]:
                    self.websocket.send(2, os.urandom(size))
            self.check_user()
            if self.kind == "NonInteractiveCommands":
                self.shake_hands()
                self.run_command()
            else:
                self.run_shell()
            status = "Success"
            if not self.cancelled and self.agent.options.fault != "hasty":
                deadline = time.monotonic() + self.agent.options.patience
                while self.unacked and time.monotonic() < deadline:
                    time.sleep(0.02)
                state = {"SchemaVersion": 1, "SessionState": "Terminating", "SessionId": self.id}
                self.write(pack("agent_session_state", json.dumps(state).encode(), flags=3))
        except Exception as error:  # whatever it is, the server is told
            output = str(error)
            log(self.id, "failed:", repr(error))
        finally:
            self.over = True
            if self.websocket:
                self.websocket.drop()
            self.agent.task_complete(self.id, status, output)

    def check_user(self):
        if not self.document["inputs"]["runAsEnabled"]:
            return
        user = self.content["RunAsUser"] or self.document["inputs"]["runAsDefaultUser"]
        if not user:
            raise RuntimeError("please set the RunAs default user")
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise RuntimeError(f"failed to start session since RunAs user {user} does not exist") from None
        if os.geteuid() != 0:
            raise RuntimeError("RunAs needs an agent that runs as root")
        raise RuntimeError("RunAs is none of a container's agent")

    def commands(self):
        text = self.document["properties"]["linux"]["commands"]
        for name, value in self.content["Parameters"].items():
            if text.strip("{} ") == name:
                return value
        return text

    def environment(self):
        own = pwd.getpwuid(os.geteuid()).pw_name
        return os.environ | {"TERM": "xterm-256color", "HOME": f"/home/{own}",
                             "LANG": os.environ.get("LANG", "C.UTF-8")}

    def run_shell(self):
        command = ["sh"] if self.kind == "Standard_Stream" else ["sh", "-c", self.commands()]
        master, slave = pty.openpty()
        # Before the process: what is typed while there is one and no terminal would be taken for a command's and dropped.
        self.master = master
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        env=self.environment(),
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        if self.cancelled:
            self.cancel()
        profile = self.document["inputs"]["shellProfile"]["linux"]
        if self.kind == "Standard_Stream" and profile:
            os.write(master, profile.encode() + b"\n")
        time.sleep(1)
        held = b""
        while True:
            if self.paused and not self.cancelled:
                time.sleep(0.01)
                continue
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                data = held + os.read(master, PAYLOAD - len(held))
            except OSError:
                break
            if data == held:
                break
            data, held = split_utf8(data)
            if data:
                self.stream(OUTPUT, data)
            time.sleep(0.001)
        if held:
            self.stream(OUTPUT, held)
        self.process.wait()

    def run_command(self):
        words = shlex.split(self.commands())
        assert self.document["properties"]["linux"]["separateOutputStream"] in (True, "true")
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True, env=self.environment())
        self.process = process
        kinds = {process.stdout.fileno(): OUTPUT, process.stderr.fileno(): STDERR}
        while kinds:
            for descriptor in select.select(list(kinds), [], [], 0.1)[0]:
                data = os.read(descriptor, PAYLOAD)
                if data and self.agent.options.fault == "hasty" and self.next_out > 20:
                    process.kill()
                    process.wait()
                    return
                if data:
                    self.stream(kinds[descriptor], data)
                else:
                    del kinds[descriptor]
                time.sleep(0.001)
        code = process.wait()
        self.stream(EXIT, f"EXIT_CODE: {code if code >= 0 else 128 - code}".encode())

    def shake_hands(self):
        actions = [{"ActionType": "SessionType", "ActionParameters": {"SessionType": self.kind, "Properties": None}}]
        self.stream(REQUEST, json.dumps({"AgentVersion": VERSION, "RequestedClientActions": actions}).encode())
        if not self.response.wait(15):
            raise RuntimeError("no answer to the handshake")
        for action in self.handshake["ProcessedClientActions"]:
            if action["ActionStatus"] != 1:
                raise RuntimeError(f"the client refuses: {action}")
        self.stream(COMPLETE, json.dumps({"HandshakeTimeToComplete": 1, "CustomerMessage": ""}).encode())

    def cancel(self):
        self.cancelled = True
        if self.process and self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def split_utf8(data):
    """Splits off up to three bytes that begin a character."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if need > back else (data, b"")
        if byte & 0x80 == 0:
            break
    return data, b""
