#!/usr/bin/env python3
"""Requests without listeners, compared with the clear music: right and wrong answers, shares, what cannot be compared: requests.py SLUICE"""
import collections
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import boxes, synth  # noqa: E402
from judge.load import Load, Proxy, keys_text, media  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

NAMED = "日本の歌 の本"
ASSETS, RATE = ["album/one", "two", NAMED], 400
MODES = {"rate": f"mode: rate\nrate: {RATE}\nseconds: 1s\n", "saturate": "mode: saturate\nseconds: 500ms\n"}
CAPACITY = """mode: capacity
search: { from: 20, to: 200, probes: 3, spike: 2, spike_for: 100ms }
seconds: 300ms
"""


def scenario(mode, scheme="cenc", share="100%", verify="media: media, keys: keys.yaml", catalogue="assets: [album/one, two]", player=""):
    return f"""name: requests
seed: 11
{MODES.get(mode, mode)}drain: 100s
connections: 8
catalogue: {{ {catalogue} }}
scheme: {scheme}
player: {{ timeout: 100s{player} }}
verify: {{ share: {share}, {verify} }}
level: {{ lag_p99_ms: 60000, latency_p99_ms: 20000 }}
"""


def resized(response, body):
    """That body, announced as it is."""
    response.headers = [(k, str(len(body)) if k.lower() == "content-length" else v) for k, v in response.headers]
    response.body = body


def right(tap, load, server):
    """Nothing is wrong, and all is compared: once decrypted, then held against that."""
    for mode in MODES:
        for scheme in ("cenc", "cbcs", "clear"):
            r = load(scenario(mode, scheme), server.url)
            t = r.json["totals"]
            tap.ok(r.code == 0 and t["verified"] == t["requests"] >= (RATE if mode == "rate" else 1) and not t["wrong"]
                   and 0 < t["decrypted"] <= min(t["verified"], 13),
                   f"{mode}, {scheme}: a right server passes, every request is compared", f"{t}\n{r}")
            tap.ok(f'{t["verified"]} segments compared with the clear source ({t["decrypted"]} decrypted, ' in r.out.decode()
                   and f'"verified": {t["verified"]}' in r.files["html"].read_text(), f"{mode}, {scheme}: summary and page say how many", r)
        r = load(scenario(mode, "cbcs"), server.url, "--processes", "2", "--threads", "2")
        t = r.json["totals"]
        tap.ok(r.code == 0 and t["verified"] == t["requests"] > 0 == t["wrong"], f"{mode}: over four threads in two processes", f"{t}\n{r}")


def wrong(tap, load, server):
    """Every answer for one path is wrong: each kind of fault is found, told with path, offset and sample, and fails the run."""
    path = "/two/{}/1/aac/3.m4s"
    sample_number = sum(boxes.audio((load.folder / "media/two/aac.mp4").read_bytes()).fragments[:2])
    other = {scheme: server.get(path.format(scheme).replace("3.m4s", "2.m4s")).body for scheme in ("cenc", "cbcs")}
    init = {scheme: server.get(path.format(scheme).replace("3.m4s", "init.mp4")).body for scheme in ("cenc", "cbcs")}

    def first_sample(scheme, body):
        return boxes.audio(init[scheme] + body).samples[0]

    def byte(scheme, body):
        at = first_sample(scheme, body).offset - len(init[scheme]) + 64
        return body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1:]

    def shorter(scheme, body):
        return body[:-1]

    def longer(scheme, body):
        return body + b"\0"

    def another(scheme, body):
        return other[scheme]

    def box_type(scheme, body):
        return body.replace(b"mfhd", b"\0\xedhd", 1)

    def iv(scheme, body):
        at = body.index(first_sample(scheme, body).iv)
        return body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
    at = {scheme: first_sample(scheme, server.get(path.format(scheme)).body).offset - len(init[scheme]) for scheme in init}
    cases = [(byte, "cenc", rf"byte {at['cenc'] + 64} \(sample {sample_number}, byte 64 of it\) decrypts to"),
             (byte, "cbcs", rf"byte {at['cbcs'] + 64} \(sample {sample_number}, byte 64 of it\) decrypts to"),
             (shorter, "cenc", r"byte \d+(: it ends inside a box|: sample \d+ lies outside of the response)"),
             (longer, "cenc", r"byte \d+: it ends inside a box"), (another, "cenc", r"byte \d+(:| \().*sample \d+"), (another, "cbcs", r"byte \d+(:| \().*sample \d+"),
             (box_type, "cenc", r"byte 12: its type is not the source's in its box \?\?hd, sample data aside$"),
             (iv, "cenc", rf"byte {at['cenc']} \(sample {sample_number}, byte 0 of it\) decrypts to")]
    for mode in MODES:
        for fault, scheme, want in cases:
            count = collections.Counter()

            def change(asked, response):
                if asked == path.format(scheme):
                    count[asked] += 1
                    resized(response, fault(scheme, response.body))
            with Proxy(server.port, change) as proxy:
                r = load(scenario(mode, scheme), proxy.url)
            t, n = r.json["totals"], sum(count.values())
            found = t["wrong"] == n if mode == "rate" else n - 8 <= t["wrong"] <= n  # saturate ends with requests under way
            tap.ok(r.code == 1 and found and n > 0 and not t["errors"] and re.match(re.escape(path.format(scheme)) + ": " + want, t["first_wrong"])
                   and f'first wrong byte: {t["first_wrong"]}\n' in r.out.decode(), f"{mode}, {scheme}: {fault.__name__}: found each time, and told", f"{n} planted\n{t}\n{r}")


