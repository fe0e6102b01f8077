"""A client of sessions as AWS's plugin is one, with the plugin's weaknesses; written from the protocol's description alone.

Starts a session with boto3 and takes it up: a shell or command on standard input and output, a port on a listener whose
number it prints. It refuses what comes before its handler stands, never acknowledges a number twice, notes what it sent
only afterwards, and has no window. With --breaks it loses its socket again and again, acknowledgements included.
"""

import argparse
import hashlib
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
import urllib.parse
import uuid

import boto3

from ssm_wire import Http, WebSocket, pack, unpack

VERSION = "1.2.650.0"
PAYLOAD = 1024
OUTPUT, SIZE, REQUEST, RESPONSE, COMPLETE, FLAG, STDERR, EXIT = 1, 3, 5, 6, 7, 10, 11, 12
SYN, FIN, PSH, NOP = 0, 1, 2, 3


def log(*words):
    print("client:", *words, file=sys.stderr, flush=True)


class Channel:
    """Numbers, acknowledgements, order and retransmission, over as many sockets as it takes."""

    def __init__(self, options):
        self.options = options
        self.ssm = boto3.client("ssm")
        answer = self.ssm.start_session(**json.loads(options.request))
        self.id, self.url = answer["SessionId"], answer["StreamUrl"]
        self.client_id = str(uuid.uuid4())
        self.lock = threading.Lock()
        self.next_out = 0
        self.unacked = []  # [sequence, frame, first sent]
        self.rtt, self.rttvar, self.rto = 0.1, 0.0, 0.2
        self.expected = 0
        self.early = {}
        self.taken = 0
        self.breaks = options.breaks
        self.kind, self.properties = None, None
        self.handler, self.stands_at = None, None
        self.over = False
        self.connect(answer["TokenValue"])

    def connect(self, token):
        url = urllib.parse.urlsplit(self.url)
        assert url.scheme == "wss", self.url
        target = url.path + ("?" + url.query if url.query else "")
        self.websocket = WebSocket(Http(self.url, self.options.ca), target, {"Host": url.netloc})
        self.websocket.send(1, json.dumps({
            "MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": token,
            "ClientId": self.client_id, "ClientVersion": VERSION}).encode())

    def run(self):
        threading.Thread(target=self.resend_loop, daemon=True).start()
        while not self.over:
            try:
                frame = self.websocket.receive()
            except OSError as error:
                log("socket lost:", error)
                self.websocket.drop()
                token = self.ssm.resume_session(SessionId=self.id).get("TokenValue")
                if not token:
                    print(f"Session: {self.id} timed out.", flush=True)
                    return
                self.connect(token)
                continue
            message = unpack(frame)
            declared, digest = struct.unpack(">I", frame[116:120])[0], frame[80:112]
            if not message or (declared and hashlib.sha256(message[-1]).digest() != digest):
                log("a message was dropped")
                continue
            self.heard(*message)

    def heard(self, kind, sequence, _flags, message_id, payload_type, payload):
        if kind == "acknowledge":
            self.acknowledged(json.loads(payload)["AcknowledgedMessageSequenceNumber"])
        elif kind == "channel_closed":
            self.over = True
            log("closed:", json.loads(payload)["Output"])
        elif kind == "output_stream_data":
            self.output(sequence, message_id, payload_type, payload)

    # Receiving.

    def output(self, sequence, message_id, payload_type, payload):
        if sequence < self.expected:
            return
        if sequence > self.expected:
            if len(self.early) < 10_000:
                self.acknowledge(sequence, message_id)
                self.early[sequence] = (payload_type, payload)
            return
        if payload_type in (REQUEST, COMPLETE):
            self.acknowledge(sequence, message_id)
            self.handshake(payload_type, json.loads(payload))
        elif not self.is_ready(payload_type):
            return
        else:
            self.handler.deliver(payload_type, payload)
            self.taken += 1
            if self.breaks and self.taken % 20 == 0:
                # Taken, and the acknowledgement is lost with the socket.
                self.breaks -= 1
                self.websocket.drop()
            self.acknowledge(sequence, message_id)
        self.expected += 1
        while self.expected in self.early:
            payload_type, payload = self.early.pop(self.expected)
            assert payload_type not in (REQUEST, COMPLETE), "a handshake message came early"
            self.handler.deliver(payload_type, payload)
            self.expected += 1

    def is_ready(self, payload_type):
        if self.stands_at is None and self.kind is None and payload_type == OUTPUT:
            # Without a handshake the first output is a shell's.
            self.install("Standard_Stream", 0)
        return self.handler is not None and time.monotonic() >= self.stands_at

    def handshake(self, payload_type, body):
        if payload_type == REQUEST:
            parts = body["AgentVersion"].split(".")
            assert len(parts) == 4 and all(part.isdigit() for part in parts), "an old agent, by its version"
            done = []
            for action in body["RequestedClientActions"]:
                if action["ActionType"] == "SessionType":
                    self.kind = action["ActionParameters"]["SessionType"]
                    self.properties = action["ActionParameters"]["Properties"]
                    done.append({"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": None, "Error": ""})
                else:
                    done.append({"ActionType": action["ActionType"], "ActionStatus": 0, "ActionResult": 3, "Error": ""})
            answer = {"ClientVersion": VERSION, "ProcessedClientActions": done, "Errors": None}
            self.send(RESPONSE, json.dumps(answer).encode())
        else:
            if body["CustomerMessage"]:
                log("says:", body["CustomerMessage"])
            self.install(self.kind, self.options.installs_after)

    def install(self, kind, after):
        self.stands_at = time.monotonic() + after
        self.handler = Ports(self) if kind == "Port" else Shell(self)
        threading.Timer(after, self.handler.start).start()

    def acknowledge(self, sequence, message_id):
        body = {"AcknowledgedMessageType": "output_stream_data", "AcknowledgedMessageId": str(message_id),
                "AcknowledgedMessageSequenceNumber": sequence, "IsSequentialMessage": True}
        self.write(pack("acknowledge", json.dumps(body).encode(), flags=3))

    # Sending.

    def write(self, frame):
        try:
            self.websocket.send(2, frame)
        except OSError:
            pass  # the reader finds out, and what is not acknowledged goes out again

    def send(self, payload_type, payload):
        with self.lock:
            if payload == b"\n":
                payload = b"\r"
            frame = pack("input_stream_data", payload, self.next_out, 0, payload_type)
            self.write(frame)
            self.unacked.append([self.next_out, frame, time.monotonic()])
            self.next_out += 1
        time.sleep(0.001)

    def acknowledged(self, sequence):
        with self.lock:
            for entry in self.unacked:
                if entry[0] == sequence:
                    self.unacked.remove(entry)
                    took = time.monotonic() - entry[2]
                    self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.rtt - took)
                    self.rtt = 0.875 * self.rtt + 0.125 * took
                    self.rto = min(1.0, self.rtt + max(0.01, 4 * self.rttvar))
                    return

    def resend_loop(self):
        while not self.over:
            time.sleep(0.1)
            with self.lock:
                if self.unacked and time.monotonic() - self.unacked[0][2] > self.rto:
                    self.write(self.unacked[0][1])


