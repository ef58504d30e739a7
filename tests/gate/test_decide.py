#!/usr/bin/python3
"""The gate's decisions on synthetic data with known answers. TAP."""
import math
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gate"))
import decide  # noqa: E402

results = []


def check(name, ok, detail=""):
    results.append(ok)
    print(f"{'ok' if ok else 'not ok'} {len(results)} - {name}" + ("" if ok else f"\n  # {detail}"))


def noisy_pairs(rng, n, slow=0.0, sigma=0.02, drift=0.1, bursts=0.1):
    """Pairs on a shared machine: drift common to both sides, multiplicative noise, bursts that hit one side."""
    out, level = [], 1.0
    for _ in range(n):
        level *= math.exp(rng.gauss(0, drift))
        side = [level * math.exp(rng.gauss(0, sigma)) * (1 + (rng.uniform(0.1, 0.3) if rng.random() < bursts else 0)) for _ in range(2)]
        out.append((side[0], side[1] * (1 + slow)))
    return out


def run(rng, num_metrics, slow, **noise):
    """A whole gate run with its looks; `slow` applies to the first metric."""
    metrics = [decide.Metric(f"m{i}", 0.015) for i in range(num_metrics)]
    for look in decide.LOOKS:
        for i, m in enumerate(metrics):
            m.pairs += noisy_pairs(rng, look - len(m.pairs), slow if i == 0 else 0, **noise)
            m.canary += noisy_pairs(rng, look - len(m.canary), 0, **noise)
        state, vs = decide.decide(metrics)
        if state != "more":
            return state, vs
    return state, vs


# Known values: all of n ranks on one side has p = 2^-n; textbook sums check the exact distribution.
check("ten pairs, all slower: p is 2^-10", abs(decide.p_slower([(1, 1 + 0.01 * i) for i in range(1, 11)]) - 2 ** -10) < 1e-12)
check("all faster: p is 1", decide.p_slower([(1 + 0.01 * i, 1) for i in range(1, 11)]) > 0.999)
# Wilcoxon's 1945 form: n = 8, W+ = 33 of 36: P(W >= 33) = (1+1+1+2)/256
d = [0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
check("n = 8, W+ = 33: p is 5/256", abs(decide.p_slower([(1, math.exp(x)) for x in d]) - 5 / 256) < 1e-12,
      decide.p_slower([(1, math.exp(x)) for x in d]))
check("equal sides: p is 1", decide.p_slower([(1, 1)] * 16) == 1.0)
check("Holm, by hand", decide.holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06], decide.holm([0.01, 0.04, 0.03]))
check("Holm never exceeds 1", decide.holm([0.9, 0.8]) == [1.0, 1.0])
check("median of even and odd", decide.median([3, 1, 2]) == 2 and decide.median([4, 1, 2, 3]) == 2.5)
# n = 16: P(Bin <= 3) = 0.0106, twice below 0.05: the 4th smallest and largest
check("interval of a median, n = 16", decide.interval(list(range(1, 17))) == (4, 13), decide.interval(list(range(1, 17))))

rng = random.Random(1)
alarms = sum(run(rng, 8, 0.0)[0] == "red" for _ in range(100))
# a family-wise level of 1 % allows 1 of 100 on average; 6 or more has a probability below 0.06 %
check("A/A with eight metrics: at most 5 alarms in 100 runs", alarms <= 5, f"{alarms} alarms")
found = sum(run(rng, 8, 0.03, sigma=0.01, bursts=0.02)[0] == "red" for _ in range(60))
check("3 % slower, noise of 1 % and bursts of 2 %: found in at least 50 of 60 runs", found >= 50, f"found {found}")
tiny = sum(run(rng, 4, 0.005, sigma=0.002, bursts=0)[0] == "red" for _ in range(60))
check("0.5 % slower is inside a bound of 1.5 %: never red", tiny == 0, f"{tiny} red")
fast = sum(run(rng, 4, -0.2)[1][0].state == "slower" for _ in range(100))
check("what is 20 % faster is never called slower", fast == 0)

m = decide.Metric("m", 0.015)
m.pairs = noisy_pairs(rng, 16, 0.05, sigma=0.005, bursts=0)
m.canary = noisy_pairs(rng, 16, 0.05, sigma=0.005, bursts=0)
check("a canary that fires makes the run inconclusive, not red", decide.decide([m])[0] == "inconclusive")
m.canary = [(h, b) for b, h in m.canary]
check("also when the canary is faster than itself", decide.decide([m])[0] == "inconclusive")
e = decide.Metric("instructions", 0.01, exact=True, pairs=[(1000000, 1010001)], canary=[(1000000, 1000000)])
s = decide.Metric("s", 0.015, pairs=[(1, 1)] * 16, canary=[(1, 1)] * 16)
check("instruction counts block beyond 1 %", decide.decide([e, s])[0] == "red")
check("and no noise excuses them", decide.decide([e, m])[0] == "red")
e.pairs = [(1000000, 1009999)]
check("and not before", decide.decide([e, s])[0] == "green")
# two-sided: twice the smaller tail, never above 1
check("the canary's p is two-sided", abs(decide.p_differs([(1 + 0.01 * i, 1) for i in range(1, 11)]) - 2 ** -9) < 1e-12)
print(f"1..{len(results)}")
sys.exit(not all(results))
