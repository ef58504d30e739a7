"""What a listener asks for by a manifest, read a second time: HLS and DASH from the standards, with the libraries of Python alone.

`Plays(port).all(path)` gives, for each rendition of audio, the requests of one listener from the manifest to the last segment,
redirections included: a list of (path, range), range being (first, last) or None. `.media` has those of segments, as the manifest says them."""
import gzip
import http.client
import math
import re
import struct
import urllib.parse
import xml.etree.ElementTree as ET
from fractions import Fraction

NS = "{urn:mpeg:dash:schema:mpd:2011}"
VIDEO = re.compile(r"avc\d|hvc1|hev1|av01|vp09")


class Plays:
    def __init__(self, port):
        self.origin, self.port, self.asked, self.bodies, self.media = f"http://127.0.0.1:{port}", port, [], {}, []

    def ask(self, url, span=None):
        """Fetches, following redirections; returns where it came from, and its bytes. Notes every request."""
        for _ in range(10):
            assert url.startswith(self.origin + "/"), url
            path = urllib.parse.quote(url[len(self.origin):].split("#")[0], safe="/?%&=:@!$'()*+,;~[]")
            self.asked.append((path, span))
            if (path, span) not in self.bodies:
                c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                c.request("GET", path, headers={"Range": f"bytes={span[0]}-{span[1]}"} if span else {})
                r = c.getresponse()
                body = gzip.decompress(r.read()) if r.getheader("Content-Encoding") == "gzip" else r.read()
                assert r.status in ((206,) if span else (200,)) or 300 < r.status < 309, (path, span, r.status)
                self.bodies[path, span] = r.status, r.getheader("Location"), body
                c.close()
            status, location, body = self.bodies[path, span]
            if status < 300:
                return url, body
            url = urllib.parse.urljoin(url, location)
        raise AssertionError("redirections without end")

    def segment(self, url, span=None):
        before = len(self.asked)
        self.ask(url, span)
        self.media[-1].append(self.asked[before])

    def all(self, path):
        start, out, number, self.media = self.origin + path, [], 0, []
        while True:
            self.asked = []
            self.media.append([])
            url, body = self.ask(start)
            many = (self.hls if body.startswith(b"#EXTM3U") else self.dash)(url, body, number)
            if not many:
                return out
            out.append(self.asked)
            number += 1

    # ---- HLS

    @staticmethod
    def attributes(text):
        return {m[1]: m[2].strip('"') for m in re.finditer(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)', text)}

    def lines(self, url, body):
        """(tag, value) and ("", URI), with variables replaced."""
        known, out = {}, []
        for line in body.decode().splitlines():
            line = re.sub(r"\{\$([\w-]+)\}", lambda m: known[m[1]], line) if known else line
            if line.startswith("#EXT-X-DEFINE:"):
                a = self.attributes(line.split(":", 1)[1])
                if "QUERYPARAM" in a:
                    known[a["QUERYPARAM"]] = dict(urllib.parse.parse_qsl(url.split("?", 1)[1]))[a["QUERYPARAM"]]
                else:
                    known[a["NAME"]] = a["VALUE"]
            elif line.startswith("#EXT"):
                out.append(tuple((line + ":").split(":", 1)))
            elif line and not line.startswith("#"):
                out.append(("", line))
        return [(k, v[:-1] if k else v) for k, v in out]

    def hls(self, url, body, number):
        lines = self.lines(url, body)
        if not any(k == "#EXTINF" for k, _ in lines):
            lists, groups, variant = [], {}, None
            for k, v in lines:
                if k == "#EXT-X-MEDIA" and self.attributes(v)["TYPE"] == "AUDIO" and "URI" in self.attributes(v):
                    groups.setdefault(self.attributes(v)["GROUP-ID"], []).append(self.attributes(v)["URI"])
            for k, v in lines:
                if k == "#EXT-X-STREAM-INF":
                    variant = self.attributes(v)
                elif not k:
                    own = groups.get(variant.get("AUDIO"), [])
                    pictures = "RESOLUTION" in variant or VIDEO.search(variant.get("CODECS", ""))
                    lists += own if pictures and own else [v] + own
            lists = list(dict.fromkeys(urllib.parse.urljoin(url, x) for x in lists))
            if number >= len(lists):
                return False
            url, body = self.ask(lists[number])
            lines = self.lines(url, body)
        elif number:
            return False
        init = had = span = before = None
        for k, v in lines:
            if k == "#EXT-X-MAP":
                a = self.attributes(v)
                n, _, o = a.get("BYTERANGE", "").partition("@")
                init = urllib.parse.urljoin(url, a["URI"]), (int(o or 0), int(o or 0) + int(n) - 1) if n else None
            elif k == "#EXT-X-BYTERANGE":
                n, _, o = v.partition("@")
                first = int(o) if o else before[1] + 1
                span = first, first + int(n) - 1
            elif not k:
                if init and init != had:
                    self.ask(*init)
                had = init
                self.segment(urllib.parse.urljoin(url, v), span)
                before, span = span, None
        return True

    # ---- DASH

    @staticmethod
    def seconds(text):
        m = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", text)
        return sum(Fraction(x or 0) * n for x, n in zip(m.groups(), (86400, 3600, 60, 1)))

    def base(self, url, element):
        """The first BaseURL that leads to the origin."""
        bases = [urllib.parse.urljoin(url, b.text.strip()) for b in element.findall(NS + "BaseURL")]
        return next((b for b in bases if b.startswith(self.origin + "/")), bases[0] if bases else url)

    @staticmethod
    def sound(*elements):
        kinds = [(e.get("contentType") or e.get("mimeType", "").split("/")[0]) for e in elements]
        return next((k for k in kinds if k), "audio") == "audio"

    def merged(self, *elements):
        """(form, attributes, children) of the innermost segment information, over that around it."""
        form, attributes, children = None, {}, {}
        for e in elements:
            for name in ("SegmentTemplate", "SegmentList", "SegmentBase"):
                s = e.find(NS + name)
                if s is not None:
                    form = name
                    attributes.update(s.attrib)
                    children.update({c: s.findall(NS + c) for c in ("SegmentTimeline", "SegmentURL", "Initialization") if s.findall(NS + c)})
        return form, attributes, children

    def dash(self, url, body, number):
        mpd = ET.fromstring(body)
        top, periods, chosen = self.base(url, mpd), mpd.findall(NS + "Period"), None
        starts, at = [], Fraction(0)
        for p in periods:
            at = self.seconds(p.get("start")) if p.get("start") else at
            starts.append(at)
            at += self.seconds(p.get("duration")) if p.get("duration") else 0
        total = self.seconds(mpd.get("mediaPresentationDuration")) if mpd.get("mediaPresentationDuration") else None
        self.had = None
        for i, p in enumerate(periods):
            reps = [(s, r) for s in p.findall(NS + "AdaptationSet") for r in s.findall(NS + "Representation") if self.sound(r, s)]
            if not reps:
                continue
            if chosen is None:
                if number >= len(reps):
                    return False
                chosen = reps[number][1].get("id")
                pick = reps[number]
            else:
                pick = next((x for x in reps if x[1].get("id") == chosen), reps[min(number, len(reps) - 1)])
            end = starts[i + 1] if i + 1 < len(periods) else total
            length = self.seconds(p.get("duration")) if p.get("duration") else end - starts[i] if end is not None else None
            base = self.base(self.base(self.base(top, p), pick[0]), pick[1])
            self.period(base, pick[1], length, *self.merged(p, *pick))
        return True

    def expand(self, template, rep, number, time):
        values = {"RepresentationID": rep.get("id"), "Bandwidth": int(rep.get("bandwidth", 0)), "Number": number, "Time": time, "": "$"}

        def one(m):
            v = values[m[1]]
            return str(v).zfill(int(m[2])) if m[2] else str(v)
        return re.sub(r"\$(\w*)(?:%0(\d+)d)?\$", one, template)

    def once(self, url, span=None):
        """Of init segments that come again one after the other the listener has the first."""
        if (url, span) != self.had:
            self.ask(url, span)
        self.had = url, span

    def period(self, base, rep, length, form, a, children):
        def span(text):
            return tuple(int(x) for x in text.split("-"))
        init = children.get("Initialization", [None])[0]
        if form is None:
            self.segment(base)
            return
        if form == "SegmentBase":
            index = span(a["indexRange"])
            _, sidx = self.ask(base, index)
            self.once(base, span(init.get("range")) if init is not None else (0, index[0] - 1))
            for s in self.references(sidx, index[0]):
                self.segment(base, s)
            return
        if form == "SegmentTemplate" and "initialization" in a:
            self.once(urllib.parse.urljoin(base, self.expand(a["initialization"], rep, 0, 0)))
        elif init is not None:
            self.once(urllib.parse.urljoin(base, init.get("sourceURL", "")), span(init.get("range")) if init.get("range") else None)
        scale, offset, first = int(a.get("timescale", 1)), int(a.get("presentationTimeOffset", 0)), int(a.get("startNumber", 1))
        urls, times = children.get("SegmentURL"), []
        if "SegmentTimeline" in children:
            entries, t = children["SegmentTimeline"][-1].findall(NS + "S"), 0
            for k, s in enumerate(entries):
                t, d, r = int(s.get("t", t)), int(s.get("d")), int(s.get("r", 0))
                if r < 0:
                    until = int(entries[k + 1].get("t")) if k + 1 < len(entries) else offset + length * scale
                    r = math.ceil(Fraction(until - t) / d) - 1
                for _ in range(r + 1):
                    times.append(t)
                    t += d
        elif urls is None or "duration" in a:
            many = int(a["endNumber"]) - first + 1 if length is None else math.ceil(length * scale / int(a["duration"]))
            times = [offset + k * int(a["duration"]) for k in range(many)]
        if "endNumber" in a:
            times = times[:int(a["endNumber"]) - first + 1]
        if urls is not None:
            for u in urls[:len(times)] if times else urls:
                self.segment(urllib.parse.urljoin(base, u.get("media", "")), span(u.get("mediaRange")) if u.get("mediaRange") else None)
            return
        for k, t in enumerate(times):
            self.segment(urllib.parse.urljoin(base, self.expand(a["media"], rep, first + k, t)))

    @staticmethod
    def references(data, at):
        """Byte ranges of a sidx that lies at `at` of its file. ISO/IEC 14496-12 8.16.3."""
        size, kind = struct.unpack_from(">I4s", data)
        assert kind == b"sidx"
        wide = data[8]
        first = struct.unpack_from(">Q", data, 28)[0] if wide else struct.unpack_from(">I", data, 24)[0]
        head = 36 if wide else 28
        at += size + first
        for k in range(struct.unpack_from(">H", data, head + 2)[0]):
            n = struct.unpack_from(">I", data, head + 4 + 12 * k)[0]
            yield at, at + n - 1
            at += n
