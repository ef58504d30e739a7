#!/usr/bin/env python3
"""Keys from key servers over real connections: good answers, bad ones, none: exchange.py SLUICE"""
import base64
import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import aes, boxes, synth  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.keyserver import FAIRPLAY, KeyServer, b64, iv_of, key_of, kid_of, pssh_of  # noqa: E402
from judge.programs import Sluice  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

SLUICE = sys.argv[1]
CLEAR = synth.plain(3)[0]
SAMPLES = [s.data for s in boxes.audio(CLEAR).samples]
FLAC = synth.full(b"dfLa", 0, 0, (0x80000022).to_bytes(4, "big"), bytes.fromhex("10001000" "000000000000" "0bb8037000000000") + bytes(16))
DRM = "drm: { systems: [widevine, playready, fairplay, clearkey], in_band: all }\n"
QUICK = "attempts: 2, retry: 20ms, retry_max: 100ms, negative: 50ms, answer_timeout: 400ms, timeout: 800ms"
FLAGS = ("--revalidate", "100ms", "--negative-ttl", "50ms")
tap = Tap()


def folder(media, *assets):
    for a in assets:
        (media / a).mkdir(parents=True, exist_ok=True)
        (media / a / "t.mp4").write_bytes(CLEAR)
    return media


def provider(kind, url, ca=None, more=QUICK, match=None):
    parts = [f"type: {kind}", f"url: '{url}'"] + ([f"ca_file: {ca}"] if ca else []) + ([f"match: {match}"] if match else []) + [more]
    return "providers:\n  - { " + ", ".join(p for p in parts if p) + " }\n"


def judge_media(server, asset, scheme, key=None, epoch=1, track="t"):
    """Whether the file that is served is CLEAR under the key that belongs to its KID: "" or what is wrong."""
    r = server.get(f"/{asset}/{scheme}/{epoch}/{track}.mp4")
    if r.status != 200:
        return f"status {r.status}"
    track = boxes.audio(r.body)
    kid = track.tenc.kid.hex()
    cipher = aes.Aes128(key or key_of(kid))
    if scheme == "cbcs":
        want = [aes.cbcs(cipher, track.tenc.constant_iv, s) for s in SAMPLES[:40]]
    else:
        want = [aes.cenc(cipher, g.iv, s) for g, s in zip(track.samples, SAMPLES[:40])]
    if [s.data for s in track.samples[:40]] != want or len(track.samples) != len(SAMPLES):
        return f"samples under KID {kid} are not the clear ones encrypted"
    return ""


def keys_in(text, kids):
    return [kid for kid in kids for form in (key_of(kid).hex(), b64(key_of(kid))) if form in text]


def kids_of(requests):
    return {k.replace("-", "") for r in requests for k in re.findall(r'ContentKey kid="([^"]+)"', r["body"])}


