// Real socket.io clients on a leash: one process, any number of clients of any
// generation, driven line by line.
//
//   node client.js '{"version":"4.8","url":"http://127.0.0.1:3000","transports":["websocket"],"cookie":"connect.sid=…"}'
//   node client.js '[{"version":"1.7.4",…},{"version":"2.5.0",…}]'
//   node client.js                                        all are opened by commands
//
// A spec: version 1.4.8 | 1.7.4 | 2.5.0 | 3.1.3 | 4.8, url; and where wanted
// transports, cookie, origin, headers, query, path, namespace (with its own query, if
// it has one), userFeed, extra (options handed to the client as they are), events
// (false: apply them, but do not print them), packets (true: print what engine.io
// hears, too), capsule (true: the state is kept by capsule.js, and every event has to
// leave the same in the literal client's tree).
//
// Out, one JSON a line, each with "c", the index of its client:
//   {"t":"connect","id","recovered"?} {"t":"transport","name"} {"t":"attempt","n"}
//   {"t":"packet","type","after"}, after so many milliseconds of the client's life
//   {"t":"event","name","args"} {"t":"ack","id","value"} {"t":"disconnect","reason"}
//   {"t":"connect_error","message","data"?,"description"?} {"t":"error","value"}
//   {"t":"told","type","feed","id"} {"t":"ready",…}, of capsule.js
//   {"t":"tree","tree","subscriptions","problems"} {"t":"mistake","message"}
// In, one JSON a line; "c" may be left out where there is one client:
//   {"cmd":"emit","name","args":[…],"ack":ID?} {"cmd":"tree"} {"cmd":"connect","url"?}
//   {"cmd":"disconnect"} {"cmd":"cut"} {"cmd":"pause"} {"cmd":"resume"} {"cmd":"exit"}
//   {"cmd":"open","spec"} {"cmd":"forget"} {"cmd":"count","name","to","every"}
//   {"cmd":"claim","pid","offset"}
// In `args` {"type":"Buffer","data":[…]} is binary data, as Node itself writes it.
// `cut` loses the connection as a network would; `pause` stops reading the
// websocket's TCP stream; `count` emits 0, 1, 2 …, one every so many milliseconds;
// `claim` makes a 4.6+ client ask for its state by what another server had given it.
// An event `ask` that wants an answer is answered with its own argument. The end of
// stdin is an exit.
'use strict';

const readline = require('node:readline');
const { isDeepStrictEqual } = require('node:util');
const Capsule = require('../../assets/capsule.js');
const { Tree } = require('./tree.js');

const PACKAGES = {
  '1.4.8': 'sio-1.4.8',
  '1.7.4': 'sio-1.7.4',
  '2.5.0': 'sio-2.5.0',
  '3.1.3': 'sio-3.1.3',
  '4.8': 'sio-4.8',
};

/** A refused connection is closed a second later. */
const BEHIND_A_REFUSAL = 1500;

function say(message) {
  process.stdout.write(`${JSON.stringify(message, bytes)}\n`);
}

class Client {
  constructor(spec, index) {
    this.index = index;
    this.prints = spec.events !== false;
    this.tree = new Tree({ userFeed: spec.userFeed });
    this.attempts = 0;
    this.socket = open(spec);
    this.listen();
    if (spec.packets) this.overhear();
    if (spec.capsule) this.keep(spec);
  }

  /** Keeps the state by capsule.js as well. */
  keep(spec) {
    this.capsule = Capsule.connect(this.socket, { user: spec.userFeed });
    this.capsule.on('change', ({ type, feed, id }) => this.say({ t: 'told', type, feed, id }));
    this.capsule.on('ready', (how) => this.say({ t: 'ready', ...how }));
    this.wanted = [];
  }

  /** What capsule.js holds, in the shape of `initial`. */
  kept() {
    const { attrs, models, collections } = this.capsule;
    return JSON.parse(JSON.stringify({ attrs, models, collections }));
  }

  say(message) {
    say({ c: this.index, ...message });
  }

  listen() {
    const { socket } = this;
    const manager = socket.io;

    // The one place through which every event passes, in every generation.
    const onevent = socket.onevent;
    socket.onevent = (packet) => {
      const [name, ...args] = packet.data;
      this.tree.apply(name, args[0]);
      if (this.prints) this.say({ t: 'event', name, args });
      onevent.call(socket, packet);
    };

    socket.on('connect', () => {
      this.returns = false;
      this.say({ t: 'connect', id: socket.id, recovered: socket.recovered });
      const { engine } = manager;
      // The id on the wire, which from 3.x on is not the socket's.
      this.say({ t: 'transport', name: engine.transport.name, sid: engine.id });
      engine.on('upgrade', (transport) => this.say({ t: 'transport', name: transport.name }));
    });
    socket.on('ask', (value, answer) => {
      if (typeof answer === 'function') answer(value);
    });
    socket.on('disconnect', (reason) => this.say({ t: 'disconnect', reason }));
    socket.on('connect_error', (error) => {
      this.say({
        t: 'connect_error',
        message: text(error),
        data: error && error.data,
        description: description(error),
      });
      this.refused(text(error));
    });
    socket.on('error', (error) => {
      this.say({ t: 'error', value: plain(error) });
      this.refused(plain(error));
    });

    // Before 3.x the manager repeats its events on every socket and is heard too.
    manager.on('reconnect_attempt', () => {
      this.attempts += 1;
      this.say({ t: 'attempt', n: this.attempts });
    });
  }

  /** Prints what engine.io hears on its first connection. */
  overhear() {
    const began = Date.now();
    const hear = ({ type }) => this.say({ t: 'packet', type, after: Date.now() - began });
    this.socket.io.engine.on('packet', hear);
  }

