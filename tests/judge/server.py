"""Starts `sluice serve` on a catalogue of its own and talks HTTP/1.1 to it over a bare socket."""
import array
import fcntl
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time

from judge.ports import free_port

START_S = 60


class Response:
    def __init__(self, status, reason, headers, body):
        self.status, self.reason, self.headers, self.body = status, reason, headers, body

    def __getitem__(self, name):
        """The value of a header that stands once; "" without it."""
        values = [v for k, v in self.headers if k == name.lower()]
        if len(values) > 1:
            raise ValueError(f"header {name} stands {len(values)} times")
        return values[0] if values else ""

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:60]!r}"


class Client:
    """One connection. Requests may be pipelined: send several, then read as many responses."""

    def __init__(self, port, host="127.0.0.1", timeout=30):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def close(self):
        self.socket.close()

    def send(self, path, method="GET", headers=None, body=b""):
        self.socket.sendall(self.request_bytes(path, method, headers, body))

    @staticmethod
    def request_bytes(path, method="GET", headers=None, body=b""):
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"] + [f"{k}: {v}" for k, v in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def _fill(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError(f"the connection ended with {len(self.buffer)} bytes read: {bytes(self.buffer[:80])!r}")
        self.buffer += data

    def read(self, head=False):
        """The next response; `head`: the request was HEAD."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        m = re.fullmatch(r"HTTP/1\.1 (\d{3}) (.*)", lines[0])
        if not m:
            raise ValueError(f"status line {lines[0]!r}")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip() or not name:
                raise ValueError(f"header line {line!r}")
            headers.append((name.lower(), value.strip()))
        status = int(m.group(1))
        given = dict(headers)
        if "transfer-encoding" in given:
            raise ValueError("a response without a known length")
        length = 0 if head or status in (204, 304) or status < 200 else int(given["content-length"])
        need = end + 4 + length
        while len(self.buffer) < need:
            self._fill()
        body = bytes(self.buffer[end + 4:need])
        del self.buffer[:need]
        return Response(status, m.group(2), headers, body)

    def get(self, path, method="GET", headers=None, body=b""):
        self.send(path, method, headers, body)
        return self.read(method == "HEAD")

    def closed(self, timeout=10):
        """Whether the server ends the connection, reading what it still sends."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionResetError:
            return True
        except (TimeoutError, socket.timeout):
            return False


class Server:
    """`sluice serve` with a media folder `media` and a state folder of its own. `stop` ends it; use with `with`."""

    def __init__(self, sluice, media, *flags, keys=None, config=None, env=None, state=None, closed=""):
        """`closed`: redirections of a shell, for a server without some standard descriptors."""
        self.work = tempfile.TemporaryDirectory(prefix="sluice-server-")
        self.folder = pathlib.Path(self.work.name)
        self.port, self.admin_port = free_port(), free_port()
        self.media = pathlib.Path(media)
        self.state = pathlib.Path(state) if state else self.folder / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        argv = [sluice, "serve", "--media", str(media), "--listen", f"127.0.0.1:{self.port}", "--admin",
                f"127.0.0.1:{self.admin_port}", "--state-dir", str(self.state)]
        if config is not None:
            (self.folder / "sluice.yaml").write_text(config)
            argv += ["-c", str(self.folder / "sluice.yaml")]
        if keys is not None:
            (self.folder / "keys.yaml").write_text(keys)
            argv += ["--keys", str(self.folder / "keys.yaml")]
        self.argv = argv + list(flags)
        if closed:
            self.argv = ["bash", "-c", f'exec "$@" {closed}', "bash", *self.argv]
        self.lines, self.lock, self.env = [], threading.Lock(), env
        self._start()

    def _start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, env=self.env)
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self.reader.start()

    def _read(self, pipe):
        rest = b""
        while True:
            select.select([pipe], [], [])
            with self.lock:  # what is out of the pipe is in the list for who holds it
                data = os.read(pipe.fileno(), 1 << 16)
                *lines, rest = (rest + data).split(b"\n")
                self.lines += [line.decode(errors="replace") for line in (lines if data or not rest else [rest])]
            if not data:
                return

    def log(self, timeout=5):
        """The lines that the server has written by now, also where the reader is late."""
        end = time.monotonic() + timeout
        while True:
            with self.lock:
                waiting = array.array("i", [0])
                if not self.process.stderr.closed:
                    fcntl.ioctl(self.process.stderr, termios.FIONREAD, waiting)
                if not waiting[0] or time.monotonic() > end:
                    return list(self.lines)
            time.sleep(0.001)

    def wait_log(self, pattern, timeout=15, after=0):
        """The first log line from number `after` that matches, None when none comes in time."""
        end = time.monotonic() + timeout
        while True:
            for line in self.log()[after:]:
                if re.search(pattern, line):
                    return line
            if time.monotonic() > end or (self.process.poll() is not None and not self.reader.is_alive()):
                return None
            time.sleep(0.02)

    def __enter__(self):
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.admin("/ready").status == 200:
                    return self
            except (OSError, EOFError):
                pass
            time.sleep(0.05)
        self.stop()
        raise RuntimeError("sluice serve does not get ready:\n" + "\n".join(self.log()[-20:]))

    def __exit__(self, *_):
        self.stop()

    def client(self, **more):
        return Client(self.port, **more)

    def get(self, path, method="GET", headers=None, body=b""):
        """One request on a connection of its own."""
        c = self.client()
        try:
            return c.get(path, method, headers, body)
        finally:
            c.close()

    def admin(self, path, method="GET", body=b""):
        c = Client(self.admin_port)
        try:
            return c.get(path, method, {"Connection": "close"}, body)
        finally:
            c.close()

    def signal(self, number):
        self.process.send_signal(number)

    def restart(self, timeout=30):
        """As a service manager does it: drained, then a new process in its place. Returns the old one's exit status."""
        self.signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self.reader.join(5)
        self.process.stderr.close()
        self._start()
        self.__enter__()
        return code

    def stop(self, timeout=30):
        """Ends the server in good order; returns its exit status, None when it had to be killed."""
        code = None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        self.process.stderr.close()
        self.work.cleanup()
        return code


def environment(**more):
    return {**os.environ, **more}