def round_trips(work, ca, cert):
    media = folder(work / "media", "one", "a b/ü&x", "tiers")
    secure, plain = KeyServer(cert), KeyServer()
    with secure, plain:
        for kind, ks, path in (("speke2.0", secure, "/speke?x=1"), ("speke2.1", secure, "/speke"), ("json", secure, "/json"), ("json", plain, "/json")):
            name = f"{kind} over {'https' if ks.tls else 'http'}"
            ks.orders()
            with Server(SLUICE, media, *FLAGS, keys=provider(kind, ks.url(path), ca if ks.tls else None) + DRM) as s:
                for scheme in ("cenc", "cbcs"):
                    tap.equal(judge_media(s, "one", scheme), "", f"{name}: {scheme} under the delivered key")
                    init = s.get(f"/one/{scheme}/1/t/init.mp4").body
                    track = boxes.audio(init)
                    if scheme == "cbcs":
                        tap.equal(track.tenc.constant_iv, iv_of(track.tenc.kid.hex()), f"{name}: the delivered constant IV is used")
                    tap.ok(b"from the key server" in init, f"{name}: {scheme}: the delivered pssh is in the init segment")
                    mpd = s.get(f"/one/{scheme}/manifest.mpd").body.decode()
                    tap.ok(b64(pssh_of("edef8ba9-79d6-4ace-a3c8-27dcd51d21ed", "")) in mpd, f"{name}: {scheme}: and in the MPD", mpd)
                    if kind != "json":
                        master = s.get(f"/one/{scheme}/master.m3u8").body.decode()
                        media_list = s.get(f"/one/{scheme}/1/t/media.m3u8").body.decode()
                        tap.ok(all(f'KEYFORMAT="urn:uuid:{i}"' in t for t in (master, media_list) for i in ("edef8ba9-79d6-4ace-a3c8-27dcd51d21ed",
                                   *((FAIRPLAY,) if scheme == "cbcs" else ()))), f"{name}: {scheme}: the delivered key lines are in the playlists", master)
                tap.equal(judge_media(s, "a%20b/%C3%BC%26x", "cbcs"), "", f"{name}: an asset with an odd name")
                seen = ks.requests()
                tap.equal([r["fault"] for r in seen], [None] * 3, f"{name}: every request has what the specification demands")
                tap.equal([r["path"] for r in seen], [path] * 3, f"{name}: to the path, one for each asset and scheme")
                tap.ok(all(r["headers"]["Host"] == f"127.0.0.1:{ks.port}" for r in seen), f"{name}: Host")
                before = len(seen)
                if ks is secure and kind == "speke2.1":
                    s.signal(signal.SIGHUP)
                    s.wait_log("reloaded")
                    tap.equal(judge_media(s, "one", "cbcs"), "", "after a reload")
                    tap.equal(len(ks.requests()), before, "a reload keeps the keys")
                    r = Sluice(SLUICE)("rotate", "one", "--admin", f"127.0.0.1:{s.admin_port}")
                    tap.equal(r.code, 0, "rotated")
                    tap.equal(judge_media(s, "one", "cbcs", epoch=2), "", "the new epoch is under a new key")
                    tap.equal(len(kids_of(ks.requests())), 4, "of a new KID")
                text = "\n".join(s.log()) + s.admin("/metrics").body.decode() + s.admin("/status").body.decode()
                tap.equal(keys_in(text, kids_of(seen)), [], f"{name}: no key in log, metrics or status")
        secure.orders()
        with Server(SLUICE, media, *FLAGS, keys=provider("speke2.1", secure.url(), ca) + "drm: { systems: [widevine], per_tier: true }\n") as s:
            tap.equal(judge_media(s, "tiers", "cbcs"), "", "per_tier: the tier without a label")
            seen = secure.requests()
            tap.equal([(r["fault"], r["body"].count("<cpix:ContentKey ")) for r in seen], [(None, 2)], "per_tier: one request for both keys")
        (media / "tiers" / "flac.mp4").write_bytes(CLEAR.replace(synth.moov(), synth.moov(entries=[synth.entry(b"fLaC", FLAC)])))
        for kind, path in (("speke2.1", "/speke"), ("json", "/json")):
            secure.orders()
            with Server(SLUICE, media, *FLAGS, keys=provider(kind, secure.url(path), ca) + "drm: { systems: [widevine], per_tier: true }\n") as s:
                for scheme in ("cenc", "cbcs"):
                    tap.equal([judge_media(s, "tiers", scheme, track=track) for track in ("t", "flac")], [""] * 2, f"{kind}, per_tier: {scheme}, both tiers under their keys")
                    kids = [boxes.audio(s.get(f"/tiers/{scheme}/1/{track}/init.mp4").body).tenc.kid.hex() for track in ("t", "flac")]
                    want = [kid_of("tiers", 1, scheme, label) for label in ("", "lossless")] if kind == "json" else sorted(kids_of(secure.requests()[-1:]))
                    tap.ok((kids if kind == "json" else sorted(kids)) == want, f"{kind}, per_tier: {scheme}, each tier has the KID of its own", (kids, want))


# mode: (order, words of the log)
BAD_SPEKE = {
    "malformed": ({}, "not well-formed XML"), "bomb": ({}, "DTD"), "wrong_kid": ({}, "no key for the KID"),
    "wrong_scheme": ({}, "METHOD|was asked for"), "no_scheme": ({}, "of no scheme"), "wrong_iv": ({}, "explicitIV is not 16 bytes"),
    "duplicate": ({}, "same kid"), "short_key": ({}, "not 16 bytes"), "no_key": ({}, "no key for the KID"), "encrypted": ({}, "encrypted"),
    "more": ({}, "2 keys, 1 were asked"), "wrong_pssh": ({}, "another system"), "bad_xml": ({}, "not an XML fragment"),
    "bad_hls": ({}, "HLSSignalingData"), "huge": ({}, "too long"), "version": ({}, "X-Speke-Version"), "not_http": ({}, "not HTTP"),
    "s422": ({"mode": "status", "status": 422}, "answered 422"), "s404": ({"mode": "status", "status": 404}, "answered 404"),
    "s302": ({"mode": "status", "status": 302}, "answered 302"), "s500": ({"mode": "status", "status": 500}, "answered 500"),
}
BAD_JSON = {"malformed": ({}, "not JSON"), "wrong_scheme": ({}, "is not cbcs"), "wrong_iv": ({}, "iv must be"), "duplicate": ({}, "2 keys, 1 were"),
            "short_key": ({}, "32 hex digits"), "wrong_pssh": ({}, "another system"), "huge": ({}, "too long")}
