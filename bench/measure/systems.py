"""The systems that are compared: OpenSSH with a server of its own, and Munjigi as the contract says to start it."""

import getpass
import json
import os
import pwd
import shlex
import socket
import subprocess
import time
from pathlib import Path

from . import processes

SHELL = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(condition, what, limit=20):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit} s for {what}")
        time.sleep(0.01)


class OpenSsh:
    """sshd with its own keys and settings on a free port, and the ways of reaching it."""

    def __init__(self, directory, address="127.0.0.1", bastion=None, inside=None):
        """`inside` says how to get to where the `host`, the `bastion` and the `client` are, if that is not here."""
        self.directory, self.inside = directory, inside or {}
        directory.mkdir()
        self.port = free_port()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        (directory / "authorized").write_bytes((directory / "user.pub").read_bytes())
        # SHLVL keeps bash from reading the user's .bashrc for a remote command: no other system here would read it.
        (directory / "sshd_config").write_text(f"""
            Port {self.port}
            ListenAddress {"0.0.0.0" if inside else address}
            HostKey {directory}/host
            PidFile none
            AuthorizedKeysFile {directory}/authorized
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            MaxStartups 1000
            MaxSessions 1000
            Subsystem sftp /usr/lib/openssh/sftp-server
            PrintMotd no
            SetEnv SHLVL=2
        """)
        (directory / "config").write_text(f"""
            Host target
            HostName {address}
            Host bastion
            HostName {bastion or address}
            Host *
            User {getpass.getuser()}
            IdentityFile {directory}/user
            IdentitiesOnly yes
            BatchMode yes
            StrictHostKeyChecking no
            UserKnownHostsFile /dev/null
            GlobalKnownHostsFile /dev/null
            LogLevel ERROR
        """)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        # One daemon is its own bastion, unless that is somewhere else.
        self.daemons = [
            processes.start(
                [*self.inside.get(place, ()), "/usr/sbin/sshd", "-D", "-e", "-f", directory / "sshd_config"],
                directory / f"sshd-{place}.log", stdin=subprocess.DEVNULL,
            ) for place in (("host", "bastion") if inside else ("host",))
        ]
        self.daemon = self.daemons[0]
        wait_for(lambda: all("listening on" in log.read_text() for log in directory.glob("sshd-*.log")), "sshd to listen")
        self.master = processes.start(
            self.client() + ["-M", "-N", "-S", str(directory / "mux"), "target"],
            directory / "mux.log", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        wait_for((directory / "mux").exists, "the ControlMaster")

    def stop(self):
        """Ends the master first and lets sshd see its own children end, so that nothing is left to init."""
        processes.stop(self.master)
        for daemon in self.daemons:
            wait_for(lambda daemon=daemon: not processes.children(daemon.pid), "sshd's last connections to end")
            processes.stop(daemon)

    def client(self, port=None):
        return [*self.inside.get("client", ()), "ssh", "-F", str(self.directory / "config"), "-p", str(port or self.port)]

    def way(self, name, port=None):
        """Returns the command line up to the remote command, for `ssh`, `ssh-x25519`, `ssh-mux` or `ssh-J`."""
        extra = {
            "ssh": [],
            "ssh-x25519": ["-o", "KexAlgorithms=curve25519-sha256"],
            "ssh-mux": ["-S", str(self.directory / "mux")],
            "ssh-J": ["-J", f"bastion:{self.port}"],
        }[name]
        return self.client(port) + extra

    def command(self, name, line, terminal=False, port=None):
        return self.way(name, port) + (["-tt"] if terminal else ["-T"]) + ["target", line]


class Munjigi:
    """A server in a data directory of its own; agents join it as the contract says."""

    def __init__(self, binary, probe, directory, strict=False, address="127.0.0.1", inside=None, strangers=True):
        """`inside` says how to get to where the `server`, the `agent` and the `client` are, if that is not here;
        `strangers` whether more connections may stand that have not authenticated than usual."""
        self.binary, self.probe, self.directory = str(binary), str(probe), directory
        self.address, self.inside = address, inside or {}
        directory.mkdir()
        self.data = directory / "data"
        # The limits of one address and one person are raised: everything here comes from one address and is one person's.
        settings = f"""
            names = ["{address}"]
            [session]
            strict_recording = {str(strict).lower()}
            default_os_user = "{getpass.getuser()}"
            [limits]
            sessions_per_principal = 65536
            starts_per_minute = 1000000
            nodes_per_minute = 1000000
        """
        if strangers:
            settings += "unauthenticated = 8192\nunauthenticated_per_address = 4096\n"
        self.settings = directory / "server.toml"
        self.settings.write_text(settings)
        self.settings.chmod(0o600)
        self.surroundings = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("AWS_", "MUNJIGI_", "RUST_")) and name.upper() not in ("HTTPS_PROXY", "ALL_PROXY")
        }
        self.surroundings["XDG_CONFIG_HOME"] = str(directory / "home")
        self.start_server()
        text = subprocess.run(
            [self.binary, "env", "--data-dir", self.data], env=self.surroundings, check=True, capture_output=True, text=True
        ).stdout
        pairs = (word.split("=", 1) for line in text.splitlines() for word in shlex.split(line)[1:])
        self.environment = self.surroundings | dict(pairs)
        self.endpoint = self.environment["AWS_ENDPOINT_URL"]
        self.port = int(self.endpoint.rsplit(":", 1)[1])
        self.agents, self.activations = {}, 0

    def start_server(self):
        self.server = processes.start(
            [*self.inside.get("server", ()), self.binary, "server", "--data-dir", str(self.data),
             "--listen", f"{self.address}:0", "--config", str(self.settings)],
            self.directory / "server.log", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.surroundings,
        )
        processes.line_of(self.server, "ready ")

    def restart_server(self):
        processes.stop(self.server)
        self.start_server()

    def call(self, operation, value):
        done = subprocess.run(
            [*self.inside.get("server", ()), self.probe, "call", self.data, f"operation={operation}"],
            input=json.dumps(value), env=self.surroundings, capture_output=True, text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)

    def activation(self, limit=1):
        # The server answers the very same request within a second with the same activation: each is described apart.
        self.activations += 1
        wish = {"IamRole": "bench", "RegistrationLimit": limit, "Description": f"bench {self.activations}"}
        answer = self.call("AmazonSSM.CreateActivation", wish)
        return answer["ActivationId"], answer["ActivationCode"]

    def enrol(self, name, server=None):
        """Registers a node under a name, by the server's own address or another one that leads there; returns its agent's
        directory."""
        ident, code = self.activation()
        data = self.directory / f"agent-{name}"
        done = subprocess.run(
            [*self.inside.get("agent", ()), self.binary, "agent", "join", "--server", server or self.endpoint,
             "--ca", self.data / "ca.pem", "--data-dir", data, "--name", name],
            env=self.surroundings | {"MUNJIGI_ACTIVATION_ID": ident, "MUNJIGI_ACTIVATION_CODE": code},
            capture_output=True, text=True,
        )
        if done.returncode:
            raise RuntimeError(f"an agent could not join: {done.stderr.strip()}")
        return data

    def join(self, name, server=None, settings=""):
        """Registers a node and runs its agent, with lines of settings of its own."""
        data = self.enrol(name, server)
        if settings:
            with open(data / "agent.toml", "a") as file:
                file.write(settings)
        return self.run_agent(name)

    def run_agent(self, name):
        """Runs the agent of a node until it is online; returns the node's id."""
        data = self.directory / f"agent-{name}"
        self.agents[name] = processes.start(
            [*self.inside.get("agent", ()), self.binary, "agent", "run", "--data-dir", str(data)],
            self.directory / f"agent-{name}.log",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.surroundings,
        )
        return processes.line_of(self.agents[name], "online ").split()[1]

    def restart_agent(self, name):
        """Stops an agent and runs it again; returns the seconds until it is online."""
        processes.stop(self.agents.pop(name))
        begun = time.monotonic()
        self.run_agent(name)
        return time.monotonic() - begun

    def command(self, node, line, terminal=False):
        argv = [*self.inside.get("client", ()), self.binary, "run"]
        return argv + ["-t" if terminal else "-T", node, "--", SHELL, "-c", line]

    def start_probe(self, mode, *settings, place=None):
        return processes.start(
            [self.probe, mode, str(place or self.data), *settings], self.directory / f"probe-{mode}.log",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.surroundings,
        )

    def run_probe(self, mode, *settings):
        done = subprocess.run(
            [self.probe, mode, self.data, *settings], env=self.surroundings, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"probe {mode}: {done.stderr.strip()}")
        return json.loads(done.stdout.splitlines()[-1])

    def stop(self):
        for agent in self.agents.values():
            processes.stop(agent)
        processes.stop(self.server)
