"""Writes fragmented MP4 with structures that no real file has. Every builder returns (bytes, samples): the file
and the payloads that a correct reader finds in it, in decode order.
"""
import random
import struct

TIMESCALE = 48000
FRAME = 1024  # ticks of a sample


def box(kind, *parts, large=False):
    body = b"".join(parts)
    if large:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full(kind, version, flags, *parts, large=False):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts, large=large)


MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def esds():
    """AAC-LC, 48 kHz, stereo: AudioSpecificConfig 11 90."""
    specific = b"\x05\x02\x11\x90"
    config = b"\x04" + bytes([13 + len(specific)]) + b"\x40\x15" + bytes(3) + struct.pack(">II", 128000, 128000) + specific
    es = b"\x03" + bytes([3 + len(config) + 3]) + b"\x00\x01\x00" + config + b"\x06\x01\x02"
    return full(b"esds", 0, 0, es)


def entry(kind=b"mp4a", children=None):
    return box(kind, bytes(6), struct.pack(">H", 1), bytes(8), struct.pack(">HHHHI", 2, 16, 0, 0, TIMESCALE << 16),
               esds() if children is None else children)


def moov(trex=(1, FRAME, 0, 0), entries=None, track=1, large=False, timescale=TIMESCALE, extra=b"", edits=b"", before=b"", elng=None):
    entries = [entry()] if entries is None else entries
    stbl = box(b"stbl", full(b"stsd", 0, 0, struct.pack(">I", len(entries)), *entries), full(b"stts", 0, 0, bytes(4)),
               full(b"stsc", 0, 0, bytes(4)), full(b"stsz", 0, 0, bytes(8)), full(b"stco", 0, 0, bytes(4)))
    minf = box(b"minf", full(b"smhd", 0, 0, bytes(4)),
               box(b"dinf", full(b"dref", 0, 0, struct.pack(">I", 1), full(b"url ", 0, 1))), stbl)
    mdia = box(b"mdia", full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, timescale, 0, 0x55C4, 0)),
               b"" if elng is None else full(b"elng", 0, 0, elng, b"\0"), full(b"hdlr", 0, 0, bytes(4), b"soun", bytes(12), b"sound\0"), minf)
    tkhd = full(b"tkhd", 0, 7, struct.pack(">IIIII", 0, 0, track, 0, 0), bytes(8), struct.pack(">HHHH", 0, 0, 0x100, 0),
                MATRIX, bytes(8))
    mvhd = full(b"mvhd", 0, 0, struct.pack(">IIII", 0, 0, 1000, 0), struct.pack(">IH", 0x10000, 0x100), bytes(10), MATRIX,
                bytes(24), struct.pack(">I", track + 1))
    mvex = box(b"mvex", full(b"trex", 0, 0, struct.pack(">I", track), struct.pack(">4I", *trex)))
    return box(b"moov", mvhd, before, box(b"trak", tkhd, edits, mdia), extra, mvex, large=large)


FTYP = box(b"ftyp", b"iso6", struct.pack(">I", 0), b"iso6cmfcmp41")


def tfhd(track=1, base=None, sample_duration=None, size=None, default_base=True):
    flags = (0x20000 if default_base else 0)
    body = struct.pack(">I", track)
    if base is not None:
        flags |= 1
        body += struct.pack(">Q", base)
    if sample_duration is not None:
        flags |= 8
        body += struct.pack(">I", sample_duration)
    if size is not None:
        flags |= 0x10
        body += struct.pack(">I", size)
    return full(b"tfhd", 0, flags, body)


def tfdt(time, version=1):
    return full(b"tfdt", version, 0, struct.pack(">Q" if version else ">I", time))


def trun(samples, offset=None, sizes=True, cts=None, version=0, durations=None, flags_each=False):
    """`samples` are payloads; `offset` may be a number or None (no data offset field)."""
    flags = (1 if offset is not None else 0) | (0x200 if sizes else 0) | (0x800 if cts else 0) | \
            (0x100 if durations else 0) | (0x400 if flags_each else 0)
    body = struct.pack(">I", len(samples)) + (struct.pack(">i", offset) if offset is not None else b"")
    for i, s in enumerate(samples):
        body += struct.pack(">I", durations[i]) if durations else b""
        body += struct.pack(">I", len(s)) if sizes else b""
        body += struct.pack(">I", 0x2000000) if flags_each else b""
        body += struct.pack(">i", cts[i]) if cts else b""
    return full(b"trun", version, flags, body)


def moof_of(number, make_trafs, large=False):
    """Builds a moof whose trafs depend on its own length: `make_trafs(moof length)`."""
    def build(length):
        return box(b"moof", full(b"mfhd", 0, 0, struct.pack(">I", number)), *make_trafs(length), large=large)
    return build(len(build(0)))


