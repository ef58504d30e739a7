"""`perf script` text into samples, and samples into tables."""
import collections
import re

FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?) \((.*)\)$")
TOP = 25


def parse(text):
    """A list of stacks, innermost frame first: [(symbol, object), …]."""
    out, stack = [], []
    for line in text.splitlines() + [""]:
        m = FRAME.match(line)
        if m:
            stack.append((re.sub(r"\+0x[0-9a-f]+$", "", m.group(1)), m.group(2)))
        elif not line.strip() and stack:
            out.append(stack)
            stack = []
    return out


def place(symbol, obj, layers):
    """Where a frame belongs: a layer of src/, the kernel, or the object's name."""
    if obj.startswith("[kernel") or obj.startswith("[guest.kernel") or obj.endswith(".ko"):
        return "kernel"
    base = re.sub(r"\.(constprop|part|isra|cold|lto_priv)\b.*$", "", symbol)
    return layers.get(symbol) or layers.get(base) or obj.rsplit("/", 1)[-1]


def table(title, counts, total, where=None):
    lines = [title]
    for name, n in counts.most_common(TOP):
        if 1000 * n < total:
            break
        lines.append(f"  {100 * n / total:6.1f} %  {name}" + (f"  ({where[name]})" if where else ""))
    return "\n".join(lines) + "\n"


def summary(samples, layers):
    """Three tables: by place, by function itself, by function with what it calls."""
    places, selfs, totals, where = collections.Counter(), collections.Counter(), collections.Counter(), {}
    for stack in samples:
        symbol, obj = stack[0]
        places[place(symbol, obj, layers)] += 1
        selfs[symbol] += 1
        for name, at in dict(stack).items():
            totals[name] += 1
            where.setdefault(name, place(name, at, layers))
    n = len(samples)
    return "\n".join([table("where", places, n), table("functions, by themselves", selfs, n, where),
                      table("functions, with what they call", totals, n, where)])
