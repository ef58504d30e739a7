#!/usr/bin/env python3
"""Judges `sluice encrypt` and `sluice decrypt` by other people's programs on other people's files.

    vectors.py SLUICE [--write]

Every file below ../shared/vectors and every file of made.py is either in scope, and then ffmpeg, shaka-packager
and this suite's own reader must agree with us in both schemes, or refused with a clear error. The outcome of
each is a row of docs/vectors.md, which must be current; --write writes it.
"""
import concurrent.futures
import os
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from golden import made  # noqa: E402
from judge import boxes  # noqa: E402
from judge.programs import (FFMPEG, PACKAGER, ROOT, VECTORS, Sluice, packager_decrypt, packager_encrypt,  # noqa: E402
                            packets)
from judge.tap import Tap  # noqa: E402

KID, KEY = "31323334353637383930313233343536", "32333435363738393021323334353637"
IV = {"cenc": "3334353637383930", "cbcs": "33343536373839303132333435363738"}
SCHEMES = ("cenc", "cbcs")
TABLE = ROOT / "docs" / "vectors.md"

# Files that must be refused, by path or folder, with a word that the message must have. Whatever is not here
# must work.
REFUSED = {
    "androidx-media/cmaf/multi-segment/audio_init.mp4": "",  # an init segment alone: see FOLDERS
    "androidx-media/dash/multi-segment-with-emsg0/segment_init.mp4": "video",
    "androidx-media/dash/multi-segment-with-emsg1/video.mp4": "video",
    "androidx-media/drm/sample_av1c_fragmented_clearkey.mp4": "",
    "androidx-media/drm/sample_fragmented_clearkey.mp4": "",
    "androidx-media/drm/sample_fragmented_widevine.mp4": "",
    "androidx-media/mp4/long_edit_list_audioonly.mp4": "not fragmented",
    "androidx-media/mp4/sample_ac4_fragmented.mp4": "not supported",
    "androidx-media/mp4/sample_ac4_protected.mp4": "",
    "androidx-media/mp4/sample_audio_only.mp4": "not fragmented",
    "androidx-media/mp4/sample_fragmented_large_bitrates.mp4": "2 tracks",
    "androidx-media/mp4/sample_fragmented_seekable.mp4": "2 tracks",
    "androidx-media/mp4/sample_fragmented_seekable_multiple_sidx.mp4": "video",
    "androidx-media/mp4/sample_fragmented_sgpd_v2.mp4": "",
    "androidx-media/mp4/sample_fragmented_unsupported_brands.mp4": "2 tracks",
    "androidx-media/mp4/sample_fragmented_uuid.mp4": "2 tracks",
    "androidx-media/mp4/sample_malformed_free_box.mp4": "",
    "androidx-media/mp4/sample_mdat_too_long.mp4": "",
    "androidx-media/mp4/sample_missing_stsd.mp4": "",
    "androidx-media/mp4/sample_opus.mp4": "not fragmented",
    "androidx-media/mp4/sample_partially_fragmented.mp4": "",
    "shaka-packager/ac4-encryption/ac4_enc.mp4": "",
    "shaka-packager/dash-start-number/bear-640x360-audio-init.mp4": "",
    "shaka-packager/hls-multi-segment-mp4-with-custom-path/audio/audio-init.mp4": "",
    "shaka-packager/inputs/bear-640x360-av_frag.mp4": "2 tracks",
    "shaka-packager/inputs/bear-640x360-v_frag-cenc-aux.mp4": "",
    "shaka-packager/inputs/bear-flac.mp4": "not fragmented",
    "androidx-media/dash/multi-track/*": "video",
    "made/aac-progressive": "not fragmented",
    "made/aac-partly-fragmented": "not fragmented",
}
# Init segments and the segments that follow them, as one file.
FOLDERS = {
    "androidx-media/cmaf/multi-segment": ("audio_init.mp4", "audio_{}.m4s", range(1, 13)),
    "androidx-media/dash/multi-track": ("init-stream0.m4s", "chunk-stream0-0000{}.m4s", range(1, 2)),
    "shaka-packager/dash-start-number": ("bear-640x360-audio-init.mp4", "bear-640x360-audio-{}.m4s", range(0, 3)),
    "shaka-packager/hls-multi-segment-mp4-with-custom-path/audio": ("audio-init.mp4", "audio-{}.m4s", range(1, 4)),
    "shaka-packager/live-profile-and-encryption": ("bear-640x360-audio-init.mp4", "bear-640x360-audio-{}.m4s", range(1, 4)),
}
FOLDERS.update({f"shaka-packager/live-profile-and-key-rotation{v}": FOLDERS["shaka-packager/live-profile-and-encryption"]
                for v in ("", "-and-no-pssh-in-stream", "-and-non-dash-if-iop", "-cbcs")})
