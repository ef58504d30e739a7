#!/usr/bin/env python3
"""What clients see of the workers, through tests/net/fixture. Usage: transport.py FIXTURE io_uring|epoll [tls] [CASE...]
Prints TAP. With `tls` the same cases run over TLS, and those of TLS itself; with `ktls` some of them,
over the fixture in which the kernel seals records."""
import array
import http.client
import os
import random
import re
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

FIXTURE, BACKEND = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
KTLS = sys.argv[3:4] == ["ktls"]  # the fixture has a kernel's TLS, played at the socket calls
TLS = KTLS or sys.argv[3:4] == ["tls"]
random.seed(20)


def words(first, length):
    """Output bytes [first, first + length) of any track."""
    a, b = first // 4, (first + length + 3) // 4
    return array.array("I", range(a, b)).tobytes()[first - 4 * a:][:length]


def make_certificate(folder, name, kind):
    key = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                    f"subjectAltName=DNS:{name},DNS:*.{name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"],
                   check=True, capture_output=True)


CERTS = tempfile.TemporaryDirectory()
if TLS:
    make_certificate(CERTS.name, "one.test", "ec")
    make_certificate(CERTS.name, "two.test", "rsa")


def client_context():
    c = ssl.create_default_context(cafile=f"{CERTS.name}/one.test.pem")
    c.load_verify_locations(f"{CERTS.name}/two.test.pem")
    c.set_alpn_protocols(["http/1.1"])
    return c


class TlsClient(http.client.HTTPConnection):
    def __init__(self, server):
        super().__init__("one.test", timeout=20)
        self.server = server

    def connect(self):
        self.sock = self.server.dial()


