/** Details on demand: protocol, latency, resolution and what else tells how well it plays. */
import type { LamplightPlayer, PlayerStats } from '@lamplight/player';
import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { statRows } from './stat_rows';

const REFRESH_MS = 500;

export function StatList({ player }: { player: RefObject<LamplightPlayer | null> }) {
  const [stats, setStats] = useState<PlayerStats | undefined>(() => player.current?.stats());
  useEffect(() => {
    const timer = setInterval(() => setStats(player.current?.stats()), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <dl class="stats">
      {stats &&
        statRows(stats).map(({ name, value }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
