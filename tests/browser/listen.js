// In the browser: what listeners do with a player, and whether they hear what they should. listen.py has the media.
'use strict';

const MANIFESTS = { dash: 'manifest.mpd', hls: 'master.m3u8', ondemand: 'ondemand.mpd', byterange: 'byterange.m3u8' };
const VOICE = { low: 0, high: 1, flac: 2, opus: 3, en: 4, de: 5, short: 6, next: 7 };
const SONG_S = 48;
performance.setResourceTimingBufferSize(100000);

// The two tones of what is played now, as numbers: of the second and of the track. NaN where there is silence.
function ear() {
  const context = new AudioContext({ sampleRate: 48000 });
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  analyser.smoothingTimeConstant = 0;
  context.createMediaElementSource(media).connect(analyser);
  analyser.connect(context.destination);
  const bins = new Float32Array(analyser.frequencyBinCount);
  const loudest = (from, to) => {
    const hertz = context.sampleRate / analyser.fftSize;
    let best = Math.round(from / hertz);
    for (let i = best; i < to / hertz; i++) if (bins[i] > bins[best]) best = i;
    return bins[best] > -45 ? best * hertz : NaN;
  };
  return {
    resume: () => context.resume(),
    hear() {
      analyser.getFloatFrequencyData(bins);
      return { second: Math.round((loudest(560, 3400) - 600) / 40), voice: Math.round((loudest(4800, 8800) - 5000) / 500) };
    },
  };
}

