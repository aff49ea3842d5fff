/**
 * Runs inside the watch page, before its own scripts: measures what the page shows.
 *
 * The counter is read from the picture itself, never from what the player says of it.
 */
(() => {
  const COLUMNS = 16;
  const CELL = 4;
  const peers = [];
  const cards = [];
  const frames = { count: 0, first: 0, last: 0, longestGapMs: 0, stalls: 0, unreadable: 0 };
  const counters = { first: undefined, last: undefined, backwards: 0 };
  const canvas = new OffscreenCanvas(COLUMNS * CELL, 2 * CELL);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const NativePeer = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends NativePeer {
    constructor(...settings) {
      super(...settings);
      peers.push(this);
    }
  };

  /** The number burnt into the frame now on screen; undefined if the two rows disagree. */
  function readCounter(video) {
    const rows = (video.videoHeight * 80) / 360;
    pen.drawImage(video, 0, 0, video.videoWidth, rows, 0, 0, canvas.width, canvas.height);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const brightness = (column, row) => {
      let sum = 0;
      for (const [dx, dy] of [[1, 1], [2, 1], [1, 2], [2, 2]]) {
        sum += data[4 * ((row * CELL + dy) * canvas.width + column * CELL + dx) + 1];
      }
      return sum / 4;
    };
    let counter = 0;
    for (let bit = 0; bit < COLUMNS; bit += 1) {
      const isSet = brightness(bit, 0) < 128;
      // The second row is the first one inverted: a torn or blended picture fits neither way.
      if (isSet === brightness(bit, 1) < 128) return undefined;
      if (isSet) counter += 2 ** bit;
    }
    return counter;
  }

  function note(now, video) {
    if (frames.count > 0) {
      const gap = now - frames.last;
      frames.longestGapMs = Math.max(frames.longestGapMs, gap);
      if (gap > 500) frames.stalls += 1;
    } else {
      frames.first = now;
    }
    frames.count += 1;
    frames.last = now;
    const counter = readCounter(video);
    if (counter === undefined) {
      frames.unreadable += 1;
      return;
    }
    counters.first ??= counter;
    if (counters.last !== undefined && counter < counters.last) counters.backwards += 1;
    counters.last = counter;
  }

  function watch(player) {
    const { video } = player;
    const next = (now) => {
      note(now, video);
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
    player.addEventListener('lamplight-card', ({ detail }) => {
      // Fired inside the frame callback: what is on the canvas now is the card's frame.
      cards.push({
        id: detail.id,
        t_us: detail.t_us,
        is_late: detail.is_late,
        protocol: detail.protocol,
        shown_t_us: detail.shown_frame_t_us,
        counter: readCounter(video),
      });
    });
  }

  /** The loudest frequency that is heard, and how loud (dB of full scale). */
  async function listen(player) {
    await player.unmute();
    const sound = new AudioContext();
    await sound.resume();
    const { video } = player;
    const source = video.srcObject
      ? sound.createMediaStreamSource(video.srcObject)
      : sound.createMediaElementSource(video);
    const analyser = new AnalyserNode(sound, { fftSize: 8192, smoothingTimeConstant: 0 });
    source.connect(analyser);
    analyser.connect(sound.destination);
    const levels = new Float32Array(analyser.frequencyBinCount);
    const read = () => {
      analyser.getFloatFrequencyData(levels);
      let loudest = 0;
      for (let bin = 1; bin < levels.length; bin += 1) {
        if (levels[bin] > levels[loudest]) loudest = bin;
      }
      return { hz: (loudest * sound.sampleRate) / analyser.fftSize, db: levels[loudest] };
    };
    return { read };
  }

  const player = new Promise((found) => {
    const look = () => {
      const element = document.querySelector('lamplight-player');
      if (element?.video) return found(element);
      requestAnimationFrame(look);
    };
    document.addEventListener('DOMContentLoaded', look);
  });
  void player.then(watch);
  globalThis.probe = { cards, counters, frames, listen, peers, player, readCounter };
})();
