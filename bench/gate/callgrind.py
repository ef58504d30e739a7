"""Instructions, counted by callgrind: parser, plan, rendering on the AES-NI path, HTTP. The same on every machine and in every
run, so one run of each side says it all. AES-NI, because valgrind knows neither VAES nor AVX-512."""
import os
import re
import subprocess
import tempfile
from pathlib import Path

from trees import Refused

KERNEL = "aesni"


def counts(side):
    """{case: instructions} of bench/gate/count; {} when the commit has no such program."""
    if not side.has("count"):
        return {}
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp) / "cg"
        r = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--toggle-collect=count_pass",
                            "--dump-after=count_pass", str(side.program("count"))], capture_output=True, text=True,
                           env=dict(os.environ, SLUICE_KERNEL=KERNEL))
        names = r.stdout.splitlines()
        if r.returncode or not names:
            raise Refused(f"{side.name.upper()}: bench/gate/count under callgrind: {r.stderr[-500:]}")
        return {name: total(Path(f"{out}.{i}")) for i, name in enumerate(names, 1)}


def total(dump):
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.M) if dump.exists() else None
    if not found or int(found.group(1)) == 0:
        raise Refused(f"callgrind left no count in {dump.name}")
    return int(found.group(1))
