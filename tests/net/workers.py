"""What the cases of transport.py share: the fixture's workers and their clients. It reads the command line of transport.py."""
import array
import http.client
import random
import re
import resource
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

FIXTURE, BACKEND = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
STUB = sys.argv[3:4] == ["ktls"]  # the fixture has a kernel's TLS, played at the socket calls
KTLS = STUB or sys.argv[3:4] == ["kernel"]  # the kernel's own, where this one has it
TLS = KTLS or sys.argv[3:4] == ["tls"]
random.seed(20)
PATIENCE_S = 50  # more than a busy machine needs; what hangs ends by itself later: idle_timeout is 75 s, write_timeout 60 s


def words(first, length):
    """Output bytes [first, first + length) of any track."""
    a, b = first // 4, (first + length + 3) // 4
    return array.array("I", range(a, b)).tobytes()[first - 4 * a:][:length]


def handed_over():
    """Connections whose records this kernel has ever been given to seal."""
    with open("/proc/net/tls_stat") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("TlsTxSw"))


def make_certificate(folder, name, kind):
    key = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                    f"subjectAltName=DNS:{name},DNS:*.{name}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"],
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
        super().__init__("one.test", timeout=PATIENCE_S)
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
        if "--drain-timeout" not in options:  # which would end what hangs then
            listen += ["--drain-timeout", "1h"]
        self.proc = subprocess.Popen([FIXTURE, "--media", "/", "--workers", "2", "--io", BACKEND, *listen, *options],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE if STUB else None, text=True)
        self.handed_over = self.sent_files = 0
        self.handed_over_before = handed_over() if KTLS and not STUB else 0
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
        out, err = self.proc.communicate(timeout=PATIENCE_S)
        if KTLS and not STUB:
            self.handed_over = handed_over() - self.handed_over_before
        if STUB:
            self.handed_over, self.sent_files = (int(n) for n in re.search(r"ktls: (\d+) connections handed over, (\d+) calls", err).groups())
        expect(self.proc.returncode, 0)
        left, counted = out.splitlines()
        expect(left, "left: 0 buffers, 0 connections, 0 holds")
        numbers = re.search(r"(\d+) overload, (\d+) 5xx, (\d+) displaced, (\d+) timeouts, (\d+) resets", counted).groups()
        self.overloads, self.failed, self.displaced, self.timeouts, self.resets = (int(n) for n in numbers)

    def dial(self, **kw):
        s = socket.socket()
        if "rcvbuf" in kw:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kw["rcvbuf"])
        s.settimeout(PATIENCE_S)
        s.connect(("127.0.0.1", self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(s, server_hostname="one.test") if TLS and not kw.get("raw") else s

    def client(self):
        if TLS:
            return TlsClient(self)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def rss_kb(self):
        with open(f"/proc/{self.proc.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def expect(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}: {str(got)[:300]!r} is not {str(want)[:300]!r}")


def comes(true, seconds=PATIENCE_S):
    """Waits until something is so; whether it is. As long as no busy machine needs."""
    end = time.monotonic() + seconds
    while not (so := true()) and time.monotonic() < end:
        time.sleep(0.01)
    return so


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
