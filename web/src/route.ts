/** The addresses of the front end. */

/** The room of `/rooms/{room}`, or nothing for any other address. */
export function roomOfPath(path: string): string | undefined {
  const found = /^\/rooms\/([^/]+)\/?$/.exec(path);
  try {
    return found?.[1] ? decodeURIComponent(found[1]) : undefined;
  } catch {
    return undefined;
  }
}

export function pathOfRoom(room: string): string {
  return `/rooms/${encodeURIComponent(room)}`;
}
