"""`perf script` text into samples, and samples into tables."""
import bisect
import collections
import re
import subprocess
from xml.etree import ElementTree

HEAD = re.compile(r"^\S.*?:\s+\d+ (\S+?):\s*$")
FRAME = re.compile(r"^\s+([0-9a-f]+) (.+?) \((.*)\)$")
TOP = 25


def parse(text):
    """A list of stacks, innermost frame first: [(symbol, object, address in it), …]."""
    out, stack = [], []
    for line in text.splitlines() + [""]:
        m = FRAME.match(line)
        if m:
            stack.append((re.sub(r"\+0x[0-9a-f]+$", "", m.group(2)), m.group(3), int(m.group(1), 16)))
        elif not line.strip() and stack:
            out.append(stack)
            stack = []
    return out


def event(text):
    """The event that was counted: perf takes another when it cannot have what was asked for."""
    m = HEAD.match(text.partition("\n")[0])
    return m.group(1) if m else "?"


def plain(samples):
    """The samples as `perf script` writes them, with what a flame graph needs and nothing of this machine: no paths, no times."""
    out = []
    for stack in samples:
        out.append("program 1 1.0: 1 event: ")
        out += [f"\t{1:16x} {symbol.replace(' ', '')} ({obj.rsplit('/', 1)[-1]})" for symbol, obj, _ in stack]
        out.append("")
    return "\n".join(out) + "\n"


def well_formed(svg):
    """The renderer leaves a bare & in its scripts, which HTML takes and XML does not: browsers refuse the file."""
    svg = re.sub(r"&(?!#?\w+;)", "&amp;", svg)
    ElementTree.fromstring(svg)
    return svg


class Program:
    """Which layer of src/ a function of the program belongs to, from its debug information: names alone repeat."""

    def __init__(self, path):
        self.name = path.name
        symbols = subprocess.run(["nm", "--defined-only", str(path)], capture_output=True, text=True).stdout
        self.starts = sorted({int(m.group(1), 16) for m in re.finditer(r"^([0-9a-f]+) [tTwW] ", symbols, re.M)})
        lines = subprocess.run(["addr2line", "-e", str(path)], input="".join(f"{a:x}\n" for a in self.starts), capture_output=True, text=True).stdout
        self.layers = [self.layer(line) for line in lines.splitlines()]

    @staticmethod
    def layer(line):
        m = re.match(r".*/(?:src/(\w+)|(bench)|usr/share/(llhttp))/", line)  # the last: a clone may lie below a folder `src`
        return m.group(1) or m.group(2) or m.group(3) if m else None

    def place(self, address):
        i = bisect.bisect_right(self.starts, address) - 1
        return self.layers[i] if 0 <= i < len(self.layers) else None


def place(obj, address, program):
    """Where a frame belongs: a layer of src/, the kernel, or the object's name."""
    if obj.startswith("[kernel") or obj.startswith("[guest.kernel") or obj.endswith(".ko"):
        return "kernel"
    name = obj.rsplit("/", 1)[-1]
    return (program.place(address) if program and name == program.name else None) or name


def table(title, counts, total):
    lines = [title]
    for name, n in counts.most_common(TOP):
        if 1000 * n < total:
            break
        lines.append(f"  {100 * n / total:6.1f} %  {name if isinstance(name, str) else f'{name[0]}  ({name[1]})'}")
    return "\n".join(lines) + "\n"


def summary(samples, program):
    """Three tables: by place, by function itself, by function with what it calls."""
    places, itself, totals = collections.Counter(), collections.Counter(), collections.Counter()
    for stack in samples:
        names = [(symbol, place(obj, address, program)) for symbol, obj, address in stack]
        places[names[0][1]] += 1
        itself[names[0]] += 1
        totals.update(set(names))
    n = len(samples)
    return "\n".join([table("where", places, n), table("functions, by themselves", itself, n),
                      table("functions, with what they call", totals, n)])
