#!/usr/bin/env python3
"""How new connections are spread over workers: steer_test.py SLUICE"""
import os
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

CONNECTIONS = 120


def accepted(server, workers):
    text = server.admin("/metrics").body.decode()
    found = dict(re.findall(r'sluice_connections_total\{worker="(\d+)",event="accepted"\} (\d+)', text))
    return [int(found[str(n)]) for n in range(workers)]


def spread(server, workers):
    before = accepted(server, workers)
    for _ in range(CONNECTIONS):
        server.get("/a/cenc/1/t/init.mp4")
    return [b - a for a, b in zip(before, accepted(server, workers))]


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="sluice-steer-") as work:
        media = pathlib.Path(work) / "media"
        synth.one_track(media, 20)
        for io in ("auto", "epoll"):
            with Server(sys.argv[1], media, "--workers", "3", "--io", io) as server:
                said = server.wait_log("connections go to workers")
                counts = spread(server, 3)
                tap.equal(sum(counts), CONNECTIONS, f"{io}: every connection is accepted once")
                if "in turn" in said:
                    tap.ok(max(counts) - min(counts) <= 1, f"{io}: in turn: all workers get the same", counts)
                else:
                    tap.skip(f"{io}: in turn", said)
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            tap.skip("by CPU", "one CPU")
        else:
            with Server(sys.argv[1], media, "--workers", "2", "--cpu-affinity", f"{cpus[0]} {cpus[1]}", "--steering", "cpu") as server:
                for n in (1, 0):
                    os.sched_setaffinity(0, {cpus[n]})  # loopback handles a packet where it was sent
                    counts = spread(server, 2)
                    tap.ok(counts[n] >= CONNECTIONS * 9 // 10, f"by CPU: who comes in on CPU {cpus[n]} is served there", counts)
                os.sched_setaffinity(0, set(cpus))
        with Server(sys.argv[1], media, "--workers", "2", "--steering", "hash") as server:
            tap.ok(server.wait_log("connections go to workers by the kernel's hash"), "hash: what is in force is said")
            tap.equal(sum(spread(server, 2)), CONNECTIONS, "hash: every connection is accepted once")
    tap.end()


if __name__ == "__main__":
    main()
