#!/usr/bin/env python3
"""Structures that no real file has, through encrypt and decrypt: structures.py SLUICE

The samples are known to the generator, and their ciphertext is computed here with AES in plain Python, so
nothing of sluice judges itself. ffmpeg joins in wherever it reads the clear file.
"""
import hashlib
import hmac
import json
import pathlib
import shutil
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from golden.vectors import IV, KEY, KID, SCHEMES, differ, structure_faults  # noqa: E402
from judge import aes, boxes, synth  # noqa: E402
from judge.programs import FFMPEG, PACKAGER, Sluice, packager_samples, packets, run  # noqa: E402
from judge.tap import Tap  # noqa: E402

FFMPEG_CANNOT = {"two_trafs": "ffmpeg takes one senc a moof and ignores the second"}
KEPT = {b"prft", b"emsg", b"styp", b"free", b"skip", b"uuid"}


def derived_iv(scheme, source, track=1):
    """The IV without --iv, as documented: bound to key, source and track for cenc, to the key for cbcs."""
    if scheme == "cbcs":
        return hmac.digest(bytes.fromhex(KEY), b"sluice cbcs iv v1", "sha256")[:16].hex()
    text = b"sluice cenc iv v1" + hashlib.sha256(source).digest() + struct.pack(">I", track)
    return hmac.digest(bytes.fromhex(KEY), text, "sha256")[:8].hex()


def ciphertext(scheme, iv, samples):
    key, iv = aes.Aes128(bytes.fromhex(KEY)), bytes.fromhex(iv)
    if scheme == "cbcs":
        return [aes.cbcs(key, iv, s) for s in samples]
    first = int.from_bytes(iv, "big")
    return [aes.cenc(key, ((first + n) % 2**64).to_bytes(8, "big"), s) for n, s in enumerate(samples)]


def sidx_faults(data):
    """The one sidx must tile everything behind it, in order, at starts of fragments, with true times."""
    found = boxes.find(data, b"sidx")
    if len(found) != 1:
        return [f"{len(found)} sidx boxes"]
    time, at, references, timescale = boxes.sidx_references(data, found[0])
    track = boxes.audio(data)
    top = list(boxes.walk(data))
    faults = [] if timescale == track.timescale else [f"sidx timescale {timescale}"]
    if at != found[0].end:
        faults.append("sidx does not refer to what follows it")
    starts = {b.start for b in top}
    for size, _ in references:
        if at not in starts:
            faults.append(f"a subsegment starts at {at}, inside a box")
        if boxes.find(data, b"moof", at, at + size) == []:
            faults.append(f"the subsegment at {at} has no moof")
        at += size
    if at != len(data):
        faults.append(f"sidx ends at {at}, the file at {len(data)}")
    if track.samples:
        # ISO/IEC 14496-12 8.16.3.3: times are those of what the edit list does not omit.
        skip = boxes.priming(track)
        start, end = track.samples[0].time, track.samples[0].time + sum(s.duration for s in track.samples)
        if time != max(0, start - skip):
            faults.append(f"sidx starts at {time}, the samples at {start}, of which {skip} are skipped")
        if time + sum(d for _, d in references) != end - skip:
            faults.append(f"sidx ends at {time + sum(d for _, d in references)}, the samples at {end}")
    if boxes.find(data, b"mfra"):
        faults.append("mfra points at the offsets of the source")
    return faults


def kept_boxes(data):
    """Boxes that must pass byte for byte, top level and inside moof."""
    out = [data[b.start:b.end] for b in boxes.walk(data) if b.type in KEPT]
    for moof in boxes.find(data, b"moof"):
        for b in boxes.walk(data, moof.body, moof.end):
            out += [data[b.start:b.end]] if b.type in KEPT else []
    for traf in boxes.find(data, b"moof/traf"):
        out += [data[b.start:b.end] for b in boxes.walk(data, traf.body, traf.end) if b.type in KEPT | {b"sbgp", b"sgpd"}]
    return out