class Shell:
    """Standard input and output; every payload is printed, whatever its type."""

    def __init__(self, channel):
        self.channel = channel

    def start(self):
        self.channel.send(SIZE, json.dumps({"cols": 117, "rows": 43}).encode())
        threading.Thread(target=self.read_loop, daemon=True).start()

    def read_loop(self):
        while data := os.read(0, PAYLOAD):
            self.channel.send(OUTPUT, data)

    def deliver(self, _payload_type, payload):
        sys.stdout.buffer.write(payload)
        sys.stdout.buffer.flush()


class Ports:
    """smux version 1: a stream for each connection to the listener; the session ends with standard input."""

    def __init__(self, channel):
        self.channel = channel
        assert channel.properties["type"] == "LocalPortForwarding", channel.properties
        self.writing = threading.Lock()
        self.streams = {}
        self.next_stream = 3
        self.buffer = b""

    def start(self):
        listener = socket.create_server(("127.0.0.1", 0))
        print("listening", listener.getsockname()[1], flush=True)
        threading.Thread(target=self.accept_loop, args=(listener,), daemon=True).start()
        threading.Thread(target=self.wait_for_end, daemon=True).start()

    def wait_for_end(self):
        while os.read(0, PAYLOAD):
            pass
        self.channel.send(FLAG, struct.pack(">I", 2))

    def accept_loop(self, listener):
        while True:
            connection, _ = listener.accept()
            stream, self.next_stream = self.next_stream, self.next_stream + 2
            waiting = queue.Queue(64)
            self.streams[stream] = (connection, waiting)
            self.frame(SYN, stream)
            threading.Thread(target=self.upload, args=(stream, connection), daemon=True).start()
            threading.Thread(target=self.download, args=(connection, waiting), daemon=True).start()

    def frame(self, command, stream, data=b""):
        """Frames are split and joined at 1024 bytes, as the byte stream below them is."""
        whole = struct.pack("<BBHI", 1, command, len(data), stream) + data
        with self.writing:
            for at in range(0, len(whole), PAYLOAD):
                self.channel.send(OUTPUT, whole[at:at + PAYLOAD])

    def upload(self, stream, connection):
        try:
            while data := connection.recv(32768):
                self.frame(PSH, stream, data)
        except OSError:
            pass
        if self.streams.pop(stream, None):
            self.frame(FIN, stream)

    @staticmethod
    def download(connection, waiting):
        while (data := waiting.get()) is not None:
            try:
                connection.sendall(data)
            except OSError:
                pass
        # The end of either side is the end of both.
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()

    def deliver(self, payload_type, payload):
        if payload_type == FLAG and payload == struct.pack(">I", 3):
            log("Connection to destination port failed, check SSM Agent logs.")
        if payload_type != OUTPUT:
            return
        self.buffer += payload
        while len(self.buffer) >= 8:
            version, command, length, stream = struct.unpack("<BBHI", self.buffer[:8])
            assert version == 1 and command in (SYN, FIN, PSH, NOP), self.buffer[:8]
            if len(self.buffer) < 8 + length:
                return
            data, self.buffer = self.buffer[8:8 + length], self.buffer[8 + length:]
            if command == PSH and stream in self.streams:
                self.streams[stream][1].put(data)
            elif command == FIN and (found := self.streams.pop(stream, None)):
                found[1].put(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ca", required=True, help="file with the server's certificate authority")
    parser.add_argument("--request", required=True, help="arguments of StartSession, as JSON")
    parser.add_argument("--installs-after", type=float, default=0, help="seconds from the handshake to the handler")
    parser.add_argument("--breaks", type=int, default=0, help="how often to lose the socket")
    Channel(parser.parse_args()).run()


if __name__ == "__main__":
    main()