# What the packager and ffmpeg of this suite cannot read, with the reason.
PACKAGER_CANNOT = {}
FFMPEG_CANNOT = {b"iamf": "ffmpeg does not know it, or, from version 7 on, reads it before it is decrypted"}
MULTI_KEY = {"10111213141516171819202122232425": "11121314151617181920212223242526"}
KEY_UNKNOWN = {"androidx-media/mp4/sample_ac4_protected.mp4"}
BEAR = "shaka-packager/encryption/decrypted-bear-640x360-audio-0.mp4"
PLAIN = {  # golden file -> the clear file that it was made from, as decrypted by the people who made it
    "shaka-packager/encryption-and-no-clear-lead/bear-640x360-audio.mp4": "decrypted-bear-640x360-audio-0.mp4",
    "shaka-packager/flac-with-encryption/bear-flac-audio.mp4": "decrypted-bear-flac-audio-0.mp4",
    "shaka-packager/opus-vp9-mp4-with-encryption/bear-320x240-vp9-opus-audio.mp4":
        "decrypted-bear-320x240-vp9-opus-audio-0.mp4",
}


class Run:
    def __init__(self, sluice, tap, work):
        self.sluice, self.tap, self.work = sluice, tap, pathlib.Path(work)
        self.rows = {}

    def row(self, name, *cells):
        self.rows[name] = cells


def payload(track):
    return [s.data for s in track.samples]


def shape(track):
    return [(s.size, s.duration, s.cts, s.time) for s in track.samples]


def differ(got, want):
    """A short account of where two lists of samples differ."""
    if isinstance(got, str):
        return got
    if len(got) != len(want):
        return f"{len(got)} samples, want {len(want)}"
    bad = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
    return f"{len(bad)} of {len(got)} differ, the first is {bad[0]}: {got[bad[0]]!r:.120} / {want[bad[0]]!r:.120}" if bad else ""


def structure_faults(clear, locked, scheme, iv, kid=KID, iv_size=8):
    """What is wrong with the protection that our reader sees, as a list of sentences."""
    faults = []

    def want(good, text):
        if not good:
            faults.append(text)

    t = locked.tenc
    want(locked.entry == b"enca" and locked.format == clear.format, f"entry {locked.entry} of {locked.format}")
    want(locked.scheme == scheme.encode(), f"scheme {locked.scheme}")
    want(t and t.protected == 1 and t.kid.hex() == kid, f"tenc {t}")
    if t and scheme == "cenc":
        want((t.version, t.iv_size, t.constant_iv) == (0, iv_size, b""), f"tenc {t}")
        ivs = [s.iv for s in locked.samples]
        first = int.from_bytes(bytes.fromhex(iv)[:8], "big") if iv else int.from_bytes(ivs[0][:8], "big")
        want(ivs == [((first + n) % 2**64).to_bytes(8, "big") + bytes(iv_size - 8) for n in range(len(ivs))], "IVs do not count up by one")
    elif t:
        want((t.version, t.crypt, t.skip, t.iv_size) == (1, 0, 0, 0), f"tenc {t}")
        want(t.constant_iv.hex() == iv if iv else len(t.constant_iv) == 16, f"constant IV {t.constant_iv.hex()}")
    want(shape(locked) == shape(clear), "sizes or times of samples: " + differ(shape(locked), shape(clear)))
    want(locked.edit_lists == clear.edit_lists, "edit lists changed")
    kept = [c for c in locked.entry_children if c[0] != b"sinf"]
    want(kept == clear.entry_children, "children of the sample entry changed")
    want(locked.entry_children[-1][0] == b"sinf", "sinf is not the last child")
    return faults


