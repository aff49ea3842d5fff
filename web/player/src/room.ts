/** What the API says about a room: is it worth connecting? */
import { retryAfterMs } from './session';

export type RoomWord =
  | { kind: 'live' }
  | { kind: 'not_live'; state: string; startsAt: string | undefined; retryAfterMs: number }
  | { kind: 'ended' }
  | { kind: 'unknown' }
  | { kind: 'unreachable'; retryAfterMs: number };

const RETRY_MS = 2_000;
const OVER = ['ended', 'cancelled'];

/** Reads a room's state from the status and body of its answer. */
export function readRoom(status: number, body: unknown, retryAfter: string | null): RoomWord {
  const wait = retryAfterMs(retryAfter) ?? RETRY_MS;
  if (status === 404) return { kind: 'unknown' };
  if (status !== 200) return { kind: 'unreachable', retryAfterMs: wait };
  const { state, starts_at } = (body ?? {}) as { state?: unknown; starts_at?: unknown };
  if (state === 'live') return { kind: 'live' };
  if (typeof state === 'string' && OVER.includes(state)) return { kind: 'ended' };
  return {
    kind: 'not_live',
    state: typeof state === 'string' ? state : '',
    startsAt: typeof starts_at === 'string' ? starts_at : undefined,
    retryAfterMs: wait,
  };
}

/** Asks the API for a room. Never throws: no answer is an answer too. */
export async function askRoom(
  base: string,
  room: string,
  observe: (askedMs: number, response: { date: string | null }) => void,
): Promise<RoomWord> {
  const asked = Date.now();
  try {
    const response = await fetch(`${base}/api/v1/rooms/${encodeURIComponent(room)}`, {
      headers: { Accept: 'application/json' },
      signal: AbortSignal.timeout(10_000),
    });
    observe(asked, { date: response.headers.get('Date') });
    const body: unknown = response.status === 200 ? await response.json() : undefined;
    return readRoom(response.status, body, response.headers.get('Retry-After'));
  } catch {
    return { kind: 'unreachable', retryAfterMs: RETRY_MS };
  }
}
