/** Start of the front end: which page an address means. */
import { render } from 'preact';
import { HomePage } from './home/home_page';
import { LostPage } from './home/lost_page';
import './ui/base.css';
import { roomOfPath } from './route';
import { WatchPage } from './watch/watch_page';

function Page() {
  const { pathname, search } = location;
  const room = roomOfPath(pathname);
  if (room) return <WatchPage room={room} query={new URLSearchParams(search)} />;
  return pathname === '/' || pathname === '/index.html' ? <HomePage /> : <LostPage />;
}

const app = document.getElementById('app');
if (app) render(<Page />, app);
