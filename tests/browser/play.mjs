// Plays what a running sluice serves, in real browsers: node play.mjs ORIGIN NO_IDENTITY KEY_SERVER ASSET OPUS_ASSET chromium|firefox
// NO_IDENTITY: another origin, whose HLS playlists name no identity key. KEY_SERVER: one whose keys come from a key server, with
// every system signalled side by side.
// One TAP case per manifest.
import { mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PROGRAM, openBrowser, servePages } from './browsers.mjs';
import * as tap from './tap.mjs';

const [origin, noIdentity, keyServer, asset, opusAsset, which] = process.argv.slice(2);
// Long enough for several segments, short enough for a machine that does other things too.
const PLAY_S = 3.5, TIMEOUT_S = 90;
// A spoilt key is waited for as long, and what a player makes of it for so long from then on.
const BAD_S = { timeout: TIMEOUT_S, spoilt: 8 };
// The song's level is near -14 dB full scale; a twentieth of that is music, digital silence is 0.
const QUIET = 0.01;

const ok = (good, name, note) => tap.ok(good, `${which}: ${name}`, note);

const MANIFEST = { dash: 'manifest.mpd', hls: 'master.m3u8', ondemand: 'ondemand.mpd', byterange: 'byterange.m3u8' };

function job(player, protocol, scheme, more = {}) {
  const base = `${more.origin || origin}/${more.asset || asset}/${scheme}`;
  return { meter: which === 'chromium', player, url: `${base}/${MANIFEST[protocol]}`, license: `${base}/1/license`, seconds: PLAY_S, timeout: TIMEOUT_S, ...more };
}

const CHROMIUM = [
  ['shaka-player DASH cenc', job('shaka', 'dash', 'cenc')],
  ['shaka-player DASH cbcs', job('shaka', 'dash', 'cbcs')],
  ['shaka-player HLS cbcs', job('shaka', 'hls', 'cbcs')],
  ['shaka-player HLS cenc', job('shaka', 'hls', 'cenc')],
  ['shaka-player DASH on demand cenc', job('shaka', 'ondemand', 'cenc')],
  ['shaka-player HLS byte ranges cbcs', job('shaka', 'byterange', 'cbcs')],
  ['shaka-player DASH cbcs, FLAC', job('shaka', 'dash', 'cbcs', { codecs: 'flac' })],
  ['shaka-player DASH cenc, Opus', job('shaka', 'dash', 'cenc', { codecs: 'opus', asset: opusAsset })],
  ['shaka-player DASH cbcs, 320 kb/s', job('shaka', 'dash', 'cbcs', { codecs: 'mp4a.40.2', bandwidth: 330000 })],
  ['shaka-player DASH cenc, sought', job('shaka', 'dash', 'cenc', { seek: 11.3 })],
  ['hls.js HLS cbcs', job('hls', 'hls', 'cbcs', { origin: noIdentity })],
  ['hls.js HLS cenc', job('hls', 'hls', 'cenc')],
  ['dash.js DASH cenc', job('dash', 'dash', 'cenc')],
  ['dash.js DASH cbcs', job('dash', 'dash', 'cbcs')],
  ['a key server\'s key and all systems, DASH cenc', job('shaka', 'dash', 'cenc', { origin: keyServer })],
  ['a key server\'s key and all systems, DASH cbcs', job('shaka', 'dash', 'cbcs', { origin: keyServer })],
  ['a key server\'s key and all systems, HLS cbcs', job('shaka', 'hls', 'cbcs', { origin: keyServer })],
];
const BAD = [
  ['wrong key, DASH cenc', job('shaka', 'dash', 'cenc', { spoil: 'wrong', ...BAD_S })],
  ['wrong key, DASH cbcs', job('shaka', 'dash', 'cbcs', { spoil: 'wrong', ...BAD_S })],
  ['wrong key, HLS cbcs', job('shaka', 'hls', 'cbcs', { spoil: 'wrong', ...BAD_S })],
  ['wrong key, HLS cenc', job('shaka', 'hls', 'cenc', { spoil: 'wrong', ...BAD_S })],
  ['no key, DASH cenc', job('shaka', 'dash', 'cenc', { spoil: 'refuse', ...BAD_S })],
];
const FIREFOX = [
  ['shaka-player DASH cenc', job('shaka', 'dash', 'cenc')],
  ['shaka-player DASH cbcs', job('shaka', 'dash', 'cbcs')],
  ['shaka-player HLS cbcs', job('shaka', 'hls', 'cbcs')],
  ['shaka-player HLS cenc', job('shaka', 'hls', 'cenc')],
];

async function plays(browser, page, name, what) {
  const r = await browser.run(`${page.url}/page.html`, 'play', what);
  console.log(`# ${name}: ${JSON.stringify(r)}`);
  ok(!r.error && r.played >= what.seconds, `${name}: plays`, r);
  if (what.meter) ok(r.rms > QUIET, `${name}: is heard`, r);
  if (what.codecs) ok(r.codecs === what.codecs, `${name}: that codec`, r);
}

async function refuses(browser, page, name, what) {
  const r = await browser.run(`${page.url}/page.html`, 'play', what);
  console.log(`# ${name}: ${JSON.stringify(r)}`);
  ok(r.spoilt && (r.error || r.played < 1), `${name}: does not play`, r);
  if (what.meter) ok(r.rms < QUIET, `${name}: nothing is heard`, r);
}

// What docs/drm/clearkey.md says of licences that are kept. 6001: REQUESTED_KEY_SYSTEM_CONFIG_UNAVAILABLE.
async function keeps(browser, page, name) {
  const r = await browser.run(`${page.url}/page.html`, 'keep', job('shaka', 'dash', 'cenc'));
  console.log(`# ${name}: ${JSON.stringify(r)}`);
  ok(r.session === 'NotSupportedError', `${name}: the browser has no persistent-license session`, r);
  ok(r.true.error === 6001, `${name}: shaka-player stores nothing with a persistent licence`, r);
  ok(r.false.played >= 1 && r.false.asked.join() === 'temporary', `${name}: it stores and plays without one, and asks for a licence`, r);
}

async function main() {
  if (!existsSync(PROGRAM[which])) {
    tap.skip(`${which}: everything`, `${PROGRAM[which]} is not installed`);
    return;
  }
  const profile = await mkdtemp(path.join(tmpdir(), 'sluice-browser-'));
  const page = await servePages();
  let browser;
  try {
    browser = await openBrowser(which, profile);
    console.log(`# ${browser.version}`);
    const only = process.env.SLUICE_BROWSER_ONLY;
    const chosen = (list) => list.filter(([name]) => !only || name.includes(only));
    for (const [name, what] of chosen(which === 'chromium' ? CHROMIUM : FIREFOX)) await plays(browser, page, name, what);
    for (const [name, what] of chosen(BAD)) await refuses(browser, page, name, what);
    for (const [name] of chosen([['kept licences']])) await keeps(browser, page, name);
  } finally {
    await browser?.close();
    page.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

await main();
tap.done();
