"""nginx-vod-module beside the others, when --nginx-vod names an nginx that has it: the same tracks, as the progressive files that it
reads, packaged and encrypted by it while they are requested."""
import base64, json, os, random, re, statistics, subprocess, sys

import media, servers

NAME = "nginx-vod"
KEY, KID, IV = (random.Random(n).randbytes(16) for n in (7, 8, 9))
SCHEMES = {  # scheme: (its directives, name of a segment)
    "clear": ("vod dash;", "fragment-{}-a1.m4s"),
    "cenc": ("vod dash; vod_drm_enabled on;", "fragment-{}-a1.m4s"),
    "cbcs": ("vod hls; vod_hls_container_format fmp4; vod_hls_encryption_method sample-aes; vod_drm_enabled on;", "seg-{}-a1.m4s"),
}

# Segments are made for every request: its response cache holds init segments and manifests only. `aio on`, `vod_output_buffer_pool` and other
# `vod_cache_buffer_size`s were tried and saved nothing; `aio on` costs up to a tenth. The key is asked for over HTTP, once, and comes with
# an IV: without one, its cbcs segments are encrypted with another IV than their tenc names.
SERVER = """
    vod_metadata_cache vod_metadata 128m; vod_response_cache vod_responses 64m; vod_drm_info_cache vod_drm 16m;
    vod_drm_clear_lead_segment_count 0; vod_drm_upstream_location /drm; vod_drm_request_uri /key.json;
    location = /key.json {{ return 200 '{drm}'; }}
    location /drm/ {{ internal; proxy_pass http://127.0.0.1:$server_port/key.json; }}
"""
LOCATION = "    location /{scheme}/{size}/ {{ alias {root}/; {directives} vod_segment_duration {ms}; }}\n"


