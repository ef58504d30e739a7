#!/usr/bin/env python3
"""Compares pssh boxes, HLS key lines and MPD descriptors, field by field, with the reference packager's for the same
key: a live run of it in both schemes, and its golden files. Argument: the dump program. TAP."""
import base64
import os
import re
import struct
import subprocess
import sys
import tempfile
import uuid
import xml.etree.ElementTree as ET

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
VECTORS = os.path.join(os.environ.get('SLUICE_VECTORS', os.path.join(TOP, '..', 'shared', 'vectors')), 'shaka-packager')
KID, KEY, IV = '31323334353637383930313233343536', '32333435363738393021323334353637', '3334353637383930' * 2
LA_URL, SKD = 'https://pr.example/rights?a=1', 'skd://key-1'
WIDEVINE, PLAYREADY = 'edef8ba9-79d6-4ace-a3c8-27dcd51d21ed', '9a04f079-9840-4286-ab92-e65be0885f95'
COMMON = '1077efec-c0b2-4d02-ace3-3c1e52e2fb4b'
SYSTEMS = {WIDEVINE: 'Widevine', PLAYREADY: 'PlayReady', COMMON: 'common'}
NS = {'mpd': 'urn:mpeg:dash:schema:mpd:2011', 'cenc': 'urn:mpeg:cenc:2013', 'mspr': 'urn:microsoft:playready'}
results = []


def check(name, got, want):
    ok = got == want
    results.append(('ok' if ok else 'not ok') + ' %d - %s' % (len(results) + 1, name))
    if not ok:
        results.append('# got  %r' % (got,))
        results.append('# want %r' % (want,))


def skip(name, why):
    results.append('ok %d - %s # SKIP %s' % (len(results) + 1, name, why))