# These say nothing of the asset: the whole server is taken for away.
AWAY = {"cut": ({}, "closed the connection"), "silent": ({}, "no answer within 400 ms"),
        "s503": ({"mode": "status", "status": 503}, "answered 503"), "s429": ({"mode": "status", "status": 429}, "answered 429"),
        "late": ({"mode": "good", "delay": 1}, "no answer within 400 ms")}


def read_once(work, ca, cert):
    """A file is opened once, which may mean to read all of it, however long its key takes."""
    media = folder(work / "once", "a", "b")
    (media / "b" / "u.mp4").write_bytes(CLEAR)
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, "--write-sidecars=false", keys=provider("json", ks.url("/json"), ca) + DRM) as s:
        for path, tracks in (("/a/cbcs/1/t/init.mp4", 1), ("/b/cbcs/master.m3u8", 3)):
            tap.equal(s.get(path).status, 200, f"{path}: there, with a key from a key server")
            opened = re.findall(r'sluice_index_total\{.*from="media"\} (\d+)', s.admin("/metrics").body.decode())
            tap.equal(sum(map(int, opened)), tracks, "each track was read once")


def refused(s, ks, asset, words, name):
    after = len(s.log())
    got = [s.get(f"/{asset}/cbcs/{p}") for p in ("1/t/init.mp4", "1/t/1.m4s", "1/t.mp4", "master.m3u8", "manifest.mpd")]
    tap.ok(all(r.status == 503 and r["retry-after"] and len(r.body) < 100 for r in got), f"{name}: 503 with Retry-After, for every resource", got)
    line = s.wait_log(words, after=after)
    tap.ok(line and ks.url("/") in line, f"{name}: the log says why and names the key server", s.log()[after:])
    return line or ""


def bad_answers(work, ca, cert):
    everything = {**BAD_SPEKE, **BAD_JSON, **AWAY}
    media = folder(work / "bad", "good", "long", *everything, *(f"after-{a}" for a in AWAY))
    for kind, path, table in (("speke2.0", "/speke", BAD_SPEKE), ("json", "/json", BAD_JSON)):
        with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider(kind, ks.url(path), ca) + DRM) as s:
            ks.orders(**{a: {"mode": a, **order} for a, (order, _) in everything.items()}, long={"mode": "long"})
            for asset, (_, words) in table.items():
                line = refused(s, ks, asset, words, f"{kind}: {asset}")
                tap.ok(f'asset "{asset}"' in line, f"{kind}: {asset}: the log names the asset", line)
            tap.equal(judge_media(s, "long", "cbcs"), "", f"{kind}: a long answer is read")
            for asset, (_, words) in AWAY.items():
                refused(s, ks, asset, words, f"{kind}: {asset}")
                deadline = time.monotonic() + 20  # others get their keys once it is back
                while (why := judge_media(s, f"after-{asset}", "cenc")) and time.monotonic() < deadline:
                    time.sleep(0.02)
                tap.equal(why, "", f"{kind}: after {asset} the server is asked again")
            ks.orders()
            for asset in table:
                deadline = time.monotonic() + 20
                while (why := judge_media(s, asset, "cbcs")) and time.monotonic() < deadline:
                    time.sleep(0.05)
                if why:
                    tap.ok(False, f"{kind}: {asset} plays once the answer is good", why)
            tap.equal(keys_in("\n".join(s.log()), kids_of(ks.requests())), [], f"{kind}: no key in the log")
            changed = {"mode": "changed"}
            if kind != "json":
                ks.orders(every=changed)
                with Server(SLUICE, media, *FLAGS, keys=provider(kind, ks.url(path), ca, QUICK + ", lifetime: 400ms, refresh: 200ms") + DRM) as t:
                    tap.equal(judge_media(t, "good", "cbcs", key=None) != "", True, "a key of its own, once")
                    ks.orders()
                    for _ in range(40):
                        t.get("/good/cbcs/1/t/init.mp4")
                        time.sleep(0.02)
                    tap.ok(t.wait_log("another key than before"), "a key that changes within an epoch is refused", t.log())
                    tap.equal(judge_media(t, "good", "cbcs") != "", True, "and the old one is used on")


