#!/usr/bin/env python3
"""A key server for tests, in a process of its own: SPEKE 2.0 and 2.1 on /speke, JSON on /json, orders on a second port.

As a program: keyserver.py CONTROL_PORT PORT [CERT KEY [CLIENT_CA]]. As a module: KeyServer starts one and gives it orders.
How it answers is ordered by asset: POST /orders {"asset": {"mode": …}} ("*": every other); GET /requests lists what was asked.
"""
import base64
import hashlib
import http.server
import json
import pathlib
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

CPIX, PSKC = "urn:dashif:org:cpix", "urn:ietf:params:xml:ns:keyprov:pskc"
WIDEVINE, PLAYREADY, FAIRPLAY = ("edef8ba9-79d6-4ace-a3c8-27dcd51d21ed", "9a04f079-9840-4286-ab92-e65be0885f95",
                                 "94ce86fb-07ff-4f43-adb8-93d2fa968ca2")
METHOD = {"cenc": "SAMPLE-AES-CTR", "cbcs": "SAMPLE-AES"}


def q(space, name):
    return f"{{{space}}}{name}"


def b64(data):
    return base64.b64encode(data).decode()


def key_of(kid_hex, salt=""):
    return hashlib.sha256(f"key {kid_hex} {salt}".encode()).digest()[:16]


def kid_of(asset, epoch, scheme, label):
    """The KID of an answer in JSON."""
    return hashlib.sha256(f"{asset} {epoch} {scheme} {label}".encode()).hexdigest()[:32]


def iv_of(kid_hex):
    return hashlib.sha256(f"iv {kid_hex}".encode()).digest()[:16]


def pssh_of(system, kid, data=b"from the key server"):
    body = b"\0\0\0\0" + bytes.fromhex(system.replace("-", "")) + len(data).to_bytes(4, "big") + data
    return (len(body) + 8).to_bytes(4, "big") + b"pssh" + body


def check_speke(headers, body):
    """What a SPEKE 2 key provider must refuse, as (document, error). Source: SPEKE API v2, standard payload components,
    encryption contract, method calls."""
    version = headers.get("X-Speke-Version")
    want = {"2.0": "2.3", "2.1": "2.4"}.get(version)
    if not want:
        return None, "Unsupported SPEKE version"
    if headers.get("Content-Type") != "application/xml":
        return None, "Content-Type is not application/xml"
    try:
        root = ET.fromstring(body)
    except ET.ParseError as e:
        return None, f"not XML: {e}"
    if root.tag != q(CPIX, "CPIX"):
        return None, f"root {root.tag}"
    if not root.get("contentId"):
        return None, "Missing CPIX@contentId"
    if not root.get("version"):
        return None, "Missing CPIX@version"
    if root.get("version") != want:
        return None, "Unsupported CPIX@version"
    lists = [child.tag for child in root]
    if lists != [q(CPIX, n) for n in ("ContentKeyList", "DRMSystemList", "ContentKeyUsageRuleList")]:
        return None, f"lists {lists}"
    keys = root.findall(f"{q(CPIX, 'ContentKeyList')}/{q(CPIX, 'ContentKey')}")
    systems = root.findall(f"{q(CPIX, 'DRMSystemList')}/{q(CPIX, 'DRMSystem')}")
    rules = root.findall(f"{q(CPIX, 'ContentKeyUsageRuleList')}/{q(CPIX, 'ContentKeyUsageRule')}")
    kids = [k.get("kid") for k in keys]
    if not keys or len(set(kids)) != len(kids):
        return None, f"kids {kids}"
    for kid in kids:
        parts = [len(p) for p in (kid or "").split("-")]
        if parts != [8, 4, 4, 4, 12]:
            return None, f"kid {kid} is not a UUID"
    schemes = {k.get("commonEncryptionScheme") for k in keys}
    if None in schemes:
        return None, "Missing ContentKey@commonEncryptionScheme"
    if len(schemes) > 1 or not schemes <= {"cenc", "cbcs", "cbc1", "cens"}:
        return None, "Non compliant ContentKey@commonEncryptionScheme combination"
    for s in systems:
        if s.get("kid") not in kids or s.get("systemId") not in (WIDEVINE, PLAYREADY, FAIRPLAY):
            return None, f"DRMSystem {s.attrib}"
        lists = [h.get("playlist") for h in s.findall(q(CPIX, "HLSSignalingData"))]
        if lists != ["media", "multiVariant" if version == "2.1" else "master"]:
            return None, f"HLSSignalingData {lists}"
        if s.get("systemId") != FAIRPLAY and (s.find(q(CPIX, "PSSH")) is None or s.find(q(CPIX, "ContentProtectionData")) is None):
            return None, "no PSSH or ContentProtectionData is asked for"
    if sorted(r.get("kid") for r in rules) != sorted(kids):
        return None, "not one usage rule for each key"
    types = [r.get("intendedTrackType") for r in rules]
    if None in types or len(set(types)) != len(types):
        return None, f"intendedTrackType {types}"
    if any(len(r.findall(q(CPIX, "AudioFilter"))) != 1 for r in rules):
        return None, "a rule without its AudioFilter"
    return root, None