def later(tap, load, server):
    """The first answer of a path is right, one of the later ones is not."""
    seen, planted = collections.Counter(), []

    def change(path, response):
        seen[path] += path.endswith(".m4s")
        if seen[path] > 1 and seen[path] % 5 == 0:
            at = 7919 * seen[path] % len(response.body)
            response.body = response.body[:at] + bytes([response.body[at] ^ 1 << seen[path] % 8]) + response.body[at + 1:]
            planted.append((path, at))
    with Proxy(server.port, change) as proxy:
        r = load(scenario("rate"), proxy.url)
    tap.ok(len(planted) > 10 and r.json["totals"]["wrong"] == len(planted) and r.code == 1, f"bytes that turn wrong later: {len(planted)} are all found", r.json["totals"])


def beginning(tap, load, server):
    """What a run compares by is compared itself, before it."""
    def kid(path, response):
        if path == "/two/cbcs/1/aac/init.mp4":
            at = response.body.index(b"tenc") + 12
            response.body = response.body[:at] + bytes([response.body[at] ^ 1]) + response.body[at + 1:]

    def no_map(path, response):
        if path == "/two/cbcs/1/aac/media.m3u8":
            resized(response, re.sub(rb"#EXT-X-MAP.*\n", b"", response.body))

    def two_maps(path, response):
        if path == "/two/cbcs/1/aac/media.m3u8":
            resized(response, response.body.replace(b"\n1.m4s\n", b"\n1.m4s\n#EXT-X-MAP:URI=\"init.mp4?2\"\n"))

    def no_init(path, response):
        if path == "/two/cbcs/1/aac/init.mp4":
            response.status = 503

    def const_iv(path, response):
        if path == "/two/cbcs/1/aac/init.mp4":
            at = response.body.index(b"tenc") + 29
            response.body = response.body[:at] + bytes([response.body[at] ^ 1]) + response.body[at + 1:]
    for fault, says in ((kid, r"/two/cbcs/1/aac/init\.mp4: byte \d+: its KID "), (no_map, "two: its playlist is to name segments and one init segment"),
                        (two_maps, "two: its playlist is to name segments and one init segment"),
                        (no_init, "the target answers 503 for /two/cbcs/1/aac/init.mp4")):
        with Proxy(server.port, fault) as proxy:
            r = load(scenario("rate", "cbcs"), proxy.url)
            plain = load(re.sub("verify:.*", "", scenario("rate", "cbcs")), proxy.url)
        tap.ok(r.code == 1 and re.search(says, r.err) and r.err.count("\n") == 1 and r.json is None, f"a wrong begin: {fault.__name__}: the run ends at its start", r)
        tap.ok(plain.code == 0 and plain.json["totals"]["verified"] == 0, f"a wrong begin: {fault.__name__}: nobody asked for a comparison", plain)
    with Proxy(server.port, const_iv) as proxy:
        r = load(scenario("rate", "cbcs"), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and re.match(r"/two/cbcs/1/aac/\d+\.m4s: byte \d+ \(sample \d+, byte 0 of it\) decrypts to", t["first_wrong"]), "cbcs: another constant IV", f"{t}\n{r}")
    r = load(scenario("rate", verify="media: media, keys: keys.yaml, epoch: 2"), server.url)
    tap.ok(r.code == 1 and "/1/aac/init.mp4: a stale epoch: the manifest leads there, it is to lead below /album/one/cenc/2/" in r.err, "verify.epoch holds here too", r)
    r = load(scenario("rate", share=0, verify="epoch: 2"), server.url)
    tap.ok(r.code == 1 and "a stale epoch" in r.err, "verify.epoch, and nothing compared", r)


