#!/usr/bin/env python3
"""The cache of encrypted segments: the same bytes as without it, to fast and slow readers, while regions come and go: hot_test.py SLUICE"""
import json
import os
import pathlib
import random
import re
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

SECONDS, MOST_SECONDS = 5, 60  # as long as it takes, on a busy machine, until something was evicted
TRACKS = 12


def hits(server):
    text = server.admin("/metrics").body.decode()
    return sum(int(v) for v in re.findall(r'cache="encrypted",result="hit"\} (\d+)', text))


def misses(server):
    text = server.admin("/metrics").body.decode()
    return sum(int(v) for v in re.findall(r'cache="encrypted",result="miss"\} (\d+)', text))


def status(server):
    return json.loads(server.admin("/status").body)


def link_of(fd):
    """What a descriptor in /proc leads to; "" when it has been closed since it was listed."""
    try:
        return os.readlink(fd)
    except FileNotFoundError:
        return ""


def memory_file(server):
    """The memory file of the cache."""
    fds = pathlib.Path(f"/proc/{server.process.pid}/fd")
    return next(f for f in sorted(fds.iterdir()) if "memfd:sluice-segments" in link_of(f))


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


def slowly(server, path, pause):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: judge.test\r\nConnection: close\r\n\r\n".encode())
        data = bytearray()
        while piece := s.recv(16384):
            data += piece
            time.sleep(pause)
    return bytes(data).partition(b"\r\n\r\n")[2]


def pauses(tap, binary, media, path, *flags):
    """Who pauses longer than stall_timeout, amid bytes that have no buffer to take back, or one that is, goes on where it stopped."""
    times = 60
    with Server(binary, media, "--stall-timeout", "200ms", *flags) as server:
        c, end, missed = server.client(), time.monotonic() + 20, 1
        while missed and time.monotonic() < end:
            before = misses(server)
            for _ in range(20):
                body = c.get(path).body
            missed = misses(server) - before
        got = bytearray()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(20)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() * (times - 1)
                      + f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            before = hits(server)
            time.sleep(1.5)
            while piece := s.recv(1 << 18):
                got += piece
        tap.ok(got.count(body) == times and hits(server) > before, f"a reader that paused amid {times} hot responses {flags} got all of them",
               f"{got.count(body)}, in {len(got)} bytes, each of {len(body)}; {hits(server) - before} hits")


