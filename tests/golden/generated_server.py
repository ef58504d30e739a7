"""Generated files through the server: for generated.py."""
import random
import re
import struct
import xml.etree.ElementTree as ET

from golden.generated_cases import ffmpeg_can, first_difference, readable, references, skipped
from golden.vectors import SCHEMES
from integration.truth import url
from judge import boxes
from judge.programs import FFMPEG, run

RANGES = 24
DASH = "{urn:mpeg:dash:schema:mpd:2011}"


def serve(c, client):
    """Property 3: what is served, in each scheme."""
    o = c.odd
    for scheme in ("clear", *SCHEMES):
        path = url(c.asset, scheme, 1, "t.mp4")
        whole = client.get(path)
        if o.refusal:
            c.want(whole.status == 404, lambda: f"{path}: {whole}")
            continue
        if not c.want(whole.status == 200, lambda: f"{path}: {whole}"):
            continue
        data = whole.body
        c.served["whole", scheme] = data
        if scheme == "clear":
            for label, back in list(c.served.get("decrypted", {}).items())[:2]:
                c.same(back, data, f"{label}: decrypted and served clear")
        elif c.served.get(("offline", scheme)):
            c.same(data, c.served["offline", scheme], f"{scheme}: served and encrypted offline")
        pieces(c, client, scheme, data)
        ranges(c, client, path, data)


def pieces(c, client, scheme, data):
    o = c.odd
    base, segments = url(c.asset, scheme, 1, "t"), o.segments()
    init = client.get(f"{base}/init.mp4").body
    parts = [client.get(f"{base}/{n + 1}.m4s") for n in range(len(segments) + 1)]
    if not c.same([p.status for p in parts], [200] * len(segments) + [404], f"{scheme}: segments"):
        return
    parts = [p.body for p in parts[:-1]]
    sidx = boxes.one(data, b"sidx")
    c.same(init + b"".join(parts), data[:sidx.start] + data[sidx.end:], f"{scheme}: init and segments are the whole without sidx")
    c.same([n for n, _ in references(c, data, segments, scheme)], [len(p) for p in parts], f"{scheme}: sidx's sizes")
    all_samples = boxes.audio(data).samples
    at = 0
    for n, (part, fragments) in enumerate(zip(parts, segments)):
        want = [s for f in fragments for s in f.samples]
        got = boxes.audio(init + part).samples
        c.same([(s.duration, s.time, s.cts, s.size) for s in got], [(s.duration, s.time, s.cts, len(s.data)) for s in want], f"{scheme}: segment {n + 1}")
        c.same([(s.data, s.iv) for s in got], [(s.data, s.iv) for s in all_samples[at:at + len(got)]], f"{scheme}: segment {n + 1} and the whole")
        at += len(got)
    playlists(c, client, scheme, segments, data, parts)
    mpds(c, client, scheme, segments, data)


def ranges(c, client, path, data):
    rng = random.Random(c.seed)
    wanted = []
    for _ in range(RANGES):
        a = rng.randrange(len(data))
        b = min(len(data) - 1, a + rng.choice((0, 1, 15, 16, 17, 300, len(data))))
        wanted.append((a, b))
    client.socket.sendall(b"".join(client.request_bytes(path, headers={"Range": f"bytes={a}-{b}"}) for a, b in wanted))
    for a, b in wanted:
        r = client.read()
        c.want(r.status == 206 and r.body == data[a:b + 1], lambda a=a, b=b, r=r: f"{path}: bytes {a} to {b}: {first_difference(r.body, data[a:b + 1])}")


def spans(segments):
    """[(start, end)] of segments in media time, None without samples."""
    out = []
    for fragments in segments:
        samples = [s for f in fragments for s in f.samples]
        out.append((samples[0].time, samples[-1].time + samples[-1].duration) if samples else None)
    return out


def playlists(c, client, scheme, segments, data, parts):
    o, times = c.odd, spans(segments)
    durations = [s.duration for s in o.samples] or [0]
    for name in ("media.m3u8", "byterange.m3u8"):
        r = client.get(url(c.asset, scheme, 1, "t", name))
        if not c.want(r.status == 200, lambda: f"{scheme} {name}: {r}"):
            continue
        text = r.body.decode()
        found = re.findall(r"((?:#EXT-X-DISCONTINUITY\n)?)#EXTINF:([0-9.]+),\n(?:#EXT-X-BYTERANGE:(\d+)@(\d+)\n)?(\S+)\n", text)
        if not c.same(len(found), len(segments), f"{scheme} {name}: segments"):
            continue
        for n, (_, seconds, length, offset, uri) in enumerate(found):
            if name == "byterange.m3u8":
                c.same(data[int(offset):int(offset) + int(length)], parts[n], f"{scheme} {name}: byte range {n + 1}")
            else:
                c.same(uri, f"{n + 1}.m4s", f"{scheme} {name}: URI {n + 1}")
        # A segment lasts until its samples end where a gap of a sample or more follows, else until the next begins (manifests.md, Times).
        for n, (_, seconds, *_) in enumerate(found):
            after = found[n + 1][0] if n + 1 < len(found) else ""
            if not times[n] or n + 1 < len(found) and not times[n + 1]:
                continue
            gap = times[n + 1][0] - times[n][1] if n + 1 < len(found) else 0
            if after or gap > max(durations) or gap < max(1, min(durations)):
                c.want(bool(after) == (gap > 0 and gap >= min(durations)), f"{scheme} {name}: behind segment {n + 1} {after!r}, a gap of {gap}")
            want = (times[n][1] - times[n][0] + (0 if after else gap)) / o.timescale
            c.want(abs(float(seconds) - want) < 3e-6, f"{scheme} {name}: EXTINF {seconds} of segment {n + 1}, want {want}")
        target = int(re.search(r"TARGETDURATION:(\d+)", text)[1])
        c.want(all(int(float(s) + 0.5) <= target for _, s, *_ in found), f"{scheme} {name}: longer than the target duration")


