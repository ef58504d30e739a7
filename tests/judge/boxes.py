"""A second opinion on fragmented MP4: reads boxes, samples and protection without any code of sluice.

Written from ISO/IEC 14496-12 and 23001-7 only. It is a test's reader: it raises on anything odd.
"""
import struct
from collections import namedtuple

Box = namedtuple("Box", "type start body end")  # byte offsets: of the header, behind the header, behind the box
CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"mfra", b"sinf", b"schi", b"edts"}
AUDIO_ENTRY_BYTES = 28  # SampleEntry (8) and AudioSampleEntry version 0 (20)


class Sample:
    __slots__ = ("offset", "size", "duration", "cts", "time", "data", "iv", "subsamples", "key")

    def __repr__(self):
        return f"Sample(offset={self.offset}, size={self.size}, time={self.time})"


class Track:
    """One track: `samples` in decode order, protection from the init segment."""

    def __init__(self):
        self.id = 0
        self.handler = b""
        self.timescale = 0
        self.entry = b""          # sample entry type as stored
        self.entry_children = []  # [(type, bytes)] of the first entry
        self.format = b""         # original format: frma when protected
        self.scheme = None        # b"cenc" or b"cbcs" when protected
        self.tenc = None
        self.edit_lists = []
        self.defaults = (0, 0, 0, 0)  # trex: description index, duration, size, flags
        self.samples = []
        self.fragments = []       # sample counts per traf


Tenc = namedtuple("Tenc", "version crypt skip protected iv_size kid constant_iv")


def walk(data, start=0, end=None):
    """Yields the boxes in data[start:end]."""
    end = len(data) if end is None else end
    while start < end:
        if end - start < 8:
            raise ValueError(f"{end - start} stray bytes at {start}")
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, body)[0]
            body += 8
        elif size == 0:
            size = end - start
        if size < body - start or start + size > end:
            raise ValueError(f"box {kind!r} at {start} has size {size}, {end - start} bytes are there")
        yield Box(kind, start, body, start + size)
        start += size


def find(data, path, start=0, end=None):
    """All boxes at a path such as b"moov/trak/mdia"."""
    first, _, rest = path.partition(b"/")
    found = [b for b in walk(data, start, end) if b.type == first]
    return [c for b in found for c in find(data, rest, b.body, b.end)] if rest else found


def one(data, path, start=0, end=None):
    found = find(data, path, start, end)
    if len(found) != 1:
        raise ValueError(f"{len(found)} boxes at {path!r}")
    return found[0]


def full(data, box):
    """(version, flags, offset behind them) of a FullBox."""
    word = struct.unpack_from(">I", data, box.body)[0]
    return word >> 24, word & 0xFFFFFF, box.body + 4


def parse_tenc(data, box):
    version, _, p = full(data, box)
    pattern = data[p + 1]
    protected, iv_size = data[p + 2], data[p + 3]
    kid = data[p + 4:p + 20]
    constant = b""
    if protected == 1 and iv_size == 0:
        n = data[p + 20]
        constant = data[p + 21:p + 21 + n]
        if p + 21 + n != box.end:
            raise ValueError("tenc: stray bytes")
    elif p + 20 != box.end:
        raise ValueError("tenc: stray bytes")
    return Tenc(version, pattern >> 4 if version else 0, pattern & 15 if version else 0, protected, iv_size, kid, constant)


def parse_entry(data, track, box, stsd_version):
    track.entry = track.format = box.type
    if track.handler != b"soun":
        return
    version = struct.unpack_from(">H", data, box.body + 8)[0]
    extra = {0: 0, 1: 16, 2: 36}[version] if stsd_version == 0 and box.end - box.body >= AUDIO_ENTRY_BYTES + 16 else 0  # QuickTime's
    for child in walk(data, box.body + AUDIO_ENTRY_BYTES + extra, box.end):
        track.entry_children.append((child.type, data[child.start:child.end]))
        if child.type == b"sinf":
            frma = one(data, b"frma", child.body, child.end)
            track.format = data[frma.body:frma.end]
            schm = one(data, b"schm", child.body, child.end)
            track.scheme = data[schm.body + 4:schm.body + 8]
            track.tenc = parse_tenc(data, one(data, b"schi/tenc", child.body, child.end))


