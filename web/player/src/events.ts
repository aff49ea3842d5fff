/** The player's public words: states, statistics and event details. Stable; see the README. */
import type { CardEnvelope } from './card';
import type { Protocol } from './plan';
import type { SessionNumbers } from './session';

/**
 * - `idle` nothing asked yet · `connecting` first picture under way · `playing`
 * - `waiting` the room is not live; the player asks again and starts by itself
 * - `reconnecting` the picture stopped or the connection broke; being repaired
 * - `blocked` the browser wants a tap before it plays · `paused` by the viewer
 * - `ended` · `unknown` no such room · `denied` private, or this viewer was put out
 * - `unplayable` this browser cannot play it
 */
export type PlayerState =
  | 'idle'
  | 'connecting'
  | 'waiting'
  | 'playing'
  | 'reconnecting'
  | 'blocked'
  | 'paused'
  | 'ended'
  | 'unknown'
  | 'denied'
  | 'unplayable';

export interface StateDetail {
  state: PlayerState;
  previous: PlayerState;
  protocol: Protocol | undefined;
  /** Why, where there is more to say than the state's name. */
  reason: string | undefined;
  /** In `waiting`: what the room says, for instance `scheduled` or `interrupted`. */
  room_state: string | undefined;
  /** In `waiting`: when the show is announced for, RFC 3339. */
  starts_at: string | undefined;
}

/** A cue on its frame. Fired inside the frame callback of the frame it belongs to. */
export interface CueDetail {
  id: string;
  class: string;
  t_us: number;
  /** The payload as it came. */
  data: string;
  /** Whether it arrived too late for its own frame, as for a viewer who has just joined. */
  is_late: boolean;
  protocol: Protocol;
  /** Media time of the shown frame in seconds (`requestVideoFrameCallback`). */
  shown_frame_media_time: number | undefined;
  /** T of the shown frame in microseconds. */
  shown_frame_t_us: number | undefined;
  /** RTP time of the shown frame; WHEP only. */
  rtp_timestamp: number | undefined;
  /** Frames handed to the screen by this element's video so far. */
  presented_frames: number | undefined;
}

/** A cue of class `card`. `card` is absent when the payload is not an envelope. */
export interface CardDetail extends CueDetail {
  card: CardEnvelope | undefined;
}

/** An open cue is over. */
export interface CueEndDetail {
  id: string;
  class: string;
  reason: 'closed' | 'lapsed';
}

export interface PlayerStats extends SessionNumbers {
  state: PlayerState;
  protocol: Protocol | undefined;
  width: number;
  height: number;
  fps: number | undefined;
  dropped_frames: number;
  presented_frames: number;
  media_time: number | undefined;
  rtp_timestamp: number | undefined;
  t_us: number | undefined;
  /** Waits of over 500 ms between two frames, and the longest wait, since playing began. */
  stalls: number;
  longest_gap_ms: number;
  /** From the call of `connect` to the first frame. */
  first_frame_ms: number | undefined;
  sessions: number;
  cards: number;
}

declare global {
  interface HTMLElementEventMap {
    'lamplight-state': CustomEvent<StateDetail>;
    'lamplight-card': CustomEvent<CardDetail>;
    'lamplight-cue': CustomEvent<CueDetail>;
    'lamplight-cue-end': CustomEvent<CueEndDetail>;
    'lamplight-sound': CustomEvent<{ muted: boolean; volume: number }>;
  }
}
