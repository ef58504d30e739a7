#!/usr/bin/env python3
"""Valid but unusual files (judge/odd.py), by seed, through every command and the server.

    generated.py SLUICE [--seeds FIRST:[END]] [--seconds N] [--keep DIR]

Without options a fixed set of seeds. --seconds goes on from FIRST for so long. What fails says its seed; --keep leaves such files in DIR.
"""
import argparse
import ctypes.util
import concurrent.futures
import hashlib
import hmac
import json
import pathlib
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from golden import made  # noqa: E402
from golden.vectors import SCHEMES, differ, structure_faults  # noqa: E402
from integration.truth import record, url  # noqa: E402
from judge import aes, boxes, odd  # noqa: E402
from judge.programs import FFMPEG, PACKAGER, Sluice, packager_decrypt, packets, run  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

SEEDS = [*range(19), 62]  # the last two for the other programs: ffmpeg and its decoder read 18 right, ffmpeg and shaka-packager 62
BATCH = 24
RANGES = 24
EVERY_REAL = 6  # each such seed has packets of a real codec, which ffmpeg also decodes
CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf"}
OWNED = {b"sinf", b"senc", b"saiz", b"saio", b"sidx", b"ssix", b"mfra", b"pssh"}
DASH = "{urn:mpeg:dash:schema:mpd:2011}"
CONFIG = "clear: true\nschemes: [clear, cenc, cbcs]\nwrite_sidecars: false\n"


