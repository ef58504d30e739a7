#!/usr/bin/env python3
"""The HTTP client against servers that behave and servers that do not: client.py FETCH BACKEND"""
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.certs import Authority
from judge.listening import Listening
from judge.ports import free_port
from judge.tap import Tap

tap = Tap()
FETCH, BACKEND = sys.argv[1:3]
BODY = bytes(i * 7 % 251 for i in range(300_000))


def digest(data):
    h = 5381
    for b in data:
        h = (h * 33 + b) & (2**64 - 1)
    return f"{h:016x}"


class Server(Listening):
    """Accepts connections; `serve(connection)` does as it likes. `tls`: an SSLContext."""

    def __init__(self, serve, tls=None, **more):
        self.serve, self.tls, self.errors, self.ended = serve, tls, [], 0
        super().__init__(**more)

    def handle(self, s):
        try:
            if self.tls:
                s = self.tls.wrap_socket(s, server_side=True, suppress_ragged_eofs=False)
            self.serve(s)
        except OSError as e:
            self.errors.append(str(e))
        finally:
            s.close()
            self.ended += 1

    def said(self, num=1):
        """What went wrong with its connections, when so many are over."""
        end = time.monotonic() + 10
        while self.ended < num and time.monotonic() < end:
            time.sleep(0.01)
        return self.errors if self.ended >= num else [f"{self.ended} of {num} have ended"]


