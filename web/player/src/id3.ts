/**
 * ID3v2.4: the PRIV frames of an `emsg` or of a timed metadata sample.
 *
 * Reads network bytes: every length is checked, a broken tag gives what was read before the break.
 */

export interface PrivateFrame {
  owner: string;
  data: Uint8Array;
}

const HEADER_BYTES = 10;
const FRAMES_MAX = 16;

/** Four bytes of seven bits each; `undefined` if a high bit is set or bytes are missing. */
function syncSafe(bytes: Uint8Array, at: number): number | undefined {
  let value = 0;
  for (const byte of bytes.subarray(at, at + 4)) {
    if (byte > 0x7f) return undefined;
    value = value * 128 + byte;
  }
  return at + 4 <= bytes.length ? value : undefined;
}

function startsWith(bytes: Uint8Array, at: number, word: string): boolean {
  return [...word].every((char, index) => bytes[at + index] === char.charCodeAt(0));
}

/** Owner and data of each PRIV frame in the tag at the start of `bytes`. */
export function privateFrames(bytes: Uint8Array): PrivateFrame[] {
  const frames: PrivateFrame[] = [];
  const size = syncSafe(bytes, 6);
  if (!startsWith(bytes, 0, 'ID3') || size === undefined) return frames;
  const end = Math.min(bytes.length, HEADER_BYTES + size);
  let at = HEADER_BYTES;
  while (at + HEADER_BYTES <= end && frames.length < FRAMES_MAX) {
    const length = syncSafe(bytes, at + 4);
    const next = at + HEADER_BYTES + (length ?? 0);
    if (!length || next > end) break;
    if (startsWith(bytes, at, 'PRIV')) {
      const body = bytes.subarray(at + HEADER_BYTES, next);
      const zero = body.indexOf(0);
      if (zero >= 0) {
        const owner = new TextDecoder('latin1').decode(body.subarray(0, zero));
        frames.push({ owner, data: body.subarray(zero + 1) });
      }
    }
    at = next;
  }
  return frames;
}

/** Who signs the frames that hold a cue. */
export const CUE_OWNER = 'lamplight/cue/1';

/** The JSON texts of all cues in the tag. */
export function cueTexts(bytes: Uint8Array): string[] {
  return privateFrames(bytes)
    .filter((frame) => frame.owner === CUE_OWNER)
    .map((frame) => new TextDecoder().decode(frame.data));
}
