"""Key servers that misbehave at random, and keep account of how they are asked (docs/keys.md, "Key servers")."""
import collections
import hashlib
import hmac
import http.server
import json
import math
import random
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from judge.keyserver import b64, check_speke, iv_of, json_answer, key_of, speke_answer

Keys = collections.namedtuple("Keys", "kid key iv")
# In milliseconds, of the providers section: short, so that much happens. SPEKE keys may be used on for an hour, those of JSON for half a second.
RETRY, RETRY_MAX, NEGATIVE, ATTEMPTS, CONNECTIONS, ANSWER = 60, 1000, 300, 2, 3, 700
LIFETIME, REFRESH, STALE = 1200, 600, {"speke": 3600_000, "json": 500}
QUEUE_S = 6  # what is queued when a reload comes is over then: attempts of 2 s
LABELS = "", "lossless"
OTHER = {"cenc": "cbcs", "cbcs": "cenc"}


def options(kind):
    return (f"attempts: {ATTEMPTS}, connections: {CONNECTIONS}, retry: {RETRY}ms, retry_max: {RETRY_MAX}ms, negative: {NEGATIVE}ms, lifetime: {LIFETIME}ms, "
            f"refresh: {REFRESH}ms, stale: {STALE[kind]}ms, connect_timeout: 500ms, tls_timeout: 1s, answer_timeout: {ANSWER}ms, timeout: 2s")


def _text(s):
    return struct.pack(">I", len(s.encode())) + s.encode()


def default_iv(key):
    return hmac.new(key, b"sluice cbcs iv v1", hashlib.sha256).digest()[:16]


def has_iv(kid):
    return kid[0] % 4 != 0  # the others never get one: it follows from the key then


def truth(kind, asset, epoch, scheme, label):
    """The keys that a key server of this kind gives, in its right mind."""
    if kind == "speke":  # the KID is ours: docs/keys.md
        h = bytearray(hashlib.sha256(b"sluice public kid v1" + _text(asset) + struct.pack(">I", epoch) + _text(scheme) + _text(label)).digest()[:16])
        h[6], h[8] = 0x80 | h[6] & 0x0F, 0x80 | h[8] & 0x3F
        kid = bytes(h)
    else:
        kid = hashlib.sha256(f"{urllib.parse.quote(asset)} {epoch} {scheme} {label}".encode()).digest()[:16]
    key = key_of(kid.hex())
    return Keys(kid, key, iv_of(kid.hex()) if has_iv(kid) else default_iv(key))


GOOD, REFUSED, RETRIED, BUSY = "good", "refused", "retried", "busy"  # what an answer comes to
MODES = {  # mode: (what it comes to, kinds)
    "slow": (GOOD, "both"), "plain_text": (GOOD, "both"), "long": (GOOD, "speke"), "late": (RETRIED, "both"), "silent": (RETRIED, "both"),
    "reset": (RETRIED, "both"), "half": (RETRIED, "both"), "drip": (RETRIED, "both"), "s500": (RETRIED, "both"), "s503": (RETRIED, "both"),
    "s429": (RETRIED, "both"), "busy": (BUSY, "both"), "s302": (REFUSED, "both"), "s401": (REFUSED, "both"), "s404": (REFUSED, "both"),
    "s422": (REFUSED, "both"), "empty": (REFUSED, "both"), "huge": (REFUSED, "both"), "not_http": (REFUSED, "both"), "malformed": (REFUSED, "both"),
    "wrong_scheme": (REFUSED, "both"), "wrong_iv": (REFUSED, "cbcs"), "duplicate": (REFUSED, "both"), "short_key": (REFUSED, "both"),
    "wrong_pssh": (REFUSED, "both"), "bomb": (REFUSED, "speke"), "wrong_kid": (REFUSED, "speke"), "no_key": (REFUSED, "speke"),
    "encrypted": (REFUSED, "speke"), "more": (REFUSED, "speke"), "bad_xml": (REFUSED, "speke"), "bad_hls": (REFUSED, "speke"),
    "version": (REFUSED, "speke"), "no_scheme": (REFUSED, "speke"),
    # Only where a client was served with the right keys since the server started, of this scheme or of the other: else they would be the first.
    "changed": (REFUSED, "known"), "other_iv": (REFUSED, "known cbcs"), "of_other_scheme": (REFUSED, "other"), "taken_kid": (REFUSED, "other json"),
}
WEATHER = [("fine", 9), ("fickle", 9), ("busy", 2), ("overloaded", 2), ("refusing", 2), ("mute", 1), ("gone", 2), ("garbage", 1), ("stranger", 2)]


