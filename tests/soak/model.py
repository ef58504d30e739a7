"""What the server may answer: the states of media, epochs and configuration over time, and the bytes that follow from them.

Every change takes a while from outside: between its begin and its end the state before and the one after are both allowed. What is
served is derived here from the documents (docs/keys.md, ISO/IEC 23001-7); the rewritten boxes around the samples come from `sluice
encrypt`, whose output is decrypted with the openssl command and compared with the clear samples before anything is held against it.
"""
import collections
import concurrent.futures
import hashlib
import hmac
import math
import re
import struct
import subprocess
import threading
import time

from judge import aes, boxes
from judge.server import Server

REVALIDATE_S = 0.2
# A change of a file may go unnoticed for 8 x revalidate (docs/internals/catalogue.md); then it is opened, on a busy machine.
STALE_S = 8 * REVALIDATE_S + 2.5
GRACE_SLACK_S = 0.6  # the end of a grace window: clocks of a turn, rounding
SECRETS = [bytes(range(100, 132)), bytes(range(7, 47))]
KEEP_S = 300
RECORD_EPOCHS = 2000
RECORDS = "records/r"  # this asset has records, all others have derived keys


def _text(s):
    b = s.encode()
    return struct.pack(">I", len(b)) + b


def keys_of(asset, epoch, scheme, secret, label=""):
    """(kid, key, cbcs IV) as docs/keys.md derives them from SECRETS[secret], or of the record."""
    if asset == RECORDS:
        h = hashlib.sha512(f"{asset}/{scheme}/{epoch}".encode()).digest()
        return h[:16], h[16:32], h[32:48]
    prk = hmac.new(b"sluice keys v1", SECRETS[secret], hashlib.sha256).digest()

    def out(purpose):
        info = purpose + _text(asset) + struct.pack(">I", epoch) + _text(scheme) + _text(label)
        return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()[:16]

    kid = bytearray(out(b"sluice kid v1"))
    kid[6], kid[8] = 0x80 | kid[6] & 0x0F, 0x80 | kid[8] & 0x3F
    return bytes(kid), out(b"sluice key v1"), out(b"sluice iv v1")


def keys_file(work):
    lines = [f"derive: {{ secret_file: '{work}/master.key' }}", "keys:"]
    for epoch in range(1, RECORD_EPOCHS + 1):
        for scheme in ("cenc", "cbcs"):
            kid, key, iv = (x.hex() for x in keys_of(RECORDS, epoch, scheme, 0))
            given = f", iv: '{iv}'" if scheme == "cbcs" else ""
            lines.append(f"  - {{ asset: {RECORDS}, epoch: {epoch}, scheme: {scheme}, kid: '{kid}', key: '{key}'{given} }}")
    return "\n".join(lines) + "\n"


class Timeline:
    """A value over time."""

    def __init__(self, value):
        self.changes = collections.deque([(-math.inf, -math.inf, value)])  # (begin, end, value from then on)

    def begin(self, value):
        """The change to `value` is about to be made."""
        self.changes.append((time.monotonic(), math.inf, value))
        while len(self.changes) > 2 and self.changes[1][1] < time.monotonic() - KEEP_S:
            self.changes.popleft()

    def end(self):
        """It has been made."""
        begin, _, value = self.changes[-1]
        self.changes[-1] = (begin, time.monotonic(), value)

    def now(self):
        return self.changes[-1][2]

    def during(self, a, b):
        """The values that it may have had between two moments, the newest first."""
        changes = list(self.changes)
        ends = [end for _, end, _ in changes[1:]] + [math.inf]
        return [value for (begin, _, value), end in zip(changes, ends) if begin <= b and end >= a][::-1]

    def changed(self, a, b):
        return any(begin <= b and end >= a for begin, end, _ in list(self.changes)[1:])


Rotation = collections.namedtuple("Rotation", "begin end scope grace revoke")


