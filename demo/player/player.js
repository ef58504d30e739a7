// The demo's player page: shaka-player on what sluice serves, and what goes over the wire beside it.
'use strict';

const $ = (id) => document.getElementById(id);
const media = $('media');
const MANIFEST = { dash: 'manifest.mpd', hls: 'master.m3u8' };
const SHAPE = { play: 'M7 4.5v15l13-7.5z', pause: 'M6 5h4v14H6zM14 5h4v14h-4z' };
const LOG_ROWS = 200;

let config = null; // {origin, catalogue}, from config.json
let song = null;
let player = null;
let total = { count: 0, bytes: 0 };

const clock = (s) => (Number.isFinite(s) ? `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}` : '0:00');
const size = (n) => (n < 1000 ? `${n} B` : n < 1e6 ? `${(n / 1000).toFixed(1)} kB` : `${(n / 1e6).toFixed(2)} MB`);
const many = (n, one) => `${n} ${one}${n === 1 ? '' : 's'}`;
const element = (name, content, properties = {}) => {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...[content].flat());
  return e;
};

// --- requests ----------------------------------------------------------------------------------------

function kindOf(path) {
  if (/\.(mpd|m3u8)$/.test(path)) return 'manifest';
  if (/init\.mp4$/.test(path)) return 'init';
  if (/\/(license|key)$/.test(path)) return 'key';
  return 'segment';
}

// What a page may not know of another origin's resources: their sizes. requests.js counts them.
const { sizes, givenUp } = window.requests;

// Every request of this page is a line, also those that failed; the browser itself measures the time.
function logRequest(entry) {
  const url = new URL(entry.name);
  if (url.origin !== config.origin) return;
  const kind = kindOf(url.pathname);
  const bytes = sizes.get(url.href) || 0;
  const status = entry.responseStatus || 0;
  const failed = !status && !givenUp.delete(url.href);
  total = { count: total.count + 1, bytes: total.bytes + bytes };
  const bar = element('i', '');
  bar.style.width = `${Math.min(100, entry.duration * 2)}%`;
  const row = element('tr', [
    element('td', kind), element('td', element('bdi', url.pathname), { title: url.href }),
    element('td', status ? String(status) : failed ? 'failed' : '–', { className: 'n' }),
    element('td', bytes ? size(bytes) : '–', { className: 'n' }),
    element('td', `${entry.duration.toFixed(1)} ms`, { className: 'n' }), element('td', bar),
  ], { className: failed || status >= 400 ? 'bad' : kind === 'key' ? 'key' : '' });
  $('log').prepend(row);
  while ($('log').rows.length > LOG_ROWS) $('log').lastElementChild.remove();
  $('totals').textContent = `${many(total.count, 'request')}, ${size(total.bytes)}`;
}

// --- playing -----------------------------------------------------------------------------------------

function problem(text) {
  $('problem').textContent = text;
  $('problem').hidden = !text;
}

// shaka-player names its errors in capitals; of those with a URL and a status the status is said too.
function explain(e) {
  if (!e.code) return e.message;
  const { Code } = shaka.util.Error;
  if (e.code === Code.LICENSE_REQUEST_FAILED && e.data[0]?.data?.[1] === 410) return explain(e.data[0]);
  const noKey = 'the key is not handed out: does sluice run with --insecure-clearkey?';
  const said = {
    [Code.BAD_HTTP_STATUS]: `${e.data[0]} was answered with ${e.data[1]}${e.data[1] === 410 ? ': its keys were rotated away, choose the song again' : ''}`,
    [Code.HTTP_ERROR]: `no answer from ${config.origin}. Is sluice still running?`,
    [Code.TIMEOUT]: `no answer from ${config.origin} in time`,
    [Code.LICENSE_REQUEST_FAILED]: noKey,
    [Code.NO_LICENSE_SERVER_GIVEN]: noKey, // an MPD without one
    [Code.HLS_KEYFORMATS_NOT_SUPPORTED]: noKey, // a playlist without an identity key
    [Code.REQUESTED_KEY_SYSTEM_CONFIG_UNAVAILABLE]: 'this browser has no ClearKey for this codec',
    [Code.CONTENT_UNSUPPORTED_BY_BROWSER]: 'this browser cannot play this codec',
  }[e.code];
  const name = Object.keys(Code).find((k) => Code[k] === e.code) || 'unknown';
  return `${said || name.toLowerCase().replaceAll('_', ' ')} (shaka-player error ${e.code})`;
}