def attributes(line):
    """Attribute list of an HLS tag as a dictionary, quotes kept (they are part of the syntax)."""
    return dict(re.findall(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)', line.split(':', 1)[1]))


def key_lines(text):
    keys = [attributes(line) for line in text.splitlines() if line.startswith('#EXT-X-KEY:')]
    return {k['KEYFORMAT'].strip('"'): k for k in keys}


def descriptors(root):
    """First AdaptationSet's ContentProtection: scheme → (attributes, cenc:pssh, mspr:pro)."""
    out = {}
    for cp in root.iter('{%s}ContentProtection' % NS['mpd']):
        attrs = {re.sub(r'\{.*\}', '', k): v for k, v in cp.attrib.items()}
        out.setdefault(attrs['schemeIdUri'].lower(),
                       (attrs, cp.findtext('cenc:pssh', None, NS), cp.findtext('mspr:pro', None, NS)))
    return out


def boxes(data):
    """pssh boxes of an init segment: SystemID → box, found by walking moov."""
    out, i = {}, 0
    while i + 8 <= len(data):
        size, kind = struct.unpack('>I4s', data[i:i + 8])
        if kind == b'moov':
            out.update(boxes(data[i + 8:i + size]))
        elif kind == b'pssh':
            out[str(uuid.UUID(bytes=data[i + 12:i + 28]))] = data[i:i + size]
        i += size
    return out


def ours(dump, scheme, systems, la_url='-', skd='-'):
    text = subprocess.run([dump, scheme, KID, KEY, IV, systems, la_url, skd], check=True, capture_output=True,
                          text=True).stdout
    psshs = [base64.b64decode(line[5:]) for line in text.splitlines() if line.startswith('pssh ')]
    xml = text[text.index('<ContentProtection'):]
    root = ET.fromstring('<MPD xmlns="%s" xmlns:cenc="%s" xmlns:mspr="%s" xmlns:dashif="https://dashif.org/CPS" '
                         'xmlns:ck="http://dashif.org/guidelines/clearKey">%s</MPD>'
                         % (NS['mpd'], NS['cenc'], NS['mspr'], xml))
    return ({str(uuid.UUID(bytes=b[12:28])): b for b in psshs}, key_lines(text), descriptors(root))


def playready_header(box):
    """An independent reading of a PlayReady pssh box: version, ALGID, KID as UUID, CHECKSUM, LA_URL."""
    obj = box[32:]
    length, records, kind, size = struct.unpack('<IHHH', obj[:10])
    assert length == len(obj) and records == 1 and kind == 1 and size == len(obj) - 10
    root = ET.fromstring(obj[10:].decode('utf-16-le'))
    find = {re.sub(r'\{.*\}', '', e.tag): e for e in root.iter()}
    kid = find['KID']
    value = kid.get('VALUE') or kid.text
    return (root.get('version'), kid.get('ALGID') or find['ALGID'].text,
            uuid.UUID(bytes_le=base64.b64decode(value)).hex, 'CHECKSUM' in find,
            find['LA_URL'].text if 'LA_URL' in find else None)


def live(dump, packager, scheme):
    source = os.path.join(VECTORS, 'inputs', 'bear-mpeg2-aac-only_frag.mp4')
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([packager,
                        'in=%s,stream=audio,init_segment=i.mp4,segment_template=$Number$.m4s,playlist_name=a.m3u8,'
                        'hls_group_id=a,hls_name=a' % os.path.abspath(source),
                        '--enable_raw_key_encryption', '--keys', 'label=:key_id=%s:key=%s:iv=%s' % (KID, KEY, IV),
                        '--protection_scheme', scheme, '--clear_lead', '0',
                        '--protection_systems', 'Widevine,PlayReady,FairPlay,CommonSystem',
                        '--playready_extra_header_data', '<LA_URL>%s</LA_URL>' % LA_URL.replace('&', '&amp;'),
                        '--hls_key_uri', SKD, '--hls_master_playlist_output', 'master.m3u8', '--mpd_output', 'm.mpd',
                        '--quiet'], cwd=d, check=True, capture_output=True)
        ref_boxes = boxes(open(os.path.join(d, 'i.mp4'), 'rb').read())
        ref_keys = key_lines(open(os.path.join(d, 'a.m3u8')).read())
        ref_cp = descriptors(ET.parse(os.path.join(d, 'm.mpd')).getroot())
    got_boxes, got_keys, got_cp = ours(dump, scheme, 'widevine,playready,fairplay,common', LA_URL, SKD)
    for system, title in SYSTEMS.items():
        check('%s: %s pssh box' % (scheme, title), got_boxes.get(system), ref_boxes[system])
        urn = 'urn:uuid:' + system
        check('%s: %s descriptor' % (scheme, title), got_cp.get(urn), ref_cp[urn])
    mp4 = 'urn:mpeg:dash:mp4protection:2011'
    check('%s: mp4protection descriptor' % scheme, got_cp.get(mp4), ref_cp[mp4])
    for fmt in ('com.microsoft.playready', 'urn:uuid:' + WIDEVINE):
        check('%s: HLS line of %s' % (scheme, fmt), got_keys.get(fmt), ref_keys[fmt])
    # The packager writes a FairPlay line for cenc too, which no Apple player takes: we do not.
    fps = 'com.apple.streamingkeydelivery'
    check('%s: HLS line of FairPlay' % scheme, got_keys.get(fps), ref_keys[fps] if scheme == 'cbcs' else None)
    want = ('4.3.0.0', 'AESCBC', KID, False, LA_URL) if scheme == 'cbcs' else ('4.0.0.0', 'AESCTR', KID, True, LA_URL)
    check('%s: PlayReady header read independently' % scheme, playready_header(got_boxes[PLAYREADY]), want)


def golden(dump):
    folder = os.path.join(VECTORS, 'encryption-with-multi-drms')
    ref = descriptors(ET.parse(os.path.join(folder, 'output.mpd')).getroot())
    got_boxes, _, got = ours(dump, 'cenc', 'widevine,playready')
    for system in (WIDEVINE, PLAYREADY):
        check('multi-drms: descriptor of ' + SYSTEMS[system], got.get('urn:uuid:' + system), ref['urn:uuid:' + system])
    media = boxes(open(os.path.join(folder, 'bear-640x360-audio.mp4'), 'rb').read())
    for system in (WIDEVINE, PLAYREADY):
        check('multi-drms: pssh box of ' + SYSTEMS[system], got_boxes[system], media.get(system))


def main():
    dump = sys.argv[1]
    golden(dump)
    npm = subprocess.run([os.path.join(TOP, 'tools', 'npm')], capture_output=True, text=True)
    arch = {'x86_64': 'x64', 'aarch64': 'arm64'}.get(os.uname().machine, '?')
    packager = os.path.join(npm.stdout.strip().split('\n')[-1], 'shaka-packager', 'bin', 'packager-linux-' + arch)
    if npm.returncode or not os.path.isfile(packager):
        skip('live comparison', 'npm package shaka-packager is not available here')
    else:
        os.chmod(packager, 0o755)
        for scheme in ('cenc', 'cbcs'):
            live(dump, packager, scheme)
    print('1..%d' % sum(not r.startswith('#') for r in results))
    print('\n'.join(results))


main()
