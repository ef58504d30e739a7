// PlayReady objects and pssh boxes read by shaka-player's own reader (its sources in the npm package, run without a
// browser), for both header versions. Argument: the dump program. TAP.
import { createCipheriv } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';

const KID = '31323334353637383930313233343536';
const KEY = '32333435363738393021323334353637';
const IV = '3334353637383930'.repeat(2);
const LA_URL = 'https://pr.example/rights?a=1&b=2';
const SYSTEM = '9a04f07998404286ab92e65be0885f95';
const top = path.join(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..', '..');
const npm = spawnSync(path.join(top, 'tools', 'npm'), { encoding: 'utf8' });
const player = path.join((npm.stdout ?? '').trim().split('\n').pop(), 'shaka-player', 'lib');
if (npm.status !== 0 || !fs.existsSync(player)) {
  console.log('1..0 # SKIP npm package shaka-player is not available here');
  process.exit(0);
}

// Closure's modules: a name is provided by one file, which requires others.
const world = vm.createContext({ console, TextDecoder, TextEncoder, atob, btoa });
vm.runInContext('var window = globalThis, self = globalThis;', world);
const files = new Map();
for (const name of fs.readdirSync(player, { recursive: true }).filter((n) => n.endsWith('.js'))) {
  const text = fs.readFileSync(path.join(player, name), 'utf8');
  for (const m of text.matchAll(/^goog\.provide\('([^']+)'\)/gm)) files.set(m[1], { name, text });
}
world.goog = {
  DEBUG: false,
  provide: (name) => name.split('.').reduce((at, part) => (at[part] ??= {}), world),
  require: (name) => {
    const file = files.get(name);
    if (!file || file.run) return;
    file.run = true;
    vm.runInContext(file.text, world, { filename: file.name });
  },
  define: (name, value) => value,
  requireType() {},
  forwardDeclare() {},
};
world.goog.require('shaka.drm.PlayReady');
const { PlayReady } = world.shaka.drm;
const { Pssh, TXml } = world.shaka.util;

let count = 0;
let failed = 0;
const equal = (got, want, name) => {
  const ok = JSON.stringify(got) === JSON.stringify(want);
  failed += !ok;
  console.log(`${ok ? 'ok' : 'not ok'} ${++count} - ${name}`);
  if (!ok) console.log(`# got  ${JSON.stringify(got)}\n# want ${JSON.stringify(want)}`);
};

// A GUID's first three fields are little-endian.
const guid = (hex) => {
  const b = Buffer.from(hex, 'hex');
  return Buffer.concat([b.subarray(0, 4).reverse(), b.subarray(4, 6).reverse(), b.subarray(6, 8).reverse(), b.subarray(8)]);
};
const cipher = createCipheriv('aes-128-ecb', Buffer.from(KEY, 'hex'), null);
const checksum = cipher.update(guid(KID)).subarray(0, 8).toString('base64');

for (const [scheme, version, algorithm] of [['cenc', '4.0.0.0', 'AESCTR'], ['cbcs', '4.3.0.0', 'AESCBC']]) {
  const r = spawnSync(process.argv[2], [scheme, KID, KEY, IV, 'playready', LA_URL, '-'], { encoding: 'utf8' });
  const box = new Uint8Array(Buffer.from(r.stdout.match(/^pssh (.*)$/m)[1], 'base64'));
  const pssh = new Pssh(box);
  equal([pssh.systemIds.join(), pssh.data.length], [SYSTEM, 1], `${scheme}: one pssh box, of PlayReady`);
  equal(PlayReady.getLicenseUrlFromPssh(box), LA_URL, `${scheme}: licence URL from the box`);
  const pro = r.stdout.match(/<mspr:pro>([^<]*)<\/mspr:pro>/)[1];
  equal(PlayReady.getLicenseUrl({ children: [pro] }), LA_URL, `${scheme}: licence URL from the descriptor`);
  const header = PlayReady.getPlayReadyHeaderObject_(new Uint8Array(Buffer.from(pro, 'base64')));
  const one = (name) => TXml.getElementsByTagName(header, name)[0];
  const kid = one('KID');
  const text = (name) => (one(name) ? TXml.getTextContents(one(name)) : null);
  equal([header.attributes.version, kid.attributes.ALGID ?? text('ALGID')], [version, algorithm], `${scheme}: header version and algorithm`);
  equal(Buffer.from(kid.attributes.VALUE ?? text('KID'), 'base64').toString('hex'), guid(KID).toString('hex'), `${scheme}: KID, in GUID order`);
  equal(text('CHECKSUM') ?? kid.attributes.CHECKSUM ?? null, scheme === 'cenc' ? checksum : null, `${scheme}: CHECKSUM, of a key for AESCTR only`);
}
console.log(`1..${count}`);
process.exit(failed ? 1 : 0);
