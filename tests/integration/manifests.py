#!/usr/bin/env python3
"""Playlists and MPDs: everything they name is there and is what they say; parsers by others read them.

manifests.py SLUICE
"""
import base64
import json
import pathlib
import re
import shutil
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree as ET

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import SCHEMES, keys_file, record, url  # noqa: E402
from judge import boxes, catalogue  # noqa: E402
from judge.programs import MODULES, VECTORS, Sluice, run  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

CODECS = {b"Opus": "opus", b"fLaC": "flac", b"alac": "alac", b"ac-3": "ac-3", b"ec-3": "ec-3"}
DASH = "{urn:mpeg:dash:schema:mpd:2011}"
CENC = "{urn:mpeg:cenc:2013}"
SPOKEN = "spoken/languages"
SPOKEN_TRACKS = {"eng": ("aac-96", "aac-160", "flac"), "fra": ("aac-160", "aac-320"), "deu": ("aac-96",)}
METHODS = {"cenc": "SAMPLE-AES-CTR", "cbcs": "SAMPLE-AES"}


def attributes(text):
    """An HLS attribute list as {name: value without quotes}."""
    return {k: v.strip('"') for k, v in re.findall(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)', text)}


def peak_rate(segments, target):
    """RFC 8216, 4.3.4.2: the largest bit rate of contiguous segments of 0.5 to 1.5 target durations together."""
    peak = 0
    for i in range(len(segments)):
        bits = seconds = 0
        for d, b in segments[i:]:
            bits, seconds = bits + 8 * len(b or b""), seconds + d
            if seconds > 1.5 * target:
                break
            if seconds >= 0.5 * target:
                peak = max(peak, bits / seconds)
    return peak or sum(8 * len(b or b"") for _, b in segments) / max(0.001, sum(d for d, _ in segments))


class Judge:
    def __init__(self, tap, client, tracks):
        self.tap, self.client, self.tracks = tap, client, tracks
        self.documents = []
        self.expected = {}

    def fetch(self, path, what):
        r = self.client.get(path)
        return r if self.tap.ok(r.status == 200, f"{what}: is there", f"{path}: {r}") else None

    def media_playlist(self, label, base, asset, track, scheme):
        r = self.fetch(base, label)
        if r is None:
            return 0
        text = r.body.decode()
        lines = [l for l in text.splitlines() if l]
        tags = dict(l.partition(":")[::2] for l in lines if l.startswith("#EXT-X-") and ":" in l)
        faults, segments, duration, rng, at = [], [], None, None, 0
        whole = self.client.get(url(asset, scheme, 1, f"{track}.mp4")).body
        init_uri = attributes(tags["#EXT-X-MAP"])
        init = self.part(base, init_uri["URI"], init_uri.get("BYTERANGE"), 0)
        for line in lines:
            if line.startswith("#EXTINF:"):
                duration = float(line[8:].split(",")[0])
            elif line.startswith("#EXT-X-BYTERANGE:"):
                rng = line[17:]
            elif not line.startswith("#"):
                body = self.part(base, line, rng, at)
                if rng:
                    n, _, o = rng.partition("@")
                    at = int(o or at) + int(n)
                segments.append((duration, body))
                duration = rng = None
        for key in (attributes(l.partition(":")[2]) for l in lines if l.startswith("#EXT-X-KEY:")):
            if key["METHOD"] != METHODS[scheme]:
                faults.append(f"METHOD {key['METHOD']}")
            if scheme == "cenc" and "IV" in key:
                faults.append("an IV with SAMPLE-AES-CTR")
            if key.get("KEYFORMAT") == "identity" and (k := self.client.get(urllib.parse.urljoin(base, key["URI"]))).body.hex() != record(asset, scheme)[1]:
                faults.append(f"the identity key at {key['URI']}: {k}")
        if not [l for l in lines if l.startswith("#EXT-X-KEY:")]:
            faults.append("no EXT-X-KEY")
        sidx = boxes.one(whole, b"sidx")
        without = whole[:sidx.start] + whole[sidx.end:]
        if None in [init] + [b for _, b in segments] or init + b"".join(b for _, b in segments) != without:
            faults.append("MAP and segments are not the whole without sidx")
        else:
            track_ = boxes.audio(without)
            seconds = sum(s.duration for s in track_.samples) / track_.timescale
            if abs(seconds - sum(d for d, _ in segments)) > 0.001 * len(segments) + 0.01:
                faults.append(f"EXTINF adds up to {sum(d for d, _ in segments)}, the samples to {seconds}")
        target = int(tags["#EXT-X-TARGETDURATION"])
        if any(round(d) > target for d, _ in segments):
            faults.append(f"a segment is longer than the target {target}")
        if "#EXT-X-ENDLIST" not in lines or not text.startswith("#EXTM3U") or tags.get("#EXT-X-PLAYLIST-TYPE") not in (None, "VOD"):
            faults.append("not a VOD playlist")
        if int(tags["#EXT-X-VERSION"]) < 6:
            faults.append("version below 6")
        self.tap.ok(not faults, f"{label}: names the right bytes, times and keys", "\n".join(faults) + "\n" + text[:1500])
        self.documents.append({"name": label, "kind": "hls", "url": base, "text": text})
        self.expected[label] = len(segments)
        return peak_rate(segments, target)

    def part(self, base, uri, byterange, at):
        path = urllib.parse.urljoin(base, uri)
        if not byterange:
            r = self.client.get(path)
            return r.body if r.status == 200 else None
        n, _, o = byterange.partition("@")
        start = int(o) if o else at
        r = self.client.get(path, headers={"Range": f"bytes={start}-{start + int(n) - 1}"})
        return r.body if r.status == 206 else None

    def multivariant(self, asset, scheme, name):
        label, base = f"{asset} {scheme} {name}", url(asset, scheme, name)
        r = self.fetch(base, label)
        if r is None:
            return
        text, faults, variants, groups, seen = r.body.decode(), [], [], {}, {}
        lines = text.splitlines()
        for i, line in enumerate(lines):
            if line.startswith("#EXT-X-STREAM-INF:"):
                variants.append((attributes(line.partition(":")[2]), next(l for l in lines[i + 1:] if l and not l.startswith("#"))))
            if line.startswith("#EXT-X-MEDIA:") and "URI" in (a := attributes(line.partition(":")[2])):
                groups.setdefault(a["GROUP-ID"], []).append(a)
        faults += self.same_members(asset, groups, variants)
        for given, uri in variants:
            track = urllib.parse.unquote(uri.split("/")[-2])
            codecs, peak = set(), 0
            for member in groups.get(given["AUDIO"], []):
                path = urllib.parse.urljoin(base, member["URI"])
                name = urllib.parse.unquote(path.split("/")[-2])
                if name not in seen:
                    seen[name] = self.media_playlist(f"{asset}/{name} {scheme} {path.rsplit('/', 1)[1]}", path, asset, name, scheme)
                peak = max(peak, seen[name])
                codecs.add(CODECS.get(boxes.audio(self.tracks[asset, name]).format, "mp4a"))
            if {c.lower().partition(".")[0] for c in given["CODECS"].split(",")} != codecs:
                faults.append(f"{track}: CODECS {given['CODECS']} for {codecs}")
            if int(given["BANDWIDTH"]) < peak * 0.999:
                faults.append(f"{track}: BANDWIDTH {given['BANDWIDTH']}, a segment has {peak:.0f}")
            if int(given["BANDWIDTH"]) > peak * 2 + 20000:
                faults.append(f"{track}: BANDWIDTH {given['BANDWIDTH']} is far above {peak:.0f}")
        want = {t for a, t in self.tracks if a == asset}
        if set(seen) != want:
            faults.append(f"tracks {sorted(seen)}, want {sorted(want)}")
        if "#EXT-X-INDEPENDENT-SEGMENTS" not in lines:
            faults.append("no EXT-X-INDEPENDENT-SEGMENTS")
        self.tap.ok(not faults, f"{label}: variants", "\n".join(faults) + "\n" + text[:2000])
        self.documents.append({"name": label, "kind": "hls", "url": base, "text": text})

    @staticmethod
    def same_members(asset, groups, variants):
        """RFC 8216, 4.3.4.1.1: groups of one type have the same members; a variant is its group's default rendition."""
        faults = []
        for name, members in groups.items():
            default = [m for m in members if m["DEFAULT"] == "YES"]
            if len(default) != 1 or any(m["AUTOSELECT"] != "YES" for m in members) or len({m["NAME"] for m in members}) != len(members):
                faults.append(f"group {name}: {members}")
            uris = [u for v, u in variants if v["AUDIO"] == name]
            if uris != [m["URI"] for m in default]:
                faults.append(f"group {name}: variants {uris}, default {default}")
        who = {tuple((m["NAME"], m.get("LANGUAGE"), m["DEFAULT"]) for m in members) for members in groups.values()}
        if asset == SPOKEN and (len(who) != 1 or {m[1] for w in who for m in w} != {"en", "fr", "de"}):
            faults.append(f"members differ: {who}")
        return faults

    def mpd(self, asset, scheme, name):
        label, base = f"{asset} {scheme} {name}", url(asset, scheme, name)
        r = self.fetch(base, label)
        if r is None:
            return
        text, faults, seen, counts = r.body.decode(), [], set(), []
        root = ET.fromstring(text)
        for adaptation in root.iter(f"{DASH}AdaptationSet"):
            kids = [p.get(f"{CENC}default_KID") for p in adaptation.iter(f"{DASH}ContentProtection") if p.get(f"{CENC}default_KID")]
            schemes = [p.get("value") for p in adaptation.iter(f"{DASH}ContentProtection")
                       if p.get("schemeIdUri") == "urn:mpeg:dash:mp4protection:2011"]
            if schemes != [scheme] or not kids:
                faults.append(f"mp4protection {schemes}, KIDs {kids}")
            for rep in adaptation.iter(f"{DASH}Representation"):
                track, count, problems = self.representation(root, adaptation, rep, base, asset, scheme, kids)
                seen.add(track)
                counts.append(count)
                faults += [f"{track}: {p}" for p in problems]
        want = {t for a, t in self.tracks if a == asset}
        if seen != want:
            faults.append(f"tracks {sorted(seen)}, want {sorted(want)}")
        if root.get("type", "static") != "static" or not root.get("mediaPresentationDuration"):
            faults.append("not a static MPD with a duration")
        self.tap.ok(not faults, f"{label}: names the right bytes, times and KIDs", "\n".join(faults) + "\n" + text[:2500])
        self.documents.append({"name": label, "kind": "dash", "url": "http://judge.test" + base, "text": text})
        self.expected[label] = counts

    def representation(self, root, adaptation, rep, base, asset, scheme, kids):
        def inherited(tag):
            for node in (rep, adaptation):
                if (found := node.find(DASH + tag)) is not None:
                    return found
            return None
        problems = []
        folder = base
        for node in (root, root.find(f"{DASH}Period"), adaptation, rep):
            if (b := node.find(f"{DASH}BaseURL")) is not None:
                folder = urllib.parse.urljoin(folder, b.text)
        template = inherited("SegmentTemplate")
        if template is not None:
            fill = lambda t, n="": t.replace("$RepresentationID$", rep.get("id")).replace("$Number$", str(n))  # noqa: E731
            init_path = urllib.parse.urljoin(folder, fill(template.get("initialization")))
            track = urllib.parse.unquote(init_path.split("/")[-2])
            init = self.client.get(init_path).body
            number, parts, time = int(template.get("startNumber", "1")), [], None
            for s in template.find(f"{DASH}SegmentTimeline"):
                time = int(s.get("t", time if time is not None else 0))
                for _ in range(int(s.get("r", "0")) + 1):
                    r = self.client.get(urllib.parse.urljoin(folder, fill(template.get("media"), number)))
                    t = boxes.audio(init + r.body) if r.status == 200 else None
                    d = int(s.get("d"))
                    # The timeline is that of presentation: what the edit list skips does not count.
                    skip = boxes.priming(t) if t else 0
                    want = [max(0, x - skip) for x in (t.samples[0].time, t.samples[-1].time + t.samples[-1].duration)] if t and t.samples else []
                    if t is None or want and want != [time, time + d]:
                        problems.append(f"segment {number}: t={time} d={d}, found {want}")
                    time += d
                    number += 1
                    parts.append(r.body)
            count = len(parts)
            first = boxes.audio(init)
            if int(template.get("timescale", "1")) != first.timescale:
                problems.append(f"timescale {template.get('timescale')}")
            sizes = parts
        else:
            segment_base = inherited("SegmentBase")
            track = urllib.parse.unquote(folder.rsplit("/", 1)[1]).removesuffix(".mp4")
            data = self.client.get(folder).body
            sidx = boxes.one(data, b"sidx")
            a, _, b = segment_base.get("indexRange").partition("-")
            if (int(a), int(b) + 1) != (sidx.start, sidx.end):
                problems.append(f"indexRange {a}-{b}, sidx is {sidx}")
            first_range = segment_base.find(f"{DASH}Initialization").get("range")
            if first_range != f"0-{boxes.one(data, b'moov').end - 1}":
                problems.append(f"Initialization range {first_range}")
            first, count, sizes = boxes.audio(data), 0, []
            # ISO/IEC 14496-12 8.16.3.3: in presentation time, as a SegmentTimeline is.
            start, _, references, _ = boxes.sidx_references(data, sidx)
            skip, last = boxes.priming(first), first.samples[-1]
            if [start, start + sum(d for _, d in references)] != [max(0, first.samples[0].time - skip), last.time + last.duration - skip]:
                problems.append(f"sidx from {start}, {sum(d for _, d in references)} ticks; {skip} are skipped")
            if start != int(segment_base.get("presentationTimeOffset", "0")):
                problems.append(f"sidx starts at {start}, the presentation at {segment_base.get('presentationTimeOffset')}")
        if [k.replace("-", "").lower() for k in kids] != [first.tenc.kid.hex()]:
            problems.append(f"default_KID {kids}, tenc {first.tenc.kid.hex()}")
        if rep.get("mimeType", adaptation.get("mimeType")) != "audio/mp4":
            problems.append("mimeType")
        if sizes and int(rep.get("bandwidth")) <= 0:
            problems.append("bandwidth")
        rate = rep.get("audioSamplingRate", adaptation.get("audioSamplingRate"))
        if rate is None or not 7000 < int(rate.split()[-1]) < 200000:
            problems.append(f"audioSamplingRate {rate}")
        if inherited("AudioChannelConfiguration") is None:
            problems.append("no AudioChannelConfiguration")
        codecs = rep.get("codecs", adaptation.get("codecs"))
        want = CODECS.get(first.format)
        if codecs.lower() != want if want else not codecs.startswith("mp4a."):
            problems.append(f"codecs {codecs} for {first.format}")
        return track, count, problems


def by_others(tap, judge):
    """hls-parser, m3u8-parser and mpd-parser read what we wrote, and count the same."""
    if shutil.which("node") is None or not (MODULES / "hls-parser").is_dir():
        tap.skip("parsers by others", "node or the npm packages are not installed: tools/npm")
        return
    r = run("node", pathlib.Path(__file__).with_name("manifests.mjs"), stdin=json.dumps(judge.documents).encode())
    if not tap.ok(r.code == 0, "parsers by others run", r):
        return
    for item in json.loads(r.out):
        want = judge.expected.get(item["name"])
        good = "error" not in item and not item.get("warnings")
        if isinstance(want, int):
            good = good and item["segments"] == want and item["ended"]
        elif isinstance(want, list) and all(want):
            good = good and sorted(item["segments"]) == sorted(want)
        tap.ok(good, f"{item['name']}: {item['parser']} reads it", f"{item}\nwant {want}")


def speak(media, tracks):
    """An asset in three languages, which have unlike numbers of rungs, from the tracks of album/song."""
    for language, names in SPOKEN_TRACKS.items():
        for name in names:
            if ("album/song", name) not in tracks:
                continue
            data = bytearray(tracks["album/song", name])
            mdhd = boxes.one(data, b"moov/trak/mdia/mdhd")
            packed = sum((ord(c) - 0x60) << s for c, s in zip(language, (10, 5, 0)))
            data[mdhd.end - 4:mdhd.end - 2] = packed.to_bytes(2, "big")
            (media / SPOKEN).mkdir(parents=True, exist_ok=True)
            (media / SPOKEN / f"{language}-{name}.mp4").write_bytes(data)
            tracks[SPOKEN, f"{language}-{name}"] = bytes(data)


def crowd(tap, sluice, media, tracks):
    """More tracks than a manifest holds: the first 64 by name, and a line in the log."""
    data = tracks["synth/around_moof", "a"]
    (media / "crowd").mkdir()
    for i in range(70):
        (media / "crowd" / f"t{i:02}.mp4").write_bytes(data)
    shutil.copytree(media / "folder/cmaf/audio", media / "crowd" / "z")
    (media / "crowd" / "zz").mkdir()
    with Server(sluice, media, keys=keys_file(["crowd"])) as server:
        for _ in range(3):
            r = server.get(url("crowd", "cbcs", "master.m3u8"))
        named = re.findall(r"^1/(t\d\d)/media.m3u8", r.body.decode(), re.M)
        tap.equal(sorted(named), [f"t{i:02}" for i in range(64)], "70 tracks: the first 64 are in the playlist")
        tap.equal(server.get(url("crowd", "cbcs", "1/t69/init.mp4")).status, 200, "70 tracks: the last is served")
        said = [l for l in server.log() if "crowd" in l]
        tap.ok(len(said) == 1 and "last 7 " in said[0], "70 files and a folder: one line says how many are left out", said)


def long_names(tap, sluice, media, tracks):
    """Names up to what a URL has room for: what a manifest names is there, and what can be asked for can be rotated."""
    data = tracks["synth/around_moof", "a"]
    wide, deep, deeper = "/".join(["w" * 240] * 4), "/".join("d" * 60), "/".join("e" * 61)
    for asset, name in ((wide, "w" * 28), (wide, "w" * 29), (deep, "t"), (deeper, "t")):
        (media / asset).mkdir(parents=True, exist_ok=True)
        (media / asset / f"{name}.mp4").write_bytes(data)
    shutil.copytree(media / "folder/cmaf/audio", media / wide / ("x" * 40))
    with Server(sluice, media) as server:
        for asset, n in ((wide, 1), (deep, 1), (deeper, 0)):
            for manifest in ("master.m3u8", "byterange.m3u8"):
                text = server.get(url(asset, "cbcs", manifest)).body.decode()
                named = re.findall(r"^1/.*", text, re.M)
                got = {server.get(url(asset, "cbcs", path)).status for path in named}
                tap.ok(len(named) == n and got <= {200}, f"{asset.count('/') + 1} segments, {manifest}: every track that is named is there", f"{named} {got}")
            r = run(sluice, "rotate", asset, "--admin", f"127.0.0.1:{server.admin_port}")
            tap.ok(r.code == 1 - n and ("more than" in r.err or "at most 60 segments" in r.err or n), f"{asset.count('/') + 1} segments: rotated", r)
        r = run(sluice, "rotate", "w" * 1025, "--admin", f"127.0.0.1:{server.admin_port}")
        tap.ok(r.code == 1 and "1025 bytes, more than 1024" in r.err, "rotate of a longer name says that", r)
        said = server.wait_log("too long for URLs")
        tap.ok(said and "2 tracks' names" in said and said.endswith("leave them out"), "the log counts the tracks whose URLs are too long", said)


def one_key_missing(tap, sluice, media, tracks):
    """A tier without a key: 503, not a document without it that players keep; the media that have a key are served."""
    asset = "album/song"
    if (asset, "flac") not in tracks:
        tap.skip("a tier without a key", "no ffmpeg")
        return
    with Server(sluice, media, keys=keys_file([asset]) + "drm: { per_tier: true }\n") as server:
        for name in ("master.m3u8", "byterange.m3u8", "manifest.mpd", "ondemand.mpd", "1/flac/media.m3u8", "1/flac/init.mp4"):
            r = server.get(url(asset, "cbcs", name))
            tap.ok(r.status == 503 and r["retry-after"] and r["cache-control"] == "no-store", f"a tier without a key, {name}: 503, not kept", r)
        tap.equal(server.get(url(asset, "cbcs", "1/opus/init.mp4")).status, 200, "a tier without a key: the other has one")
        said = [l for l in server.log() if "no key" in l]
        tap.ok(len(said) == 1 and asset in said[0] and "lossless" in said[0], "a tier without a key: one line says which", said)


def main():
    tap = Tap()
    if not VECTORS.is_dir():
        tap.skip("manifests", f"{VECTORS} is not there")
        tap.end()
    sluice = Sluice(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-manifests-") as work:
        media = pathlib.Path(work) / "media"
        tracks = catalogue.build(media)
        speak(media, tracks)
        keep = {a for a, _ in tracks if not a.startswith("synth/")} | {"synth/around_moof", "synth/indexed", "synth/signed_offsets"}
        tracks = {k: v for k, v in tracks.items() if k[0] in keep}
        with Server(sluice.path, media, "--insecure-clearkey", keys=keys_file(keep)) as server:
            judge = Judge(tap, server.client(), tracks)
            tap.ok(any(re.search(r"(?i)insecure", l) for l in server.log()), "--insecure-clearkey: the log says it loudly", "\n".join(server.log()))
            for asset in sorted(keep):
                for scheme in SCHEMES:
                    for part, name in ((judge.multivariant, "master.m3u8"), (judge.multivariant, "byterange.m3u8"),
                                       (judge.mpd, "manifest.mpd"), (judge.mpd, "ondemand.mpd")):
                        try:
                            part(asset, scheme, name)
                        except (OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, ET.ParseError) as e:
                            tap.ok(False, f"{asset} {scheme} {name}: is judged", repr(e))
                            judge.client = server.client()
                kid, key, _ = record(asset, "cenc")
                b64 = lambda h: base64.urlsafe_b64encode(bytes.fromhex(h)).decode().rstrip("=")  # noqa: E731
                r = judge.client.get(url(asset, "cenc", 1, "license"), "POST", {"Content-Type": "application/json"},
                                     json.dumps({"kids": [b64(kid)], "type": "temporary"}).encode())
                want = {"keys": [{"kty": "oct", "k": b64(key), "kid": b64(kid)}], "type": "temporary"}
                tap.ok(r.status == 200 and json.loads(r.body) == want, f"{asset}: a ClearKey licence", r)
        one_key_missing(tap, sluice.path, media, tracks)
        crowd(tap, sluice.path, media, tracks)
        long_names(tap, sluice.path, media, tracks)
        by_others(tap, judge)
    tap.end()


if __name__ == "__main__":
    main()