def shares(tap, load, server):
    """The share is of requests, by the seed; what is asked for does not depend on it."""
    counts, logs = [], []
    for share, flags in (("50%", []), ("50%", []), ("50%", ["--threads", "3"]), ("100%", []), ("50%", ["--seed", "12"])):
        log = load.folder / "requests"
        r = load(scenario("rate", share=share), server.url, "--request-log", log, *flags)
        counts.append(r.json["totals"]["verified"])
        logs.append(sorted(log.read_text().splitlines()))
        tap.ok(r.code == 0 and r.json["totals"]["requests"] == RATE, f"share {share} {flags}: passes", r)
    tap.ok(counts[0] == counts[1] == counts[2] and 0.4 * RATE < counts[0] < 0.6 * RATE and counts[3] == RATE, "a share of 50 %: about half, the same each time and over threads", counts)
    tap.ok(logs[0] == logs[1] == logs[3] != logs[4], "what is asked for is the same, whatever is compared")
    r = load(scenario("saturate", share="30%"), server.url)
    t = r.json["totals"]
    tap.ok(r.code == 0 and 0 < t["verified"] < t["requests"], "saturate: a share", t)
    r = load(scenario("rate", share="0.0001%"), server.url)
    tap.ok(r.code == 1 and r.json["totals"]["verified"] == 0 and "MISSED  segments compared: none" in r.out.decode(), "a share that nothing came to is none compared: status 1", r)
    r = load(scenario("rate", share=0), server.url, "--verify", load.folder / "media", "--keys", load.folder / "keys.yaml", "--share", "25%")
    tap.ok(r.code == 0 and 0.1 * RATE < r.json["totals"]["verified"] < 0.4 * RATE, "--verify, --keys, --share", r)


def capacity(tap, load, server):
    """All probes and the spike together; wrong bytes are no limit."""
    r = load(scenario(CAPACITY).replace("latency_p99_ms: 20000", "latency_p99_ms: 0.001"), server.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and len(r.json["capacity"]["probes"]) == 3 and t["verified"] > t["requests"] > 0 == t["wrong"] and "no probe passed" in r.out.decode(),
           "capacity: what is compared is of all probes", f"{t}\n{r}")
    r = load(scenario(CAPACITY, share="0.0001%").replace("latency_p99_ms: 20000", "latency_p99_ms: 60000, errors: 100%"), server.url)
    tap.ok(r.code == 1 and "MISSED  segments compared: none" in r.out.decode() and all(p["passed"] for p in r.json["capacity"]["probes"]),
           "capacity: a share that nothing came to fails the search, not its probes", r)
    flipped = []

    def change(path, response):
        if path.endswith(".m4s"):
            flipped.append(path)
            response.body = response.body[:-1] + bytes([response.body[-1] ^ 1])
    with Proxy(server.port, change) as proxy:
        r = load(scenario(CAPACITY), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and not r.json["capacity"]["found"] and t["wrong"] == len(flipped) > 0 and re.match(r"/\S+\.m4s: byte \d+ \(sample \d+", t["first_wrong"])
           and "wrong bytes came in a probe, which ended it\n" in r.out.decode() and "first wrong byte: /" in r.out.decode(), "capacity: wrong bytes end the search", f"{t}\n{r}")


