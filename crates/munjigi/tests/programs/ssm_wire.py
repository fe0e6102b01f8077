"""The wire of AWS's agent, for the test double beside it; written from the protocol's description alone."""

import base64
import datetime
import hashlib
import os
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid


def log(*words):
    print("agent:", *words, file=sys.stderr, flush=True)


# --- the binary message -------------------------------------------------------------------------------------------

def pack(kind, payload, sequence=0, flags=0, payload_type=0, message_id=None):
    """One message: header of 116 bytes, payload length, payload; the id with its halves swapped."""
    message_id = message_id or uuid.uuid4()
    raw = message_id.bytes
    head = struct.pack(">I32sIQqQ", 116, kind.encode().ljust(32), 1, int(time.time() * 1000), sequence, flags)
    head += raw[8:] + raw[:8] + hashlib.sha256(payload).digest()
    return head + struct.pack(">II", payload_type, len(payload)) + payload


def unpack(frame):
    length, kind, _, created, sequence, flags = struct.unpack(">I32sIQqQ", frame[:64])
    kind = kind.decode().strip("\0").strip()
    if length == 0 or not kind or created == 0:
        return None
    message_id = uuid.UUID(bytes=frame[72:80] + frame[64:72])
    payload_type = struct.unpack(">I", frame[112:116])[0]
    return kind, sequence, flags, message_id, payload_type, frame[length + 4:]


# --- HTTP, signatures, WebSocket ----------------------------------------------------------------------------------

def amz_now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def string_to_sign(method, target, headers, body, date, scope):
    path, _, query = target.partition("?")
    query = "&".join(sorted(query.split("&"))) if query else ""
    path = urllib.parse.quote(path, safe="/-_.~")
    names = sorted(headers)
    canonical = "\n".join([method, path, query, "".join(f"{n}:{headers[n]}\n" for n in names), ";".join(names),
                           hashlib.sha256(body).hexdigest()])
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    return f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}", ";".join(names)


class Http:
    def __init__(self, endpoint, ca):
        url = urllib.parse.urlsplit(endpoint)
        self.host, self.port = url.hostname, url.port
        self.authority = url.netloc
        self.tls = ssl.create_default_context(cafile=ca)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2

    def connect(self, timeout):
        raw = socket.create_connection((self.host, self.port), timeout=timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(raw, server_hostname=self.host)

    def request(self, method, target, headers, body=b"", timeout=30):
        """Sends a request and returns status and body."""
        with self.connect(timeout) as connection:
            lines = [f"{method} {target} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("no answer")
        return int(head.split()[1]), rest


class WebSocket:
    """The client's end, as the agent's library: pings every 54 s, and a pong within 60 s of the last or the end."""

    def __init__(self, http, target, headers):
        self.socket = http.connect(45)
        self.lock = threading.Lock()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {target} HTTP/1.1", "User-Agent: Go-http-client/1.1", "Connection: Upgrade",
                 "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(f"no upgrade: {head[:80]!r}")
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert base64.b64encode(accept) in head
        self.pong_until = time.monotonic() + 114
        self.closed = False
        threading.Thread(target=self.keep_alive, daemon=True).start()

    def fill(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("closed by the server")
        self.buffer += piece

    def take(self, count):
        while len(self.buffer) < count:
            self.socket.settimeout(max(0.1, self.pong_until - time.monotonic()) if hasattr(self, "pong_until") else 45)
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def keep_alive(self):
        while not self.closed:
            try:
                self.send(9, b"keepalive")
            except OSError:
                return
            time.sleep(54)

    def send(self, opcode, data):
        mask = os.urandom(4)
        length = len(data)
        if length < 126:
            head = bytes([0x80 | opcode, 0x80 | length])
        elif length < 65536:
            head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", length)
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", length)
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        masked = (int.from_bytes(data, "big") ^ key).to_bytes(length, "big")
        with self.lock:
            self.socket.sendall(head + mask + masked)

    def receive(self):
        """Returns the next binary message. Only pongs push the deadline out, as in the agent."""
        message = b""
        while True:
            first, second = self.take(2)
            length = second & 127
            if length == 126:
                length = struct.unpack(">H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.take(8))[0]
            data = self.take(length)
            opcode = first & 15
            if opcode == 9:
                self.send(10, data)
            elif opcode == 10:
                self.pong_until = time.monotonic() + 60
            elif opcode == 8:
                raise ConnectionError(f"closed: {data!r}")
            else:
                message += data
                if first & 0x80:
                    return message

    def drop(self):
        """Ends without a close frame, as the agent does."""
        self.closed = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