def judge_scheme(run, name, path, scheme, want):
    """All judgements of one clear input in one scheme; `want` is what ffmpeg reads of it. Returns a table cell."""
    tap, work, label = run.tap, run.work, f"{name} {scheme}"
    stem = work / (name.replace("/", "_") + "." + scheme)
    ours, theirs, back = f"{stem}.mp4", f"{stem}.shaka.mp4", f"{stem}.back.mp4"
    clear = boxes.audio(path.read_bytes())
    iv = IV[scheme]
    r = run.sluice.encrypt(path, ours, scheme, KID, KEY, iv)
    if not tap.ok(r.code == 0, f"{label}: encrypts", r):
        return "FAILS"
    try:
        locked_bytes = pathlib.Path(ours).read_bytes()
        locked = boxes.audio(locked_bytes)
        faults = structure_faults(clear, locked, scheme, iv)
    except (ValueError, IndexError, KeyError) as e:
        faults = [f"cannot be read: {e!r}"]
    good = [tap.ok(not faults, f"{label}: is what the formats say", "\n".join(faults))]
    if faults and faults[0].startswith("cannot"):
        return "FAILS"
    said = []

    got = packets(locked_bytes, KEY)
    if clear.format in FFMPEG_CANNOT:
        want = FFMPEG_CANNOT[clear.format]
        tap.skip(f"{label}: ffmpeg", want)
    elif isinstance(want, str):
        tap.skip(f"{label}: ffmpeg", f"it does not read the clear file: {want[-80:]}")
    else:
        good.append(tap.ok(got == want, f"{label}: ffmpeg decrypts every packet", differ(got, want)))
        if not name.startswith("made/") and (scheme == "cenc" or any(s.size >= 16 for s in clear.samples)):  # shorter ones stay clear in cbcs
            good.append(tap.ok(got != packets(locked_bytes, KID), f"{label}: ffmpeg with a wrong key does not"))
        said.append("ffmpeg")

    if clear.format in PACKAGER_CANNOT:
        tap.skip(f"{label}: shaka-packager", PACKAGER_CANNOT[clear.format])
    elif PACKAGER is None:
        tap.skip(f"{label}: shaka-packager", "not installed for this machine: tools/npm")
    else:
        r = packager_decrypt(ours, back, KID, KEY)
        text = r if r.code else differ(payload(boxes.audio(pathlib.Path(back).read_bytes())), payload(clear))
        good.append(tap.ok(text == "", f"{label}: shaka-packager decrypts every sample", text))
        r = packager_encrypt(path, theirs, scheme, KID, KEY, iv)
        if tap.ok(r.code == 0, f"{label}: shaka-packager encrypts it too", r):
            peer = boxes.audio(pathlib.Path(theirs).read_bytes())
            text = differ(payload(locked), payload(peer))
            good.append(tap.ok(text == "", f"{label}: samples identical to shaka-packager's", text))
            good.append(reverses(run, f"{label}: decrypt reverses shaka-packager's", theirs, {KID: KEY}, payload(clear)))
        said.append("shaka")

    good.append(reverses(run, f"{label}: decrypt reverses ours", ours, {KID: KEY}, payload(clear), shape(clear)))
    if scheme == "cenc":
        good.append(judge_wide(run, label, name, path, clear, locked, want))
    for p in (ours, theirs):
        pathlib.Path(p).unlink(missing_ok=True)
    return ("ok: " + ", ".join(said)) if all(good) else "FAILS"


def judge_wide(run, label, name, path, clear, narrow, want):
    """The same file with 16-byte IVs: everybody decrypts it, and the ciphertext is that of 8-byte ones."""
    label, iv = f"{label}, 16-byte IVs", IV["cenc"] + "00" * 8
    stem = run.work / (name.replace("/", "_") + ".wide")
    ours, back = f"{stem}.mp4", f"{stem}.back.mp4"
    r = run.sluice("encrypt", path, ours, "--scheme", "cenc", "--kid", KID, "--key", KEY, "--iv-size", "16", "--iv", iv)
    if not run.tap.ok(r.code == 0, f"{label}: encrypts", r):
        return False
    locked_bytes = pathlib.Path(ours).read_bytes()
    locked = boxes.audio(locked_bytes)
    faults = structure_faults(clear, locked, "cenc", iv, iv_size=16)
    good = run.tap.ok(not faults, f"{label}: is what the formats say", "\n".join(faults))
    text = differ(payload(locked), payload(narrow))
    good &= run.tap.ok(text == "", f"{label}: samples identical to those of 8-byte ones", text)
    if not isinstance(want, str):
        got = packets(locked_bytes, KEY)
        good &= run.tap.ok(got == want, f"{label}: ffmpeg decrypts every packet", differ(got, want))
    if PACKAGER and clear.format not in PACKAGER_CANNOT:
        r = packager_decrypt(ours, back, KID, KEY)
        text = r if r.code else differ(payload(boxes.audio(pathlib.Path(back).read_bytes())), payload(clear))
        good &= run.tap.ok(text == "", f"{label}: shaka-packager decrypts every sample", text)
    good &= reverses(run, f"{label}: decrypt reverses it", ours, {KID: KEY}, payload(clear), shape(clear))
    pathlib.Path(ours).unlink()
    return good


