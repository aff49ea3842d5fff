/** The name and the colours a show gets for want of a picture. */

/** The flame and the word, as a link home. */
export function Brand() {
  return (
    <a class="brand" href="/" aria-label="Lamplight, all live shows">
      <svg viewBox="0 0 24 24" aria-hidden="true" class="brand-mark">
        <defs>
          <linearGradient id="flame" x1="0" y1="0" x2="0" y2="1">
            <stop offset="0" stop-color="#ffe3a8" />
            <stop offset="1" stop-color="#f47b2e" />
          </linearGradient>
        </defs>
        <path
          d="M12 1.8c5 4.5 7.8 8.6 7.8 13.1a7.8 7.8 0 0 1-15.6 0c0-4.5 2.8-8.6 7.8-13.1Z"
          fill="url(#flame)"
        />
        <path d="M9.6 11.6v7l5.7-3.5Z" fill="#17120c" />
      </svg>
      <span>Lamplight</span>
    </a>
  );
}

/** A steady hue out of any text, so that a show looks the same everywhere. */
export function hueOf(text: string): number {
  let hash = 2_166_136_261;
  for (const char of text) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 16_777_619) >>> 0;
  return hash % 360;
}

/** Up to two initials. */
export function initialsOf(name: string): string {
  const parts = name.trim().split(/\s+/);
  const letters = parts.length > 1 ? [parts[0], parts.at(-1)] : [parts[0]];
  return letters.map((part) => [...(part ?? '')][0] ?? '').join('').toLocaleUpperCase();
}

/** A round portrait made of initials. */
export function Avatar({ name }: { name: string }) {
  return (
    <span class="avatar" style={{ '--hue': hueOf(name) }} aria-hidden="true">
      {initialsOf(name)}
    </span>
  );
}
