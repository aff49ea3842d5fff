/**
 * Plays LL-HLS or HTTP-FLV with a player that is not ours, in headless Chromium, and prints one
 * JSON object of what was on screen. The number burnt into the picture is the time of day at which
 * it was made, in milliseconds modulo 65536, so that the true delay can be read off it.
 *
 * Usage: node foreign_player.mjs '{"url", "player", "watch_ms", "changes", "pictures"}'
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { launch } from './browser.mjs';

const WAIT_MS_MAX = 30_000;
/** Buffers fill, and a player catches up with the edge. */
const STARTING_MS = 5_000;
const task = JSON.parse(process.argv[2]);
const require = createRequire(import.meta.url);
const folder = (name) => dirname(require.resolve(`${name}/package.json`));

/** Each: its script, and how it is started in the page. */
const PLAYERS = {
  'hls.js': {
    script: () => join(folder('hls.js'), 'dist/hls.js'),
    start: async (video, url) => {
      // As docs/OPERATIONS.md says: one that began late, on a busy machine, comes back to the edge.
      const hls = new Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05, liveSyncOnStallIncrease: 0 });
      globalThis.isAtEdge = () => hls.latency > 0 && hls.latency - hls.targetLatency < 0.1;
      hls.on(Hls.Events.ERROR, (_, { fatal, details }) => {
        seen.errors.push(`${fatal ? 'fatal ' : ''}${details}`);
      });
      hls.on(Hls.Events.LEVEL_SWITCHED, () => seen.heights.push(hls.levels[hls.currentLevel].height));
      globalThis.choose = (height) => {
        hls.nextLevel = hls.levels.findIndex((level) => level.height === height);
      };
      hls.loadSource(url);
      hls.attachMedia(video);
    },
  },
  shaka: {
    script: () => join(folder('shaka-player'), 'dist/shaka-player.compiled.js'),
    start: async (video, url) => {
      shaka.polyfill.installAll();
      const player = new shaka.Player();
      await player.attach(video);
      // Both as docs/OPERATIONS.md says: all renditions have one timeline already.
      const hls = { ignoreManifestTimestampsInSegmentsMode: true, disableClosedCaptionsDetection: true };
      player.configure({ streaming: { lowLatencyMode: true }, manifest: { hls } });
      player.addEventListener('error', ({ detail }) => seen.errors.push(`fatal ${detail.code}`));
      const say = ({ code, data, message }) => new Error(`Shaka says ${code} ${message}: ${data}`);
      await player.load(url).catch((error) => Promise.reject(say(error)));
    },
  },
  'video.js': {
    script: () => join(folder('video.js'), 'dist/video.min.js'),
    start: async (video, url) => {
      const player = videojs(video, { html5: { vhs: { overrideNative: true, llhls: true } } });
      player.on('error', () => seen.errors.push(`fatal ${player.error().message}`));
      player.src({ src: url, type: 'application/x-mpegURL' });
    },
  },
  'mpegts.js': {
    script: () => join(folder('mpegts.js'), 'dist/mpegts.js'),
    start: async (video, url) => {
      // As docs/OPERATIONS.md says: it plays a little faster until it is at the edge.
      const settings = { enableStashBuffer: false, liveSync: true };
      Object.assign(settings, { liveSyncMaxLatency: 0.8, liveSyncTargetLatency: 0.4 });
      const player = mpegts.createPlayer({ type: 'flv', isLive: true, url }, settings);
      globalThis.isAtEdge = () => video.playbackRate === 1;
      player.on(mpegts.Events.ERROR, (kind, detail) => seen.errors.push(`fatal ${kind} ${detail}`));
      player.attachMediaElement(video);
      player.load();
      await player.play();
    },
  },
};

/** In the page: what is on screen, picture by picture. */
function look() {
  const DAY_PART_MS = 65_536;
  globalThis.isAtEdge = () => true;
  const video = document.querySelector('video');
  globalThis.seen = { errors: [], heights: [] };
  const begin = () => {
    Object.assign(seen, { delays: [], gaps: [], stalls: 0, unreadable: 0, backwards: 0 });
    seen.first = seen.last = seen.media = undefined;
  };
  begin();
  globalThis.begin = begin;
  const next = (now, { mediaTime }) => {
    if (seen.last !== undefined) {
      const gap = now - seen.last;
      seen.gaps.push(gap);
      if (gap > 500) seen.stalls += 1;
      if (mediaTime < seen.media) seen.backwards += 1;
    }
    seen.first ??= now;
    seen.last = now;
    seen.media = mediaTime;
    const made = probe.readCounter(video);
    if (made === undefined) {
      seen.unreadable += 1;
    } else {
      const delay = performance.timeOrigin + now - made;
      seen.delays.push(((delay % DAY_PART_MS) + DAY_PART_MS) % DAY_PART_MS);
    }
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
}

/** The middle and the largest of many. */
function summary(values) {
  const sorted = values.toSorted((one, other) => one - other);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? null;
  return { p50: at(0.5), p95: at(0.95), max: sorted.at(-1) ?? null };
}

async function hear(page) {
  await page.evaluate(async () => {
    const video = document.querySelector('video');
    video.muted = false;
    globalThis.ear = await probe.listen({ video, unmute: async () => {} });
  });
  const isLoud = () => ear.read().db > -60;
  await page.waitForFunction(isLoud, undefined, { timeout: WAIT_MS_MAX, polling: 100 });
  return page.evaluate(() => ear.read());
}

async function watch(page, ms) {
  await page.evaluate(() => begin());
  const isOver = (ms) => seen.first !== undefined && seen.last - seen.first >= ms;
  await page.waitForFunction(isOver, ms, { timeout: ms + WAIT_MS_MAX });
  const { delays, gaps, ...rest } = await page.evaluate(() => ({ ...seen }));
  return { ...rest, frames: gaps.length, delay_ms: summary(delays), gap_ms: summary(gaps) };
}

async function run() {
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 800, height: 500 } });
    const trouble = [];
    page.on('pageerror', (error) => trouble.push(String(error)));
    await page.setContent('<video class="video-js" width="640" height="360" autoplay muted></video>');
    await page.addScriptTag({ path: new URL('./probe.js', import.meta.url).pathname });
    const { script, start } = PLAYERS[task.player];
    await page.addScriptTag({ path: script() });
    await page.evaluate(look);
    await page.evaluate(`(${start})(document.querySelector('video'), ${JSON.stringify(task.url)})`);
    const isShown = () => seen.first !== undefined;
    await page.waitForFunction(isShown, undefined, { timeout: WAIT_MS_MAX });
    const isSteady = (ms) => seen.last - seen.first > ms && isAtEdge();
    await page.waitForFunction(isSteady, STARTING_MS, { timeout: WAIT_MS_MAX });
    const watched = await watch(page, task.watch_ms);
    const changes = [];
    for (const height of task.changes) {
      await page.evaluate((height) => choose(height), height);
      const isChanged = (height) => document.querySelector('video').videoHeight === height;
      const waiting = page.waitForFunction(isChanged, height, { timeout: WAIT_MS_MAX, polling: 50 });
      await page.evaluate(() => begin());
      await waiting;
      changes.push({ height, ...(await watch(page, 5_000)) });
    }
    const heard = await hear(page);
    await page.screenshot({ path: `${task.pictures}/${task.player}.png` });
    return { ...watched, changes, heard, trouble };
  } finally {
    await browser.close();
  }
}

try {
  process.stdout.write(`${JSON.stringify(await run())}\n`);
} catch (error) {
  process.stderr.write(`foreign_player: ${error.message}\n`);
  process.exitCode = 1;
}
