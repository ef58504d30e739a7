// In the browser: plays one manifest with one player for a while and says what was heard.
'use strict';

const FILES = {
  shaka: '/npm/shaka-player/dist/shaka-player.compiled.js',
  hls: '/npm/hls.js/dist/hls.js',
  dash: '/npm/dashjs/dist/modern/umd/dash.all.min.js',
};
const media = document.getElementById('media');

function script(src) {
  return new Promise((resolve, reject) => {
    const s = document.createElement('script');
    s.onload = resolve;
    s.onerror = () => reject(new Error(`${src} does not load`));
    s.src = src;
    document.head.append(s);
  });
}

// Each starts a player and calls `fail` with the first fatal error's text.
const players = {
  async shaka(job, fail) {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    await player.attach(media);
    player.addEventListener('error', (e) => fail(`shaka ${e.detail.code} ${e.detail.message} ${e.detail.data}`));
    // A browser without a sound device still has all formats: only the choice among codecs is forced.
    player.configure({ preferredAudio: job.codecs ? [{ codec: job.codecs }] : [], streaming: { retryParameters: { maxAttempts: 1 } } });
    await player.load(job.url);
    if (job.bandwidth) {
      const near = (t) => Math.abs(t.bandwidth - job.bandwidth);
      player.configure({ abr: { enabled: false } });
      player.selectVariantTrack(player.getVariantTracks().sort((a, b) => near(a) - near(b))[0], true);
    }
    return () => {
      const active = player.getVariantTracks().find((t) => t.active);
      return { keySystem: player.keySystem(), codecs: active && active.audioCodec, bandwidth: active && active.bandwidth };
    };
  },

  async hls(job, fail) {
    const player = new Hls({
      emeEnabled: true,
      drmSystems: { 'org.w3.clearkey': { licenseUrl: job.license } },
    });
    player.on(Hls.Events.ERROR, (_, e) => e.fatal && fail(`hls.js ${e.type} ${e.details} ${e.error}`));
    player.loadSource(job.url);
    player.attachMedia(media);
    return () => ({ codecs: player.levels[player.currentLevel < 0 ? 0 : player.currentLevel].audioCodec });
  },

  async dash(job, fail) {
    const player = dashjs.MediaPlayer().create();
    player.updateSettings({ debug: { logLevel: dashjs.Debug.LOG_LEVEL_NONE } });
    player.on('error', (e) => fail(`dash.js ${e.error && e.error.code} ${e.error && e.error.message}`));
    player.initialize(media, job.url, false);
    return () => ({});
  },
};