def parse_trak(data, box):
    track = Track()
    tkhd = one(data, b"tkhd", box.body, box.end)
    version, _, p = full(data, tkhd)
    track.id = struct.unpack_from(">I", data, p + (16 if version else 8))[0]
    mdhd = one(data, b"mdia/mdhd", box.body, box.end)
    version, _, p = full(data, mdhd)
    track.timescale = struct.unpack_from(">I", data, p + (16 if version else 8))[0]
    hdlr = one(data, b"mdia/hdlr", box.body, box.end)
    track.handler = data[hdlr.body + 8:hdlr.body + 12]
    track.edit_lists = [data[b.start:b.end] for b in find(data, b"edts/elst", box.body, box.end)]
    stbl = one(data, b"mdia/minf/stbl", box.body, box.end)
    stsd = one(data, b"stsd", stbl.body, stbl.end)
    entries = list(walk(data, stsd.body + 8, stsd.end))
    parse_entry(data, track, entries[0], data[stsd.body])
    stsz = find(data, b"stsz", stbl.body, stbl.end)
    track.progressive = bool(stsz) and struct.unpack_from(">I", data, stsz[0].body + 8)[0] > 0
    return track


def parse_senc(data, box, samples, iv_size):
    _, flags, p = full(data, box)
    count = struct.unpack_from(">I", data, p)[0]
    p += 4
    if count != len(samples):
        raise ValueError(f"senc counts {count}, the truns {len(samples)}")
    for s in samples:
        s.iv = data[p:p + iv_size]
        p += iv_size
        if flags & 2:
            n = struct.unpack_from(">H", data, p)[0]
            s.subsamples = [struct.unpack_from(">HI", data, p + 2 + 6 * i) for i in range(n)]
            p += 2 + 6 * n
    if p != box.end:
        raise ValueError("senc: stray bytes")


def check_aux(data, moof, traf, samples, senc):
    """saiz and saio, when present, must say what senc says."""
    saiz, saio = find(data, b"saiz", traf.body, traf.end), find(data, b"saio", traf.body, traf.end)
    if bool(saiz) != bool(saio):
        raise ValueError("saiz without saio or the reverse")
    if not saiz:
        return
    _, flags, p = full(data, saiz[0])
    p += 8 if flags & 1 else 0
    default, count = struct.unpack_from(">BI", data, p)
    sizes = [default] * count if default else list(data[p + 5:p + 5 + count])
    if count > len(samples):
        raise ValueError("saiz counts more samples than there are")
    version, flags, p = full(data, saio[0])
    p += 8 if flags & 1 else 0
    n = struct.unpack_from(">I", data, p)[0]
    if n != 1:
        return
    offset = struct.unpack_from(">Q" if version else ">I", data, p + 4)[0]
    if senc and moof.start + offset != senc[0].body + 8:
        raise ValueError(f"saio points at {moof.start + offset}, senc's first entry is at {senc[0].body + 8}")
    want = [len(s.iv) + (2 + 6 * len(s.subsamples) if s.subsamples else 0) for s in samples[:count]]
    if senc and samples and sizes != want:
        raise ValueError("saiz disagrees with senc")