def speke_answer(root, mode):
    """Fills a request, as ordered."""
    version = root.get("version")
    scheme = root.find(f".//{q(CPIX, 'ContentKey')}").get("commonEncryptionScheme")
    key_list = root.find(q(CPIX, "ContentKeyList"))
    for k in list(key_list):
        kid = k.get("kid").replace("-", "")
        key = key_of("shared" if mode == "same_key" else kid, "second" if mode == "changed" else "")
        secret = ET.SubElement(ET.SubElement(k, q(CPIX, "Data")), q(PSKC, "Secret"))
        if mode == "encrypted":
            ET.SubElement(secret, q(PSKC, "EncryptedValue")).text = b64(key)
        elif mode != "no_key":
            ET.SubElement(secret, q(PSKC, "PlainValue")).text = b64(key[:15] if mode == "short_key" else key)
        if scheme == "cbcs" and mode != "no_iv":
            k.set("explicitIV", b64(iv_of(kid)[:8 if mode == "wrong_iv" else 16]))
        if mode == "wrong_kid":
            k.set("kid", "00000000" + k.get("kid")[8:])
        if mode == "wrong_scheme":
            k.set("commonEncryptionScheme", "cenc" if scheme == "cbcs" else "cbcs")
        if mode == "no_scheme":
            del k.attrib["commonEncryptionScheme"]
        if mode == "duplicate":
            key_list.append(k)
        if mode == "more":
            extra = ET.SubElement(key_list, q(CPIX, "ContentKey"), {**k.attrib, "kid": "11111111" + k.get("kid")[8:]})
            extra.append(k[0])
    for s in root.iter(q(CPIX, "DRMSystem")):
        kid = s.get("kid").replace("-", "")
        pssh = pssh_of(PLAYREADY if mode == "wrong_pssh" else s.get("systemId"), kid)
        for child in s:
            name = child.tag.split("}")[1]
            if name == "PSSH":
                child.text = b64(pssh)
            elif name == "ContentProtectionData":
                xml = f'<pssh xmlns="urn:mpeg:cenc:2013">{b64(pssh)}</pssh>'
                child.text = b64((xml + "</ContentProtection>" if mode == "bad_xml" else xml).encode())
            elif name == "HLSSignalingData":
                tag = "#EXT-X-KEY" if child.get("playlist") == "media" else "#EXT-X-SESSION-KEY"
                line = f'{tag}:METHOD={METHOD[scheme]},URI="data:text/plain;base64,{b64(pssh)}",KEYFORMAT="urn:uuid:{s.get("systemId")}"'
                child.text = b64((line + ("\n#EXTINF:1,\nhttp://evil.test/" if mode == "bad_hls" else "")).encode())
    if mode == "wrong_kid":
        for s in root.iter(q(CPIX, "DRMSystem")):
            s.set("kid", "00000000" + s.get("kid")[8:])
    text = ET.tostring(root)
    if mode == "malformed":
        text = text[:-20]
    if mode == "bomb":
        text = (b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + b"".join(b'<!ENTITY a%d "%s">' % (i, (b"&a%s;" % (b"%d" % (i - 1) if i else b"")) * 10)
                for i in range(9)) + b"]>" + text.replace(b"</", b"&a8;</", 1))
    if mode == "huge":
        text = text.replace(b"</", b" " * (3 << 20) + b"</", 1)
    if mode == "long":
        text += b"<!--" + b" " * 700_000 + b"-->"
    return text, version


def json_answer(doc, mode):
    keys = []
    for label in doc["labels"]:
        kid = kid_of(doc["asset"], doc["epoch"], doc["scheme"], label)
        key = {"label": label, "scheme": doc["scheme"], "kid": kid, "key": key_of("shared" if mode == "same_key" or mode == "same_lossless" and label else kid, "second" if mode == "changed" else "").hex(), "systems": {}}
        if doc["scheme"] == "cbcs":
            key["iv"] = iv_of(kid).hex()[:8 if mode == "wrong_iv" else 32]
        if "widevine" in doc["systems"]:
            box = pssh_of(PLAYREADY if mode == "wrong_pssh" else WIDEVINE, kid)
            key["systems"]["widevine"] = {"pssh": b64(box), "mpd": f'<pssh xmlns="urn:mpeg:cenc:2013">{b64(box)}</pssh>'}
        if mode == "wrong_scheme":
            key["scheme"] = "cenc" if doc["scheme"] == "cbcs" else "cbcs"
        if mode == "same_kid":
            key["kid"] = "5" * 32
        if mode == "short_key":
            key["key"] = key["key"][:30]
        keys.append(key)
        if mode == "duplicate":
            keys.append(key)
    text = json.dumps({"keys": keys}).encode()
    if mode == "malformed":
        text = text[:-5]
    if mode == "huge":
        text += b" " * (3 << 20)
    return text