def given(tap, load, server):
    """--paths: those of segments are compared, with the playlist that lies beside them; others cannot be."""
    file = load.folder / "paths"
    good = ["/two/cbcs/1/aac/1.m4s", "/two/cbcs/1/aac/3.m4s?token=5", "/album/one/cbcs/1/aac/2.m4s", "/tw%6f/cbcs/1/aac/2.m4s"]

    def play(lines, verify="media: media, keys: keys.yaml", share="100%", target=server.url, catalogue="assets: [album/one, two]"):
        file.write_text("\n".join(lines) + "\n")
        return load(scenario("rate", "cbcs", verify=verify, share=share, catalogue=catalogue), target, "--paths", file)
    r = play(good)
    t = r.json["totals"]
    tap.ok(r.code == 0 and t["verified"] == t["requests"] == RATE and t["decrypted"] == len(good), "--paths of segments are compared", f"{t}\n{r}")
    r = play([f"/{NAMED}/cbcs/1/aac/1.m4s"], catalogue=f"assets: [{NAMED}]")
    t = r.json["totals"]
    tap.ok(r.code == 0 and t["verified"] == t["requests"] == RATE and t["decrypted"] == 1, "--paths with bytes that no URI may hold are percent-encoded", f"{t}\n{r}")
    planted = []

    def change(path, response):
        if path.startswith("/two/cbcs/1/aac/3.m4s"):
            planted.append(path)
            response.body = server.get("/album/one/cbcs/1/aac/3.m4s").body
            resized(response, response.body)
    with Proxy(server.port, change) as proxy:
        r = play(good, target=proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["wrong"] == len(planted) > 0 and t["first_wrong"].startswith("/two/cbcs/1/aac/3.m4s: byte "), "--paths: another's music is found", f"{t}\n{r}")
    r = play(good + ["/" + "x" * 512])
    tap.ok(r.code == 1 and re.search(r"paths: '/x{59}' is no path of the target of at most 511 bytes", r.err) and r.err.count("\n") == 1, "--paths: one that is too long is refused in a line", r)
    r = play(good + ["\0" + good[0]])
    tap.ok(r.code == 1 and "paths: has a zero byte at " in r.err and r.err.count("\n") == 1, "--paths: one that is no text is refused in a line", r)
    only = "of --paths only segments of the scenario's assets can be compared, /ASSET/cbcs/EPOCH/TRACK/NUMBER.m4s: leave it out, or --verify"
    for bad, says in (("/two/cbcs/1/aac/init.mp4", only), ("/two/cbcs/master.m3u8", only), ("/two/cenc/1/aac/1.m4s", only), ("/three/cbcs/1/aac/1.m4s", only), ("/nothing", only),
                      ("/two/cbcs/1/aac/99.m4s", "its playlist has 7 segments only"), ("/two/cbcs/1/mp3/1.m4s", "the target answers 404 for /two/cbcs/1/mp3/media.m3u8")):
        r = play(good + [bad])
        tap.ok(r.code == 1 and says in r.err and (bad in r.err or "404" in says) and r.err.count("\n") == 1 and r.json is None, f"--paths: {bad}: refused in a line", r)

    def swapped(path, response):
        if path.endswith("media.m3u8"):
            response.body = response.body.replace(b"\n2.m4s", b"\n*").replace(b"\n3.m4s", b"\n2.m4s").replace(b"\n*", b"\n3.m4s")
    with Proxy(server.port, swapped) as proxy:
        r = play(good, target=proxy.url)
    tap.ok(r.code == 1 and "/two/cbcs/1/aac/3.m4s?token=5: its playlist has /two/cbcs/1/aac/2.m4s in its place" in r.err, "--paths: a playlist in another order", r)
    r = play(good, verify="epoch: 2", share=0)
    tap.ok(r.code == 1 and "a stale epoch" in r.err, "--paths: verify.epoch", r)
    r = play(["/two/cbcs/1/aac/init.mp4"], verify="media: media", share=0)
    tap.ok(r.code == 0 and r.json["totals"]["requests"] == RATE, "--paths without a comparison are whatever they are", r)


