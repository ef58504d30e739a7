"""What inspect says, and files that are not right: parts of command.py."""
import json
import os
import shutil
import struct

from integration.command_parts import ENCRYPT, KEY, KID, one_line
from judge import boxes, synth
from judge.programs import VECTORS


def inspect(tap, sluice, work):
    track = work / "t.mp4"
    for build in (synth.indexed, synth.negative_offsets, synth.large_sizes, synth.around_moof):
        data, samples = build()
        track.write_bytes(data)
        text, js = sluice("inspect", track), sluice("inspect", track, "--json")
        tap.ok(text.code == 0 and all(w in text.out.decode() for w in ("moof", "trun", "mp4a")), f"inspect {build.__name__}: the tree", text)
        try:
            tree = json.loads(js.out)
        except ValueError as e:
            tap.ok(False, f"inspect {build.__name__} --json is JSON", repr(e))
            continue
        tap.ok(js.code == 0, f"inspect {build.__name__} --json is JSON")
        flat = json.dumps(tree)
        missing = [b for b in boxes.walk(data) if str(b.start) not in flat or b.type.decode() not in flat]
        tap.ok(not missing, f"inspect {build.__name__}: every top-level box with its offset", missing)
    for name, shown in ((b"n\xffa\xc3\xa9\xed\xa0\x80.mp4", "n?aé???.mp4"), ("naïve 雨.mp4".encode(), "naïve 雨.mp4")):
        odd = os.path.join(os.fsencode(work), name)
        shutil.copyfile(track, odd)
        r = sluice("inspect", os.fsdecode(odd), "--json")
        tap.ok(r.code == 0 and json.loads(r.out)["file"] == f"{work}/{shown}", f"inspect --json of a file called {shown}", (r.code, r.err, r.out[:200]))
        os.unlink(odd)
    locked = work / "locked.mp4"
    sluice.encrypt(track, locked, "cbcs", KID, KEY)
    r = sluice("inspect", locked)
    text = r.out.decode().lower().replace("-", "")
    tap.ok(r.code == 0 and "cbcs" in text and KID in text, "inspect shows scheme and KID", r.out.decode()[:500])
    tap.ok(KEY not in r.out.decode(), "inspect shows no key")
    segment = work / "1.m4s"
    for scheme, marks in (("cenc", ["senc", "saiz"]), ("cbcs", ["senc"]), (None, [])):
        if scheme:
            sluice.encrypt(track, locked, scheme, KID, KEY)
        data = (locked if scheme else track).read_bytes()
        segment.write_bytes(data[boxes.find(data, b"moof")[0].start:])
        text = sluice("inspect", segment).out.decode().splitlines()[-1]
        want = f"yes ({', '.join(marks)}); scheme and KID stand in the" if scheme else "not told here: the"
        tap.equal(text, f"protection: {want} initialization segment" + ("" if scheme else " says"), f"inspect of a segment alone: {scheme}")
        js = json.loads(sluice("inspect", segment, "--json").out)
        tap.equal((js["protected_by"], js["protection"]), (marks, []), f"inspect --json of a segment alone: {scheme}")
    r = sluice("inspect", track)
    tap.ok(r.out.decode().endswith("protection: none\n"), "inspect of a clear file: none", r.out.decode()[-200:])
    tap.ok(r.out == sluice("inspect", "-", stdin=track.read_bytes()).out, "inspect of standard input")
    inspect_counts(tap, sluice, track)
    inspect_times(tap, sluice, track)
    inspect_marks(tap, sluice, track)
    inspect_checks(tap, sluice, work, track)
    inspect_protection(tap, sluice, track)


