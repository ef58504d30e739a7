"""The programs that judge: sluice itself, ffmpeg, shaka-packager, each behind one function."""
import os
import pathlib
import platform
import shutil
import subprocess

from judge import boxes

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = pathlib.Path(os.environ.get("SLUICE_VECTORS", ROOT.parent / "shared" / "vectors"))
MODULES = ROOT / "tests" / "npm" / "node_modules"
FFMPEG = shutil.which("ffmpeg")
_arch = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_packager = MODULES / "shaka-packager" / "bin" / f"packager-linux-{_arch}"
PACKAGER = str(_packager) if _packager.is_file() else None
TIMEOUT_S = 120


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.decode(errors="replace")

    def __repr__(self):
        return f"exit {self.code}: {self.err.strip()[-600:]}"


def run(*argv, stdin=b"", timeout=TIMEOUT_S, env=None, cwd=None):
    """Runs a program to its end. A program that hangs gets exit code None."""
    try:
        p = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, timeout=timeout, env=env, cwd=cwd)
        return Result(p.returncode, p.stdout, p.stderr)
    except subprocess.TimeoutExpired as e:
        return Result(None, e.stdout or b"", (e.stderr or b"") + b"\ntimeout")


class Sluice:
    def __init__(self, path):
        self.path = str(pathlib.Path(path).resolve())

    def __call__(self, *argv, **more):
        return run(self.path, *argv, **more)

    def encrypt(self, source, target, scheme, kid, key, iv=None, **more):
        given = ["--iv", iv] if iv else []
        return self("encrypt", source, target, "--scheme", scheme, "--kid", kid, "--key", key, *given, **more)

    def decrypt(self, source, target, keys, **more):
        """`keys` is {kid: key} in hex."""
        return self("decrypt", source, target, *(a for k, v in keys.items() for a in ("--key", f"{k}:{v}")), **more)


def packets(data, key=None):
    """What ffmpeg's demuxer gives for the audio of a file on a pipe: a list of framemd5 lines, or an error text."""
    options = ["-decryption_key", key] if key else []
    r = run(FFMPEG, "-v", "error", "-nostdin", *options, "-f", "mov", "-i", "pipe:0", "-map", "0:a", "-c", "copy",
            "-f", "framemd5", "-", stdin=data)
    # Only the first six fields: side data (the pssh of the init segment) is not the packet.
    lines = [",".join(l.replace(" ", "").split(",")[:6]) for l in r.out.decode().splitlines() if l and not l.startswith("#")]
    return lines if r.code == 0 and lines else f"ffmpeg: {r}"


def packager_encrypt(source, target, scheme, kid, key, iv):
    return run(PACKAGER, f"in={source},stream=audio,output={target}", "--enable_raw_key_encryption", "--keys",
               f"label=:key_id={kid}:key={key}", "--iv", iv, "--protection_scheme", scheme, "--clear_lead", "0",
               "--quiet")


def packager_decrypt(source, target, kid, key):
    return run(PACKAGER, f"in={source},stream=audio,output={target}", "--enable_raw_key_decryption", "--keys",
               f"label=:key_id={kid}:key={key}", "--quiet")


def packager_samples(source, target, kid, key):
    """The samples that shaka-packager decrypts into `target`, or why there are none."""
    target.unlink(missing_ok=True)
    r = packager_decrypt(source, target, kid, key)
    try:
        return r if r.code else [s.data for s in boxes.audio(target.read_bytes()).samples]
    except (OSError, ValueError, IndexError, KeyError) as e:
        return repr(e)
