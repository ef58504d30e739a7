// What listeners do, in Chromium and Firefox at the same time: node listen.mjs ORIGIN WIDE CLOSED ORDERS DEMO CLOSED_DEMO. One TAP case for each player and scenario,
// several at a time. DEMO, CLOSED_DEMO: the demo's page for ORIGIN and for CLOSED.
// WIDE: cenc_iv_size is 16, lossless tracks have a key of their own. CLOSED: keys are not handed out.
import { mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PROGRAM, openBrowser, servePages } from './browsers.mjs';
import { done, ok, skip } from './tap.mjs';

const [origin, wide, closed, orders, demo, closedDemo] = process.argv.slice(2);
const AT_ONCE = { chromium: 8, firefox: 2 };
const SONG_S = 48, LONG_S = 75 * SONG_S;

// A network between a player and `origin`, as slow as is said later: so many bytes a second, all connections together.
const networks = new Map();
async function network() {
  const state = { bytes: Infinity, piece: 65536, due: 0 };
  const server = net.createServer((client) => {
    const upstream = net.connect(new URL(origin).port, '127.0.0.1');
    client.pipe(upstream);
    upstream.on('data', (data) => {
      upstream.pause();
      // In small pieces: players judge a network by how a response comes in.
      const pieces = [];
      for (let i = 0; i < data.length; i += state.piece) pieces.push(data.subarray(i, i + state.piece));
      const next = () => {
        const piece = pieces.shift();
        if (!piece) {
          upstream.resume();
          return;
        }
        // A timer that comes late on a busy machine makes the next pieces come sooner: it is the network that is slow.
        state.due = Math.max(state.due, Date.now() - 500) + (1000 * piece.length) / state.bytes;
        setTimeout(() => { client.write(piece); next(); }, state.due - Date.now());
      };
      next();
    });
    upstream.on('end', () => client.end());
    for (const s of [client, upstream]) s.on('error', () => { client.destroy(); upstream.destroy(); });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  networks.set(String(server.address().port), { server, state });
  return `http://127.0.0.1:${server.address().port}`;
}

const NAME = { shaka: 'shaka-player', hls: 'hls.js', dash: 'dash.js' };
const SAID = { dash: 'DASH', hls: 'HLS', ondemand: 'DASH on demand', byterange: 'HLS byte ranges' };
function job(scenario, player, protocol, scheme, more = {}) {
  const name = `${more.said || scenario}: ${NAME[player]}, ${SAID[protocol]} ${scheme}`;
  return { name, scenario, player, protocol, scheme, asset: 'song', origin, ...more };
}
const WIDE = { origin: wide, said: '16-byte IVs' };
const LONG = { asset: 'long', length: LONG_S, period: SONG_S, far: 3000.4, said: 'an hour' };
const EACH = [['shaka', 'dash', 'cenc'], ['hls', 'hls', 'cenc'], ['dash', 'dash', 'cbcs']];

// The longest first: what is begun last is to be short.
const CHROMIUM = [
  ...EACH.map((e) => job('slow', ...e, { adapts: true, said: 'a slow network' })),
  ...EACH.map((e) => job('languages', ...e, { asset: 'tongues', said: 'another language' })),
  ...EACH.map((e) => job('revoked', ...e, { retries: 1, asset: `revoked-${e[0]}`, said: 'keys revoked' })),
  ...EACH.map((e) => job('rates', ...e, { said: 'another rate' })),
  job('album', 'shaka', 'dash', 'cbcs', { asset: 'short', voice: 'short', said: 'an album' }),
  ...EACH.map((e) => job('tour', ...e, { said: 'seeks and pauses' })),
  job('tour', 'shaka', 'hls', 'cbcs', { said: 'seeks and pauses' }),
  job('tour', 'shaka', 'ondemand', 'cbcs', LONG),
  job('tour', 'shaka', 'dash', 'cbcs', LONG),
  job('tour', 'hls', 'byterange', 'cenc', LONG),
  job('tour', 'dash', 'ondemand', 'cenc', LONG),
  ...[['tour', 'flac', 'cenc'], ['tour', 'opus', 'cbcs'], ['plays', 'flac', 'cbcs'], ['plays', 'opus', 'cenc']]
    .map(([scenario, codec, scheme]) => job(scenario, 'shaka', 'dash', scheme, { asset: 'codecs', codec, voice: codec, said: codec })),
  ...EACH.map((e) => job('tiers', ...e, { asset: 'codecs', origin: wide, codec: 'any', said: 'another key in mid-play' })),
  ...EACH.map((e) => job('rotated', ...e, { asset: `rotated-${e[0]}`, said: 'keys rotated' })),
  job('plays', 'shaka', 'dash', 'cenc', WIDE),
  job('plays', 'shaka', 'hls', 'cenc', WIDE),
  job('plays', 'hls', 'hls', 'cenc', WIDE),
  job('plays', 'dash', 'dash', 'cenc', WIDE),
  ...EACH.map((e) => job('refused', ...e, { origin: closed, said: 'no licence' })),
];
const FIREFOX = [
  job('plays', 'shaka', 'dash', 'cenc', WIDE),
  job('tour', 'shaka', 'dash', 'cenc', { said: 'seeks and pauses' }),
  job('tour', 'shaka', 'hls', 'cbcs', { said: 'seeks and pauses' }),
  job('tour', 'shaka', 'ondemand', 'cbcs', LONG),
  job('rotated', 'shaka', 'dash', 'cbcs', { asset: 'rotated-firefox', said: 'keys rotated' }),
  job('revoked', 'shaka', 'dash', 'cbcs', { asset: 'revoked-firefox', said: 'keys revoked' }),
  job('refused', 'shaka', 'dash', 'cenc', { origin: closed, said: 'no licence' }),
];
// All of them listen to the server that is restarted, once. shaka-player's two attempts, a second apart, are few for a busy machine.
const RESTART = { said: 'the server restarted', attempts: 6 };
const LAST = { chromium: EACH.map((e) => job('restarted', ...e, RESTART)), firefox: [job('restarted', 'shaka', 'dash', 'cenc', RESTART)] };

// The demo's page says in words what is wrong, and plays again when the song is chosen again.
async function demoPage(browser, forward) {
  const page = await browser.newPage();
  const shows = (pattern) => page.waitForFunction((p) => new RegExp(p).test(document.getElementById('problem').textContent), pattern, { timeout: 20000 })
    .then(() => true, () => false);
  const text = () => page.evaluate(() => document.getElementById('problem').textContent);
  const plays = () => page.waitForFunction(() => document.getElementById('media').currentTime > 0.3, null, { timeout: 20000 }).then(() => true, () => false);
  for (const protocol of ['dash', 'hls']) {
    await page.goto(closedDemo);
    if (protocol === 'hls') await page.click('input[value=hls] + span');
    ok(await shows('--insecure-clearkey'), `the demo's page, no licence, ${SAID[protocol]}: says what to do`, await text());
  }
  await page.goto(demo);
  ok(await plays(), 'the demo\'s page: plays', await text());
  await forward('rotate?asset=revoked-demo&revoke=1');
  await page.evaluate(() => { document.getElementById('media').currentTime = 44.3; });
  ok(await shows('410.*again'), 'the demo\'s page, keys revoked: says what to do', await text());
  let again = false;
  for (const end = Date.now() + 15000; !again && Date.now() < end;) {
    await page.click('#songs button');
    again = await page.waitForFunction(() => document.getElementById('media').currentTime > 0.3 && document.getElementById('problem').hidden, null, { timeout: 2000 })
      .then(() => true, () => false);
  }
  ok(again, 'the demo\'s page, keys revoked: plays when the song is chosen again', await text());
  await page.close();
}

async function main() {
  const forward = async (what) => (await fetch(`${orders}/${what}`, { method: 'POST' })).json();
  const only = process.env.SLUICE_BROWSER_ONLY;
  const chosen = (which, list) => list.filter((j) => !only || `${which}: ${j.name}`.includes(only));
  const here = Object.keys(PROGRAM).filter((which) => existsSync(PROGRAM[which]));
  for (const which of Object.keys(PROGRAM)) if (!here.includes(which)) skip(which, `${PROGRAM[which]} is not installed`);
  const last = Object.fromEntries(here.map((which) => [which, chosen(which, LAST[which])]));
  let listeners = Object.values(last).flat().length, waiting = [];
  const pages = await servePages({
    rotate: (query) => forward(`rotate?${query}`),
    rate: (query) => { Object.assign(networks.get(query.get('port')).state, { bytes: Number(query.get('bytes')), piece: 1400 }); },
    restart: () => new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length !== listeners) return;
      const all = waiting;
      waiting = [];
      forward('restart').then((answer) => all.forEach((r) => r(answer)));
    }),
  });
  const browsers = { chromium: [], firefox: [] }, profiles = [], failed = [];
  const run = async (which, one, at = 0) => {
    const from = one.scenario === 'slow' ? await network() : one.origin;
    const list = browsers[which], r = await list[Math.max(at, 0) % list.length].run(`${pages.url}/listen.html`, 'listen', { ...one, origin: from, deaf: which === 'firefox' });
    console.log(`# ${which}: ${one.name}: ${r.seconds} s${r.told ? `, ${JSON.stringify(r.told)}` : ''}`);
    if (r.error && at >= 0) failed.push([which, one, r]);
    else ok(!r.error, `${which}: ${one.name}`, r);
  };
  const all = async (which, todo) => {
    await Promise.all(Array.from({ length: AT_ONCE[which] }, async (_, at) => { while (todo.length) await run(which, todo.shift(), at); }));
  };
  const open = async (which) => {
    const profile = await mkdtemp(path.join(tmpdir(), 'sluice-browser-'));
    profiles.push(profile);
    browsers[which].push(await openBrowser(which, profile));
  };
  try {
    // One page after the other in a Firefox, of which there are two: its remote control stumbles over one that opens while another closes.
    await Promise.all(here.flatMap((which) => (which === 'firefox' ? [open(which), open(which)] : [open(which)])));
    for (const which of here) console.log(`# ${which} ${browsers[which][0].version}`);
    await Promise.all([
      browsers.chromium[0] && all('chromium', chosen('chromium', CHROMIUM)),
      browsers.chromium[0] && (!only || only === 'demo') && demoPage(browsers.chromium[0], forward),
      browsers.firefox[0] && all('firefox', chosen('firefox', FIREFOX)),
    ]);
    await Promise.all(Object.entries(last).flatMap(([which, list]) => list.map((one) => run(which, one))));
    // Ten players at once leave each other little of a processor, and they have races of their own: who has failed is to do it alone.
    // A fault of the server's fails again. What was seen the first time is printed.
    listeners = 1;
    for (const [which, one, r] of failed) {
      console.log(`# ${which}: ${one.name}: failed beside the others, now alone: ${JSON.stringify(r)}`);
      await run(which, one, -1);
    }
  } finally {
    await Promise.all(Object.values(browsers).flat().map((b) => b.close()));
    pages.close();
    for (const { server } of networks.values()) server.close();
    for (const profile of profiles) await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

await main();
done();
