"""What the gate found: a table for people, JUnit for CI. (JSON is the document itself.)"""
import xml.etree.ElementTree as ET

HEADLINES = {"green": "not slower", "red": "SLOWER", "inconclusive": "inconclusive: the machine is too noisy to say"}
WORDS = {"ok": "", "slower": "SLOWER", "undecided": "?"}


def percent(ratio):
    return f"{100 * (ratio - 1):+.1f} %"


def table(doc):
    units = {m["name"]: m["unit"] for m in doc["metrics"]}
    middle = {m["name"]: sorted(t[0] for t in m["rounds"])[len(m["rounds"]) // 2] for m in doc["metrics"] if m["rounds"]}
    lines = [f"BASE {doc['base'][:12]}  HEAD {doc['head'][:12]}  {doc['machine']}, {doc['date']}", "",
             f"{'metric':38} {'BASE':>12} {'unit':12} {'HEAD':>8} {'95 % of the median':>18} {'bound':>7} {'p':>8} {'pairs':>5}"]
    for v in doc["verdicts"]:
        between = f"{percent(v['low'])} .. {percent(v['high'])}" if v["num_pairs"] > 1 else ""
        p = f"{v['p']:8.1g}" if v["num_pairs"] > 1 else f"{'':8}"
        lines.append(f"{v['name']:38} {middle[v['name']]:12.5g} {units[v['name']]:12} {percent(v['ratio']):>8} {between:>18} {percent(1 + v['bound']):>7}"
                     f" {p} {v['num_pairs']:5} {WORDS[v['state']]}".rstrip())
    if any(v["state"] == "undecided" for v in doc["verdicts"]):
        lines.append("?: neither slower by the rule nor clearly inside the bound")
    lines += ["", *doc["why"]] if doc["why"] else [""]
    slower = [v["name"] for v in doc["verdicts"] if v["state"] == "slower"]
    lines.append(f"{HEADLINES[doc['state']]}{': ' + ', '.join(slower) if slower and doc['state'] == 'red' else ''}"
                 f" ({doc['seconds']:.0f} s, {doc['discarded']} of {doc['samples']} samples taken again)")
    return "\n".join(lines)


def junit(doc):
    suite = ET.Element("testsuite", name="bench-gate", tests=str(len(doc["verdicts"])), time=str(doc["seconds"]), timestamp=doc["date"][:19])
    failures = skipped = 0
    for v in doc["verdicts"]:
        case = ET.SubElement(suite, "testcase", classname="bench-gate", name=v["name"])
        text = f"median {percent(v['ratio'])}, bound {percent(1 + v['bound'])}, p {v['p']:.2g}, {v['num_pairs']} pairs"
        if v["state"] == "slower" and doc["state"] == "red":
            ET.SubElement(case, "failure", message=text)
            failures += 1
        elif v["state"] != "ok" or doc["state"] == "inconclusive":
            ET.SubElement(case, "skipped", message=f"{doc['state'] if doc['state'] == 'inconclusive' else v['state']}: {text}")
            skipped += 1
        ET.SubElement(case, "system-out").text = text
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    suite.set("errors", "0")
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