def one_key_two_schemes(work, ca, cert):
    media = folder(work / "shared", "share", "other")
    record = f"keys: [{{ asset: other, epoch: 1, scheme: cenc, kid: '{'1' * 32}', key: '{key_of('shared', '').hex()}' }}]\n"
    for kind, path in (("speke2.1", "/speke"), ("json", "/json")):
        with KeyServer(cert) as ks:
            ks.orders(share={"mode": "same_key"})
            with Server(SLUICE, media, *FLAGS, keys=provider(kind, ks.url(path), ca) + DRM) as s:
                tap.equal(judge_media(s, "share", "cenc", key_of("shared", "")), "", f"{kind}: the first scheme has the key")
                line = refused(s, ks, "share", "share one key", f"{kind}: the second scheme with the same key")
                tap.ok('"share" (cenc) and "share" (cbcs)' in line, f"{kind}: both are named", line)
            with Server(SLUICE, media, *FLAGS, keys=record + provider(kind, ks.url(path), ca) + DRM) as s:
                line = refused(s, ks, "share", "share one key", f"{kind}: a key that a record of the keys file has for the other scheme")
                tap.ok('"other" (cenc) and "share" (cbcs)' in line, f"{kind}: both assets are named", line)
                tap.equal(judge_media(s, "other", "cenc", key_of("shared", "")), "", f"{kind}: an asset with records is served from them")
                tap.ok(not any(r["asset"] == "other" for r in ks.requests()), f"{kind}: and not asked for")
    # The key of each tier is looked at.
    tiers = "drm: { systems: [widevine], per_tier: true }\n"
    with KeyServer(cert) as ks:
        ks.orders(share={"mode": "same_lossless"})
        with Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca) + tiers) as s:
            tap.equal(judge_media(s, "share", "cenc"), "", "per_tier: the first scheme has its keys")
            refused(s, ks, "share", "share one key", "per_tier: the second scheme with the same key for the lossless tier")
        with Server(SLUICE, media, *FLAGS, keys=record + provider("json", ks.url("/json"), ca) + tiers) as s:
            refused(s, ks, "share", "share one key", "per_tier: a lossless tier with a key that a record has for the other scheme")


def one_kid_one_key(work, ca, cert):
    """A KID names one key, and an epoch has one key, whatever else the answers differ in."""
    media = folder(work / "kids", "one", "two")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca) + DRM) as s:
        ks.orders(one={"mode": "same_kid"}, two={"mode": "same_kid"})
        tap.equal(s.get("/one/cbcs/1/t/init.mp4").status, 200, "one KID: the first asset has it")
        line = refused(s, ks, "two", "its KID had another key", "one KID: the second asset with another key")
        tap.ok('"two" (cbcs)' in line, "one KID: the log names the asset", line)
        tap.equal(s.get("/one/cbcs/1/t/init.mp4").status, 200, "one KID: the first asset plays on")
    for kind, path, more in (("speke2.1", "/speke", "systems: [widevine]"), ("json", "/json", "systems: [widevine]"), ("json", "/json", "per_tier: true")):
        name = f"{kind}, a reload with {more}"
        with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider(kind, ks.url(path), ca) + DRM) as s:
            tap.equal(judge_media(s, "one", "cbcs"), "", f"{name}: plays before")
            ks.orders(one={"mode": "changed"})
            given = "systems: [widevine, playready, fairplay, clearkey], " if "systems" not in more else ""
            (s.folder / "keys.yaml").write_text(provider(kind, ks.url(path), ca) + f"drm: {{ {given}{more}, in_band: all }}\n")
            s.signal(signal.SIGHUP)
            s.wait_log("reloaded")
            refused(s, ks, "one", "another key than before", f"{name}: another key for the same epoch")
            tap.equal(Sluice(SLUICE)("rotate", "one", "--admin", f"127.0.0.1:{s.admin_port}").code, 0, f"{name}: rotated")
            tap.equal(s.get("/one/cbcs/2/t/init.mp4").status, 200, f"{name}: the next epoch may have it")


