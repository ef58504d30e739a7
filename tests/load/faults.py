#!/usr/bin/env python3
"""Servers that serve wrong bytes, and the run that must notice: faults.py SLUICE"""
import pathlib
import re
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import boxes, synth  # noqa: E402
from judge.aes import Aes128  # noqa: E402
from judge.load import Load, Proxy, keys_text, kid_key, media  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSETS = ["album/one", "two"]


def scenario(scheme, sessions, tracks=1, protocol="hls", share="100%", verify="", more="", player=""):
    """Sessions that fetch whole tracks at once, all within a moment."""
    return f"""name: faults
seed: 5
arrivals: [{{ for: 250ms, rate: {4 * sessions} }}]
drain: 100ms
catalogue: {{ assets: [{", ".join(ASSETS)}], shape: 0 }}
scheme: {scheme}
protocol: {protocol}
player: {{ timeout: 60s, ahead: 20, tracks: {tracks}, skip: 0{player} }}
verify: {{ share: {share}, media: media, keys: keys.yaml {verify} }}
level: {{ lag_p99_ms: 20000 }}
{more}"""


class Corruption:
    """Flips one bit of every millionth byte of the segments and init segments that pass."""

    def __init__(self, every=1000000):
        self.every, self.passed, self.planted = every, 0, []

    def __call__(self, path, response):
        if response.status != 200 or not re.search(r"\.(m4s|mp4)$", path):
            return
        end, body = self.passed + len(response.body), bytearray(response.body)
        for at in range(self.every - self.passed % self.every - 1, len(body), self.every):
            body[at] ^= 0x10
            self.planted.append((path, at, response.body))
        self.passed, response.body = end, bytes(body)


def samples_of(server, path, body):
    """[(offset in the segment, size, IV)] by its own boxes."""
    init = server.get(re.sub(r"[^/]+$", "init.mp4", path)).body
    return [(s.offset - len(init), s.size, s.iv) for s in boxes.audio(init + body).samples]


def sample_at(server, clear, path, body, at):
    """Number within the clear file (a fragment is a segment there) of the sample that byte `at` of the segment lies in."""
    first = sum(boxes.audio(clear).fragments[:int(re.search(r"(\d+)\.m4s$", path).group(1)) - 1])
    return next((first + n for n, (off, size, _) in enumerate(samples_of(server, path, body)) if off <= at < off + size), None)


def one_in_a_million(tap, load, server, scheme, folder):
    fault = Corruption()
    with Proxy(server.port, fault) as proxy:
        r = load(scenario(scheme, 24), proxy.url)
    t, name = r.json["totals"], f"{scheme}: one byte in a million"
    tap.ok(fault.planted and t["wrong"] == len(fault.planted), f"{name}: every one is found ({len(fault.planted)} in {fault.passed} bytes)",
           f"{t['wrong']} found\n{r.out.decode()}")
    tap.equal(r.code, 1, f"{name}: the run fails")
    m = re.search(r"^(/\S+): byte (\d+) \(sample (\d+), byte \d+ of it\)", t["first_wrong"])
    near = [p for p in fault.planted if m and p[0] == m[1] and 0 <= p[1] - int(m[2]) < (16 if scheme == "cbcs" else 1)]
    if not tap.ok(near, f"{name}: path and offset are named", f"{t['first_wrong']}\n{[p[:2] for p in fault.planted]}"):
        return
    path, at, body = near[0]
    asset = re.match(r"/(.*)/" + scheme, path)[1]
    tap.equal(int(m[3]), sample_at(server, (folder / "media" / asset / "aac.mp4").read_bytes(), path, body, at), f"{name}: the sample is named")


