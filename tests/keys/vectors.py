#!/usr/bin/env python3
"""The documented derivation in another language: prints the test vectors of docs/keys.md as C initialisers.
With --check FILE it compares instead and exits 1 where they differ."""
import hashlib
import hmac
import struct
import sys

SECRET = bytes(range(32))
QUERIES = [('album/track', 1, 'cenc', ''), ('album/track', 1, 'cbcs', ''), ('album/track', 2, 'cbcs', ''),
           ('album/track', 1, 'cbcs', 'lossless'), ('caf\u00e9/\u96e8', 7, 'cenc', '')]


def text(s):
    b = s.encode()
    return struct.pack('>I', len(b)) + b


def derive(secret, purpose, asset, epoch, scheme, label):
    prk = hmac.new(b'sluice keys v1', secret, hashlib.sha256).digest()
    info = purpose.encode() + text(asset) + struct.pack('>I', epoch) + text(scheme) + text(label)
    return hmac.new(prk, info + b'\x01', hashlib.sha256).digest()[:16]


def lines():
    for q in QUERIES:
        kid = bytearray(derive(SECRET, 'sluice kid v1', *q))
        kid[6] = 0x80 | kid[6] & 0x0f
        kid[8] = 0x80 | kid[8] & 0x3f
        key = derive(SECRET, 'sluice key v1', *q)
        iv = derive(SECRET, 'sluice iv v1', *q).hex() if q[2] == 'cbcs' else ''
        yield '{"%s", "%s", "%s", "%s", "%s", %d, SCHEME_%s},\n' % (q[0], q[3], kid.hex(), key.hex(), iv, q[1],
                                                                    q[2].upper())


if len(sys.argv) == 3 and sys.argv[1] == '--check':
    print('1..1')
    same = open(sys.argv[2], encoding='utf-8').read() == ''.join(lines())
    print(('ok' if same else 'not ok') + ' 1 - vectors.inc is what the documented derivation gives')
    sys.exit(not same)
sys.stdout.write(''.join(lines()))