class Epochs:
    """docs/keys.md: event number k of those that cover an asset ends epoch k; a revoking one ends everything before it."""

    def __init__(self):
        self.rotations = []

    def of(self, asset):
        return [r for r in self.rotations if r.scope in ("", asset) or (r.scope.endswith("/") and asset.startswith(r.scope))]

    def current(self, asset, a, b):
        """(least, most) of the current epoch between two moments."""
        mine = self.of(asset)
        return 1 + sum(r.end < a for r in mine), 1 + sum(r.begin <= b for r in mine)

    def states(self, asset, epoch, a, b):
        """Which of "unknown", "ok" and "gone" the epoch may have been."""
        mine, out = self.of(asset), set()
        born = mine[epoch - 2] if 2 <= epoch <= len(mine) + 1 else None
        if epoch < 1 or epoch > len(mine) + 1:
            return {"unknown"}
        if born and a <= born.end:
            out.add("unknown")
        if born and b < born.begin:
            return out
        low = high = math.inf
        if epoch <= len(mine):
            last = mine[epoch - 1]
            low, high = last.begin + last.grace - GRACE_SLACK_S, last.end + last.grace + GRACE_SLACK_S
        for r in mine[epoch - 1:]:
            if r.revoke:
                low, high = min(low, r.begin), min(high, r.end)
        if b >= low:
            out.add("gone")
        if a <= high:
            out.add("ok")
        return out


Config = collections.namedtuple("Config", "target_s free_clear keepalive secret", defaults=[0])


def allowed(config, asset, scheme):
    return scheme in ("cenc", "cbcs") or (asset.startswith("free/") and config.free_clear)


class Whole:
    """A virtual file and its pieces."""

    def __init__(self, data):
        sidx = boxes.one(data, b"sidx")
        _, at, references, _ = boxes.sidx_references(data, sidx)
        self.data, self.init, self.segments, self.digest = data, data[:sidx.start], [], hashlib.sha256(data).digest()
        for size, _ in references:
            self.segments.append(data[at:at + size])
            at += size
        if at != len(data):
            raise ValueError(f"sidx covers {at} of {len(data)} bytes")

    def piece(self, kind, n):
        if kind == "seg":
            return self.segments[n - 1] if 1 <= n <= len(self.segments) else None
        return self.init if kind == "init" else self.data


def openssl_ecb(key, data, decrypt=False):
    p = subprocess.run(["openssl", "enc", "-aes-128-ecb", "-nopad", "-K", key.hex(), "-d" if decrypt else "-e"], input=data,
                       capture_output=True, check=True)
    return p.stdout


