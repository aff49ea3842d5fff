/** The picture's own light around the picture: a tiny copy of it, stretched over the stage. */
import type { LamplightPlayer } from '@lamplight/player';
import type { RefObject } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

const REFRESH_MS = 500;

export function Ambient({ player }: { player: RefObject<LamplightPlayer | null> }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const isStill = matchMedia('(prefers-reduced-motion: reduce)');
    const timer = setInterval(() => {
      const video = player.current?.video;
      const surface = canvas.current?.getContext('2d', { alpha: false });
      if (!video || !surface || document.hidden || isStill.matches || video.readyState < 2) return;
      surface.drawImage(video, 0, 0, surface.canvas.width, surface.canvas.height);
    }, REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return <canvas ref={canvas} class="ambient" width="16" height="12" aria-hidden="true" />;
}