function chosen(name) {
  return new FormData($('choice')).get(name);
}

function manifestUrl() {
  return `${config.origin}/${song.asset}/${chosen('scheme')}/${MANIFEST[chosen('protocol')]}`;
}

// The choice among codecs is made when a manifest is loaded, the one among rates at any time.
function codecsOf(track) {
  if (track === 'flac') return ['flac', 'fLaC'];
  return track.startsWith('opus') ? ['opus', 'Opus'] : ['mp4a.40.2'];
}

function pickRate(track) {
  const rate = Number((track.match(/\d+$/) || [0])[0]) * 1000;
  player.configure({ abr: { enabled: track === 'auto' } });
  if (!rate) return;
  const best = player.getVariantTracks().sort((a, b) => Math.abs(a.bandwidth - rate) - Math.abs(b.bandwidth - rate))[0];
  if (best) player.selectVariantTrack(best, true);
}

function showRenditions() {
  const box = $('renditions');
  box.querySelectorAll('label').forEach((l) => l.remove());
  ['auto', ...song.tracks].forEach((track, i) => {
    const text = track.replace('-', ' ').replace('aac', 'AAC').replace('flac', 'FLAC').replace('opus', 'Opus');
    const input = element('input', [], { type: 'radio', name: 'track', value: track, checked: i === 0 });
    box.append(element('label', [input, element('span', text)]));
  });
}

async function load(keepPlace) {
  const place = keepPlace ? media.currentTime : 0;
  const paused = keepPlace && media.paused;
  const url = manifestUrl();
  $('manifest').textContent = url;
  $('manifest').href = url;
  $('manifest-label').textContent = chosen('protocol') === 'dash' ? 'MPD' : 'Playlist';
  problem('');
  try {
    const track = chosen('track');
    player.configure({ preferredAudio: codecsOf(track).map((codec) => ({ codec })) });
    await player.load(url, place);
    pickRate(track);
    document.querySelectorAll('#toggle, #seek').forEach((e) => { e.disabled = false; });
    if (!paused) await media.play();
  } catch (e) {
    if (e.code === shaka.util.Error.Code.LOAD_INTERRUPTED || e.name === 'AbortError') return;
    // Without a gesture a browser may refuse to begin by itself; the button is there.
    if (e.name !== 'NotAllowedError') problem(`This does not play: ${explain(e)}`);
  }
}

function choose(next) {
  song = next;
  $('now').textContent = song.title;
  $('mood').textContent = `${song.mood} · ${song.asset}`;
  document.querySelectorAll('#songs button').forEach((b) => b.setAttribute('aria-current', String(b.dataset.asset === song.asset)));
  showRenditions();
  load(false);
}

// --- what is shown while it plays ----------------------------------------------------------------------

function kids() {
  const known = Object.keys(player.getKeyStatuses());
  return known.length ? known : ['–'];
}

function refresh() {
  const length = media.duration || 0;
  $('elapsed').textContent = clock(media.currentTime);
  $('duration').textContent = clock(length);
  $('seek').max = length || 1;
  if (document.activeElement !== $('seek') || !$('seek').matches(':active')) $('seek').value = media.currentTime;
  $('seek').setAttribute('aria-valuetext', `${clock(media.currentTime)} of ${clock(length)}`);
  $('played').style.width = length ? `${(100 * media.currentTime) / length}%` : '0';
  let ahead = 0;
  const ranges = [];
  for (let i = 0; i < media.buffered.length && length; i++) {
    const [from, to] = [media.buffered.start(i), media.buffered.end(i)];
    if (from <= media.currentTime + 0.1 && to > media.currentTime) ahead = to - media.currentTime;
    const part = element('i', '');
    part.style.left = `${(100 * from) / length}%`;
    part.style.width = `${(100 * (to - from)) / length}%`;
    ranges.push(part);
  }
  $('buffered').replaceChildren(...ranges);
  $('ahead').textContent = `${ahead.toFixed(1)} s`;
  const active = player.getVariantTracks().find((t) => t.active);
  if (active) $('playing').textContent = `${active.audioCodec}, ${Math.round(active.bandwidth / 1000)} kb/s`;
  $('key-system').textContent = player.keySystem() || 'none';
  $('kid').textContent = kids().join(' ');
}