def xor(a, b):
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def decrypted(track, key):
    """The clear samples, from ISO/IEC 23001-7 and AES in ECB mode alone."""
    out = []
    if track.scheme == b"cenc":
        counts = [(s.size + 15) // 16 for s in track.samples]
        stream = openssl_ecb(key, b"".join(s.iv + n.to_bytes(8, "big") for s, c in zip(track.samples, counts) for n in range(c)))
        at = 0
        for s, c in zip(track.samples, counts):
            out.append(xor(s.data, stream[at:at + s.size]) if s.size else b"")
            at += 16 * c
        return out
    whole = [s.size // 16 * 16 for s in track.samples]
    plain = openssl_ecb(key, b"".join(s.data[:n] for s, n in zip(track.samples, whole)), True)
    at = 0
    for s, n in zip(track.samples, whole):
        out.append((xor(plain[at:at + n], (track.tenc.constant_iv + s.data)[:n]) if n else b"") + s.data[n:])
        at += n
    return out


def check_openssl():
    """The decrypter beside AES in plain Python."""
    key, iv, data = bytes(range(16)), bytes(range(16, 24)), bytes(range(77))
    s = boxes.Sample()
    s.size, s.iv, s.data = 77, iv, aes.cenc(aes.Aes128(key), iv, data)
    t = boxes.Track()
    t.samples, t.scheme = [s], b"cenc"
    good = decrypted(t, key) == [data]
    s.data = aes.cbcs(aes.Aes128(key), iv * 2, data)
    t.scheme, t.tenc = b"cbcs", boxes.Tenc(1, 0, 0, 1, 0, b"", iv * 2)
    return good and decrypted(t, key) == [data]


class Expectations:
    """The virtual files that versions of tracks have; made when they are first needed, kept while they are used."""

    MOST = 600

    def __init__(self, sluice, work):
        self.sluice, self.work = sluice, work / "expected"
        self.lock, self.made, self.clear_servers = threading.Lock(), collections.OrderedDict(), {}
        self.judged = 0
        self.faults = []  # what is wrong without any server
        (self.work / "media").mkdir(parents=True)

    def close(self):
        for server in self.clear_servers.values():
            server.stop()

    def get(self, version, asset, scheme, epoch, config):
        """A Whole, or None: damaged."""
        keys, target_s = (None, None, None) if scheme == "clear" else keys_of(asset, epoch, scheme, config.secret), config.target_s
        name = (version.id, keys[0], scheme, target_s)
        with self.lock:
            mine = name not in self.made
            future = self.made.setdefault(name, concurrent.futures.Future())
            self.made.move_to_end(name)
            while len(self.made) > self.MOST and next(iter(self.made.values())).done():
                self.made.popitem(last=False)
        if mine:
            try:
                future.set_result(self._clear(version, target_s) if scheme == "clear" else self._make(version, scheme, keys, target_s))
            except (ValueError, IndexError, KeyError, OSError, struct.error, subprocess.SubprocessError) as e:
                self.faults.append(f"{version} {scheme}: cannot be judged: {e!r}")
                future.set_result(None)
        return future.result()

    def known(self):
        with self.lock:
            return [(name, f.result()) for name, f in self.made.items() if f.done() and f.result()]

    def _path(self, version):
        path = self.work / "media" / f"v{version.id}" / ("t" if version.folder else "t.mp4")
        with self.lock:
            if not path.parent.exists():
                fresh = self.work / f"fresh-{version.id}"
                fresh.mkdir()
                version.write(fresh / path.name)
                fresh.rename(path.parent)
        return path

    def _make(self, version, scheme, keys, target_s):
        kid, key, iv = keys
        target = self.work / f"{version.id}-{kid.hex()}-{target_s}.mp4"
        r = self.sluice("encrypt", self._path(version), target, "--scheme", scheme, "--kid", kid.hex(), "--key", key.hex(), "--drm", "common",
                        "--segment", str(target_s), *(["--iv", iv.hex()] if scheme == "cbcs" else []))
        if r.code == 1 and "Sanitizer" not in r.err:
            return None
        if r.code:
            raise ValueError(f"sluice encrypt: {r}")
        data = target.read_bytes()
        target.unlink()
        locked, clear = boxes.audio(data), boxes.audio(version.data)
        if (locked.scheme, locked.tenc.kid) != (scheme.encode(), kid) or (scheme == "cbcs" and locked.tenc.constant_iv != iv):
            raise ValueError(f"another scheme, KID or IV: {locked.tenc}")
        if decrypted(locked, key) != [s.data for s in clear.samples]:
            raise ValueError("what is decrypted is not the clear samples")
        self.judged += 1
        return Whole(data)

    def _clear(self, version, target_s):
        with self.lock:
            if target_s not in self.clear_servers:
                self.clear_servers[target_s] = Server(self.sluice.path, self.work / "media", "--clear", "--segment-target", f"{target_s}s",
                                                      "--cache-encrypted", "off", "--negative-ttl", "0", "--workers", "1").__enter__()
            server = self.clear_servers[target_s]
        self._path(version)
        r = server.get(f"/v{version.id}/clear/1/t.mp4")
        if r.status == 404:
            return None
        if r.status != 200 or [s.data for s in boxes.audio(r.body).samples] != [s.data for s in boxes.audio(version.data).samples]:
            raise ValueError(f"clear: {r}")
        self.judged += 1
        return Whole(r.body)


def spans(text, size):
    """The byte ranges that a Range header asks for: [(first, last)], [] when none can be satisfied, None: the whole."""
    m = re.fullmatch(r"bytes=((?:\d*-\d*)(?:,\d*-\d*)*)", text)
    if not m:
        return None
    out, total = [], 0
    for item in m.group(1).split(","):
        first, _, last = item.partition("-")
        if first:
            if last and int(last) < int(first):
                return None
            a, b = int(first), min(int(last), size - 1) if last else size - 1
        else:
            a, b = max(0, size - int(last)), size - 1
            if int(last) == 0:
                continue
        if a >= size:
            continue
        total += b - a + 1
        if total > size:
            return None
        out.append((a, b))
    return out


def parts_of(body, boundary):
    """[(Content-Range, bytes)] of a multipart/byteranges body."""
    out, at = [], 0
    while True:
        if body[at:at + 2] == b"\r\n":
            at += 2
        mark = b"--" + boundary
        if body[at:at + len(mark)] != mark:
            raise ValueError(f"no boundary at {at}")
        at += len(mark)
        if body[at:at + 2] == b"--":
            if body[at + 2:].strip():
                raise ValueError("bytes behind the last part")
            return out
        end = body.index(b"\r\n\r\n", at)
        given = re.search(rb"(?i)content-range: (bytes (\d+)-(\d+)/\d+)", body[at:end])
        at = end + 4
        n = int(given.group(3)) - int(given.group(2)) + 1
        out.append((given.group(1).decode(), body[at:at + n]))
        at += n


class Tags:
    """One entity tag, one body. Of whole virtual files also: one file, one tag. The bytes of a piece may be those of other versions too,
    whose tag is another one, but all tags of a virtual file begin alike."""

    def __init__(self):
        self.lock, self.bodies, self.tags = threading.Lock(), {}, {}

    def see(self, ask, whole, body, tag):
        """What is wrong with the tag of a body, or None."""
        digest = hashlib.sha256(body).digest()
        name = ask.asset, ask.scheme, ask.epoch, ask.track, whole.digest
        with self.lock:
            if self.bodies.setdefault((ask.path, tag), digest) != digest:
                return f"the entity tag {tag} stands for two bodies"
            if ask.kind == "file" and self.tags.setdefault(name, tag[:17]) != tag[:17]:
                return f"one resource has the entity tags {tag} and {self.tags[name]}…"
        return None

    def differs(self, ask, whole, tag):
        """Whether a tag is of another virtual file; None: not known."""
        known = self.tags.get((ask.asset, ask.scheme, ask.epoch, ask.track, whole.digest))
        return None if known is None else tag[:17] != known


def answers(ask, whole, body, tags):
    """[(status, body or [(Content-Range, bytes)])]: what this version of the resource may give."""
    h, out = ask.headers, []
    if "If-Match" in h:
        other = h["If-Match"] == '"none"' or tags.differs(ask, whole, h["If-Match"])
        out += [(412, None)] if other is not False else []
        if other:
            return out
    if "If-None-Match" in h:
        other = h["If-None-Match"] != "*" and (h["If-None-Match"] == '"none"' or tags.differs(ask, whole, h["If-None-Match"]))
        out += [(304, b"")] if not other else []
        if other is False:
            return out
    wanted = spans(h["Range"], len(body)) if "Range" in h else None
    other = "If-Range" in h and (h["If-Range"] == '"none"' or tags.differs(ask, whole, h["If-Range"]))
    if wanted is None or other or other is None:
        out.append((200, body))
    if wanted is not None and not other:
        out.append((206, [(f"bytes {a}-{b}/{len(body)}", body[a:b + 1]) for a, b in wanted]) if wanted else (416, b""))
    return out


def fits(ask, whole, body, tags):
    """None when the response is what this version of the resource gives, else what differs."""
    r = ask.response
    may = dict(answers(ask, whole, body, tags))
    if r.status not in may:
        return f"status {r.status}, not {list(may)}"
    want, length = may[r.status], int(r["content-length"] or 0)
    if r.status == 412:
        return None
    if r.status == 206 and len(want) > 1:
        m = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", r["content-type"])
        if not m:
            return f"Content-Type {r['content-type']!r}"
        return None if ask.method == "HEAD" or parts_of(r.body, m.group(1).encode()) == want else "the parts differ"
    if r.status == 206:
        if r["content-range"] != want[0][0]:
            return f"Content-Range {r['content-range']!r}, not {want[0][0]!r}"
        want = want[0][1]
    if r.status == 416 and r["content-range"] != f"bytes */{len(body)}":
        return f"Content-Range {r['content-range']!r} of {len(body)} bytes"
    if r.status != 304 and length != len(want):
        return f"Content-Length {length}, not {len(want)}"
    if ask.method != "HEAD" and r.body != want:
        at = next(i for i, (x, y) in enumerate(zip(r.body + b"\0", want + b"\1")) if x != y)
        return f"the bytes differ from {at} of {len(want)} on"
    return tags.see(ask, whole, body, r["etag"]) if r.status == 200 and ask.method == "GET" else None


class World:
    def __init__(self, expectations):
        self.expect, self.epochs, self.tags = expectations, Epochs(), Tags()
        self.tracks = {}  # (asset, track) -> Timeline of Version or None
        self.config = Timeline(Config(1, True, 0))
        self.flood = Timeline(False)
        self.nothing = Timeline(None)
        self.failing = Timeline(False)  # whether calls of the server's fail
        self.stale_s = STALE_S

    def end_failing(self):
        self.failing.end()
        self.failing.begin(False)
        self.failing.end()

    def fails(self, a, b):
        """Whether a call of the server's may have failed between two moments."""
        return True in self.failing.during(a, b)

    def track(self, asset, track):
        return self.tracks.get((asset, track), self.nothing)

    def of_asset(self, asset):
        return {t: line for (a, t), line in self.tracks.items() if a == asset}

    # ---- answers

    def wrong(self, ask):
        """None when a whole response is one that may be, else what is wrong with it."""
        r, a, b = ask.response, ask.sent, ask.got
        if r.status == 503 and self.fails(a - self.stale_s, b):
            return None
        if r.status == 503 and r["content-length"] == "0":
            return None if self.flood.changed(a - 3, b) or True in self.flood.during(a - 3, b) else "refused for too many connections"
        if ask.kind == "seg" and ask.n == 0:
            return None if r.status == 404 else f"status {r.status} for segment 0"
        configs = self.config.during(a, b)
        good = [c for c in configs if allowed(c, ask.asset, ask.scheme)]
        if r.status == 403:
            return None if len(good) < len(configs) else "403 for a scheme that is allowed"
        if not good:
            return f"status {r.status} for a scheme that is not allowed"
        if ask.kind in ("master", "mpd"):
            return self._manifest(ask, good)
        states = self.epochs.states(ask.asset, ask.epoch, a, b)
        if r.status == 410:
            return None if "gone" in states else f"410 for an epoch that is {states}"
        line = self.track(ask.asset, ask.track)
        if r.status == 503:
            return None if line.changed(a - self.stale_s, b) else "503 and the track has not changed"
        if r.status == 404 and "unknown" in states:
            return None
        if "ok" not in states:
            return f"status {r.status} for an epoch that is {states}"
        return self._track(ask, good, line.during(a - self.stale_s, b))

    def _track(self, ask, configs, versions):
        r, why = ask.response, []
        for version in versions:
            for config in {(c.target_s, c.secret): c for c in configs}.values():
                whole = version and self.expect.get(version, ask.asset, ask.scheme, ask.epoch, config)
                if ask.kind == "media":
                    fault = self._media(ask, whole, config) if whole else "no such track"
                else:
                    body = whole.piece(ask.kind, ask.n) if whole else None
                    fault = "no such resource" if body is None else fits(ask, whole, body, self.tags)
                if fault is None or (fault.startswith("no such") and r.status == 404):
                    return None
                why.append(f"as {version}, {config}: {fault}")
        return f"status {r.status}, {len(r.body)} bytes: " + "; ".join(why) + self._whose(r)

    def _whose(self, r):
        """Where the bytes of a wrong response come from, for whoever has to find out."""
        if r.status not in (200, 206) or len(r.body) < 64:
            return ""
        for (version, kid, scheme, target), whole in self.expect.known():
            if r.body in whole.data:
                return f"; the bytes are of version {version}, KID {kid and kid.hex()}, {scheme}, segments of {target} s"
        return "; the bytes are of nothing that is known"

    def _media(self, ask, whole, config):
        r = ask.response
        if r.status != 200 or ask.method == "HEAD":
            return None if r.status == 200 else f"status {r.status}, not 200"
        text = r.body.decode()
        segments = re.findall(r"(?m)^(\d+)\.m4s$", text)
        if segments != [str(n) for n in range(1, len(whole.segments) + 1)] or "#EXT-X-ENDLIST" not in text:
            return f"a playlist of {len(segments)} segments, not {len(whole.segments)}"
        kid = ask.scheme != "clear" and keys_of(ask.asset, ask.epoch, ask.scheme, config.secret)[0].hex()
        named = {k.lower() for k in re.findall(r"KEYID=0x(\w+)", text)}
        return None if named <= {kid} else f"a playlist that names the KIDs {named}, not {kid}"

    def _manifest(self, ask, configs):
        r, a, b = ask.response, ask.sent, ask.got
        lines = self.of_asset(ask.asset)
        changed = any(line.changed(a - self.stale_s, b) for line in lines.values())
        low, high = self.epochs.current(ask.asset, a, b)
        good, sure = set(), set()  # tracks that may, and that must be there
        for track, line in lines.items():
            versions = line.during(a - self.stale_s, b)
            whole = [v and bool(self.expect.get(v, ask.asset, ask.scheme, high, configs[0])) for v in versions]
            good |= {track} if any(whole) else set()
            sure |= {track} if all(whole) else set()
        if r.status == 503:
            return None if changed else "503 and no track has changed"
        if r.status == 404:
            return None if not sure else f"404 with the tracks {sure}"
        if r.status == 304:
            return None if "If-None-Match" in ask.headers else "304 without a condition"
        if r.status != 200:
            return f"status {r.status}"
        if ask.method == "HEAD":
            return None
        text = r.body.decode()
        if ask.kind == "master":
            found = re.findall(r'(?m)^(\d+)/([^/"\n]+)/media\.m3u8$', text)
            epochs, tracks = {int(e) for e, _ in found}, {t for _, t in found}
        else:
            found = re.findall(r' media="(\d+)/[^/"]+/\$Number\$\.m4s"', text)
            epochs, tracks = {int(e) for e in found}, set(re.findall(r'<Representation id="([^"]+)"', text))
        kids = {k.replace("-", "").lower() for k in re.findall(r'default_KID="([^"]+)"', text)}
        if not found:
            return f"no track in it: {text[:300]!r}"
        if len(epochs) != 1 or not low <= min(epochs) <= high:
            return f"names epoch {epochs}, current is {low} to {high}"
        if not sure <= tracks <= good:
            return f"lists {sorted(tracks)}; may {sorted(good)}, must {sorted(sure)}"
        want = [set() if ask.scheme == "clear" else {keys_of(ask.asset, min(epochs), ask.scheme, c.secret)[0].hex()} for c in configs]
        if ask.kind == "mpd" and kids not in want:
            return f"names the KIDs {kids}, not {want}"
        return None

    def may_cut(self, ask):
        """Whether a response may end before its end."""
        if ask.stalls or self.fails(ask.sent, ask.got) or self.flood.changed(ask.sent - 3, ask.got) or True in self.flood.during(ask.sent - 3, ask.got):
            return True
        return self.track(ask.asset, ask.track).changed(ask.sent - self.stale_s, ask.got)