class Record:
    __slots__ = ("question", "at", "replied", "end", "socket", "life", "mode", "path", "prompt")


def gone(sock):
    """Whether the other side has ended the connection, whatever of it is unread."""
    p = select.poll()
    p.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(p.poll(0))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    record = None

    def reply(self, status, body=b"", **headers):
        self.record.replied = time.monotonic()  # nobody can have it sooner
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        ks = self.server
        question, doc = ks.understand(self.headers, body)
        self.record = record = ks.arrived(self, question)
        if not record:  # its sender was killed
            self.close_connection = True
            return
        try:
            record.end = ks.answer(self, question, doc, record)
        finally:
            ks.ended(record)


class Question(collections.namedtuple("Question", "asset epoch scheme labels systems")):
    def keys(self, kind):
        return [truth(kind, self.asset, self.epoch, self.scheme, label) for label in self.labels]


class KeyServer:
    """One key server, in threads of this process. `known(kind, question)` says whether clients have been served with its keys."""

    def __init__(self, kind, seed, contexts, fail, known, epochs):
        self.kind, self.contexts, self.fail, self.known, self.epochs = kind, contexts, fail, known, epochs
        self.rng, self.lock, self.life = random.Random(f"{seed}/{kind}"), threading.Lock(), 0
        self.weather, self.since, self.spell = "fickle", time.monotonic(), []
        self.fine_since = self.since
        self.records, self.open, self.last = collections.Counter(), set(), {}
        self.peak, self.reloads, self.answers = 0, [], collections.defaultdict(list)
        self.stop, self.calm = threading.Event(), threading.Event()
        self.listener = self._listen(0)
        self.port = self.listener.getsockname()[1]
        for work in (self._accept, self._change):
            threading.Thread(target=work, daemon=True).start()

    def url(self, match):
        """One for each entry of `providers`: connections and pauses are of an entry."""
        return f"{'https' if self.contexts else 'http'}://127.0.0.1:{self.port}/{self.kind}?{match}"

    # ---- connections

    def _listen(self, port):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen(128)
        s.settimeout(0.05)
        return s

    def _accept(self):
        while not self.stop.is_set():
            if self.weather == "gone":
                self.listener.close()
                while self.weather == "gone" and not self.stop.is_set():
                    time.sleep(0.02)
                self.listener = self._listen(self.port)
            try:
                s, address = self.listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._serve, args=(s, address), daemon=True).start()
        self.listener.close()

    def _serve(self, s, address):
        try:
            weather = self.weather
            if weather == "refusing":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if weather == "garbage":
                s.sendall(b"+OK POP3 ready\r\n")
                return
            if weather == "mute":
                while not gone(s) and self.weather == "mute":
                    time.sleep(0.02)
                return
            s.settimeout(30)
            if self.contexts:
                s = self.contexts["wrong" if weather == "stranger" else "right"].wrap_socket(s, server_side=True)
            Handler(s, address, self)
        except (OSError, ValueError):
            pass
        finally:
            s.close()

    # ---- weather

    def _change(self):
        while not self.stop.is_set():
            until = time.monotonic() + self.rng.uniform(0.4, 12 if self.rng.random() < (0.8 if self.weather == "fine" else 0.25) else 2.5)
            while time.monotonic() < until and not self.stop.is_set() and self.calm.is_set() == (self.weather == "calm"):
                time.sleep(0.02)
            with self.lock:
                now = time.monotonic()
                self._judge_spell(now)
                names, weights = zip(*WEATHER)
                before, self.weather = self.weather, "calm" if self.calm.is_set() else self.rng.choices(names, weights)[0]
                if before not in ("fine", "calm"):
                    self.fine_since = now
                self.records[self.weather] += 1
                self.since, self.spell = now, []

    def _judge_spell(self, now):
        """While a key server is away it is probed, not pressed: at first what is under way, then one request after each pause, which grows."""
        if self.weather not in ("busy", "overloaded"):
            return
        lives = collections.Counter(self.spell)
        pause = RETRY_MAX * 0.75 / 1000
        # Twice as many at first: a connection that was ended meanwhile is taken up once more. A reload begins anew.
        most = (2 * CONNECTIONS * ATTEMPTS + 8 + (now - self.since) / pause) * (1 + sum(t > self.since - QUEUE_S for t in self.reloads))
        for n in lives.values():
            if n > most:
                self.fail(f"{self.kind}: {n} requests within {now - self.since:.2f} s while every one was answered 503: at most {most:.0f} are meant")

    def well(self):
        """For how many seconds every request has been answered as it should."""
        with self.lock:
            return time.monotonic() - self.fine_since if self.weather in ("fine", "calm") else 0

    # ---- requests

    def understand(self, headers, body):
        if self.kind == "speke":
            root, fault = check_speke(headers, body)
            if fault:
                self.fail(f"speke: a request that must be refused: {fault}: {body[:300]!r}")
                raise ValueError(fault)
            kids = {k.get("kid").replace("-", "") for k in root.iter("{urn:dashif:org:cpix}ContentKey")}
            scheme = next(root.iter("{urn:dashif:org:cpix}ContentKey")).get("commonEncryptionScheme")
            systems = tuple(sorted({s.get("systemId") for s in root.iter("{urn:dashif:org:cpix}DRMSystem")}))
            asset = urllib.parse.unquote(root.get("contentId"))
            epoch = next((e for e in range(1, self.epochs(asset) + 2) if truth("speke", asset, e, scheme, "").kid.hex() in kids), 0)
            labels = LABELS[:len(kids)]
            if {truth("speke", asset, epoch, scheme, label).kid.hex() for label in labels} != kids:
                self.fail(f"speke: {asset}, {scheme}: asked for KIDs {kids}, which no epoch has that there is")
            return Question(asset, epoch, scheme, labels, systems), root
        doc = json.loads(body)
        asset = urllib.parse.unquote(doc["asset"])
        if not 1 <= doc["epoch"] <= self.epochs(asset) + 1:
            self.fail(f"json: {asset}: asked for epoch {doc['epoch']}, which there is not")
        return Question(asset, doc["epoch"], doc["scheme"], tuple(doc["labels"]), tuple(doc["systems"])), doc

    def arrived(self, handler, question):
        r = Record()
        r.question, r.at, r.replied, r.end, r.socket, r.mode, r.path = question, time.monotonic(), None, None, handler.connection, None, handler.path
        r.prompt = False
        with self.lock:
            if gone(r.socket):
                return None
            r.life = self.life
            others = [o for o in self.open if not gone(o.socket)]
            if any(o.question == question for o in others):
                self.fail(f"{self.kind}: {question} is asked while it is being answered")
            at_once = 1 + sum(o.path == r.path for o in others)
            self.peak = max(self.peak, at_once)
            # What is queued when a reload comes goes on, over connections of its own.
            most = CONNECTIONS * (1 + sum(r.at - t < QUEUE_S for t in self.reloads))
            if at_once > most:
                self.fail(f"{self.kind}: {at_once} requests at the same time, {most} connections are allowed")
            last = self.last.get(question)
            if last and last.life == r.life and last.end and last.replied and last.prompt:  # else it may have come too late
                least = {REFUSED: NEGATIVE * 0.75, BUSY: RETRY_MAX * 0.75, RETRIED: RETRY / 2 if last.mode in ("s500", "s503", "s429") else 0,
                         GOOD: (LIFETIME - REFRESH) * 0.85}.get(last.end, 0) / 1000
                if r.at - last.replied < least:
                    self.fail(f"{self.kind}: {question} is asked {r.at - last.replied:.3f} s after the answer {last.mode} ({last.end}): {least:.3f} s at least")
            self.open.add(r)
            self.last[question] = r
            self.spell.append((r.life, r.path))
        return r

    def ended(self, record):
        with self.lock:
            record.prompt = time.monotonic() - record.at < ANSWER / 2000
            self.open.discard(record)
            if record.end == GOOD and record.prompt:
                self._note(record, True)

    def _note(self, record, sure):
        q = record.question
        self.answers[q.asset, q.epoch, q.scheme].append((record.life, time.monotonic(), sure, q))

    def gave(self, life, asset, epoch, scheme, since, until=math.inf, sure=None):
        """Whether it answered in this time; `sure`, (labels, systems): this question, and so that the answer must have come."""
        with self.lock:
            return any(a_life == life and since <= at <= until and (not sure or (a_sure and q.labels == sure[0] and set(q.systems) == set(sure[1])))
                       for a_life, at, a_sure, q in reversed(self.answers[asset, epoch, scheme]))

    def _choose(self, question):
        known = self.known(self.kind, question)
        other = self.known(self.kind, question._replace(scheme=OTHER[question.scheme]))
        may = []
        for mode, (_, where) in MODES.items():
            if ("speke" in where and self.kind != "speke") or ("json" in where and self.kind != "json") or ("cbcs" in where and question.scheme != "cbcs"):
                continue
            if ("known" in where and not known) or ("other" in where and not other):
                continue
            if mode in ("wrong_pssh", "bad_xml", "bad_hls") and not question.systems:
                continue
            may += [mode] * (6 if mode == "slow" or "known" in where or "other" in where else 1)
        return self.rng.choice(may)

    def answer(self, handler, question, doc, record):
        """Answers as the weather is. What the answer comes to."""
        with self.lock:
            weather = self.weather
            mode = "good"
            if weather == "busy":
                mode = "busy"
            elif weather == "overloaded":
                mode = "s503"
            elif weather == "fickle" and self.rng.random() < 0.6:
                mode = self._choose(question)
            record.mode = mode
            self.records[mode] += 1
            end = MODES.get(mode, (GOOD,))[0]
            if end in (GOOD, RETRIED):  # before it is sent: clients may be served with it in the next moment
                self._note(record, False)
        if mode == "busy":
            handler.reply(self.rng.choice((503, 429)), b"later", Retry_After="1")
        elif mode[0] == "s" and mode[1:].isdigit():
            handler.reply(int(mode[1:]), b"no", **({"Location": "http://127.0.0.1:9/"} if mode == "s302" else {}))
        elif mode == "silent":
            self._idle(handler, 5)
        elif mode == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
        elif mode == "not_http":
            handler.wfile.write(b"+OK POP3 ready\r\n")
            handler.close_connection = True
        elif mode == "empty":
            handler.reply(200)
        else:
            self._document(handler, question, doc, mode)
        return end

    def _idle(self, handler, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not gone(handler.connection):
            time.sleep(0.02)
        handler.close_connection = True

    def _document(self, handler, question, doc, mode):
        text = self._fill(question, doc, mode)
        headers = {"Content_Type": "application/xml" if self.kind == "speke" else "application/json"}
        if mode == "plain_text":
            headers["Content_Type"] = "text/plain"
        if self.kind == "speke":
            headers["X_Speke_Version"] = "1.0" if mode == "version" else handler.headers["X-Speke-Version"]
        time.sleep(self.rng.uniform(0, 0.03))
        if mode == "late":
            self._idle(handler, ANSWER / 1000 * 2)
        if mode == "slow":
            time.sleep(self.rng.uniform(0.02, ANSWER / 1000 * 0.4))
        if mode == "half":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text[:len(text) // 2])
            handler.close_connection = True
        elif mode == "drip":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text))
            for n in range(40):
                if gone(handler.connection):
                    break
                handler.wfile.write(text[n:n + 1])
                time.sleep(0.1)
            handler.close_connection = True
        else:
            handler.reply(200, text, **headers)

    def _fill(self, question, doc, mode):
        made = {"slow": "good", "plain_text": "good", "late": "good", "half": "good", "drip": "good", "other_iv": "good", "of_other_scheme": "good",
                "taken_kid": "good"}.get(mode, mode)
        if self.kind == "speke":
            text = speke_answer(doc, made)[0]
            for keys in question.keys("speke"):
                if mode == "other_iv" or not has_iv(keys.kid):
                    given = b64(iv_of(keys.kid.hex())).encode()
                    fresh = b' explicitIV="' + b64(iv_of("other" + keys.kid.hex())).encode() + b'"' if mode == "other_iv" else b""
                    text = text.replace(b' explicitIV="' + given + b'"', fresh)
                if mode == "of_other_scheme":
                    text = text.replace(b64(keys.key).encode(), b64(self._other(question, keys).key).encode())
            return text
        text = json_answer(doc, made)
        for keys in question.keys("json"):
            if mode == "other_iv":
                text = text.replace(iv_of(keys.kid.hex()).hex().encode(), iv_of("other" + keys.kid.hex()).hex().encode())
            elif not has_iv(keys.kid):
                text = text.replace(b', "iv": "' + iv_of(keys.kid.hex()).hex().encode() + b'"', b"").replace(
                    b'"iv": "' + iv_of(keys.kid.hex()).hex().encode() + b'", ', b"")
            if mode == "changed":
                text = text.replace(keys.key.hex().encode(), key_of(keys.kid.hex(), "second").hex().encode())
            if mode == "of_other_scheme":
                text = text.replace(keys.key.hex().encode(), self._other(question, keys).key.hex().encode())
            if mode == "taken_kid":
                text = text.replace(keys.kid.hex().encode(), self._other(question, keys).kid.hex().encode())
        return text

    def _other(self, question, keys):
        label = next(x for x in question.labels if truth(self.kind, question.asset, question.epoch, question.scheme, x) == keys)
        return truth(self.kind, question.asset, question.epoch, OTHER[question.scheme], label)


def contexts(right, wrong):
    out = {}
    for name, pair in (("right", right), ("wrong", wrong)):
        out[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        out[name].load_cert_chain(*pair)
    return out