let analyser = null;

// Made on the first sign of playing: browsers start no sound clock before a gesture.
function meter() {
  if (analyser) return;
  try {
    const context = new AudioContext();
    analyser = context.createAnalyser();
    analyser.fftSize = 8192;
    analyser.minDecibels = -85;
    analyser.maxDecibels = -18;
    context.createMediaElementSource(media).connect(analyser);
    analyser.connect(context.destination);
    context.resume();
  } catch {
    analyser = null;
  }
}

function draw() {
  requestAnimationFrame(draw);
  if (!analyser) return;
  const canvas = $('scope');
  const c = canvas.getContext('2d');
  const bins = new Uint8Array(analyser.frequencyBinCount);
  analyser.getByteFrequencyData(bins);
  c.clearRect(0, 0, canvas.width, canvas.height);
  c.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--water');
  const bars = 96;
  for (let i = 0; i < bars; i++) {
    // Even steps of pitch, not of frequency.
    const bin = Math.floor(7 * 2 ** ((i / bars) * 8.4));
    const level = (bins[Math.min(bin, bins.length - 1)] / 255) ** 2;
    const width = canvas.width / bars;
    c.globalAlpha = 0.08 + 0.25 * level;
    c.fillRect(i * width + 1, canvas.height - level * canvas.height * 0.9, width - 3, canvas.height);
  }
}

function toggle() {
  if (media.paused) media.play().catch((e) => problem(e.message));
  else media.pause();
}

function wire() {
  $('toggle').addEventListener('click', toggle);
  $('seek').addEventListener('input', () => { media.currentTime = Number($('seek').value); });
  $('volume').addEventListener('input', () => { media.volume = Number($('volume').value); });
  $('choice').addEventListener('change', () => load(true));
  media.volume = Number($('volume').value);
  for (const event of ['play', 'pause', 'ended']) {
    media.addEventListener(event, () => {
      document.body.classList.toggle('playing', !media.paused);
      $('toggle-shape').setAttribute('d', media.paused ? SHAPE.play : SHAPE.pause);
      $('toggle').setAttribute('aria-label', media.paused ? 'Play' : 'Pause');
    });
  }
  // Firefox attaches no keys to an element that Web Audio has captured, so the picture is for others.
  if (!navigator.userAgent.includes('Firefox')) media.addEventListener('playing', meter);
  media.addEventListener('ended', () => {
    const at = config.catalogue.findIndex((s) => s.asset === song.asset);
    choose(config.catalogue[(at + 1) % config.catalogue.length]);
  });
  document.addEventListener('keydown', (e) => {
    if (e.key === ' ' && e.target === document.body) {
      e.preventDefault();
      toggle();
    }
  });
}

async function start() {
  const answer = await fetch('config.json').catch(() => null);
  if (!answer?.ok) throw new Error('The page\'s server does not answer: tools/demo starts it.');
  config = await answer.json();
  $('origin').textContent = config.origin;
  if (!window.shaka) throw new Error('shaka-player is not there: tools/npm demo installs it.');
  shaka.polyfill.installAll();
  if (!shaka.Player.isBrowserSupported()) {
    problem('This browser lacks Media Source or Encrypted Media Extensions; the page must come from localhost or over HTTPS.');
    return;
  }
  player = new shaka.Player();
  await player.attach(media);
  player.configure({ streaming: { bufferingGoal: 20 } });
  player.addEventListener('error', (e) => problem(explain(e.detail)));
  performance.setResourceTimingBufferSize(10000);
  new PerformanceObserver((list) => list.getEntries().forEach(logRequest)).observe({ type: 'resource', buffered: true });
  $('songs').append(...config.catalogue.map((s) => {
    const bars = element('span', [element('i', ''), element('i', ''), element('i', '')], { className: 'bars' });
    const button = element('button', [element('b', s.title), element('small', `${s.mood} · ${many(s.tracks.length, 'rendition')}`), bars], { type: 'button' });
    button.dataset.asset = s.asset;
    button.addEventListener('click', () => choose(s));
    return element('li', button);
  }));
  wire();
  setInterval(() => song && refresh(), 250);
  draw();
  if (!config.catalogue.length) throw new Error('The catalogue is empty: demo/make-catalogue makes one.');
  choose(config.catalogue[0]);
}

start().catch((e) => problem(e.message));
