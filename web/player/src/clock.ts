/**
 * Clocks: where a shown frame lies on T, the broadcast's timeline in microseconds.
 *
 * Pure arithmetic. WHEP frames carry an RTP time, LL-HLS frames a media time; both become T here.
 * Not here: who reads the frames (`element.ts`), what happens at a T (`timeline.ts`).
 */

const RTP_RANGE = 2 ** 32;

/** How far RTP time `a` is after `b`, in ticks; right over a wrap, for distances below 2^31. */
export function rtpDifference(a: number, b: number): number {
  const forward = (((a - b) % RTP_RANGE) + RTP_RANGE) % RTP_RANGE;
  return forward >= RTP_RANGE / 2 ? forward - RTP_RANGE : forward;
}

/** One known pair of a WHEP session: at `tUs` the track's RTP time is `rtp`. */
export interface RtpPair {
  tUs: number;
  rtp: number;
  rate: number;
}

/** T of a frame by its RTP time; a session has one straight line, so any recent pair will do. */
export function tOfRtp(pair: RtpPair, rtp: number): number {
  return pair.tUs + (rtpDifference(rtp, pair.rtp) / pair.rate) * 1e6;
}

interface Mapping {
  /** Media time from which the mapping holds, in seconds. */
  from: number;
  /** T minus media time, in microseconds. */
  offsetUs: number;
}

const MAPPINGS_MAX = 16;

/** Media time of the video element to T and back; a discontinuity may add a mapping. */
export class MediaClock {
  #mappings: Mapping[] = [];

  /** From `mediaTime` seconds on, T is `tUs` at `mediaTime`. The oldest of 16 mappings leaves. */
  learn(mediaTime: number, tUs: number): void {
    const offsetUs = tUs - mediaTime * 1e6;
    if (!Number.isFinite(offsetUs)) return;
    const known = this.#at(mediaTime);
    if (known && Math.abs(known.offsetUs - offsetUs) < 1) return;
    this.#mappings = this.#mappings.filter((it) => it.from < mediaTime);
    this.#mappings.push({ from: mediaTime, offsetUs });
    if (this.#mappings.length > MAPPINGS_MAX) this.#mappings.shift();
  }

  /** T at a media time, or nothing before the first mapping is known. */
  t(mediaTime: number): number | undefined {
    const mapping = this.#at(mediaTime) ?? this.#mappings[0];
    return mapping ? mediaTime * 1e6 + mapping.offsetUs : undefined;
  }

  #at(mediaTime: number): Mapping | undefined {
    return this.#mappings.findLast((it) => it.from <= mediaTime + 0.001);
  }
}

/**
 * The server's clock, bounded by the `Date` headers of its answers.
 *
 * A header is cut to whole seconds, but each answer bounds the offset and the bounds narrow with
 * every one. As long as they allow it both clocks count as equal.
 */
export class ServerClock {
  #low = Number.NEGATIVE_INFINITY;
  #high = Number.POSITIVE_INFINITY;

  /** Takes one answer: when it was asked for and when it came (Unix ms), and its `Date`. */
  observe(askedMs: number, cameMs: number, date: string | null): void {
    const server = date ? Date.parse(date) : Number.NaN;
    if (!Number.isFinite(server)) return;
    const low = server - cameMs;
    const high = server + 1000 - askedMs;
    const agrees = low <= this.#high && high >= this.#low;
    this.#low = agrees ? Math.max(low, this.#low) : low;
    this.#high = agrees ? Math.min(high, this.#high) : high;
  }

  /** Milliseconds to add to this machine's clock to read the server's. */
  offsetMs(): number {
    if (!Number.isFinite(this.#low) || (this.#low <= 0 && this.#high >= 0)) return 0;
    return (this.#low + this.#high) / 2;
  }
}
