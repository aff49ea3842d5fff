/** `/`: what is live now, what comes soon, and how to go live. */
import { useEffect, useState } from 'preact/hooks';
import { type Room, listRooms } from '../api/rooms';
import { Brand } from '../ui/brand';
import { GoLive } from './go_live';
import './home.css';
import { RoomCard } from './room_card';

const REFRESH_MS = 5_000;
const SOON = ['scheduled', 'rehearsal', 'interrupted'];
const SOON_MAX = 12;

/** The list, asked for again while the page is visible. `undefined` until the first answer. */
function useRooms(): { rooms: Room[] | undefined; isLost: boolean } {
  const [rooms, setRooms] = useState<Room[]>();
  const [isLost, setLost] = useState(false);
  useEffect(() => {
    let isOver = false;
    const refresh = async () => {
      if (document.hidden) return;
      const found = await listRooms();
      if (isOver) return;
      setLost(found === undefined);
      if (found) setRooms(found);
    };
    void refresh();
    const timer = setInterval(() => void refresh(), REFRESH_MS);
    document.addEventListener('visibilitychange', refresh);
    return () => {
      isOver = true;
      clearInterval(timer);
      document.removeEventListener('visibilitychange', refresh);
    };
  }, []);
  return { rooms, isLost };
}

export function HomePage() {
  const { rooms, isLost } = useRooms();
  const live = rooms?.filter((room) => room.state === 'live') ?? [];
  const soon = rooms?.filter((room) => SOON.includes(room.state)).slice(0, SOON_MAX) ?? [];
  return (
    <div class="home">
      <header class="home-head">
        <Brand />
        <p class="home-count" role="status">
          {isLost ? 'Reconnecting…' : rooms ? countWords(live.length) : ''}
        </p>
      </header>
      <main>
        {live.length > 0 && <Shelf title="Live now" rooms={live} />}
        {rooms && live.length === 0 && <NothingLive hasSoon={soon.length > 0} />}
        {!rooms && <Loading isLost={isLost} />}
        {soon.length > 0 && <Shelf title="Coming up" rooms={soon} />}
        {live.length > 0 && (
          <details class="go-live-more">
            <summary>Go live yourself</summary>
            <GoLive />
          </details>
        )}
      </main>
    </div>
  );
}

function countWords(count: number): string {
  if (count === 0) return 'No show on air';
  return count === 1 ? '1 show on air' : `${count} shows on air`;
}

function Shelf({ title, rooms }: { title: string; rooms: Room[] }) {
  return (
    <section class="shelf" aria-label={title}>
      <h2>{title}</h2>
      <ul>
        {rooms.map((room) => (
          <li key={room.id}>
            <RoomCard room={room} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function NothingLive({ hasSoon }: { hasSoon: boolean }) {
  return (
    <section class="nothing">
      <div class="nothing-words">
        <h1>Nobody is live. It could be you.</h1>
        <p>
          {hasSoon
            ? 'The next shows are below. Meanwhile, here is how to start one of your own.'
            : 'Bring any camera and OBS. Four steps, about a minute.'}
        </p>
      </div>
      <GoLive />
    </section>
  );
}

function Loading({ isLost }: { isLost: boolean }) {
  return (
    <section class="shelf" aria-busy={!isLost}>
      <h2>{isLost ? 'The server does not answer. Trying again…' : 'Live now'}</h2>
      <ul aria-hidden="true">
        {[0, 1, 2].map((index) => (
          <li key={index} class="room-card room-card-loading" />
        ))}
      </ul>
    </section>
  );
}