def output(run, label):
    """A file of its own for what this case writes: the vectors' folders are only read, and hold files of the same name."""
    return run.work / (re.sub(r"\W+", "_", label) + ".mp4")


def reverses(run, label, path, keys, want, want_shape=None):
    target = output(run, label)
    r = run.sluice.decrypt(path, target, keys)
    try:
        if r.code != 0:
            return run.tap.ok(False, label, r)
        track = boxes.audio(target.read_bytes())
        text = differ(payload(track), want) or (want_shape and differ(shape(track), want_shape)) or ""
        if track.scheme or track.entry == b"enca" or any(s.iv for s in track.samples):
            text = text or "the output still says that it is encrypted"
        return run.tap.ok(text == "", label, text)
    except (ValueError, IndexError, KeyError) as e:
        return run.tap.ok(False, label, f"cannot be read: {e!r}")
    finally:
        target.unlink(missing_ok=True)


def refused(run, name, path, argv, word):
    """A clear error: exit 1, one line that names the file and says why, no output file."""
    target = run.work / (name.replace("/", "_") + ".refused.mp4")
    r = run.sluice(argv[0], path, target, *argv[1:])
    line = r.err.strip()
    good = (r.code == 1 and line.startswith("sluice: ") and "\n" not in line and path.name in line and word in line
            and not target.exists() and not list(run.work.glob(target.name + "*")))
    run.tap.ok(good, f"{name}: {argv[0]} refuses it", f"{r}, output file: {target.exists()}, wanted word: {word!r}")
    reason = re.sub(r" \(at byte .*$", "", line.split(": ", 2)[-1]) if good else "FAILS"
    return reason.replace("|", "\\|")


def judge_clear(run, name, path):
    if name in REFUSED:
        reason = refused(run, name, path, ["encrypt", "--scheme", "cenc", "--kid", KID, "--key", KEY], REFUSED[name])
        run.row(name, "–", "–", f"refused: {reason}")
        return
    track = boxes.audio(path.read_bytes())
    want = packets(path.read_bytes())
    cells = [judge_scheme(run, name, path, s, want) for s in SCHEMES]
    run.row(name, f"{track.format.decode()} × {len(track.samples)}", *cells)


def rotated(hexes, by):
    return hexes[2 * by:] + hexes[:2 * by]


def golden_keys(name):
    """The keys that shaka-packager's own test used. Its key rotation rotates the bytes of KID and key by the period."""
    if "multi-keys" in name or "ac4-encryption" in name:
        return MULTI_KEY
    if "key-rotation" in name:
        return {rotated(KID, n): rotated(KEY, n) for n in range(16)}
    return {KID: KEY}


def judge_golden(run, name, path):
    """A file that others encrypted: encrypt refuses it, decrypt reverses it."""
    reason = refused(run, name, path, ["encrypt", "--scheme", "cenc", "--kid", KID, "--key", KEY], "encrypted")
    track = boxes.audio(path.read_bytes())
    what = f"{track.format.decode()} × {len(track.samples)}"
    keys = golden_keys(name)
    if name in KEY_UNKNOWN or not track.samples:
        words = ("no key" if name in KEY_UNKNOWN else "moof")
        argv = ["decrypt"] + [a for k, v in keys.items() for a in ("--key", f"{k}:{v}")]
        run.row(name, what, "–", f"encrypt refuses: {reason}; decrypt refuses: {refused(run, name, path, argv, words)}")
        return
    twin = VECTORS / name
    if name in PLAIN:
        twin = twin.parent / PLAIN[name]
        want = payload(boxes.audio(twin.read_bytes()))
    elif "bear-640x360-audio" in path.name or "live-profile" in name:
        want = payload(boxes.audio((VECTORS / BEAR).read_bytes()))
    else:
        want = None
    label = f"{name}: decrypt reverses it"
    if want is not None:
        good = reverses(run, label, path, keys, want)
    else:
        good = as_ffmpeg(run, label, path, keys)
    r = run.sluice.decrypt(path, run.work / (name.replace("/", "_") + ".wrong.mp4"), {"00" * 16: KEY})
    run.tap.ok(r.code == 1 and "key" in r.err, f"{name}: decrypt without its key fails", r)
    run.row(name, what, "–", f"encrypt refuses: {reason}; " + ("decrypt: ok" if good else "decrypt: FAILS"))


