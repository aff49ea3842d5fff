/** Counts what is shown: frames, gaps between them, frames per second. Pure but for its inputs. */

const STALL_MS = 500;
const FPS_WINDOW = 61;

export class FrameMeter {
  stalls = 0;
  longestGapMs = 0;
  #last: number | undefined;
  #times: number[] = [];

  /** A frame came on screen at `now` (ms). */
  frame(now: number): void {
    if (this.#last !== undefined) {
      const gap = now - this.#last;
      this.longestGapMs = Math.max(this.longestGapMs, gap);
      if (gap > STALL_MS) this.stalls += 1;
    }
    this.#last = now;
    this.#times.push(now);
    if (this.#times.length > FPS_WINDOW) this.#times.shift();
  }

  /** The next gap is not a stall: paused, hidden, or a new session. */
  skip(): void {
    this.#last = undefined;
    this.#times = [];
  }

  fps(): number | undefined {
    const first = this.#times[0];
    const last = this.#times.at(-1);
    if (first === undefined || last === undefined || last <= first) return undefined;
    return ((this.#times.length - 1) * 1000) / (last - first);
  }
}
