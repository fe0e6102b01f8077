"""A metadata service as EC2 instances have it (version 2: a token first), out of a directory.

    aws_metadata.py DIR

Prints its port. A file DIR/tree/NAME is what it answers at /latest/meta-data/NAME/; DIR/slow makes it wait so many seconds; each
request is a line in DIR/requests.
"""

import os
import pathlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIRECTORY = pathlib.Path(sys.argv[1])
TOKEN = "token-of-this-run"


class Metadata(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self):
        with open(DIRECTORY / "requests", "a") as log:
            log.write(f"{self.command} {self.path}\n")
        slow = DIRECTORY / "slow"
        if slow.exists():
            time.sleep(float(slow.read_text()))

    def do_PUT(self):
        self.begin()
        good = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") == "5"
        self.answer(200, TOKEN.encode()) if good else self.answer(400)

    def do_GET(self):
        self.begin()
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return self.answer(401)
        prefix = "/latest/meta-data/"
        if not self.path.startswith(prefix) or ".." in self.path:
            return self.answer(404, b"<html>not here</html>")
        place = DIRECTORY / "tree" / self.path.removeprefix(prefix).strip("/")
        if place.is_dir():
            return self.answer(200, "\n".join(sorted(os.listdir(place))).encode())
        if place.is_file():
            return self.answer(200, place.read_bytes())
        self.answer(404, b"<html>not here</html>")

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
print(server.server_address[1], flush=True)
server.serve_forever()