def as_ffmpeg(run, label, path, keys):
    """For a golden file without a twin: our decryption holds the packets that ffmpeg's holds."""
    target = output(run, label)
    r = run.sluice.decrypt(path, target, keys)
    if r.code != 0:
        return run.tap.ok(False, label, r)
    got, want = packets(target.read_bytes()), packets(path.read_bytes(), next(iter(keys.values())))
    return run.tap.ok(got == want, label, differ(got, want))


def inputs(work):
    """[(name, path)] of everything that is judged."""
    found = []
    for path in sorted(VECTORS.glob("*/**/*.mp4")):
        found.append((str(path.relative_to(VECTORS)), path))
    for name, (init, pattern, numbers) in FOLDERS.items():
        whole = work / (name.replace("/", "_") + ".mp4")
        parts = [VECTORS / name / init] + [VECTORS / name / pattern.format(n) for n in numbers]
        whole.write_bytes(b"".join(p.read_bytes() for p in parts))
        found.append((f"{name}/*", whole))
    return found


def make_all(work, pool):
    def one(recipe):
        name, codec, flags = recipe
        path = work / f"{name}.mp4"
        problem = made.make(path, codec, flags)
        return (f"made/{name}", path, problem)
    return list(pool.map(one, made.recipes()))


def is_encrypted(path):
    try:
        return any(t.scheme for t in boxes.parse(path.read_bytes()).values())
    except ValueError:
        return False


def table(rows):
    lines = ["# Every test vector and its outcome", "",
             "Generated by `tests/golden/vectors.py SLUICE --write`, which is also the test that keeps it",
             "current.", "",
             "- **ok: ffmpeg, shaka**: `sluice encrypt` gives a file from which ffmpeg and npm shaka-packager",
             "  decrypt every packet bit for bit, whose encrypted samples are identical to shaka-packager's for",
             "  the same key and IV, and `sluice decrypt` reverses it and shaka-packager's. For cenc all of them",
             "  decrypt the file with 16-byte IVs as well, whose encrypted samples are the same.",
             "- **refused**: out of scope; exit status 1, no output file, and this sentence.",
             "- **decrypt: ok**: encrypted by others; `sluice decrypt` gives what they decrypted to.",
             "- `made/…` come from ffmpeg (tests/golden/made.py), folders `…/*` are an init segment with its",
             "  segments.", "",
             "| vector | track | cenc | cbcs |", "|---|---|---|---|"]
    for name in sorted(rows):
        cells = rows[name]
        if len(cells) == 3 and cells[1] == "–":
            cells = (cells[0], cells[2], "")
        lines.append("| " + " | ".join((name,) + cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    if not VECTORS.is_dir():
        tap.skip("vectors", f"{VECTORS} is not there")
        tap.end()
    with tempfile.TemporaryDirectory(prefix="sluice-golden-") as work:
        run = Run(sluice, tap, work)
        workers = os.cpu_count() or 2
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            jobs = []
            for name, path in inputs(run.work):
                known = name in REFUSED and not is_encrypted(path)
                judge = judge_golden if not known and is_encrypted(path) and b"vide" not in path.read_bytes() else judge_clear
                jobs.append((name, pool.submit(judge, run, name, path)))
            if FFMPEG is None:
                tap.skip("made inputs", "ffmpeg is not installed")
            else:
                for name, path, problem in make_all(run.work, pool):
                    if problem:
                        tap.ok(False, f"{name}: ffmpeg makes it", problem)
                        continue
                    jobs.append((name, pool.submit(judge_clear, run, name, path)))
            for name, job in jobs:
                problem = job.exception()
                if problem:
                    tap.ok(False, f"{name}: is judged", repr(problem))
                    run.row(name, "?", "FAILS", "FAILS")
        text = table(run.rows)
        if "--write" in sys.argv:
            TABLE.write_text(text)
        if PACKAGER is None or FFMPEG is None:
            tap.skip("docs/vectors.md is current", "a judge is not installed")
        else:
            old = TABLE.read_text().splitlines() if TABLE.exists() else []
            new = text.splitlines()
            changes = [f"-{l}" for l in old if l not in new] + [f"+{l}" for l in new if l not in old]
            tap.ok(old == new, "docs/vectors.md is current", "\n".join(changes[:40]) + "\nrun it with --write")
    tap.end()


if __name__ == "__main__":
    main()
