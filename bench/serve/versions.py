"""What was measured with what: versions of the programs and libraries that stand behind a run's figures."""
import platform, re, subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def built(program):
    """Path of a program that tools/build makes."""
    return ROOT / "build-release" / program


def said(pattern, *argv):
    """What a program says about itself, or nothing."""
    try:
        r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, r.stdout + r.stderr)
    return found and found.group(1)


def written(pattern, path):
    try:
        found = re.search(pattern, Path(path).read_text(), re.S)
    except OSError:
        return None
    return found and found.group(1)


def commit(program):
    """Of the tree that the program was built in, which is this one or unknown."""
    if not Path(program).resolve().is_relative_to(ROOT):
        return None
    found = said(r"^([0-9a-f]{12})\n", "git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", "src", "include", "subprojects", "meson.build"], capture_output=True)
    return found and found + (" with changes" if changed.returncode == 1 else "")


def of(program):
    """{name: version}; what is not there is left out."""
    all_of_them = {
        "sluice": commit(program),
        "nginx": said(r"nginx/(\S+)", "nginx", "-v"),
        "nginx's OpenSSL": said(r"running with OpenSSL (\S+)", "nginx", "-V") or said(r"built with OpenSSL (\S+)", "nginx", "-V"),
        "wrk": said(r"wrk (?:debian/)?(\S+)", "wrk", "-v"),
        "OpenSSL": said(r"OpenSSL (\S+)", "openssl", "version"),
        "boring-sys (BoringSSL)": written(r'name = "boring-sys"\nversion = "([^"]+)"', ROOT / "subprojects/boringssl-crate/Cargo.lock"),
        "intel-ipsec-mb": written(r'IMB_VERSION_STR "([^"]+)"', "/usr/include/intel-ipsec-mb.h"),
        "Linux": platform.release(),
    }
    return {k: v for k, v in all_of_them.items() if v}
