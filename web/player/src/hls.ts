/**
 * An LL-HLS session with hls.js, loaded only when it is needed.
 *
 * The distance to the live edge is the server's PART-HOLD-BACK; nothing here widens it. T comes
 * from the media itself: `tfdt` is T, so the start hls.js subtracts is the map between T and the
 * element's media time. Cues come in `emsg`, and from date ranges for those who join later.
 */
import type Hls from 'hls.js';
import type { ErrorData, HlsConfig, LevelDetails, MetadataSample } from 'hls.js';
import { MediaClock } from './clock';
import { readDateRange, readMessage } from './cue';
import { cueTexts } from './id3';
import {
  type Failure,
  type Session,
  type SessionContext,
  type SessionNumbers,
  play,
} from './session';
import type { FramePosition } from './timeline';

/** The server holds a playlist up to three target durations (12 s) before it gives up. */
const HELD_MS_MAX = 15_000;
/** A stall moves the target this far back, in all at most as far as PART-HOLD-BACK again. */
const STALL_STEP_S = 0.5;
/** Waits while the first parts come are no stalls. */
const STARTING_MS = 5_000;
/** This far behind its target a player jumps forward instead of running 5 % faster. */
const BEHIND_S_MAX = 6;

const NO_RETRY = { maxNumRetry: 0, retryDelayMs: 0, maxRetryDelayMs: 0 };
const FEW_RETRIES = { maxNumRetry: 3, retryDelayMs: 300, maxRetryDelayMs: 2_000 };

function policy(retry: typeof NO_RETRY): HlsConfig['playlistLoadPolicy'] {
  return {
    default: {
      maxTimeToFirstByteMs: HELD_MS_MAX,
      maxLoadTimeMs: HELD_MS_MAX + 5_000,
      timeoutRetry: retry,
      errorRetry: retry,
    },
  };
}

const CONFIG: Partial<HlsConfig> = {
  lowLatencyMode: true,
  backBufferLength: 20,
  maxBufferLength: 12,
  maxMaxBufferLength: 20,
  maxLiveSyncPlaybackRate: 1.05,
  // The target is PART-HOLD-BACK; what a stall does to it is decided here, not by hls.js.
  liveSyncOnStallIncrease: 0,
  // Remuxing is a copy for CMAF, and a worker from a blob would need a wider CSP.
  enableWorker: false,
  // Cues are read from the events; text tracks of them would only be a second copy.
  enableEmsgMetadataCues: false,
  enableID3MetadataCues: false,
  enableDateRangeMetadataCues: false,
  enableWebVTT: false,
  enableIMSC1: false,
  enableCEA708Captions: false,
  // The server knows whether the room is live: the player asks again, not hls.js.
  manifestLoadPolicy: policy(NO_RETRY),
  playlistLoadPolicy: policy(FEW_RETRIES),
  fragLoadPolicy: policy(FEW_RETRIES),
};

/** Whether hls.js or the browser itself can play HLS. */
export function canHls(video: HTMLVideoElement): boolean {
  return hasMediaSource() || video.canPlayType('application/vnd.apple.mpegurl') !== '';
}

export function hasMediaSource(): boolean {
  return typeof MediaSource === 'function' || 'ManagedMediaSource' in globalThis;
}

export class HlsSession implements Session {
  readonly protocol = 'hls';
  readonly #context: SessionContext;
  readonly #clock = new MediaClock();
  #hls: Hls | undefined;
  #isClosed = false;
  #mediaErrors = 0;
  #startedAt = 0;
  #stalls = 0;
  #wasLive = false;
  #isOver = false;
  #measuredTime = -1;
  /** When a playlist came last. */
  #listedAt = 0;
  #codecs: string | undefined;
  #onEnded = () => this.#context.events.ended();

