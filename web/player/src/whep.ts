/**
 * A WHEP session: real time over WebRTC, with cues on a data channel.
 *
 * One POST, no trickle: the server is ICE-lite and learns our address from the first check.
 * The RTP time of a shown frame is the one the server sent, so cues meet their frame exactly.
 */
import { type RtpPair, tOfRtp } from './clock';
import { type ChannelMessage, readMessage } from './cue';
import { withStereo } from './offer';
import {
  type Failure,
  type Session,
  type SessionContext,
  type SessionNumbers,
  play,
  retryAfterMs,
} from './session';
import type { FramePosition } from './timeline';

const ANSWER_MS_MAX = 10_000;
/** A path that carries anything is found well within this; UDP that is blocked never is. */
const PATH_MS_MAX = 4_000;
/** The browser needs this long to be sure that a path is dead; media stops showing it earlier. */
const DISCONNECTED_MS_MAX = 4_000;
/** A closed channel with no picture for this long means that the server has gone. */
const CHANNEL_GRACE_MS = 1_000;

/** Whether this browser can play WHEP at all. */
export function canWhep(): boolean {
  const hasFrameCallback = 'requestVideoFrameCallback' in HTMLVideoElement.prototype;
  return typeof RTCPeerConnection === 'function' && hasFrameCallback;
}

class Refusal extends Error {
  constructor(readonly failure: Failure) {
    super(failure.detail);
  }
}

/** What an HTTP answer other than 201 means for the player. */
export function refusal(status: number, retryAfter: string | null, detail: string): Failure {
  const retry = retryAfterMs(retryAfter);
  const retryPart = retry === undefined ? {} : { retryAfterMs: retry };
  if (status === 404) return { kind: 'unknown_room', detail };
  if (status === 401 || status === 403) return { kind: 'denied', detail };
  if (status === 409) return { kind: 'not_live', detail, ...retryPart };
  if (status === 400 || status === 415 || status === 422) return { kind: 'unsupported', detail };
  return { kind: 'refused', detail, ...retryPart };
}

async function problemDetail(response: Response): Promise<string> {
  try {
    const body: unknown = await response.json();
    const { detail, title } = body as { detail?: unknown; title?: unknown };
    if (typeof detail === 'string') return detail;
    if (typeof title === 'string') return title;
  } catch {
    // Not a problem document: the status says enough.
  }
  return `WHEP answered ${response.status}`;
}

export class WhepSession implements Session {
  readonly protocol = 'whep';
  readonly #context: SessionContext;
  readonly #abort = new AbortController();
  #peer: RTCPeerConnection | undefined;
  #resource: string | undefined;
  #isClosed = false;
  #videoClock: RtpPair | undefined;
  #audioClock: RtpPair | undefined;
  #wall: { tUs: number; ms: number } | undefined;
  #shownT: number | undefined;
  #shownAt = 0;
  #pathTimer: ReturnType<typeof setTimeout> | undefined;
  #disconnectedTimer: ReturnType<typeof setTimeout> | undefined;
  #bytes: { at: number; count: number } | undefined;
  /** True while no media comes over a path that stands. */
  #isIdle = false;
  #numbers: SessionNumbers = {};

