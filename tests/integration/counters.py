#!/usr/bin/env python3
"""No (key, counter block) pair covers two different plaintext blocks, in what was really served: counters.py SLUICE

Enumerated over renditions of one asset (one key), versions of one file, folders, assets and epochs. Under cenc a
counter block is the 8-byte IV of the sample and the number of the block in it.
"""
import hashlib
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import url  # noqa: E402
from judge import boxes, catalogue, synth  # noqa: E402
from judge.programs import VECTORS, Sluice  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

VERSIONS = 6


class Counters:
    """Every counter block seen, per key, with the plaintext block that it covers."""

    def __init__(self):
        self.plain = {}       # (kid, iv, block number) -> hash of the plaintext block
        self.first = {}       # (kid, iv) -> where it was seen first
        self.samples = 0
        self.faults = []

    def add(self, where, locked, clear):
        for n, (s, c) in enumerate(zip(locked.samples, clear.samples)):
            self.samples += 1
            if len(s.iv) != 8:
                self.faults.append(f"{where} sample {n}: IV of {len(s.iv)} bytes")
            for i in range(0, s.size, 16):
                block = (locked.tenc.kid, s.iv, i // 16)
                digest = hashlib.blake2b(c.data[i:i + 16], digest_size=8).digest()
                if self.plain.setdefault(block, digest) != digest:
                    self.faults.append(f"{where} sample {n} block {i // 16}: the counter of {self.first[block[:2]]} covers another block")
            self.first.setdefault((locked.tenc.kid, s.iv), f"{where} sample {n}")


def versions(tap, server, media, counters):
    """One track replaced again and again, each time other audio in the same boxes."""
    path = media / "versions" / "a.mp4"
    whole = url("versions", "cenc", 1, "a.mp4")
    seen = set()
    for version in range(VERSIONS):
        data, _ = synth.plain(2)
        changed = bytearray(data)
        for s in boxes.audio(data).samples:
            for i in range(s.offset, s.offset + s.size):
                changed[i] = (changed[i] + version) & 0xFF
        fresh = path.with_name(".fresh")
        fresh.write_bytes(bytes(changed))
        fresh.rename(path)
        end, r = time.monotonic() + 20, None
        while time.monotonic() < end:
            try:
                r = server.get(whole)
            except (OSError, EOFError):
                continue
            if r.status == 200 and r["etag"] not in seen:
                break
            time.sleep(0.1)
        if not tap.ok(r and r.status == 200 and r["etag"] not in seen, f"version {version} is served", r):
            return
        seen.add(r["etag"])
        counters.add(f"version {version}", boxes.audio(r.body), boxes.audio(bytes(changed)))


def main():
    tap = Tap()
    if not VECTORS.is_dir():
        tap.skip("counters", f"{VECTORS} is not there")
        tap.end()
    sluice, counters = Sluice(sys.argv[1]), Counters()
    with tempfile.TemporaryDirectory(prefix="sluice-counters-") as work:
        media = pathlib.Path(work) / "media"
        tracks = catalogue.build(media)
        album = media / "album" / "song"
        for n, build in enumerate(synth.STRUCTURES):  # many renditions under one key, some with the same track ID
            album.mkdir(parents=True, exist_ok=True)
            (album / f"s{n}.mp4").write_bytes(build()[0])
            tracks["album/song", f"s{n}"] = build()[0]
        (media / "versions").mkdir()
        (media / "versions" / "a.mp4").write_bytes(synth.plain(2)[0])
        kids = {"cenc": {}, "cbcs": {}}
        with Server(sluice.path, media) as server:
            for (asset, track), data in tracks.items():
                clear = boxes.audio(data)
                for scheme in kids:
                    r = server.get(url(asset, scheme, 1, f"{track}.mp4"))
                    if not tap.ok(r.status == 200, f"{asset}/{track} {scheme}: is served", r):
                        continue
                    locked = boxes.audio(r.body)
                    kids[scheme].setdefault(locked.tenc.kid, set()).add(asset)
                    if scheme == "cenc":
                        counters.add(f"{asset}/{track}", locked, clear)
                    else:
                        iv = locked.tenc.constant_iv
                        tap.ok(len(iv) == 16 and any(iv), f"{asset}/{track} cbcs: a constant IV of 16 bytes", iv)
            versions(tap, server, media, counters)
            r = sluice("rotate", "album/song", "--admin", f"127.0.0.1:{server.admin_port}")
            if tap.ok(r.code == 0, "a new epoch", r):
                for (asset, track), data in tracks.items():
                    if asset == "album/song":
                        r = server.get(url(asset, "cenc", 2, f"{track}.mp4"))
                        if tap.ok(r.status == 200, f"{asset}/{track} epoch 2: is served", r):
                            counters.add(f"{asset}/{track} epoch 2", boxes.audio(r.body), boxes.audio(data))
        tap.ok(not set(kids["cenc"]) & set(kids["cbcs"]), "no KID serves both schemes")
        shared = {k.hex(): a for s in kids.values() for k, a in s.items() if len(a) > 1}
        tap.ok(not shared, "no key serves two assets", shared)
        tap.ok(counters.samples > 3000 and len(counters.plain) > 20000, "the enumeration is not empty", f"{counters.samples} {len(counters.plain)}")
        tap.note(f"{len(counters.plain)} counter blocks of {counters.samples} samples under {len({k for k, _, _ in counters.plain})} keys")
        tap.ok(not counters.faults, "no counter block covers two different plaintext blocks", "\n".join(counters.faults[:10]))
    tap.end()


if __name__ == "__main__":
    main()
