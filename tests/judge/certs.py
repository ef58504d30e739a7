"""Certificates for tests, made on the spot with the openssl command."""
import pathlib
import subprocess
import time


def _run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Authority:
    """An authority of its own in `folder`: `ca` is its certificate; `issue` gives (certificate, key) files."""

    def __init__(self, folder, name="authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.ca, self.key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        _run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
             f"/CN={name}", "-keyout", str(self.key), "-out", str(self.ca), "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")

    def issue(self, name, alt="DNS:localhost,IP:127.0.0.1", days=2, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), more=""):
        """`more`: lines of extensions. With no days, or less, it has expired by then."""
        if days <= 0:
            return self.issue_until(name, time.time() - 365 * 86400, time.time() + days * 86400, alt, kind, more)
        cert, key, request, ext = self._request(name, alt, kind, more)
        _run("openssl", "x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self.key), "-CAcreateserial",
             "-days", str(days), "-extfile", str(ext), "-out", str(cert))
        return str(cert), str(key)

    def _request(self, name, alt, kind, more):
        cert, key, request, ext = (self.folder / f"{name}.{e}" for e in ("crt", "key", "csr", "ext"))
        _run("openssl", "req", "-newkey", *kind, "-nodes", "-subj", f"/CN={name}",
             "-keyout", str(key), "-out", str(request))
        # Python 3.13 demands of certificates what RFC 5280 does.
        ext.write_text(f"subjectAltName={alt}\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n{more}")
        return cert, key, request, ext

    def issue_until(self, name, begin, end, alt="DNS:localhost,IP:127.0.0.1", kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), more=""):
        """A certificate between two moments, seconds since 1970."""
        cert, key, request, ext = self._request(name, alt, kind, more)
        conf, index = self.folder / f"{name}.conf", self.folder / f"{name}.index"
        index.write_text("")
        conf.write_text(f"[ca]\ndefault_ca = own\n[own]\ndatabase = {index}\nnew_certs_dir = {self.folder}\ndefault_md = sha256\npolicy = any\nrand_serial = yes\n"
                        "[any]\ncommonName = supplied\n")
        when = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(t)) for t in (begin, end)]
        _run("openssl", "ca", "-batch", "-notext", "-config", str(conf), "-in", str(request), "-cert", str(self.ca), "-keyfile", str(self.key),
             "-startdate", when[0], "-enddate", when[1], "-extfile", str(ext), "-out", str(cert))
        return str(cert), str(key)
