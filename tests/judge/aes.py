"""AES-128 in plain Python, for judging a few kilobytes independently of every library. Source: FIPS 197."""


def _tables():
    exp, log = [0] * 512, [0] * 256
    x = 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        log[x] = i
        x ^= (x << 1) ^ (0x11B if x & 0x80 else 0)
        x &= 0xFF
    sbox = [0x63] * 256
    for i in range(1, 256):
        v = exp[255 - log[i]]
        s = v
        for _ in range(4):
            v = ((v << 1) | (v >> 7)) & 0xFF
            s ^= v
        sbox[i] = s ^ 0x63
    return sbox


SBOX = _tables()


def _xtime(a):
    return ((a << 1) ^ (0x1B if a & 0x80 else 0)) & 0xFF


_T = [[], [], [], []]
for _b in SBOX:
    _w = (_xtime(_b), _b, _b, _xtime(_b) ^ _b)  # the column 2 1 1 3 of MixColumns
    for _i in range(4):
        _T[_i].append(int.from_bytes(bytes(_w[(_j - _i) % 4] for _j in range(4)), "big"))


class Aes128:
    def __init__(self, key):
        words = [int.from_bytes(key[i:i + 4], "big") for i in range(0, 16, 4)]
        rcon = 1
        for i in range(4, 44):
            t = words[-1]
            if i % 4 == 0:
                t = ((t << 8) | (t >> 24)) & 0xFFFFFFFF
                t = int.from_bytes(bytes(SBOX[b] for b in t.to_bytes(4, "big")), "big") ^ (rcon << 24)
                rcon = _xtime(rcon)
            words.append(words[-4] ^ t)
        self.words = words

    def block(self, data):
        k = self.words
        s = [int.from_bytes(data[4 * i:4 * i + 4], "big") ^ k[i] for i in range(4)]
        t0, t1, t2, t3 = _T
        for r in range(4, 40, 4):
            s = [t0[s[i] >> 24] ^ t1[s[(i + 1) & 3] >> 16 & 255] ^ t2[s[(i + 2) & 3] >> 8 & 255] ^ t3[s[(i + 3) & 3] & 255]
                 ^ k[r + i] for i in range(4)]
        out = bytearray()
        for i in range(4):
            w = bytes((SBOX[s[i] >> 24], SBOX[s[(i + 1) & 3] >> 16 & 255], SBOX[s[(i + 2) & 3] >> 8 & 255],
                       SBOX[s[(i + 3) & 3] & 255]))
            out += (int.from_bytes(w, "big") ^ k[40 + i]).to_bytes(4, "big")
        return bytes(out)


def cenc(key, iv, sample):
    """The whole sample in counter mode; `iv` are the upper 8 bytes of the counter block."""
    out = bytearray()
    for n in range(0, len(sample), 16):
        stream = key.block(iv + (n // 16).to_bytes(8, "big"))
        out += bytes(a ^ b for a, b in zip(sample[n:n + 16], stream))
    return bytes(out)


def cbcs(key, iv, sample):
    """Every whole block from byte 0 in CBC, the rest clear."""
    out, previous = bytearray(), iv
    whole = len(sample) // 16 * 16
    for n in range(0, whole, 16):
        previous = key.block(bytes(a ^ b for a, b in zip(sample[n:n + 16], previous)))
        out += previous
    return bytes(out) + sample[whole:]


assert Aes128(bytes(range(16))).block(bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == \
    "69c4e0d86a7b0430d8cdb78070b4c55a", "FIPS 197, appendix C.1"