def any_byte(tap, load, server, scheme):
    """Every byte matters: boxes too. The first answer of each path stays right; each later one has one wrong byte of its own."""
    seen, flipped = {}, []

    def fault(path, response):
        if response.status != 200 or not re.search(r"\.(m4s|mp4)$", path):
            return
        n = seen[path] = seen.get(path, -1) + 1
        if n == 0:
            return
        at = (n * 7919 if n % 2 else n * 13) % min(len(response.body), 900 if n % 2 else 1 << 30)
        body = bytearray(response.body)
        body[at] ^= 1 << (n % 8)
        response.body = bytes(body)
        flipped.append((path, at))

    with Proxy(server.port, fault) as proxy:
        r = load(scenario(scheme, 60), proxy.url)
    # A wrong init segment leaves its session's segments without anything to decrypt them by: those are not counted.
    inits = sum(p.endswith("init.mp4") for p, _ in flipped)
    t = r.json["totals"]
    tap.ok(inits > 30 and t["wrong"] >= inits, f"{scheme}: init segments with one wrong byte, wherever, are found", t)
    with_init = [p for p in flipped if p[0].endswith(".m4s")]
    tap.note(f"{scheme}: {inits} init segments and {len(with_init)} segments changed, {t['wrong']} found")

    flipped.clear()
    seen.clear()

    def segments_only(path, response):
        if path.endswith(".m4s"):
            fault(path, response)
    with Proxy(server.port, segments_only) as proxy:
        r = load(scenario(scheme, 60), proxy.url)
    tap.equal(r.json["totals"]["wrong"], len(flipped), f"{scheme}: segments with one wrong byte, in boxes and in samples, are all found")
    tap.ok(len(flipped) > 200 and any(a < 600 for _, a in flipped), f"{scheme}: {len(flipped)} of them", r)


def first_time(tap, load, server, scheme):
    """The same without any right answer before: what is compared then is the source."""
    seen = {}

    def fault(path, response):
        if path.endswith(".m4s") and response.status == 200:
            n = seen[path] = len(seen)
            body = bytearray(response.body)
            body[(n * 41) % 600] ^= 4
            response.body = bytes(body)
    with Proxy(server.port, fault) as proxy:
        r = load(scenario(scheme, 6), proxy.url)
    t = r.json["totals"]
    tap.ok(seen and t["wrong"] == t["verified"] > 5, f"{scheme}: wrong boxes are found without a right answer to compare with", t)