def left_behind(work, ca, cert):
    """Of a key server that a reload leaves behind nothing is kept: no connection, and so neither credentials nor keyring."""
    media = folder(work / "left", "one", "two", "three")

    def connections(ks):
        rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[2] == f"0100007F:{ks.port:04X}" and row[3] == "01" for row in rows)

    with KeyServer(cert) as first, KeyServer(cert) as second, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", first.url(), ca) + DRM) as s:
        for old, new, asset in ((first, second, "one"), (second, first, "two")):
            tap.equal(judge_media(s, asset, "cbcs"), "", f"{asset} plays")
            tap.ok(connections(old), "the connection to the key server is kept")
            (s.folder / "keys.yaml").write_text(provider("speke2.0", new.url(), ca) + DRM)
            after = len(s.log())
            s.signal(signal.SIGHUP)
            s.wait_log("info reloaded", 10, after)
            end = time.monotonic() + 10
            while connections(old) and time.monotonic() < end:
                time.sleep(0.1)
            tap.equal(connections(old), 0, "until a reload names another")


def in_two(pipe, *pieces):
    with open(pipe, "wb", 0) as f:
        for piece in pieces:
            f.write(piece)
            time.sleep(0.2)


def authentication(work, ca, cert):
    media = folder(work / "auth", "one", "two")
    (work / "token").write_bytes(b"tok-3.14159/secret=\r\n")
    (work / "pair").write_text("aladdin:open sesame")
    client = ca.issue("sluice")
    cases = {"bearer": (f"bearer_file: {work}/token", "Bearer tok-3.14159/secret="),
             "basic": (f"basic_file: {work}/pair", "Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==")}
    with KeyServer(cert) as ks:
        for name, (more, header) in cases.items():
            ks.orders(every={"authorization": header})
            with Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca.ca, QUICK + ", " + more) + DRM) as s:
                tap.equal(judge_media(s, "one", "cbcs"), "", f"{name}: accepted")
                ks.orders(two={"mode": "status", "status": 500})
                tap.equal((s.get("/two/cbcs/1/t.mp4").status, [r["headers"].get("Authorization") for r in ks.requests()]), (503, [header] * 2), f"{name}: with each attempt")
                ks.orders(every={"authorization": "Bearer of something else"})
                line = None
                after = len(s.log())
                tap.equal(s.get("/one/cenc/1/t.mp4").status, 503, f"{name}: refused by the key server")
                line = s.wait_log("answered 401", after=after) or ""
                text = "\n".join(s.log()) + s.admin("/metrics").body.decode()
                tap.ok(line and "tok-3" not in text and "sesame" not in text and "YWxhZ" not in text, f"{name}: said without the secret", text)
        ks.orders(every={"authorization": cases["bearer"][1]})
        (work / "pipe").unlink(missing_ok=True)
        os.mkfifo(work / "pipe")
        threading.Thread(target=in_two, args=(work / "pipe", b"tok-3.14159/", b"secret=\n"), daemon=True).start()
        with Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca.ca, f"{QUICK}, bearer_file: {work}/pipe") + DRM) as s:
            tap.equal(judge_media(s, "one", "cbcs"), "", "bearer from a pipe, in two pieces: accepted")
        ks.orders()
        other = Authority(work / "strangers", "stranger")
        for name, url, authority, words in (("another authority", ks.url(), other.ca, "certificate is refused"),
                                            ("the system's authorities", ks.url(), None, "certificate is refused"),
                                            ("another name", ks.url(host="ip6-localhost"), ca.ca, "certificate is refused|cannot|not known|refused")):
            with Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", url, authority) + DRM) as s:
                tap.equal(s.get("/one/cbcs/1/t.mp4").status, 503, f"{name}: 503")
                tap.ok(s.wait_log(words), f"{name}: the log says why", s.log())
        tap.equal(ks.requests(), [], "and nothing was asked of a server that is not believed")
    with KeyServer(ca.issue("elsewhere", "DNS:elsewhere.test")) as ks:
        with Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json", "localhost"), ca.ca) + DRM) as s:
            tap.equal(s.get("/one/cbcs/1/t.mp4").status, 503, "a certificate of another name: 503")
            tap.ok(s.wait_log("ostname mismatch"), "a certificate of another name: the log says so", s.log())
    with KeyServer(cert, ca.ca) as ks:
        mine = f", client_cert: {client[0]}, client_key: {client[1]}"
        with Server(SLUICE, media, *FLAGS, keys=provider("speke2.1", ks.url(host="localhost"), ca.ca, QUICK + mine) + DRM) as s:
            tap.equal(judge_media(s, "one", "cbcs"), "", "mutual TLS, by name")
        with Server(SLUICE, media, *FLAGS, keys=provider("speke2.1", ks.url(), ca.ca) + DRM) as s:
            tap.equal(s.get("/one/cbcs/1/t.mp4").status, 503, "mutual TLS without a certificate: 503")
            tap.ok(s.wait_log("CERTIFICATE"), "mutual TLS without a certificate: the log says so", s.log())


