#!/usr/bin/python3
"""The gate around its decision: rounds and looks, replays, reports, planted loops, and what it refuses. TAP; measures nothing."""
import importlib.machinery
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / "bench" / "gate"
sys.path.insert(0, str(GATE))
import decide  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import rounds  # noqa: E402
import trees  # noqa: E402

results = []


def check(name, ok, detail=""):
    results.append(bool(ok))
    print(f"{'ok' if ok else 'not ok'} {len(results)} - {name}" + ("" if ok else f"\n  # {detail}"))


def program(name):
    """A command without .py as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(GATE / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


plant, resample = program("plant"), program("resample")


# ---- rounds: which metrics are taken again, and when it stops

def book_of(*names):
    book = rounds.Book()
    for n in names:
        book.metric(n, 0.02, "s")
    return book


def source(rng, slow, sigma, same=0.0):
    """Rounds of a machine whose speed drifts; `slow`: {metric: share that HEAD costs more}."""
    asked = []

    def take(names):
        asked.append(list(names))
        level = math.exp(rng.gauss(0, 0.3))
        side = lambda more: level * (1 + more) * math.exp(rng.gauss(0, sigma))  # noqa: E731
        return {n: (side(0), side(slow.get(n, 0)), side(same)) for n in names}
    return take, asked


rng = random.Random(5)
take, asked = source(rng, {}, 0.002)
state, _ = rounds.run(book_of("a", "b"), take)
check("nothing slower and little noise: green after the first look", state == "green" and len(asked) == decide.LOOKS[0], (state, len(asked)))
take, asked = source(rng, {"b": 0.05}, 0.002)
state, vs = rounds.run(book_of("a", "b"), take)
check("5 % slower: red after the first look, by name", state == "red" and len(asked) == 16 and [v.name for v in vs if v.state == "slower"] == ["b"])
take, asked = source(rng, {"b": 0.015}, 0.012)
state, vs = rounds.run(book_of("a", "b"), take)
check("at the bound: pairs up to the second look, of the undecided metric alone", len(asked) == 32 and all(a == ["b"] for a in asked[16:]),
      (len(asked), asked[-1]))
take, asked = source(rng, {"b": 0.015}, 0.012)
rounds.run(book_of("a", "b"), take, may_go_on=lambda: len(asked) < 20)
check("out of time: the second look is cut short, the first never is", len(asked) == 20, len(asked))
take, asked = source(rng, {"a": 0.1}, 0.002, same=0.05)
check("BASE again is 5 % slower than BASE: inconclusive", rounds.run(book_of("a"), take)[0] == "inconclusive")
book = book_of("a")
book.add({"a": (4.0, 6.0, 9.0)})
check("HEAD is held against the geometric mean of BASE's two runs", abs(book.metrics()[0].pairs[0][0] - 6.0) < 1e-12)
again = rounds.from_json(json.loads(json.dumps(book.as_json())))
check("a book survives JSON", again.values == book.values and again.bounds == book.bounds)

take, asked = source(rng, {"b": 0.05}, 0.002)
book = book_of("a", "b")
state, _ = rounds.run(book, lambda names: {n: v for n, v in take(names).items() if n != "a"})
check("a metric that only one commit has is left out, and the others decide", state == "red" and len(asked) == 16 and book.left_out() == ["a"], (state, len(asked)))
check("and it is not in what is recorded", [m["name"] for m in book.as_json()] == ["b"])
book = book_of("a")
book.metric("n", 0.01, "instructions", exact=True)
for _ in range(16):
    book.add({"a": (1.0, 1.1, 1.0)})
state, vs = rounds.settle(book)
check("among other programs nothing that was timed is red", state == "red" and decide.among_others(state, book.metrics(), vs) == "inconclusive")
book.add({"n": (100, 110, 100)})
state, vs = rounds.settle(book)
check("counts are, however noisy the machine", decide.among_others(state, book.metrics(), vs) == "red")

# ---- turns of slices: drift common to a turn and single bursts do not show
turns = [dict(base=d * 1.0, head=d * 1.03, same=d * 1.0) for d in (1.0, 1.4, 0.8, 1.1, 1.2)]
turns[2]["head"] *= 3
v = measure.of_turns(turns)
check("of_turns: 3 % survives drift and one burst", abs(v["head"] / v["base"] - 1.03) < 1e-9 and v["base"] == v["same"], v)

# ---- memory per connection: a metric like the others, in every round, in the canary and in replays


class Synthetic(measure.Serve):
    """The serve group on a machine of our making: `memory` is what a connection costs each side."""

    def __init__(self, memory, quick=True):
        measure.Group.__init__(self, self.metrics(), quick)
        self.memory, self.noise, self.started = memory, random.Random(11), []

    def start(self, side, hot=False):
        self.started.append((side, hot))
        return Pretended(side)

    def one_spike(self, server):
        return {"p50": 100.0, "p99": 200.0}

    def cpu_per_gb(self, up, row, rng):
        return {name: 0.3 for name in up}


class Pretended:
    def __init__(self, side):
        self.side = side

    def stop(self):
        pass


def served(memory, num):
    """A book with `num` rounds of the synthetic group."""
    group, book = Synthetic(memory), rounds.Book()
    measure.client.idle_memory = lambda server, *_: memory[server.side] * math.exp(group.noise.gauss(0, 0.01))
    for row in group.rows:
        book.metric(row.name, row.bound, row.unit)
    for _ in range(num):
        found = group.sample({s: s for s in trees.SIDES}, book.timed(), random.Random(1))
        book.add({n: tuple(found[s][n] for s in trees.SIDES) for n in book.timed()})
    return book, group


kept = measure.client.idle_memory
book, group = served(dict(base=400, head=400, same=400), 16)
check("memory per connection: as many pairs as the others, and as many of the canary",
      {len(m.pairs) for m in book.metrics()} == {len(m.canary) for m in book.metrics()} == {16} and "memory per connection" in book.timed())
check("nothing but counts is exact", not any(m.exact for m in book.metrics()))
check("the same memory on both sides: green", rounds.settle(book)[0] == "green")
check("what is served hot has servers of its own, that keep what they encrypted", {hot for _, hot in group.started} == {True, False} and len(group.started) == 16 * 6)
check("hot and TLS are among what is served, also with --quick", {"serve cenc 32K hot", "serve cbcs 189K tls"} <= set(book.timed()))
book, _ = served(dict(base=400, head=440, same=400), 16)
state, vs = rounds.settle(book)
check("10 % more memory a connection: red, by name", state == "red" and [v.name for v in vs if v.state == "slower"] == ["memory per connection"])
check("and in replays", [resample.one_run(book, random.Random(i))[:2] for i in range(5)] == [("red", ["memory per connection"])] * 5)
book, _ = served(dict(base=400, head=440, same=440), 16)
check("memory that differs between BASE and BASE: inconclusive", rounds.settle(book)[0] == "inconclusive" and decide.canary_fires(book.metrics()) == ["memory per connection"])
book, _ = served(dict(base=400, head=440, same=400), 3)
check("three pairs decide nothing", rounds.settle(book)[0] == "green")
measure.client.idle_memory = kept

# ---- replays of recorded rounds
recorded = book_of("a", "b")
take, _ = source(random.Random(6), {"b": 0.05}, 0.01)
for _ in range(20):
    recorded.add(take(["a", "b"]))
states = [resample.one_run(recorded, random.Random(i))[0] for i in range(20)]
check("replays of a 5 % slowdown are red", states.count("red") >= 18, states)
take, _ = source(random.Random(7), {}, 0.01)
quiet = book_of("a", "b")
for _ in range(20):
    quiet.add(take(["a", "b"]))
states = [resample.one_run(quiet, random.Random(i))[0] for i in range(20)]
check("replays of A against A are not", "red" not in states, states)
states = [resample.one_run(recorded, random.Random(i), same=True)[0] for i in range(20)]
check("with names drawn anew in each round nothing tells HEAD apart", "red" not in states, states)

# ---- the planted loop
text = "static int a(void) {\n  return 1;\n}\n\nint b(int x,\n      int y) {\n  return a();\n}\n"
out = plant.with_loop(text, "b", 7)
check("a loop is planted in the function named, and nowhere else", out.count("planted < 7") == 1 and out.index("planted") > out.index("int y)")
      and out.replace("  for (volatile unsigned planted = 0; planted < 7; planted++) {\n  }\n", "") == text, out)
try:
    plant.with_loop(text, "c", 7)
    check("a function that is not there is refused", False)
except trees.Refused:
    check("a function that is not there is refused", True)

# ---- reports
book = book_of("a", "b")
take, _ = source(random.Random(8), {"b": 0.05}, 0.002)
state, vs = rounds.run(book, take)
doc = dict(base="0" * 40, head="1" * 40, machine="m", date="2026-11-21T00:00:00Z", seconds=1.5, samples=3, discarded=1, state=state, why=[],
           metrics=book.as_json(), verdicts=[vars(v) for v in vs])
table = report.table(doc)
check("the table names what is slower and says so", "SLOWER: b" in table and table.count("SLOWER") == 2, table)
suite = ET.fromstring(report.junit(doc))
cases = {c.get("name"): c for c in suite.iter("testcase")}
check("JUnit: one case a metric, one failure", set(cases) == {"a", "b"} and suite.get("failures") == "1" and cases["b"].find("failure") is not None
      and cases["a"].find("failure") is None)
doc["state"] = "inconclusive"
suite = ET.fromstring(report.junit(doc))
check("JUnit: an inconclusive run fails nothing, passes nothing", suite.get("failures") == "0" and suite.get("skipped") == "2")

# ---- what it refuses, before it builds anything


def gate(*args, **env):
    r = subprocess.run(["/usr/bin/python3", str(GATE / "run"), *args], capture_output=True, text=True, env=dict(os.environ, **env), timeout=60)
    return r.returncode, r.stdout + r.stderr


code, said = gate("HEAD")
check("one commit is wrong usage: 2", code == 2 and "usage" in said, said)
code, said = gate("HEAD", "HEAD", "--groups", "kernels,nonsense")
check("an unknown group: 2", code == 2 and "kernels,core,serve,count" in said, said)
with tempfile.TemporaryDirectory() as empty:
    code, said = gate("HEAD", "HEAD", PATH=empty)
check("missing programs are named: 2", code == 2 and "wrk" in said and "valgrind" in said, said)
if subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True).returncode == 0:
    tools = all(subprocess.run(["/bin/sh", "-c", f"command -v {t}"], capture_output=True).returncode == 0 for t in ("wrk", "valgrind", "ccache"))
    code, said = gate("HEAD", "no-such-commit", "--groups", "core")
    check("an unknown commit is named: 2", code == 2 and ("'no-such-commit' is no commit" in said or not tools), said)
else:
    check("an unknown commit is named # SKIP this is no git repository", True)
print(f"1..{len(results)}")
sys.exit(not all(results))
