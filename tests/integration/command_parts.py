"""What the parts of command.py share."""

KID, KEY, IV = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100", "0102030405060708"
ENCRYPT = ["--scheme", "cenc", "--kid", KID, "--key", KEY]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def one_line(r):
    return r.err.startswith("sluice") and r.err.strip().count("\n") == 0
