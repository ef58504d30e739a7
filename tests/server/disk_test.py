#!/usr/bin/env python3
"""A worker never reads a file, faults one in or waits for a disk, neither when everything is in RAM nor when nothing is:
disk_test.py SLUICE"""
import os
import pathlib
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

TRACKS, ROUNDS = 16, 12


def threads(server, kind):
    """{thread: (read calls, bytes they gave, bytes from disk, major faults)} of the threads whose names begin so."""
    out = {}
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        if (task / "comm").read_text().startswith(kind):
            io = dict(line.split(": ") for line in (task / "io").read_text().splitlines())
            out[task.name] = (int(io["syscr"]), int(io["rchar"]), int(io["read_bytes"]), int((task / "stat").read_text().rpartition(")")[2].split()[9]))
    return out


def moved(before, after):
    return [sum(after[t][i] - before[t][i] for t in before) for i in range(4)]


def load(server, paths):
    def ask(some):
        c = server.client()
        for p in some:
            if c.get(p).status != 200:
                raise RuntimeError(p)
        c.close()
    jobs = [threading.Thread(target=ask, args=(paths[n::4],)) for n in range(4)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join()


def main():
    tap = Tap()
    if not pathlib.Path("/proc/self/task/self/io").exists() and not pathlib.Path(f"/proc/self/task/{os.getpid()}/io").exists():
        tap.skip("workers and disks", "this kernel does not count input and output of threads")
        tap.end()
    pathlib.Path(sys.argv[1]).read_bytes()  # the program's own pages are in RAM: a worker that faults one in reads no media
    with tempfile.TemporaryDirectory(prefix="sluice-disk-") as work:
        media = pathlib.Path(work) / "media"
        for n in range(TRACKS):
            (media / f"a{n}").mkdir(parents=True)
            (media / f"a{n}" / "t.mp4").write_bytes(synth.plain(200 + n)[0])
        paths = [f"/a{n}/{scheme}/1/t.mp4" for n in range(TRACKS) for scheme in ("cenc", "cbcs")]
        for io in ("auto", "epoll"):
            with Server(sys.argv[1], media, "--io", io, "--cache-encrypted", "off", "--workers", "2", "--helper-threads", "2") as server:
                workers, helpers = threads(server, "worker"), threads(server, "helper")
                tap.equal(len(workers), 2, f"{io}: the workers are found")
                load(server, paths)
                cold = moved(workers, threads(server, "worker"))
                tap.ok(moved(helpers, threads(server, "helper"))[0] > 0, f"{io}: the files were read by others meanwhile")
                # epoll: being woken is a read of eight bytes
                tap.equal(cold[1:], [8 * cold[0], 0, 0], f"{io}: nothing in RAM: no worker reads more than that it was woken")
                before = threads(server, "worker")
                load(server, paths * ROUNDS)
                tap.equal(moved(before, threads(server, "worker")), [0, 0, 0, 0], f"{io}: all in RAM: no worker reads, faults or waits")
    tap.end()


if __name__ == "__main__":
    main()