def inspect_checks(tap, sluice, work, track):
    """--check: status 1 where serve and encrypt would refuse what can be read well. --all is in every JSON."""
    locked, cut, folder = work / "locked.mp4", work / "cut.mp4", work / "folder"
    clear = synth.plain()[0]
    track.write_bytes(clear)
    sluice.encrypt(track, locked, "cbcs", KID, KEY)
    (work / "alone.mp4").write_bytes(synth.FTYP + synth.moov())
    cut.write_bytes(clear[:-1])
    folder.mkdir()
    (folder / "init.mp4").write_bytes(synth.FTYP + synth.moov())
    (folder / "1.m4s").write_bytes(locked.read_bytes()[boxes.find(locked.read_bytes(), b"moof")[0].start:])
    for path, where, status, why in ((locked, locked, 0, "the input is already encrypted (at byte"), (work / "alone.mp4", work / "alone.mp4", 0, ""),
                                     (folder, folder / "1.m4s", 0, ""), (cut, cut, 1, None)):
        for more in ([], ["--json"]):
            plain, checked = sluice("inspect", path, *more), sluice("inspect", path, *more, "--check")
            refused = sluice("encrypt", path, work / "o.mp4", *ENCRYPT)
            tap.ok((plain.code, checked.code, refused.code) == (status, 1, 1) and one_line(checked) and plain.out == checked.out
                   and (why is None or checked.err.startswith(f"sluice: {where}: cannot be served: {why}") and not plain.err),
                   f"inspect {path.name} {more} --check: status 1, as encrypt", (plain, checked, refused))
    for argv in (["inspect", track, "--check"], ["inspect", "--check", "--json", track]):
        r = sluice(*argv)
        tap.ok(r.code == 0 and not r.err and r.out, f"{argv[1:3]} of a file that can be served: status 0", r)
    name = b'"\\' + b"n" * 400
    track.write_bytes(clear + synth.full(b"hdlr", 0, 0, bytes(4), b"soun", bytes(12), name, b"\0"))
    js, both, text = sluice("inspect", track, "--json"), sluice("inspect", track, "--json", "--all"), sluice("inspect", track, "--all")
    tap.ok(js.code == both.code == 0 and js.out == both.out and not both.err, "inspect --json --all is --json, which has all", both)
    tap.equal(json.loads(js.out)["boxes"][-1]["fields"]["name"], name.decode(), "inspect --json: a text of 402 bytes is whole")
    tap.ok(name in text.out and name not in sluice("inspect", track).out, "inspect --all too")


def inspect_protection(tap, sluice, track):
    """What each tenc says, with the schm before it, as it stands there: whole, or as far as it goes."""
    kid, iv = bytes(range(16)), bytes(range(16, 32))

    def sinf(scheme, tenc):
        return synth.box(b"sinf", synth.box(b"frma", b"mp4a"), synth.full(b"schm", 0, 0, scheme, bytes(4)), synth.box(b"schi", tenc))

    entries = [synth.entry(b"enca", synth.esds() + sinf(scheme, synth.box(b"tenc", tenc))) for scheme, tenc in (
        (b"cbcs", b"\1\0\0\0\0\x19\1\0" + kid + b"\x10" + iv), (b'c"\\\x80', b"\0\0\0\0\0\0\1\x08" + kid), (b"cens", b"\1\0\0\0\0\x25\1"))]
    track.write_bytes(synth.FTYP + synth.moov(entries=entries) + synth.full(b"pssh", 0, 0, bytes(16), struct.pack(">I", 5000), b"\xab" * 5000))
    r = sluice("inspect", track, "--json")
    head = {"crypt_byte_block": 0, "skip_byte_block": 0, "is_protected": 1}
    want = [{"scheme": "cbcs", **head, "crypt_byte_block": 1, "skip_byte_block": 9, "per_sample_iv_size": 0, "kid": kid.hex(), "constant_iv": iv.hex()},
            {"scheme": 'c"\\?', **head, "per_sample_iv_size": 8, "kid": kid.hex()}, {"scheme": "cens", **head, "crypt_byte_block": 2, "skip_byte_block": 5}]
    tap.equal([list(p.items()) for p in json.loads(r.out)["protection"]], [list(p.items()) for p in want], "inspect --json: each tenc, its fields in order")
    for option, data in (((), f"data={'ab' * 32}… (5000 bytes)\n"), (("--all",), f"data={'ab' * 5000}\n")):
        r = sluice("inspect", track, *option)
        tap.equal([line for line in r.out.decode().splitlines() if line.startswith("protection")],
                  [f"protection: cbcs, KID {kid.hex()}, IV size 0, constant IV {iv.hex()}, pattern 1:9", f'protection: c"\\?, KID {kid.hex()}, IV size 8, pattern 0:0',
                   "protection: cens, KID cut off"], f"inspect {option}: a line for each tenc")
        tap.ok(data in r.out.decode(), f"inspect {option}: data of 5000 bytes", r.out[-300:])


def moof(number, truns, **header):
    return synth.moof_of(number, lambda n: [synth.box(b"traf", synth.tfhd(**header), *truns(n))])


def counted(num, offset):
    """A trun that says how many samples there are and nothing of each."""
    return synth.full(b"trun", 0, 1, struct.pack(">Ii", num, offset))


