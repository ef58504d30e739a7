"""Valid fragmented MP4 audio in forms that no packager writes, made from a seed: Odd(seed). It knows what a correct reader finds:
samples with their places and times, fragments, where segments begin. Clauses are of ISO/IEC 14496-12.
"""
import random
import struct

from judge.synth import MATRIX

SYNC, NOT_SYNC = (0x2000000, 0, 0x2400000), (0x1010000, 0x10000)
LIMIT = 300_000  # bytes of samples of one file


class Sample:
    def __init__(self, data):
        self.data = data
        self.duration = self.flags = self.cts = self.time = self.offset = self.fragment = 0


class Fragment:
    """`start` is when it begins: its first sample's time, or what its tfdt or the fragments before say."""
    def __init__(self):
        self.samples, self.moof, self.start, self.subsegment = [], 0, 0, False


def bits(*fields):
    """(value, width) pairs, filled up with zeros."""
    text = "".join(f"{v:0{n}b}" for v, n in fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


class Odd:
    """`data` is the file; `parts` its parts, more than one for a folder of init.mp4 and *.m4s. `refusal`: a word of the sentence with
    which the file is to be refused, None for most. `content` of a real track: (sample entry, timescale,
    [(packet, duration)], format, codecs, channels, rate)."""

    def __init__(self, seed, content=None):
        self.seed, self.rng, self.content = seed, random.Random(f"odd {seed}"), content
        r = self.rng
        self.wide = r.choice((0, 0, 0, 0, 0, 0.02, 0.3))  # how often a box has a 64-bit size
        self.extra = r.choice((0, 0, 0.1, 0.3))           # how often a place has a box that is none of our business, or another oddity
        self.tame = bool(content) or r.random() < 0.5     # no empty samples and the like, which other programs refuse
        if self.tame:
            self.wide = 0
        self.refusal = self.trouble = None
        if not content and r.random() < 0.06:
            self.trouble, self.refusal = r.choice((
                ("ac-4", "AC-4 is not supported"), ("two tracks", "2 tracks in one file"), ("foreign traf", "which is not in moov"),
                ("early mdat", "media data in the init segment"), ("shared data", "two truns share sample data"),
                ("late data", "the fragment before has data behind this moof")))
        self.id = r.choice((1, 1, 1, 2, 77, 0x7FFFFFFF, 0xFFFFFFFF))
        self.folder = self.trouble is None and r.random() < 0.25
        self.timescale = content[1] if content else r.choice((48000, 44100, 8000, 90000, *(() if self.tame else (1000, 600, 1, 10_000_000, 0xFFFFFFFF))))
        self.frame = r.choice((1024, 960, 1536, 4096, *(() if self.tame else (1,)))) if not content else content[2][0][1]
        self.samples, self.fragments, self.packets = [], [], list(content[2]) if content else []
        self.trex = {"size": r.choice((7, 16, 400) if self.tame else (0, 0, 7, 16, 400)), "duration": r.choice((self.frame,) if self.tame else (0, self.frame)), "flags": r.choice((*SYNC, *NOT_SYNC))}
        self.sizes = r.choice((lambda: r.randrange(34), lambda: r.choice((0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 255, 256)), lambda: r.randrange(700),
                               lambda: int(2 ** (r.random() * 16.1)) - 1, lambda: 200))
        self.durations = r.choice((lambda: self.frame, lambda: self.frame, lambda: r.choice((self.frame, self.frame - 1, 2 * self.frame)),
                                   lambda: r.randrange(2 * self.frame)))
        self.all_sync, self.cts = r.random() < 0.85, r.choice((None, None, None, 0, 1))
        self.long_gaps = r.random() < 0.2
        self.clock = r.choice((0, 0, 0, 1, self.frame * 100, 2**32 - 1, 2**32 - 3 * self.frame, 2**40 + 7, *(() if self.tame else (2**62,))))
        self.number, self.bytes_left = r.choice((0, 1, 7, 2**32 - 2)), LIMIT
        self.entries = 1 if content else r.choice((1, 1, 1, 1, 2, 3))
        self.default_entry = r.randrange(self.entries) + 1
        self.indexing = "none" if self.folder else r.choice(("none", "none", "none", "flat", "each", *(() if self.tame else ("tree", "tree"))))
        self.shared = self.several_trafs = self.several_mdats = self.data_first = False
        self.build()
        if self.trouble == "shared data" and not self.shared:
            self.refusal = None
        self.data = b"".join(self.parts)

    # boxes

    def box(self, kind, *parts):
        body = b"".join(parts)
        if self.wide and self.rng.random() < self.wide:
            return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
        return struct.pack(">I4s", len(body) + 8, kind) + body

    def full(self, kind, version, flags, *parts):
        return self.box(kind, struct.pack(">I", version << 24 | flags), *parts)

    def junk(self, most=40):
        return self.rng.randbytes(self.rng.randrange(most))

    def opaque(self, *kinds):
        """A box of one of these kinds, filled as its clause says."""
        r = self.rng
        kind = r.choice(kinds or (b"free", b"skip", b"uuid", b"abcd", b"\xa9xyz"))
        if kind == b"uuid":
            return self.box(kind, r.randbytes(16), self.junk())
        if kind == b"emsg":
            if r.random() < 0.5:
                return self.full(kind, 0, 0, b"urn:x\0v\0", struct.pack(">4I", self.timescale, 0, 10, r.getrandbits(32)), self.junk())
            return self.full(kind, 1, 0, struct.pack(">IQII", self.timescale, self.clock, 10, r.getrandbits(32)), b"urn:x\0v\0", self.junk())
        if kind == b"prft":
            version = int(self.clock >= 2**32 or r.random() < 0.5)
            return self.full(kind, version, 24, struct.pack(">IQ", self.id, r.getrandbits(64)), struct.pack(">Q" if version else ">I", self.clock))
        if kind == b"styp":
            return self.box(kind, b"msdh", bytes(4), b"msdhcmfs")
        if kind == b"udta":
            return self.box(kind, self.box(b"name", self.junk()), self.box(b"\xa9nam", self.junk()))
        if kind == b"meta":
            return self.full(kind, 0, 0, self.full(b"hdlr", 0, 0, bytes(4), b"ID32", bytes(12), b"\0"), self.full(b"ID32", 0, 0, self.junk()))
        if kind == b"sgpd":
            group = r.choice((b"roll", b"prol", b"rap ", b"alst"))
            return self.full(kind, 1, 0, group, struct.pack(">II", 2, 1), b"\xff\xff") + \
                self.full(b"sbgp", 0, 0, group, struct.pack(">III", 1, 1, 0x10001))
        if kind == b"pssh":  # left over from a protection that was taken off: goes
            return self.full(kind, 0, 0, bytes.fromhex("edef8ba979d64acea3c827dcd51d21ed"), struct.pack(">I", 4), b"old!")
        if kind == b"saiz":  # of another kind than Common Encryption's: goes
            return self.full(kind, 0, 1, b"abcd", bytes(4), b"\1", struct.pack(">I", 1)) + self.full(b"saio", 0, 1, b"abcd", bytes(4), struct.pack(">II", 1, 8))
        if kind == b"subs":
            return self.full(kind, 0, 0, struct.pack(">IIH", 1, 1, 0))
        return self.box(kind, self.junk())

    def some(self, *kinds):
        """Mostly nothing, else one or two such boxes."""
        return b"".join(self.opaque(*kinds) for _ in range(2) if self.rng.random() < self.extra / 2)

    def shuffled(self, *parts):
        parts = list(parts)
        if self.rng.random() < self.extra:
            self.rng.shuffle(parts)
        return b"".join(parts)

    # moov

    def codec(self):
        """(type, configuration boxes, channels, rate, what the codecs string begins with)."""
        r, box, full = self.rng, self.box, self.full

        def esds(config, object_type=0x40):
            def tagged(tag, body):
                n = len(body)
                return bytes([tag]) + (b"\x80\x80\x80" if r.random() < 0.5 else b"") + bytes([n]) + body
            decoder = tagged(4, bytes([object_type]) + b"\x15" + bytes(3) + struct.pack(">II", 128000, 128000) + (tagged(5, config) if config else b""))
            return full(b"esds", 0, 0, tagged(3, b"\x00\x01\x00" + decoder + tagged(6, b"\x02")))
        lc = bits((2, 5), (3, 4), (2, 4), (0, 3))
        streaminfo = struct.pack(">HH", 4096, 4096) + bytes(6) + bits((48000, 20), (1, 3), (23, 5), (0, 36)) + bytes(16)
        obus = b"\xf8\x06iamf\0\0" + b"\x00\x08\x01Opus" + bytes(3)
        return r.choice((
            (b"mp4a", esds(lc), 2, 48000, "mp4a.40.2"),
            (b"mp4a", esds(bits((5, 5), (6, 4), (2, 4), (3, 4), (2, 5), (0, 3))), 2, 48000, "mp4a.40.5"),
            (b"mp4a", esds(bits((29, 5), (6, 4), (1, 4), (3, 4), (2, 5), (0, 3))), 2, 48000, "mp4a.40.29"),
            (b"mp4a", esds(bits((2, 5), (6, 4), (2, 4), (0, 3), (0x2B7, 11), (5, 5), (1, 1), (3, 4))), 2, 48000, "mp4a.40.5"),
            (b"mp4a", esds(b"", 0x6B), 2, 48000, "mp4a.6B"),
            (b"Opus", box(b"dOps", struct.pack(">BBHIhB", 0, 2, 312, 44100, 0, 0)), 2, 48000, "opus"),
            (b"Opus", box(b"dOps", struct.pack(">BBHIhB", 0, 6, 312, 48000, 0, 1), b"\4\2\0\4\1\2\3\5"), 6, 48000, "opus"),
            (b"fLaC", full(b"dfLa", 0, 0, struct.pack(">I", 0x80000022), streaminfo), 2, 48000, "flac"),
            (b"fLaC", full(b"dfLa", 0, 0, struct.pack(">I", 34), streaminfo, b"\x84\0\0\x08" + bytes(8)), 2, 48000, "flac"),
            (b"ac-3", box(b"dac3", bits((0, 2), (8, 5), (0, 3), (7, 3), (1, 1), (15, 5), (0, 5))), 6, 48000, "ac-3"),
            (b"ec-3", box(b"dec3", bits((384, 13), (0, 3), (0, 2), (16, 5), (0, 5), (7, 3), (1, 1), (0, 3), (0, 4), (0, 1))), 6, 48000, "ec-3"),
            (b"ec-3", box(b"dec3", bits((768, 13), (0, 3), (0, 2), (16, 5), (0, 5), (7, 3), (1, 1), (0, 3), (0, 4), (0, 1), (1, 8), (16, 8))), 6, 48000, "ec-3"),
            (b"alac", full(b"alac", 0, 0, struct.pack(">IBBBBBBHIII", 4096, 0, 24, 40, 10, 14, 2, 255, 0, 0, 48000)), 2, 48000, "alac"),
            (b"mha1", box(b"mhaC", b"\1\x0b\6\0\2\0\0"), 6, 48000, "mha1.0x0B"),
            (b"mhm1", box(b"mhaC", b"\1\x0d\2\0\1\0"), 2, 48000, "mhm1.0x0D"),
            (b"mhm1", b"", 2, 48000, "mhm1"),
            (b"iamf", box(b"iacb", b"\1", bytes([len(obus)]), obus), 0, None, "iamf.000.000.Opus"),
            (b"ipcm", full(b"pcmC", 0, 0, b"\0\x18"), 2, 48000, "ipcm"),
            (b"dtsx", box(b"udts", bytes(12)), 2, 48000, "dtsx")))

    def entry(self, first):
        r = self.rng
        if self.content:
            self.format, self.codecs, self.channels, self.rate = self.content[3:]
            return self.content[0]
        kind, config, channels, rate, codecs = self.codec()
        if self.trouble == "ac-4":
            kind, config = b"ac-4", self.box(b"dac4", bytes(20))
        if first:
            self.format, self.codecs, self.channels, self.rate = kind, codecs, channels, rate or self.timescale
        version, tail = r.choice(((0, b""),) * 6 + ((1, b""),)) if self.stsd_version else r.choice(((0, b""),) * 8 + (
            (1, struct.pack(">4I", 1024, 1, 2, 2)), (2, struct.pack(">IdI4s4I", 72, 48000.0, channels or 2, b"\x7f\0\0\0", 16, 0, 2, 1024))))
        if first and version == 2:
            self.rate = 48000  # the entry says it
        children = [config] + [c for c in (self.box(b"btrt", struct.pack(">III", 700, 128000, 96000)), self.some(), self.box(b"pasp", struct.pack(">II", 1, 1)),
                                           self.full(b"srat", 0, 0, struct.pack(">I", 48000)), self.full(b"chnl", 0, 0, b"\1\2" + bytes(8)))
                               if r.random() < self.extra]
        wide_rate = 0 if rate is None else rate << 16
        head = bytes(6) + struct.pack(">HHHIHHHHI", 1, version, 0, 0, 3 if version == 2 else channels, 16, 0, 0, wide_rate)
        return self.box(kind, head, tail, self.shuffled(*children))

    def trak(self):
        r, box, full = self.rng, self.box, self.full
        self.stsd_version = int(r.random() < self.extra and not self.content)
        entries = [self.entry(i == 0) for i in range(self.entries)]
        empty = r.choice((b"stsz", b"stz2"))
        stbl = box(b"stbl", full(b"stsd", self.stsd_version, 0, struct.pack(">I", len(entries)), *entries),
                   self.shuffled(full(b"stts", 0, 0, bytes(4)), full(b"stsc", 0, 0, bytes(4)), full(empty, 0, 0, bytes(8) if empty == b"stsz" else b"\0\0\0\x10" + bytes(4)),
                                 full(r.choice((b"stco", b"co64")), 0, 0, bytes(4)), self.some(b"free", b"sgpd", b"abcd")))
        minf = box(b"minf", full(b"smhd", 0, 0, bytes(4)), self.some(b"hdlr") if not self.extra else
                   full(b"hdlr", 0, 0, b"dhlr", b"url ", bytes(12), b"\x05alias") if r.random() < self.extra / 3 else b"",
                   box(b"dinf", full(b"dref", 0, 0, struct.pack(">I", 1), full(b"url ", 0, 1))), stbl)
        v = int(r.random() < 0.3)
        times = struct.pack(">QQ" if v else ">II", 0, 0)
        name = r.choice((b"", b"\0", b"SoundHandler\0", b"n" * 300 + b"\0", "Größe\0".encode(), b"no zero"))
        mdia = box(b"mdia", full(b"mdhd", v, 0, times, struct.pack(">I", self.timescale), struct.pack(">Q" if v else ">I", 0), struct.pack(">HH", 0x55C4, 0)),
                   self.shuffled(full(b"hdlr", 0, 0, bytes(4), b"soun", bytes(12), name), self.some(), full(b"elng", 0, 0, b"en-GB\0") if r.random() < 0.1 else b""), minf)
        v = int(r.random() < 0.3)
        tkhd = full(b"tkhd", v, 7, struct.pack(">QQ" if v else ">II", 0, 0), struct.pack(">II", self.id, 0), struct.pack(">Q" if v else ">I", 0),
                    bytes(8), struct.pack(">HHHH", 0, 0, 0x100, 0), MATRIX, bytes(8))
        return box(b"trak", tkhd, self.shuffled(self.edits(), mdia, self.some(b"udta", b"meta", b"free", b"abcd")))

    def edits(self):
        r = self.rng
        self.media_time, self.delay = 0, 0
        kind = r.choice(("none",) * 6 + ("priming", "delay", "both", "no entries", "only empty", "two"))
        if kind == "none":
            return b""
        v, empty, skip = int(r.random() < 0.5), (r.randrange(1, 5000), -1), (0, r.randrange(3 * self.frame + 1))
        entries = {"priming": [skip], "delay": [empty, (0, 0)], "both": [empty, skip], "no entries": [], "only empty": [empty], "two": [skip, (90, 5)]}[kind]
        media = [t for _, t in entries if t >= 0]
        self.media_time = media[0] if media else 0
        if kind in ("delay", "both"):
            self.delay = (empty[0] * self.timescale + self.movie // 2) // self.movie
        return self.box(b"edts", self.full(b"elst", v, 0, struct.pack(">I", len(entries)), *(struct.pack(">QqHH" if v else ">IiHH", *e, 1, 0) for e in entries)))

    def moov(self):
        r = self.rng
        self.movie, v = r.choice((1000, 600, 48000, 1)), int(r.random() < 0.3)
        mvhd = self.full(b"mvhd", v, 0, struct.pack(">QQ" if v else ">II", 0, 0), struct.pack(">I", self.movie), struct.pack(">Q" if v else ">I", 0),
                         struct.pack(">IH", 0x10000, 0x100), bytes(10), MATRIX, bytes(24), struct.pack(">I", 0xFFFFFFFF))
        trex = [self.full(b"trex", 0, 0, struct.pack(">IIIII", t, self.default_entry if t == self.id else 1, self.trex["duration"], self.trex["size"], self.trex["flags"]))
                for t in (self.id, *([9] if r.random() < self.extra / 2 else []))]
        mehd = self.full(b"mehd", v, 0, struct.pack(">Q" if v else ">I", 0)) if r.random() < self.extra else b""
        mvex = self.box(b"mvex", mehd, self.shuffled(*trex), self.some())
        traks = [self.trak() for _ in range(2 if self.trouble == "two tracks" else 1)]
        return self.box(b"moov", mvhd, self.shuffled(b"".join(traks), mvex, self.some(b"udta", b"meta", b"free", b"abcd", b"iods", b"pssh")))

    # fragments

    def sample(self, like):
        """The next sample. `like`: the defaults in force, which it has where the fragment says so."""
        r = self.rng
        if self.packets:
            data, duration = self.packets.pop(0)
        else:
            least = int(self.tame)
            size = like["size"] if like["same size"] else max(least, min(self.sizes(), self.bytes_left))
            data, duration = r.randbytes(size), like["duration"] if like["same duration"] else max(least, self.durations())
        s = Sample(data)
        s.duration, s.cts = duration, r.choice((0, 5, 512, -512 if self.cts else 512)) if self.cts is not None else 0
        s.flags = like["flags"] if like["same flags"] else r.choice(SYNC if self.all_sync else SYNC + NOT_SYNC)
        self.bytes_left -= len(data)
        return s

    def traf_plan(self, number):
        """A traf as far as it does not depend on places: its defaults, and truns with their samples."""
        r = self.rng
        t = {"tfhd": {}, "truns": [], "entry": r.randrange(self.entries) + 1 if r.random() < 0.3 else None}
        for key, value in (("size", r.choice((3, 16, 31, 400, 0)[:5 - self.tame])), ("duration", r.choice((self.frame, 3, 0)[:3 - self.tame])), ("flags", r.choice(SYNC if self.all_sync else SYNC + NOT_SYNC))):
            if r.random() < 0.4:
                t["tfhd"][key] = value
        like = {**self.trex, **t["tfhd"]}
        if self.all_sync and like["flags"] in NOT_SYNC and r.random() < 0.9:
            like["flags"] = t["tfhd"]["flags"] = SYNC[0]
        for _ in range(r.choice((0, 1, 1, 1, 1, 1, 2, 3)) if self.extra else 1):
            for key in ("size", "duration", "flags"):
                like["same " + key] = r.random() < 0.4 and not (self.content and key != "flags")
            count = r.choice((0, 1, 1, 2, 5, 9, 30)) if self.extra else r.choice((1, 5, 30, 45))
            if like["same size"] and like["size"] < 20 and r.random() < 0.01:
                count = 10_000
            while like["same size"] and count * like["size"] > max(0, self.bytes_left):
                count //= 2
            if self.content:
                count = min(count, len(self.packets))
            samples = [self.sample(like) for _ in range(count)]
            trun = {"samples": samples, "like": dict(like), "first": None, "each": set()}
            for key, get in (("size", lambda s: len(s.data)), ("duration", lambda s: s.duration), ("flags", lambda s: s.flags)):
                if any(get(s) != like[key] for s in samples) or r.random() < 0.1:
                    trun["each"].add(key)
            if samples and "flags" not in trun["each"] and r.random() < 0.15:
                trun["first"] = samples[0].flags = r.choice(SYNC if self.all_sync else SYNC + NOT_SYNC)
            t["truns"].append(trun)
        return t

    def fragment(self, at, part_start):
        """The bytes of one fragment, which begins at `at` of the source."""
        r, f = self.rng, Fragment()
        trafs = [self.traf_plan(i) for i in range(r.choice((1,) * 10 + (2, 3, 0)) if self.extra else 1)]
        if r.random() < 0.03 and self.extra:
            trafs = []
        gap = r.choice((1, self.frame, 5 * self.frame, 3 * min(self.timescale, 10**6))) if self.long_gaps and self.fragments and r.random() < 0.3 else 0
        f.start = self.clock
        self.several_trafs |= sum(any(u["samples"] for u in t["truns"]) for t in trafs) > 1
        first = True
        for t in trafs:
            num = sum(len(u["samples"]) for u in t["truns"])
            if num and first:
                self.clock += gap
                f.start, first = self.clock, False
            elif num and gap:
                gap = -1  # behind the first traf that has samples
            t["time"] = self.clock
            known = self.known_time == self.clock
            t["tfdt"] = None if known and r.random() < 0.1 else int(self.clock >= 2**32 or r.random() < 0.6)
            for u in t["truns"]:
                for s in u["samples"]:
                    s.time, s.fragment = self.clock, len(self.fragments)
                    self.clock += s.duration
                    f.samples.append(s)
            if num:  # what a tfdt of no samples says goes for none
                self.known_time = self.clock
        pieces, follows = self.lay_out(trafs)
        self.number = (self.number + 1) % 2**32
        state = r.getstate()
        moof = self.moof(trafs, {}, follows, 0, 0)
        places, pos = {}, at
        for i, (kind, content) in enumerate(pieces):
            if kind == "moof":
                f.moof = pos
                pos += len(moof)
            elif kind == "mdat":
                where = pos + content[0]
                for key, data in content[1]:
                    if key is not None:
                        places[key] = where
                    where += len(data)
                pos = where
            else:
                pos += len(content)
        after = r.getstate()
        r.setstate(state)
        moof = self.moof(trafs, places, follows, f.moof, part_start)
        assert after == r.getstate(), "the moof's length depends on places"
        for (ti, ui), where in places.items():
            for s in trafs[ti]["truns"][ui]["samples"]:
                s.offset = where
                where += len(s.data)
        self.samples += f.samples
        self.fragments.append(f)
        out, front = b"", None
        for kind, content in pieces:
            if kind == "mdat":
                body = b"".join(d for _, d in content[1])
                n = len(body) + content[0]
                out += (struct.pack(">I4sQ", 1, b"mdat", n) if content[0] == 16 else struct.pack(">I4s", n, b"mdat")) + body
            else:
                out += moof if kind == "moof" else content
                front = len(out) if kind == "sidx" else front
        if front is not None:
            out = out[:front - 12] + struct.pack(">II", len(out) - front, sum(s.duration for s in f.samples) & 0xFFFFFFFF) + out[front - 4:]
        return out

    def lay_out(self, trafs):
        """The fragment's top-level boxes in order, and {run: the run whose data it follows at once}."""
        r = self.rng
        runs = [((ti, ui), b"".join(s.data for s in u["samples"])) for ti, t in enumerate(trafs) for ui, u in enumerate(t["truns"])]
        runs = [x for x in runs if x[1]]
        if r.random() < 0.3 * self.extra:
            r.shuffle(runs)
        mdats, follows = [[]], {}
        for key, data in runs:
            if mdats[-1] and r.random() < 0.5 * self.extra:
                mdats.append([])
            if r.random() < 0.5 * self.extra:
                mdats[-1].append((None, self.junk()))
            if mdats[-1] and mdats[-1][-1][0] is not None:
                follows[key] = mdats[-1][-1][0]
            mdats[-1].append((key, data))
        if r.random() < 0.3 * self.extra:
            mdats[-1].append((None, self.junk()))
        if not runs and r.random() < 0.5:
            mdats = []
        self.several_mdats |= len(mdats) > 1
        pieces = []
        for m in mdats:
            pieces.append(("mdat", (16 if r.random() < self.wide else 8, m)))
            if r.random() < self.extra / 2:
                pieces.append(("box", self.opaque()))
        place = 0 if r.random() > self.extra / 2 else r.randrange(len(pieces) + 1)
        if place:  # data before its moof: what stands before must be the fragment's own, so it begins with data
            pieces = [p for p in pieces if p[0] == "mdat" and any(k is not None for k, _ in p[1][1])] or []
            place = min(place, len(pieces))
            self.data_first |= place > 0
        pieces.insert(place, ("moof", None))
        if place == 0:
            pieces.insert(1, ("box", self.some()))
        pieces.insert(0, ("box", self.some(b"styp", b"prft", b"emsg", b"free", b"uuid", b"abcd", b"styp") if not place else self.some(b"styp")))
        if self.sidx_each:
            pieces.insert(1 if not place else 0, ("sidx", self.sidx([(0, 0)], plain=True)))
        return pieces, follows

    def moof(self, trafs, places, follows, pos, part_start):
        last, out = None, []
        kinds = (b"free", b"uuid", b"abcd", b"meta", b"udta", b"pssh")
        for ti, t in enumerate(trafs):
            body, last = self.traf(ti, t, places, follows, pos, part_start, last)
            out += [body, self.some(*kinds)]
        if self.trouble == "foreign traf" and self.fragments:
            out.append(self.box(b"traf", self.full(b"tfhd", 0, 0x20000, struct.pack(">I", 5)), self.full(b"trun", 0, 0, bytes(4))))
        return self.box(b"moof", self.full(b"mfhd", 0, 0, struct.pack(">I", self.number)), self.some(*kinds), *out)

    def traf(self, ti, t, places, follows, pos, part_start, last):
        """A traf, and the run behind whose data the next one counts from when it names no base; None: not known. 8.8.7."""
        r = self.rng
        mine = [(ti, ui) for ui, u in enumerate(t["truns"]) if any(s.data for s in u["samples"])]

        def end_of(key):
            return places.get(key, 0) + sum(len(s.data) for s in trafs_runs[key])
        trafs_runs = self.runs_of
        trafs_runs.update({(ti, ui): u["samples"] for ui, u in enumerate(t["truns"])})
        modes = ["moof"] * 4 + ["absolute", "both", "absolute"] + (["none"] * 2 if ti == 0 or last else [])
        mode = r.choice(modes)
        at_key = None  # where data goes on without an offset: ("start", run), ("end", run)
        flags, fields = (0x20000 if mode in ("moof", "both") else 0), b""
        base = pos
        if mode in ("absolute", "both"):
            to = r.choice(("part", "moof", "data", "data", "odd"))
            base = {"part": part_start, "moof": pos, "odd": part_start + 5}.get(to)
            if base is None:
                base = places.get(mine[0], 0) if mine else pos
                at_key = ("start", mine[0]) if mine else None
            flags |= 1
            fields += struct.pack(">Q", max(0, base - part_start))
        elif mode == "none" and ti:
            base, at_key = end_of(last), ("end", last)
        if t["entry"]:
            flags, fields = flags | 2, fields + struct.pack(">I", t["entry"])
        for bit, key in ((8, "duration"), (0x10, "size"), (0x20, "flags")):
            if key in t["tfhd"]:
                flags, fields = flags | bit, fields + struct.pack(">I", t["tfhd"][key])
        tfhd = self.full(b"tfhd", 0, flags | (0x10000 if not t["truns"] and r.random() < 0.3 else 0), struct.pack(">I", self.id), fields)
        tfdt = b"" if t["tfdt"] is None else self.full(b"tfdt", t["tfdt"], 0, struct.pack(">Q" if t["tfdt"] else ">I", t["time"]))
        kinds = (b"free", b"uuid", b"abcd", b"sgpd", b"subs", b"meta", b"skip", b"saiz")
        out = [self.some(b"free", b"abcd"), tfhd, self.some(*kinds), tfdt]
        for ui, u in enumerate(t["truns"]):
            key = (ti, ui)
            if key in mine:
                free = at_key == ("start", key) or (at_key and at_key[0] == "end" and follows.get(key) == at_key[1])
                offset = None if free and r.random() < 0.5 else places.get(key, 0) - base
                if self.trouble == "shared data" and offset is not None and key == mine[-1] and len(mine) > 1:
                    offset, self.shared = places.get(mine[0], 0) - base, True
                at_key = ("end", key)
            else:
                offset = r.choice((None, None, 0, 12345))
                at_key = at_key if offset is None else None
            out += [self.trun(u, offset), self.some(*kinds)]
        return self.box(b"traf", *out), at_key[1] if at_key and at_key[0] == "end" else None

    def trun(self, u, offset):
        flags = sum(bit for bit, key in ((0x100, "duration"), (0x200, "size"), (0x400, "flags")) if key in u["each"])
        flags |= (1 if offset is not None else 0) | (4 if u["first"] is not None else 0) | (0x800 if self.cts is not None else 0)
        body = b""
        for s in u["samples"]:
            body += struct.pack(">I", s.duration) if flags & 0x100 else b""
            body += struct.pack(">I", len(s.data)) if flags & 0x200 else b""
            body += struct.pack(">I", s.flags) if flags & 0x400 else b""
            body += struct.pack(">i", s.cts) if flags & 0x800 else b""
        return self.full(b"trun", self.cts or 0, flags, struct.pack(">I", len(u["samples"])), b"" if offset is None else struct.pack(">i", offset),
                         b"" if u["first"] is None else struct.pack(">I", u["first"]), body)

    # the file

    def sidx(self, references, first=0, time=0, kind=0, plain=False):
        """8.16.3. `references`: (bytes, ticks)."""
        wide, self.wide = self.wide, 0 if plain else self.wide
        out = self.full(b"sidx", 1, 0, struct.pack(">IIQQHH", self.id, self.timescale, time, first, 0, len(references)),
                        *(struct.pack(">III", kind << 31 | n, d & 0xFFFFFFFF, 0x90000000) for n, d in references))
        self.wide = wide
        return out

    def build(self):
        r = self.rng
        self.runs_of, self.known_time, self.sidx_each = {}, 0, self.indexing == "each"
        head = self.box(b"ftyp", b"iso6", bytes(4), b"iso6cmfcmp41") + self.some(b"free", b"pdin", b"meta", b"uuid", b"abcd")
        if self.trouble == "early mdat":
            head += self.box(b"mdat", b"early")
        head += self.moov()
        if self.folder:
            head += self.some()
        count = r.choice((1, 2, 3, 5, 8, 13))
        if self.folder:
            return self.build_folder(head, count)
        groups = [r.choice((1, 1, 2, 3)) for _ in range(count)]
        front = 0  # of sidx boxes: their lengths are known before what they say
        if self.indexing in ("flat", "tree"):
            half = (len(groups) + 1) // 2
            layout = [groups] if self.indexing == "flat" else [g for g in (groups[:half], groups[half:]) if g]
            sizes = [len(self.sidx([(0, 0)] * len(g), plain=True)) for g in layout]
            front = sum(sizes) + (len(self.sidx([(0, 0)] * len(layout), plain=True)) if self.indexing == "tree" else 0)
        at, body, spans = len(head) + front, b"", []
        for number in groups:
            start, first = len(body), len(self.fragments)
            for i in range(number):
                body += self.fragment(at + len(body), 0)
                if self.trouble == "late data" and len(self.fragments) == 1:
                    body = body[:-1]  # the last mdat; its bytes come behind the next moof
                self.fragments[-1].subsegment = self.indexing in ("flat", "tree") and i == 0 or self.sidx_each
            spans.append((len(body) - start, sum(s.duration for f in self.fragments[first:] for s in f.samples)))
        if self.trouble == "late data":
            return self.late(head)
        if front:
            leaves, k = [], 0
            for i, g in enumerate(layout):
                refs = spans[k:k + len(g)]
                leaves.append(self.sidx(refs, sum(sizes[i + 1:]) + sum(n for n, _ in spans[:k]), plain=True))
                k += len(g)
            top = b"" if self.indexing == "flat" else self.sidx([(n, 0) for n in sizes], kind=1, plain=True)
            head += top + b"".join(leaves)
        tail = b""
        if r.random() < 0.3:
            entries = b"".join(struct.pack(">QQBBB", f.start, f.moof, 1, 1, 1) for f in self.fragments if f.samples)
            tfra = self.full(b"tfra", 1, 0, struct.pack(">III", self.id, 0, len(entries) // 19), entries)
            tail += self.box(b"mfra", tfra, struct.pack(">I4sII", 16, b"mfro", 0, len(tfra) + 24))
        tail += self.some()
        self.parts = [self.to_end(head + body + tail)]

    def build_folder(self, head, count):
        parts = [self.to_end(head)]
        for _ in range(count):
            start, body = sum(map(len, parts)), b""
            for i in range(self.rng.choice((1, 1, 2))):
                body += self.fragment(start + len(body), start)
                self.fragments[-1].subsegment = i == 0
            parts.append(self.to_end(body + self.some()))
        self.parts = parts

    def late(self, head):
        """Two moofs, then the data of both: 8.8.4 allows it."""
        self.samples, self.fragments = [], []
        wide, self.wide = self.wide, 0

        def moof(number, offset):
            return self.box(b"moof", self.full(b"mfhd", 0, 0, struct.pack(">I", number)), self.box(
                b"traf", self.full(b"tfhd", 0, 0x20000, struct.pack(">I", self.id)), self.full(b"tfdt", 1, 0, struct.pack(">Q", number)),
                self.full(b"trun", 0, 0x201, struct.pack(">IiI", 1, offset, 10))))
        n = len(moof(0, 0))
        self.parts = [head + moof(0, 2 * n + 8) + moof(1, n + 18) + self.box(b"mdat", bytes(20))]
        self.wide = wide

    def to_end(self, part):
        """Sometimes the last box says that it goes to the end: size 0 (4.2.2)."""
        at = last = 0
        while at < len(part):
            last, n = at, struct.unpack_from(">I", part, at)[0]
            at += n if n != 1 else struct.unpack_from(">Q", part, at + 8)[0]
        if part[last + 4:last + 8] in (b"mdat", b"free", b"skip") and struct.unpack_from(">I", part, last)[0] > 1 and self.rng.random() < 0.15:
            return part[:last] + bytes(4) + part[last + 4:]
        return part

    # what follows from it

    def usual_duration(self):
        """That of most samples; where none is that of most, one of the more frequent (votes, as Boyer and Moore count them)."""
        usual = votes = 0
        for s in self.samples:
            if s.duration == usual:
                votes += 1
            elif votes:
                votes -= 1
            else:
                usual, votes = s.duration, 1
        return usual

    def segments(self, target_s=2):
        """[fragments] of each segment: as the source says, else as many as last `target_s` (interface.md, Paths), by their samples or with
        a gap of a sample or more, which then lies between two segments (docs/manifests.md, Times); what lasts no time at the end
        makes none of its own."""
        out, ticks, start, usual, target = [], 0, 0, self.usual_duration(), target_s * self.timescale
        marked = self.folder or self.indexing != "none"
        begins, begin = [], self.clock  # of a fragment without samples: when the next one begins
        for f in reversed(self.fragments):
            begin = f.samples[0].time if f.samples else begin
            begins.insert(0, begin)
        before = None  # where the fragment before ends
        each = [sum(s.duration for s in f.samples) for f in self.fragments]
        for n, (f, begin) in enumerate(zip(self.fragments, begins)):
            lasts = each[n]
            gap = before is not None and begin > before and begin - before >= usual
            if not out or (f.subsegment if marked else (any(each[n:]) or not target) and (ticks >= target or (gap and begin - start >= target))):
                out.append([])
                ticks, start = 0, begin
            out[-1].append(f)
            ticks += lasts
            before = begin + lasts
        return out