class Aes:
    """AES-128 of libcrypto: the plain one takes seconds for such files."""
    library = ctypes.util.find_library("crypto")

    def __init__(self, key):
        c = self.c = ctypes.CDLL(self.library)
        for name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_ecb", "EVP_aes_128_cbc"):
            getattr(c, name).restype = ctypes.c_void_p
        self.key, self.context = key, ctypes.c_void_p(c.EVP_CIPHER_CTX_new())

    def run(self, cipher, iv, data):
        c, out, n = self.c, ctypes.create_string_buffer(len(data) + 16), ctypes.c_int()
        c.EVP_EncryptInit_ex(self.context, ctypes.c_void_p(cipher()), None, self.key, iv)
        c.EVP_CIPHER_CTX_set_padding(self.context, 0)
        if not c.EVP_EncryptUpdate(self.context, out, ctypes.byref(n), data, len(data)) or n.value != len(data):
            raise RuntimeError("libcrypto")
        return out.raw[:n.value]

    def samples(self, scheme, iv, samples):
        if scheme == "cbcs":
            return [self.run(self.c.EVP_aes_128_cbc, iv, s[:len(s) // 16 * 16]) + s[len(s) // 16 * 16:] if len(s) > 15 else s for s in samples]
        first = int.from_bytes(iv, "big")
        counters = b"".join(struct.pack(">QQ", (first + n) % 2**64, i) for n, s in enumerate(samples) for i in range((len(s) + 15) // 16))
        stream, at, out = self.run(self.c.EVP_aes_128_ecb, None, counters), 0, []
        for s in samples:
            out.append((int.from_bytes(s, "big") ^ int.from_bytes(stream[at:at + len(s)], "big")).to_bytes(len(s), "big"))
            at += (len(s) + 15) // 16 * 16
        return out


def ciphertext(scheme, key, iv, samples):
    if Aes.library is not None:
        return Aes(key).samples(scheme, iv, samples)
    plain, first = aes.Aes128(key), int.from_bytes(iv, "big")
    return [aes.cbcs(plain, iv, s) if scheme == "cbcs" else aes.cenc(plain, ((first + n) % 2**64).to_bytes(8, "big"), s) for n, s in enumerate(samples)]


def outline(data, samples):
    """Everything in a file that is none of protection's business, in order: (depth, type, what must stay). Bytes of samples are blank."""
    blank = bytearray(data)
    for s in samples:
        if s.size:
            blank[s.offset:s.offset + s.size] = bytes(s.size)
    out = []

    def level(start, end, depth, parent, stsd_version=0):
        for b in boxes.walk(data, start, end):
            if b.type in OWNED:
                continue
            wide = data[b.start:b.start + 4] == b"\0\0\0\1"
            kind, skip = b.type, None
            if kind in CONTAINERS:
                skip = 0
            elif kind == b"stsd":
                skip = 8
            elif parent == b"stsd":
                version = struct.unpack_from(">H", data, b.body + 8)[0]
                skip, kind = 28 + ({1: 16, 2: 36}.get(version, 0) if not stsd_version else 0), "entry"
            if skip is not None:
                out.append((depth, kind, wide, data[b.body:b.body + skip]))
                inner = b.type
                level(b.body + skip, b.end, depth + 1, inner, data[b.body] if inner == b"stsd" else 0)
                continue
            body = bytes(blank[b.body:b.end])
            if kind == b"tfhd":
                flags = struct.unpack_from(">I", body)[0]
                body = (flags & ~0x20001, body[4:8] + body[16 if flags & 1 else 8:])
            elif kind == b"tfdt":
                body = None  # one may be added; times are compared with the samples
            elif kind == b"trun":
                flags, n = struct.unpack_from(">II", body)
                body = (flags & ~1, n, body[12 if flags & 1 else 8:])
            if body is not None:
                out.append((depth, kind, wide, body))
    level(0, len(data), 0, None)
    return out


def shape(samples):
    return [(s.duration, s.time, s.cts, s.data) for s in samples]


class Case:
    """One seed: its file on storage, and what fails about it."""

    def __init__(self, seed, media, work, content):
        self.odd, self.asset = odd.Odd(seed, content), f"s{seed}"
        self.seed, self.work, self.faults, self.notes, self.checks = seed, work / self.asset, [], [], 0
        self.judges = set()  # other programs that had something to say
        self.work.mkdir()
        self.media = media / self.asset
        self.media.mkdir()
        if self.odd.folder:
            self.source = self.media / "t"
            self.source.mkdir()
            for i, part in enumerate(self.odd.parts):
                (self.source / (f"{i}.m4s" if i else "init.mp4")).write_bytes(part)
        else:
            self.source = self.media / "t.mp4"
            self.source.write_bytes(self.odd.data)
        self.served = {}

    def want(self, good, text):
        self.checks += 1
        if not good:
            self.faults.append(text() if callable(text) else text)
        return good

    def same(self, got, want, text):
        return self.want(got == want, lambda: f"{text}: {first_difference(got, want)}")

    def record(self, scheme):
        kid, key, iv = record(self.asset, scheme)
        return kid, key, iv if self.seed % 2 else None


def first_difference(got, want):
    if isinstance(got, (list, bytes)) and isinstance(want, (list, bytes)):
        i = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        return f"lengths {len(got)}, {len(want)}; at {i} {got[i:i + 1]!r:.300}, want {want[i:i + 1]!r:.300}"
    return f"{got!r:.300}, want {want!r:.300}"


def readable(o):
    """The source as one file, sizes of 0 written out."""
    return b"".join(map(closed, o.parts))


def read_clear(o):
    return boxes.audio(readable(o), [sum(map(len, o.parts[:i])) for i in range(len(o.parts))])


def closed(part):
    """A last box of size 0 gets its size."""
    for b in boxes.walk(part):
        if b.end == len(part) and part[b.start:b.start + 4] == bytes(4):
            return part[:b.start] + struct.pack(">I", b.end - b.start) + part[b.start + 4:]
    return part


def inspect(c, sluice):
    """Property 1: what inspect says is what the generator knows."""
    o = c.odd
    r = sluice("inspect", c.source, "--json")
    if not c.want(r.code == 0, lambda: f"inspect: {r}"):
        return
    j = json.loads(r.out)
    t = j["track"]
    if o.refusal:
        c.want(not t["usable"] and o.refusal in t["why"], lambda: f"inspect says {t}, want {o.refusal!r}")
        return
    if not c.want(t["usable"], lambda: f"inspect: {t}"):
        return
    c.same([t["timescale"], t["samples"], t["fragments"], t["format"]], [o.timescale, len(o.samples), len(o.fragments), o.format.decode()], "inspect: track")
    c.same([t["codecs"], t["channels"], t["sample_rate"]], [o.codecs, o.channels, o.rate], "inspect: codec")
    if o.samples:
        c.same(int(t["start"]) + int(t["duration"]), o.samples[-1].time + o.samples[-1].duration, "inspect: end")
    got = [[(s["offset"] if s["size"] else 0, s["size"], s["duration"], int(s["time"])) for s in f["samples"]] for f in j["fragments"]]
    c.same(got, [[(s.offset if s.data else 0, len(s.data), s.duration, s.time) for s in f.samples] for f in o.fragments], "inspect: samples")
    c.same([f["moof_offset"] for f in j["fragments"]], [f.moof for f in o.fragments], "inspect: moofs")
    top = [(b["type"].encode(), b["offset"], b["size"]) for b in j["boxes"]]
    at, tops = 0, []
    for p in o.parts:
        tops += [(b.type.replace(b"\xa9", b"@"), at + b.start, b.end - b.start) for b in boxes.walk(p)]
        at += len(p)
    c.same(top, tops, "inspect: top-level boxes")


def references(c, data, segments, label):
    """sidx against where segments lie and when they are (8.16.3)."""
    o = c.odd
    sidx = boxes.one(data, b"sidx")
    start, at, refs, timescale = boxes.sidx_references(data, sidx)
    c.same([at, timescale, len(refs)], [sidx.end, o.timescale, len(segments)], f"{label}: sidx")
    c.same(at + sum(n for n, _ in refs), len(data), f"{label}: sidx ends with the file")
    if o.samples:
        skip = skipped(o, segments)
        c.same(start, max(0, o.samples[0].time - skip) + o.delay, f"{label}: sidx's earliest time")
        c.same(start - o.delay + sum(d for _, d in refs), max(0, o.samples[-1].time + o.samples[-1].duration - skip), f"{label}: sidx's end")
    return refs


def skipped(o, segments):
    first = sum(s.duration for f in segments[0] for s in f.samples)
    return o.media_time if o.media_time < first else 0


def encrypt(c, sluice, scheme, key, iv, drm, label, target_s=2):
    """Property 2 for one encryption; returns the bytes, None where there are none."""
    o, target = c.odd, c.work / "out.mp4"
    target.unlink(missing_ok=True)
    kid, key = key
    r = sluice("encrypt", c.source, target, "--scheme", scheme, "--kid", kid, "--key", key, *(("--iv", iv) if iv else ()), *(("--drm", drm) if drm else ()), *(("--segment", target_s) if target_s != 2 else ()))
    if o.refusal:
        c.want(r.code == 1 and o.refusal in r.err and not target.exists(), lambda: f"{label}: {r}, want {o.refusal!r}")
        return None
    if not c.want(r.code == 0, lambda: f"{label}: {r}"):
        return None
    data = target.read_bytes()
    clear_data = readable(o)
    clear, locked = read_clear(o), boxes.audio(data)
    c.same(shape(clear.samples), [(s.duration, s.time, s.cts, s.data) for s in o.samples], "the box reader and the generator agree")
    iv = iv or derived_iv(c, scheme, key)
    if o.samples:
        faults = structure_faults(clear, locked, scheme, iv, kid)
        c.want(not faults, lambda: f"{label}: " + "; ".join(faults))
    want = ciphertext(scheme, bytes.fromhex(key), bytes.fromhex(iv), [s.data for s in o.samples])
    c.same([s.data for s in locked.samples], want, f"{label}: ciphertext")
    c.same(outline(data, locked.samples), outline(clear_data, clear.samples), f"{label}: boxes that are not ours")
    c.same([b.type for b in boxes.walk(data, boxes.one(data, b"moov").body, boxes.one(data, b"moov").end)].count(b"pssh"), len(drm.split(",")) if drm else 0, f"{label}: pssh")
    c.same(boxes.find(data, b"moof/pssh"), [], f"{label}: pssh in moof")
    references(c, data, o.segments(target_s), label)
    decrypt(c, sluice, target, kid, key, label, target_s)
    others(c, target, data, clear_data, kid, key, label)
    return data


def derived_iv(c, scheme, key):
    if scheme == "cbcs":
        return hmac.digest(bytes.fromhex(key), b"sluice cbcs iv v1", "sha256")[:16].hex()
    text = b"sluice cenc iv v1" + hashlib.sha256(c.odd.data).digest() + struct.pack(">I", c.odd.id)
    return hmac.digest(bytes.fromhex(key), text, "sha256")[:8].hex()


def decrypt(c, sluice, target, kid, key, label, target_s):
    o, back = c.odd, c.work / "back.mp4"
    back.unlink(missing_ok=True)
    r = sluice.decrypt(target, back, {kid: key})
    if not c.want(r.code == 0, lambda: f"{label}: decrypt: {r}"):
        return
    data = back.read_bytes()
    t = boxes.audio(data)
    c.same(shape(t.samples), [(s.duration, s.time, s.cts, s.data) for s in o.samples], f"{label}: decrypted samples")
    c.want(t.scheme is None and t.format == o.format, f"{label}: what was decrypted says {t.scheme}, {t.format}")
    c.same(outline(data, t.samples), outline(readable(o), read_clear(o).samples), f"{label}: decrypted boxes")
    references(c, data, o.segments(target_s), f"{label}, decrypted")
    c.served.setdefault("decrypted", {})[label] = data


def ffmpeg_can(o):
    """Of encrypted files it reads one senc and mdat a moof, one sample entry, no moof behind its data, no two samples of one time (such files are
    not tame), no moof without samples, no track and timescale beyond 31 bits."""
    return o.tame and o.entries == 1 and all(f.samples for f in o.fragments) and not (o.several_trafs or o.several_mdats or o.data_first) and max(o.id, o.timescale) < 2**31


def others(c, target, data, clear_data, kid, key, label):
    """ffmpeg and shaka-packager, where they read the clear file right. ffmpeg from a pipe: where it can seek it loses count of what it
    knows of the encryption when a file's moofs are not where a sidx says."""
    o = c.odd
    if not o.samples:
        return
    true = [hashlib.md5(s.data).hexdigest() for s in o.samples if s.data]
    if FFMPEG and ffmpeg_can(o):
        if "ffmpeg" not in c.served:
            c.served["ffmpeg"] = packets(clear_data)
        clear = c.served["ffmpeg"]
        if isinstance(clear, str) or [p.rsplit(",", 1)[1] for p in clear] != true:
            c.notes.append("ffmpeg does not read the clear file right")
        else:
            got = packets(data, key)
            clear, got = ([p.rsplit(",", 1)[1] for p in x] if isinstance(x, list) else x for x in (clear, got))  # times: sidx's, if there is one
            c.judges.add("ffmpeg")
            c.want(got == clear, lambda: f"{label}: ffmpeg: {differ(got, clear)}")
    if PACKAGER:
        theirs = c.work / "theirs.mp4"

        def through(path):
            theirs.unlink(missing_ok=True)
            r = packager_decrypt(path, theirs, kid, key)
            try:
                return r if r.code else [s.data for s in boxes.audio(theirs.read_bytes()).samples]
            except (OSError, ValueError, IndexError, KeyError) as e:
                return repr(e)
        if "packager" not in c.served:
            (c.work / "clear.mp4").write_bytes(clear_data)
            c.served["packager"] = through(c.work / "clear.mp4")
        if c.served["packager"] != [s.data for s in o.samples]:
            c.notes.append("shaka-packager does not read the clear file right")
        else:
            got = through(target)
            if not isinstance(got, list) and got.code and got.code < 0:  # so it does when it is to encrypt such files itself
                c.notes.append("shaka-packager crashes")
                return
            c.judges.add("shaka-packager")
            c.want(got == c.served["packager"], lambda: f"{label}: shaka-packager: {got if not isinstance(got, list) else first_difference(got, c.served['packager'])}")


def commands(c, sluice):
    rng = random.Random(c.seed)
    inspect(c, sluice)
    for scheme in SCHEMES:
        kid, key, iv = c.record(scheme)
        c.served["offline", scheme] = encrypt(c, sluice, scheme, (kid, key), iv, "common", f"{scheme} as served")
        if c.odd.refusal:
            return
    scheme = rng.choice(SCHEMES)
    kid, key = rng.randbytes(16).hex(), rng.randbytes(16).hex()
    iv = rng.choice((None, rng.randbytes(8 if scheme == "cenc" else 16).hex(), "f" * 15 + "8" if scheme == "cenc" else "0" * 32))
    drm = rng.choice((None, "widevine", "playready,common", "widevine,playready,common"))
    target_s = rng.choice((2, 0, 1, 20))
    encrypt(c, sluice, scheme, (kid, key), iv, drm, f"{scheme} --iv {iv} --drm {drm} --segment {target_s}", target_s)
    texts = [d for k, d in c.served.get("decrypted", {}).items()]
    c.want(len({hashlib.sha256(d).digest() for d in texts[:2]}) < 2, "cenc and cbcs do not decrypt to the same bytes")


# the server

def serve(c, client):
    """Property 3: what is served, in each scheme."""
    o = c.odd
    for scheme in ("clear", *SCHEMES):
        path = url(c.asset, scheme, 1, "t.mp4")
        whole = client.get(path)
        if o.refusal:
            c.want(whole.status == 404, lambda: f"{path}: {whole}")
            continue
        if not c.want(whole.status == 200, lambda: f"{path}: {whole}"):
            continue
        data = whole.body
        c.served["whole", scheme] = data
        if scheme == "clear":
            for label, back in list(c.served.get("decrypted", {}).items())[:2]:
                c.same(back, data, f"{label}: decrypted and served clear")
        elif c.served.get(("offline", scheme)):
            c.same(data, c.served["offline", scheme], f"{scheme}: served and encrypted offline")
        pieces(c, client, scheme, data)
        ranges(c, client, path, data)


def pieces(c, client, scheme, data):
    o = c.odd
    base, segments = url(c.asset, scheme, 1, "t"), o.segments()
    init = client.get(f"{base}/init.mp4").body
    parts = [client.get(f"{base}/{n + 1}.m4s") for n in range(len(segments) + 1)]
    if not c.same([p.status for p in parts], [200] * len(segments) + [404], f"{scheme}: segments"):
        return
    parts = [p.body for p in parts[:-1]]
    sidx = boxes.one(data, b"sidx")
    c.same(init + b"".join(parts), data[:sidx.start] + data[sidx.end:], f"{scheme}: init and segments are the whole without sidx")
    c.same([n for n, _ in references(c, data, segments, scheme)], [len(p) for p in parts], f"{scheme}: sidx's sizes")
    all_samples = boxes.audio(data).samples
    at = 0
    for n, (part, fragments) in enumerate(zip(parts, segments)):
        want = [s for f in fragments for s in f.samples]
        got = boxes.audio(init + part).samples
        c.same([(s.duration, s.time, s.cts, s.size) for s in got], [(s.duration, s.time, s.cts, len(s.data)) for s in want], f"{scheme}: segment {n + 1}")
        c.same([(s.data, s.iv) for s in got], [(s.data, s.iv) for s in all_samples[at:at + len(got)]], f"{scheme}: segment {n + 1} and the whole")
        at += len(got)
    playlists(c, client, scheme, segments, data, parts)
    mpds(c, client, scheme, segments, data)


def ranges(c, client, path, data):
    rng = random.Random(c.seed)
    wanted = []
    for _ in range(RANGES):
        a = rng.randrange(len(data))
        b = min(len(data) - 1, a + rng.choice((0, 1, 15, 16, 17, 300, len(data))))
        wanted.append((a, b))
    client.socket.sendall(b"".join(client.request_bytes(path, headers={"Range": f"bytes={a}-{b}"}) for a, b in wanted))
    for a, b in wanted:
        r = client.read()
        c.want(r.status == 206 and r.body == data[a:b + 1], lambda a=a, b=b, r=r: f"{path}: bytes {a} to {b}: {first_difference(r.body, data[a:b + 1])}")


def spans(segments):
    """[(start, end)] of segments in media time, None without samples."""
    out = []
    for fragments in segments:
        samples = [s for f in fragments for s in f.samples]
        out.append((samples[0].time, samples[-1].time + samples[-1].duration) if samples else None)
    return out


def playlists(c, client, scheme, segments, data, parts):
    o, times = c.odd, spans(segments)
    durations = [s.duration for s in o.samples] or [0]
    for name in ("media.m3u8", "byterange.m3u8"):
        r = client.get(url(c.asset, scheme, 1, "t", name))
        if not c.want(r.status == 200, lambda: f"{scheme} {name}: {r}"):
            continue
        text = r.body.decode()
        found = re.findall(r"((?:#EXT-X-DISCONTINUITY\n)?)#EXTINF:([0-9.]+),\n(?:#EXT-X-BYTERANGE:(\d+)@(\d+)\n)?(\S+)\n", text)
        if not c.same(len(found), len(segments), f"{scheme} {name}: segments"):
            continue
        for n, (_, seconds, length, offset, uri) in enumerate(found):
            if name == "byterange.m3u8":
                c.same(data[int(offset):int(offset) + int(length)], parts[n], f"{scheme} {name}: byte range {n + 1}")
            else:
                c.same(uri, f"{n + 1}.m4s", f"{scheme} {name}: URI {n + 1}")
        # A segment lasts until its samples end where a gap of a sample or more follows, else until the next begins (manifests.md, Times).
        for n, (_, seconds, *_) in enumerate(found):
            after = found[n + 1][0] if n + 1 < len(found) else ""
            if not times[n] or n + 1 < len(found) and not times[n + 1]:
                continue
            gap = times[n + 1][0] - times[n][1] if n + 1 < len(found) else 0
            if after or gap > max(durations) or gap < max(1, min(durations)):
                c.want(bool(after) == (gap > 0 and gap >= min(durations)), f"{scheme} {name}: behind segment {n + 1} {after!r}, a gap of {gap}")
            want = (times[n][1] - times[n][0] + (0 if after else gap)) / o.timescale
            c.want(abs(float(seconds) - want) < 3e-6, f"{scheme} {name}: EXTINF {seconds} of segment {n + 1}, want {want}")
        target = int(re.search(r"TARGETDURATION:(\d+)", text)[1])
        c.want(all(int(float(s) + 0.5) <= target for _, s, *_ in found), f"{scheme} {name}: longer than the target duration")


def mpds(c, client, scheme, segments, data):
    o, skip, times = c.odd, skipped(c.odd, segments), spans(segments)
    r = client.get(url(c.asset, scheme, "manifest.mpd"))
    if not c.want(r.status == 200, lambda: f"{scheme} manifest.mpd: {r}"):
        return
    root = ET.fromstring(r.body)
    template = next(root.iter(f"{DASH}SegmentTemplate"))
    c.same(int(template.get("timescale")), o.timescale, f"{scheme} MPD: timescale")
    at, rows = 0, []
    for s in template.iter(f"{DASH}S"):
        at = int(s.get("t", at))
        for _ in range(int(s.get("r", "0")) + 1):
            rows.append((at, at + int(s.get("d"))))
            at += int(s.get("d"))
    if c.same(len(rows), len(segments), f"{scheme} MPD: segments"):
        for n, (row, span) in enumerate(zip(rows, times)):
            if span is None:
                continue
            after = next((t[0] for t in times[n + 1:] if t), span[1])
            want = [max(0, t - skip) + o.delay for t in (*span, after)]
            c.want(row[0] == want[0] and want[1] <= row[1] <= max(want[1:]), f"{scheme} MPD: segment {n + 1} is {row}, want {want}")
    for rep in root.iter(f"{DASH}Representation"):
        c.want(int(rep.get("bandwidth")) > 0 or not sum(s.duration for s in o.samples), f"{scheme} MPD: bandwidth {rep.get('bandwidth')}")
    c.want(root.get("mediaPresentationDuration"), f"{scheme} MPD: no duration")
    r = client.get(url(c.asset, scheme, "ondemand.mpd"))
    if not c.want(r.status == 200, lambda: f"{scheme} ondemand.mpd: {r}"):
        return
    base = next(ET.fromstring(r.body).iter(f"{DASH}SegmentBase"))
    sidx = boxes.one(data, b"sidx")
    c.same(base.get("indexRange"), f"{sidx.start}-{sidx.end - 1}", f"{scheme} ondemand.mpd: indexRange")
    r = client.get(url(c.asset, scheme, "master.m3u8"))
    c.want(r.status == 200 and b"1/t/media.m3u8" in r.body, lambda: f"{scheme} master.m3u8: {r}")


def decoded(data, *options):
    return run(FFMPEG, "-v", "error", "-nostdin", *options, "-f", "mov", "-i", "pipe:0", "-f", "md5", "-", stdin=data)


def decodes(c):
    """What a real codec made, through ffmpeg's decoder: encrypted and clear sound alike, without complaint."""
    if not FFMPEG or not c.odd.content or c.odd.refusal:
        return
    clear, source = (decoded(d) for d in (c.served.get(("whole", "clear"), b""), readable(c.odd)))
    c.want(clear.code == 0 and not clear.err or source.code or source.err, lambda: f"ffmpeg decodes what is served clear: {clear}, the source {source}")
    for scheme in SCHEMES:
        data = c.served.get(("whole", scheme))
        if data and clear.code == 0 and not clear.err and "ffmpeg does not read the clear file right" not in c.notes and ffmpeg_can(c.odd):
            c.judges.add("ffmpeg's decoder")
            r = decoded(data, "-decryption_key", c.record(scheme)[1])
            c.want(r.code == 0 and not r.err and r.out == clear.out, lambda r=r: f"{scheme}: ffmpeg decodes: {r} {r.out}, want {clear.out}")
        elif data:
            c.notes.append("ffmpeg does not decode the clear file without complaint")


def guarded(c, what, *args):
    try:
        what(c, *args)
    except (OSError, EOFError, ValueError, IndexError, KeyError, StopIteration, struct.error, ET.ParseError) as e:
        c.faults.append(f"{what.__name__}: {e!r} at line {e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next else '?'}")
        return False
    return True


def serve_all(cases, server):
    client = server.client()
    for c in cases:
        if not guarded(c, serve, client):
            client.close()
            client = server.client()
    client.close()


def sidecars(tap, sluice, cases, media, keys):
    """Property 4: `index` is idempotent, and with sidecars the server gives the same bytes."""
    def state():
        return {str(p): p.read_bytes() for p in sorted(media.rglob("*.slx"))}
    sluice("index", media)
    first = state()
    good = [c for c in cases if not c.odd.refusal]
    tap.ok(len(first) == len(good), "index: a sidecar for each track that is not refused", f"{len(first)} for {len(good)}: {sorted(first)}")
    sluice("index", media)
    tap.ok(state() == first, "index again: the same sidecars")
    for p in media.rglob("*.slx"):
        p.unlink()
    sluice("index", media)
    tap.ok(state() == first, "index anew: the same sidecars")
    with Server(sluice.path, media, keys=keys, config=CONFIG) as server:
        client = server.client()
        for c in good:
            for scheme in SCHEMES:
                r = client.get(url(c.asset, scheme, 1, "t.mp4"))
                c.want(r.body == c.served.get(("whole", scheme)), lambda: f"{scheme}: with a sidecar other bytes: {first_difference(r.body, c.served.get(('whole', scheme)))}")


def real_contents(work):
    """Sample entries and packets that ffmpeg's encoders make."""
    out = []
    for codec in ("aac", "opus", "flac") if FFMPEG else ():
        path = work / f"{codec}.mp4"
        problem = made.make(path, codec, ["-movflags", "cmaf", "-frag_duration", "500000"], seconds=4)
        if problem:
            raise RuntimeError(problem)
        data = path.read_bytes()
        t, stsd = boxes.audio(data), boxes.one(data, b"moov/trak/mdia/minf/stbl/stsd")
        entry = next(boxes.walk(data, stsd.body + 8, stsd.end))
        out.append((data[entry.start:entry.end], t.timescale, [(s.data, s.duration) for s in t.samples], t.format, {"aac": "mp4a.40.2"}.get(codec, codec), 2, 48000))
    return out


def batch(tap, sluice, seeds, contents, keep):
    with tempfile.TemporaryDirectory(prefix="sluice-generated-") as work:
        work = pathlib.Path(work)
        media = work / "media"
        media.mkdir()
        cases = [Case(s, media, work, contents[s // EVERY_REAL % len(contents)] if contents and s % EVERY_REAL == 0 else None) for s in seeds]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda c: guarded(c, commands, sluice), cases))
        for p in media.rglob("*.slx"):
            p.unlink()
        keys = "\n".join(l for l in keys_text(cases)) + "\n"
        with Server(sluice.path, media, keys=keys, config=CONFIG) as server:
            serve_all(cases, server)
            tap.equal(server.stop(), 0, f"seeds {seeds[0]} to {seeds[-1]}: the server ends with status 0")
        for c in cases:
            guarded(c, decodes)
        sidecars(tap, sluice, cases, media, keys)
        for c in cases:
            said = ", ".join(sorted(set(c.notes)))
            tap.ok(not c.faults, f"seed {c.seed}: {describe(c.odd)}: {c.checks} checks{'; ' + said if said else ''}",
                   "\n".join(c.faults[:12]) + f"\nagain: --seeds {c.seed}:{c.seed + 1} --keep DIR")
            if c.faults and keep:
                shutil.copytree(c.media, keep / c.asset, dirs_exist_ok=True)
        return cases


def keys_text(cases):
    yield "keys:"
    for c in cases:
        for scheme in SCHEMES:
            kid, key, iv = c.record(scheme)
            yield f"  - {{ asset: '{c.asset}', epoch: 1, scheme: {scheme}, kid: '{kid}', key: '{key}'{f', iv: {chr(39)}{iv}{chr(39)}' if iv else ''} }}"


def describe(o):
    if o.refusal:
        return f"refused: {o.refusal}"
    return f"{o.format.decode()}, {'folder' if o.folder else 'file'}, {len(o.fragments)} fragments, {len(o.samples)} samples"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("sluice")
    p.add_argument("--seeds")
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--keep", type=pathlib.Path)
    a = p.parse_args()
    tap, sluice, end = Tap(), Sluice(a.sluice), time.monotonic() + a.seconds
    first, last = (int(n or 0) for n in a.seeds.split(":")) if a.seeds else (0, 0)
    with tempfile.TemporaryDirectory(prefix="sluice-generated-") as work:
        contents = real_contents(pathlib.Path(work))
    cases = [] if a.seeds or a.seconds else batch(tap, sluice, SEEDS, contents, a.keep)
    for name, here in (("ffmpeg", FFMPEG), ("ffmpeg's decoder", FFMPEG), ("shaka-packager", PACKAGER)) if cases else ():
        judged = sum(name in c.judges for c in cases)
        if here:
            tap.ok(judged > 0, f"{name} has judged {judged} of {len(cases)}")
        else:
            tap.skip(f"{name} judges", "it is not here")
    while first < last or time.monotonic() < end:
        until = min(first + BATCH, last) if not a.seconds else first + BATCH
        batch(tap, sluice, range(first, until), contents, a.keep)
        first = until
    tap.end()


if __name__ == "__main__":
    main()
