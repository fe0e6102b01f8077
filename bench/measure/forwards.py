"""Forwards that stand: each system's way from a port here to one target, and the processes it is made of."""

import contextlib
import json
import shutil
import subprocess
import threading
from pathlib import Path

from . import processes
from .aws_door import FORWARD, LINK, Ways, listens, said
from .systems import free_port, wait_for

DIRECT, RELAY, TLS1, TLS2, SSH, SSH_J, MUNJIGI = "direct", "relay", "tls1", "tls2", "ssh -L", "ssh -J -L", "munjigi"


class Target:
    """Where all forwards of one measurement lead: a `load serve`."""

    def __init__(self, bench, inside=(), listen="127.0.0.1:0"):
        self.process = processes.start(
            [*inside, str(bench.load), "serve", f"listen={listen}"], bench.directory / "target.log",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        self.port = json.loads(processes.line_of(self.process, "{"))["port"]

    def close(self):
        processes.stop(self.process)


class Way:
    """One system's forward: where it begins, and whose CPU time it costs."""

    def __init__(self, address, pids=()):
        self.address, self.pids = address, list(pids)

    def cpu(self):
        return processes.cpu_of(self.pids)


def load(bench, mode, address, limit=60, inside=(), **settings):
    """Runs one measurement of the load program to its end; it gives up by itself after `limit` seconds."""
    pairs = [f"{name}={value}" for name, value in (settings | {"limit": limit}).items()]
    argv = [*inside, str(bench.load), mode, address, *pairs]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit + 30)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"load {mode} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def nginx(directory, name, servers):
    """Starts one nginx process that forwards streams. `servers` are the bodies of its `server` blocks."""
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    text = f"load_module {module};\n" if module.exists() else ""
    text += f"daemon off; master_process off; worker_processes 1; pid {directory}/{name}.pid;\n"
    text += f"error_log {directory}/{name}.log warn;\nevents {{ worker_connections 4096; }}\nstream {{\n"
    text += "tcp_nodelay on; proxy_half_close on; proxy_buffer_size 64k;\n"
    for side in ("", "proxy_"):
        text += f"{side}ssl_protocols TLSv1.3; {side}ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n"
    text += f"ssl_certificate {directory}/tls.pem; ssl_certificate_key {directory}/tls.key;\n"
    text += "".join(f"server {{ {server} }}\n" for server in servers) + "}\n"
    file = directory / f"{name}.conf"
    file.write_text(text)
    return processes.start(
        ["nginx", "-p", str(directory), "-e", str(directory / f"{name}.log"), "-c", str(file)],
        directory / f"{name}.out", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def nginx_chain(bench, hops, target):
    """A chain of nginx processes with `hops` connections of TLS between them: 0 is one relay, 2 is the floor of our own
    design (client, gateway and agent as processes)."""
    directory = bench.directory / f"nginx-{hops}"
    directory.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=bench", "-keyout", directory / "tls.key", "-out", directory / "tls.pem"],
        check=True, capture_output=True,
    )
    ports = [free_port() for _ in range(hops + 1)]
    started = []
    try:
        for at, port in enumerate(ports):
            last = at == hops
            listen = f"listen 127.0.0.1:{port}{' ssl' if at else ''}; "
            lead = f"proxy_pass 127.0.0.1:{target if last else ports[at + 1]};" + ("" if last else " proxy_ssl on;")
            started.append(nginx(directory, f"hop-{at}", [listen + lead]))
        for port in ports:
            wait_for(lambda port=port: listens(port), "nginx to listen")
        yield Way(f"127.0.0.1:{ports[0]}", [process.pid for process in started])
    finally:
        for process in started:
            processes.stop(process)


@contextlib.contextmanager
def ssh_forward(bench, ssh, name, target, inside=()):
    """By `ssh -L`, directly or through the bastion; `inside` gets to where the client is."""
    port = free_port()
    before = {pid for daemon in ssh.daemons for pid in processes.descendants(daemon.pid)}
    argv = ssh.way("ssh-J" if name == SSH_J else "ssh") + ["-N", "-L", f"{port}:127.0.0.1:{target}", "target"]
    process = processes.start(argv, bench.directory / "forward-ssh.log", stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: listening(port, inside), f"{name} to listen")
        far = {pid for daemon in ssh.daemons for pid in processes.descendants(daemon.pid)} - before
        yield Way(f"127.0.0.1:{port}", processes.descendants(process.pid) + sorted(far))
    finally:
        processes.stop(process)


def listening(port, inside):
    if not inside:
        return listens(port)
    # What listens in that network, without knocking: a connection would cross the long path.
    sockets = subprocess.run([*inside, "cat", "/proc/net/tcp"], capture_output=True, text=True).stdout
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in sockets.splitlines()[1:])


def has_command(binary, name):
    """Says whether this build has a command of that name."""
    return not subprocess.run([binary, name, "--help"], capture_output=True, stdin=subprocess.DEVNULL).returncode


@contextlib.contextmanager
def munjigi_forward(munjigi, log, target):
    """By `munjigi forward`; by the plugin over the link where a build has no such command."""
    inside = munjigi.inside.get("client", ())
    if has_command(munjigi.binary, "forward"):
        argv, environment = [munjigi.binary, "forward", "near", f"0:127.0.0.1:{target}", "--output", "json"], munjigi.environment
        sign, port_in = "{", port_of
    else:
        parameters = {"portNumber": [str(target)], "localPortNumber": ["0"]}
        argv, environment = Ways(munjigi).prepared(LINK, FORWARD, parameters)
        sign, port_in = "Port ", lambda line: int(line.split()[1])
    process = processes.start([*inside, *argv], log, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)
    try:
        address = f"127.0.0.1:{port_in(said(process, sign))}"
        # What it says later must not fill the pipe.
        threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
        agent = processes.family(munjigi.agents["near"].pid, munjigi.binary)
        yield Way(address, [process.pid, munjigi.server.pid, *agent])
    finally:
        processes.stop(process)


def port_of(line):
    """Finds the bound port in what a forward says of itself as JSON."""
    return int(json.loads(line)["Forwards"][0]["Port"])


@contextlib.contextmanager
def standing(bench, target, names):
    """Sets up those systems' forwards to a target's port; gives them by name, in the order asked for."""
    with contextlib.ExitStack() as stack:
        ways = {}
        for name in names:
            if name == DIRECT:
                ways[name] = Way(f"127.0.0.1:{target.port}")
            elif name in (SSH, SSH_J):
                ways[name] = stack.enter_context(ssh_forward(bench, bench.ssh, name, target.port))
            elif name == MUNJIGI:
                log = bench.directory / "forward-munjigi.log"
                ways[name] = stack.enter_context(munjigi_forward(bench.munjigi, log, target.port))
            elif shutil.which("nginx") and shutil.which("openssl"):
                hops = {RELAY: 0, TLS1: 1, TLS2: 2}[name]
                ways[name] = stack.enter_context(nginx_chain(bench, hops, target.port))
        yield ways