def parse_moof(data, moof, tracks, file_start=0):
    previous_end = moof.start
    first = True
    for traf in find(data, b"traf", moof.body, moof.end):
        tfhd = one(data, b"tfhd", traf.body, traf.end)
        _, flags, p = full(data, tfhd)
        track = tracks[struct.unpack_from(">I", data, p)[0]]
        p += 4
        base = moof.start if flags & 0x20000 or first else previous_end
        if flags & 1:
            base = struct.unpack_from(">Q", data, p)[0] + file_start
            p += 8
        first = False
        values = list(track.defaults)
        for bit, i in ((2, 0), (8, 1), (0x10, 2), (0x20, 3)):
            if flags & bit:
                values[i] = struct.unpack_from(">I", data, p)[0]
                p += 4
        tfdt = find(data, b"tfdt", traf.body, traf.end)
        time = track.samples[-1].time + track.samples[-1].duration if track.samples else 0
        if tfdt:
            version, _, p = full(data, tfdt[0])
            time = struct.unpack_from(">Q" if version else ">I", data, p)[0]
        samples = []
        position = base
        for trun in find(data, b"trun", traf.body, traf.end):
            version, flags, p = full(data, trun)
            count = struct.unpack_from(">I", data, p)[0]
            p += 4
            if flags & 1:
                position = base + struct.unpack_from(">i", data, p)[0]
                p += 4
            if flags & 4:
                p += 4
            for _ in range(count):
                s = Sample()
                s.duration, s.size, s.cts, s.iv, s.subsamples = values[1], values[2], 0, b"", []
                if flags & 0x100:
                    s.duration = struct.unpack_from(">I", data, p)[0]
                    p += 4
                if flags & 0x200:
                    s.size = struct.unpack_from(">I", data, p)[0]
                    p += 4
                if flags & 0x400:
                    p += 4
                if flags & 0x800:
                    s.cts = struct.unpack_from(">i" if version else ">I", data, p)[0]
                    p += 4
                s.offset, s.time = position, time
                s.data = data[position:position + s.size]
                if position < 0 or len(s.data) != s.size:
                    raise ValueError(f"sample at {position} of {s.size} bytes is not in the file")
                position += s.size
                time += s.duration
                samples.append(s)
            if p != trun.end:
                raise ValueError("trun: stray bytes")
        previous_end = position
        senc = find(data, b"senc", traf.body, traf.end)
        if senc and track.tenc:
            parse_senc(data, senc[0], samples, track.tenc.iv_size)
            check_aux(data, moof, traf, samples, senc)
        track.samples += samples
        track.fragments.append(len(samples))


def parse(data, starts=(0,)):
    """{track id: Track} of a fragmented file, or init and segments back to back: `starts` is where these files begin."""
    moov = one(data, b"moov")
    tracks = {t.id: t for t in (parse_trak(data, b) for b in find(data, b"trak", moov.body, moov.end))}
    for trex in find(data, b"mvex/trex", moov.body, moov.end):
        values = struct.unpack_from(">5I", data, trex.body + 4)
        if values[0] in tracks:
            tracks[values[0]].defaults = values[1:]
    for moof in find(data, b"moof"):
        parse_moof(data, moof, tracks, max(s for s in starts if s <= moof.start))
    return tracks


def audio(data, starts=(0,)):
    """The only audio track of a file."""
    tracks = [t for t in parse(data, starts).values() if t.handler == b"soun"]
    if len(tracks) != 1:
        raise ValueError(f"{len(tracks)} audio tracks")
    return tracks[0]


def priming(track):
    """The media time at which an edit list starts to present, 0 without one."""
    for elst in track.edit_lists:
        version, count = elst[8], struct.unpack_from(">I", elst, 12)[0]
        for i in range(count):
            time = struct.unpack_from(">q", elst, 24 + 20 * i)[0] if version else struct.unpack_from(">i", elst, 20 + 12 * i)[0]
            if time >= 0:
                return time
    return 0


def sidx_references(data, box):
    """(earliest time, first byte referred to, [(size, duration)]) of a sidx."""
    version, _, p = full(data, box)
    timescale = struct.unpack_from(">I", data, p + 4)[0]
    p += 8
    time, offset = struct.unpack_from(">QQ" if version else ">II", data, p)
    p += 16 if version else 8
    count = struct.unpack_from(">H", data, p + 2)[0]
    p += 4
    references = []
    for i in range(count):
        size, duration = struct.unpack_from(">II", data, p + 12 * i)
        if size >> 31:
            raise ValueError("sidx refers to a sidx")
        references.append((size, duration))
    if p + 12 * count != box.end:
        raise ValueError("sidx: stray bytes")
    return time, box.end + offset, references, timescale
