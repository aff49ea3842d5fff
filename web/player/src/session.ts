/**
 * What a protocol gives the player: one session from start to end, told by events.
 */
import type { Cue, CueEnd } from './cue';
import type { Protocol } from './plan';
import type { FramePosition } from './timeline';

/** Why a session could not go on. */
export interface Failure {
  kind:
    | 'not_live'
    | 'unknown_room'
    | 'denied'
    | 'refused'
    | 'unsupported'
    | 'network'
    | 'media'
    | 'stalled';
  /** For the log and the details panel, in one sentence. */
  detail: string;
  retryAfterMs?: number;
}

export interface SessionEvents {
  cue(cue: Cue): void;
  cueEnd(end: CueEnd): void;
  /** The browser refuses to start with sound or at all until the viewer acts. */
  blocked(): void;
  /** The server closes this session soon and asks for a new one. */
  moved(): void;
  /** The broadcast is over. */
  ended(): void;
  failed(failure: Failure): void;
}

/** Numbers only the protocol knows; absent where it does not know them. */
export interface SessionNumbers {
  latency_ms?: number;
  target_latency_ms?: number;
  buffer_ms?: number;
  bitrate_bps?: number;
  rtt_ms?: number;
  jitter_ms?: number;
  packets_lost?: number;
  codecs?: string;
}

export interface Session {
  readonly protocol: Protocol;
  start(): Promise<void>;
  /** Ends it without further events; safe to call twice. */
  close(): void;
  /** Where a frame handed to the screen lies on the timeline. */
  position(frame: VideoFrameCallbackMetadata): FramePosition;
  /** The same where there is no video: what is heard now. */
  heard(): FramePosition;
  /** Back to the live edge, after a pause or when too far behind. */
  goLive(): void;
  /** Whether it is sure that nothing comes because nothing is sent: the host is away. */
  awaitsHost(): boolean;
  /** Called once a second. */
  measure(): void;
  numbers(): SessionNumbers;
}

/** What both sessions are made of. */
export interface SessionContext {
  video: HTMLVideoElement;
  /** Origin and path before `/whep` and `/hls`; empty for the page's own origin. */
  base: string;
  room: string;
  /** Opens a private room; undefined for the others. */
  token: string | undefined;
  events: SessionEvents;
  /** Milliseconds since the Unix epoch by the server's clock. */
  serverNow(): number;
  /** Reports an answer of the server so that its clock can be bounded. */
  observe(askedMs: number, response: { date: string | null }): void;
}

/** Starts playback and reports a refusal of autoplay; other rejections mean a newer load came. */
export async function play(video: HTMLVideoElement, events: SessionEvents): Promise<void> {
  try {
    await video.play();
  } catch (error) {
    if (error instanceof DOMException && error.name === 'NotAllowedError') events.blocked();
  }
}

const RETRY_AFTER_MAX_MS = 60_000;

/** `Retry-After` in seconds as milliseconds, bounded to a minute. */
export function retryAfterMs(header: string | null): number | undefined {
  const seconds = Number(header ?? Number.NaN);
  if (!Number.isFinite(seconds) || seconds < 0) return undefined;
  return Math.min(seconds * 1000, RETRY_AFTER_MAX_MS);
}
