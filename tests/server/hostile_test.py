#!/usr/bin/env python3
"""What hostile clients and changing files must not do: hostile_test.py SLUICE"""
import fcntl
import os
import pathlib
import random
import re
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
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if get("/ready", admin) == 200:
                    break
            except OSError:
                pass
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
            tap.equal(server.stop(), 0, "after that the server ends in good order")
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
