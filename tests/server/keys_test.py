#!/usr/bin/env python3
"""sluice keys: CPIX out and in again, judged by another parser; the master secret wrapped, judged by openssl: keys_test.py SLUICE"""
import base64
import os
import pathlib
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
import xml.etree.ElementTree as ET

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import shim, synth  # noqa: E402
from judge.programs import run  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402
from server.secrets_test import derived  # noqa: E402

NS = {"cpix": "urn:dashif:org:cpix", "pskc": "urn:ietf:params:xml:ns:keyprov:pskc"}
SECRET = bytes(range(32))
ASSET = "album/träck & <1>"
WIDEVINE = "edef8ba9-79d6-4ace-a3c8-27dcd51d21ed"


def document(path):
    """{(scheme, label): (kid, key, iv)} and the root, by Python's own XML reader."""
    root = ET.parse(path).getroot()
    assert root.tag == "{urn:dashif:org:cpix}CPIX"
    labels = {r.get("kid"): (r.find("cpix:LabelFilter", NS).get("label") if r.find("cpix:LabelFilter", NS) is not None else "")
              for r in root.iterfind("cpix:ContentKeyUsageRuleList/cpix:ContentKeyUsageRule", NS)}
    out = {}
    for k in root.iterfind("cpix:ContentKeyList/cpix:ContentKey", NS):
        value = base64.b64decode(k.findtext("cpix:Data/pskc:Secret/pskc:PlainValue", None, NS), validate=True)
        iv = k.get("explicitIV")
        out[k.get("commonEncryptionScheme"), labels[k.get("kid")]] = (uuid.UUID(k.get("kid")).bytes, value,
                                                                     base64.b64decode(iv) if iv else None)
    return out, root


def exporting(tap, sluice, work):
    keys = work / "keys.yaml"
    keys.write_text("derive: { secret_file: master.key }\ndrm: { per_tier: true, widevine: { provider: x }, fairplay: {} }\n")
    for version in ("2.3", "2.4"):
        doc = work / f"{version}.xml"
        r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--out", doc, "--cpix", version, "--epoch", "3")
        if not tap.ok(r.code == 0 and "IN THE CLEAR" in r.err and not r.out, f"CPIX {version} is written, with a warning", r):
            continue
        got, root = document(doc)
        want = {(s, label): derived(SECRET, ASSET, 3, s, label.encode())[1] for s in ("cenc", "cbcs") for label in ("", "lossless")}
        tap.equal({k: v[1] for k, v in got.items()}, want, f"CPIX {version}: the keys are those that are derived")
        tap.equal((root.get("contentId"), root.get("version")), (ASSET, version), f"CPIX {version}: content and version")
        tap.equal(stat.S_IMODE(doc.stat().st_mode), 0o600, f"CPIX {version}: mode 0600")
        boxes = [base64.b64decode(p.text) for d in root.iterfind(".//cpix:DRMSystem", NS) if d.get("systemId") == WIDEVINE
                 for p in d.iterfind("cpix:PSSH", NS)]
        tap.ok(len(boxes) == 4 and all(b[4:8] == b"pssh" for b in boxes), f"CPIX {version}: DRM data of each key", boxes)
        playlists = {d.get("playlist") for d in root.iterfind(".//cpix:HLSSignalingData", NS)}
        tap.equal(playlists, {"media", "master" if version == "2.3" else "multiVariant"}, f"CPIX {version}: playlists")
    r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--out", work / "one.xml", "--scheme", "cbcs")
    tap.equal(sorted(document(work / "one.xml")[0]), [("cbcs", ""), ("cbcs", "lossless")], "one scheme only")

    r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--out", "-", "--scheme", "cbcs", cwd=work)
    tap.ok(r.code == 0 and r.out == (work / "one.xml").read_bytes() and "standard output" in r.err and not (work / "-").exists(),
           "--out - is standard output", r)
    master, slave = os.openpty()
    p = subprocess.run([sluice, "keys", "export", ASSET, "--keys", keys, "--out", "-"], stdout=slave, stderr=subprocess.PIPE, cwd=work)
    os.close(slave)
    os.set_blocking(master, False)
    try:
        shown = os.read(master, 100)
    except OSError:
        shown = b""
    os.close(master)
    tap.ok(p.returncode == 1 and b"terminal" in p.stderr and not shown and not (work / "-").exists(), "keys are not shown on a terminal", p)
    (work / "kept.xml").write_text("old")
    (work / "link.xml").symlink_to("kept.xml")
    r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--out", work / "link.xml", "--scheme", "cbcs")
    tap.ok(r.code == 0 and (work / "link.xml").is_symlink() and (work / "kept.xml").read_bytes() == (work / "one.xml").read_bytes(),
           "an output that is a link stays one", r)
    for old, new in ((0o666, "0640"), (0o600, "0600")):
        (work / "kept.xml").chmod(old)
        r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--out", work / "kept.xml", "--scheme", "cbcs")
        got = stat.S_IMODE((work / "kept.xml").stat().st_mode)
        tap.ok(f"(mode {new})" in r.err and got == int(new, 8), f"over a file of mode {old:o}: others cannot read it, and its mode is said", (r, oct(got)))
    for name in ("a//b", "a/", "../a", "a/./b", "/a", "", "a/" * 300 + "b", "a/.b", "a\tb", "a" * 256):
        r = run(sluice, "keys", "export", name, "--keys", keys, "--out", work / "none.xml")
        tap.ok(r.code == 1 and len(r.err.splitlines()) == 1 and not (work / "none.xml").exists(), f"{name[:9]!r} is no asset's name", r)
    r = run(sluice, "keys", "import", work / "one.xml", "--keys", work / "none.yaml", "--asset", "a//b")
    tap.ok(r.code == 1 and len(r.err.splitlines()) == 1 and not (work / "none.yaml").exists(), "nor where keys are imported for it", r)


