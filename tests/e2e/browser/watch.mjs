/**
 * Opens the watch page in headless Chromium, looks and listens for a while, then fires a cue and
 * waits for its card. Prints one JSON object; judging it is the Rust side's part.
 *
 * Usage: node watch.mjs '{"http", "room", "operator_token", "protocol", "watch_ms", "pictures"}'
 */
import { launch } from './browser.mjs';

const WAIT_MS_MAX = 60_000;
const task = JSON.parse(process.argv[2]);

/** A cue that shows a card, by the operator. */
async function fireCue(title) {
  const data = JSON.stringify({
    v: 1,
    room: task.room,
    seq: 1,
    action: 'custom',
    at_us: 0,
    issued_us: 0,
    ttl_us: 0,
    entry: null,
    data: { title, price: { amount: 1999, currency: 'CNY' } },
  });
  const url = `${task.http}/api/v1/media/broadcasts/${task.room}/cues`;
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${task.operator_token}`,
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({ class: 'card', kind: 'listed', data }),
  });
  const text = await response.text();
  if (response.status !== 201) throw new Error(`the cue got ${response.status}: ${text}`);
  return JSON.parse(text);
}

async function open(browser) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS_MAX);
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(String(error)));
  await page.addInitScript({ path: new URL('./probe.js', import.meta.url).pathname });
  await page.goto(`${task.http}/rooms/${task.room}?protocol=${task.protocol}`);
  return { page, trouble };
}

/** Fails with what the player says of itself when the condition does not come. */
async function until(page, condition, what) {
  try {
    await page.waitForFunction(condition, undefined, { timeout: WAIT_MS_MAX, polling: 50 });
  } catch (error) {
    const stats = await page.evaluate(async () => {
      const player = document.querySelector('lamplight-player');
      return JSON.stringify(player?.stats?.() ?? document.body.innerText);
    });
    throw new Error(`${what} did not come: ${stats}`, { cause: error });
  }
}

async function watch(page) {
  await until(page, () => probe.counters.last !== undefined, 'a readable frame');
  // The start is not part of the measured time: buffers fill, the first keyframe is waited for,
  // and a player that joined at the very first frame catches up with the edge.
  await until(page, () => performance.now() - probe.frames.first > 3_000, 'three seconds');
  await page.evaluate(() => {
    const now = performance.now();
    const fresh = { count: 0, first: now, last: now, stalls: 0, longestGapMs: 0, unreadable: 0 };
    Object.assign(probe.frames, fresh);
    probe.counters.first = probe.counters.last;
  });
  const isWatched = (ms) => probe.frames.last - probe.frames.first >= ms;
  await page.waitForFunction(isWatched, task.watch_ms, { timeout: task.watch_ms + WAIT_MS_MAX });
  return page.evaluate(async () => ({
    frames: { ...probe.frames },
    counters: { ...probe.counters },
    stats: (await probe.player).stats(),
  }));
}

async function showCard(page, title) {
  const cue = await fireCue(title);
  await page.waitForFunction((id) => probe.cards.some((card) => card.id === id), cue.id, {
    timeout: WAIT_MS_MAX,
    polling: 50,
  });
  const card = await page.evaluate((id) => probe.cards.find((it) => it.id === id), cue.id);
  await page.getByText(title).first().waitFor({ timeout: WAIT_MS_MAX });
  return { cue, card };
}

async function hear(page) {
  await page.evaluate(async () => {
    probe.ear = await probe.listen(await probe.player);
  });
  await until(page, () => probe.ear.read().db > -60, 'sound');
  return page.evaluate(() => probe.ear.read());
}

async function takePictures(page) {
  const { pictures, protocol } = task;
  await page.screenshot({ path: `${pictures}/${protocol}-desktop.png` });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: `${pictures}/${protocol}-phone.png` });
}

async function run() {
  const browser = await launch();
  try {
    const { page, trouble } = await open(browser);
    const seen = await watch(page);
    const title = `Blue mug by ${task.protocol}`;
    const shown = await showCard(page, title);
    await takePictures(page);
    const heard = await hear(page);
    return { ...seen, ...shown, heard, trouble };
  } finally {
    await browser.close();
  }
}

try {
  process.stdout.write(`${JSON.stringify(await run())}\n`);
} catch (error) {
  process.stderr.write(`watch: ${error.message}\n`);
  process.exitCode = 1;
}
