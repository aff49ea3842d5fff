/** The rooms of the public API: what the pages read of them; unknown fields are ignored. */

export interface Room {
  id: string;
  title: string;
  state: string;
  startsAt: string | undefined;
  creator: { name: string; handle: string } | undefined;
}

export type RoomAnswer =
  | { kind: 'found'; room: Room }
  | { kind: 'unknown' }
  | { kind: 'unreachable' };

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** One room out of JSON; nothing if it has no id. */
export function readRoom(json: unknown): Room | undefined {
  if (typeof json !== 'object' || json === null) return undefined;
  const { id, title, state, starts_at, creator } = json as Record<string, unknown>;
  if (typeof id !== 'string' || id === '') return undefined;
  const { name, handle } = (creator ?? {}) as Record<string, unknown>;
  const known = text(name) || text(handle);
  return {
    id,
    title: text(title) || 'Untitled show',
    state: text(state),
    startsAt: typeof starts_at === 'string' ? starts_at : undefined,
    creator: known ? { name: known, handle: text(handle) } : undefined,
  };
}

async function answer(path: string): Promise<Response | undefined> {
  try {
    return await fetch(path, {
      headers: { Accept: 'application/json' },
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    return undefined;
  }
}

/** The rooms on the first page of the list, newest first as the API gives them. */
export async function listRooms(): Promise<Room[] | undefined> {
  const response = await answer('/api/v1/rooms?limit=200');
  if (!response?.ok) return undefined;
  const body = (await response.json().catch(() => undefined)) as { data?: unknown } | undefined;
  if (!Array.isArray(body?.data)) return undefined;
  return body.data.map(readRoom).filter((room) => room !== undefined);
}

export async function findRoom(id: string): Promise<RoomAnswer> {
  const response = await answer(`/api/v1/rooms/${encodeURIComponent(id)}`);
  if (response?.status === 404) return { kind: 'unknown' };
  const room = response?.ok ? readRoom(await response.json().catch(() => undefined)) : undefined;
  return room ? { kind: 'found', room } : { kind: 'unreachable' };
}