def too_large(tap, sluice, work):
    """Under `ulimit -f`: whatever becomes of the command, no half of a file with keys in it stays."""
    folder = work / "limited"
    folder.mkdir()
    master, kek = folder / "master", folder / "kek"
    master.write_bytes(SECRET)
    kek.write_bytes(bytes(32))

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    def left():
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    before = left()
    for argv in (["export", ASSET, "--keys", work / "keys.yaml", "--out", folder / "out.xml"],
                 ["import", work / "2.3.xml", "--keys", folder / "into.yaml"], ["rewrap", master, "--new-kek", kek]):
        p = subprocess.run([sluice, "keys", *map(str, argv)], capture_output=True, text=True, preexec_fn=limited)
        tap.ok(p.returncode == -signal.SIGXFSZ and left() == before, f"keys {argv[0]} into a file that may not grow: nothing is left", (p, sorted(left())))


def interrupted(tap, sluice, work):
    """A signal that comes while a file is being written ends the command when that file is whole: nothing else is left."""
    folder, library = work / "interrupted", work / "ending_sync.so"
    folder.mkdir()
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("ending_sync.c"), library), "", "a disk that is slow enough for a signal is built"):
        return
    master, kek, into, out = (folder / name for name in ("master", "kek", "into.yaml", "out.xml"))
    kek.write_bytes(bytes(32))
    rows = (["export", ASSET, "--keys", work / "keys.yaml", "--out", out], ["import", work / "2.3.xml", "--keys", into], ["rewrap", master, "--new-kek", kek])
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGXCPU", "SIGXFSZ", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGRTMAX"):
        number = getattr(signal, name)
        out.unlink(missing_ok=True)
        into.unlink(missing_ok=True)
        master.write_bytes(SECRET)

        def ready():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(number, signal.SIG_DFL)
        ended = [subprocess.run([sluice, "keys", *map(str, argv)], capture_output=True, preexec_fn=ready, env=shim.preloaded(library, ENDING_SIGNAL=str(int(number)))).returncode
                 for argv in rows]
        left = sorted(p.name for p in folder.iterdir())
        whole = left == ["into.yaml", "kek", "master", "out.xml"] and b"</CPIX>" in out.read_bytes().replace(b"cpix:", b"") and b"asset:" in into.read_bytes() and b"A256KWP" in master.read_bytes()
        tap.ok(ended == [-number] * 3 and whole, f"keys, {name} while a file is being written: it is whole, and nothing else is left", (ended, left))


def nowhere(tap, sluice, work):
    """A name that leads nowhere: what it is, where it leads, what to do."""
    folder = work / "nowhere"
    folder.mkdir()
    link = folder / "link"
    link.symlink_to("gone/x")
    said = f"sluice: {link}: cannot write: it is a symbolic link to 'gone/x', where nothing is: make a file there, or remove the link\n"
    for argv in (["export", ASSET, "--keys", work / "keys.yaml", "--out", link], ["import", work / "2.3.xml", "--keys", link]):
        r = run(sluice, "keys", *argv)
        tap.ok(r.code == 1 and r.err.endswith(said) and os.listdir(folder) == ["link"], f"keys {argv[0]} to a link that leads nowhere", (r, os.listdir(folder)))


