/** Any address that is not a page. */
import { Brand } from '../ui/brand';

export function LostPage() {
  return (
    <div class="home">
      <header class="home-head">
        <Brand />
      </header>
      <main class="lost">
        <h1>There is nothing at this address</h1>
        <p>The link may be old, or a letter went missing on the way.</p>
        <a class="button button-primary" href="/">
          See what is live
        </a>
      </main>
    </div>
  );
}