def inspect_counts(tap, sluice, track):
    """Samples that cost no bytes in a trun: bounded over the file, unless the source holds their data."""
    track.write_bytes(synth.FTYP + synth.moov() + moof(1, lambda n: [counted(65536, n + 8)] * 20))
    for option in ("--json", "--all"):
        r = sluice("inspect", track, option, timeout=20)
        tap.ok(r.code == 1 and one_line(r) and "without bytes" in r.err and len(r.out) < 12 << 20, f"inspect {option}: truns of nothing",
               f"{r.code} {r.err} {len(r.out)}")
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 4, 0)) + moof(1, lambda n: [counted(96000, n + 8)]) + synth.box(b"mdat", bytes(4 * 96000)))
    r = sluice("inspect", track, "--json")
    samples = [s for f in json.loads(r.out)["fragments"] for s in f["samples"]] if r.code == 0 else []
    tap.ok(len(samples) == 96000 and samples[-1]["time"] == 95999, "inspect: 96,000 samples of default size, as of PCM", r.err)
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 4, 0)) + moof(1, lambda n: [counted(96000, n + 8)]) + synth.box(b"mdat", bytes(96000)))
    r = sluice("inspect", track)
    tap.ok(r.code == 1 and one_line(r) and "ends behind" in r.err, "inspect: samples of default size behind the end", r)
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 1, 0)) + moof(1, lambda n: [counted(50000, n + 8)] * 3) + synth.box(b"mdat", bytes(50000)))
    r = sluice("inspect", track)
    tap.ok(r.code == 1 and one_line(r) and "more sample bytes than bytes" in r.err, "inspect: truns that share their data", r)


def inspect_times(tap, sluice, track):
    def fragment(number, *before):
        return moof(number, lambda n: [*before, synth.trun([b"abc"] * 3, n + 8)]) + synth.box(b"mdat", b"abc" * 3)

    def times(*fragments):
        track.write_bytes(synth.FTYP + synth.moov() + b"".join(fragments))
        r = sluice("inspect", track, "--json")
        return [s["time"] for f in json.loads(r.out)["fragments"] for s in f["samples"]], json.loads(r.out)

    got, _ = times(fragment(1), fragment(2), fragment(3, synth.tfdt(9000)), fragment(4))
    starts = [0, 3 * synth.FRAME, 9000, 9000 + 3 * synth.FRAME]
    tap.equal(got, [t + i * synth.FRAME for t in starts for i in range(3)], "inspect: without tfdt, times go on from moof to moof")
    late = (1 << 63) + 5
    got, tree = times(fragment(1, synth.tfdt(late)))
    tap.equal([int(t) for t in got], [late + i * synth.FRAME for i in range(3)], "inspect: times beyond 2^63")
    tap.ok(int(tree["track"]["start"]) == late and "-" not in json.dumps(tree["track"]["start"]), "inspect: and a start", str(tree["track"]))
    tap.ok(str(late) in sluice("inspect", track, "--all").out.decode(), "inspect --all: the same")


def inspect_marks(tap, sluice, track):
    """senc as PIFF 1.1 5.3.2 has it is one; a saiz of another kind (ISO/IEC 14496-12 8.7.8.3) is no protection."""
    def marks(want, extra):
        track.write_bytes(moof(1, lambda n: [synth.trun([b"abc"], n + 8), extra]) + synth.box(b"mdat", b"abc"))
        r = sluice("inspect", track, "--json")
        tap.equal(json.loads(r.out)["protected_by"], want, f"inspect: marks {want}")

    marks(["senc"], synth.box(b"uuid", bytes.fromhex("a2394f525a9b4f14a2446c427c648df4") + bytes(8)))
    marks([], synth.box(b"uuid", bytes(24)))
    marks([], synth.box(b"saiz", b"\0\0\0\1abcd\0\0\0\0\1\0\0\0\1"))
    marks(["saiz"], synth.box(b"saiz", b"\0\0\0\1cbcs\0\0\0\0\1\0\0\0\1"))


def put(data, box, boxes_in, at):
    """The file with bytes more at `at`, in the first boxes of these types; what lies behind moof's first data is not looked for."""
    out = bytearray(data[:at] + box + data[at:])
    for kind in boxes_in:
        start = data.index(kind) - 4
        struct.pack_into(">I", out, start, struct.unpack_from(">I", data, start)[0] + len(box))
    return bytes(out)


