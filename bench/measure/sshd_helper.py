"""What it costs a plain sshd to ask the node's agent for keys (`AuthorizedKeysCommand`): the helper alone, and whole logins
with it and without."""

import getpass
import os
import subprocess
from pathlib import Path

from . import aws_door, processes, sessions
from .forward import Measured
from .report import Figures, Goal
from .systems import Munjigi, free_port, wait_for

FILE, HELPER, NOTHING = "keys in a file", "keys from the agent", "/bin/true"
CALLS = 300


class Sshd:
    """An sshd of its own whose keys are in a file, or come from a command."""

    def __init__(self, directory, keys):
        directory.mkdir()
        self.port = free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "host"], check=True)
        (directory / "sshd_config").write_text(f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {directory}/host
            PidFile none
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            MaxStartups 1000
            PrintMotd no
            SetEnv SHLVL=2
        """ + keys)
        log = directory / "log"
        self.daemon = processes.start(
            ["/usr/sbin/sshd", "-D", "-e", "-f", directory / "sshd_config"], log, stdin=subprocess.DEVNULL)
        wait_for(lambda: "listening on" in log.read_text(), "sshd to listen")

    def login(self, key):
        options = [f"IdentityFile={key}", "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "LogLevel=ERROR",
                   "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null"]
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", "-p", str(self.port), "-l", getpass.getuser(), *words, "-T", "127.0.0.1", "true"]

    def stop(self):
        wait_for(lambda: not processes.children(self.daemon.pid), "sshd's last connections to end")
        processes.stop(self.daemon)


def account(binary):
    """Returns who runs the helper: an account without rights where that can reach the program, as installed."""
    reachable = all(path.stat().st_mode & 1 for path in [Path(binary), *Path(binary).parents])
    return "nobody" if os.geteuid() == 0 and reachable else getpass.getuser()


def share(times, at):
    return sorted(times)[round((len(times) - 1) * at)]


def logins(bench):
    """The helper's whole life as sshd runs it, beside that of a program that does nothing; logins by a registered key that
    only the agent knows, beside logins by the same key in a file, in turn."""
    directory = bench.directory / "sshd-helper"
    directory.mkdir(mode=0o755)
    os.chmod(bench.directory, 0o755)
    socket, key = directory / "keys.sock", directory / "key"
    one = Munjigi(bench.binary, bench.probe, directory / "munjigi")
    started = []
    try:
        one.join("near", settings=f"keys_socket = '{socket}'\n")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        aws_door.register_key(one.environment, key.with_suffix(".pub").read_text())
        kind, blob = key.with_suffix(".pub").read_text().split()[:2]
        helper = [one.binary, "authorized-keys", "--socket", str(socket), getpass.getuser(), kind, blob]
        wait_for(lambda: blob in subprocess.run(helper, capture_output=True, text=True).stdout, "the key to reach the node")
        started.append(Sshd(directory / "file", f"AuthorizedKeysFile {key}.pub\n"))
        line = f"{one.binary} authorized-keys --socket {socket} %u %t %k"
        started.append(Sshd(directory / "helper", f"AuthorizedKeysFile none\nAuthorizedKeysCommand {line}\n"
                                                  f"AuthorizedKeysCommandUser {account(one.binary)}\n"))
        return measured(bench, {NOTHING: ["/bin/true"], HELPER: helper},
                        {FILE: started[0].login(key), HELPER: started[1].login(key)})
    finally:
        for sshd in started:
            sshd.stop()
        one.stop()


def measured(bench, programs, ways):
    count = 60 if bench.options.quick else CALLS
    figures, goals = [], []
    for what, runs, base in (("the helper", programs, NOTHING), ("a login", ways, FILE)):
        watch, times = Measured(), {name: [] for name in runs}
        for number in range(count + 3):
            done = watch.round(runs, number, lambda name: sessions.run_once(runs[name]))
            for name, time in done.items() if number >= 3 else ():  # page cache, first-use tables
                times[name].append(time)
        for title, at in (("p50", 0.5), ("p99", 0.99)):
            one = Figures(f"{what}, {title} of {count}", "ms")
            one.add({name: share(taken, at) for name, taken in times.items() if taken})
            figures.append(one)
            if all(times.values()):
                added = share(times[HELPER], at) - share(times[base], at)
                must = ("<=", 20) if title == "p99" else None
                goals.append(Goal("ssh", f"added to a plain sshd: {what}, {title} - {base}", added, "ms", must=must, note=watch.note()))
    return figures, goals