def requests(s):
    """The request heads that arrive, their bodies read; ends with the connection."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        want = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        while len(data) < want:
            more = s.recv(65536)
            if not more:
                return
            data += more
        yield head, data[:want]
        data = data[want:]


def answer(body, extra=""):
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def good(s):
    for _, body in requests(s):
        s.sendall(answer(body or BODY))


def fetch(port, ca, *more, host="localhost", paths=("/a",)):
    p = subprocess.run([FETCH, BACKEND, host, str(port), str(ca), *more, *paths], capture_output=True, text=True, timeout=30)
    lines = p.stdout.splitlines()
    tap.ok(p.returncode in (0, 1) and (lines[-1:] == ["idle 1"] or lines[0].startswith("setup")), "the client ends in order",
           f"{p.returncode} {p.stdout} {p.stderr}")
    return [tuple(line.split(" ", 5)) for line in lines if not line.startswith("idle")]


def context(cert, client_ca=None, version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*cert)
    c.set_alpn_protocols(["http/1.1"])
    if version:
        c.minimum_version = c.maximum_version = version
    if client_ca:
        c.verify_mode = ssl.CERT_REQUIRED
        c.load_verify_locations(client_ca)
    return c


def check(got, end, text, name):
    tap.ok(len(got) == 1 and got[0][0] == end and text in got[0][5], name, got)


with tempfile.TemporaryDirectory() as folder:
    ours, other = Authority(folder + "/ours"), Authority(folder + "/other", "other")
    cert = ours.issue("server")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        srv = Server(good, context(cert, version=version))
        got = fetch(srv.port, ours.ca, paths=("/a", "/b", "/c"))
        tap.equal([g[:5] for g in got], [("ok", "200", str(len(BODY)), str(int(i > 0)), digest(BODY)) for i in range(3)],
                  f"{version.name}: three requests over one connection")
        tap.equal((srv.connections, srv.said()), (1, []), "one connection it was, whose end is said")
        post = bytes(1_500_000)
        got = fetch(srv.port, ours.ca, f"body={len(post)}", host="127.0.0.1")
        tap.equal([g[:5] for g in got], [("ok", "200", str(len(post)), "0", digest(post))], "a long body there and back, by address")
        before = len(srv.said(2))
        check(fetch(srv.port, other.ca), "tls", "certificate is refused: unable to get", "another authority's certificate")
        errors = srv.said(3)[before:]
        tap.ok(len(errors) == 1 and "alert unknown ca" in errors[0], "which the server is told", errors)
        check(fetch(srv.port, "system"), "tls", "certificate is refused", "not one of the system's authorities")
        check(fetch(srv.port, "none"), "ok", "", "believing anybody")
        srv.close()
    srv = Server(good, context(ours.issue("elsewhere", "DNS:elsewhere.test")))
    check(fetch(srv.port, ours.ca), "tls", "ostname mismatch", "a certificate of another name")
    check(fetch(srv.port, ours.ca, host="127.0.0.1"), "tls", "IP address mismatch", "a certificate without the address")
    names, protocols = [], []

    def asks(s):
        protocols.append(s.selected_alpn_protocol())
        good(s)

    listens = context(ours.issue("asked", "DNS:localhost,IP:127.0.0.1,IP:::1"))
    listens.sni_callback = lambda s, name, c: names.append(name)
    for host in ("localhost", "127.0.0.1", "::1"):
        try:
            srv = Server(asks, listens, at=("::1" if host == "::1" else "127.0.0.1", 0))
        except OSError as e:
            tap.skip("a server at ::1", f"no IPv6 here: {e}")
            continue
        check(fetch(srv.port, ours.ca, host=host), "ok", "", f"a server at {host}")
        tap.equal((names, protocols), ([host if host == "localhost" else None], ["http/1.1"]), f"{host}: the name is asked for, no address, and HTTP/1.1")
        names.clear()
        protocols.clear()
    srv = Server(good, context(ours.issue("late", days=0)))
    time.sleep(1.1)
    check(fetch(srv.port, ours.ca), "tls", "expired", "an expired certificate")
    # P-521 in TLS 1.2 wants the curve among our groups, where it is not
    ed, p521 = ours.issue("ed25519", kind=("ed25519",)), ours.issue("p521", kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-521"))
    for version, kind in ((ssl.TLSVersion.TLSv1_2, ed), (ssl.TLSVersion.TLSv1_3, ed), (ssl.TLSVersion.TLSv1_3, p521)):
        check(fetch(Server(good, context(kind, version=version)).port, ours.ca), "ok", "", f"{version.name}: a server with {kind[0].rpartition('/')[2]}")
    crt, key = ours.issue("rsa", kind=("rsa:2048",))
    weak = "DEFAULT@SECLEVEL=0"
    for more, end in ((("-tls1_2", "-sigalgs", "RSA+SHA256", "-cipher", weak), "ok"), (("-tls1_2", "-sigalgs", "RSA+SHA1", "-cipher", weak), "tls"),
                      (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "ok"), (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"), "tls"),
                      (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), "tls"), (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "tls")):
        port = free_port()
        p = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", crt, "-key", key, *more, "-www"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while b"ACCEPT" not in (p.stdout.readline() or b"ACCEPT"):
            pass
        try:
            check(fetch(port, ours.ca), end, "", f"a server with {' '.join(more)} alone")
        finally:
            p.kill()
            p.communicate()
    mutual = Server(good, context(cert, ours.ca))
    crt, key = ours.issue("client")
    check(fetch(mutual.port, ours.ca, f"cert={crt}", f"key={key}"), "ok", "", "mutual TLS")
    check(fetch(mutual.port, ours.ca), "tls", "CERTIFICATE", "mutual TLS without our certificate")
    crt, key = other.issue("client")
    check(fetch(mutual.port, ours.ca, f"cert={crt}", f"key={key}"), "tls", "ALERT", "mutual TLS with a foreign certificate")
    check(fetch(mutual.port, ours.ca, f"cert={crt}", f"key={folder}/ours/server.key"), "setup", "client key", "a key that is not the certificate's")
    check(fetch(mutual.port, folder + "/none.pem"), "setup", "none.pem", "no such file of authorities")

    # Who only half behaves. Plain and TLS.
    def cut(s):
        for _ in requests(s):
            s.sendall(answer(BODY)[:5000])
            return

    def to_the_end(s):
        for _ in requests(s):
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
            s.close() if not isinstance(s, ssl.SSLSocket) else s.unwrap()
            return

    def to_the_end_unsaid(s):
        for _ in requests(s):
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
            return

    def silent(s):
        for _ in requests(s):
            time.sleep(5)

    def trickle(s):
        for _ in requests(s):
            for b in answer(b"x" * 100):
                s.sendall(bytes([b]))
                time.sleep(0.05)

    def junk(s):
        for _ in requests(s):
            s.sendall(b"220 mail.test ESMTP\r\n")
            time.sleep(1)

    def once(s):
        for _ in requests(s):
            s.sendall(answer(b"once"))
            return

    def closing(s):
        for _ in requests(s):
            s.sendall(answer(b"bye", "Connection: close\r\n"))

    def stuffing(s):
        for head, _ in requests(s):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # in one segment; over TLS in two records
            s.sendall(answer(head.split()[1]))
            s.sendall(answer(b"forged"))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def stuffing_at_once(s):
        for head, _ in requests(s):
            s.sendall(answer(head.split()[1]) + answer(b"forged"))

    for tls in (None, context(cert)):
        kind, ca = ("TLS", ours.ca) if tls else ("plain", "plain")
        check(fetch(Server(cut, tls).port, ca), "cut", "", f"{kind}: cut off")
        check(fetch(Server(silent, tls).port, ca, "first=300"), "timeout", "no answer within 300 ms", f"{kind}: silence")
        check(fetch(Server(silent, tls).port, ca, "total=300"), "timeout", "within 300 ms", f"{kind}: silence, the whole bounded")
        check(fetch(Server(trickle, tls).port, ca, "first=2500", "total=3000"), "timeout", "no whole answer within 3000 ms", f"{kind}: a trickle")
        check(fetch(Server(junk, tls).port, ca), "bad", "not HTTP", f"{kind}: not HTTP")
        check(fetch(Server(good, tls).port, ca, "max=1000"), "limit", "too long", f"{kind}: too long")
        got = fetch(Server(to_the_end, tls).port, ca)
        tap.equal([g[:3] for g in got], [("ok", "200", str(len(BODY)))], f"{kind}: a body to the connection's end")
        if tls:
            check(fetch(Server(to_the_end_unsaid, tls).port, ca), "cut", "", "TLS: the same without close_notify may be cut")
        srv = Server(closing, tls)
        tap.equal([g[0] for g in fetch(srv.port, ca, paths=("/a", "/b", "/c"))], ["ok"] * 3, f"{kind}: Connection: close, three times")
        tap.equal(srv.connections, 3, "three connections")
        for serve in (stuffing, stuffing_at_once):
            srv = Server(serve, tls)
            tap.equal([(g[0], g[4]) for g in fetch(srv.port, ca, paths=("/a", "/b", "/c"))], [("ok", digest(p)) for p in (b"/a", b"/b", b"/c")],
                      f"{kind}, {serve.__name__}: what comes behind an answer is not the next one's")
            tap.equal(srv.connections, 3, "three connections")
        got = fetch(Server(once, tls).port, ca, paths=("/a", "/b"))
        tap.ok(got[0][0] == "ok" and got[1][0] in ("ok", "cut"), f"{kind}: the server goes after one answer", got)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        check(fetch(port, ours.ca, "tls=300"), "timeout", "no TLS within 300 ms", "a listener that never answers")
    check(fetch(port, ours.ca), "connect", "refused", "nobody listens")
    got = fetch(port, ours.ca, host="255.255.255.255", paths=("/a", "/b"))  # connect() itself says so
    tap.equal([(g[0], g[5]) for g in got], 2 * [("connect", "Network is unreachable")], "an address that no connection can lead to, twice")
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    held = [socket.socket() for _ in range(4)]
    for h in held:
        h.setblocking(False)
        h.connect_ex(full.getsockname())
    check(fetch(full.getsockname()[1], ours.ca, "connect=300", host="127.0.0.1"), "timeout", "no connection within 300 ms", "a full backlog")
    # a label longer than DNS has: refused by the resolver itself, however slow the network's name servers are
    got = subprocess.run([FETCH, BACKEND, "n" * 64 + ".invalid", "1", "plain", "/a"], capture_output=True, text=True, timeout=60).stdout
    tap.ok(got.startswith("resolve"), "a name that does not exist", got)
    check(fetch(Server(lambda s: s.sendall(b"plain text, no TLS at all\n"), None).port, ours.ca), "tls", "", "no TLS on the other side")
tap.end()
