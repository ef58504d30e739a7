"""Clients that do what clients do, good and bad, and hand every answer to the judges."""
import collections
import json
import queue
import random
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from judge.server import Client

HEADER_TIMEOUT_S, STALL_TIMEOUT_S, WRITE_TIMEOUT_S, IDLE_TIMEOUT_S = 5, 0.5, 5, 60
CROWD = 24
UNSENT = 1 << 18  # what the kernel holds of a response: the server sees no progress of a reader who takes less than this in WRITE_TIMEOUT_S


class Ask:
    """One request, and what came of it."""
    __slots__ = ("id", "asset", "scheme", "epoch", "track", "kind", "n", "method", "headers", "path", "sent", "got", "response", "stalls", "wire")

    def __init__(self, asset, scheme, epoch, track, kind, n=0, method="GET", headers=None):
        self.asset, self.scheme, self.epoch, self.track, self.kind, self.n = asset, scheme, epoch, track, kind, n
        self.method, self.headers, self.stalls, self.response, self.wire = method, dict(headers or {}), False, None, 0
        tail = {"master": "master.m3u8", "mpd": "manifest.mpd", "media": f"{epoch}/{track}/media.m3u8", "init": f"{epoch}/{track}/init.mp4",
                "seg": f"{epoch}/{track}/{n}.m4s", "file": f"{epoch}/{track}.mp4"}[kind]
        self.path = urllib.parse.quote(f"/{asset}/{scheme}/{tail}")

    def __str__(self):
        return f"{self.method} {self.path} {self.headers}"