def judge(tap, sluice, work, build, scheme, iv):
    label = f"{build.__name__} {scheme}{'' if iv else ', derived IV'}"
    data, samples = build()
    source, target, back = work / "in.mp4", work / "out.mp4", work / "back.mp4"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    r = sluice.encrypt(source, target, scheme, KID, KEY, iv)
    if not tap.ok(r.code == 0, f"{label}: encrypts", r):
        return
    locked_bytes = target.read_bytes()
    try:
        clear, locked = boxes.audio(data), boxes.audio(locked_bytes)
        iv = iv or derived_iv(scheme, data)
        faults = structure_faults(clear, locked, scheme, iv) + sidx_faults(locked_bytes)
        if kept_boxes(locked_bytes) != kept_boxes(data):
            faults.append("boxes that are none of our business changed")
        if b"pssh" in locked_bytes:
            faults.append("a pssh box, and none was asked for")
        tap.ok(not faults, f"{label}: is what the formats say", "\n".join(faults))
        text = differ([s.data for s in locked.samples], ciphertext(scheme, iv, samples))
        tap.ok(not text, f"{label}: ciphertext is that of an independent AES", text)
    except (ValueError, IndexError, KeyError) as e:
        tap.ok(False, f"{label}: is what the formats say", repr(e))
        return
    r = sluice.decrypt(target, back, {KID: KEY})
    text = r if r.code else differ([s.data for s in boxes.audio(back.read_bytes()).samples], samples)
    tap.ok(not text, f"{label}: decrypt reverses it", text)
    back.unlink(missing_ok=True)
    by_ffmpeg(tap, label, build.__name__, data, locked_bytes, samples)
    by_packager(tap, label, source, target, work / "theirs.mp4", samples)


def by_ffmpeg(tap, label, name, data, locked_bytes, samples):
    if FFMPEG is None:
        tap.skip(f"{label}: ffmpeg", "not installed")
        return
    clear_packets = packets(data)
    true = [hashlib.md5(s).hexdigest() for s in samples]
    if isinstance(clear_packets, str) or [p.rsplit(",", 1)[1] for p in clear_packets] != true:
        tap.note(f"{label}: ffmpeg does not read the clear file right either")
    elif name in FFMPEG_CANNOT:
        tap.note(f"{label}: {FFMPEG_CANNOT[name]}")
    else:
        got = packets(locked_bytes, KEY)
        tap.ok(got == clear_packets, f"{label}: ffmpeg decrypts every packet", differ(got, clear_packets))


def by_packager(tap, label, source, target, theirs, samples):
    if PACKAGER is None:
        tap.skip(f"{label}: shaka-packager", "not installed for this machine: tools/npm")
    elif packager_samples(source, theirs, KID, KEY) != samples:
        tap.note(f"{label}: shaka-packager does not read the clear file right either")
    else:
        got = packager_samples(target, theirs, KID, KEY)
        tap.ok(got == samples, f"{label}: shaka-packager decrypts every sample", differ(got, samples) if isinstance(got, list) else got)


def with_run_offsets(layout, runs, subsamples=False, wide=False, fault=None):
    """A cenc file without senc whose traf has `runs`, lists of samples, and a saio with an offset for each. `layout`: where in mdat
    the auxiliary information of each run lies."""
    full, box = synth.full, synth.box
    tenc = full(b"tenc", 0, 0, bytes(2), b"\1\x08", bytes.fromhex(KID))
    sinf = box(b"sinf", box(b"frma", b"mp4a"), full(b"schm", 0, 0, b"cenc", struct.pack(">I", 0x10000)), box(b"schi", tenc))
    head = synth.FTYP + synth.moov(entries=[synth.entry(b"enca", synth.esds() + sinf)])
    number, locked, aux = 0, [], []
    for run in runs:
        locked.append([])
        aux.append([])
        for s in run:
            number += 1
            iv, has_subs = (0x123456789 * number).to_bytes(8, "big"), subsamples and number % 3 > 0
            clear = min(number % 7, len(s)) if has_subs else 0
            locked[-1].append(s[:clear] + aes.cenc(aes.Aes128(bytes.fromhex(KEY)), iv, s[clear:]))
            aux[-1].append(iv + (struct.pack(">HHI", 1, clear, len(s) - clear) if has_subs else b""))
    blocks = [(b"".join(a), b"".join(d)) for a, d in zip(aux, locked)]
    order = {"before each run": [x for i in range(len(runs)) for x in ((0, i), (1, i))],
             "behind all, back to front": [(1, i) for i in range(len(runs))] + [(0, i) for i in reversed(range(len(runs)))]}[layout]
    at, mdat = {}, b""
    for kind, i in order:
        at[kind, i] = len(mdat)
        mdat += blocks[i][kind] + b"unused"
    entries = [len(x) for run in aux for x in run]
    saiz = full(b"saiz", 0, 0, b"\0", struct.pack(">I", len(entries)), bytes(entries))

    def trafs(n):
        offsets = [n + 8 + at[0, i] for i in range(len(runs))]
        if fault:
            offsets = fault(offsets)
        saio = full(b"saio", int(wide), 0, struct.pack(">I", len(offsets)), struct.pack(f">{len(offsets)}{'Q' if wide else 'I'}", *offsets))
        truns = [synth.trun(run, n + 8 + at[1, i]) for i, run in enumerate(runs)]
        return [box(b"traf", synth.tfhd(), synth.tfdt(0), *truns, saiz, saio)]
    return head + synth.moof_of(1, trafs) + box(b"mdat", mdat), [s for run in runs for s in run]


