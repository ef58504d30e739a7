#!/usr/bin/env python3
"""What an operator's accident or a hostile client must not do: hostile_test.py SLUICE"""
import fcntl
import json
import os
import pathlib
import random
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Client, Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402
from soak.checks import settled  # noqa: E402

FILE = "/a/cenc/1/t.mp4"


def refused_after_head(tap, server):
    """A refusal is a response of its own: with its body, whatever the request before it was."""
    c = server.client()
    c.socket.sendall(b"HEAD " + FILE.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    tap.equal(c.read(head=True).status, 200, "HEAD")
    c.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    r = c.read()
    tap.equal((r.status, r.body), (400, b"400 Bad Request\n"), "a refusal behind it has its body")
    c.close()


def raw_bytes_in_targets(tap, binary, work, media, io):
    """Bytes beyond ASCII that are not percent-encoded: refused, wherever the packet ends, and counted and logged with their target."""
    log = work / f"raw-{io}.log"
    names = ('sluice_errors_total{worker="0",reason="bad_request"}', 'sluice_requests_total{worker="0",method="other"}', 'sluice_responses_total{worker="0",class="4xx"}')
    with Server(binary, media, "--access-log", str(log), "--io", io, "--workers", "1") as server:
        for i, parts in enumerate(((b"GET /\xc3\xa4/cbcs/master.m3u8?a=b HTTP/1.1\r\nHost: x\r\n\r\n",), (b"HEAD /", b"\xff/x HTTP/1.1\r\nHost: x\r\n\r\n"))):
            c = server.client()
            init = len(c.get("/a/cbcs/1/t/init.mp4").body)
            for part in parts:
                c.socket.sendall(part)
                time.sleep(0.05)
            r = c.read(head=i == 1)
            tap.ok(r.status == 400 and r["connection"] == "close" and c.closed(), f"{io}: raw bytes in a target, {len(parts)} packets: 400, and the end", r)
            c.close()
        metrics = server.admin("/metrics").body.decode()
        counts = [float(line.rsplit(" ", 1)[1]) for name in names for line in metrics.splitlines() if line.startswith(name)]
        tap.equal(counts, [2.0, 2.0, 2.0], f"{io}: they are counted as bad requests")
        tap.equal(server.get("/a/cbcs/1/t/init.mp4").status, 200, f"{io}: others are served")
        server.stop()
    asked, good = [(line.split('"')[1] + line.split('"')[2]).rstrip() for line in log.read_text().splitlines()], f"GET /a/cbcs/1/t/init.mp4 HTTP/1.1 200 {init}"
    tap.equal(asked, [good, "GET /\\xc3\\xa4/cbcs/master.m3u8?a=b HTTP/1.1 400 16", good, "HEAD /\\xff/x HTTP/1.1 400 0", good],
              f"{io}: and logged with what they asked for, and what they were sent")


def sidecar_cut(tap, binary, media):
    """`cp` over a sidecar truncates the file that the server has open."""
    with Server(binary, media) as server:  # writes it
        server.get(FILE)
    sidecar = media / "a" / "t.mp4.slx"
    whole = sidecar.read_bytes()
    with Server(binary, media) as server:
        want = server.get(FILE).body

        def serves(what):
            try:
                tap.ok(server.get(FILE).body == want, what)
            except (EOFError, OSError) as e:
                tap.ok(False, what, repr(e))

        sidecar.write_bytes(b"")
        serves("the sidecar is truncated in place: served all the same")
        sidecar.write_bytes(bytes(len(whole)))
        serves("the sidecar is overwritten in place: served all the same")


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
            for host in ("evil.example", f"evil.example:{server.admin_port}", "127.0.0.1.evil.example", "localhost.evil.example", "origin1.example.evil", "1", "a:b:1"):
                r = asked(host, path)
                tap.ok(r.startswith(b"HTTP/1.1 403 ") and b"admin_hosts" in r and b'"state"' not in r, f"{path} as {host} is refused, and why", r)
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
    with tempfile.TemporaryDirectory(prefix="sluice-hostile-", dir=memory if memory.is_dir() else None) as state, Server(binary, media, state=state) as server:
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


def tickets_and_authorities(tap, binary, work, media):
    """Tickets from before client certificates were required do not stand in for one."""
    for name in ("server", "authority"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", f"/CN={name}.test", "-keyout", f"{work}/{name}.key", "-out", f"{work}/{name}.pem"],
                       check=True, capture_output=True)
    port = free_port()
    config = f"tls_listen: 127.0.0.1:{port}\ntls_certificate: {work}/server.pem\ntls_key: {work}/server.key\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def visit(session=None):
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), session=session) as s:
            s.sendall(b"HEAD " + FILE.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            return s.recv(4096)[:12], s.session_reused, s.session

    with Server(binary, media, config=config) as server:
        _, _, session = visit()
        status, resumed, session = visit(session)
        tap.equal((status, resumed), (b"HTTP/1.1 200", True), "a ticket resumes")
        (server.folder / "sluice.yaml").write_text(config + f"tls_client_ca: {work}/authority.pem\n")
        server.signal(signal.SIGHUP)
        tap.ok(server.wait_log("reloaded"), "reloaded with tls_client_ca")
        try:
            got = visit(session)[:2]
        except (ssl.SSLError, ConnectionError) as e:
            got = type(e).__name__
        tap.ok(isinstance(got, str), "the ticket from before is no certificate", got)


def other_samples(data):
    """The file with every byte of its samples changed."""
    out, at = bytearray(data), 0
    while at < len(out):
        n = int.from_bytes(out[at:at + 4], "big")
        if out[at + 4:at + 8] == b"mdat":
            out[at + 8:at + n] = bytes(b ^ 0x55 for b in out[at + 8:at + n])
        at += n
    return bytes(out)


def media_under_fire(tap, binary, work, io):
    """While it is read, a file is replaced, cut short, taken away and put back: what is answered whole is one state of it."""
    media = work / f"fire-{io}"
    (media / "a").mkdir(parents=True)
    file, states = media / "a" / "t.mp4", [synth.plain(400)[0], other_samples(synth.plain(390)[0])]
    path, want = "/a/clear/1/t.mp4", []
    for state in states:
        file.write_bytes(state)
        with Server(binary, media, "--clear", "--write-sidecars=false", "--segment-target", "0") as server:
            want.append(server.get(path).body)
    file.write_bytes(states[0])
    bad, seen, began = [], [0, 0, 0], time.monotonic()

    def goes_on():  # longer where a busy machine has not got to both states
        took = time.monotonic() - began
        return took < 3 or (took < 60 and not (seen[0] and seen[1]))

    def read(server, seed):
        r = random.Random(seed)
        while goes_on():
            first = r.randrange(len(want[0]) - 5000)
            headers = {"Range": f"bytes={first}-{first + 4999}"} if r.random() < 0.5 else {}
            try:
                got = server.get(path, headers=headers)
            except (EOFError, OSError):
                seen[2] += 1  # cut off: the client sees it
                continue
            if got.status in (200, 206):
                of = [w[first:first + 5000] if headers else w for w in want]
                which = of.index(got.body) if got.body in of else -1
                if which < 0:
                    bad.append(f"{got.status} {headers} {len(got.body)} bytes of no state")
                seen[which] += 1
            elif got.status not in (404, 416, 500, 503):
                bad.append(f"{got.status}")

    def disturb():
        r = random.Random(5)
        while goes_on():
            what = r.randrange(4)
            if what == 0:
                os.truncate(file, r.randrange(len(states[0]) // 2))
            elif what == 1:
                file.unlink()
            elif what == 2:
                file.write_bytes(states[1])  # in place: other bytes under the same descriptor
            time.sleep(r.random() * 0.03)
            fresh = file.with_suffix(".new")
            fresh.write_bytes(states[what % 2])
            fresh.rename(file)
            time.sleep(r.random() * 0.1)

    with Server(binary, media, "--clear", "--write-sidecars=false", "--io", io, "--revalidate", "10ms", "--negative-ttl", "0", "--cache-size", "4M",
                "--cache-encrypted", "off", "--segment-target", "0") as server:
        threads = [threading.Thread(target=read, args=(server, n)) for n in range(4)] + [threading.Thread(target=disturb)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        tap.ok(not bad, f"{io}: whole answers are of one state ({seen[0]} and {seen[1]} of them, {seen[2]} cut off)", "\n".join(bad[:5]))
        tap.ok(seen[0] and seen[1], f"{io}: both states were seen", seen)
        time.sleep(0.3)
        tap.ok(server.get(path).body in want, f"{io}: and it goes on serving")
        tap.equal(server.stop(), 0, f"{io}: and ends in good order")


RENAMER = """
import os, sys
a, b = sys.argv[1:]
open(a, "w").close()
while True:
    os.rename(a, b)
    os.rename(b, a)
"""


def rendered(server):
    return sum(int(v) for v in re.findall(r'sluice_rendered_bytes_total\{[^}]*scheme="cbcs"[^}]*\} (\d+)', server.admin("/metrics").body.decode()))


def buffers_used(server):
    return sum(int(v) for v in re.findall(r"sluice_buffers_used\{?[^ ]* (\d+)", server.admin("/metrics").body.decode()))


def stalled_and_steady(tap, binary, work, io):
    """Stalled readers take output buffers from each other: one that reads on keeps its own, and nothing is rendered twice for it."""
    media = work / f"steady-{io}"
    synth.one_track(media, 1500)
    with Server(binary, media, "--io", io, "--workers", "1", "--output-buffers", "8", "--stall-timeout", "60s", "--cache-encrypted", "off") as server:
        path = "/a/cbcs/1/t.mp4"
        whole = server.get(path).body
        stalled = []
        for _ in range(12):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            stalled.append(s)
        end, before, quiet = time.monotonic() + 20, -1, 0
        while (quiet < 5 or buffers_used(server) < 6) and time.monotonic() < end:  # until all twelve have been answered as far as it goes
            time.sleep(0.1)
            before, last = rendered(server), before
            quiet = quiet + 1 if before == last else 0
        tap.equal(buffers_used(server), 6, f"{io}: stalled readers hold buffers until a quarter is left")
        got = bytearray()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            s.settimeout(20)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            while piece := s.recv(65536):
                got += piece
                time.sleep(0.0005)
        again = rendered(server) - before - len(whole)
        tap.ok(bytes(got).endswith(whole), f"{io}: who reads on beside them gets all of it", len(got))
        tap.ok(again < len(whole) / 50, f"{io}: and nothing is rendered twice for it", f"{again} bytes more than {len(whole)}")
        for s in stalled:
            s.close()


def stalled_past_the_cache(tap, binary, work, io):
    """What is read past the cache for readers who stop does not take all of the memory for that."""
    media = work / f"aside-{io}"
    (media / "a").mkdir(parents=True)
    (media / "a" / "t.mp4").write_bytes(synth.FTYP + synth.moov() + synth.plain_fragment(1, synth.payloads([60000] * 65, 1), 0))
    with Server(binary, media, "--io", io, "--workers", "1", "--cache-size", "4M", "--cache-encrypted", "off", "--stall-timeout", "60s") as server:
        path = "/a/cbcs/1/t/1.m4s"
        want = server.get(path).body
        stalled, heads = [], []
        for _ in range(40):  # 3.9 MB each, of 128
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(20)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            heads.append(s.recv(12))
            stalled.append(s)
            time.sleep(0.05)
        tap.equal(set(heads), {b"HTTP/1.1 200"}, f"{io}: readers past the cache that stop")
        r = server.get(path)
        tap.ok((r.status, r.body) == (200, want), f"{io}: readers that stopped keep nobody from what is read past the cache", r)
        stalled[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        stalled[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for s in (stalled[0], stalled[-1]):  # with their bytes still there, and read again
            got = bytearray()
            while not got.endswith(want) and (piece := s.recv(1 << 16)):
                got += piece
            tap.ok(got.endswith(want), f"{io}: and get all of it when they read on", len(got))
        for s in stalled:
            s.close()

        def misses():
            return sum(int(n) for n in re.findall(r'cache="segment",result="miss"\} (\d+)', server.admin("/metrics").body.decode()))
        tap.ok(settled(lambda: 'sluice_connections{worker="0"} 0' in server.admin("/metrics").body.decode(), 20), f"{io}: all of them are gone")
        request, before = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode(), misses()
        steady, refused, cut, slowest = {}, 0, 0, 0.0
        for _ in range(24):
            s = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            s.sendall(request)
            steady[s] = bytearray()
        while any(late := [s for s, got in steady.items() if not got.endswith(want)]):
            began = time.monotonic()
            for s in late:
                piece = s.recv(1 << 15)
                steady[s] += piece
                if not piece:
                    steady[s], cut = want, cut + 1
                elif steady[s].startswith(b"HTTP/1.1 503") and b"\r\n\r\n" in steady[s]:  # what the others held is not back yet
                    steady[s], refused = bytearray(), refused + 1
                    s.sendall(request)
            slowest = max(slowest, time.monotonic() - began)
        again = misses() - before - len(steady) - refused
        tap.equal(cut, 0, f"{io}: who reads on, slowly, gets all of it")
        if slowest > 0.2:  # a reader that is kept from its CPU has stopped
            tap.note(f"{io}: readers paused for {slowest:.2f} s: how often is read again is not judged")
        tap.ok(again <= 2 * len(steady) or slowest > 0.2, f"{io}: what it reads is not read again for each full socket", (again, slowest))
        for s in steady:
            s.close()


def folder_of_folders(tap, binary, work):
    """Anybody may ask for the manifest of a folder of assets: not all of it is looked into."""
    media, track = work / "folders", synth.plain(2)[0]
    for n in range(1100):
        (media / "all" / f"f{n:04}").mkdir(parents=True)
    for name in ("f0000", "f1050", "z"):  # folders of parts, before and behind the 1,024th that is none
        (media / "all" / name).mkdir(exist_ok=True)
        (media / "all" / name / "init.mp4").write_bytes(track)
    for name in ("f0001", "zz"):
        (media / "all" / f"{name}.mp4").write_bytes(track)
    with Server(binary, media) as server:
        r = server.get("/all/cbcs/1/zz/media.m3u8"), server.get("/all/cbcs/manifest.mpd")
        ids = re.findall(r'Representation id="([^"]*)"', r[1].body.decode())
        tap.equal(([x.status for x in r], sorted(ids)), ([200, 200], ["f0000", "f0001", "zz"]), "a folder of 1,100 others: its tracks, as far as it is looked into")
        tap.ok(server.wait_log("warn all: 1024 folders, or files, in it are no tracks"), "and a line says so", server.log())
        tap.ok("name of another" not in "\n".join(server.log()), "a folder of others beside a track of its name is none", server.log())
        tap.equal(server.get("/all/cbcs/1/z/init.mp4").status, 200, "what is not listed is served")


def renames_elsewhere(tap, binary, work):
    """With `..` in a link, a rename anywhere on the machine makes the kernel's bounded lookup answer EAGAIN."""
    media, links = work / "linked", 400
    (media / "real").mkdir(parents=True)
    (media / "real" / "t.mp4").write_bytes(synth.plain(3)[0])
    (media / "x").mkdir()
    for n in range(links):
        (media / "x" / str(n)).symlink_to("../real")
    busy = subprocess.Popen([sys.executable, "-c", RENAMER, work / "renamed-a", work / "renamed-b"])
    try:
        with Server(binary, media, "--write-sidecars=false") as server:
            got = [server.get(f"/x/{n}/cenc/1/t/init.mp4").status for n in range(links)]
    finally:
        busy.kill()
        busy.wait()
    tap.equal(got.count(200), links, "linked assets are found while files are renamed elsewhere")


def log_unread(tap, binary, work):
    """Standard error is a pipe that nobody reads, as behind a log driver that hangs."""
    media = work / "unread"
    for n in range(300):
        (media / f"broken{n}").mkdir(parents=True)
        (media / f"broken{n}" / "t.mp4").write_bytes(b"\0\0\0\x08free" * 8)  # each is worth a warning
    (media / "a").mkdir()
    (media / "a" / "t.mp4").write_bytes(synth.plain(20)[0])
    out, pipe = os.pipe()
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 16384)
    port, admin = free_port(), free_port()
    p = subprocess.Popen([binary, "serve", "--media", media, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--state-dir", work / "unread-state",
                          "--workers", "1"], stdin=subprocess.DEVNULL, stderr=pipe)
    os.close(pipe)

    def get(path, at=port):
        c = Client(at, timeout=20)
        try:
            return c.get(path).status
        finally:
            c.close()

    try:
        for _ in range(200):
            try:
                if get("/ready", admin) == 200:
                    break
            except OSError:
                time.sleep(0.05)
        start = time.monotonic()
        broken = [get(f"/broken{n}/cbcs/1/t/init.mp4") for n in range(300)]
        c = Client(admin, timeout=20)
        lost = sum(int(n) for n in re.findall(r"^sluice_log_lost_total\{[^}]*\} (\d+)", c.get("/metrics").body.decode(), re.M))
        tap.ok(lost > 0, "lines that nobody takes are counted", lost)
        c.close()
        p.send_signal(signal.SIGHUP)
        tap.equal([get("/a/cbcs/1/t/init.mp4"), get("/live", admin)], [200, 200], "with a log that nobody reads, media are served")
        p.send_signal(signal.SIGTERM)
        tap.equal(p.wait(60), 0, "and the end comes in good order")
        tap.ok(time.monotonic() - start < 40, "without waiting for the log", f"{time.monotonic() - start:.1f} s")
        tap.ok(all(s != 200 for s in broken), "files that are no media are refused", broken)
        held = len(os.read(out, 1 << 20))
        tap.ok(held > 10000, "the log had filled its pipe", held)
    finally:
        p.kill()
        p.wait()
        os.close(out)


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="sluice-hostile-") as work:
        media = pathlib.Path(work) / "media"
        synth.one_track(media, 20)
        with Server(sys.argv[1], media) as server:
            refused_after_head(tap, server)
            rotation_by_a_page(tap, server)
            slow_operator(tap, server)
            quiet_operators(tap, server)
            many_operators(tap, server)
            no_place_for_operators(tap, server)
            operators_bodies(tap, server)
            tap.equal(server.stop(), 0, "after all of them the server ends in good order")
        rebound_names(tap, sys.argv[1], media)
        many_rotations(tap, sys.argv[1], media)
        sidecar_cut(tap, sys.argv[1], media)
        renames_elsewhere(tap, sys.argv[1], pathlib.Path(work))
        log_unread(tap, sys.argv[1], pathlib.Path(work))
        folder_of_folders(tap, sys.argv[1], pathlib.Path(work))
        for io in ("auto", "epoll"):
            raw_bytes_in_targets(tap, sys.argv[1], pathlib.Path(work), media, io)
            media_under_fire(tap, sys.argv[1], pathlib.Path(work), io)
            stalled_and_steady(tap, sys.argv[1], pathlib.Path(work), io)
            stalled_past_the_cache(tap, sys.argv[1], pathlib.Path(work), io)
        tickets_and_authorities(tap, sys.argv[1], pathlib.Path(work), media)
    tap.end()


if __name__ == "__main__":
    main()