def disagreements(tap, sluice, work):
    """Files that other readers take in several ways: index, encrypt, decrypt and inspect say the same of each, of its samples too."""
    clear = synth.FTYP + synth.moov(trex=(1, 1, 9, 7)) + synth.plain_fragment(1, [b"123456789"] * 3, 0, sizes=False)
    names, path = (work / "clear.mp4", work / "locked.mp4"), work / "out.mp4"
    names[0].write_bytes(clear)
    sluice.encrypt(*names, "cbcs", KID, KEY)
    whole = [name.read_bytes() for name in names]

    def trex(track, size):
        return synth.full(b"trex", 0, 0, struct.pack(">5I", track, 1, 1, size, 0))

    def each(name, wrong, change):
        for clear, data, argv in zip((True, False), whole, (["encrypt", names[0], path, *ENCRYPT], ["decrypt", names[1], path, "--key", f"{KID}:{KEY}"])):
            names[not clear].write_bytes(change(data))
            for argv in (argv, ["inspect", names[not clear]], *([["index", names[0]]] if clear else [])):
                r = sluice(*argv)
                tap.ok((r.code, wrong in r.err, one_line(r)) == (1, True, True) if wrong else r.code == 0, f"{name}: {argv[0]}: {wrong or 'taken'}", r)
            r = sluice("inspect", names[not clear], "--json")
            sizes = [s["size"] for f in json.loads(r.out)["fragments"] for s in f["samples"]]
            tap.equal(sizes, [] if wrong else [9] * 3, f"{name}: inspect --json: sizes of {'clear' if clear else 'encrypted'} samples")

    def second_tfhd(data):
        at = data.index(b"tfdt") - 4
        out = bytearray(put(data, synth.tfhd(track=2, size=5), (b"moof", b"traf"), at))
        offset = out.index(b"trun") + 12
        struct.pack_into(">i", out, offset, struct.unpack_from(">i", out, offset)[0] + 20)
        return bytes(out)

    each("a second tfhd", "a second tfhd (at byte ", second_tfhd)
    each("a trex that names no track", "", lambda data: put(data, trex(2, 5) * 40, (b"moov", b"mvex"), data.index(b"trex") - 4))
    each("no other trex", "no trex for the track (at byte ", lambda data: data.replace(b"trex\0\0\0\0\0\0\0\1", b"trex\0\0\0\0\0\0\0\2"))
    path.write_bytes(second_tfhd(clear) + synth.plain_fragment(2, [b"ab"] * 2, 27))
    text, r = sluice("inspect", path), sluice("inspect", path, "--json")
    doc = json.loads(r.out)
    tap.equal((text.code, r.code, b"\nfragments: 2 with 2 samples\n" in text.out), (1, 1, True), "a fragment whose samples nobody knows: inspect goes on behind it")
    tap.equal(([b["type"] for b in doc["boxes"]][-4:], [len(f["samples"]) for f in doc["fragments"]]), (["moof", "mdat"] * 2, [0, 2]),
              "and so does --json")


def bad_files(tap, sluice, work):
    """The fuzz corpus of another project: any end but a crash or a hang."""
    disagreements(tap, sluice, work)
    folder = VECTORS / "malformed"
    if not folder.is_dir():
        tap.skip("malformed files", f"{folder} is not there")
        return
    wrong, count = [], 0
    for path in sorted(folder.glob("*.bin")):
        count += 1
        for argv in (["inspect", path], ["encrypt", path, work / "o.mp4", *ENCRYPT], ["decrypt", path, work / "o.mp4", "--key", f"{KID}:{KEY}"]):
            r = sluice(*argv, timeout=20)
            if r.code not in (0, 1) or (r.code == 1 and not r.err.startswith("sluice: ")):
                wrong.append(f"{argv[0]} {path.name}: {r}")
            if r.code and (work / "o.mp4").exists():
                wrong.append(f"{argv[0]} {path.name}: left a file behind")
            (work / "o.mp4").unlink(missing_ok=True)
    tap.ok(count > 10 and not wrong, f"{count} malformed files through inspect, encrypt and decrypt: no crash, no hang, nothing left behind", "\n".join(wrong[:20]))
    source = bytearray(synth.plain()[0])
    codes = {}
    for i in range(0, len(source), 9):
        (work / "f.mp4").write_bytes(bytes(source[:i]) + bytes([source[i] ^ 0x40]) + bytes(source[i + 1:]))
        r = sluice("encrypt", work / "f.mp4", "-", *ENCRYPT, timeout=20)
        codes[r.code] = codes.get(r.code, 0) + 1
        if r.code == 1 and r.out:
            wrong.append(f"byte {i}: output before an error")
    tap.ok(set(codes) <= {0, 1} and not wrong, "flipped bytes through the command line: status 0 or 1", f"{codes} {wrong[:5]}")