def sync_samples(tap, sluice, work):
    """ISO/IEC 14496-12 8.8.3.1, 8.8.8: whether a fragment's first sample is a sync sample may be said in four places. sidx says of no
    other segment that it starts with a SAP."""
    full, not_sync, sync = synth.full, 0x1010000, 0x2000000
    part = synth.payloads([70, 71], 5)

    def fragment(number, default=None, first=None, each=None, empty=False):
        tfhd = full(b"tfhd", 0, 0x20000 | (0x20 if default is not None else 0), struct.pack(">I", 1),
                    b"" if default is None else struct.pack(">I", default))
        flags = 0x301 | (4 if first is not None else 0) | (0x400 if each else 0)

        def trun(n):
            fields = b"".join(struct.pack(">II", synth.TIMESCALE, len(s)) + (struct.pack(">I", each[i]) if each else b"") for i, s in enumerate(part))
            return full(b"trun", 0, flags, struct.pack(">Ii", 2, n + 8), b"" if first is None else struct.pack(">I", first), fields)
        head = [full(b"trun", 0, 4, struct.pack(">II", 0, not_sync))] if empty else []  # of no sample
        moof = synth.moof_of(number + 1, lambda n: [synth.box(b"traf", tfhd, synth.tfdt(2 * number * synth.TIMESCALE), *head, trun(n))])
        return moof + synth.box(b"mdat", *part)
    says = [({}, None), ({"default": sync}, True), ({"default": not_sync}, False), ({"default": not_sync, "first": sync}, True), ({"first": not_sync}, False),
            ({"each": (not_sync, sync)}, False), ({"default": not_sync, "each": (sync, not_sync)}, True), ({"first": sync, "empty": True}, True)]
    for trex in (sync, not_sync):
        data = synth.FTYP + synth.moov(trex=(1, synth.FRAME, 0, trex)) + b"".join(fragment(n, **how) for n, (how, _) in enumerate(says))
        (work / "sync.mp4").write_bytes(data)
        r = sluice.encrypt(work / "sync.mp4", work / "sync.enc.mp4", "cenc", KID, KEY)
        out = (work / "sync.enc.mp4").read_bytes() if r.code == 0 else b""
        sidx = boxes.find(out, b"sidx")
        got = [struct.unpack_from(">I", out, sidx[0].end - 12 * (len(says) - i) + 8)[0] for i in range(len(says))] if sidx else r
        want = [0x90000000 if (trex == sync if is_sync is None else is_sync) else 0 for _, is_sync in says]
        tap.equal(got, want, f"trex's flags {trex:#x}: sidx says a SAP of segments that start with a sync sample, and of no other")


