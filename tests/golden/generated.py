#!/usr/bin/env python3
"""Valid but unusual files (judge/odd.py), by seed, through every command and the server.

    generated.py SLUICE [--seeds FIRST:[END]] [--seconds N] [--keep DIR]

Without options a fixed set of seeds. --seconds goes on from FIRST for so long. What fails says its seed; --keep leaves such files in DIR.
"""
import argparse
import concurrent.futures
import hashlib
import hmac
import json
import pathlib
import random
import shutil
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from golden import made  # noqa: E402
from golden.generated_cases import Case, ciphertext, ffmpeg_can, first_difference, outline, read_clear, readable, references, shape  # noqa: E402
from golden.generated_server import decodes, guarded, serve_all  # noqa: E402
from golden.vectors import SCHEMES, differ, structure_faults  # noqa: E402
from integration.truth import url  # noqa: E402
from judge import boxes  # noqa: E402
from judge.programs import FFMPEG, PACKAGER, Sluice, packager_samples, packets  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

SEEDS = [*range(19), 62]  # the last two for the other programs: ffmpeg and its decoder read 18 right, ffmpeg and shaka-packager 62
BATCH = 24
EVERY_REAL = 6  # each such seed has packets of a real codec, which ffmpeg also decodes
CONFIG = "clear: true\nschemes: [clear, cenc, cbcs]\nwrite_sidecars: false\n"


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
        if "packager" not in c.served:
            (c.work / "clear.mp4").write_bytes(clear_data)
            c.served["packager"] = packager_samples(c.work / "clear.mp4", theirs, kid, key)
        if c.served["packager"] != [s.data for s in o.samples]:
            c.notes.append("shaka-packager does not read the clear file right")
        else:
            got = packager_samples(target, theirs, kid, key)
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
