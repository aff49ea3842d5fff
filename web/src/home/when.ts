/** When a show starts, in words. */

/** `Starts at …` for an announced time, else what its state promises. */
export function whenStarts(startsAt: string | undefined, state: string, locale?: string): string {
  const at = startsAt === undefined ? Number.NaN : Date.parse(startsAt);
  if (Number.isFinite(at)) {
    const format = new Intl.DateTimeFormat(locale, {
      weekday: 'short',
      day: 'numeric',
      month: 'short',
      hour: '2-digit',
      minute: '2-digit',
    });
    return `Starts ${format.format(at)}`;
  }
  return state === 'interrupted' ? 'Back in a moment' : 'Starts when the host goes live';
}
