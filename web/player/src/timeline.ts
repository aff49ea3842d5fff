/**
 * The cue timeline: which cues take effect with the frame that is on screen now.
 *
 * Rule T6 of the card timeline: a cue applies at the first shown frame whose time is at or after
 * its own; one that arrives later applies at once; one already seen is ignored.
 *
 * Invariants
 * - A cue is opened at most once, whatever carriers brought it, and closed at most once.
 * - News comes out in the order of T.
 * - At most 512 cues wait and 2 048 are remembered; beyond that the oldest leaves.
 */
import { rtpDifference } from './clock';
import type { Cue, CueEnd } from './cue';

/** The frame on screen, as exactly as its protocol can tell. */
export interface FramePosition {
  tUs: number | undefined;
  rtp: number | undefined;
}

export type CueNews =
  | { kind: 'opened'; cue: Cue; late: boolean }
  | { kind: 'closed'; cue: Cue; reason: 'closed' | 'lapsed' };

const WAITING_MAX = 512;
const SEEN_MAX = 2048;
/** Rounding of T to 90 kHz and to floating seconds stays far below, a frame far above. */
const TOLERANCE_US = 1_000;
const RTP_RATE = 90_000;
/** Beyond an hour the 32-bit RTP time may mean another turn of its clock: then T decides. */
const RTP_TRUSTED_US = 3_600e6;
/** A frame this far after the cue's own means that the cue came late, not that it was shown so. */
const LATE_US = 250_000;

interface Open {
  cue: Cue;
  end: CueEnd | undefined;
}

function reached(at: { tUs: number; rtp: number | undefined }, frame: FramePosition): boolean {
  const byT = frame.tUs === undefined ? undefined : frame.tUs - at.tUs;
  const trusted = byT === undefined || Math.abs(byT) < RTP_TRUSTED_US;
  if (trusted && at.rtp !== undefined && frame.rtp !== undefined) {
    const tolerance = (TOLERANCE_US * RTP_RATE) / 1e6;
    return rtpDifference(frame.rtp, at.rtp) >= -tolerance;
  }
  return byT !== undefined && byT >= -TOLERANCE_US;
}

function lateness(cue: Cue, frame: FramePosition): number {
  return frame.tUs === undefined ? 0 : frame.tUs - cue.tUs;
}

/** Cues waiting for their frame and those in force. */
export class CueTimeline {
  #waiting: Cue[] = [];
  #open = new Map<string, Open>();
  #ends = new Map<string, CueEnd>();
  #seen = new Set<string>();

  /** Takes a cue of any carrier; `false` if it is already known. */
  add(cue: Cue): boolean {
    // A restarted server begins a new instance: the same id at another T is another cue.
    const key = `${cue.id}@${Math.round(cue.tUs)}`;
    if (this.#seen.has(key)) return false;
    this.#remember(key);
    this.#waiting.push(cue);
    this.#waiting.sort((a, b) => a.tUs - b.tUs);
    if (this.#waiting.length > WAITING_MAX) this.#waiting.shift();
    return true;
  }

  /** Takes the closing of a cue, before or after the cue itself has come. */
  end(end: CueEnd): void {
    const open = this.#open.get(end.id);
    if (open) {
      open.end = end;
      return;
    }
    this.#ends.set(end.id, end);
    if (this.#ends.size > WAITING_MAX) {
      const oldest = this.#ends.keys().next().value;
      if (oldest !== undefined) this.#ends.delete(oldest);
    }
  }

  /** What the frame now on screen brings. */
  advance(frame: FramePosition): CueNews[] {
    const news: CueNews[] = [];
    for (const [id, open] of this.#open) {
      const reason = this.#closing(open, frame);
      if (!reason) continue;
      this.#open.delete(id);
      news.push({ kind: 'closed', cue: open.cue, reason });
    }
    const due = this.#waiting.filter((cue) => reached(cue, frame));
    if (due.length === 0) return news;
    this.#waiting = this.#waiting.filter((cue) => !due.includes(cue));
    for (const cue of due) {
      const open: Open = { cue, end: this.#ends.get(cue.id) };
      this.#ends.delete(cue.id);
      // Over before it came: a viewer who joined after it must not see it flash.
      if (this.#closing(open, frame)) continue;
      this.#open.set(cue.id, open);
      news.push({ kind: 'opened', cue, late: lateness(cue, frame) > LATE_US });
    }
    return news;
  }

  /** Forgets what waits for its frame: the next session may be of another instance. */
  forgetWaiting(): void {
    for (const cue of this.#waiting) this.#seen.delete(`${cue.id}@${Math.round(cue.tUs)}`);
    this.#waiting = [];
  }

  #closing(open: Open, frame: FramePosition): 'closed' | 'lapsed' | undefined {
    if (open.end && reached(open.end, frame)) return 'closed';
    const { durationUs, tUs } = open.cue;
    if (!durationUs || frame.tUs === undefined) return undefined;
    return frame.tUs >= tUs + durationUs ? 'lapsed' : undefined;
  }

  #remember(key: string): void {
    this.#seen.add(key);
    if (this.#seen.size <= SEEN_MAX) return;
    const oldest = this.#seen.values().next().value;
    if (oldest !== undefined) this.#seen.delete(oldest);
  }
}