// Each makes a player that loads a manifest, picks a rendition for good, and a language; `keys` are the KIDs that it has.
const kinds = {
  async shaka(job, fail) {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    await player.attach(media);
    player.addEventListener('error', (e) => fail(`shaka ${e.detail.code} ${e.detail.data}`));
    player.configure({
      preferredAudio: job.codec === 'any' ? [] : [{ codec: job.codec || 'mp4a.40.2' }],
      abr: { enabled: !!job.adapts, useNetworkInformation: false, defaultBandwidthEstimate: job.adapts ? 1e6 : 1 },
      streaming: { bufferingGoal: job.ahead, retryParameters: { maxAttempts: job.attempts || 2 } },
    });
    return {
      load: (url) => player.load(url),
      preload: (url) => player.preload(url),
      pick(wanted) {
        const rates = player.getVariantTracks().sort((a, b) => a.bandwidth - b.bandwidth);
        const at = { low: 0, high: rates.length - 1 }[wanted];
        if (at === undefined) player.selectAudioTrack(player.getAudioTracks().find((t) => t.codecs.toLowerCase() === wanted));
        else player.selectVariantTrack(rates[at], true, 1);
      },
      speak: (language) => player.selectAudioTrack(player.getAudioTracks().find((t) => t.language === language)),
      keys: () => Object.keys(player.getKeyStatuses()),
    };
  },

  async hls(job, fail) {
    let player = null, picked, waits = null, parsing = false;
    // Of a choice between a fragment's last byte and its place in the buffer hls.js (1.7.4) drops the fragment, and then loads none any more.
    const choose = (how) => {
      waits = parsing ? how : null;
      if (!parsing) how();
    };
    const choosePicked = () => choose(() => { player.nextLevel = picked; });
    return {
      async load(url) {
        player?.destroy();
        picked = undefined;
        waits = null;
        parsing = false;
        // The licence server is the application's to say: it asks the playlist which epoch this is.
        const epoch = (await (await fetch(url)).text()).match(/^(\d+)\//m)[1];
        player = new Hls({
          emeEnabled: true,
          drmSystems: { 'org.w3.clearkey': { licenseUrl: url.replace(/[^/]*$/, `${epoch}/license`) } },
          maxBufferLength: job.ahead,
          maxMaxBufferLength: job.ahead,
          // By itself it asks seven times for what is 410, in half a minute, before it gives up.
          fragLoadPolicy: {
            default: {
              ...Hls.DefaultConfig.fragLoadPolicy.default,
              errorRetry: { maxNumRetry: job.retries ?? 6, retryDelayMs: 1000, maxRetryDelayMs: 8000 },
            },
          },
        });
        player.on(Hls.Events.ERROR, (_, e) => {
          window.trace.push(`${e.details} ${e.fatal} ${e.response && e.response.code}`);
          if (e.fatal) fail(`hls.js ${e.type} ${e.details} ${e.error}`);
        });
        // From AAC to another codec and back it appends to a SourceBuffer of the other one (it compares with the codec that was
        // there first), makes a new MediaSource for the error, and may go on with any rendition: whoever wants one says so again.
        player.on(Hls.Events.MEDIA_ATTACHED, () => { parsing = false; if (picked !== undefined) choosePicked(); });
        player.on(Hls.Events.FRAG_LOADED, () => { parsing = true; });
        player.on(Hls.Events.FRAG_BUFFERED, () => { parsing = false; waits?.(); waits = null; });
        player.loadSource(url);
        player.attachMedia(media);
        await new Promise((resolve) => player.once(Hls.Events.MANIFEST_PARSED, resolve));
        if (!job.adapts) player.currentLevel = player.currentLevel < 0 ? 0 : player.currentLevel;
      },
      pick(wanted) {
        const levels = player.levels.map(({ bitrate, audioCodec }, i) => ({ i, bitrate, codec: audioCodec.toLowerCase() }));
        levels.sort((a, b) => a.bitrate - b.bitrate);
        const at = { low: 0, high: levels.length - 1 }[wanted];
        picked = (at === undefined ? levels.find((l) => l.codec === wanted) : levels[at]).i;
        choosePicked();
      },
      speak: (language) => choose(() => { player.audioTrack = player.audioTracks.findIndex((t) => t.lang === language); }),
      keys: () => [],
    };
  },

  async dash(job, fail) {
    const player = dashjs.MediaPlayer().create();
    player.updateSettings({
      debug: { logLevel: dashjs.Debug.LOG_LEVEL_NONE },
      streaming: {
        abr: { initialBitrate: { audio: job.adapts ? 1000 : 1 }, autoSwitchBitrate: { audio: !!job.adapts } },
        buffer: { bufferTimeDefault: job.ahead, bufferTimeAtTopQuality: job.ahead, bufferTimeAtTopQualityLongForm: job.ahead },
      },
    });
    player.on('error', (e) => fail(`dash.js ${e.error && e.error.code} ${e.error && e.error.message}`));
    player.initialize(media, null, false);
    return {
      load: async (url) => player.attachSource(url),
      pick(wanted) {
        if (wanted === 'low' || wanted === 'high') {
          const all = player.getRepresentationsByType('audio').sort((a, b) => a.bandwidth - b.bandwidth);
          player.setRepresentationForTypeById('audio', all[wanted === 'low' ? 0 : all.length - 1].id, true);
        } else {
          player.setCurrentTrack(player.getTracksFor('audio').find((t) => t.codec.toLowerCase().includes(wanted)));
        }
      },
      speak: (language) => player.setCurrentTrack(player.getTracksFor('audio').find((t) => t.lang === language)),
      keys: () => [],
    };
  },
};

class Listener {
  constructor(job) {
    this.job = { ahead: 8, voice: 'low', length: SONG_S, ...job };
    this.error = '';
    this.fail = (text) => { this.error = this.error || text; window.trace.push(text); };
    this.base = `${job.origin}/${job.asset}/${job.scheme}`;
    this.url = `${this.base}/${MANIFESTS[job.protocol]}`;
  }

  async start() {
    await script(FILES[this.job.player]);
    // Firefox allows no Web Audio on an element with MediaKeys, and plays nothing without a sound device unless nobody is to hear it.
    media.muted = this.job.deaf;
    this.ear = this.job.deaf ? { resume() {}, hear: () => 'deaf' } : ear();
    media.addEventListener('error', () => this.fail(`media element: ${media.error.code} ${media.error.message}`));
    media.addEventListener('waiting', () => window.trace.push(`waiting at ${media.currentTime}`));
    this.player = await kinds[this.job.player](this.job, this.fail);
    await this.load(this.url);
  }

  async load(url) {
    this.error = '';
    // Not awaited: hls.js and shaka-player may never answer where the manifest or the key cannot be had.
    this.player.load(url).then(() => this.play(), (e) => this.fail(`${e.code ? `shaka ${e.code} ${e.data}` : e.message}`));
    this.ear.resume();
  }

  // Loading anew interrupts what play() waits for.
  play() {
    media.play().catch((e) => e.name !== 'AbortError' && this.fail(`play: ${e.message}`));
  }

  state() {
    const ranges = Array.from({ length: media.buffered.length }, (_, i) => [media.buffered.start(i), media.buffered.end(i)]);
    return JSON.stringify({ at: media.currentTime, ready: media.readyState, paused: media.paused, ended: media.ended, heard: this.ear.hear(), ranges });
  }

  async until(what, condition, limit = 20) {
    window.trace.push(what);
    const end = performance.now() + limit * 1000;
    while (!condition()) {
      if (this.error) throw new Error(`${what}: ${this.error}`);
      if (performance.now() > end) throw new Error(`${what}: not in ${limit} s, ${this.state()}`);
      await sleep(25);
    }
  }

  check(good, what) {
    if (!good) throw new Error(`${what}: ${this.state()}`);
  }

  // What is heard lags behind the element's clock by a window of the ear, and the output's delay.
  matches(voice) {
    if (this.job.deaf) return !media.paused && !media.seeking && media.readyState >= 3;
    const { second, voice: heard } = this.ear.hear();
    const at = media.currentTime, period = this.job.period || 1e9, rate = media.playbackRate;
    const seconds = [0, 0.1, 0.2, 0.3, 0.4].map((lag) => Math.floor(Math.max(0, at - lag * rate) % period));
    return heard === VOICE[voice] && seconds.includes(second);
  }

  // The right tones come, and stay for a while.
  async hears(what, voice = this.job.voice, seconds = 0.5) {
    await this.until(`${what}: ${voice} is heard`, () => !media.paused && this.matches(voice));
    const from = media.currentTime;
    let all = 0, good = 0;
    await this.until(`${what}: goes on`, () => {
      all++;
      good += this.matches(voice);
      return media.currentTime >= from + seconds;
    });
    this.check(good > 0.8 * all, `${what}: ${good} of ${all} times the tones of ${voice}`);
  }

  ahead(at) {
    for (let i = 0; i < media.buffered.length; i++) if (media.buffered.start(i) <= at && at < media.buffered.end(i)) return true;
    return false;
  }

  async seek(at) {
    media.currentTime = at;
    await this.until(`sought ${at}`, () => !media.seeking && media.readyState >= 2);
  }

  async far(at, what, voice) {
    this.check(!this.ahead(at), `${what}: ${at} s is in the buffer already`);
    await this.seek(at);
    await this.hears(what, voice);
  }

  async ends(what) {
    await this.until(`${what}: ends`, () => media.ended);
    this.check(Math.abs(media.currentTime - media.duration) < 0.1, `${what}: ends at ${media.duration}`);
  }

  // Of this page's requests to the asset, the epochs of segments and whole files since `from`.
  epochs(from = 0) {
    const urls = performance.getEntriesByType('resource').slice(from).map((e) => e.name).filter((u) => u.startsWith(this.base) && /\.(m4s|mp4)$/.test(u));
    return [...new Set(urls.map((u) => u.slice(this.base.length + 1).split('/')[0]))].sort().join(' ');
  }

  licences() {
    return performance.getEntriesByType('resource').filter((e) => /\/(license|key)$/.test(e.name) && e.responseStatus === 200).length;
  }
}

async function order(path) {
  const response = await fetch(`/${path}`, { method: 'POST' });
  const answer = await response.json();
  if (answer.error) throw new Error(`${path}: ${answer.error}`);
  return answer;
}

const scenarios = {
  async plays(l) {
    await l.start();
    await l.hears('from the start');
    await l.far(30.2, 'further on');
  },

  async tour(l) {
    const { length, far = 30.4 } = l.job;
    await l.start();
    await l.hears('from the start');
    l.check(Math.abs(media.duration - length) < 0.1, `lasts ${media.duration}, not ${length}`);
    await l.far(far, 'forward');
    await l.seek(far - 20.1);
    await l.hears('back');
    media.pause();
    const at = media.currentTime;
    await sleep(250);
    l.check(Math.abs(media.currentTime - at) < 0.05, `paused at ${at}`);
    l.play();
    await l.hears('after a pause');
    media.playbackRate = 2;
    await l.hears('twice as fast', undefined, 1.2);
    media.playbackRate = 1;
    await l.far(length - 1.4, 'last segment');
    await l.ends('last segment');
    await l.seek(5.2);
    l.play();
    await l.hears('once more');
    media.currentTime = media.duration;
    await l.ends('the very end');
  },

  async rates(l) {
    await l.start();
    await l.until('plays', () => media.currentTime > 0.5);
    for (const voice of ['high', 'low', 'high']) {
      l.player.pick(voice);
      await l.hears(`to ${voice}`, voice);
    }
    await l.far(44.3, 'further on', 'high');
  },

  async languages(l) {
    await l.start();
    await l.until('plays', () => media.currentTime > 0.5);
    for (const [code, voice] of [['de', 'de'], ['en', 'en'], ['de', 'de']]) {
      l.player.speak(code);
      await l.hears(`to ${code}`, voice);
    }
    await l.far(26.3, 'further on', 'de');
  },

  async tiers(l) {
    await l.start();
    await l.hears('AAC', 'low');
    const before = l.licences();
    l.check(before > 0, 'no licence was asked for');
    l.player.pick('flac');
    await l.hears('FLAC', 'flac');
    // shaka-player has asked for all keys of the manifest at the start.
    l.check(l.licences() > (l.job.player === 'shaka' ? 1 : before), `${l.licences()} licences, ${before} before: is it another key?`);
    l.check(l.job.player !== 'shaka' || l.player.keys().length === 2, `keys ${l.player.keys()}`);
    // Behind all that may be in the buffer, and far from the end: a player goes on with what it has, 8 s, before the other key comes.
    await l.far(32.4, 'further on', 'flac');
    l.player.pick('mp4a.40.2');
    await l.hears('AAC again', 'low');
  },

  async rotated(l) {
    await l.start();
    await l.hears('before');
    const old = l.epochs();
    const keys = l.player.keys().join();
    const { epoch } = await order(`rotate?asset=${l.job.asset}`);
    await l.far(30.2, 'after a rotation');
    await l.far(SONG_S - 1.4, 'last segment');
    await l.ends('last segment');
    l.check(l.epochs() === old, `epochs ${l.epochs()}, first ${old}`);
    // Who comes later has no old manifest.
    await fetch(l.url, { cache: 'reload' });
    const requests = performance.getEntriesByType('resource').length;
    await l.load(l.url);
    await l.hears('from the new epoch');
    l.check(l.epochs(requests) === String(Number(old) + 1), `epochs ${l.epochs(requests)}, first ${old}, ${epoch}`);
    l.check(!keys || l.player.keys().join() !== keys, `the same key ${keys}`);
  },

  async revoked(l) {
    await l.start();
    await l.hears('before');
    const old = l.epochs();
    await order(`rotate?asset=${l.job.asset}&revoke=1`);
    l.check(!l.ahead(40.4), '40.4 s is in the buffer already');
    media.currentTime = 40.4;
    const end = performance.now() + 20000;
    while (!l.error && performance.now() < end) await sleep(25);
    l.check(l.error, 'no error after a revocation');
    l.check(!l.matches('low'), 'is heard after a revocation');
    window.trace.push(`told: ${l.error}`);
    const requests = performance.getEntriesByType('resource').length;
    // The browser may keep the old manifest for some seconds: until then there is another error.
    for (const again = performance.now() + 15000; ;) {
      await l.load(l.url);
      const problem = await l.hears('from the new epoch').then(() => null, (e) => e);
      if (!problem) break;
      if (performance.now() > again) throw problem;
      await sleep(500);
    }
    l.check(l.epochs(requests).includes(String(Number(old) + 1)), `epochs ${l.epochs(requests)}, first ${old}`);
  },

  // The next track of an album is there before the first one ends.
  async album(l) {
    await l.start();
    await l.hears('first track');
    const next = await l.player.preload(l.url.replace(l.job.asset, 'next'));
    await l.ends('first track');
    await l.load(next);
    await l.hears('next track', 'next');
    await l.ends('next track');
  },

  async restarted(l) {
    await l.start();
    await l.hears('before');
    const restart = order('restart');
    await l.far(40.4, 'while the server begins anew');
    const { status } = await restart;
    l.check(status === 0, `the server's exit status is ${status}`);
    await l.far(20.2, 'after that');
  },

  async slow(l) {
    await l.start();
    await l.hears('a fast network', 'high');
    await order(`rate?port=${new URL(l.job.origin).port}&bytes=25000`);
    let stalled = 0, longest = 0, last = performance.now(), at = media.currentTime;
    const end = last + 40000;
    while (!l.matches('low') && last < end && !l.error) {
      await sleep(25);
      const now = performance.now();
      stalled = media.currentTime > at ? 0 : stalled + now - last;
      longest = Math.max(longest, stalled);
      [last, at] = [now, media.currentTime];
    }
    window.trace.push(`longest stop ${Math.round(longest)} ms`);
    await l.hears('a slow network', 'low', 4);
    l.check(longest < 4000, `stopped for ${Math.round(longest)} ms`);
  },

  // No licence: an error that says so.
  async refused(l) {
    await l.start().catch((e) => l.fail(e.message));
    const end = performance.now() + 20000;
    while (!l.error && performance.now() < end) await sleep(25);
    l.check(l.error, 'no error');
    l.check(media.currentTime === 0, 'plays');
  },
};

window.listen = async (job) => {
  window.trace = [];
  const listener = new Listener(job);
  const begun = performance.now();
  let error = '';
  try {
    await scenarios[job.scenario](listener);
  } catch (e) {
    error = `${e.message || e} [${e.stack?.split('\n')[1]?.trim()}]`;
  }
  media.pause();
  return { error, seconds: Math.round((performance.now() - begun) / 100) / 10, told: listener.error, trace: window.trace };
};