  constructor(context: SessionContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      if (this.#isClosed) return;
      const failure: Failure =
        error instanceof Refusal
          ? error.failure
          : { kind: 'network', detail: error instanceof Error ? error.message : String(error) };
      this.#fail(failure);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#pathTimer);
    clearTimeout(this.#disconnectedTimer);
    this.#abort.abort();
    this.#peer?.close();
    // The last picture stays on screen until the next session has one.
    if (this.#resource) {
      // Lets the server free the place at once; it also finds out by itself.
      void fetch(this.#resource, { method: 'DELETE', keepalive: true }).catch(() => undefined);
    }
  }

  position(frame: VideoFrameCallbackMetadata): FramePosition {
    const rtp = frame.rtpTimestamp ?? this.#playedRtp('video');
    const clock = this.#videoClock;
    const tUs = rtp !== undefined && clock ? tOfRtp(clock, rtp) : undefined;
    this.#noteShown(tUs);
    return { tUs, rtp };
  }

  heard(): FramePosition {
    const rtp = this.#playedRtp('audio');
    const clock = this.#audioClock;
    const tUs = rtp !== undefined && clock ? tOfRtp(clock, rtp) : undefined;
    this.#noteShown(tUs);
    return { tUs, rtp: undefined };
  }

  goLive(): void {
    // A peer connection is always at its live edge.
  }

  awaitsHost(): boolean {
    return this.#isIdle && this.#peer?.connectionState === 'connected';
  }

  measure(): void {
    void this.#peer?.getStats().then((report) => this.#readStats(report));
  }

  numbers(): SessionNumbers {
    return { ...this.#numbers, ...this.#latency() };
  }

  async #connect(): Promise<void> {
    const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.#peer = peer;
    peer.addTransceiver('video', { direction: 'recvonly' });
    peer.addTransceiver('audio', { direction: 'recvonly' });
    this.#openChannel(peer);
    const stream = new MediaStream();
    peer.ontrack = ({ track }) => {
      stream.addTrack(track);
      const { video } = this.#context;
      if (video.srcObject !== stream) video.srcObject = stream;
      void play(video, this.#context.events);
    };
    peer.onconnectionstatechange = () => this.#watch(peer.connectionState);
    const offer = await peer.createOffer();
    const sdp = withStereo(offer.sdp ?? '');
    await peer.setLocalDescription({ type: 'offer', sdp });
    const answer = await this.#post(peer.localDescription?.sdp ?? sdp);
    if (this.#isClosed) return;
    await peer.setRemoteDescription({ type: 'answer', sdp: answer });
    this.#pathTimer = setTimeout(() => {
      // A path is there: a handshake of which packets are lost takes its time.
      if (['connected', 'completed'].includes(peer.iceConnectionState)) return;
      this.#fail({ kind: 'network', detail: 'no path to the server' });
    }, PATH_MS_MAX);
  }

  #openChannel(peer: RTCPeerConnection): void {
    const channel = peer.createDataChannel('cues', {
      protocol: 'lamplight.cues.1',
      ordered: true,
    });
    channel.onmessage = ({ data }) => {
      const message = typeof data === 'string' ? readMessage(data) : undefined;
      if (message && !this.#isClosed) this.#receive(message);
    };
    channel.onclose = () => {
      // A server that goes away closes its channels at once; the path is given up much later.
      const closedAt = performance.now();
      setTimeout(() => {
        const isGone = this.#shownAt < closedAt + CHANNEL_GRACE_MS / 2;
        if (isGone) this.#fail({ kind: 'network', detail: 'the server closed the session' });
      }, CHANNEL_GRACE_MS);
    };
  }

  async #post(sdp: string): Promise<string> {
    const { base, room, token, observe } = this.#context;
    const asked = Date.now();
    const url = `${base}/whep/${encodeURIComponent(room)}`;
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/sdp',
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
      },
      body: sdp,
      signal: AbortSignal.any([this.#abort.signal, AbortSignal.timeout(ANSWER_MS_MAX)]),
    });
    observe(asked, { date: response.headers.get('Date') });
    if (response.status !== 201) {
      const detail = await problemDetail(response);
      throw new Refusal(refusal(response.status, response.headers.get('Retry-After'), detail));
    }
    const location = response.headers.get('Location');
    if (location) this.#resource = new URL(location, response.url).href;
    const answer = await response.text();
    if (this.#isClosed && this.#resource) {
      void fetch(this.#resource, { method: 'DELETE', keepalive: true }).catch(() => undefined);
    }
    return answer;
  }

  #receive(message: ChannelMessage): void {
    const { events } = this.#context;
    switch (message.type) {
      case 'cue':
        return events.cue(message.cue);
      case 'cue_end':
        return events.cueEnd(message.end);
      case 'reconnect':
        return events.moved();
      case 'bye':
        // Whoever was put out does not come in again by itself.
        if (message.reason === 'kicked') {
          return this.#fail({ kind: 'denied', detail: 'the host ended this session' });
        }
        return events.ended();
      case 'clock': {
        const { tUs, wallMs, video, audio } = message.clock;
        if (video) this.#videoClock = { tUs, ...video };
        if (audio) this.#audioClock = { tUs, ...audio };
        if (wallMs !== undefined) this.#wall = { tUs, ms: wallMs };
      }
    }
  }

  #watch(state: RTCPeerConnectionState): void {
    clearTimeout(this.#disconnectedTimer);
    if (state === 'failed') this.#fail({ kind: 'network', detail: 'no path to the server' });
    if (state === 'closed') this.#fail({ kind: 'network', detail: 'the session was closed' });
    if (state === 'disconnected') {
      this.#disconnectedTimer = setTimeout(
        () => this.#fail({ kind: 'network', detail: 'the connection was lost' }),
        DISCONNECTED_MS_MAX,
      );
    }
  }