def importing(tap, sluice, work):
    doc = work / "2.3.xml"
    for content, says in (("", "names no content: --asset NAME says whose keys they are"), ("a//b", "its contentId: a name has no empty"),
                          ("a/", "its contentId is no asset, but a prefix")):
        (work / "nameless.xml").write_text(re.sub('contentId="[^"]*"', f'contentId="{content}"' if content else "", doc.read_text()))
        r = run(sluice, "keys", "import", work / "nameless.xml", "--keys", work / "none.yaml")
        tap.ok(r.code == 1 and "nameless.xml: " in r.err and says in r.err and len(r.err.splitlines()) == 1 and not (work / "none.yaml").exists(),
               f"a document of {content!r}: what to do", r)
    want = {(s, label): v for (s, label), v in document(doc)[0].items()}
    files = {
        "a new file": None,
        "an empty file": "",
        "comments and other options": "# ours\nepochs: { grace: 2h } # keep\ndrm:\n  schemes: [cenc, cbcs]\n",
        "a list": "keys:   # by hand\n    # the first\n    - { asset: x, scheme: cenc, kid: " + "1" * 32 + ", key: " + "2" * 32 +
                  " }\nepochs: { default: 2 } # é\n",
        "a list in brackets": "keys: [ { asset: é, scheme: cenc, kid: " + "1" * 32 + ", key: " + "2" * 32 + " } ] # end\n",
        "an empty list": "keys: []\n",
        "no line end": "epochs: { default: 2 }",
    }
    for name, text in files.items():
        keys = work / "into.yaml"
        keys.unlink(missing_ok=True)
        if text is not None:
            keys.write_text(text)
        r = run(sluice, "keys", "import", doc, "--keys", keys, "--epoch", "3")
        if not tap.ok(r.code == 0, f"import into {name}", r):
            continue
        now = keys.read_text()
        kept = all(part in now for part in re.findall(r"#.*|epochs:.*|asset: x.*", text or ""))
        tap.ok(kept and now.count("asset:") == 4 + (text or "").count("asset:"), f"import into {name}: what stood there stays", now)
        r = run(sluice, "keys", "export", ASSET, "--keys", keys, "--epoch", "3", "--out", work / "again.xml")
        plain = {k: v for k, v in want.items() if not k[1]}  # labels are exported where per_tier is set
        tap.ok(r.code == 0 and document(work / "again.xml")[0] == plain, f"import into {name}: the same keys come out again", r)
    keys.write_text("drm: { per_tier: true, widevine: { provider: x }, fairplay: {} }\n")
    run(sluice, "keys", "import", doc, "--keys", keys, "--epoch", "3")
    run(sluice, "keys", "export", ASSET, "--keys", keys, "--epoch", "3", "--out", work / "again.xml")
    tap.ok(doc.read_bytes() == (work / "again.xml").read_bytes(), "export, import, export: the same bytes")
    before = keys.read_bytes()
    good = doc.read_text()
    first_kid = re.search(r'ContentKey kid="([^"]+)"', good).group(1)
    bad = {
        "the same keys again": (good, "two records"),
        "a truncated document": (good[:len(good) // 2], r"bad.xml:\d+: "),
        "a key of the wrong size": (re.sub(r"<pskc:PlainValue>[^<]+", "<pskc:PlainValue>AAAA", good, count=1), "bad.xml:4: "),
        "an entity": (good.replace("<cpix:CPIX", "<!DOCTYPE a [<!ENTITY b 'c'>]>\n<cpix:CPIX", 1), "bad.xml:2: "),
        "a KID twice": (re.sub(r'(ContentKey kid=")[^"]+("[^\n]*\n[^\n]*ContentKey kid=")[^"]+', rf"\g<1>{first_kid}\g<2>{first_kid}",
                               good, count=1), "bad.xml:5: "),
        "no scheme": (good.replace(' commonEncryptionScheme="cenc"', "", 1), "Scheme"),
        "not XML": ("hello", "bad.xml:1: "),
    }
    for name, (text, word) in bad.items():
        (work / "bad.xml").write_text(text)
        r = run(sluice, "keys", "import", work / "bad.xml", "--keys", keys, "--epoch", "3")
        said = r.code == 1 and re.search(word, r.err) and len(r.err.splitlines()) == 1
        tap.ok(said and keys.read_bytes() == before, f"import refuses {name}, with its line, and changes nothing", r)
    leaks = [n for n in work.iterdir() if re.search(r"\.yaml\.\w{6}$", n.name)]
    tap.ok(not leaks, "no temporary file is left", leaks)


def kids(server):
    text = server.get("/album/a/cbcs/manifest.mpd").body.decode() + server.get("/album/a/cenc/manifest.mpd").body.decode()
    return sorted(set(re.findall(r'default_KID="([^"]+)"', text)))


def wrapping(tap, sluice, work):
    media = work / "media"
    (media / "album/a").mkdir(parents=True)
    (media / "album/a/t.mp4").write_bytes(bytes(synth.plain(5)[0]))
    secret, old, new = work / "master.key", work / "old.kek", work / "new.kek"
    old.write_bytes(os.urandom(32))
    new.write_text(os.urandom(32).hex() + "\n")
    keys = work / "serve.yaml"
    keys.write_text("derive: { secret_file: master.key }\n")
    with Server(sluice, media, "--keys", str(keys)) as server:
        want = kids(server)
    tap.equal(len(want), 2, "two KIDs, from the secret as it is")
    r = run(sluice, "keys", "rewrap", secret, "--kek", old, "--new-kek", new)
    tap.ok(r.code == 1 and "the secret is not wrapped: leave --kek out" in r.err and secret.read_bytes() == SECRET, "a KEK for a secret that is not wrapped is refused", r)
    r = run(sluice, "keys", "rewrap", secret, "--new-kek", old)
    line = secret.read_text()
    tap.ok(r.code == 0 and re.fullmatch(r"sluice-wrapped-secret A256KWP [A-Za-z0-9+/=]+\n", line), "the secret is wrapped", r)
    if shutil.which("openssl"):
        (work / "plain").write_bytes(SECRET)
        o = run("openssl", "enc", "-id-aes256-wrap-pad", "-K", old.read_bytes().hex(), "-iv", "A65959A6", "-in", work / "plain",
                "-out", work / "theirs")
        theirs = base64.b64encode((work / "theirs").read_bytes()).decode() if o.code == 0 else ""
        tap.equal(line.split()[-1], theirs, "openssl wraps it to the same bytes (RFC 5649)")
    else:
        tap.skip("openssl wraps it to the same bytes", "no openssl here")
    vector = (pathlib.Path(__file__).resolve().parents[2] / "docs/keys.md").read_text()
    (work / "vector").write_text(re.search(r"sluice-wrapped-secret A256KWP \S+=\S*", vector).group(0) + "\n")
    (work / "vector.kek").write_bytes(bytes(range(32, 64)))
    r = run(sluice, "keys", "rewrap", work / "vector", "--kek", work / "vector.kek", "--plain")
    tap.ok(r.code == 0 and (work / "vector").read_bytes() == SECRET, "the vector of the documentation", r)
    r = run(sluice, "serve", "--check", "--media", media, "--keys", keys, "--state-dir", work / "checkstate")
    tap.ok(r.code == 1 and "derive.kek_file" in r.err, "a wrapped secret without its KEK is refused", r)
    r = run(sluice, "keys", "rewrap", secret, "--kek", new, "--new-kek", new)
    tap.ok(r.code == 1 and secret.read_text() == line, "another KEK is refused and nothing changed", r)
    for more in (["--new-kek", new], ["--plain"]):
        r = run(sluice, "keys", "rewrap", secret, *more)
        tap.ok(r.code == 1 and "the secret is wrapped: --kek FILE says with what" in r.err and secret.read_text() == line, f"nor is it taken for a secret without one: {more[0]}", r)
    damaged = line.replace(line.split()[-1][5:9], "AAAA")
    (work / "damaged").write_text(damaged)
    r = run(sluice, "keys", "rewrap", work / "damaged", "--kek", old, "--new-kek", new)
    tap.ok(r.code == 1 and "damaged" in r.err and (work / "damaged").read_text() == damaged, "a damaged line is refused", r)
    keys.write_text("derive: { secret_file: master.key, kek_file: kek }\n")
    shutil.copy(old, work / "kek")
    with Server(sluice, media, "--keys", str(keys)) as server:
        tap.equal(kids(server), want, "the same KIDs, from the wrapped secret")
        r = run(sluice, "keys", "rewrap", secret, "--kek", old, "--new-kek", new)
        shutil.copy(new, work / "kek")
        seen = len(server.log())
        server.signal(1)
        tap.ok(r.code == 0 and server.wait_log("reloaded", after=seen), "rewrapped while it serves, and reloaded", server.log()[-3:])
        tap.equal(kids(server), want, "the same KIDs, from the secret wrapped anew")
    tap.ok(secret.read_text() != line and stat.S_IMODE(secret.stat().st_mode) & 0o37 == 0, "other bytes, for no one else to read")
    r = run(sluice, "keys", "rewrap", secret, "--kek", new, "--plain")
    tap.ok(r.code == 0 and secret.read_bytes() == SECRET, "unwrapped it is what it was", r)
    if not os.getuid():
        os.chown(secret, 12345, 12346)
        r = run(sluice, "keys", "rewrap", secret, "--new-kek", new)
        there = secret.stat()
        tap.ok(r.code == 0 and (there.st_uid, there.st_gid) == (12345, 12346), "it stays its owner's", r)
        run(sluice, "keys", "rewrap", secret, "--kek", new, "--plain")
    os.mkfifo(work / "pipe", 0o600)
    threading.Thread(target=(work / "pipe").write_bytes, args=(SECRET,), daemon=True).start()  # waits for a reader
    r = run(sluice, "keys", "rewrap", work / "pipe", "--new-kek", new)
    tap.ok(r.code == 1 and "pipe: cannot write: Invalid argument" in r.err and stat.S_ISFIFO((work / "pipe").stat().st_mode), "a pipe is read and not replaced", r)
    check = ("serve", "--check", "--media", media, "--keys", keys, "--state-dir", work / "checkstate")
    r = run(sluice, *check)
    tap.ok(r.code == 1 and "master.key: the master secret is not wrapped, but derive.kek_file is given" in r.err, "one that is not wrapped, with a KEK, is refused", r)
    secret.write_bytes(b"x" * 70000)
    r = run(sluice, *check)
    tap.ok(r.code == 1 and "master.key: cannot read the derivation secret: it is longer than any such file" in r.err, "a file of any length is no secret", r)
    keys.write_text("derive: { kek_file: kek }\n")
    r = run(sluice, "serve", *check[2:])
    tap.ok(r.code == 1 and "derive.secret: there is no secret yet, and derive.kek_file wants a wrapped one" in r.err and not (work / "checkstate" / "derive.secret").exists(),
           "no secret is made where a wrapped one is wanted", r)
    r = run(sluice, *check)
    tap.ok(r.code == 0 and not (work / "checkstate").exists(), "and none by --check", r)


def key_files(tap, sluice, work):
    """encrypt and decrypt take keys from files: the same bytes as from arguments."""
    kid, key = os.urandom(16).hex(), os.urandom(16).hex()
    (work / "clear.mp4").write_bytes(bytes(synth.plain(6)[0]))
    (work / "one.key").write_text(key + "\n")
    (work / "pair.key").write_text(f"{kid}:{key}\n")
    run(sluice, "encrypt", work / "clear.mp4", work / "a.mp4", "--scheme", "cbcs", "--kid", kid, "--key", key)
    r = run(sluice, "encrypt", work / "clear.mp4", work / "b.mp4", "--scheme", "cbcs", "--kid", kid, "--key-file", work / "one.key")
    tap.ok(r.code == 0 and (work / "a.mp4").read_bytes() == (work / "b.mp4").read_bytes(), "encrypt --key-file", r)
    r = run(sluice, "decrypt", work / "b.mp4", work / "c.mp4", "--key-file", work / "pair.key")
    tap.ok(r.code == 0 and (work / "c.mp4").exists(), "decrypt --key-file", r)
    r = run(sluice, "decrypt", work / "b.mp4", work / "d.mp4", "--key-file", work / "none.key")
    tap.ok(r.code == 1 and "none.key" in r.err, "a key file that is not there", r)
    (work / "empty.key").write_text("")
    for name in ("empty.key", "clear.mp4"):
        for argv, words in ((["decrypt", work / "b.mp4", work / "d.mp4"], "KID:KEY, 32 hex"), (["encrypt", work / "clear.mp4", work / "d.mp4", "--scheme", "cbcs", "--kid", kid], "32 hex")):
            r = run(sluice, *argv, "--key-file", work / name)
            told = words in r.err and "--key needs" not in r.err or name == "clear.mp4" and "too long for a key" in r.err
            tap.ok(r.code == 1 and r.err.startswith(f"sluice: {work / name}: ") and told and not (work / "d.mp4").exists(),
                   f"{argv[0]} with a key file that holds no key ({name}): the file is named, and what it should hold", r)


def main():
    tap = Tap()
    sluice = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-keys-") as folder:
        work = pathlib.Path(folder)
        (work / "master.key").write_bytes(SECRET)
        exporting(tap, sluice, work)
        too_large(tap, sluice, work)
        interrupted(tap, sluice, work)
        nowhere(tap, sluice, work)
        importing(tap, sluice, work)
        wrapping(tap, sluice, work)
        key_files(tap, sluice, work)
    tap.end()


if __name__ == "__main__":
    main()