def floods(work, ca, cert):
    assets = [f"f{n}" for n in range(12)]
    media = folder(work / "flood", *assets)
    with KeyServer(cert) as ks, Server(SLUICE, media, keys=provider("speke2.1", ks.url(), ca, "connections: 3") + DRM) as s:
        ks.orders(every={"delay": 0.2})
        got = collections.Counter()

        def ask(n):
            c = s.client()
            for a in assets:
                c.send(f"/{a}/cbcs/1/t/init.mp4")
            for _ in assets:
                got[c.read().status] += 1
            for path in ("/none/cbcs/master.m3u8", "/f0/none/cbcs/1/t/init.mp4", "/f0/cbcs/1/u/init.mp4"):
                got[c.get(path).status] += 1
            c.close()

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        tap.equal(dict(got), {200: 24 * len(assets), 404: 24 * 3}, "a flood on cold assets: everybody is served")
        state = ks.state()
        tap.equal(sorted(r["asset"] for r in state["requests"]), sorted(assets), "with one key request for each, none for what is not there")
        tap.ok(state["peak"] <= 3, "over no more connections than configured", state["peak"])


def licences(work, ca, cert):
    media = folder(work / "licences", "warm", "cold")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, "--insecure-clearkey", keys=provider("speke2.1", ks.url(), ca) + DRM) as s:
        def ask(asset, kid):
            body = json.dumps({"kids": [base64.urlsafe_b64encode(bytes.fromhex(kid)).decode().rstrip("=")], "type": "temporary"}).encode()
            return s.get(f"/{asset}/cbcs/1/license", "POST", {"Content-Type": "application/json"}, body)

        kid = boxes.audio(s.get("/warm/cbcs/1/t/init.mp4").body).tenc.kid.hex()
        r = ask("warm", kid)
        key = json.loads(r.body)["keys"][0]["k"] if r.status == 200 else r
        tap.equal(key, base64.urlsafe_b64encode(key_of(kid)).decode().rstrip("="), "a licence holds the delivered key")
        tap.equal(s.get("/warm/cbcs/1/t/key").body, key_of(kid), "and so does the identity key")
        first = ask("cold", kid)
        tap.ok(first.status == 503 and first["retry-after"], "a licence before the media: 503 with Retry-After", first)
        end = time.monotonic() + 20
        while time.monotonic() < end and (status := ask("cold", kid).status) == 503:
            time.sleep(0.02)
        tap.equal(status, 404, "and then the asset's keys are known: it has none of that KID")
        tap.equal(s.stop(), 0, "the server ends in order")


