#!/usr/bin/env python3
"""cenc with 16-byte IVs, served and made offline, beside the same with 8: ivs.py SLUICE

The ciphertext is the same, the boxes are longer by 8 bytes for each sample, and everything that says where bytes are has to know.
"""
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.manifests import Judge  # noqa: E402
from integration.truth import judge_track, keys_file, record, url  # noqa: E402
from judge import boxes, catalogue, synth  # noqa: E402
from judge.programs import PACKAGER, VECTORS, Sluice, packager_decrypt, run  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

WIDE = "cenc_iv_size: 16\n"
RANGES = 60
WARNING = r"warn cenc_iv_size: 16: PlayReady"
PLAYREADY = "drm: { playready: { la_url: 'https://pr.test/' } }\n"


def fetch_all(server, tracks):
    """{(asset, track, scheme): (entity tag, whole file)}"""
    client, out = server.client(), {}
    for asset, track in tracks:
        for scheme in ("cenc", "cbcs"):
            r = client.get(url(asset, scheme, 1, f"{track}.mp4"))
            out[asset, track, scheme] = (r["etag"], r.body) if r.status == 200 else (None, b"")
    client.close()
    return out


def compare(tap, label, clear, narrow, wide):
    """What differs between the two forms of one file."""
    a, b = boxes.audio(narrow), boxes.audio(wide)
    tap.equal((a.tenc.iv_size, b.tenc), (8, a.tenc._replace(iv_size=16)), f"{label}: tenc says 16, and else the same")
    tap.ok([s.iv for s in b.samples] == [s.iv + bytes(8) for s in a.samples], f"{label}: IVs are those of 8 bytes, and zeros")
    tap.ok([s.data for s in b.samples] == [s.data for s in a.samples], f"{label}: the ciphertext is the same")
    tap.equal(len(wide) - len(narrow), 8 * len(clear.samples), f"{label}: longer by 8 bytes a sample")


def by_packager(tap, label, clear, data, asset, work):
    if PACKAGER is None:
        tap.skip(f"{label}: shaka-packager", "not installed for this machine: tools/npm")
        return
    source, target = work / "wide.mp4", work / "wide.clear.mp4"
    source.write_bytes(data)
    kid, key, _ = record(asset, "cenc")
    r = packager_decrypt(source, target, kid, key)
    got = [s.data for s in boxes.audio(target.read_bytes()).samples] if r.code == 0 else r
    tap.ok(got == [s.data for s in clear.samples], f"{label}: shaka-packager decrypts it", r)


def served(tap, sluice, work):
    media, rng = work / "media", random.Random(16)
    tracks = catalogue.build(media)
    keys = keys_file({a for a, _ in tracks})
    with Server(sluice.path, media, keys=keys) as server:
        narrow = fetch_all(server, tracks)
    before = {p: p.read_bytes() for p in media.rglob("*") if p.is_file()}
    tap.ok(any(p.suffix not in (".mp4", ".m4s") for p in before), "there are sidecars", sorted(map(str, before)))
    with Server(sluice.path, media, "--insecure-clearkey", keys=keys, config=WIDE) as server:
        wide = fetch_all(server, tracks)
        client = server.client()
        for (asset, track), data in tracks.items():
            label, clear = f"{asset}/{track}", boxes.audio(data)
            (old_tag, old), (tag, new) = narrow[asset, track, "cenc"], wide[asset, track, "cenc"]
            tap.ok(tag and tag != old_tag, f"{label}: another entity tag", f"{tag} {old_tag}")
            tap.ok(narrow[asset, track, "cbcs"] == wide[asset, track, "cbcs"], f"{label} cbcs: as it was")
            compare(tap, label, clear, old, new)
            judge_track(tap, sluice, server, client, work, asset, track, "cenc", data, RANGES, rng, ("--iv-size", "16"))
            if not asset.startswith("synth/"):
                by_packager(tap, label, clear, new, asset, work)
        playlists = Judge(tap, client, tracks)
        for asset in sorted({a for a, _ in tracks if not a.startswith("synth/")}):
            for part, name in ((playlists.multivariant, "master.m3u8"), (playlists.multivariant, "byterange.m3u8"),
                               (playlists.mpd, "manifest.mpd"), (playlists.mpd, "ondemand.mpd")):
                part(asset, "cenc", name)
        client.close()
    tap.ok(before == {p: p.read_bytes() for p in media.rglob("*") if p.is_file()}, "sidecars serve both sizes: none was written anew")


