/** A sheet over the stage: from below on a phone, beside the controls elsewhere. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { CloseIcon } from '../ui/icons';

interface PanelProps {
  title: string;
  close(): void;
  children: ComponentChildren;
}

export function Panel({ title, close, children }: PanelProps) {
  const sheet = useRef<HTMLElement>(null);
  useEffect(() => {
    // The keyboard continues inside, and returns to where it was.
    const before = document.activeElement;
    sheet.current?.focus({ preventScroll: true });
    return () => before instanceof HTMLElement && before.focus({ preventScroll: true });
  }, []);
  return (
    <>
      <div class="scrim" onClick={close} />
      <section class="panel" ref={sheet} tabIndex={-1} role="dialog" aria-label={title}>
        <header>
          <h2>{title}</h2>
          <button type="button" class="icon-button" onClick={close} aria-label={`Close ${title}`}>
            <CloseIcon />
          </button>
        </header>
        {children}
      </section>
    </>
  );
}
