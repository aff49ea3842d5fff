/**
 * Which protocol to try next, and when. Pure: no timers, no network.
 *
 * Auto prefers WHEP. A WHEP session that never showed a picture gives way to LL-HLS at once (most
 * often UDP is blocked); one that broke is tried again twice first. A forced protocol is kept.
 */

export type Protocol = 'whep' | 'hls';
export type Mode = 'auto' | Protocol;

export interface Capabilities {
  whep: boolean;
  hls: boolean;
}

/** How an attempt ended. */
export interface Outcome {
  protocol: Protocol;
  hadMedia: boolean;
  retryAfterMs?: number;
  /** This browser or this stream cannot do it: trying again is pointless. */
  isHopeless?: boolean;
}

export interface Attempt {
  protocol: Protocol;
  delayMs: number;
}

const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
const WHEP_RETRIES = 2;

export class Plan {
  readonly #mode: Mode;
  #can: Capabilities;
  #failures = 0;
  #whepBreaks = 0;

  constructor(mode: Mode, can: Capabilities) {
    this.#mode = mode;
    this.#can = { ...can };
  }

  /** The first protocol to try, or nothing if this browser has none of those allowed. */
  first(): Protocol | undefined {
    if (this.#mode !== 'whep' && this.#mode !== 'hls') {
      return this.#can.whep ? 'whep' : this.#can.hls ? 'hls' : undefined;
    }
    return this.#can[this.#mode] ? this.#mode : undefined;
  }

  /** What to do after a failure, or nothing when there is nothing left to try. */
  next(outcome: Outcome): Attempt | undefined {
    if (outcome.isHopeless) this.#can[outcome.protocol] = false;
    const wait = Math.max(this.#backoff(), outcome.retryAfterMs ?? 0);
    this.#failures += 1;
    if (this.#mode !== 'auto') {
      return this.#can[this.#mode] ? { protocol: this.#mode, delayMs: wait } : undefined;
    }
    if (outcome.protocol === 'whep') return this.#afterWhep(outcome, wait);
    // Every second failure of LL-HLS gives WHEP another chance: the network may have changed.
    const other = this.#can.whep && (this.#failures % 2 === 0 || !this.#can.hls);
    if (other) return { protocol: 'whep', delayMs: wait };
    return this.#can.hls ? { protocol: 'hls', delayMs: wait } : undefined;
  }

  /** Media has been playing for a while: the next failure starts from the beginning. */
  settled(): void {
    this.#failures = 0;
    this.#whepBreaks = 0;
  }

  #afterWhep(outcome: Outcome, wait: number): Attempt | undefined {
    this.#whepBreaks += 1;
    const again = outcome.hadMedia && this.#whepBreaks <= WHEP_RETRIES && this.#can.whep;
    if (again) return { protocol: 'whep', delayMs: wait };
    if (this.#can.hls) return { protocol: 'hls', delayMs: 0 };
    return this.#can.whep ? { protocol: 'whep', delayMs: wait } : undefined;
  }

  #backoff(): number {
    return BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)] ?? 8000;
  }
}
