"""A TCP relay on loopback that stands for a long path: every byte arrives half a round trip after it was sent.

TCP's own handshake is counted too: a client across such a path could send nothing before one round trip, and the server
would accept half a round trip later, so that is when the relay connects on.
"""

import queue
import socket
import threading
import time


class Relay:
    def __init__(self, port):
        self.port_behind = port
        self.round_trip = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near, time.monotonic()), daemon=True).start()

    def _join(self, near, accepted):
        time.sleep(max(0, accepted + 1.5 * self.round_trip - time.monotonic()))
        try:
            far = socket.create_connection(("127.0.0.1", self.port_behind))
        except OSError:
            near.close()
            return
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The client spoke at once, but could have done so only after one round trip: its first bytes arrive now.
        self._carry(near, far, first_delayed=False)
        self._carry(far, near, first_delayed=True)

    def _carry(self, source, sink, first_delayed):
        line = queue.Queue(1024)

        def read():
            delayed = first_delayed
            while True:
                try:
                    data = source.recv(65536)
                except OSError:
                    data = b""
                line.put((time.monotonic() + (self.round_trip / 2 if delayed else 0), data))
                delayed = True
                if not data:
                    return

        def write():
            while True:
                due, data = line.get()
                time.sleep(max(0, due - time.monotonic()))
                try:
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                    sink.sendall(data)
                except OSError:
                    # Lets the reader end, whose queue would fill.
                    try:
                        source.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    while data:
                        _, data = line.get()
                    return

        for work in (read, write):
            threading.Thread(target=work, daemon=True).start()