class Wire(Client):
    """A connection that counts what it reads and may read slowly."""

    def __init__(self, port, context=None, room=0, timeout=60):
        s = socket.socket()
        if room:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        s.settimeout(timeout)
        try:
            s.connect(("127.0.0.1", port))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = context.wrap_socket(s, server_hostname="localhost") if context else s
        except BaseException:
            s.close()
            raise
        self.buffer, self.total, self.pause, self.until = bytearray(), 0, 0, None
        self.then = self.sent = 0  # bytes and time when the last requests were sent
        self.away, self.last = 0, time.monotonic()  # the longest time between two reads: on a busy machine this process may be what is slow

    def _fill(self):
        before = len(self.buffer)
        if self.pause:
            time.sleep(self.pause)
        if self.until and self.until.is_set():
            raise EOFError("the run ends, and a slow reader does not wait for the rest")
        self.away = max(self.away, time.monotonic() - self.last)
        super()._fill()
        self.last = time.monotonic()
        self.total += len(self.buffer) - before

    def consumed(self):
        return self.total - len(self.buffer)

    def serial(self):
        return int(self.socket.getpeercert()["serialNumber"], 16)

    def reset(self):
        """Ends the connection so that the server's next word to it is answered by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class Judges:
    """Threads that compare answers with the model, beside the clients."""

    def __init__(self, world, fail, num=2):
        self.world, self.fail = world, fail
        self.queue = queue.Queue()
        self.judged = collections.Counter()
        self.recent = collections.deque(maxlen=64)  # what was found right, for conditions
        for _ in range(num):
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            ask = self.queue.get()
            try:
                fault = self.world.wrong(ask)
            except Exception as e:  # the judge's own, which must not go unseen
                fault = f"the judge fails: {e!r}"
            if fault:
                self.fail(f"{ask}: {fault}; headers {dict(ask.response.headers)}; sent {ask.sent:.3f}, got {ask.got:.3f}")
            elif ask.response.status == 200 and ask.method == "GET" and ask.kind in ("seg", "file", "init"):
                self.recent.append(ask)
            self.judged[ask.response.status] += 1
            self.queue.task_done()


    def behind(self):
        """Whether clients have to wait. Between requests only: who stops amid an answer is a slow reader."""
        return self.queue.qsize() > 300


class Clients:
    """Threads of clients. `whole` are the requests answered whole: {id: (status, body bytes on the wire)}; `cut` those that may be or not."""

    def __init__(self, world, judges, seed, port, tls_port, certificates, authority, fail):
        self.world, self.judges, self.port, self.tls_port, self.fail = world, judges, port, tls_port, fail
        self.certificates = certificates  # Timeline of serial numbers
        self.context = ssl.create_default_context(cafile=str(authority))
        self.stop, self.lock, self.next_id = threading.Event(), threading.Lock(), 0
        self.crowds, self.crowding = 0.02, threading.Lock()  # how often many leave at once
        self.whole, self.cut, self.nameless = {}, set(), 0
        self.wire_bytes = self.refused = self.resets = 0
        self.classes = collections.Counter()
        slow = [0.04] * 10 + [1] * 6  # how often each of them is a slow reader
        self.threads = [threading.Thread(target=self._run, args=(random.Random(f"{seed}/{n}"), s), daemon=True) for n, s in enumerate(slow)]

    def start(self):
        for t in self.threads:
            t.start()

    def end(self, timeout):
        self.stop.set()
        end = time.monotonic() + timeout
        for t in self.threads:
            t.join(max(0, end - time.monotonic()))
        return not any(t.is_alive() for t in self.threads)

    # ---- what to ask for

    def _ask(self, rng, kind=None):
        names = list(self.world.tracks)
        asset, track = rng.choice(names)
        scheme = rng.choice(["cenc", "cbcs"])
        if asset.startswith("free/") and rng.random() < 0.6:
            scheme = "clear"
        elif rng.random() < 0.01:
            scheme = "clear"
        now = time.monotonic()
        current = self.world.epochs.current(asset, now, now)[0]
        epoch = max(1, current + rng.choices([0, -1, -2, 1, -5], [80, 10, 5, 2, 3])[0])
        kind = kind or rng.choices(["seg", "file", "init", "media", "master", "mpd"], [55, 14, 8, 6, 9, 8])[0]
        n = 1 + int(rng.expovariate(0.3)) if rng.random() < 0.97 else rng.randrange(0, 100)
        if rng.random() < 0.02:
            track = f"none{rng.randrange(50)}"
        if rng.random() < 0.01:
            asset = f"nowhere/{rng.randrange(1000)}"
        return self._conditions(rng, Ask(asset, scheme, epoch, track, kind, n, "HEAD" if rng.random() < 0.06 else "GET"))

    def _conditions(self, rng, ask):
        if rng.random() < 0.01:
            ask.headers["Connection"] = "close"
        if ask.kind not in ("seg", "file", "init") or rng.random() < 0.5:
            return ask
        size = 450000 if ask.kind == "file" else 30000 if ask.kind == "seg" else 900
        a, b = sorted((rng.randrange(size), rng.randrange(size)))
        tag = rng.choice(list(self.judges.recent)) if self.judges.recent and rng.random() < 0.4 else None
        if tag and rng.random() < 0.7:  # the same thing once more, with its tag
            ask = Ask(tag.asset, tag.scheme, tag.epoch, tag.track, tag.kind, tag.n, ask.method, ask.headers)
        tag = tag.response["etag"] if tag and tag.path == ask.path else '"none"'
        what = rng.randrange(9)
        if what < 5:
            ask.headers["Range"] = rng.choice([f"bytes={a}-{b}", f"bytes={a}-{b}", f"bytes={a}-", f"bytes=-{a}", f"bytes={a}-{a}",
                                               f"bytes={size * 9}-", f"bytes={a // 4}-{a // 4 + 9},{a // 2 + 20}-{a // 2 + 70}", "bytes=x"])
        if what in (4, 5):
            ask.headers["If-Range"] = tag
        if what in (6, 7):
            ask.headers["If-None-Match"] = rng.choice([tag, "*", tag])
        if what == 8:
            ask.headers["If-Match"] = tag
        return ask

    # ---- connections

    def _connect(self, rng, **more):
        secure = rng.random() < 0.3
        begin = time.monotonic()
        c = Wire(self.tls_port if secure else self.port, self.context if secure else None, **more)
        if secure and c.serial() not in self.certificates.during(begin, time.monotonic()):
            self.fail(f"a new connection got the certificate {c.serial():x}, not one of {[hex(n) for n in self.certificates.during(begin, time.monotonic())]}")
        return c

    def _name(self, ask):
        with self.lock:
            self.next_id += 1
            ask.id = f"soak-{self.next_id}"
        ask.sent = time.monotonic()
        query = f"?{ask.id}" if len(ask.path) % 7 == 0 else ""  # changes nothing
        return Client.request_bytes(ask.path + query, ask.method, {"User-Agent": ask.id, **ask.headers})

    def _given_up(self, asks):
        with self.lock:
            self.cut.update(a.id for a in asks)

    def _read(self, c, ask):
        before = c.consumed()
        ask.response = c.read(ask.method == "HEAD")
        ask.got = time.monotonic()
        ask.wire = c.consumed() - before
        r = ask.response
        if r.status == 503 and r["content-length"] == "0":  # refused at the door: no request was read
            with self.lock:
                self.refused += 1
                self.cut.add(ask.id)
            self.judges.queue.put(ask)
            return
        with self.lock:
            self.whole[ask.id] = (r.status, len(r.body), ask.kind)
            self.wire_bytes += ask.wire
            self.classes[r.status // 100] += 1
        self.judges.queue.put(ask)

    def answers(self, c, asks):
        """Reads the answers to requests that were sent. False: the connection has ended."""
        for n, ask in enumerate(asks):
            try:
                self._read(c, ask)
            except (OSError, EOFError, ValueError) as e:
                ask.got = time.monotonic()
                self._given_up(asks[n:])
                self.resets += 1
                took, rate = ask.got - c.sent, (c.total - c.then) / max(0.001, ask.got - c.sent)
                ask.stalls |= bool(c.until and c.until.is_set()) or c.away > WRITE_TIMEOUT_S - 1 or (took > WRITE_TIMEOUT_S and rate < UNSENT / WRITE_TIMEOUT_S)
                if not self.world.may_cut(ask) or isinstance(e, (ValueError, TimeoutError)) and not ask.stalls:
                    self.fail(f"{ask}: cut off after {c.consumed()} bytes of the connection and {len(c.buffer)} more: {e!r}; number {n} of {len(asks)} "
                              f"sent at {ask.sent:.3f}, ended at {ask.got:.3f}")
                return False
            if ask.response["connection"] == "close":
                self._given_up(asks[n + 1:])
                keep = {k.keepalive for k in self.world.config.during(ask.sent - 60, ask.got)}
                if ask.response.status < 400 and not any(keep) and "Connection" not in ask.headers:
                    self.fail(f"{ask}: the connection is to be closed without a reason")
                return False
        return True

    def _send(self, c, asks, part=None):
        c.away, c.last, c.then = 0, time.monotonic(), c.total
        c.sent = c.last
        data = b"".join(self._name(a) for a in asks)
        try:
            c.socket.sendall(data[:part] if part else data)
        except OSError:
            pass  # what there is to know shows when reading
        return data

    def ask(self, ask):
        """Sends a request on a connection of its own, and does not wait."""
        c = Wire(self.port)
        self._send(c, [ask])
        return c

    # ---- what clients do

    def _one(self, rng, c):
        asks = [self._ask(rng)]
        self._send(c, asks)
        return self.answers(c, asks)

    def _pipeline(self, rng, c):
        asks = [self._ask(rng) for _ in range(rng.randrange(2, 20))]
        self._send(c, asks)
        return self.answers(c, asks)

    def _again(self, rng, c):
        """The same thing many times: it becomes hot."""
        first = self._ask(rng, rng.choice(["seg", "seg", "seg", "file", "init"]))
        asks = [Ask(first.asset, first.scheme, first.epoch, first.track, first.kind, first.n, "GET", first.headers if n % 3 == 2 else {})
                for n in range(rng.randrange(6, 14))]
        self._send(c, asks)
        return self.answers(c, asks)

    def _storm(self, rng, c):
        asks = [Ask(f"no{rng.randrange(10 ** 6)}/x", rng.choice(["cenc", "cbcs"]), 1, "t", rng.choice(["seg", "file", "mpd"]), 1) for _ in range(50)]
        self._send(c, asks)
        return self.answers(c, asks)

    def _half(self, rng, c):
        asks = [self._ask(rng) for _ in range(rng.randrange(1, 4))]
        ends = len(b"".join(Client.request_bytes(a.path, a.method, {"User-Agent": "soak-00000", **a.headers}) for a in asks))
        cut = rng.randrange(1, ends - 20)
        data = self._send(c, asks, cut)
        how = rng.random()
        if how < 0.4:
            time.sleep(rng.random() * 0.3)
            self._given_up(asks)
            c.reset() if rng.random() < 0.5 else c.close()
            return False
        time.sleep(rng.random() * 0.5)
        for a in asks:
            a.sent = min(a.sent, time.monotonic())
        try:
            c.socket.sendall(data[cut:])
        except OSError:
            pass
        return self.answers(c, asks)

    def _leave(self, rng, c):
        asks = [self._ask(rng, "file") for _ in range(rng.randrange(1, 4))]
        self._send(c, asks)
        self._given_up(asks)
        try:
            if rng.random() < 0.7:
                c.socket.recv(rng.randrange(1, 50000))
            if rng.random() < 0.2:
                c.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        c.reset() if rng.random() < 0.5 else c.close()
        return False

    def _crowd(self, rng):
        """Many who ask for whole files and are gone before the first byte; one crowd at a time, or others would find no place."""
        if not self.crowding.acquire(blocking=False):
            return
        try:
            self._come_and_go(rng)
        finally:
            self.crowding.release()

    def _come_and_go(self, rng):
        crowd = []
        for _ in range(CROWD):
            ask = self._ask(rng, "file")
            ask.headers.clear()
            crowd.append((Wire(self.port), ask))
        for c, ask in crowd:
            self._send(c, [ask])
            self._given_up([ask])
            c.reset()

    def _malformed(self, rng, c):
        """A refusal has an answer of its own, and ends the connection."""
        c.socket.sendall(rng.choice([b"GET / HTTP/1.1\r\n\r\n", b"NONSENSE\r\n\r\n", b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
                                     b"POST /album/one/cenc/master.m3u8 HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n"]))
        begin, before = time.monotonic(), c.consumed()
        try:
            r = c.read()
        except (OSError, EOFError) as e:
            if True not in self.world.flood.during(begin - 3, time.monotonic()) and not self.world.fails(begin, time.monotonic()):
                self.fail(f"a malformed request: {e!r} and no answer")
            return False
        refused = r.status == 503 and r["content-length"] == "0"
        if r.status not in (400, 413, 501) and not refused:
            self.fail(f"a malformed request: {r}")
        if not refused:
            with self.lock:
                self.nameless += 1
                self.classes[r.status // 100] += 1
                self.wire_bytes += c.consumed() - before
        return False

    def _noise(self, rng):
        """No TLS, or half of it, on the port of TLS."""
        c = Wire(self.tls_port)
        try:
            c.socket.sendall(rng.choice([rng.randbytes(rng.randrange(1, 600)), bytes.fromhex("16030100c8010000c40303") + rng.randbytes(rng.randrange(300)), b""]))
            time.sleep(rng.random() * 0.05)
        except OSError:
            pass
        c.reset() if rng.random() < 0.5 else c.close()

    def _slow(self, rng):
        """A reader with little room that pauses: shorter than write_timeout it gets everything; longer, or it is cut off."""
        c = self._connect(rng, room=4096)
        c.until = self.stop
        try:
            asks = [self._ask(rng, "file") for _ in range(rng.randrange(1, 4))]
            how = rng.random()
            if how < 0.15:
                for a in asks:
                    a.stalls = True
            self._send(c, asks)
            if how < 0.15:
                self.stop.wait(WRITE_TIMEOUT_S + 1.5)
            elif how < 0.5:
                time.sleep(STALL_TIMEOUT_S + rng.random())
            c.pause = 0 if how < 0.3 else 0.001
            self.answers(c, asks)
        finally:
            c.close()

    def _run(self, rng, slow):
        c = None
        ways = [(self._one, 50), (self._pipeline, 14), (self._again, 14), (self._half, 6), (self._leave, 6), (self._storm, 1), (self._malformed, 2)]
        while not self.stop.is_set():
            if self.judges.behind():
                time.sleep(0.05)
                continue
            try:
                if rng.random() < 0.01:
                    self._noise(rng)
                if rng.random() < self.crowds:
                    self._crowd(rng)
                if rng.random() < slow:
                    self._slow(rng)
                    continue
                if c and rng.random() < 0.05:
                    c.close()
                    c = None
                c = c or self._connect(rng)
                way = rng.choices([w for w, _ in ways], [n for _, n in ways])[0]
                if not way(rng, c):
                    c.close()
                    c = None
            except OSError as e:
                now = time.monotonic()
                if True not in self.world.flood.during(now - 5, now) and not self.world.fails(now - 5, now):
                    self.fail(f"cannot connect: {e!r}")
                c = None
                time.sleep(0.05)
            except Exception as e:  # of the test itself
                self.fail(f"a client fails: {e!r}")
                c = None
        if c:
            c.close()

    def open_end(self):
        """A few slow readers of whole files, for the end of the server: (connection, asks) of each."""
        out, rng = [], random.Random(1)
        for name in [n for n, line in self.world.tracks.items() if line.now() and not line.changed(time.monotonic() - self.world.stale_s, time.monotonic())][:6]:
            c = Wire(self.port, room=4096)
            epoch = self.world.epochs.current(name[0], time.monotonic(), time.monotonic())[0]
            asks = [Ask(name[0], rng.choice(["cenc", "cbcs"]), epoch, name[1], "file")]
            self._send(c, asks)
            out.append((c, asks))
        return out


LINE = {"time", "ip", "method", "path", "status", "bytes", "duration", "ttfb", "tls", "range", "referer", "agent", "forwarded_for"}


def check_log(files, clients, dropped=0):
    """What is wrong with the access log beside what clients counted; and how many lines it has of each class. Of `dropped` lines, which its
    disk had no room for, there may be pieces."""
    faults, seen, classes, nameless, cut_bytes, missing, pieces = [], {}, collections.Counter(), 0, 0, 0, 0
    for path in files:
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                row = {}
            if set(row) != LINE or not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", row["time"]):
                pieces += 1
                if pieces > dropped:
                    faults.append(f"a line that does not parse: {line[:200]!r}")
                continue
            classes[row["status"] // 100] += 1
            name = row["agent"]
            if not name:
                nameless += 1
            elif name in seen:
                faults.append(f"two lines for {name}")
            seen[name] = row
            if name in clients.cut:
                cut_bytes += row["bytes"]
    seen.pop("", None)
    for name, (status, length, _) in clients.whole.items():
        row = seen.get(name)
        if row is None:
            missing += 1
            if missing > dropped:
                faults.append(f"no line for {name}, which was answered whole with {status}")
        elif (row["status"], row["bytes"]) != (status, length):
            faults.append(f"{name} got {status} and {length} bytes, its line says {row['status']} and {row['bytes']}")
    if not clients.nameless - dropped <= nameless <= clients.nameless:
        faults.append(f"{nameless} lines without a client's name, {clients.nameless} refusals were read")
    stray = set(seen) - set(clients.whole) - clients.cut
    if stray:
        faults.append(f"lines of requests that nobody sent: {sorted(stray)[:5]}")
    return faults, classes, cut_bytes
