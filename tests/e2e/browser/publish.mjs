/**
 * Publishes over WHIP from headless Chromium: a canvas with the burnt-in counter and a tone of 1 kHz.
 * Prints a line `live` once connected, goes on until stdin ends, leaves with DELETE, and prints one
 * JSON object of what was sent.
 *
 * Usage: node publish.mjs '{"whip", "http", "stream_key"}'
 */
import { launch } from './browser.mjs';

const CONNECTED_MS_MAX = 20_000;
const task = JSON.parse(process.argv[2]);

/** Runs in the page: draws, sounds, offers. */
async function publish({ whip, stream_key: key, wait }) {
  const [BITS, CELL] = [16, 40];
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [640, 360];
  document.body.append(canvas);
  const pen = canvas.getContext('2d');
  let counter = 0;
  const box = (x, y, color, w = CELL, h = CELL) => {
    pen.fillStyle = color;
    pen.fillRect(x, y, w, h);
  };
  const draw = () => {
    box(0, 0, 'white', 640, 80);
    for (let bit = 0; bit < BITS; bit += 1) {
      const isSet = (counter >> bit) & 1;
      box(bit * CELL, isSet ? 0 : CELL, 'black');
    }
    box(0, 80, `hsl(${counter % 360} 60% 50%)`, 640, 280);
    box((counter * 7) % 640, 200, 'white', 60, 60);
    counter += 1;
  };
  draw();
  setInterval(draw, 1000 / 30);
  const audio = new AudioContext();
  const tone = new OscillatorNode(audio, { frequency: 1_000 });
  const out = audio.createMediaStreamDestination();
  tone.connect(out);
  tone.start();
  const stream = canvas.captureStream(30);
  stream.addTrack(out.stream.getAudioTracks()[0]);

  const pc = new RTCPeerConnection();
  globalThis.pc = pc;
  for (const track of stream.getTracks()) {
    const transceiver = pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    if (track.kind !== 'video') continue;
    const codecs = RTCRtpSender.getCapabilities('video').codecs;
    const isFirst = (codec) => Number(codec.mimeType !== 'video/H264');
    transceiver.setCodecPreferences(codecs.sort((a, b) => isFirst(a) - isFirst(b)));
  }
  await pc.setLocalDescription();
  const response = await fetch(whip, {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp', Authorization: `Bearer ${key}` },
    body: pc.localDescription.sdp,
  });
  const text = await response.text();
  if (response.status !== 201) throw new Error(`the offer got ${response.status}: ${text}`);
  globalThis.session = new URL(response.headers.get('Location'), whip).href;
  await pc.setRemoteDescription({ type: 'answer', sdp: text });
  const until = performance.now() + wait;
  while (pc.connectionState !== 'connected') {
    if (performance.now() > until) throw new Error(`still ${pc.connectionState}: ${text}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Runs in the page: leaves, and tells what was sent. */
async function leave() {
  const rows = [...(await pc.getStats()).values()];
  const video = rows.find((row) => row.type === 'outbound-rtp' && row.kind === 'video');
  const response = await fetch(session, { method: 'DELETE' });
  pc.close();
  const { framesEncoded, keyFramesEncoded, pliCount, nackCount, frameWidth } = video;
  return { status: response.status, framesEncoded, keyFramesEncoded, pliCount, nackCount, frameWidth };
}

const stdinEnds = new Promise((resolve) => {
  process.stdin.on('end', resolve);
  process.stdin.resume();
});
const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(`${task.http}/`);
  await page.evaluate(publish, { ...task, wait: CONNECTED_MS_MAX });
  process.stdout.write('live\n');
  await stdinEnds;
  process.stdout.write(`${JSON.stringify(await page.evaluate(leave))}\n`);
} catch (error) {
  process.stderr.write(`publish: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