def mpds(c, client, scheme, segments, data):
    o, skip, times = c.odd, skipped(c.odd, segments), spans(segments)
    r = client.get(url(c.asset, scheme, "manifest.mpd"))
    if not c.want(r.status == 200, lambda: f"{scheme} manifest.mpd: {r}"):
        return
    root = ET.fromstring(r.body)
    template = next(root.iter(f"{DASH}SegmentTemplate"))
    c.same(int(template.get("timescale")), o.timescale, f"{scheme} MPD: timescale")
    at, rows = 0, []
    for s in template.iter(f"{DASH}S"):
        at = int(s.get("t", at))
        for _ in range(int(s.get("r", "0")) + 1):
            rows.append((at, at + int(s.get("d"))))
            at += int(s.get("d"))
    if c.same(len(rows), len(segments), f"{scheme} MPD: segments"):
        for n, (row, span) in enumerate(zip(rows, times)):
            if span is None:
                continue
            after = next((t[0] for t in times[n + 1:] if t), span[1])
            want = [max(0, t - skip) + o.delay for t in (*span, after)]
            c.want(row[0] == want[0] and want[1] <= row[1] <= max(want[1:]), f"{scheme} MPD: segment {n + 1} is {row}, want {want}")
    for rep in root.iter(f"{DASH}Representation"):
        c.want(int(rep.get("bandwidth")) > 0 or not sum(s.duration for s in o.samples), f"{scheme} MPD: bandwidth {rep.get('bandwidth')}")
    c.want(root.get("mediaPresentationDuration"), f"{scheme} MPD: no duration")
    r = client.get(url(c.asset, scheme, "ondemand.mpd"))
    if not c.want(r.status == 200, lambda: f"{scheme} ondemand.mpd: {r}"):
        return
    base = next(ET.fromstring(r.body).iter(f"{DASH}SegmentBase"))
    sidx = boxes.one(data, b"sidx")
    c.same(base.get("indexRange"), f"{sidx.start}-{sidx.end - 1}", f"{scheme} ondemand.mpd: indexRange")
    r = client.get(url(c.asset, scheme, "master.m3u8"))
    c.want(r.status == 200 and b"1/t/media.m3u8" in r.body, lambda: f"{scheme} master.m3u8: {r}")


def decoded(data, *options):
    return run(FFMPEG, "-v", "error", "-nostdin", *options, "-f", "mov", "-i", "pipe:0", "-f", "md5", "-", stdin=data)


def decodes(c):
    """What a real codec made, through ffmpeg's decoder: encrypted and clear sound alike, without complaint."""
    if not FFMPEG or not c.odd.content or c.odd.refusal:
        return
    clear, source = (decoded(d) for d in (c.served.get(("whole", "clear"), b""), readable(c.odd)))
    c.want(clear.code == 0 and not clear.err or source.code or source.err, lambda: f"ffmpeg decodes what is served clear: {clear}, the source {source}")
    for scheme in SCHEMES:
        data = c.served.get(("whole", scheme))
        if data and clear.code == 0 and not clear.err and "ffmpeg does not read the clear file right" not in c.notes and ffmpeg_can(c.odd):
            c.judges.add("ffmpeg's decoder")
            r = decoded(data, "-decryption_key", c.record(scheme)[1])
            c.want(r.code == 0 and not r.err and r.out == clear.out, lambda r=r: f"{scheme}: ffmpeg decodes: {r} {r.out}, want {clear.out}")
        elif data:
            c.notes.append("ffmpeg does not decode the clear file without complaint")


def guarded(c, what, *args):
    try:
        what(c, *args)
    except (OSError, EOFError, ValueError, IndexError, KeyError, StopIteration, struct.error, ET.ParseError) as e:
        c.faults.append(f"{what.__name__}: {e!r} at line {e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next else '?'}")
        return False
    return True


def serve_all(cases, server):
    client = server.client()
    for c in cases:
        if not guarded(c, serve, client):
            client.close()
            client = server.client()
    client.close()