def reloaded(tap, sluice, work):
    """The option changed while segments are kept encrypted, with the warnings that belong to it."""
    media = work / "reload"
    (media / "a" / "b").mkdir(parents=True)
    clear = media / "a" / "b" / "t.mp4"
    clear.write_bytes(synth.plain(6)[0])
    keys = keys_file(["a/b"]) + PLAYREADY
    whole, segment = url("a/b", "cenc", 1, "t.mp4"), url("a/b", "cenc", 1, "t", "1.m4s")
    kid, key, _ = record("a/b", "cenc")

    def offline(size):
        out = work / f"offline{size}.mp4"
        r = sluice("encrypt", clear, out, "--scheme", "cenc", "--kid", kid, "--key", key, "--iv-size", str(size))
        return out.read_bytes() if r.code == 0 else r

    with Server(sluice.path, media, keys=keys, config="schemes: [cenc, cbcs]\n") as server:
        yaml, seen = server.folder / "sluice.yaml", {}
        for size in (8, 16, 8):
            if seen:
                n = len(server.log())
                yaml.write_text("schemes: [cenc, cbcs]\n" + (WIDE if size == 16 else ""))
                server.signal(signal.SIGHUP)
                tap.ok(server.wait_log(r"warn reload: changed: cenc_iv_size: .*rotate.*purge", after=n), f"reload to {size}: a warning, by name",
                       "\n".join(server.log()[n:]))
                server.wait_log(r"info reloaded", after=n)
                tap.equal(any(re.search(WARNING, l) for l in server.log()[n:]), size == 16, f"reload to {size}: whether PlayReady is warned of")
            end = time.monotonic() + 10
            while (r := server.get(whole)).status == 200 and boxes.audio(r.body).tenc.iv_size != size and time.monotonic() < end:
                time.sleep(0.05)
            want = offline(size)
            tap.ok(r.body == want, f"{size}: the file is the offline command's", r)
            tap.equal(seen.setdefault(size, r["etag"]), r["etag"], f"{size}: the entity tag is one of its own")
            for _ in range(20):  # often enough to be kept encrypted
                part = server.get(segment)
            tap.ok(part.status == 200 and part.body in want and int(part["content-length"]) == len(part.body), f"{size}: a hot segment is of this file", part)
        tap.ok(len(set(seen.values())) == 2, "two sizes, two entity tags", seen)

    (work / "keys.yaml").write_text(keys)
    (work / "wv.yaml").write_text(keys_file(["a/b"]) + "drm: { systems: [widevine] }\n")
    state = work / "state"
    state.mkdir(mode=0o700)
    for name, want, flags in (("PlayReady", True, ["--keys", work / "keys.yaml"]), ("Widevine", False, ["--keys", work / "wv.yaml"]),
                              ("PlayReady, no cenc", False, ["--keys", work / "keys.yaml", "--schemes", "cbcs"]),
                              ("PlayReady, cenc by a rule", True, ["--keys", work / "keys.yaml", "--schemes", "cbcs", "--assets", "a/=cenc"])):
        for size in ("8", "16"):
            r = run(sluice.path, "serve", "--check", "--media", media, "--state-dir", state, "--cenc-iv-size", size, *flags)
            tap.ok(r.code == 0 and bool(re.search(WARNING, r.err)) == (want and size == "16"), f"--check: {name}, IVs of {size} bytes", r)
    r = run(sluice.path, "serve", "--check", "--media", media, "--state-dir", state, "--cenc-iv-size", "12")
    tap.ok(r.code == 2 and "8, 16" in r.err, "--check: IVs of 12 bytes are refused", r)


def main():
    tap = Tap()
    if not VECTORS.is_dir():
        tap.skip("ivs", f"{VECTORS} is not there")
        tap.end()
    sluice = Sluice(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-ivs-") as work:
        served(tap, sluice, pathlib.Path(work))
        reloaded(tap, sluice, pathlib.Path(work))
    tap.end()


if __name__ == "__main__":
    main()
