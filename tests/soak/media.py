"""Versions of tracks for the soak: made from a seed, small, each unlike every other. A version is a file, or a folder of parts."""
import hashlib

from golden import made
from judge import synth
from judge.programs import FFMPEG

SAMPLES, SAMPLE_BYTES = 24, 600  # of a fragment: half a second
NAMES = [b.__name__ for b in synth.STRUCTURES if b.__name__ != "many_truns"]  # thousands of boxes cost the judge much and the server little


class Version:
    """What a track is on storage: `parts` are [(name, bytes)], of a file one without a name."""

    def __init__(self, parts, note):
        self.parts, self.note = parts, note
        self.data = b"".join(data for _, data in parts)
        self.folder = bool(parts[0][0])
        names = "\n".join(name for name, _ in parts)
        self.id = hashlib.sha256(names.encode() + b"\0" + self.data).hexdigest()[:16]

    def __repr__(self):
        return f"{self.note} {self.id} of {len(self.data)} bytes"

    def write(self, path):
        """Puts it at a path where nothing is."""
        if not self.folder:
            path.write_bytes(self.data)
            return
        path.mkdir()
        for name, data in self.parts:
            (path / name).write_bytes(data)


def fragments(rng):
    out, time = [], 0
    for number in range(rng.randrange(12, 40)):
        part = [rng.randbytes(rng.randrange(SAMPLE_BYTES // 2, SAMPLE_BYTES * 3 // 2)) for _ in range(SAMPLES)]
        out.append(synth.plain_fragment(number + 1, part, time))
        time += synth.FRAME * len(part)
    return out


def plain(rng):
    return Version([("", synth.FTYP + synth.moov() + b"".join(fragments(rng)))], "plain")


def folder(rng):
    numbered = enumerate(fragments(rng), 1)
    return Version([("init.mp4", synth.FTYP + synth.moov()), *((f"{n}.m4s", data) for n, data in numbered)], "folder")


def big(rng):
    """A segment that is too long for the caches, and a short one."""
    out = synth.FTYP + synth.moov()
    for number, count in enumerate((46, 5)):
        out += synth.plain_fragment(number + 1, [rng.randbytes(100000 + rng.randrange(100)) for _ in range(count)], number * 46 * synth.FRAME)
    return Version([("", out)], "big")


def other_part(rng, version):
    """The folder with other samples in one segment."""
    parts = list(version.parts)
    at = rng.randrange(1, len(parts))
    data = parts[at][1]
    body = data.index(b"mdat") + 4
    parts[at] = (parts[at][0], data[:body] + rng.randbytes(len(data) - body))
    return Version(parts, "folder"), at


def structure(rng):
    """A structure that no real file has; its samples are always the same, so its versions come again."""
    name = rng.choice(NAMES)
    return Version([("", next(b for b in synth.STRUCTURES if b.__name__ == name)()[0])], name)


class Real:
    """What ffmpeg makes of a codec, in a few lengths."""

    def __init__(self, folder_, codec):
        self.versions = []
        for n, seconds in enumerate((6, 9)):
            path = folder_ / f"{codec}-{n}.mp4"
            problem = made.make(path, codec, ["-movflags", "cmaf", "-frag_duration", "500000"], seconds=seconds)
            if problem:
                raise RuntimeError(problem)
            self.versions.append(Version([("", path.read_bytes())], codec))

    def __call__(self, rng):
        return rng.choice(self.versions)


def makers(work):
    """{(asset, track): maker}: what the catalogue begins with."""
    real = {c: Real(work, c) for c in ("aac", "opus", "flac")} if FFMPEG else {}
    return {
        ("album/one", "a"): plain, ("album/one", "b"): plain, ("album/one", "parts"): folder,
        ("album/two", "a"): plain, ("album/two", "parts"): folder,
        ("free/clear", "a"): plain, ("free/clear", "parts"): folder,
        ("live/codecs", "aac"): real.get("aac", structure), ("live/codecs", "opus"): real.get("opus", structure),
        ("live/codecs", "flac"): real.get("flac", structure),
        ("live/odd ä & 'ö' 100%", "t-1.x"): structure, ("live/odd ä & 'ö' 100%", "s"): structure,
        ("live/big", "a"): big, ("records/r", "a"): plain,
        ("temp/0", "a"): plain, ("temp/1", "a"): plain, ("temp/1", "parts"): folder, ("temp/2", "s"): structure,
    }
