/** How to go live, for whoever finds nothing on. */
import { useState } from 'preact/hooks';
import { CheckIcon, CopyIcon } from '../ui/icons';

/** The RTMP server as OBS wants it, on the host this page came from. */
export function rtmpServer(hostname: string): string {
  return `rtmp://${hostname === 'localhost' ? '127.0.0.1' : hostname}:1935/live`;
}

export function GoLive() {
  const server = rtmpServer(location.hostname);
  return (
    <ol class="steps">
      <li>
        <h3>Open OBS</h3>
        <p>
          Settings, then <b>Stream</b>. Choose <b>Custom…</b> as the service.
        </p>
      </li>
      <li>
        <h3>Paste the server</h3>
        <CopyField label="Server" value={server} />
      </li>
      <li>
        <h3>Paste your stream key</h3>
        <p>
          It begins with <code>live_</code>. <code>lamplight demo</code> prints one; every room can
          make more.
        </p>
      </li>
      <li>
        <h3>Start streaming</h3>
        <p>Your show appears on this page by itself. Any OBS settings will do.</p>
      </li>
    </ol>
  );
}

function CopyField({ label, value }: { label: string; value: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      setCopied(true);
      setTimeout(() => setCopied(false), 1_800);
    } catch {
      // No clipboard on plain HTTP from afar: the text can still be selected.
    }
  };
  return (
    <div class="copy-field">
      <code>{value}</code>
      <button type="button" class="icon-button" onClick={copy} aria-label={`Copy ${label}`}>
        {isCopied ? <CheckIcon /> : <CopyIcon />}
      </button>
      <span class="sr-only" role="status">
        {isCopied ? `${label} copied` : ''}
      </span>
    </div>
  );
}
