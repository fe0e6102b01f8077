"""Files: one large one and many small ones (G15, G16), beside scp and rsync over ssh. In memory, so that no disk is measured."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .forward import Measured
from .forwards import has_command
from .report import Figures, Goal

MIB = 1 << 20
LARGE, SMALL = 512 * MIB, 5000
LIMIT = 120


class Room:
    """A directory in memory (or on disk, if there is no room there) with what is copied, and where it goes."""

    def __init__(self, bench, large, small):
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * large
        self.path = Path(tempfile.mkdtemp(prefix="munjigi-bench-", dir=memory if roomy else bench.directory))
        self.large, self.tree, self.to = self.path / "large", self.path / "tree", self.path / "to"
        piece = os.urandom(MIB)
        with open(self.large, "wb") as file:
            for _ in range(large // MIB):
                file.write(piece)
        for index in range(small):
            directory = self.tree / f"part-{index // 100}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"file-{index}").write_bytes(piece[index:index + 1024 + index % 3072])
        self.bytes, self.files = large, small

    def fresh(self):
        """Empties the place that is copied to."""
        shutil.rmtree(self.to, ignore_errors=True)
        self.to.mkdir()

    def check(self, what):
        """Counts what has arrived; contents are compared for what is small."""
        if what is self.large:
            size = sum(file.stat().st_size for file in self.to.rglob("*") if file.is_file())
            if size != self.bytes:
                raise RuntimeError(f"{size} bytes of {self.bytes} arrived")
            return
        arrived = {file.name: file for file in self.to.rglob("file-*")}
        sent = {file.name: file for file in self.tree.rglob("file-*")}
        wrong = [name for name in sent if name not in arrived or arrived[name].read_bytes() != sent[name].read_bytes()]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(sent)} files did not arrive as they are")

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)


def timed(room, what, argv, environment):
    room.fresh()
    begun = time.perf_counter()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
    elapsed = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    room.check(what)
    return elapsed


def ssh_line(bench, name):
    """Returns how `rsync -e` wants ssh's command line."""
    return " ".join(bench.ssh.way(name))


def scp(bench, name, source, to):
    # scp takes ssh's options, with the port in capitals.
    options = bench.ssh.way(name)[1:]
    options[options.index("-p")] = "-P"
    return ["scp", "-q", *options, str(source), str(to)]


def copying(bench):
    room = Room(bench, (64 if bench.options.quick else LARGE // MIB) * MIB, 500 if bench.options.quick else SMALL)
    ours = has_command(bench.munjigi.binary, "cp")
    try:
        large_figures, large_goals = large(bench, room, ours)
        small_figures, small_goals = small(bench, room, ours)
    finally:
        room.close()
    return large_figures + small_figures, large_goals + small_goals


def cp(bench, *words):
    return [bench.munjigi.binary, "cp", *words], bench.munjigi.environment


def large(bench, room, ours):
    """G15: one file, there and back."""
    results, goals = [], []
    for way in ("put", "get"):
        far, near = ("target:", "") if way == "get" else ("", "target:")
        runs = {name.replace("ssh", "scp"): (scp(bench, name, f"{far}{room.large}", f"{near}{room.to}/large"), None)
                for name in ("ssh", "ssh-J")}
        if ours:
            node, other = ("near:", "") if way == "get" else ("", "near:")
            runs["munjigi"] = cp(bench, f"{node}{room.large}", f"{other}{room.to}/large")
        figures, watch = Figures(f"one file of {room.bytes >> 20} MiB, {way}", "MiB/s"), Measured()
        for number in range(bench.rounds(3)):
            figures.add(watch.round(runs, number, lambda name: room.bytes / MIB / timed(room, room.large, *runs[name])))
        results.append(figures)
        note = watch.note() or ("" if ours else "this build has no `munjigi cp`")
        goals += [
            Goal("G15", f"{figures.title} / scp", figures.ratio("munjigi", "scp"), must=(">=", 0.9), aim=(">=", 1.2), note=note),
            Goal("G15", f"{figures.title} / scp-J", figures.ratio("munjigi", "scp-J"), must=(">=", 1.6)),
        ]
    return results, goals


def small(bench, room, ours):
    """G16: a tree of small files, there and back."""
    results, goals = [], []
    for way in ("put", "get"):
        far, near = ("target:", "") if way == "get" else ("", "target:")
        runs = {name.replace("ssh", "rsync"): (
            ["rsync", "-a", "-e", ssh_line(bench, name), f"{far}{room.tree}", f"{near}{room.to}/"], None)
            for name in ("ssh", "ssh-J")} if shutil.which("rsync") else {}
        if ours:
            node, other = ("near:", "") if way == "get" else ("", "near:")
            runs["munjigi"] = cp(bench, "-r", "--preserve", f"{node}{room.tree}", f"{other}{room.to}/")
        figures, watch = Figures(f"{room.files} small files, {way}", "files/s"), Measured()
        for number in range(bench.rounds(3)):
            figures.add(watch.round(runs, number, lambda name: room.files / timed(room, room.tree, *runs[name])))
        results.append(figures)
        note = watch.note() or ("" if ours else "this build has no `munjigi cp`")
        goals.append(Goal("G16", f"{figures.title} / rsync", figures.ratio("munjigi", "rsync"), must=(">=", 0.8), aim=(">=", 1.0),
                          note=note))
    return results, goals
