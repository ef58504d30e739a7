#!/usr/bin/env python3
"""Rotating everything, over a catalogue of N assets: million_test.py SLUICE [N]

The suite runs it with 20,000 assets; `million_test.py SLUICE 1000000` is the figure of docs/benchmarks.md. Nothing here is a
timed pass or fail but the promise itself: under one second to the first manifest of the new epoch.
"""
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.disturbed import Disturbance  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

FOLDER = 1000


def name(n):
    return f"p{n // FOLDER}/a{n % FOLDER}"


def make(media, num):
    """N folders with one file, linked: storage for a million is not what is measured."""
    first = media.parent / "t.mp4"
    first.write_bytes(bytes(synth.plain(3)[0]))
    for n in range(num):
        if n % FOLDER == 0:
            os.mkdir(media / f"p{n // FOLDER}")
            source = media.parent / f"t{n}.mp4"  # file systems bound the links of one file
            shutil.copyfile(first, source)
        folder = f"{media}/{name(n)}"
        os.mkdir(folder)
        os.link(source, folder + "/t.mp4")


def written(pid):
    return int(re.search(r"wchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text()).group(1))


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def waited(pid):
    """Seconds for which threads of the server, and this one, could run and had no CPU: what other programs take is not the server's time."""
    files = [pathlib.Path("/proc/thread-self/schedstat"), *pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(f.read_text().split()[1]) for f in files if f.exists()) / 1e9


def epoch_of(client, asset):
    body = client.get(f"/{asset}/cbcs/master.m3u8").body
    return int(re.search(rb"(\d+)/t/media\.m3u8", body).group(1))


def main():
    tap = Tap()
    num = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    work = pathlib.Path(tempfile.mkdtemp(prefix="sluice-million-", dir=fast))
    try:
        media = work / "media"
        media.mkdir()
        make(media, num)
        began = time.monotonic()
        with Server(os.path.abspath(sys.argv[1]), media, "--write-sidecars=false", "--drain-timeout", "0") as server:
            pid = server.process.pid
            started, start_mb = time.monotonic() - began, resident(pid)
            picks = [name(n) for n in random.sample(range(num), min(num, 3000))]
            c = server.client()
            tap.ok(all(epoch_of(c, a) == 1 for a in picks), f"{len(picks)} of {num} assets are in epoch 1")
            before = written(pid)
            with Disturbance() as seen:
                others, ordered = waited(pid), time.monotonic()
                status = server.admin("/rotate?scope=", "POST").status
                asked = 1
                while epoch_of(c, picks[0]) != 2 and time.monotonic() < ordered + 20:
                    asked += 1
                took = time.monotonic() - ordered
            others = waited(pid) - others
            wrote = written(pid) - before
            tap.ok(status == 200 and asked == 1 and took - others - seen.late_s < 1, f"{took * 1000:.1f} ms from the order to the first manifest of the new epoch",
                   f"{took}, waiting for a CPU {others}, {seen.late_s} late; the {asked}. manifest")
            journal = (server.state / "rotations.journal").read_text().splitlines()
            tap.ok(len(journal) == 1 and wrote < 4096, f"one line in the journal, {wrote} bytes written in all", (journal[:3], wrote))
            tap.ok(all(epoch_of(c, a) == 2 for a in picks), "every one of them is in epoch 2")
            more = [name(n) for n in random.sample(range(num), min(num, 500))]
            tap.ok(all(epoch_of(c, a) == 2 for a in more), "and those that nobody had asked for")
            order = server.admin(f"/rotate?scope={picks[0]}", "POST")
            tap.ok(order.status == 200 and epoch_of(c, picks[0]) == 3 and epoch_of(c, picks[1]) == 2, "one asset on top of it", order)
            files = sum(len(f) for _, _, f in os.walk(media / "p0"))
            tap.equal(files, min(num, FOLDER), "nothing was written beside the media")
            tap.note(f"{num} assets: ready {started * 1000:.0f} ms after the start with {start_mb:.0f} MB resident; "
                     f"{resident(pid):.0f} MB with {len(picks)} assets open; rotation {took * 1000:.1f} ms")
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=False)
    tap.end()


if __name__ == "__main__":
    main()