def cpix_files(work):
    media = folder(work / "files", "album/one")
    kid, key, iv = "0123456789abcdef0123456789abcdef", bytes(range(16)), bytes(range(16, 32))
    document = ('<?xml version="1.0"?><CPIX xmlns="urn:dashif:org:cpix" xmlns:p="urn:ietf:params:xml:ns:keyprov:pskc" contentId="album/one"'
                ' version="2.3"><ContentKeyList>%s</ContentKeyList></CPIX>')
    one = ('<ContentKey kid="01234567-89ab-cdef-0123-456789abcd%s" commonEncryptionScheme="%s"%s><Data><p:Secret><p:PlainValue>%s'
           '</p:PlainValue></p:Secret></Data></ContentKey>')
    (work / "keys.cpix").write_text(document % (one % ("ef", "cbcs", f' explicitIV="{b64(iv)}"', b64(key))))
    (work / "both.cpix").write_text(document % (one % ("ef", "cbcs", "", b64(key)) + one % ("ee", "cenc", "", b64(key))))
    (work / "cut.cpix").write_text((document % (one % ("ef", "cbcs", "", b64(key))))[:-9])
    with Server(SLUICE, media, keys=f"providers: [{{ type: cpix, file: {work}/keys.cpix }}]\n") as s:
        tap.equal(judge_media(s, "album/one", "cbcs", key), "", "a CPIX file's key")
        track = boxes.audio(s.get("/album/one/cbcs/1/t/init.mp4").body)
        tap.equal((track.tenc.kid.hex(), track.tenc.constant_iv), (kid, iv), "with its KID and IV")
        tap.equal(s.get("/album/one/cenc/1/t/init.mp4").status, 503, "and no other scheme from it")

    def check(keys, words, name):
        (work / "check.yaml").write_text(keys)
        p = subprocess.run([SLUICE, "serve", "--check", "--media", str(media), "--state-dir", str(work), "--keys", str(work / "check.yaml")],
                           capture_output=True, text=True, timeout=20)
        good = p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1 and re.search(words, p.stderr) and "hunter2" not in p.stderr
        tap.ok(good, f"refused: {name}", f"{p.returncode} {p.stderr}")

    check(f"providers: [{{ type: cpix, file: {work}/both.cpix }}]\n", '"album/one" .* share one key', "a CPIX file with one key for two schemes")
    check(f"providers: [{{ type: cpix, file: {work}/cut.cpix }}]\n", "cut.cpix: .*not well-formed", "half a CPIX file")
    check(f"providers: [{{ type: cpix, file: {work}/none.cpix }}]\n", "none.cpix: No such file", "a CPIX file that is not there")
    (work / "word").write_text("no colon")
    (work / "lines").write_text("hunter2\nX-Injected: hunter2\n")
    (work / "tab").write_text("hunter2\thunter2")
    (work / "long").write_text("hunter2" * 586)
    (work / "longest").write_text("x" * 4096)
    good = "type: speke2.0, url: 'https://k.test/'"
    for entry, words in (("type: speke3, url: 'https://k.test/'", "type"), ("type: speke2.0", "url"), ("type: cpix, url: 'https://k.test/'", "cpix"),
                         ("type: speke2.0, url: 'http://k.test/'", "needs https"), ("type: json, url: 'ftp://k.test/'", "https://"),
                         ("type: json, url: 'https://u:hunter2@k.test/'", "basic_file"), ("type: json, url: 'ftp://u:hunter2@k.test/'", "basic_file"), ("type: json, url: 'https://:1/'", "not https"),
                         ("type: json, url: 'https://k.test:70000/'", "not https"), ("type: json, url: 'http://k.test/', ca_file: x", "https"),
                         (good + ", bearer_file: a, basic_file: b", "not both"), (good + ", client_cert: a", "client_key"),
                         (good + ", bearer_file: none", "none: No such file"), (good + f", basic_file: {work}/word", "USER:PASSWORD"),
                         *((good + f", bearer_file: {work}/{name}", f"{name}: {words}") for name, words in (("lines", "one line"), ("tab", "one line"), ("long", "1 to 4096 bytes"))),
                         (good + f", bearer_file: {work}/longest, ca_file: none.pem", "none.pem"),
                         (good + ", ca_file: none.pem", "none.pem"), (good + ", lifetime: 1m, refresh: 2m", "shorter"),
                         (good + ", attempts: 99", "attempts"), (good + ", timeout: 99h", "timeouts"), (good + ", negative: 5h", "negative"),
                         (good + ", colour: red", "colour"), (good + " }, { " + good, "two")):
        check(f"# a comment\nproviders: [{{ {entry} }}]\n", rf"^sluice: {re.escape(str(work))}/check\.yaml: line 2: .*{words}", entry)


def main():
    with tempfile.TemporaryDirectory(prefix="sluice-exchange-") as name:
        work = pathlib.Path(name)
        authority = Authority(work / "ca")
        cert = authority.issue("server")
        parts = {"round_trips": (authority.ca, cert), "read_once": (authority.ca, cert), "bad_answers": (authority.ca, cert), "one_key_two_schemes": (authority.ca, cert), "one_kid_one_key": (authority.ca, cert),
                 "left_behind": (authority.ca, cert), "authentication": (authority, cert), "floods": (authority.ca, cert), "licences": (authority.ca, cert), "cpix_files": ()}
        for part, more in parts.items():
            if not sys.argv[2:] or part in sys.argv[2:]:
                undisturbed(tap, 0.2, globals()[part], work, *more)  # who answers within 400 ms has answered
    tap.end()


if __name__ == "__main__":
    main()