def empty_edits(tap, sluice, work):
    """ISO/IEC 14496-12 8.6.6: empty edits, in the movie's timescale, delay what sidx says; behind the first media edit they do not."""
    def edits(version, *entries):
        form = ">QqHH" if version else ">IiHH"
        return synth.box(b"edts", synth.full(b"elst", version, 0, struct.pack(">I", len(entries)), *(struct.pack(form, d, t, 1, 0) for d, t in entries)))
    movie, scale = 1000, synth.TIMESCALE  # synth's mvhd, mdhd
    fragment = synth.plain_fragment(1, synth.payloads([70] * 9, 1), 0)
    for name, elst, want in (("none", b"", 0), ("one", edits(0, (250, -1), (0, 64)), 250 * scale // movie), ("of 64 bits", edits(1, (250, -1), (0, 64)), 12000),
                             ("two", edits(0, (250, -1), (50, -1), (0, 64)), 14400), ("later", edits(0, (100, 64), (250, -1), (0, 64)), 0), ("nothing else", edits(0, (250, -1)), 0),
                             ("beyond 32 bits", edits(1, (90000000, -1), (0, 64)), 4320000000)):
        data = synth.FTYP + synth.moov(edits=elst) + fragment
        (work / "empty.mp4").write_bytes(data)
        r = sluice.encrypt(work / "empty.mp4", work / "empty.enc.mp4", "cenc", KID, KEY)
        out = (work / "empty.enc.mp4").read_bytes() if r.code == 0 else b""
        sidx = boxes.find(out, b"sidx")
        time, at, references, _ = boxes.sidx_references(out, sidx[0]) if sidx else (r, 0, [], 0)
        skip = 0 if name in ("none", "nothing else") else 64
        tap.equal((time, references and references[0][1]), (want, 9 * synth.FRAME - skip), f"empty edits, {name}: earliest_presentation_time, duration")
    (work / "empty.mp4").write_bytes(synth.FTYP + synth.moov(edits=edits(1, (2**64 - 1, -1), (0, 64))) + fragment)
    r = sluice.encrypt(work / "empty.mp4", work / "empty.enc.mp4", "cenc", KID, KEY)
    tap.ok(r.code == 1 and "empty edits that end behind all time" in r.err, "empty edits beyond all time: refused", r)


def sizes_to_the_end(tap, sluice, work):
    """ISO/IEC 14496-12 4.2.2: the last box of a file may have the size 0. In a folder more files follow, in what is made of it more boxes."""
    folder, target, back = work / "folder", work / "folder.mp4", work / "folder.back.mp4"
    samples = [synth.payloads([40, 50, 7], n + 90) for n in range(3)]

    def open_ended(part):
        last = list(boxes.walk(part))[-1]
        return part[:last.start] + bytes(4) + part[last.start + 4:]
    parts = [synth.FTYP + synth.moov() + synth.box(b"free", b"pad")] + [synth.plain_fragment(n + 1, s, 3 * n * synth.FRAME) for n, s in enumerate(samples)]

    def lay_out(parts):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for n, part in enumerate(parts):
            (folder / (f"{n}.m4s" if n else "init.mp4")).write_bytes(open_ended(part))
    lay_out(parts)
    r = sluice("inspect", folder, "--json")
    tap.equal([len(f["samples"]) for f in json.loads(r.out)["fragments"]] if r.code == 0 else r, [3, 3, 3], "sizes of 0 in a folder: inspect finds every fragment")
    for scheme in SCHEMES:
        lay_out(parts)
        r = sluice.encrypt(folder, target, scheme, KID, KEY, IV[scheme])
        data = target.read_bytes() if r.code == 0 else b""
        got = [s.data for s in boxes.audio(data).samples] if data else r
        tap.equal(got, ciphertext(scheme, IV[scheme], sum(samples, [])), f"sizes of 0 in a folder, {scheme}: every sample is in the output")
        tap.ok(data and all(data[b.start:b.start + 4] != bytes(4) for b in boxes.walk(data)), f"sizes of 0 in a folder, {scheme}: sizes are written out")
        top = [b for b in boxes.walk(data) if b.type != b"sidx"] if data else []
        cuts = [b.start for b in top if b.type == b"moof"] + [len(data)]
        sidx = boxes.one(data, b"sidx") if data else None
        if data:
            lay_out([data[:sidx.start], *(data[a:b] for a, b in zip(cuts, cuts[1:]))])
        back.unlink(missing_ok=True)
        r = sluice.decrypt(folder, back, {KID: KEY})
        got = [s.data for s in boxes.audio(back.read_bytes()).samples] if r.code == 0 else r
        tap.equal(got, sum(samples, []), f"sizes of 0 in a folder, {scheme}: decrypt finds every sample")
    for name, parts in (("moov", [synth.FTYP + synth.moov(), parts[1]]), ("moof", [parts[0], parts[1][parts[1].index(b"mdat") - 4:] + synth.moof_of(
            1, lambda n: [synth.box(b"traf", synth.tfhd(), synth.tfdt(0), synth.trun(samples[0], 8 - (8 + sum(map(len, samples[0])))))])])):
        lay_out(parts)
        r = sluice.encrypt(folder, target, "cbcs", KID, KEY)
        tap.ok(r.code == 1 and "the box has no size of its own" in r.err, f"a {name} with the size 0: refused", r)


def odd_times(tap, sluice, work):
    """What sidx says of a gap in the last segment, and of fragments without samples before the first that has some."""
    def times(data):
        (work / "times.mp4").write_bytes(data)
        r = sluice.encrypt(work / "times.mp4", work / "times.enc.mp4", "cenc", KID, KEY)
        out = (work / "times.enc.mp4").read_bytes() if r.code == 0 else b""
        time, _, references, _ = boxes.sidx_references(out, boxes.one(out, b"sidx")) if out else (r, 0, [], 0)
        return time, [d for _, d in references]
    head, part = synth.FTYP + synth.moov(), synth.payloads([70] * 9, 1)
    late = [synth.plain_fragment(n + 1, part, 5000 + n * (9 * synth.FRAME + 777)) for n in range(2)]
    tap.equal(times(head + late[0] + late[1]), (5000, [18 * synth.FRAME + 777]), "a gap within the last segment counts")
    bare = synth.moof_of(1, lambda n: [])
    empty = [synth.moof_of(1, lambda n, t=t: [synth.box(b"traf", synth.tfhd(), *t, synth.trun([]))]) for t in ([], [synth.tfdt(4000)])]
    for name, first in (("a moof without trafs", bare), ("a traf without tfdt", empty[0]), ("an earlier tfdt", empty[1])):
        tap.equal(times(head + first + late[0]), (5000, [9 * synth.FRAME]), f"{name} before the first sample: the media begin with that")
    one = struct.pack(">I", synth.TIMESCALE * 3)  # ticks of a sample: two segments, the second begins with the fragment that is empty
    long = [synth.moof_of(1, lambda n, t=t: [synth.box(b"traf", synth.tfhd(), synth.tfdt(t), synth.full(b"trun", 0, 0x301, struct.pack(">Ii", 1, n + 8), one, one))])
            for t in (0, synth.TIMESCALE * 3 + 777)]
    long = [m.replace(one + one, one + struct.pack(">I", 70)) + synth.box(b"mdat", part[0]) for m in long]
    tap.equal(times(head + long[0] + bare + long[1]), (0, [synth.TIMESCALE * 3 + 777, synth.TIMESCALE * 3]), "an empty fragment before a gap: the segment begins behind it")


def empty_run(tap, sluice, work):
    """A trun of no samples may have any offset, also where tfhd or trex give samples a size."""
    part = synth.payloads([77] * 3, 1)
    moof = synth.moof_of(1, lambda n: [synth.box(b"traf", synth.tfhd(size=77), synth.tfdt(0), synth.trun([], 10**6, sizes=False), synth.trun(part, n + 8, sizes=False))])
    (work / "run.mp4").write_bytes(synth.FTYP + synth.moov() + moof + synth.box(b"mdat", *part))
    r = sluice("inspect", work / "run.mp4", "--json")
    tap.ok(r.code == 0 and [s["size"] for s in json.loads(r.out)["fragments"][0]["samples"]] == [77] * 3, "a trun of no samples whose offset points nowhere: inspected", r)


def run_offsets(tap, sluice, work):
    """ISO/IEC 14496-12 8.7.9: saio has one offset, or one for each run. No packager writes the latter for audio."""
    source, back = work / "runs.mp4", work / "back.mp4"
    runs = [synth.payloads(sizes, n) for n, sizes in enumerate(([40, 17, 100], [], [3, 0, 64], [333], [16] * 40))]

    def decrypt(data):
        source.write_bytes(data)
        back.unlink(missing_ok=True)
        return sluice.decrypt(source, back, {KID: KEY})
    for layout in ("before each run", "behind all, back to front"):
        for subsamples in (False, True):
            for wide in (False, True):
                data, samples = with_run_offsets(layout, runs, subsamples, wide)
                r = decrypt(data)
                text = r if r.code else differ([s.data for s in boxes.audio(back.read_bytes()).samples], samples)
                tap.ok(not text and b"saio" not in back.read_bytes(), f"saio with an offset for each trun, {layout}, subsamples {subsamples}, version {int(wide)}", text)
    number = "saio has neither one offset nor one for each trun (at byte {at}, box moof/traf/saio)"
    outside = "the data ends before the structure does (at byte {at}, box moof/traf/saio)"
    for name, fault, want in (("too few", lambda o: o[:2], number), ("too many", lambda o: o + [0], number), ("none", lambda o: [], number),
                              ("outside the file", lambda o: o[:4] + [1 << 30], outside), ("the last beyond its end", lambda o: o[:4] + [5000], outside)):
        data, _ = with_run_offsets("before each run", runs, fault=fault)
        r = decrypt(data)
        tap.ok(r.code == 1 and r.err == f"sluice: {source}: {want.format(at=data.index(b'saio') + 4)}\n" and not back.exists(), f"saio, {name}: refused", r)


def judge_day(tap, sluice, work):
    """24 hours: 4 billion ticks and more, 2 million samples, 43,000 fragments."""
    source, target, back = work / "day.mp4", work / "day.enc.mp4", work / "day.back.mp4"
    num, fragments = synth.day(source)
    md5 = [FFMPEG, "-v", "error", "-nostdin", "-fflags", "+ignidx"]
    clear = run(*md5, "-i", source, "-c", "copy", "-f", "md5", "-", timeout=300)
    for scheme in SCHEMES:
        label = f"24 hours {scheme}"
        r = sluice.encrypt(source, target, scheme, KID, KEY, IV[scheme], timeout=300)
        if not tap.ok(r.code == 0, f"{label}: encrypts", r):
            continue
        growth = fragments * ((17 + 20 + 16) + 8 * (num // fragments) if scheme == "cenc" else 16)
        data = target.read_bytes()
        sidx = boxes.one(data, b"sidx")
        init = sidx.start - (source.stat().st_size - fragments * (88 + 8 + synth.DAY_SAMPLES * synth.DAY_SIZE))
        tap.ok(0 < init < 300, f"{label}: init grows by a sinf only", f"by {init}")
        _, at, references, _ = boxes.sidx_references(data, sidx)
        tap.equal(at + sum(s for s, _ in references), len(data), f"{label}: sidx covers the file")
        tap.equal(sum(d for _, d in references), num * synth.DAY_FRAME, f"{label}: sidx covers the time")
        tap.equal(len(data), source.stat().st_size + init + (sidx.end - sidx.start) + growth, f"{label}: length")
        last = data[at + sum(s for s, _ in references[:-1]):]
        tail = boxes.audio(data[:sidx.start] + last)
        want = payload_of(source.read_bytes()[-(len(tail.samples) // synth.DAY_SAMPLES) * (88 + 8 + synth.DAY_SAMPLES * synth.DAY_SIZE):], source, len(tail.samples))
        first = num - len(tail.samples)
        iv = IV[scheme] if scheme == "cbcs" else f"{(int(IV['cenc'], 16) + first) % 2**64:016x}"
        text = differ([s.data for s in tail.samples], ciphertext(scheme, iv, want))
        tap.ok(not text, f"{label}: the last segment's samples", text)
        tap.equal(tail.samples[0].time, first * synth.DAY_FRAME, f"{label}: the last segment's time")
        del data
        r = sluice.decrypt(target, back, {KID: KEY}, timeout=300)
        same = r.code == 0 and back.read_bytes()[-10**6:] == source.read_bytes()[-10**6:]
        tap.ok(same, f"{label}: decrypt reverses it", r)
        r = run(*md5, "-decryption_key", KEY, "-i", target, "-c", "copy", "-f", "md5", "-", timeout=300)
        tap.ok(r.code == 0 and r.out == clear.out, f"{label}: ffmpeg decrypts it", f"{r} {r.out} {clear.out}")


def payload_of(tail, source, count):
    with open(source, "rb") as f:
        head = f.read(4096)
    moov = boxes.find(head[:head.index(b"moof") - 4], b"moov")[0]
    samples = boxes.audio(head[:moov.end] + tail).samples
    return [s.data for s in samples][-count:]


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-structures-") as work:
        work = pathlib.Path(work)
        for build in synth.STRUCTURES:
            for scheme in SCHEMES:
                judge(tap, sluice, work, build, scheme, IV[scheme])
        for scheme in SCHEMES:
            judge(tap, sluice, work, synth.around_moof, scheme, None)
        wrap = lambda: synth.many_truns(300)  # noqa: E731
        wrap.__name__ = "IV that wraps"
        judge(tap, sluice, work, wrap, "cenc", "ffffffffffffff9c")
        run_offsets(tap, sluice, work)
        sizes_to_the_end(tap, sluice, work)
        odd_times(tap, sluice, work)
        empty_run(tap, sluice, work)
        empty_edits(tap, sluice, work)
        sync_samples(tap, sluice, work)
        judge_day(tap, sluice, work)
    tap.end()


if __name__ == "__main__":
    main()