def refusal(program):
    """Why there can be no rows of this program, or nothing."""
    try:
        r = subprocess.run([program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=10)
    except subprocess.TimeoutExpired:
        return f"{program} does not answer -V"
    except OSError as e:
        return f"{program} cannot be run: {e.strerror}"
    if r.returncode != 0:
        first = r.stderr.partition("\n")[0]
        return f"{program} cannot be run: -V ends with status {r.returncode}: {first}"
    if re.search(r"--add-dynamic-module=\S*nginx-vod-module", r.stderr):
        return f"{program} has nginx-vod-module as a dynamic module, which is not loaded here: name one that was configured with --add-module"
    if not re.search(r"--add-module=\S*nginx-vod-module", r.stderr):
        return f"{program} lacks nginx-vod-module: its -V names no --add-module=...nginx-vod-module"
    return None


def server_block(root):
    """What its nginx has inside `server` besides what every nginx here has."""
    drm = [{k: base64.b64encode(v).decode() for k, v in (("key", KEY), ("key_id", KID), ("iv", IV))}]
    return SERVER.format(drm=json.dumps(drm)) + "".join(
        LOCATION.format(scheme=scheme, size=size, root=root, directives=directives, ms=1000 * seconds)
        for scheme, (directives, _) in SCHEMES.items() for size, (_, seconds) in media.SHAPES.items())


def path(scheme, size, asset, n):
    """Of segment n; of the init segment where n is 0."""
    return f"/{scheme}/{size}/{asset}/a.mp4/" + (SCHEMES[scheme][1].format(n) if n else "init-a1.mp4")


def claims(row, by_round):
    """What a fresh response of sluice costs beside one of its, in the same rounds."""
    peer = f"{NAME}/{row['scheme']}/fresh/{row['size']}/{row['cc']}/{row['conns']}"
    if row["scheme"] == "clear" or row["name"] != "sluice" + peer.removeprefix(NAME) or peer not in by_round:
        return []
    mine, its = by_round[row["name"]], by_round[peer]
    both = [mine[r]["cpu_s_per_gb"] / its[r]["cpu_s_per_gb"] for r in mine if r in its]
    if not both:
        return []
    value = statistics.median(both)
    return [dict(name=f"serve/{row['name']} beside {NAME}", value=value, bound=1.0, unit="ratio", holds=value <= 1.0, peer=peer)]


class Vod:
    """Its part of a farm."""

    def __init__(self, farm, program):
        self.farm, self.program, self.root = farm, program, farm.work / "vod"
        self.sample = farm.run / "vod.mp4"

    def start(self, cc):
        for assets in self.farm.files.values():
            for asset in assets:
                progressive(self.farm.work / "media" / asset / "a.mp4", self.root / asset / "a.mp4")
        return self.farm.start_nginx(cc, False, self.program, server_block(self.root))

    def server(self, cc):
        return self.farm.get(dict(server=NAME, cc=cc))

    def paths(self, row):
        return [path(row["scheme"], row["size"], a, n) for a, n in self.farm.segments(row["size"])]

    def check(self, row):
        """Number of sampled responses that `sluice decrypt` turned into their source with what their own init segment says. Says which it
        did not; one that is no encryption of it at all is the end."""
        address, name, right = self.server(row["cc"]).address, row["name"], 0
        sample = random.Random(name).sample(self.farm.segments(row["size"]), 3)
        for asset, n in sample:
            source = self.farm.work / "media" / asset / "a.mp4"
            found, data = media.fragments(source), source.read_bytes()
            clear = b"".join(data[off:off + length] for _, _, off, length in found)
            init, seg = (path(row["scheme"], row["size"], asset, x) for x in (0, n))
            answers = [servers.get(address, x) for x in (init, seg)]
            if [x[0] for x in answers] != [200, 200]:
                raise SystemExit(f"bench serve: {name}: status {answers[0][0]}, {answers[1][0]} for {init}, {seg}")
            self.sample.write_bytes(answers[0][2] + answers[1][2])
            body = payload(self.sample)
            if len(body) < 0.9 * found[n - 1][3]:
                raise SystemExit(f"bench serve: {name}: {seg} has {len(body)} bytes of media, the source's segment {found[n - 1][3]}")
            if (body in clear) != (row["scheme"] == "clear"):
                raise SystemExit(f"bench serve: {name}: {seg} is {'not encrypted' if body in clear else 'not what its source has'}")
            if row["scheme"] != "clear":
                body = self.decrypted(answers[0][2])
                right += body is not None and body in clear
        if row["scheme"] != "clear" and right < len(sample):
            print(f"{name}: {len(sample) - right} of {len(sample)} sampled responses do not decrypt to their source")
        return right

    def decrypted(self, init):
        """The media of the sample in clear, or nothing."""
        kid = re.search(rb"tenc.{8}(.{16})", init, re.S).group(1).hex()  # zeros in its cbcs
        out = self.farm.run / "vod-clear.mp4"
        r = subprocess.run([str(self.farm.sluice), "decrypt", str(self.sample), str(out), "--key", f"{kid}:{KEY.hex()}"], capture_output=True, text=True)
        if r.returncode != 0:
            print(r.stderr.strip())
            return None
        return payload(out)

    def cold(self, count):
        """[([file], path of a segment of it)] of assets nobody asked for, one file under many names. Its key is in its cache by then."""
        source = self.root / self.farm.files["189K"][0] / "a.mp4"
        out = []
        for i in range(count):
            p = self.root / "cold" / str(i) / "a.mp4"
            if not p.exists():
                p.parent.mkdir(parents=True)
                os.link(source, p)
            out.append(([p], path("cbcs", "189K", f"cold/{i}", 50)))
        return out


def progressive(source, to):
    if to.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    tmp = to.with_suffix(".tmp.mp4")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(source), "-c", "copy", "-movflags", "+faststart", str(tmp)], check=True)
    tmp.rename(to)


def payload(file):
    """The media of its first fragment."""
    _, _, off, length = media.fragments(file)[0]
    return file.read_bytes()[off:off + length]


if __name__ == "__main__":
    sys.exit(refusal(sys.argv[1]))