def payloads(sizes, seed):
    r = random.Random(seed)
    return [r.randbytes(n) for n in sizes]


def plain_fragment(number, samples, time, before=b"", **more):
    moof = moof_of(number, lambda n: [box(b"traf", tfhd(), tfdt(time), trun(samples, n + 8, **more))])
    return before + moof + box(b"mdat", *samples)


def each_size(limit=33, repeat=3):
    """Samples of 0 to 33 bytes, each length after each other one somewhere."""
    sizes = list(range(limit + 1)) * repeat
    random.Random(7).shuffle(sizes)
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        part = payloads(list(range(limit + 1)) + sizes[number::3] if number else list(range(limit + 1)), number)
        out += plain_fragment(number + 1, part, time)
        samples += part
        time += FRAME * len(part)
    return out, samples


def only_tiny():
    """Fragments in which no sample has a whole block, and one whose samples are all empty."""
    out, samples, time = FTYP + moov(), [], 0
    for number, sizes in enumerate(([15, 1, 3], [0, 0, 0, 0], [2] * 40, [0, 16, 0])):
        part = payloads(sizes, number + 50)
        out += plain_fragment(number + 1, part, time)
        samples += part
        time += FRAME * len(part)
    return out, samples


def negative_offsets():
    """mdat before its moof, reached by a negative data offset."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(4):
        part = payloads([100 + 7 * number, 33, 500], number)
        mdat = box(b"mdat", *part)
        out += mdat + moof_of(number + 1, lambda n, m=mdat, p=part, t=time: [
            box(b"traf", tfhd(), tfdt(t), trun(p, 8 - len(m)))])
        samples += part
        time += FRAME * len(part)
    return out, samples


def large_sizes():
    """64-bit sizes of moov, moof and mdat."""
    out, samples, time = FTYP + moov(large=True), [], 0
    for number in range(3):
        part = payloads([80, 81, 82], number)
        out += moof_of(number + 1, lambda n, p=part, t=time: [box(b"traf", tfhd(), tfdt(t), trun(p, n + 16), large=True)],
                       large=True)
        out += box(b"mdat", *part, large=True)
        samples += part
        time += FRAME * len(part)
    return out, samples


def size_zero():
    """The last mdat reaches to the end of the file: size 0."""
    out, samples = plain(2)
    at = out.rindex(b"mdat") - 4
    return out[:at] + bytes(4) + out[at + 4:], samples


def plain(fragments=2, sizes=(64, 65, 200)):
    out, samples, time = FTYP + moov(), [], 0
    for number in range(fragments):
        part = payloads(list(sizes), number)
        out += plain_fragment(number + 1, part, time)
        samples += part
        time += FRAME * len(part)
    return out, samples


def one_track(media, fragments):
    """Makes a media folder with a/t.mp4 in it."""
    (media / "a").mkdir(parents=True)
    (media / "a" / "t.mp4").write_bytes(plain(fragments)[0])


def empty_truns():
    """truns of no samples before, between and after full ones; a traf of no samples; a fragment of no samples."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        a, b = payloads([40, 50], number), payloads([60, 17], number + 100)
        if number == 1:
            a = b = []
        out += moof_of(number + 1, lambda n, a=a, b=b, t=time: [
            box(b"traf", tfhd(), tfdt(t), trun([], n + 8), trun(a, n + 8), trun([], n + 8 + sum(map(len, a))),
                trun(b, n + 8 + sum(map(len, a))), trun([]))])
        out += box(b"mdat", *a, *b)
        samples += a + b
        time += FRAME * len(a + b)
    return out, samples


def around_moof():
    """prft, styp, emsg of both versions, free and uuid boxes around every moof, unknown boxes inside."""
    out, samples, time = FTYP + box(b"free", bytes(13)) + moov(), [], 0
    for number in range(4):
        part = payloads([90, 91, 16, 15], number)
        prft = full(b"prft", 1, 24, struct.pack(">IQQ", 1, 0xE000000000000000 + number, time))
        emsg0 = full(b"emsg", 0, 0, b"urn:x\0v\0", struct.pack(">4I", TIMESCALE, 0, 10, number), b"data")
        emsg1 = full(b"emsg", 1, 0, struct.pack(">IQII", TIMESCALE, time, 10, number), b"urn:x\0v\0", b"data")
        before = box(b"styp", b"msdh", bytes(4), b"msdhcmfs") + prft + emsg0 + emsg1
        group = full(b"sbgp", 0, 0, b"roll", struct.pack(">III", 1, len(part), 1))
        moof = moof_of(number + 1, lambda n, p=part, t=time, g=group: [
            box(b"uuid", bytes(range(16)), b"opaque"),
            box(b"traf", tfhd(), box(b"free", b"pad"), tfdt(t, 0), trun(p, n + 8 + 11), g)])
        out += before + moof + box(b"free", b"gap") + box(b"mdat", *part) + box(b"skip", bytes(5))
        samples += part
        time += FRAME * len(part)
    return out, samples