def grace_window(tap, sluice, media, paths):
    """The epochs before a rotation leave the cache when their window ends, though nobody asks."""
    grace = 2.0
    with Server(sluice, media, "--segment-target", "0", "--cache-size", "64M", "--cache-encrypted", "32M") as server:
        segments = lambda: status(server)["encrypted_cache"]["segments"]
        c = server.client()
        end = time.monotonic() + 20
        while not segments() and time.monotonic() < end:
            for p in paths[:2] * 8:  # often enough within the second in which heat halves
                c.get(p)
        c.close()
        held = segments()
        tap.ok(held > 0, "asked for often: in the cache", status(server)["encrypted_cache"])
        begin = time.monotonic()
        tap.equal(server.admin(f"/rotate?scope=&grace_ms={int(grace * 1000)}", "POST").status, 200, "rotated, with a grace window")
        tap.equal([server.get(p).status for p in paths[:2]], [200] * 2, "within the window the old epoch is served")
        tap.ok(segments() >= held, "from the cache: it is all there", f"{segments()} of {held}")  # more where one more request made it hot
        wait_until(lambda: segments() == 0, 15)  # the keeper sweeps every five seconds
        took = time.monotonic() - begin
        tap.ok(segments() == 0 and took >= grace, "the window ends: the cache empties, though nobody asks", f"{segments()} of {held} after {took:.1f} s")
        tap.equal(server.get(paths[0]).status, 410, "and who asks then is told")
        tap.equal(server.stop(), 0, "and it ends in good order")


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="sluice-hot-") as work:
        media = pathlib.Path(work) / "media"
        for n in range(TRACKS):
            (media / f"a{n}").mkdir(parents=True)
            # Pieces that are copied, and such as leave by sendfile.
            source = synth.plain(300 + n)[0] if n % 2 else synth.plain(12 + n, (3000, 4000, 5000))[0]
            (media / f"a{n}" / "t.mp4").write_bytes(source)
        paths = [f"/a{n}/{scheme}/1/t.mp4" for n in range(TRACKS) for scheme in ("cenc", "cbcs")]
        with Server(sys.argv[1], media, "--segment-target", "0", "--cache-encrypted", "off") as server:
            want = {p: server.get(p).body for p in paths}
            tap.equal(hits(server), 0, "off: no hit")
            state = server.state / "derive.secret"
            secret = state.read_bytes()
        keys = pathlib.Path(work) / "keys"
        keys.mkdir()
        (keys / "derive.secret").write_bytes(secret)
        with Server(sys.argv[1], media, "--segment-target", "0", "--cache-size", "4M", "--cache-encrypted", "1M", state=keys) as server:
            file, wrong, served, enough = memory_file(server), [], [0], threading.Event()

            def fast(seed):
                r, c = random.Random(seed), server.client()
                while not enough.is_set():
                    p = r.choice(paths[:6] if r.random() < 0.8 else paths)
                    body = c.get(p).body
                    served[0] += 1
                    if body != want[p]:
                        wrong.append(p)

            def slow(seed):
                r = random.Random(seed)
                while not enough.is_set():
                    p = r.choice(paths[:6])
                    if slowly(server, p, r.random() * 0.01) != want[p]:
                        wrong.append(f"slow {p}")

            threads = [threading.Thread(target=f, args=(n,)) for n in range(3) for f in (fast, slow)]
            most_file = most_memory = 0
            for t in threads:
                t.start()
            start = time.monotonic()
            while (lasted := time.monotonic() - start) < SECONDS or (lasted < MOST_SECONDS and not status(server)["encrypted_cache"]["evicted"]):
                most_file = max(most_file, os.stat(file).st_blocks * 512)
                most_memory = max(most_memory, status(server)["cache"]["memory"])
                time.sleep(0.05)
            enough.set()
            for t in threads:
                t.join()
            tap.ok(0 < most_file <= 1 << 20, "the memory file stays within cache_encrypted", f"{most_file} bytes")
            tap.ok(0 < most_memory <= 4 << 20, "both caches and their tables stay within cache_size", f"{most_memory} bytes")
            tap.ok(status(server)["encrypted_cache"]["evicted"] > 0, "regions came and went", status(server))
            tap.ok(not wrong and served[0] > 20, f"{served[0]} responses are what they are without the cache", wrong[:5])
            tap.ok(hits(server) > 20, f"on: {hits(server)} hits")
            size = len(want[paths[0]])
            c = server.client()
            for _ in range(50):
                first, last = sorted(random.sample(range(size), 2))
                r = c.get(paths[0], headers={"Range": f"bytes={first}-{last}"})
                if r.body != want[paths[0]][first:last + 1]:
                    wrong.append(f"{first}-{last}")
            tap.ok(not wrong, "ranges of hot files", wrong[:5])
            server.admin("/rotate?scope=a0&revoke=1", "POST")
            tap.equal(server.get(paths[0]).status, 410, "a revoked epoch is gone at once, hot or not")
            held = status(server)["encrypted_cache"]["segments"]
            server.admin("/rotate?scope=&revoke=1", "POST")
            wait_until(lambda: status(server)["encrypted_cache"]["segments"] == 0)
            left = status(server)["encrypted_cache"]["segments"]
            tap.ok(held > 0 and left == 0, "revoking all empties the cache, though nobody asks", f"{held} before, {left} after")
            tap.equal(server.stop(), 0, "and it ends in good order")
        pauses(tap, sys.argv[1], media, "/a0/cenc/1/t.mp4")
        pauses(tap, sys.argv[1], media, "/a1/cenc/1/t.mp4", "--segment-target", "0", "--output-buffers", "8")  # copied pieces
        undisturbed(tap, 0.5, grace_window, tap, sys.argv[1], media, paths)
    tap.end()


if __name__ == "__main__":
    main()
