"""A generated file and what is known of it: for generated.py."""
import ctypes.util
import struct

from integration.truth import record
from judge import aes, boxes, odd

CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf"}
OWNED = {b"sinf", b"senc", b"saiz", b"saio", b"sidx", b"ssix", b"mfra", b"pssh"}


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


def ffmpeg_can(o):
    """Of encrypted files it reads one senc and mdat a moof, one sample entry, no moof behind its data, no two samples of one time (such files are
    not tame), no moof without samples, no track and timescale beyond 31 bits."""
    return o.tame and o.entries == 1 and all(f.samples for f in o.fragments) and not (o.several_trafs or o.several_mdats or o.data_first) and max(o.id, o.timescale) < 2**31