// Spoils keys on their way to shaka-player: 'wrong' turns one bit of each, 'refuse' answers 403 in their place.
// Returns how often, so that a test can tell a refusal from a player that never asked.
function spoilKeys(how) {
  const fetched = window.fetch;
  let times = 0;
  const urlSafe = (text) => text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  const turned = (key) => {
    const bytes = Uint8Array.from(atob(key.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    bytes[0] ^= 1;
    return urlSafe(btoa(String.fromCharCode(...bytes)));
  };
  window.fetch = async (resource, options) => {
    const { pathname } = new URL(resource.url || resource);
    if (!/\/(license|key)$/.test(pathname)) return fetched(resource, options);
    times++;
    if (how === 'refuse') return new Response('', { status: 403 });
    const response = await fetched(resource, options);
    if (pathname.endsWith('/key')) {
      const bytes = new Uint8Array(await response.arrayBuffer());
      bytes[0] ^= 1;
      return new Response(bytes);
    }
    const answer = await response.json();
    for (const key of answer.keys) key.k = turned(key.k);
    return new Response(JSON.stringify(answer));
  };
  return () => times;
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// Root mean square of what the media element plays, over `seconds` of its own time.
function meter() {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  context.createMediaElementSource(media).connect(analyser);
  analyser.connect(context.destination);
  const samples = new Float32Array(analyser.fftSize);
  return {
    resume: () => context.resume(),
    rms() {
      analyser.getFloatTimeDomainData(samples);
      return Math.sqrt(samples.reduce((sum, v) => sum + v * v, 0) / samples.length);
    },
  };
}

// `job.meter`: measure the sound (Firefox allows no Web Audio on an element with MediaKeys).
// Plays job.url until `job.seconds` of it were played or `job.timeout` seconds are over.
// Returns {error, played, rms, spoilt, …}.
window.play = async (job) => {
  let error = '';
  const fail = (text) => { error = error || text; };
  const states = {};
  const report = { error: '', played: 0, rms: 0 };
  const spoilt = job.spoil ? spoilKeys(job.spoil) : () => 0;
  try {
    await script(FILES[job.player]);
    const heard = job.meter ? meter() : null;
    media.addEventListener('error', () => fail(`media element: ${media.error.code} ${media.error.message}`));
    media.addEventListener('encrypted', () => { states.encrypted = (states.encrypted || 0) + 1; });
    // Without a sound device Firefox plays nothing at all, unless nobody is to hear it.
    media.muted = !job.meter;
    const details = await players[job.player](job, fail);
    // Not awaited: it is fulfilled only when playback begins, which may be never.
    media.play().catch((e) => fail(`play: ${e.message}`));
    if (heard) heard.resume();
    let end = performance.now() + job.timeout * 1000;
    const start = job.seek || 0;
    let sum = 0, count = 0, sought = !job.seek;
    while (!error && media.currentTime < start + job.seconds && performance.now() < end) {
      if (!sought && media.readyState >= 3) {
        media.currentTime = job.seek;
        sought = true;
      }
      if (heard && sought && media.currentTime > start + 0.5) {
        sum += heard.rms();
        count++;
      }
      if (spoilt()) end = Math.min(end, performance.now() + job.spoilt * 1000);
      await sleep(50);
    }
    report.played = media.currentTime - start;
    report.rms = count ? sum / count : 0;
    Object.assign(report, error ? {} : details());
  } catch (e) {
    fail(`${e.code ? `shaka ${e.code} ` : ''}${e.message || e}`);
  }
  report.error = error;
  report.encrypted = states.encrypted || 0;
  report.spoilt = spoilt();
  report.state = media.readyState;
  media.pause();
  return report;
};

// What a browser says to licences that outlive the page, and what shaka-player's storage makes of it: with them, and without.
window.keep = async ({ url }) => {
  await script(FILES.shaka);
  const audioCapabilities = [{ contentType: 'audio/mp4; codecs="mp4a.40.2"' }];
  const config = { initDataTypes: ['keyids'], audioCapabilities, persistentState: 'required', sessionTypes: ['persistent-license'] };
  const report = { session: await navigator.requestMediaKeySystemAccess('org.w3.clearkey', [config]).then(() => 'granted', (e) => e.name) };
  for (const persistent of [true, false]) {
    const player = new shaka.Player();
    await player.attach(media);
    player.configure({ offline: { usePersistentLicense: persistent } });
    const storage = new shaka.offline.Storage(player), asked = [];
    player.getNetworkingEngine().registerRequestFilter((type, request) => {
      if (type === shaka.net.NetworkingEngine.RequestType.LICENSE) asked.push(JSON.parse(new TextDecoder().decode(request.body)).type);
    });
    try {
      const { offlineUri } = await storage.store(url).promise;
      await player.load(offlineUri);
      media.muted = true;
      await media.play();
      for (let i = 0; i < 100 && media.currentTime < 1; i++) await new Promise((resolve) => { setTimeout(resolve, 100); });
      report[persistent] = { played: media.currentTime, asked };
      await storage.remove(offlineUri);
    } catch (e) {
      report[persistent] = { error: e.code || String(e) };
    }
    await player.destroy();
  }
  return report;
};