  /** Emits numbers, some of them before whatever is under way is done. */
  count({ name, to, every }) {
    let number = 0;
    const next = () => {
      this.socket.emit(name, number);
      number += 1;
      if (number < to) setTimeout(next, every);
    };
    next();
  }

  /** Ends for good. */
  forget() {
    this.socket.disconnect();
    this.socket.io.disconnect();
  }

  emit({ name, args = [], ack }) {
    const answered = (...values) => {
      this.follow(name, args[0], values[0]);
      if (ack !== undefined) this.say({ t: 'ack', id: ack, value: values[0] });
    };
    const heard = ack !== undefined || name === 'subscribe' || name === 'unsubscribe';
    if (this.capsule && name === 'subscribe') {
      this.wanted.push(args[0].feed);
      this.capsule.subscribe(args[0].feed, answered);
    } else if (heard) this.socket.emit(name, ...args, answered);
    else this.socket.emit(name, ...args);
  }

  /** Subscriptions come and go by their acks. */
  follow(name, argument, answer) {
    if (!answer || answer.code !== 200 || !argument) return;
    if (name === 'subscribe') this.tree.subscribed(argument.feed, answer.collection);
    if (name === 'unsubscribe') this.tree.unsubscribed(argument.feed);
  }

  held() {
    const tree = this.tree.toJSON();
    const { subscriptions, problems } = this.tree;
    if (!this.capsule) return { tree, subscriptions, problems };
    const kept = this.kept();
    const differs = isDeepStrictEqual(kept, tree) ? [] : [{ problem: 'not as the literal client', tree }];
    const wanted = Object.fromEntries(this.wanted.map((feed) => [feed, this.capsule.feed(feed)]));
    return { tree: kept, subscriptions: wanted, problems: [...problems, ...differs] };
  }

  /** A refusal that was under way when it was told to connect is not the last word. */
  refused(reason) {
    if (reason !== 'unauthorized' || !this.returns) return;
    setTimeout(() => this.returns && this.socket.connect(), BEHIND_A_REFUSAL);
  }

  /** Goes elsewhere with its next connection, if it is told where. */
  turn({ url }) {
    if (url) this.socket.io.uri = url;
  }

  tcp() {
    const { ws } = this.socket.io.engine.transport;
    if (!ws || !ws._socket) throw new Error('this client is not on a websocket');
    return ws._socket;
  }

  obey(command) {
    switch (command.cmd) {
      case 'emit':
        return this.emit(command);
      case 'count':
        return this.count(command);
      case 'claim':
        this.socket._pid = command.pid;
        this.socket._lastOffset = command.offset;
        return undefined;
      case 'tree':
        return this.say({ t: 'tree', ...this.held() });
      case 'connect':
        this.turn(command);
        this.returns = !this.socket.connected;
        return this.socket.connect();
      case 'disconnect':
        return this.socket.disconnect();
      case 'cut':
        this.turn(command);
        return this.socket.io.engine.close();
      case 'pause':
        return this.tcp().pause();
      case 'resume':
        return this.tcp().resume();
      default:
        throw new Error(`unknown command ${JSON.stringify(command.cmd)}`);
    }
  }
}

function open(spec) {
  const name = PACKAGES[spec.version];
  if (!name) throw new Error(`unknown version ${JSON.stringify(spec.version)}`);
  const io = require(name);
  const extraHeaders = { ...spec.headers };
  if (spec.cookie) extraHeaders.Cookie = spec.cookie;
  if (spec.origin) extraHeaders.Origin = spec.origin;
  const options = {
    forceNew: true,
    transports: spec.transports || ['polling', 'websocket'],
    extraHeaders,
    reconnectionDelay: 200,
    reconnectionDelayMax: 1000,
    ...spec.extra,
  };
  if (spec.query) options.query = spec.query;
  if (spec.path) options.path = spec.path;
  return io(spec.url + (spec.namespace || ''), options);
}

function text(error) {
  if (error && error.message !== undefined) return error.message;
  return typeof error === 'string' ? error : JSON.stringify(error);
}

function plain(error) {
  return error instanceof Error ? text(error) : error;
}

/** The HTTP status of a failed poll, or what a failed websocket said. */
function description(error) {
  const value = error && error.description;
  if (value === null || value === undefined) return undefined;
  if (typeof value !== 'object') return value;
  return value.message || (value.error && text(value.error)) || undefined;
}

/** Writes binary data as Node itself does, whatever a generation makes of it. */
function bytes(key, value) {
  return value instanceof ArrayBuffer ? Buffer.from(value).toJSON() : value;
}

/** Makes binary data of what Node writes for it. */
function revive(key, value) {
  const isBuffer = value && value.type === 'Buffer' && Array.isArray(value.data);
  return isBuffer ? Buffer.from(value.data) : value;
}

function main() {
  const specs = process.argv[2] ? [].concat(JSON.parse(process.argv[2])) : [];
  const clients = new Map(specs.map((spec, index) => [index, new Client(spec, index)]));

  const obey = (command) => {
    const index = command.c || 0;
    if (command.cmd === 'exit') process.exit(0);
    if (command.cmd === 'open') {
      clients.set(index, new Client(command.spec, index));
      return;
    }
    const client = clients.get(index);
    if (!client) throw new Error(`there is no client ${command.c}`);
    if (command.cmd === 'forget') {
      clients.delete(index);
      client.forget();
    } else client.obey(command);
  };

  process.stdout.on('error', () => process.exit(0));
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    if (!line.trim()) return;
    try {
      obey(JSON.parse(line, revive));
    } catch (error) {
      say({ t: 'mistake', message: `${error.message}: ${line.slice(0, 200)}` });
    }
  });
  lines.on('close', () => process.exit(0));
}

main();
