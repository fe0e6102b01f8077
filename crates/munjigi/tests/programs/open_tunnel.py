"""A client of /openTunnel, written from the documented behaviour of `aws ec2-instance-connect open-tunnel` alone.

usage: open_tunnel.py URL CA ENDPOINT_ID ADDRESS PORT [DURATION]

Signs the URL with the credentials of the environment (as botocore does it), upgrades to a WebSocket and carries standard
input and output, so that it serves as ssh's ProxyCommand. Prints `refused STATUS TEXT` or `closed CODE REASON` on
standard error. With TUNNEL_TWICE in the environment it uses the URL a second time and prints the answer's status.
"""

import base64
import os
import socket
import ssl
import struct
import sys
import threading
import time
from urllib.parse import urlencode, urlsplit

import botocore.session
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

CHUNK = 65000


def signed(url, endpoint, address, port, duration):
    query = {"instanceConnectEndpointId": endpoint, "remotePort": port, "privateIpAddress": address}
    if duration:
        query["maxTunnelDuration"] = duration
    session = botocore.session.Session()
    request = AWSRequest("GET", f"{url}/openTunnel?{urlencode(query)}")
    region = session.get_config_variable("region")
    SigV4QueryAuth(session.get_credentials(), "ec2-instance-connect", region, expires=60).add_auth(request)
    return request.prepare().url


def upgraded(url, ca):
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca)
    connection = context.wrap_socket(socket.create_connection((parts.hostname, parts.port)), server_hostname=parts.hostname)
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    connection.sendall(head.encode())
    reader = connection.makefile("rb")
    status = int(reader.readline().split()[1])
    headers = {}
    while (line := reader.readline().strip()):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = b"" if status == 101 else reader.read(int(headers.get("content-length", 0)))
    return status, headers, body, connection, reader


def frame(opcode, payload):
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
    mask = os.urandom(4)
    repeated = mask * (length // 4 + 1)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:length], "big")).to_bytes(length, "big")
    return head + mask + masked


def main():
    url, ca, endpoint, address, port, *rest = sys.argv[1:]
    for _ in range(5):
        target = signed(url, endpoint, address, port, rest[0] if rest else None)
        status, headers, body, connection, reader = upgraded(target, ca)
        if b"RequestAlreadyCarriedOut" not in body:
            break
        # Signatures know seconds only: another tunnel of this second had the same.
        time.sleep(1.001 - time.time() % 1)
    if status != 101:
        print("refused", status, body.decode().strip(), file=sys.stderr)
        return 1
    assert headers.get("x-amzn-requestid"), headers
    if os.environ.get("TUNNEL_TWICE"):
        print("again", upgraded(target, ca)[0], file=sys.stderr)
    sending = threading.Lock()

    def send(opcode, payload):
        with sending:
            connection.sendall(frame(opcode, payload))

    def upload():
        while data := os.read(0, CHUNK):
            send(2, data)
        send(8, struct.pack("!H", 1000))

    threading.Thread(target=upload, daemon=True).start()
    while True:
        head = reader.read(2)
        if len(head) < 2:
            print("broken", file=sys.stderr)
            return 1
        opcode, length = head[0] & 15, head[1] & 127
        assert head[1] < 128, "a server does not mask"
        if length == 126:
            (length,) = struct.unpack("!H", reader.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", reader.read(8))
        payload = reader.read(length)
        if opcode in (0, 2):
            view = memoryview(payload)
            while view:
                view = view[os.write(1, view):]
        elif opcode == 9:
            send(10, payload)
        elif opcode == 8:
            code = struct.unpack("!H", payload[:2])[0] if payload else 1005
            print("closed", code, payload[2:].decode(), file=sys.stderr)
            return 0 if code == 1000 else 1
        else:
            assert opcode == 10, opcode


if __name__ == "__main__":
    sys.exit(main())
