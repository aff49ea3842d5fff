/** Details on demand: protocol, latency, resolution and what else tells how well it plays. */
import type { LamplightPlayer, PlayerStats } from '@lamplight/player';
import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { CloseIcon } from '../ui/icons';
import { statRows } from './stat_rows';

const REFRESH_MS = 500;

interface StatsPanelProps {
  player: RefObject<LamplightPlayer | null>;
  close(): void;
}

export function StatsPanel({ player, close }: StatsPanelProps) {
  const [stats, setStats] = useState<PlayerStats | undefined>(() => player.current?.stats());
  useEffect(() => {
    const timer = setInterval(() => setStats(player.current?.stats()), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <section class="panel stats" aria-label="Stream details">
      <header>
        <h2>Stream details</h2>
        <button type="button" class="icon-button" onClick={close} aria-label="Close stream details">
          <CloseIcon />
        </button>
      </header>
      <dl>
        {stats &&
          statRows(stats).map(({ name, value }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}