  constructor(context: SessionContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    try {
      const { default: Hls, Events } = await import('hls.js');
      if (this.#isClosed) return;
      if (!Hls.isSupported()) {
        this.#fail({ kind: 'unsupported', detail: 'this browser cannot decode H.264 in MSE' });
        return;
      }
      this.#open(new Hls({ ...CONFIG, ...this.#authorized() }), Events);
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.#fail({ kind: 'network', detail: `the player could not be loaded: ${detail}` });
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#context.video.removeEventListener('ended', this.#onEnded);
    this.#hls?.destroy();
    this.#hls = undefined;
  }

  position(frame: VideoFrameCallbackMetadata): FramePosition {
    return { tUs: this.#clock.t(frame.mediaTime), rtp: undefined };
  }

  heard(): FramePosition {
    return { tUs: this.#clock.t(this.#context.video.currentTime), rtp: undefined };
  }

  goLive(): void {
    const edge = this.#hls?.liveSyncPosition;
    if (edge === null || edge === undefined) return;
    this.#startedAt = performance.now();
    this.#context.video.currentTime = edge;
  }

  awaitsHost(): boolean {
    const details = this.#hls?.latestLevelDetails;
    if (!details || performance.now() - this.#listedAt > HELD_MS_MAX) return false;
    return (details.partList?.at(-1) ?? details.fragments.at(-1))?.gap === true;
  }

  measure(): void {
    const hls = this.#hls;
    const { video, events } = this.#context;
    if (!hls || video.paused) return;
    // The tracks of the last part rarely end together: the element may stand still before its end.
    const stands = video.currentTime === this.#measuredTime;
    this.#measuredTime = video.currentTime;
    if (this.#isOver && stands) return events.ended();
    const target = hls.targetLatency;
    if (!target || this.#isOver) return;
    if (hls.latency > target + BEHIND_S_MAX) this.goLive();
  }

  numbers(): SessionNumbers {
    const hls = this.#hls;
    if (!hls) return {};
    const { video, serverNow } = this.#context;
    const numbers: SessionNumbers = {};
    const captured = hls.playingDate?.getTime();
    if (captured !== undefined) numbers.latency_ms = Math.max(0, serverNow() - captured);
    if (hls.targetLatency) numbers.target_latency_ms = hls.targetLatency * 1000;
    const ranges = video.buffered;
    if (ranges.length > 0) {
      numbers.buffer_ms = Math.max(0, ranges.end(ranges.length - 1) - video.currentTime) * 1000;
    }
    const level = hls.levels[hls.currentLevel];
    if (level) numbers.bitrate_bps = level.averageBitrate || level.bitrate;
    if (this.#codecs) numbers.codecs = this.#codecs;
    return numbers;
  }

  #open(hls: Hls, Events: typeof import('hls.js').Events): void {
    const { video, base, room } = this.#context;
    this.#hls = hls;
    this.#startedAt = performance.now();
    video.srcObject = null;
    hls.on(Events.ERROR, (_, error) => this.#onError(error));
    hls.on(Events.MANIFEST_PARSED, () => void play(video, this.#context.events));
    hls.on(Events.INIT_PTS_FOUND, (_, { id, frag, initPTS, timescale }) => {
      if (id !== 'main') return;
      this.#clock.learn(frag.start, frag.start * 1e6 + (initPTS / timescale) * 1e6);
    });
    hls.on(Events.FRAG_PARSING_METADATA, (_, { samples }) => {
      for (const sample of samples) this.#onSample(sample);
    });
    hls.on(Events.LEVEL_UPDATED, (_, { details }) => this.#onDateRanges(details));
    hls.on(Events.LEVEL_LOADED, (_, { details, networkDetails, stats }) => {
      this.#listedAt = performance.now();
      this.#wasLive ||= details.live;
      this.#isOver = !details.live;
      // The last playlist stays for a minute: the show must not be played again from its start.
      if (!this.#wasLive) return this.#fail({ kind: 'not_live', detail: 'the broadcast is over' });
      const request: unknown = networkDetails;
      if (!(request instanceof XMLHttpRequest)) return;
      // An answer out of a cache tells when it was made, not what time it is.
      if (request.getResponseHeader('Age') !== null) return;
      const asked = performance.timeOrigin + stats.loading.start;
      this.#context.observe(asked, { date: request.getResponseHeader('Date') });
    });
    hls.on(Events.BUFFER_CODECS, (_, tracks) => {
      const names = [tracks.video?.codec, tracks.audio?.codec].filter((it) => it !== undefined);
      this.#codecs = [this.#codecs, ...names].filter((it) => it).join(' · ');
    });
    video.addEventListener('ended', this.#onEnded);
    hls.loadSource(`${base}/hls/${encodeURIComponent(room)}/index.m3u8`);
    hls.attachMedia(video);
  }

  /** The token goes with the first playlist, which gives the others their session. */
  #authorized(): Partial<HlsConfig> {
    const { token } = this.#context;
    if (!token) return {};
    return {
      xhrSetup(request, url) {
        if (new URL(url, location.href).pathname.endsWith('/index.m3u8')) {
          request.setRequestHeader('Authorization', `Bearer ${token}`);
        }
      },
    };
  }

  #onSample(sample: MetadataSample): void {
    for (const text of cueTexts(sample.data)) {
      const message = readMessage(text);
      if (message?.type === 'cue') {
        if (this.#clock.t(sample.pts) === undefined) this.#clock.learn(sample.pts, message.cue.tUs);
        this.#context.events.cue({ ...message.cue, rtp: undefined });
      } else if (message?.type === 'cue_end') {
        this.#context.events.cueEnd({ ...message.end, rtp: undefined });
      }
    }
  }

  #onDateRanges(details: LevelDetails): void {
    for (const range of Object.values(details.dateRanges)) {
      if (!range) continue;
      const cue = readDateRange(range.attr);
      if (!cue) continue;
      this.#context.events.cue(cue);
      const closedAt = range.endDate?.getTime();
      if (closedAt === undefined || range.attr['END-DATE'] === undefined) continue;
      const tUs = cue.tUs + (closedAt - range.startDate.getTime()) * 1000;
      this.#context.events.cueEnd({ id: cue.id, tUs, rtp: undefined });
    }
  }

  #onError(error: ErrorData): void {
    if (this.#isClosed) return;
    if (error.details === 'bufferStalledError') this.#onStall();
    if (!error.fatal) return;
    const status = error.response?.code ?? 0;
    if (error.type === 'mediaError' && this.#mediaErrors < 1) {
      this.#mediaErrors += 1;
      this.#hls?.recoverMediaError();
      return;
    }
    this.#fail(failureOf(error.type, error.details, status));
  }

  /** A network that stalls at this distance will stall again: a little more of it, up to twice. */
  #onStall(): void {
    const hls = this.#hls;
    const holdBack = hls?.latestLevelDetails?.partHoldBack;
    if (!hls || !holdBack || performance.now() - this.#startedAt < STARTING_MS) return;
    this.#stalls += 1;
    hls.targetLatency = holdBack + Math.min(this.#stalls * STALL_STEP_S, holdBack);
  }

  #fail(failure: Failure): void {
    if (!this.#isClosed) this.#context.events.failed(failure);
  }
}

/** What a fatal error of hls.js means for the player. */
export function failureOf(type: string, details: string, status: number): Failure {
  const detail = status > 0 ? `LL-HLS: ${details} (${status})` : `LL-HLS: ${details}`;
  // A playlist is 404 both for an unknown room and for one that is not live: the room decides.
  if (status === 404 && details.startsWith('manifest')) return { kind: 'not_live', detail };
  if (status === 401 || status === 403) return { kind: 'denied', detail };
  if (details === 'manifestIncompatibleCodecsError') return { kind: 'unsupported', detail };
  if (status === 503) return { kind: 'refused', detail, retryAfterMs: 3_000 };
  return { kind: type === 'mediaError' ? 'media' : 'network', detail };
}