class Server:
    def __init__(self, *options):
        listen = ["--listen", "127.0.0.1:0"]
        if TLS:
            listen += ["--tls-listen", "127.0.0.1:0"]
            for n in ("one.test", "two.test"):
                listen += ["--tls-certificates", f"{CERTS.name}/{n}.pem:{CERTS.name}/{n}.key"]
        self.proc = subprocess.Popen([FIXTURE, "--media", "/", "--workers", "2", "--io", BACKEND, *listen, *options],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE if KTLS else None, text=True)
        self.handed_over = self.sent_files = 0
        *ports, self.io = self.proc.stdout.readline().split()
        self.plain_port, self.port = int(ports[0]), int(ports[-1])
        self.context = client_context() if TLS else None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.proc.kill()
        else:
            self.stop()

    def stop(self):
        self.proc.terminate()
        out, err = self.proc.communicate(timeout=20)
        if KTLS:
            self.handed_over, self.sent_files = (int(n) for n in re.search(r"ktls: (\d+) connections handed over, (\d+) calls", err).groups())
        expect(self.proc.returncode, 0)
        left, counted = out.splitlines()
        expect(left, "left: 0 buffers, 0 connections, 0 holds")
        self.overloads, self.failed = (int(n) for n in re.search(r"(\d+) overload, (\d+) 5xx", counted).groups())

    def dial(self, **kw):
        s = socket.socket()
        if "rcvbuf" in kw:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kw["rcvbuf"])
        s.settimeout(20)
        s.connect(("127.0.0.1", self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(s, server_hostname="one.test") if TLS and not kw.get("raw") else s

    def client(self):
        if TLS:
            return TlsClient(self)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def rss_kb(self):
        with open(f"/proc/{self.proc.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def expect(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}: {str(got)[:300]!r} is not {str(want)[:300]!r}")


def ask(c, path, method="GET", body=None, **headers):
    c.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    r = c.getresponse()
    return r, r.read()


def segment_path(asset, size, n, count=100):
    return f"/{asset}/cbcs/1/s{size}x{count}/{n}.m4s"


def get_bytes(path, extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n{extra}\r\n".encode()


class Reader:
    """Responses from a raw socket."""

    def __init__(self, s):
        self.s, self.buf = s, b""

    def more(self):
        got = self.s.recv(1 << 20)
        if not got:
            raise EOFError
        self.buf += got

    def response(self, head_only=False):
        while b"\r\n\r\n" not in self.buf:
            self.more()
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (x.split(": ", 1) for x in lines[1:])}
        status = int(lines[0].split()[1])
        n = 0 if head_only or status in (204, 304, 100) else int(headers["content-length"])
        parts, have = [self.buf], len(self.buf)
        while have < n:
            got = self.s.recv(1 << 20)
            if not got:
                raise EOFError
            parts.append(got)
            have += len(got)
        data = b"".join(parts)
        self.buf = data[n:]
        return status, headers, data[:n]


def whole_bodies_and_heads():
    with Server() as srv:
        c = srv.client()
        expect(srv.io, BACKEND)
        for asset in ("now", "later"):
            for size, n in ((1, 1), (1000, 7), (32768, 3), (189000, 5), (700001, 2)):
                r, body = ask(c, segment_path(asset, size, n))
                expect(r.status, 200)
                expect(body, words((n - 1) * size, size), f"{asset} {size}")
                h, none = ask(c, segment_path(asset, size, n), "HEAD")
                expect(none, b"")
                drop_date = lambda r: [x for x in r.getheaders() if x[0] != "Date"]
                expect(drop_date(h), drop_date(r))
            r, body = ask(c, f"/{asset}/cbcs/master.m3u8")
            expect((r.status, body, r.getheader("Cache-Control")), (200, b"#EXTM3U of no track\n", "public, max-age=5"))
        r, _ = ask(c, segment_path("now", 1, 1) + "?any=thing&x")
        expect((r.status, r.getheader("Cache-Control")), (200, "public, max-age=31536000, immutable"))
        r, _ = ask(c, f"http://other{segment_path('now', 1, 1)}")
        expect(r.status, 200)
        r, _ = ask(c, "/n%6Fw/cbcs/1/s%31x5/1.m4s")
        expect(r.status, 200)


def requests_cut_at_every_byte():
    with Server() as srv:
        s = srv.dial()
        reader = Reader(s)
        one = get_bytes(segment_path("now", 10, 2), "Range: bytes=1-3\r\n")
        two = get_bytes(segment_path("later", 50, 4))
        stream = one + two + one
        for cut in range(len(stream)):
            s.sendall(stream[:cut])
            time.sleep(0.0005)
            s.sendall(stream[cut:])
            for want in (words(11, 3), words(150, 50), words(11, 3)):
                expect(reader.response()[2], want, f"cut at {cut}")


class TwoWays:
    """A socket that one thread writes and another reads: OpenSSL's connections are for one thread at a time."""
    def __init__(self, s):
        self.s, self.lock = s, threading.Lock()
        s.setblocking(False)

    def _do(self, what):
        while True:
            with self.lock:
                try:
                    return what()
                except (BlockingIOError, ssl.SSLWantReadError):
                    wait = [self.s], []
                except ssl.SSLWantWriteError:
                    wait = [], [self.s]
            if not any(select.select(*wait, [], 0.002 if wait[0] else 0.05)):
                pass  # the other thread may have taken what came: look again

    def recv(self, n):
        return self._do(lambda: self.s.recv(n))

    def sendall(self, data):
        while data:
            data = data[self._do(lambda: self.s.send(data[:16384])):]


def pipelined_requests_come_back_in_order():
    with Server() as srv:
        for asset, sizes, num in (("now", (1, 100, 5000), 1500), ("later", (1, 3000), 100), ("now", (300000, 10), 60)):
            s = TwoWays(srv.dial())
            plan = [(random.choice(sizes), random.randrange(1, 100)) for _ in range(num)]
            text = b"".join(get_bytes(segment_path(asset, size, n)) for size, n in plan)
            sender = threading.Thread(target=s.sendall, args=(text,))
            sender.start()
            reader = Reader(s)
            for i, (size, n) in enumerate(plan):
                if i % 20 == 0:
                    time.sleep(0.002)
                status, _, body = reader.response()
                expect((status, body), (200, words((n - 1) * size, size)), f"{asset} number {i}")
            sender.join()
            s.s.close()


def random_ranges_are_slices():
    with Server() as srv:
        c = srv.client()
        for asset, size, count, tries in (("now", 10007, 50, 400), ("later", 9999, 20, 100), ("now", 400000, 30, 60)):
            total = size * count
            path = f"/{asset}/cenc/1/s{size}x{count}.mp4"
            for _ in range(tries):
                a = random.randrange(total)
                b = min(total - 1, a + int(random.expovariate(1 / (3 * size))))
                r, body = ask(c, path, Range=f"bytes={a}-{b}")
                expect((r.status, r.getheader("Content-Range")), (206, f"bytes {a}-{b}/{total}"))
                expect(body, words(a, b - a + 1))
            r, body = ask(c, path, Range=f"bytes=5-9,{size - 3}-{2 * size + 3},-7")
            boundary = r.getheader("Content-Type").split("boundary=")[1]
            parts = body.split(b"\r\n--" + boundary.encode())
            expect((r.status, parts[0], parts[-1]), (206, b"", b"--\r\n"))
            for part, (a, n) in zip(parts[1:-1], ((5, 5), (size - 3, size + 7), (total - 7, 7))):
                head, data = part.split(b"\r\n\r\n", 1)
                expect(data, words(a, n))
                expect(f"Content-Range: bytes {a}-{a + n - 1}/{total}".encode() in head, True)
            r, _ = ask(c, path, "HEAD", Range="bytes=5-9,20-30")
            expect((r.status, r.getheader("Content-Length")), (200, str(total)))
            r, body = ask(c, path, Range=f"bytes={total}-")
            expect((r.status, r.getheader("Content-Range"), body), (416, f"bytes */{total}", b""))
            r, body = ask(c, path, Range="bytes=3-1")
            expect((r.status, len(body)), (200, total))


def preconditions():
    with Server() as srv:
        c = srv.client()
        path = segment_path("now", 100, 3)
        tag = ask(c, path)[0].getheader("ETag")
        expect(tag, '"0123456789abcdef-3"')
        for headers, status, size in (
                ({"If_None_Match": tag}, 304, 0), ({"If_None_Match": f'"x", W/{tag}'}, 304, 0), ({"If_None_Match": "*"}, 304, 0),
                ({"If_None_Match": '"x"'}, 200, 100), ({"If_Match": tag}, 200, 100), ({"If_Match": '"x"'}, 412, None),
                ({"If_Range": tag, "Range": "bytes=1-2"}, 206, 2), ({"If_Range": '"x"', "Range": "bytes=1-2"}, 200, 100),
                ({"If_Range": f"W/{tag}", "Range": "bytes=1-2"}, 200, 100),
                ({"If_Range": "Sun, 06 Nov 1994 08:49:37 GMT", "Range": "bytes=1-2"}, 200, 100),
                ({"If_None_Match": tag, "Range": "bytes=1-2"}, 304, 0), ({"If_Modified_Since": "Sun, 06 Nov 2094 08:49:37 GMT"}, 200, 100)):
            r, body = ask(c, path, **headers)
            expect(r.status, status, headers)
            if size is not None:
                expect(len(body), size, headers)
            if status == 304:
                expect(r.getheader("ETag"), tag)


def refusals():
    with Server() as srv:
        c = srv.client()
        for path, status in (("/", 404), ("/nope/x", 404), ("/403/cbcs/1/t/1.m4s", 403), ("/410/cbcs/1/t/1.m4s", 410),
                             ("/451/cbcs/1/t/1.m4s", 451), ("/503/cbcs/1/t/1.m4s", 503), ("/500/cbcs/1/t/1.m4s", 500),
                             (segment_path("now", 5, 101), 404), ("/later/cbcs/1/t/1.m4s", 404), ("/%zz", 400), ("/%", 400),
                             ("/..%2fnow/cbcs/1/s1x1/1.m4s", 404),
                             ("/now%2Fcbcs/1/s1x1/1.m4s", 404), ("/now/cbcs/1%2fs1x1/1.m4s", 404), ("/now/cbcs/1/s1x1%2F1.m4s", 404),
                             ("/%2Fnow/cbcs/1/s1x1/1.m4s", 404), ("/now/cbcs/1/s1x1/1.m4s?a=%2F", 200), ("/now/../now/cbcs/1/s1x1/1.m4s", 404),
                             ("/now/cbcs/1/s1x1%00/1.m4s", 404), ("/" + "a" * 1100, 404), ("/" + "%61" * 1100, 404),
                             (segment_path("now", 5, 1) + "?" + "q" * 7900, 200)):
            r, body = ask(c, path)
            expect(r.status, status, path)
            expect(len(body) > 0, True)
            if status == 503:
                expect(r.getheader("Retry-After"), "1")
        for method in ("PUT", "DELETE", "POST", "PATCH"):
            r, _ = ask(c, segment_path("now", 5, 1), method, body=b"x" * 10)
            expect((r.status, r.getheader("Allow")), (405, "GET, HEAD, OPTIONS"))
        r, body = ask(c, segment_path("now", 5, 1), "OPTIONS", Origin="http://x", Access_Control_Request_Method="GET")
        expect((r.status, r.getheader("Access-Control-Allow-Origin"), body), (204, "*", b""))
        for text, status in ((b"GET / HTTP/1.1\r\n\r\n", 400), (b"\x00\x01\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", 400),
                             (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
                             (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414), (b"GET / HTTP/2.5\r\nHost: h\r\n\r\n", 505),
                             (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16384 + b"\r\n\r\n", 431),
                             (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400)):
            s = srv.dial()
            s.sendall(text + b"more that nobody reads")
            status_got, headers, _ = Reader(s).response()
            expect((status_got, headers["connection"]), (status, "close"), text[:60])
            s.settimeout(5)
            while s.recv(1000):
                pass
        for text, status in ((b"/" + b"a" * 8192 + b" HTTP/1.1\r\nHost: h", 414), (b"now HTTP/1.1\r\nHost: h", 400),
                             (b"/ HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16384, 431), (b"/ HTTP/1.1", 400), (b"/ HTTP/2.5\r\nHost: h", 505)):
            s = srv.dial()  # what is refused is HEAD all the same: no body
            s.sendall(b"HEAD " + text + b"\r\n\r\n")
            s.settimeout(5)
            said = b""
            while more := s.recv(1000):
                said += more
            expect((said.split(b" ")[1], said.partition(b"\r\n\r\n")[2]), (str(status).encode(), b""), text[:40])


def bodies_of_requests():
    with Server() as srv:
        c = srv.client()
        r, body = ask(c, "/now/cbcs/1/license", "POST", body=b"k" * 9000)
        expect((r.status, body, r.getheader("Cache-Control")), (200, b"licence for 9000", "no-store"))
        expect(ask(c, "/now/cbcs/1/license")[0].status, 405)
        expect(ask(c, segment_path("now", 5, 1), body=b"x" * 5000)[1], words(0, 5))
        expect(ask(c, segment_path("now", 5, 2))[1], words(5, 5))
        s = srv.dial()
        reader = Reader(s)
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        expect(reader.response()[0], 100)
        s.sendall(b"abcd" + get_bytes(segment_path("now", 5, 1)))
        expect(reader.response()[2], b"licence for 4")
        expect(reader.response()[2], words(0, 5))
        for version, field, interim in (("1.1", "100-Continue", True), ("1.1", "banana", False), ("1.1", "100-continue, banana", False), ("1.0", "100-continue", False)):
            s.sendall(f"POST /now/cbcs/1/license HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 4\r\nExpect: {field}\r\n\r\n".encode())
            time.sleep(0.05)
            s.sendall(b"abcd")
            if interim:
                expect(reader.response()[0], 100)
            expect(reader.response()[::2], (200, b"licence for 4"), f"HTTP/{version} that expects {field}")
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        expect(reader.response()[0], 411)
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n")
        expect(reader.response()[0], 413)


def http10():
    with Server() as srv:
        s = srv.dial()
        s.sendall(b"GET " + segment_path("now", 9, 1).encode() + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        reader = Reader(s)
        status, headers, body = reader.response()
        expect((status, headers["connection"], body), (200, "keep-alive", words(0, 9)))
        s.sendall(b"GET " + segment_path("now", 9, 1).encode() + b" HTTP/1.0\r\n\r\n")
        expect(reader.response()[1]["connection"], "close")
        expect(s.recv(10), b"")


def a_day_in_one_response():
    with Server() as srv:
        s = srv.dial()
        s.sendall(get_bytes("/now/cbcs/1/s65536x43200.mp4"))
        time.sleep(0.3)
        got, at = b"", 0
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
        head, got = got.split(b"\r\n\r\n", 1)
        expect(b"Content-Length: 2831155200" in head, True)
        while at < (20 if TLS else 60) << 20:
            expect(got == words(at, len(got)), True, f"bytes from {at}")
            at += len(got)
            got = s.recv(1 << 20)
        expect(srv.rss_kb() < 60000, True, srv.rss_kb())
        s.close()


def sent_and_not_acknowledged(port):
    """Bytes that the kernel holds for each connection of a local port."""
    rows = [x.split() for x in open("/proc/net/tcp").read().splitlines()[1:]]
    return [int(r[4].split(":")[0], 16) for r in rows if int(r[1].split(":")[1], 16) == port and r[3] == "01"]


def stalled_readers_hold_no_buffers():
    with Server("--output-buffers", "8", "--stall-timeout", "200ms") as srv:
        path = "/now/cbcs/1/s300000x100.mp4"
        stalled = [srv.dial(rcvbuf=65536) for _ in range(100)]
        for s in stalled:
            s.sendall(get_bytes(path))
        c = srv.client()
        begin = time.monotonic()
        for i in range(1, 101):
            expect(ask(c, segment_path("now", 200000, i))[1], words((i - 1) * 200000, 200000))
        took = time.monotonic() - begin
        expect(took < 15, True, f"{took:.1f} s for 100 segments beside stalled readers")
        time.sleep(0.5)  # longer than the stall timeout: it takes buffers back and closes nothing
        held = sorted(sent_and_not_acknowledged(srv.port))[-len(stalled):]
        expect(len(held) == 100 and held[0] > 0, True, f"the kernel's table has the stalled connections: {held}")
        # what may not be sent yet, one send that began below it, and what is under way to a window of 64 KB
        expect(held[-1] <= 262144 + 300000 + 131072, True, f"the kernel holds up to {held[-1]} bytes for a stalled reader")
        for s in stalled[::10]:
            reader, at = Reader(s), 0
            while b"\r\n\r\n" not in reader.buf:
                reader.more()
            data = reader.buf.split(b"\r\n\r\n", 1)[1]
            while at < 5 << 20:  # more than the kernel held
                expect(data == words(at, len(data)), True, f"stalled reader at {at}")
                at += len(data)
                data = s.recv(1 << 16)
        for s in stalled:
            s.close()


def timeouts():
    with Server("--header-timeout", "300ms", "--idle-timeout", "600ms", "--stall-timeout", "200ms", "--write-timeout", "600ms") as srv:
        def lasts(first, then=b"", every=0.1):
            begin = time.monotonic()  # the time for a head counts from here, TLS included
            s = srv.dial(rcvbuf=65536)
            s.sendall(first)
            if b"mp4" in first:
                time.sleep(2)
                total = 0
                try:
                    while got := s.recv(1 << 16):
                        total += len(got)
                except ConnectionError:
                    pass
                return total
            s.settimeout(every)
            while time.monotonic() - begin < 5:
                try:
                    if not s.recv(65536):
                        break
                except socket.timeout:
                    if then:
                        s.sendall(then)
                except ConnectionError:
                    break
            return time.monotonic() - begin
        for seconds, low, high, what in ((lasts(b""), 0.25, 1.2, "no request"), (lasts(b"GET / HTTP/1.1\r\nHost: h\r\nX: ", b"x"), 0.25, 1.2, "a head that trickles"),
                                         (lasts(get_bytes(segment_path("now", 5, 1))), 0.55, 1.6, "idle after a response")):
            expect(low < seconds < high, True, f"{what}: {seconds:.2f} s")
        total = lasts(get_bytes("/now/cbcs/1/s300000x400.mp4"))
        expect(total < 60000000, True, f"a reader that stopped still got {total} bytes")


def pauses_within_the_write_timeout():
    """Who pauses longer than stall_timeout but not than write_timeout loses nothing, whether or not its response had a buffer."""
    with Server("--output-buffers", "8", "--stall-timeout", "200ms", "--write-timeout", "20s") as srv:
        size = 300000 * 25
        readers = [Reader(srv.dial(rcvbuf=65536)) for _ in range(24)]
        for r in readers:
            r.s.sendall(get_bytes("/now/cbcs/1/s300000x25.mp4"))
        time.sleep(1.5)
        for i, r in enumerate(readers):
            try:
                body = r.response()[2]
            except (EOFError, ConnectionError) as e:
                raise AssertionError(f"reader {i} was cut off: {e!r}") from e
            expect(body == words(0, size), True, f"reader {i}")


def more_sent_ahead_than_one_buffer():
    """2,500 requests that each wait for their source, sent at once: more than a request's own 32 KiB. All are answered."""
    with Server() as srv:
        s = TwoWays(srv.dial())
        plan = [random.randrange(1, 100) for _ in range(2500)]
        text = b"".join(get_bytes(segment_path("later", 40, n)) for n in plan)
        sender = threading.Thread(target=s.sendall, args=(text,))
        sender.start()
        reader = Reader(s)
        for i, n in enumerate(plan):
            expect(reader.response()[::2], (200, words((n - 1) * 40, 40)), f"answer {i}")
        sender.join()
        s.s.close()


def lost_sources():
    with Server() as srv:
        c = srv.client()
        r, _ = ask(c, segment_path("cut", 1000, 4))
        expect((r.status, r.getheader("Cache-Control")), (500, "no-store"))
        for size in (1000, 300000):
            try:
                r, body = ask(srv.client(), f"/cut/cbcs/1/s{size}x100.mp4")
                if size > 1000 or r.status != 500:
                    raise AssertionError("a full body")
            except http.client.IncompleteRead as e:
                expect(e.partial == words(0, len(e.partial)), True)
        expect(ask(c, segment_path("cut", 1000, 1))[1], words(0, 1000))


def clients_that_leave_at_any_time():
    with Server("--output-buffers", "8", "--stall-timeout", "100ms") as srv:
        kinds = [get_bytes(segment_path("later", 20000, 3)), get_bytes("/later/cbcs/1/s50000x100.mp4"),
                 get_bytes("/now/cbcs/1/s300000x100.mp4"), get_bytes("/later/cbcs/master.m3u8") * 5, b"GET /x",
                 get_bytes(segment_path("now", 1, 1)) * 50]
        for i in range(300):
            s = srv.dial()
            s.sendall(random.choice(kinds))
            time.sleep(random.choice((0, 0, 0.0003, 0.001, 0.004)))
            if i % 3 == 0:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif i % 3 == 1:
                s.shutdown(socket.SHUT_WR)
            s.close()
        expect(ask(srv.client(), segment_path("later", 77, 2))[1], words(77, 77))


def half_closed_clients_get_their_answer():
    with Server() as srv:
        for asset in ("now", "later"):
            s = srv.dial()
            s.sendall(get_bytes(segment_path(asset, 500000, 2)) + get_bytes(segment_path(asset, 10, 2)))
            s.shutdown(socket.SHUT_WR)
            reader = Reader(s)
            expect(reader.response()[2], words(500000, 500000))
            expect(reader.response()[2], words(10, 10))
            expect(s.recv(10), b"")


def more_clients_than_allowed():
    with Server("--max-connections", "20") as srv:
        socks, refused = [srv.dial() for _ in range(100)], 0
        for s in socks:
            try:
                s.sendall(get_bytes(segment_path("now", 5, 1)))
                status, headers, _ = Reader(s).response()
                refused += status == 503 and headers["retry-after"] == "1"
                if status == 503:  # as every other answer
                    expect([headers.get(h) for h in ("cache-control", "server", "access-control-allow-origin")], ["no-store", "sluice", "*"])
            except (ConnectionError, EOFError):
                refused += 1
        expect(refused, 60)
        for s in socks:
            s.close()
        time.sleep(0.2)
        expect(ask(srv.client(), segment_path("now", 5, 1))[0].status, 200)


def refused_clients_get_their_answer():
    """What a client has sent before it is refused must not turn the end of the connection into a reset, which can destroy the 503."""
    with Server("--workers", "1", "--max-connections", "1") as srv:
        kept = srv.dial()
        kept.sendall(get_bytes(segment_path("now", 5, 1)))
        expect(Reader(kept).response()[0], 200)
        srv.proc.send_signal(signal.SIGSTOP)
        try:
            socks = [srv.dial() for _ in range(20)]
            for s in socks:
                s.sendall(get_bytes(segment_path("now", 5, 1)))
        finally:
            srv.proc.send_signal(signal.SIGCONT)
        for s in socks:
            expect(Reader(s).response()[0], 503)
            expect(s.recv(10), b"", "its end, not a reset")


def as_many_requests_as_connections():
    """Each connection may be in the middle of a request. Where none can be begun, the answer says so and arrives."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # of the server too
    with Server("--workers", "1", "--max-connections", "4300") as srv:
        half = []
        for _ in range(min(4200, limit - 1000) if limit >= 0 else 4200):
            half.append(srv.dial())
            half[-1].sendall(b"GET /now")
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5), f"beside {len(half)} half requests")
        half[-1].sendall(get_bytes(segment_path("now", 5, 2))[8:])
        expect(Reader(half[-1]).response()[2], words(5, 5), "one of them goes on")
        for s in half:
            s.close()
    if BACKEND == "io_uring":
        return  # a reset right behind a request raises no event in a multishot receive: these clients would not have left
    with Server("--workers", "1", "--max-connections", "20") as srv:
        kept = srv.dial()
        for _ in range(20 + 1024 + 300):  # their clients leave, their lookups stay; not of all: a reset can overtake the request
            s = srv.dial()
            s.sendall(get_bytes("/stuck/cbcs/1/s1x1/1.m4s"))
            time.sleep(0.001)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        time.sleep(0.3)
        kept.sendall(get_bytes(segment_path("now", 5, 1)) * 3)
        kept.sendall(b"x" * 3000)
        status, headers, _ = Reader(kept).response()
        expect((status, headers["retry-after"], headers["connection"]), (503, "1", "close"))
        expect(kept.recv(10), b"")
        end = time.monotonic() + 15
        while (status := ask(srv.client(), segment_path("now", 5, 1))[0].status) == 503 and time.monotonic() < end:
            time.sleep(0.2)
        expect(status, 200, "when they have ended")
    expect(srv.overloads > 0 and srv.failed >= srv.overloads, True, f"each of {srv.overloads} is a 5xx too: {srv.failed}")


def draining():
    with Server() as srv:
        busy, idle = srv.dial(rcvbuf=65536), srv.dial()
        busy.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4"))
        idle.sendall(get_bytes(segment_path("now", 5, 1)))
        expect(Reader(idle).response()[0], 200)
        time.sleep(0.1)
        srv.proc.send_signal(signal.SIGTERM)
        expect(idle.recv(10), b"")
        time.sleep(0.2)
        expect(srv.proc.poll(), None)
        try:
            srv.dial()
            raise AssertionError("still accepts")
        except ConnectionError:
            pass
        status, _, body = Reader(busy).response()
        expect((status, body), (200, words(0, 6000000)))
        expect(busy.recv(10), b"")
    with Server("--drain-timeout", "300ms") as srv:
        busy = srv.dial(rcvbuf=65536)
        busy.sendall(get_bytes("/now/cbcs/1/s300000x100.mp4"))
        time.sleep(0.1)
        begin = time.monotonic()
        srv.stop()
        expect(time.monotonic() - begin < 5, True)


def half_a_request_when_draining():
    """It has a second, as those have that were half read before, and not header_timeout."""
    with Server("--header-timeout", "15s") as srv:
        s = srv.dial(rcvbuf=65536)
        s.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4") + get_bytes(segment_path("now", 5, 1))[:20])
        time.sleep(0.2)
        srv.proc.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        expect(Reader(s).response()[2] == words(0, 6000000), True, "the answer under way")
        begin = time.monotonic()
        expect(s.recv(10), b"")
        srv.proc.wait(20)
        expect(time.monotonic() - begin < 5, True, f"{time.monotonic() - begin:.1f} s")


def more_sent_ahead_when_draining():
    """What nobody reads any more does not destroy the answer that is on its way."""
    with Server("--workers", "1") as srv:
        s = srv.dial(rcvbuf=65536)
        reader = Reader(s)
        s.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4"))
        time.sleep(0.2)
        s.sendall(get_bytes("/now/cbcs/1/s300000x21.mp4"))
        time.sleep(0.2)
        s.setblocking(False)
        try:
            while True:  # as much as the kernel takes
                s.send(get_bytes(segment_path("now", 5, 1)) * 100)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        s.settimeout(20)
        expect(reader.response()[2] == words(0, 6000000), True, "the first answer")
        srv.proc.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        expect(reader.response()[2] == words(0, 6300000), True, "the second one, during which draining began")
        s.close()


def keepalive_limit():
    with Server("--keepalive-requests", "3") as srv:
        s = srv.dial()
        s.sendall(get_bytes(segment_path("now", 5, 1)) * 5)
        reader = Reader(s)
        expect([reader.response()[1].get("connection") for _ in range(3)], [None, None, "close"])
        expect(s.recv(10), b"")


def an_allocation_while_serving_is_noticed():
    """The fixture's watch over malloc works in this build: without it, that every other case allocates nothing would prove nothing."""
    srv = Server()
    try:
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5))
        try:
            ask(srv.client(), segment_path("heap", 5, 1))
            raise AssertionError("an allocation went unnoticed")
        except (ConnectionError, http.client.HTTPException):
            pass
        expect(srv.proc.wait(10), 70, "the status of an allocation")
    finally:
        srv.proc.kill()
        srv.proc.communicate()


def occupied_port():
    with Server() as srv:
        p = subprocess.run([FIXTURE, "--media", "/", "--listen", f"127.0.0.1:{srv.plain_port}", "--workers", "2", "--io", BACKEND],
                           capture_output=True, text=True, timeout=10)
        expect((p.returncode, p.stdout), (1, ""))
        expect("Address already in use" in p.stderr and p.stderr.count("\n") == 1, True, p.stderr)


def tls_versions_names_and_tickets():
    with Server() as srv:
        def connect(name="one.test", session=None, alpn=("http/1.1",), **settings):
            c = settings.pop("context", None) or client_context()
            for k, v in settings.items():
                setattr(c, k, v)
            c.set_alpn_protocols(list(alpn))
            s = c.wrap_socket(srv.dial(raw=True), server_hostname=name, session=session)
            s.sendall(get_bytes(segment_path("now", 50, 1)))
            expect(Reader(s).response()[2], words(0, 50))
            return s
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            s = connect(maximum_version=version, minimum_version=version)
            expect((s.version(), s.selected_alpn_protocol()), (version.name.replace("_", "."), "http/1.1"))
            expect("AES128-GCM" in s.cipher()[0] or "AES_128_GCM" in s.cipher()[0], True, s.cipher())
            resumed = 0
            for _ in range(8):  # whichever worker takes it
                c = client_context()
                c.maximum_version = c.minimum_version = version
                first = connect(context=c)
                resumed += connect(context=c, session=first.session).session_reused
            expect(resumed, 8, version)
        for name, serves in (("two.test", "two.test"), ("a.two.test", "two.test"), ("one.test", "one.test")):
            san = connect(name).getpeercert()["subjectAltName"]
            expect(san[0][1], serves)
        c = client_context()
        c.check_hostname = False
        expect(connect("other.test", context=c).getpeercert()["subjectAltName"][0][1], "one.test")
        try:
            connect(alpn=("h2",))
            raise AssertionError("h2 was accepted")
        except (ssl.SSLError, ConnectionError):
            pass
        p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{srv.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
        expect("alert protocol version" in p.stderr, True, p.stderr)
        s = srv.dial(raw=True)
        s.sendall(get_bytes("/"))
        try:
            while s.recv(1000):
                pass
        except ConnectionError:
            pass


def tls_ends_are_answered():
    """Who says that it sends no more gets what it asked for, and then the same said to it: else it cannot tell an end from a cut."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Server() as srv:
            c = client_context()
            c.maximum_version = c.minimum_version = version
            for paths in ([], ["/now/cbcs/master.m3u8"], [segment_path("now", 500000, 2)], [segment_path("later", 50, 2)] * 3, ["/410/cbcs/1/t/1.m4s"]):
                for when in ("with the request", "behind the answer"):
                    what = f"{version.name} {paths} {when}"
                    sock, into, out = srv.dial(raw=True), ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = c.wrap_bio(into, out, server_hostname="one.test")

                    def flow(step, end):
                        """Repeats `step` over the socket until it is through; `end`: what stands for the end of the stream."""
                        while True:
                            try:
                                got = step()
                                sock.sendall(out.read())
                                return got
                            except ssl.SSLWantReadError:
                                sock.sendall(out.read())
                                data = sock.recv(1 << 20)
                                into.write(data) if data else end()

                    def cut():
                        raise AssertionError(f"{what}: the connection ends without a word of TLS")

                    def ask_for_all():
                        for path in paths:
                            tls.write(get_bytes(path))
                        if when == "with the request":
                            try:
                                tls.unwrap()
                            except ssl.SSLWantReadError:
                                pass

                    flow(tls.do_handshake, cut)
                    flow(ask_for_all, cut)
                    reader = Reader(type("", (), {"recv": lambda _, n: flow(lambda: tls.read(n), cut)})())
                    try:
                        expect([reader.response()[0] for _ in paths], [410 if "410" in p else 200 for p in paths], what)
                        if when == "behind the answer":
                            flow(tls.unwrap, cut)
                        else:
                            expect(flow(lambda: tls.read(1), cut), b"", what)
                    except ssl.SSLZeroReturnError:
                        pass
                    sock.close()


def tls_needs_client_certificates_where_told():
    with Server("--tls-client-ca", f"{CERTS.name}/two.test.pem") as srv:
        try:
            ask(srv.client(), segment_path("now", 5, 1))
            raise AssertionError("a client without a certificate was served")
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
            pass
        srv.context.load_cert_chain(f"{CERTS.name}/two.test.pem", f"{CERTS.name}/two.test.key")
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5))


def unusable_certificates():
    for cert, key in (("one.test.pem", "two.test.key"), ("one.test.key", "one.test.key"), ("missing.pem", "one.test.key")):
        p = subprocess.run([FIXTURE, "--media", "/", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--tls-certificates",
                            f"{CERTS.name}/{cert}:{CERTS.name}/{key}"], capture_output=True, text=True, timeout=10)
        expect((p.returncode, p.stderr.count("\n")), (1, 1), p.stderr)
        expect(CERTS.name in p.stderr, True, p.stderr)


def the_kernel_seals_from_the_second_response_on():
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        with Server() as srv:
            one, two, three = (get_bytes(segment_path("now", 50001, n), extra) for n, extra in ((1, ""), (2, ""), (3, "Connection: close\r\n")))
            p = subprocess.run(["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{srv.port}", "-ciphersuites", suite, "-tls1_3"],
                               input=one + two + three, capture_output=True, timeout=20)
            for n in range(3):
                expect(words(n * 50001, 50001) in p.stdout, True, f"{suite}: response {n + 1}")
        expect(srv.handed_over, 0 if "CHACHA" in suite else 1, suite)
    with Server() as srv:
        s = srv.dial(raw=True)
        s = srv.context.wrap_socket(s, server_hostname="one.test", suppress_ragged_eofs=False)
        reader = Reader(s)
        for n in (1, 2):
            s.sendall(get_bytes(segment_path("now", 3000, n), "Connection: close\r\n" if n == 2 else ""))
            expect(reader.response()[2], words((n - 1) * 3000, 3000))
        expect(s.recv(10), b"", "the end is announced")
    expect(srv.handed_over, 1)
    with Server("--ktls=false") as srv:
        expect([ask(c, segment_path("now", 300, 2))[1] for c in [srv.client()] * 2], [words(300, 300)] * 2)
    expect(srv.handed_over, 0)


def keys_that_a_client_asks_for():
    """KeyUpdate: the kernel never gets the keys of before with the count of after, and is not left with old ones."""
    def read_until(out, text, seconds=20):
        got, end = b"", time.monotonic() + seconds
        while text not in got and time.monotonic() < end:
            piece = os.read(out, 1 << 16) if select.select([out], [], [], 0.2)[0] else None
            if piece == b"":
                break
            got += piece or b""
        return text in got

    # what is typed and how often keys are asked for, when: whether all is answered, and whether the kernel sealed
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"):
        for keys, before, answered, handed_over in ((b"K\n", 1, True, 0), (b"k\n", 1, True, 1), (b"k\n", 3, True, 1), (b"K\n", 3, False, 1)):
            what = f"{suite}: {keys} before request {before}"
            with Server() as srv:
                p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{srv.port}", "-ciphersuites", suite, "-tls1_3"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                expect(read_until(p.stdout.fileno(), b"Verify return code"), True, f"{what}: handshake")
                for n in range(1, 5):
                    if n == before:
                        p.stdin.write(keys)
                        p.stdin.flush()
                        time.sleep(0.3)
                    if n >= before and not answered:
                        expect(p.wait(10) is not None, True, f"{what}: the connection ends")
                        break
                    p.stdin.write(get_bytes(segment_path("now", 5001, n)))
                    p.stdin.flush()
                    expect(read_until(p.stdout.fileno(), words((n - 1) * 5001, 5001)), True, f"{what}: response {n}")
                p.kill()
                p.communicate()
            expect(srv.handed_over, handed_over, what)


def hot_segments():
    for cache in ("on", "off"):
        with Server("--cache-encrypted", cache) as srv:
            for _ in range(2):  # filled, and found
                s = srv.dial()
                reader = Reader(s)
                plan = [("hot", size, n) for size in (1, 1000, 50001, 300000) for n in (1, 2, 5)] * 2 + [("now", 700, 3), ("hot", 300000, 3)]
                for asset, size, n in plan:
                    s.sendall(get_bytes(segment_path(asset, size, n)))
                    status, _, body = reader.response()
                    expect((status, body), (200, words((n - 1) * size, size)), f"{cache}: {asset} {size} {n}")
                s.sendall(b"".join(get_bytes(segment_path(*x)) for x in plan))
                for asset, size, n in plan:
                    expect(reader.response()[2], words((n - 1) * size, size), f"{cache}: {asset} {size} {n}, pipelined")
                size, total = 50001, 50001 * 70  # past what the cache takes
                s.sendall(get_bytes("/hot/cbcs/1/s50001x70.mp4"))
                expect(reader.response()[2], words(0, total))
                for _ in range(40):
                    a, b = sorted(random.randrange(total) for _ in range(2))
                    s.sendall(get_bytes("/hot/cbcs/1/s50001x70.mp4", f"Range: bytes={a}-{b}\r\n"))
                    status, _, body = reader.response()
                    expect((status, body == words(a, b - a + 1)), (206, True), f"{cache}: {a}-{b}")
                s.close()
        expect(srv.handed_over, 2 if KTLS else 0)
        expect(srv.sent_files > 300 if KTLS and cache == "on" else srv.sent_files == 0, True, f"{cache}: {srv.sent_files} calls of sendfile")


def tls_records_begin_small():
    class Records:
        """The records of a connection: plaintext bytes of each, checked against its length on the wire."""
        def __init__(self, srv, version):
            c = client_context()
            c.maximum_version = c.minimum_version = version
            self.overhead = 17 if version == ssl.TLSVersion.TLSv1_3 else 24  # type and tag; explicit nonce and tag
            self.sock, self.into, self.out = srv.dial(raw=True), ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = c.wrap_bio(self.into, self.out, server_hostname="one.test")
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self.flush()
                    self.record()
            self.flush()

        def flush(self):
            self.sock.sendall(self.out.read())

        def exactly(self, n):
            data = b""
            while len(data) < n:
                got = self.sock.recv(n - len(data))
                if not got:
                    raise EOFError
                data += got
            return data

        def record(self):
            head = self.exactly(5)
            self.into.write(head + self.exactly(int.from_bytes(head[3:], "big")))
            return int.from_bytes(head[3:], "big")

        def tickets(self):
            """Those of TLS 1.3 come without a request: a client that waits for an acknowledgement has it."""
            self.record()
            try:
                raise AssertionError(f"bytes before a request: {self.tls.read(1 << 15)}")
            except ssl.SSLWantReadError:
                pass

        def response(self, request):
            """(length of each record, the bytes)"""
            self.tls.write(request)
            self.flush()
            lengths, got = [], b""
            while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < int(re.search(rb"Content-Length: (\d+)", got)[1]):
                wire = self.record()
                try:
                    plain = self.tls.read(1 << 15)
                except ssl.SSLWantReadError:  # a ticket
                    expect(lengths, [])
                    continue
                expect(wire, len(plain) + self.overhead)
                lengths.append(len(plain))
                got += plain
            return lengths, got.partition(b"\r\n\r\n")[2]

    with Server() as srv:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            r = Records(srv, version)
            if version == ssl.TLSVersion.TLSv1_3:
                r.tickets()
            for size in (100, 20000, 300000, 300000, 1 << 20, 100, 5000):  # one connection: each response begins anew
                lengths, body = r.response(get_bytes(segment_path("now", size, 2)))
                what = f"{version.name} {size}: {lengths}"
                expect(body, words(size, size), what)
                expect(lengths[0], 4096 if size > 4096 else sum(lengths), what)
                expect(max(lengths) <= 16384, True, what)
                # Full but for the last one of an output buffer.
                expect(sum(n < 16384 for n in lengths[1:]) <= -(-sum(lengths) // (252 << 10)), True, what)


CASES = [whole_bodies_and_heads, requests_cut_at_every_byte, pipelined_requests_come_back_in_order, random_ranges_are_slices,
         preconditions, refusals, bodies_of_requests, http10, a_day_in_one_response, stalled_readers_hold_no_buffers, timeouts,
         pauses_within_the_write_timeout, more_sent_ahead_than_one_buffer,
         lost_sources, clients_that_leave_at_any_time, half_closed_clients_get_their_answer, more_clients_than_allowed, refused_clients_get_their_answer, as_many_requests_as_connections, draining, half_a_request_when_draining, more_sent_ahead_when_draining,
         keepalive_limit, an_allocation_while_serving_is_noticed, occupied_port,
         hot_segments]
if TLS:  # ragged ends and half-closed clients are another matter there
    CASES = [c for c in CASES if c not in (half_closed_clients_get_their_answer, occupied_port, more_clients_than_allowed, refused_clients_get_their_answer, as_many_requests_as_connections,
                                       an_allocation_while_serving_is_noticed)]
    CASES += [tls_versions_names_and_tickets, tls_ends_are_answered, tls_records_begin_small, tls_needs_client_certificates_where_told, unusable_certificates]

if KTLS:
    CASES = [the_kernel_seals_from_the_second_response_on, keys_that_a_client_asks_for, hot_segments, whole_bodies_and_heads, requests_cut_at_every_byte,
             pipelined_requests_come_back_in_order, random_ranges_are_slices, preconditions, refusals, bodies_of_requests, http10,
             clients_that_leave_at_any_time, keepalive_limit, tls_versions_names_and_tickets, tls_ends_are_answered]

failed = 0
WHERE = BACKEND + (" ktls" if KTLS else " tls" if TLS else "")
only = sys.argv[4 if TLS else 3:]
cases = [c for c in CASES if not only or c.__name__ in only]
print(f"1..{len(cases)}")
for i, case in enumerate(cases, 1):
    begin = time.monotonic()
    try:
        case()
        print(f"ok {i} - {WHERE} {case.__name__} # {time.monotonic() - begin:.1f} s")
    except Exception as e:  # every fault of a case is a failure of that case
        failed += 1
        print(f"not ok {i} - {WHERE} {case.__name__}\n# {type(e).__name__}: {e}")
    sys.stdout.flush()
sys.exit(1 if failed else 0)