def stale_pssh():
    """Clear samples, and pssh boxes of a protection that was taken off: around the track, in a moof before and behind its traf."""
    stale = full(b"pssh", 0, 0, bytes.fromhex("edef8ba979d64acea3c827dcd51d21ed"), struct.pack(">I", 4), b"old!")
    samples, out = [], FTYP + moov(before=stale, extra=stale + box(b"free", bytes(3)) + stale, large=True)
    for n in range(3):
        mine = payloads([40, 50, 7], n + 70)
        out += moof_of(n + 1, lambda length: [stale, box(b"traf", tfhd(), tfdt(n * 3 * FRAME), trun(mine, length + 8)), *[stale] * n])  # noqa: B023
        out += box(b"mdat", *mine)
        samples += mine
    return out, samples


def many_truns(count=4000):
    """A traf of several thousand truns, each of one sample, the second half back to front in the mdat."""
    part = payloads([random.Random(3).randrange(0, 70) for _ in range(count)], 3)
    half = count // 2
    front, back = part[:half], part[half:]
    data = b"".join(front) + b"".join(reversed(back))
    offsets, position = [], 0
    for s in front:
        offsets.append(position)
        position += len(s)
    position = len(data)
    for s in back:
        position -= len(s)
        offsets.append(position)
    moof = moof_of(1, lambda n: [box(b"traf", tfhd(), tfdt(0), *(trun([s], n + 8 + o) for s, o in zip(part, offsets)))])
    return FTYP + moov() + moof + box(b"mdat", data), part


def two_trafs():
    """Two trafs of one track; no default-base-is-moof, so that the second counts from the end of the first's data."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        a, b = payloads([70, 71, 5], number), payloads([33, 48], number + 9)
        length = sum(map(len, a))
        out += moof_of(number + 1, lambda n, a=a, b=b, t=time: [
            box(b"traf", tfhd(default_base=False), tfdt(t), trun(a, n + 8)),
            box(b"traf", tfhd(default_base=False), tfdt(t + FRAME * len(a)), trun(b, 0))])
        out += box(b"mdat", *a, *b)
        samples += a + b
        time += FRAME * len(a + b)
    return out, samples


def absolute_base():
    """base-data-offset in every tfhd, pointing into the mdat; a second trun without data offset continues."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        a, b = payloads([70, 16, 5], number), payloads([33, 48], number + 9)
        at = len(out)
        moof = moof_of(number + 1, lambda n, a=a, b=b, t=time: [
            box(b"traf", tfhd(base=at + n + 8, default_base=False), tfdt(t), trun(a, 0), trun(b))])
        out += moof + box(b"mdat", *a, *b)
        samples += a + b
        time += FRAME * len(a + b)
    return out, samples


def no_offsets():
    """truns without any data offset: the data starts at the base, and the base is put behind the moof."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        part = payloads([70, 16, 5], number)
        at = len(out)
        moof = moof_of(number + 1, lambda n, p=part, t=time: [
            box(b"traf", tfhd(base=at + n + 8, default_base=False), tfdt(t), trun(p))])
        out += moof + box(b"mdat", *part)
        samples += part
        time += FRAME * len(part)
    return out, samples


def two_mdats():
    """One moof, two truns, two mdats."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        a, b = payloads([70, 71], number), payloads([33, 48], number + 9)
        first = box(b"mdat", *a)
        out += moof_of(number + 1, lambda n, a=a, b=b, f=first, t=time: [
            box(b"traf", tfhd(), tfdt(t), trun(a, n + 8), trun(b, n + len(f) + 8))])
        out += first + box(b"mdat", *b)
        samples += a + b
        time += FRAME * len(a + b)
    return out, samples


def signed_offsets():
    """trun version 1 with negative composition offsets, per-sample durations and flags; an edit list; v1 elst."""
    edits = box(b"edts", full(b"elst", 1, 0, struct.pack(">IQqHH", 1, 0, 2112, 1, 0)))
    out, samples, time = FTYP + moov(edits=edits), [], 0
    for number in range(3):
        part = payloads([70, 71, 72], number)
        out += plain_fragment(number + 1, part, time, cts=[0, -512, 512], version=1, durations=[1024, 960, 1088],
                              flags_each=True)
        samples += part
        time += 3072
    return out, samples


