"""Runs `sluice load` on small scenarios, and a proxy that does to responses what a faulty server would."""
import base64
import json
import pathlib
import re
import struct
import threading
import time
import zlib

from golden import made
from judge.listening import Listening
from judge.programs import run
from judge.server import Client

KIDS = {(1, "cenc"): "11" * 16, (1, "cbcs"): "12" * 16, (2, "cenc"): "21" * 16, (2, "cbcs"): "22" * 16}
KEYS = {k: "".join(f"{(17 * i + v[0] + len(v[1]) + ord(v[1][1])) & 255:02x}" for i in range(16)) for v, k in KIDS.items()}
SEGMENT_S = 2


def media(folder, assets, seconds=12, tracks=("aac",)):
    """AAC tracks of as many bit rates, segments of 2 s, each asset of another length: no two files are alike; returns the folder."""
    for n, asset in enumerate(assets):
        for k, track in enumerate(tracks):
            path = pathlib.Path(folder) / asset / f"{track}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            problem = made.make(path, "aac", ["-movflags", "cmaf", "-frag_duration", str(SEGMENT_S * 1000000), "-b:a", f"{128 + 32 * k}k"],
                                seconds=seconds + 0.25 * n)
            if problem:
                raise RuntimeError(problem)
    return folder


def keys_text(assets, epochs=(1,), stale=()):
    """A keys file with one record an asset, epoch and scheme. Epochs in `stale` have the keys of the epoch before."""
    lines = [f"epochs: {{ default: {max(epochs)} }}", "keys:"]
    for n, asset in enumerate(assets):
        for epoch in epochs:
            for scheme in ("cenc", "cbcs"):
                kid, key = kid_key(n, epoch - (epoch in stale), scheme)
                lines.append(f"  - {{ asset: {asset}, epoch: {epoch}, scheme: {scheme}, kid: {kid}, key: {key} }}")
    return "\n".join(lines) + "\n"


def kid_key(asset_number, epoch, scheme):
    kid = KIDS[epoch, scheme]
    return f"{asset_number:02x}" + kid[2:], KEYS[kid][:-2] + f"{asset_number:02x}"


class Load:
    """Writes scenarios into `folder` and runs them."""

    def __init__(self, sluice, folder):
        self.sluice, self.folder, self.count = sluice, pathlib.Path(folder), 0

    def __call__(self, scenario, target, *flags, timeout=120, port=None):
        """Returns the run's Result with .json and .hdr ({tag: {lowest value of a bucket in us: count}}), None when not written."""
        self.count += 1
        files = {x: self.folder / f"load-{self.count}.{x}" for x in ("yaml", "json", "hdr", "html")}
        files["yaml"].write_text(scenario)
        r = run(self.sluice, "load", files["yaml"], "--target", target, "--json", files["json"], "--hdr", files["hdr"], "--html",
                files["html"], *flags, timeout=timeout)
        r.files = files
        r.json = json.loads(files["json"].read_text()) if files["json"].exists() else None
        r.hdr = hdr_log(files["hdr"].read_text()) if files["hdr"].exists() else None
        return r


def under_way(server, asked=20):
    """Returns when a run's requests come, however long it took to start: more than those for manifests."""
    def count():
        return sum(int(n) for n in re.findall(r"(?m)^sluice_requests_total\{.*\} (\d+)", server.admin("/metrics").body.decode()))
    before, end = count(), time.monotonic() + 60
    while count() < before + asked and time.monotonic() < end:
        time.sleep(0.01)


def children(process, num=1):
    """The processes of a generator, once it has so many."""
    kids, end = [], time.monotonic() + 60
    while len(kids) < num and time.monotonic() < end:
        kids = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        time.sleep(0.01)
    return kids


def hdr_log(text):
    """The counts of an HdrHistogram interval log, V2 encoding. tests/load/hdr.py holds this beside the library's reader."""
    out = {}
    for line in text.splitlines():
        if line.startswith("Tag="):
            tag, *_, payload = line[4:].split(",")
            out[tag] = _counts(base64.b64decode(payload))
    return out


def _counts(packed):
    _, length = struct.unpack(">II", packed[:8])
    plain = zlib.decompress(packed[8:8 + length])
    _, n, _, digits, lowest, _, _ = struct.unpack(">IIIIQQd", plain[:40])
    assert (digits, lowest) == (3, 1) and len(plain) == 40 + n
    counts, at, index = {}, 40, 0
    while at < len(plain):
        value = shift = 0
        while True:
            b = plain[at]
            at += 1
            value |= (b if shift == 56 else b & 127) << shift
            shift += 7
            if shift > 56 or b < 128:
                break
        value = (value >> 1) ^ -(value & 1)
        if value < 0:
            index -= value
            continue
        if value:
            bucket = max(0, (index >> 10) - 1)
            counts[(index & 1023 | 1024) << bucket if index >= 2048 else index] = value
        index += 1
    return counts


class Proxy(Listening):
    """Passes requests on, keeps every head, and lets `change(path, response)` alter what comes back (None: as it is)."""

    def __init__(self, port, change=None):
        self.upstream, self.change = port, change or (lambda path, response: None)
        self.heads, self.lock = [], threading.Lock()
        super().__init__()

    def handle(self, s):
        upstream, buffer = Client(self.upstream), b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = s.recv(65536)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                with self.lock:
                    self.heads.append(head)
                method, path, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
                upstream.socket.sendall(head + b"\r\n\r\n")
                response = upstream.read(method == "HEAD")
                with self.lock:
                    self.change(path, response)
                lines = [f"HTTP/1.1 {response.status} {response.reason}"] + [f"{k}: {v}" for k, v in response.headers]
                s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + response.body)
        except (OSError, EOFError):
            pass
        finally:
            upstream.close()
            s.close()