def parts(tap, load, server):
    """Parts of files, which only any origin's manifests lead to: their bytes cannot be compared, what they say of themselves can."""
    for mode in MODES:
        text = re.sub("verify:.*", "", scenario(mode, "cbcs", catalogue="manifests: [/two/cbcs/byterange.m3u8, /two/cbcs/ondemand.mpd]"))
        r = load(text, server.url)
        tap.ok(r.code == 0 and r.json["totals"]["requests"] > 0 and not r.json["totals"]["wrong"], f"{mode}: right parts", r)

        def moved(path, response):
            response.headers = [(k, re.sub(r"(\d+)-(\d+)/", lambda m: f"{int(m[1]) + 1}-{int(m[2]) + 1}/", v) if k.lower() == "content-range" else v) for k, v in response.headers]
        with Proxy(server.port, moved) as proxy:
            r = load(text, proxy.url)
        t = r.json["totals"]
        tap.ok(r.code == 1 and not t["errors"] and t["wrong"] == t["requests"] and re.search(r"its Content-Range says bytes \d+ to \d+; \d+ to \d+ were asked for$", t["first_wrong"]),
               f"{mode}: parts that say that they are others", f"{t}\n{r}")

        def shorter(path, response):
            if response.status == 206:
                resized(response, response.body[:-1])
        with Proxy(server.port, shorter) as proxy:
            r = load(text.replace("/two/cbcs/ondemand.mpd", "/two/cbcs/byterange.m3u8"), proxy.url)
        t = r.json["totals"]
        tap.ok(r.code == 1 and t["errors"] == t["errors_by_kind"]["cut"] == t["requests"] > 0, f"{mode}: parts that are shorter than they say", f"{t}\n{r}")


def lag(tap, load, sluice, folder):
    """What comparing takes is the generator's lag. One of 9 MB is not through in 2.5 ms, when the next is due; and comparing it takes more than 0.1 ms."""
    (folder / "big" / "two").mkdir(parents=True)
    (folder / "big/two/aac.mp4").write_bytes(synth.FTYP + synth.moov() + b"".join(
        synth.plain_fragment(n + 1, synth.payloads([100000] * 94, n), n * 94 * synth.FRAME) for n in range(2)))
    text = scenario("mode: rate\nrate: 400\nseconds: 100ms\n", "clear", verify="media: big", catalogue="assets: [two]").replace("connections: 8", "connections: 1")
    with Server(sluice, folder / "big", keys=keys_text(ASSETS), config="clear: true\n") as server:
        r = load(text, f"http://127.0.0.1:{server.port}")
    t, p50 = r.json["totals"], dict(r.json["lag"]["percentiles_us"])[50]
    tap.ok(r.code == 0 and t["verified"] == t["requests"] == 40 and p50 >= 100, f"the generator's lag has what comparing takes: p50 {p50} us", r)


def large(tap, load, server):
    """What is compared has to be kept: where it cannot be, that is no answer that was cut off."""
    path = "/two/cenc/1/aac/1.m4s"
    (load.folder / "paths").write_text(path + "\n")

    def longer(asked, response):
        if asked.endswith(grown[0]):
            resized(response, response.body + bytes(65 << 20))
    modes = {"rate": ("mode: rate\nrate: 20\nseconds: 100ms\n", ""),
             "listeners": ("arrivals: [ { for: 100ms, rate: 30 } ]\n", ", tracks: 1, skip: 0, retries: 0")}
    grown = ["/1.m4s"]
    with Proxy(server.port, longer) as proxy:
        for mode, (text, player) in modes.items():
            r = load(scenario(text, catalogue="assets: [two]", player=player).replace("connections: 8", "connections: 1"), proxy.url, *["--paths", load.folder / "paths"] * (mode != "listeners"))
            t = r.json["totals"]
            tap.ok(r.code == 1 and 0 < t["errors"] == t["errors_by_kind"]["large"] and not t["wrong"], f"{mode}: an answer of more than 64 MB is told as such", f"{t}\n{r}")
            tap.ok(f'failed: {t["errors"]} too large to keep\ntoo large to keep: ' in r.out.decode() and t["first_refused"] == (path + ": it has more than 64 MB, or there is no memory for it") * (mode == "listeners"),
                   f"{mode}: and what to do", f"{t}\n{r}")
        grown[0] = "/media.m3u8"
        r = load(scenario("rate", catalogue="assets: [two]"), proxy.url)
        tap.ok(r.code == 1 and "/two/cenc/1/aac/media.m3u8 has more than 64 MB, or there is no memory for it" in r.err, "a playlist of more than 64 MB, at the start of a run", r)


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ASSETS)
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(ASSETS), config="clear: true\n") as server:
            server.url = f"http://127.0.0.1:{server.port}"
            for case in (right, wrong, later, beginning, shares, capacity, given, parts, large):
                case(tap, load, server)
        lag(tap, load, sluice, folder)
    tap.end()


if __name__ == "__main__":
    main()