def default_sizes():
    """Sizes from trex in one fragment, from tfhd in the next."""
    out, samples, time = FTYP + moov(trex=(1, FRAME, 77, 0)), [], 0
    for number in range(4):
        size = 77 if number % 2 == 0 else 31
        part = payloads([size] * 5, number)
        out += moof_of(number + 1, lambda n, p=part, t=time, s=size: [
            box(b"traf", tfhd(size=None if s == 77 else s), tfdt(t), trun(p, n + 8, sizes=False))])
        out += box(b"mdat", *part)
        samples += part
        time += FRAME * len(part)
    return out, samples


def unused_bytes():
    """Bytes in mdat before, between and after samples that belong to none: they must pass as they are."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(3):
        a, b = payloads([70, 71], number), payloads([33, 48], number + 9)
        out += moof_of(number + 1, lambda n, a=a, b=b, t=time: [
            box(b"traf", tfhd(), tfdt(t), trun(a, n + 8 + 5), trun(b, n + 8 + 5 + 141 + 7))])
        out += box(b"mdat", b"12345", *a, b"1234567", *b, b"123")
        samples += a + b
        time += FRAME * len(a + b)
    return out, samples


def indexed():
    """A sidx of subsegments of two fragments each in front, an mfra at the end."""
    fragments, samples, time = [], [], 0
    for number in range(6):
        part = payloads([70 + number, 71, 33], number)
        fragments.append(plain_fragment(number + 1, part, time))
        samples += part
        time += FRAME * len(part)
    head = FTYP + moov()
    references = b"".join(struct.pack(">III", len(fragments[i]) + len(fragments[i + 1]), 6 * FRAME, 0x90000000)
                          for i in (0, 2, 4))
    sidx = full(b"sidx", 1, 0, struct.pack(">IIQQHH", 1, TIMESCALE, 0, 0, 0, 3), references)
    entries, at = b"", len(head) + len(sidx)
    for number, f in enumerate(fragments):
        entries += struct.pack(">QQBBB", number * 3 * FRAME, at, 1, 1, 1)
        at += len(f)
    tfra = full(b"tfra", 1, 0, struct.pack(">III", 1, 0, len(fragments)), entries)
    mfra = box(b"mfra", tfra, full(b"mfro", 0, 0, struct.pack(">I", 8 + len(tfra) + 16)))
    return head + sidx + b"".join(fragments) + mfra, samples


def two_entries():
    """Two sample entries; both get protected."""
    out, samples, time = FTYP + moov(entries=[entry(), entry()]), [], 0
    for number in range(2):
        part = payloads([70, 71, 33], number)
        out += plain_fragment(number + 1, part, time)
        samples += part
        time += FRAME * len(part)
    return out, samples


def long_samples():
    """Samples longer than 65535 bytes, so that sizes need 32 bits."""
    out, samples, time = FTYP + moov(), [], 0
    for number in range(2):
        part = payloads([65535, 65536, 70001, 3], number)
        out += plain_fragment(number + 1, part, time)
        samples += part
        time += FRAME * len(part)
    return out, samples


DAY_SAMPLES, DAY_FRAME, DAY_SIZE = 47, 4096, 20


def day(path, hours=24, timescale=96000):
    """A track of 24 hours at 96 kHz (decode times beyond 32 bits) in fragments of about 2 s, written to `path`.

    Returns (number of samples, number of fragments). Samples have one size, from trex.
    """
    fragments = hours * 3600 * timescale // (DAY_SAMPLES * DAY_FRAME)
    head = FTYP + moov(trex=(1, DAY_FRAME, DAY_SIZE, 0), timescale=timescale)
    data = random.Random(24).randbytes(DAY_SAMPLES * DAY_SIZE)
    with open(path, "wb") as f:
        f.write(head)
        for number in range(fragments):
            traf = box(b"traf", tfhd(), tfdt(number * DAY_SAMPLES * DAY_FRAME),
                       full(b"trun", 0, 1, struct.pack(">Ii", DAY_SAMPLES, 8 + 16 + 8 + 16 + 20 + 20 + 8)))
            f.write(box(b"moof", full(b"mfhd", 0, 0, struct.pack(">I", number + 1)), traf))
            f.write(box(b"mdat", struct.pack(">Q", number), data[8:]))
    return fragments * DAY_SAMPLES, fragments


STRUCTURES = [each_size, only_tiny, negative_offsets, large_sizes, size_zero, empty_truns, around_moof, many_truns, two_trafs,
              absolute_base, no_offsets, two_mdats, signed_offsets, default_sizes, unused_bytes, indexed, two_entries,
              long_samples, stale_pssh]
