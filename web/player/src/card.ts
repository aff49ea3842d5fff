/**
 * The card envelope: what a cue of class `card` holds.
 *
 * An unknown action or odd data is not an error: the page shows what it understands.
 */
import { parseObject } from './cue';

export interface CardEnvelope {
  v: number;
  room: string;
  seq: number;
  action: string;
  at_us: number;
  issued_us: number;
  ttl_us: number;
  entry: string | null;
  data: Record<string, unknown>;
}

/** Money on the wire: minor units, never a float. */
export interface Money {
  amount: number;
  currency: string;
}

function integer(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? Math.trunc(value) : 0;
}

/** The payload of a cue as an envelope; `undefined` if it has no action. */
export function readCard(payload: string): CardEnvelope | undefined {
  const json = parseObject(payload);
  if (!json || typeof json.action !== 'string') return undefined;
  const data = json.data;
  return {
    v: integer(json.v),
    room: typeof json.room === 'string' ? json.room : '',
    seq: integer(json.seq),
    action: json.action,
    at_us: integer(json.at_us),
    issued_us: integer(json.issued_us),
    ttl_us: integer(json.ttl_us),
    entry: typeof json.entry === 'string' ? json.entry : null,
    data: typeof data === 'object' && data !== null ? (data as Record<string, unknown>) : {},
  };
}
