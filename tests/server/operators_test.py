#!/usr/bin/env python3
"""Who comes to the admin listener, by accident or in bad faith, and what answers say to browsers: operators_test.py SLUICE"""
import json
import pathlib
import re
import resource
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

FILE = "/a/cenc/1/t.mp4"


def rotation_by_a_page(tap, server):
    """Any page in an operator's browser can send this POST."""
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        s.sendall(b"POST /rotate?scope=&revoke=1 HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n")
        r = s.recv(4096)
        tap.ok(r.startswith(b"HTTP/1.1 403 "), "a page cannot rotate keys")
        tap.ok(b"Origin" in r.partition(b"\r\n\r\n")[2], "and is told why", r)
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        s.sendall(b"GET /live HTTP/1.1\r\n\r\n")
        tap.equal(s.recv(4096).partition(b"\r\n\r\n")[2], b"400 Bad Request\n", "admin: a refusal has its words")
    tap.equal(server.get(FILE).status, 200, "no key was revoked")


def rebound_names(tap, binary, media):
    """A page can have its own name lead to the admin listener: it must not read there what is no probe's."""
    with Server(binary, media, "--admin-hosts", "origin1.example, Origin1") as server:
        def asked(host, path, method="GET"):
            with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
                line = b"HTTP/1.0\r\n" if host is None else b"HTTP/1.1\r\nHost: " + host.encode() + b"\r\n"
                s.sendall(f"{method} {path} ".encode() + line + b"Connection: close\r\n\r\n")
                return b"".join(iter(lambda: s.recv(1 << 20), b""))

        for path in ("/", "/status", "/status?x=1", "/none"):
            for host in ("evil.example", f"evil.example:{server.admin_port}", "127.0.0.1.evil.example", "localhost.evil.example", "origin1.example.evil", "1"):
                r = asked(host, path)
                tap.ok(r.startswith(b"HTTP/1.1 403 ") and b"admin_hosts" in r and b'"state"' not in r, f"{path} as {host} is refused, and why", r)
            tap.ok(asked("a:b:1", path).startswith(b"HTTP/1.1 400 "), f"{path} as what is no host")
        tap.ok(asked("evil.example", "/status", "HEAD").startswith(b"HTTP/1.1 403 "), "HEAD too")
        for host in (None, "localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "10.1.2.3:9090", "[::1]", "[2001:db8::1]:9090", "origin1.example", "ORIGIN1.example:9090", "origin1"):
            tap.ok(b'"state"' in asked(host, "/status"), f"/status as {host}")
        for path in ("/live", "/ready", "/metrics"):
            tap.ok(asked("origin2.example:9090", path).startswith(b"HTTP/1.1 200 "), f"{path} by any name: probes have theirs")
        tap.ok(asked("origin2.example", "/rotate?scope=none/", "POST").startswith(b"HTTP/1.1 200 "), "orders are guarded by Origin and token")


def slow_operator(tap, server):
    """One who sends its request a byte at a time does not keep the admin listener from others for long."""
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        s.sendall(b"GET /live HTTP/1.1\r\nHost: h\r\nX: ")
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                s.sendall(b"y")
                time.sleep(0.5)
        except OSError:
            pass
        tap.ok(time.monotonic() < end, "cut off in time")
    tap.equal(server.admin("/live").status, 200, "the next one is answered")


def quiet_operators(tap, server):
    """Who says nothing, at once or after a request, keeps nobody waiting."""
    for what, first in (("nothing yet", b""), ("nothing more", b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n")):
        quiet = [socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) for _ in range(2)]
        for s in quiet[:1]:
            s.sendall(first)
            if first:
                s.recv(4096)
        time.sleep(0.1)
        begin = time.monotonic()
        tap.equal(server.admin("/ready").status, 200, f"an operator beside two who say {what}")
        tap.ok(time.monotonic() - begin < 2, "is answered soon", f"{time.monotonic() - begin:.1f} s")
        for s in quiet:
            s.close()


def many_operators(tap, server):
    """Crowds that begin requests and end none, or read no answer, keep an operator waiting for moments, not minutes."""
    # Below the 5 s that the listener gives a request. No less: a busy machine needs a while for the thousands of answers.
    half, ask = b"GET /live HT", b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"
    for what, num, first, limit in (("30 halves of a request", 30, half, 4), ("60 halves of a request", 60, half, 15), ("20 who read nothing", 20, ask * 200, 4)):
        crowd = []
        for _ in range(num):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.admin_port))
            s.setblocking(False)
            try:
                s.send(first)
            except BlockingIOError:
                pass
            crowd.append(s)
        time.sleep(0.1)
        begin = time.monotonic()
        tap.equal(server.admin("/ready").status, 200, f"an operator beside {what}")
        took = time.monotonic() - begin
        tap.ok(took < limit, f"{what}: is answered soon", f"{took:.1f} s")
        for s in crowd:
            s.close()
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s, s.makefile("rb") as f:
        for n in range(2):  # as Prometheus does between two scrapes
            s.sendall(b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n")
            status, length = f.readline(), 0
            while (line := f.readline()) not in (b"\r\n", b""):
                length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
            f.read(length)
            tap.ok(b" 200 " in status, f"a connection that is used again after six seconds, request {n + 1}", status)
            time.sleep(0 if n else 6)
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        s.sendall(b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n" * 500 + b"GET /live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + b"x" * 70000)
        got = b""
        while more := s.recv(65536):
            got += more
        tap.equal(got.count(b"HTTP/1.1 200 "), 501, "500 requests ahead, the last one ends: each is answered, and no reset destroys an answer")


def ticks(server):
    """The processor time that a server has used, in hundredths of a second."""
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def no_place_for_operators(tap, server):
    """Without a descriptor for them, operators wait and nothing spins; an order in chunks is refused, however long."""
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    for what, limit, idle in (("clients have them all", 64, 64), ("there are fewer than the listener polls", 20, 0)):
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(idle)]
        time.sleep(0.2)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
        crowd += [socket.create_connection(("127.0.0.1", server.port)) for _ in range(idle)]
        with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
            s.sendall(b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n")
            before, end = ticks(server), time.monotonic() + 3
            while time.monotonic() < end and ticks(server) - before < 50:
                time.sleep(0.1)
            used = ticks(server) - before
            tap.ok(used < 50, f"no descriptor for an operator, {what}: that costs no time", f"{used / 100} s of 3")
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            try:
                got = s.recv(100)
            except OSError as e:
                got = repr(e).encode()
            tap.ok(got.startswith(b"HTTP/1.1 200 "), "and who came is answered when there is one again", got)
        for one in crowd:
            one.close()
    for size in (10, 200000):
        with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
            s.sendall(b"POST /rotate?scope=none/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                s.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size))
                got = s.recv(100)
            except ConnectionError as e:
                got = repr(e).encode()
            tap.ok(got.startswith(b"HTTP/1.1 411 "), f"an order of {size} bytes in chunks: 411", got)


def operators_bodies(tap, server):
    """An order with a body, in one piece with its head or in several; and orders are carried out once."""
    head = b"POST /rotate?scope=none/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    for pieces in ([head + b"x=1"], [head, b"x=1"], [head + b"x", b"=1"], [head[:20], head[20:] + b"x=", b"1"]):
        with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
            begin, got = time.monotonic(), b""
            for p in pieces:
                s.sendall(p)
                time.sleep(0.05)
            while more := s.recv(4096):
                got += more
            tap.ok(got.startswith(b"HTTP/1.1 200 ") and time.monotonic() - begin < 2, f"a body in pieces of {[len(p) for p in pieces]}", got)

    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        s.sendall(head.replace(b": 3\r\n", b": 65537\r\n"))
        got = s.recv(100)
        tap.ok(got.startswith(b"HTTP/1.1 413 "), "a body of more than 64 KB is refused before it comes", got)

    def rotations():
        return sum(int(v) for v in re.findall(r"sluice_rotations_total\{[^ ]* (\d+)", server.admin("/metrics").body.decode()))
    before = rotations()
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=10) as s:
        begin, got = time.monotonic(), b""
        s.sendall(head.replace(b"Connection: close\r\n", b"") + b"x=1" + head + b"x=1")
        while more := s.recv(4096):
            got += more
        tap.ok(got.count(b"HTTP/1.1 200 ") == 2 and time.monotonic() - begin < 2, "two orders in one piece: two answers, and the end", got)
    tap.equal(rotations() - before, 2, "each carried out once")


def many_rotations(tap, binary, media):
    """More epochs than /status has room for: it says how many it leaves out."""
    num, memory = 800, pathlib.Path("/dev/shm")  # each is synced: on a disk that takes its time
    with tempfile.TemporaryDirectory(prefix="sluice-operators-", dir=memory if memory.is_dir() else None) as state, Server(binary, media, state=state) as server:
        with socket.create_connection(("127.0.0.1", server.admin_port), timeout=30) as s, s.makefile("rb") as f:
            for first in range(0, num, 20):
                s.sendall(b"".join(f"POST /rotate?scope={'%01' * 1000}{n:04} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for n in range(first, first + 20)))
                for n in range(first, first + 20):
                    status, length = f.readline(), 0
                    while (line := f.readline()) not in (b"\r\n", b""):
                        length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
                    f.read(length)
                    if b" 200 " not in status:
                        tap.ok(False, f"rotation {n}", status)
                        return
        r = server.admin("/status")
        state = json.loads(r.body) if r.status == 200 else {}
        told = len(state.get("epochs", [])), state.get("epochs_left_out", 0)
        tap.ok(told[0] > 600 and told[1] > 0 and sum(told) == num, "/status with more epochs than it has room for says how many it leaves out", (r.status, told))
        tap.equal(server.admin("/live").status, 200, "and the server lives")


def said_to_browsers(tap, server):
    """Whatever is answered: no other page may frame it, load it or have it taken for another type, and nothing is kept."""
    for method, path, status in (("GET", "/", 200), ("GET", "/status", 200), ("GET", "/metrics", 200), ("HEAD", "/", 200), ("GET", "/live", 200), ("GET", "/none", 404), ("PUT", "/", 405),
                                 ("POST", "/rotate", 400), ("GET", "/a b", 400)):
        r = server.admin(path, method)
        got = (r.status, *(r[name] for name in ("cache-control", "x-content-type-options", "content-security-policy", "cross-origin-resource-policy")))
        tap.equal(got, (status, "no-store", "nosniff", "frame-ancestors 'none'", "same-origin"), f"{method} {path}: what browsers are told")


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="sluice-operators-") as work:
        media = pathlib.Path(work) / "media"
        synth.one_track(media, 20)
        with Server(sys.argv[1], media) as server:
            said_to_browsers(tap, server)
            rotation_by_a_page(tap, server)
            slow_operator(tap, server)
            undisturbed(tap, 0.5, quiet_operators, tap, server)
            undisturbed(tap, 0.5, many_operators, tap, server)
            no_place_for_operators(tap, server)
            undisturbed(tap, 0.5, operators_bodies, tap, server)
            tap.equal(server.stop(), 0, "after all of them the server ends in good order")
        rebound_names(tap, sys.argv[1], media)
        many_rotations(tap, sys.argv[1], media)
    tap.end()


if __name__ == "__main__":
    main()
