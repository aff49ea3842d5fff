/** Measurements in words. A row whose number is not known is left out. */
import type { PlayerStats, Protocol } from '@lamplight/player';

export interface StatRow {
  name: string;
  value: string;
}

export const PROTOCOL_NAMES: Record<Protocol, string> = {
  whep: 'Real time (WebRTC)',
  hls: 'LL-HLS',
};

function seconds(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : `${(ms / 1000).toFixed(2)} s`;
}

function milliseconds(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : `${Math.round(ms)} ms`;
}

function bitrate(bps: number | undefined): string | undefined {
  if (bps === undefined || !(bps > 0)) return undefined;
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mb/s` : `${Math.round(bps / 1e3)} kb/s`;
}

/** Time since the show's first frame: hours, minutes, seconds, thousandths. */
export function formatT(tUs: number | undefined): string | undefined {
  if (tUs === undefined) return undefined;
  const ms = Math.max(0, Math.floor(tUs / 1000));
  const two = (value: number) => String(value).padStart(2, '0');
  const whole = Math.floor(ms / 1000);
  const clock = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${clock.map(two).join(':')}.${String(ms % 1000).padStart(3, '0')}`;
}

export function statRows(stats: PlayerStats): StatRow[] {
  const rows: [string, string | undefined][] = [
    ['Protocol', stats.protocol && PROTOCOL_NAMES[stats.protocol]],
    ['Live latency', seconds(stats.latency_ms)],
    ['Distance target', seconds(stats.target_latency_ms)],
    ['Resolution', stats.width > 0 ? `${stats.width} × ${stats.height}` : undefined],
    ['Frame rate', stats.fps === undefined ? undefined : `${stats.fps.toFixed(1)} fps`],
    ['Codecs', stats.codecs],
    ['Bitrate', bitrate(stats.bitrate_bps)],
    ['Buffer', milliseconds(stats.buffer_ms)],
    ['Round trip', milliseconds(stats.rtt_ms)],
    ['Jitter', milliseconds(stats.jitter_ms)],
    ['Packets lost', stats.packets_lost === undefined ? undefined : String(stats.packets_lost)],
    ['Frames dropped', String(stats.dropped_frames)],
    ['Longest wait', milliseconds(stats.longest_gap_ms)],
    ['First picture', milliseconds(stats.first_frame_ms)],
    ['Show time', formatT(stats.t_us)],
  ];
  return rows.flatMap(([name, value]) => (value ? [{ name, value }] : []));
}