class State:
    def __init__(self):
        self.lock, self.orders, self.requests, self.active, self.peak = threading.Lock(), {}, [], 0, 0
        self.tls = False

    def order(self, asset):
        with self.lock:
            return dict(self.orders.get(asset) or self.orders.get("*") or {})


STATE = State()


class Keys(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = False

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):  # who asks was killed
            self.close_connection = True
            return
        speke = self.path.startswith("/speke")
        if speke:
            root, fault = check_speke(self.headers, body)
            asset = urllib.parse.unquote(root.get("contentId")) if root is not None else "?"
        else:
            doc, fault = json.loads(body), None
            asset = urllib.parse.unquote(doc["asset"])
        order = STATE.order(asset)
        mode = order.get("mode", "good")
        with STATE.lock:
            STATE.active += 1
            STATE.peak = max(STATE.peak, STATE.active)
            STATE.requests.append({"asset": asset, "path": self.path, "headers": dict(self.headers), "body": body.decode("latin-1"),
                                   "fault": fault, "time": time.monotonic()})
        try:
            self.answer(speke, root if speke else doc, fault, order, mode)
        finally:
            with STATE.lock:
                STATE.active -= 1

    def answer(self, speke, doc, fault, order, mode):
        want = order.get("authorization")
        if want and self.headers.get("Authorization") != want:
            return self.reply(401, b"who are you")
        if fault:
            return self.reply(422, fault.encode())
        time.sleep(order.get("delay", 0))
        if mode == "status":
            return self.reply(order["status"], b"no keys for you", [("Retry-After", str(order["retry_after"]))] if "retry_after" in order else [])
        if mode == "silent":
            time.sleep(5)
            self.close_connection = True
            return None
        if mode in ("cut", "cut_503"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" if mode == "cut" else b"HTTP/1.1 503 Away\r\nRetry-After: 60\r\n")
            self.wfile.write(b"Content-Length: 5000\r\n\r\nsome")
            self.close_connection = True
            return None
        if mode == "once":  # of a connection the first request alone
            self.close_connection, self.served = self.served, True
            if self.close_connection:
                return None
        if mode == "not_http":
            self.wfile.write(b"+OK POP3 ready\r\n")
            self.close_connection = True
            return None
        if speke:
            text, _ = speke_answer(doc, mode)
            version = "1.0" if mode == "version" else self.headers["X-Speke-Version"]
            return self.reply(200, text, [("Content-Type", "application/xml"), ("X-Speke-Version", version), ("X-Speke-User-Agent", "judge")])
        return self.reply(200, json_answer(doc, mode), [("Content-Type", "application/json")])


class Control(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with STATE.lock:
            self.reply({"requests": STATE.requests, "peak": STATE.peak})

    def do_POST(self):
        orders = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with STATE.lock:
            STATE.orders = orders
            STATE.requests, STATE.peak = [], 0
        self.reply({})


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    context = None

    def finish_request(self, request, client_address):
        if self.context:  # on the connection's own thread: a client that says nothing holds up nobody
            request.settimeout(30)
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        pass


def main():
    control, port, *tls = sys.argv[1:]
    keys = Listener(("127.0.0.1", int(port)), Keys)
    if tls:
        keys.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        keys.context.load_cert_chain(tls[0], tls[1])
        if len(tls) > 2:
            keys.context.verify_mode = ssl.CERT_REQUIRED
            keys.context.load_verify_locations(tls[2])
    orders = Listener(("127.0.0.1", int(control)), Control)
    threading.Thread(target=keys.serve_forever, daemon=True).start()
    print(keys.server_address[1], orders.server_address[1], flush=True)
    orders.serve_forever()


class KeyServer:
    """Starts the program. `stop` ends it, `start` begins it again on the same port."""

    def __init__(self, cert=None, client_ca=None):
        self.tls = [*cert, *([client_ca] if client_ca else [])] if cert else []
        self.port = self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, str(pathlib.Path(__file__)), "0", str(self.port or 0), *map(str, self.tls)],
                                        stdout=subprocess.PIPE, text=True)
        self.port, self.control = map(int, self.process.stdout.readline().split())
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def url(self, path="/speke", host="127.0.0.1"):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def orders(self, **orders):
        """Orders by asset (`every` for all others); forgets the requests so far."""
        text = json.dumps({("*" if k == "every" else k): v for k, v in orders.items()}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.control}/", text, timeout=10).read()

    def state(self):
        return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{self.control}/", timeout=10).read())

    def requests(self):
        return self.state()["requests"]


if __name__ == "__main__":
    main()
