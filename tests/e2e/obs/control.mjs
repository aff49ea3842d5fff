/**
 * Speaks to the websocket of OBS: each line on stdin is a request, `{"requestType", "requestData"}`,
 * and is answered with one line of what OBS answers. Ends with stdin.
 *
 * Usage: node control.mjs '{"port", "password"}'
 */
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';

const CONNECT_MS_MAX = 30_000;
const LOOK_AGAIN_MS = 100;
/** The numbers of the protocol's messages. */
const OP = { hello: 0, identify: 1, identified: 2, request: 6, response: 7 };
/** OBS refuses while it loads. */
const NOT_READY = 207;
const task = JSON.parse(process.argv[2]);

const later = () => new Promise((go) => setTimeout(go, LOOK_AGAIN_MS));
const hash = (text) => createHash('sha256').update(text).digest('base64');

/** A connection, on which one message at a time is waited for. */
class Socket {
  static open() {
    return new Promise((opened, failed) => {
      const socket = new WebSocket(`ws://127.0.0.1:${task.port}`, ['obswebsocket.json']);
      socket.addEventListener('open', () => opened(new Socket(socket)));
      socket.addEventListener('error', () => failed(new Error('OBS does not listen')));
    });
  }

  constructor(socket) {
    this.socket = socket;
    this.early = [];
    this.waiting = null;
    socket.addEventListener('message', ({ data }) => {
      const said = JSON.parse(data);
      if (this.waiting) this.waiting.came(said);
      else this.early.push(said);
      this.waiting = null;
    });
    socket.addEventListener('close', () => {
      this.waiting?.failed(new Error('OBS closed the connection'));
    });
  }

  /** What the next message, which must be of this number, holds. */
  async hear(op) {
    const next = new Promise((came, failed) => {
      this.waiting = { came, failed };
    });
    if (this.early.length > 0) {
      this.waiting.came(this.early.shift());
      this.waiting = null;
    }
    const said = await next;
    if (said.op !== op) throw new Error(`OBS said ${JSON.stringify(said)}`);
    return said.d;
  }

  say(op, d) {
    this.socket.send(JSON.stringify({ op, d }));
  }
}

/** OBS listens some time after its start. */
async function connect() {
  const until = Date.now() + CONNECT_MS_MAX;
  for (;;) {
    try {
      return await Socket.open();
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    await later();
  }
}

async function identify(socket) {
  const { authentication } = await socket.hear(OP.hello);
  const secret = hash(task.password + authentication.salt);
  // No events: what comes are answers alone.
  socket.say(OP.identify, {
    rpcVersion: 1,
    eventSubscriptions: 0,
    authentication: hash(secret + authentication.challenge),
  });
  await socket.hear(OP.identified);
}

async function ask(socket, { requestType, requestData }) {
  for (;;) {
    socket.say(OP.request, { requestType, requestId: requestType, requestData });
    const { requestStatus, responseData } = await socket.hear(OP.response);
    if (requestStatus.result) return responseData ?? {};
    if (requestStatus.code !== NOT_READY) throw new Error(JSON.stringify(requestStatus));
    await later();
  }
}

try {
  const socket = await connect();
  await identify(socket);
  process.stdout.write('ready\n');
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await ask(socket, JSON.parse(line));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  socket.socket.close();
} catch (error) {
  process.stderr.write(`control: ${error.message}\n`);
  process.exit(1);
}