  #fail(failure: Failure): void {
    if (!this.#isClosed) this.#context.events.failed(failure);
  }

  /** The RTP time now played, for browsers whose frame callback lacks it (± 1 frame). */
  #playedRtp(kind: 'video' | 'audio'): number | undefined {
    const receiver = this.#peer?.getReceivers().find((it) => it.track.kind === kind);
    return receiver?.getSynchronizationSources()[0]?.rtpTimestamp;
  }

  #noteShown(tUs: number | undefined): void {
    this.#shownT = tUs;
    this.#shownAt = performance.now();
  }

  #latency(): SessionNumbers {
    if (!this.#wall || this.#shownT === undefined) return {};
    const captured = this.#wall.ms + (this.#shownT - this.#wall.tUs) / 1000;
    return { latency_ms: Math.max(0, this.#context.serverNow() - captured) };
  }

  #readStats(report: RTCStatsReport): void {
    const numbers: SessionNumbers = {};
    const codecs = new Map<string, string>();
    let bytes = 0;
    report.forEach((entry: Record<string, unknown> & { type: string; kind?: string }) => {
      if (entry.type === 'codec') {
        codecs.set(String(entry.id), String(entry.mimeType).replace(/^\w+\//, ''));
      } else if (entry.type === 'inbound-rtp') {
        bytes += Number(entry.bytesReceived ?? 0);
        numbers.packets_lost = (numbers.packets_lost ?? 0) + Number(entry.packetsLost ?? 0);
        if (entry.kind === 'video') {
          numbers.jitter_ms = Number(entry.jitter ?? 0) * 1000;
          const emitted = Number(entry.jitterBufferEmittedCount ?? 0);
          const delay = Number(entry.jitterBufferDelay ?? 0);
          if (emitted > 0) numbers.buffer_ms = (delay / emitted) * 1000;
        }
      } else if (entry.type === 'candidate-pair' && entry.nominated === true) {
        const rtt = Number(entry.currentRoundTripTime);
        if (Number.isFinite(rtt)) numbers.rtt_ms = rtt * 1000;
      }
    });
    const now = performance.now();
    this.#isIdle = this.#bytes?.count === bytes;
    if (this.#bytes && now > this.#bytes.at) {
      numbers.bitrate_bps = ((bytes - this.#bytes.count) * 8000) / (now - this.#bytes.at);
    }
    this.#bytes = { at: now, count: bytes };
    const names = new Set(codecs.values());
    numbers.codecs = [...names].filter((it) => /h26|vp|av1|opus/i.test(it)).join(' · ');
    this.#numbers = numbers;
  }
}