def ctr(key, iv, data):
    cipher, out = Aes128(bytes.fromhex(key)), bytearray(data)
    for n in range(0, len(data), 16):
        pad = cipher.block(iv.to_bytes(8, "big") + (n // 16).to_bytes(8, "big"))
        for i in range(n, min(n + 16, len(data))):
            out[i] ^= pad[i - n]
    return bytes(out)


def repeated_iv(tap, load, server):
    """Segment 3 comes encrypted with the IVs of segment 2: it decrypts, and gives its content away."""
    made = {}

    def fault(path, response):
        m = re.match(r"/(.*)/cenc/1/aac/(\d+)\.m4s$", path)
        if not m or response.status != 200:
            return
        asset, n = m[1], int(m[2])
        if n != 3:
            return
        if asset not in made:
            made[asset] = recrypt(asset, path, response.body)
        response.body = made[asset]

    def recrypt(asset, path, data):
        before = path.replace("/3.m4s", "/2.m4s")
        first = int.from_bytes(samples_of(server, before, server.get(before).body)[0][2], "big")
        key, body = kid_key(ASSETS.index(asset), 1, "cenc")[1], bytearray(data)
        samples = samples_of(server, path, data)
        ivs_at = data.index(samples[0][2] + samples[1][2])
        for i, (off, size, iv) in enumerate(samples):
            clear = ctr(key, int.from_bytes(iv, "big"), bytes(body[off:off + size]))
            body[off:off + size] = ctr(key, first + i, clear)
            body[ivs_at + 8 * i:ivs_at + 8 * i + 8] = (first + i).to_bytes(8, "big")
        return bytes(body)
    with Proxy(server.port, fault) as proxy:
        r = load(scenario("cenc", 2), proxy.url, timeout=180)
    wrong = r.json["totals"]["first_wrong"]
    m = re.match(r"(/\S+/3\.m4s): byte (\d+) \(sample (\d+)\): the IV [0-9a-f]{16} was used under the same KID in (/\S+/2\.m4s)$", wrong)
    tap.ok(made and m and r.code == 1, "cenc: a repeated IV: both places, offset and sample are named", f"{wrong}\n{r.out.decode()}")


def shared_between_processes(tap, load, server):
    """The same fault when different processes see the two places."""
    r = load(scenario("cenc", 8), f"http://127.0.0.1:{server.port}", "--processes", "3")
    tap.ok(r.code == 0 and r.json["totals"]["wrong"] == 0 < r.json["totals"]["verified"], "the same IVs seen by several processes at one place are no fault", r)


def stale_epochs(tap, load, sluice, folder):
    right = keys_text(ASSETS, (1, 2))
    (folder / "keys.yaml").write_text(right)
    stale = keys_text(ASSETS, (1, 2), stale=(2,))
    for scheme in ("cenc", "cbcs"):
        with Server(sluice, folder / "media", keys=stale) as old, Server(sluice, folder / "media", keys=right) as new:
            r = load(scenario(scheme, 3), f"http://127.0.0.1:{old.port}")
            wrong = r.json["totals"]["first_wrong"]
            tap.ok(r.code == 1 and re.search(r"/2/aac/init\.mp4: byte \d+: its KID does not belong to epoch 2: a stale epoch", wrong),
                   f"{scheme}: the key of the epoch before under the new epoch's path", f"{wrong}\n{r}")

            def segments(path, response):
                if path.endswith(".m4s"):
                    response.body = old.get(path).body
            with Proxy(new.port, segments) as proxy:
                r = load(scenario(scheme, 3), proxy.url)
            wrong = r.json["totals"]["first_wrong"]
            tap.ok(r.code == 1 and re.search(r"/2/aac/\d+\.m4s: byte \d+ \(sample \d+, byte \d+ of it\) decrypts to", wrong),
                   f"{scheme}: segments of the epoch before behind the new init segment", f"{wrong}\n{r}")
            r = load(scenario(scheme, 3), f"http://127.0.0.1:{new.port}")
            tap.ok(r.code == 0 and r.json["totals"]["verified"] > 10, f"{scheme}: the new epoch itself is right", r.out.decode())
        with Server(sluice, folder / "media", keys=keys_text(ASSETS, (1,))) as behind:
            for protocol in ("hls", "dash"):
                r = load(scenario(scheme, 3, protocol=protocol, verify=", epoch: 2"), f"http://127.0.0.1:{behind.port}")
                wrong = r.json["totals"]["first_wrong"]
                tap.ok(r.code == 1 and re.match(r"/\S+/1/aac/init\.mp4: a stale epoch: ", wrong), f"{scheme}, {protocol}: manifests that lead to a stale epoch", wrong)


def without(segment, kind):
    """The segment without that box in each of its trafs; sizes and offsets follow, so that nothing else is wrong."""
    out = bytearray()
    for top in boxes.walk(segment):
        if top.type == b"moof":
            cut = boxes.find(segment, b"traf/" + kind, top.body, top.end)
            moof, less = bytearray(segment[top.start:top.end]), sum(b.end - b.start for b in cut)

            def shrink(at, by):
                moof[at:at + 4] = (int.from_bytes(moof[at:at + 4], "big") - by).to_bytes(4, "big")
            shrink(0, less)
            for traf in boxes.find(segment, b"traf", top.body, top.end):
                shrink(traf.start - top.start, sum(b.end - b.start for b in cut if traf.start < b.start < traf.end))
                for run in boxes.find(segment, b"trun", traf.body, traf.end):
                    shrink(run.body + 8 - top.start, less)
                for saio in boxes.find(segment, b"saio", traf.body, traf.end):
                    at = saio.end - 4 - top.start
                    points_to = top.start + int.from_bytes(moof[at:at + 4], "big")
                    shrink(at, sum(b.end - b.start for b in cut if b.end <= points_to))
            for b in reversed(cut):
                del moof[b.start - top.start:b.end - top.start]
            out += moof
        else:
            out += segment[top.start:top.end]
    return bytes(out)


def signalling(tap, load, sluice, folder):
    """What init segments tell the players of DRM systems: each as the keys file says, wherever the server was told to put it."""
    drm = "drm: { in_band: [widevine, common], systems: [widevine, playready, clearkey], widevine: { provider: us, content_id: '{asset}' } }\n"
    other = drm.replace("provider: us", "provider: as")
    (folder / "signals.yaml").write_text(keys_text(ASSETS) + drm)
    for config, keys, fault, want in (
            ("", drm, None, None),
            ("inband_pssh: true\n", drm, None, None),
            ("", other, None, r"init\.mp4: byte \d+: its pssh of edef8ba9-79d6-4ace-a3c8-27dcd51d21ed is not what the key set says of this key"),
            ("inband_pssh: true\n", drm, (b"WRMHEADER".decode().encode("utf-16le"), b"wRMHEADER".decode().encode("utf-16le")),
             r"init\.mp4: byte \d+: its pssh of 9a04f079-9840-4286-ab92-e65be0885f95 is not what the key set says"),
            ("", drm, (b"\x10\x77\xef\xec", b"\x10\x77\xef\xed"), r"init\.mp4: byte \d+: its pssh of 1077efec-c0b2-4d02-ace3-3c1e52e2fb4b is missing")):
        with Server(sluice, folder / "media", keys=keys_text(ASSETS) + keys, config=config) as server:
            def change(path, response):
                if fault and path.endswith("init.mp4"):
                    response.body = response.body.replace(*fault, 1)
            with Proxy(server.port, change) as proxy:
                r = load(scenario("cenc", 3).replace("keys: keys.yaml", "keys: signals.yaml"), proxy.url)
            wrong = r.json["totals"]["first_wrong"]
            tap.ok(re.search(want, wrong) and r.code == 1 if want else not wrong and r.code == 0, f"pssh: {config.strip() or 'as the keys file says'}: {want or 'right'}", f"{wrong}\n{r}")


def no_way_to_ivs(tap, load, server):
    """Right samples in right boxes, but for one of those by which players find the IVs."""
    for kind in (b"senc", b"saiz", b"saio"):
        def fault(path, response):
            if path.endswith(".m4s"):
                response.body = without(response.body, kind)
        with Proxy(server.port, lambda path, response: fit(fault, path, response)) as proxy:
            r = load(scenario("cenc", 2), proxy.url)
        t, want = r.json["totals"], f"byte 0: its fragment lacks {kind.decode()}, by which players find the IVs of its samples"
        tap.ok(r.code == 1 and t["wrong"] == t["verified"] > 5 and t["first_wrong"].endswith(want), f"cenc: fragments without {kind.decode()}", f"{t}\n{r.err}")


def playlists(tap, load, server):
    """Right segments behind playlists and init segments that are wrong."""
    first = {}

    def later(path):
        """Whether this path has been asked for before."""
        first[path] = first.get(path, 0) + 1
        return first[path] > 1

    def to_clear(path, response):
        if path.endswith("master.m3u8"):
            response.body = re.sub(rb"^(?=\d+/)", b"../clear/", response.body, flags=re.M)

    def cut(path, response):
        if path.endswith("media.m3u8"):
            response.body = re.sub(rb"#EXTINF:[^\n]*\n[^\n]*\n(?=#EXT-X-ENDLIST)", b"", response.body)

    def swapped(path, response):
        if path.endswith("media.m3u8"):
            response.body = response.body.replace(b"\n2.m4s", b"\n*").replace(b"\n3.m4s", b"\n2.m4s").replace(b"\n*", b"\n3.m4s")

    def other_kid(path, response):
        if path.endswith("manifest.mpd") and later(path):
            response.body = re.sub(rb'(default_KID="......)..', rb"\1ee", response.body)

    def first_kid(path, response):
        if path.endswith("media.m3u8") and later(path):
            response.body = re.sub(rb"(KEYID=0x......)..", rb"\1ee", response.body, count=1)

    def other_scheme(path, response):
        if path.endswith("init.mp4"):
            response.body = response.body.replace(b"schm\0\0\0\0cbcs", b"schm\0\0\0\0cenc")

    def pattern(path, response):
        if path.endswith("init.mp4"):
            response.body = response.body.replace(b"tenc\1\0\0\0\0\0", b"tenc\1\0\0\0\0\x19")
    for fault, protocol, want in ((to_clear, "hls", r"/clear/1/aac/init\.mp4: the manifest of cbcs leads to clear"),
                                  (cut, "hls", r"init\.mp4: its playlist ends after \d+\.\d+ s, and its source goes on"),
                                  (swapped, "hls", r"/[23]\.m4s: is not segment [23] of its playlist"),
                                  (other_kid, "dash", r"init\.mp4: byte \d+: its KID is not the playlist's"),
                                  (first_kid, "hls", r"init\.mp4: byte \d+: its KID is not the playlist's"),
                                  (other_scheme, "hls", r"init\.mp4: byte \d+: its sinf is not that of the scheme"),
                                  (pattern, "hls", r"init\.mp4: byte \d+: its sinf is not that of the scheme")):
        with Proxy(server.port, lambda path, response: fit(fault, path, response)) as proxy:
            r = load(scenario("cbcs", 6, protocol=protocol), proxy.url)
        tap.ok(r.code == 1 and re.search(want, r.json["totals"]["first_wrong"]), f"right segments, and: {fault.__name__}", f"{r.json['totals']['first_wrong']}\n{r}")


    def no_text(path, response):
        if path.endswith("media.m3u8"):
            response.body = response.body.replace(b'"init.mp4"', b'"init\xff.mp4"')
    with Proxy(server.port, lambda path, response: fit(no_text, path, response)) as proxy:
        r = load(scenario("cbcs", 2, verify=", epoch: 2", player=", retries: 0"), proxy.url)
    tap.ok(r.code == 1 and "/init%FF.mp4: a stale epoch" in r.json["totals"]["first_wrong"], "a path that is not UTF-8: the JSON is whole", r)


def fit(fault, path, response):
    """`fault`, and the length of what it leaves."""
    fault(path, response)
    response.headers = [(k, str(len(response.body)) if k.lower() == "content-length" and response.body else v) for k, v in response.headers]


def structures(tap, load, sluice, folder):
    """Sources with structures that no encoder makes, times that have gaps among them, and a fault that only one of them can have."""
    made = {s.__name__: s()[0] for s in synth.STRUCTURES}
    made["gap"] = synth.FTYP + synth.moov() + b"".join(
        synth.plain_fragment(n + 1, synth.payloads([300] * 94, n), (n + (n > 1) * 1000) * 94 * synth.FRAME) for n in range(5))
    for name, edit in (("priming", (0, 2112)), ("skips the first segment and more", (0, 100000)), ("begins later", (250, -1, 0, 64))):
        elst = synth.full(b"elst", 0, 0, struct.pack(">I", len(edit) // 2), *(struct.pack(">IiHH", d, t, 1, 0) for d, t in zip(edit[::2], edit[1::2])))
        made[name] = synth.FTYP + synth.moov(edits=synth.box(b"edts", elst)) + b"".join(
            synth.plain_fragment(n + 1, synth.payloads([300] * 94, n), n * 94 * synth.FRAME) for n in range(5))
    made["caf\u00e9 100%/x?"] = made["gap"]
    for name, data in made.items():
        path = folder / "odd" / name / "aac.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (folder / "odd.yaml").write_text(keys_text(made))
    with Server(sluice, folder / "odd", keys=keys_text(made)) as server:
        for scheme, protocol in (("cenc", "hls"), ("cbcs", "dash")):
            for name in made:
                text = scenario(scheme, 4, protocol=protocol).replace(", ".join(ASSETS), name).replace("media: media, keys: keys.yaml", "media: odd, keys: odd.yaml")
                r = load(text, f"http://127.0.0.1:{server.port}")
                tap.ok(r.code == 0 and r.json["totals"]["verified"] > 3, f"{scheme}, {protocol}: {name} is right", f"{r.json and r.json['totals']['first_wrong']}\n{r.out.decode()}{r.err}")

        def unused(path, response):
            if path.endswith(".m4s"):
                response.body = response.body.replace(b"1234567", b"123\xff567", 1)
        with Proxy(server.port, unused) as proxy:
            r = load(text.replace(name, "unused_bytes"), proxy.url)
        tap.ok(r.code == 1 and "it differs from the source in its box mdat" in r.json["totals"]["first_wrong"], "a wrong byte in an mdat that belongs to no sample", r)


def parts(tap, load, server):
    """Ranges whose bytes are right, and of which Content-Range says something else, or nothing; then a whole file by its parts."""
    def as_it_is(text):
        return text

    def none(_):
        return None

    def none_that_can_be_read(text):
        return text.replace("bytes ", "octets ")

    def moved(text):
        return re.sub(r"(\d+)-(\d+)/", lambda m: f"{int(m[1]) + 1}-{int(m[2]) + 1}/", text)

    def longer(text):
        return re.sub(r"-(\d+)/", lambda m: f"-{int(m[1]) + 1}/", text)

    def another_length(text):
        return re.sub(r"/(\d+)$", lambda m: f"/{int(m[1]) + 1}", text)

    def too_short(text):
        return re.sub(r"-(\d+)/\d+$", r"-\1/\1", text)

    def length_unknown(text):
        return re.sub(r"/\d+$", "/*", text)
    segments = scenario("cbcs", 12, more="clients: { range: 100% }")
    whole_file = re.sub(r"verify:.*", "", scenario("cbcs", 6)).replace("{ assets: [album/one, two]", "{ manifests: [/two/cbcs/byterange.m3u8, /two/cbcs/ondemand.mpd]")
    for fault, in_segments, in_file in (
            (as_it_is, None, None), (length_unknown, None, None),
            (none, r"it comes with 206 and without a Content-Range; bytes \d+ to \d+ were asked for$", r"it comes with 206 and without a Content-Range"),
            (none_that_can_be_read, r'its Content-Range is not of the form "bytes FROM-TO/LENGTH"', r"its Content-Range is not of the form"),
            (moved, r"its Content-Range says bytes \d+ to \d+; \d+ to \d+ were asked for$", r"its Content-Range says bytes \d+ to \d+; \d+ to \d+ were asked for$"),
            (longer, r"its Content-Range says bytes \d+ to \d+; \d+ to \d+ were asked for$", r"its Content-Range says bytes \d+ to \d+; \d+ to \d+ were asked for$"),
            (another_length, r"its Content-Range says that the whole has \d+ bytes; it came with \d+$", None),
            (too_short, r"its Content-Range says that the whole has \d+ bytes; it came with \d+$", r"its Content-Range says that the whole has \d+ bytes; byte \d+ was asked for$")):
        def change(path, response):
            if response.status == 206:
                response.headers = [(k, fault(v) if k.lower() == "content-range" else v) for k, v in response.headers]
                response.headers = [(k, v) for k, v in response.headers if v is not None]
        for what, text, want in (("of segments", segments, in_segments), ("of a file", whole_file, in_file)):
            with Proxy(server.port, change) as proxy:
                r = load(text, proxy.url)
            t = r.json["totals"]
            tap.ok(not t["errors"] and (re.search(want, t["first_wrong"]) and t["wrong"] > 1 and r.code == 1 if want else r.code == 0 and not t["wrong"]),
                   f"parts {what}: Content-Range {fault.__name__}", f"{t}\n{r}")


def odd_clients(tap, load, server):
    """Faults that only those see who ask in another way than for a whole segment: a part of other bytes, a HEAD that says another length."""
    def part(path, response):
        if response.status == 206:
            response.body = response.body[:-1] + bytes([response.body[-1] ^ 1])

    def head(path, response):
        if path.endswith(".m4s") and not response.body:
            response.headers = [(k, str(int(v) + 1) if k.lower() == "content-length" else v) for k, v in response.headers]
    for change, clients, want in ((part, "range", r"/\d+\.m4s: byte \d+ of a range differs from the whole segment's$"),
                                  (head, "head", r"/\d+\.m4s: HEAD announced (\d+) bytes, GET brought (\d+)$")):
        with Proxy(server.port, change) as proxy:
            r = load(scenario("cbcs", 12, more=f"clients: {{ {clients}: 100% }}"), proxy.url)
        t = r.json["totals"]
        said = re.search(want, t["first_wrong"])
        tap.ok(r.code == 1 and said and t["wrong"] > 1 and not t["errors"] and (clients != "head" or int(said[1]) == int(said[2]) + 1), f"clients that {clients}", f"{t}\n{r}")


def no_faults(tap, load, server):
    """A server that is overloaded for a moment gives no wrong bytes: what is asked for again is compared with what it was before."""
    refused = []

    def ranges(path, response):
        if response.status == 206 and len(refused) < 20:
            refused.append(path)
            response.status, response.body = 503, b"-" * len(response.body)
    with Proxy(server.port, ranges) as proxy:
        r = load(scenario("cbcs", 12, more="clients: { range: 100% }", player=", retry_after: 10ms"), proxy.url)
    t = r.json["totals"]
    tap.ok(len(refused) == t["errors_by_kind"]["5xx"] == 20 < t["verified"] and t["wrong"] == 0, "ranges that are refused and asked for again are no wrong bytes", t)
    refused.clear()

    def after_head(path, response):
        if path.endswith("/3.m4s") and response.body:
            refused.append(path)
            response.status = 503
    with Proxy(server.port, after_head) as proxy:
        r = load(scenario("cbcs", 60, tracks=2, more="clients: { head: 100% }", player=", retries: 0"), proxy.url)
    t = r.json["totals"]
    tap.ok(len(refused) > 30 and t["heads"] > 10 and t["wrong"] == 0, "what HEAD announced of a segment that was given up is not held against another", t)


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ASSETS)
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)
        systems = "drm: { systems: [widevine, playready, clearkey] }\n"  # a key line each
        with Server(sluice, folder / "media", keys=keys_text(ASSETS) + systems, config="clear: true\n") as server:
            playlists(tap, load, server)
            no_way_to_ivs(tap, load, server)
            no_faults(tap, load, server)
            parts(tap, load, server)
            odd_clients(tap, load, server)
            structures(tap, load, sluice, folder)
            signalling(tap, load, sluice, folder)
            for scheme in ("cenc", "cbcs"):
                r = load(scenario(scheme, 10), f"http://127.0.0.1:{server.port}")
                tap.ok(r.code == 0 and r.json["totals"]["verified"] > 20 and not r.json["totals"]["wrong"], f"{scheme}: a right server passes", r.out.decode())
                one_in_a_million(tap, load, server, scheme, folder)
                any_byte(tap, load, server, scheme)
                first_time(tap, load, server, scheme)
            repeated_iv(tap, load, server)
            shared_between_processes(tap, load, server)
        stale_epochs(tap, load, sluice, folder)
    tap.end()


if __name__ == "__main__":
    main()
