'use strict';

// The page around the board: who you are, how the connection is doing, what came and went.
// The state is kept by /capsule.js, the board drawn by board.js.

// ---------------------------------------------------------------- The page

const EVENTS = ['initial', 'publish', 'change', 'retract', 'position', 'reset'];
const LOG_LINES = 30;

/** Runs the page: signs in, connects, and draws the state after each change. */
async function start() {
  const user = new URLSearchParams(location.search).get('user');
  const users = await fetch('/demo/users').then((answer) => answer.json()).catch(() => []);
  if (!user) {
    showSignIn(users);
    return;
  }
  showWho(user, users);

  const socket = io({ query: { demo_user: user, resume: 1 } });
  const capsule = Capsule.connect(socket);
  const log = new Log();
  const calls = new Calls(capsule, (event, data, ack, ms) => log.call(event, data, ack, ms));
  const board = new Board(capsule, calls, user);
  capsule.on('change', (change) => board.changed(change));
  capsule.on('ready', (how) => {
    log.ready(how);
    board.draw();
  });
  followState(socket, users);
  for (const event of EVENTS) socket.on(event, (data) => log.event(event, data));
}

const $ = (id) => document.getElementById(id);

function show(element, visible) {
  element.hidden = !visible;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function toggle(element, attribute, on) {
  if (on) element.setAttribute(attribute, '');
  else element.removeAttribute(attribute);
}

function fromTemplate(name) {
  return $(name).content.firstElementChild.cloneNode(true);
}

function pageOf(user) {
  return `?user=${encodeURIComponent(user)}`;
}

function showSignIn(users, sentence) {
  const links = users.map(({ id, name }) => {
    const link = document.createElement('a');
    link.href = pageOf(id);
    link.textContent = name;
    const entry = document.createElement('li');
    entry.append(link);
    return entry;
  });
  $('users').replaceChildren(...links);
  const note = sentence || (users.length ? '' : 'The demo users could not be read. Is the gateway running?');
  setText($('sign-in-note'), note);
  show($('sign-in-note'), note !== '');
  show($('sign-in'), true);
  show($('waiting'), false);
  show($('board'), false);
}

function showWho(user, users) {
  const me = users.find(({ id }) => id === user);
  setText($('me'), me ? me.name : user);
  for (const { id, name } of users) {
    if (id === user) continue;
    const link = document.createElement('a');
    link.href = pageOf(id);
    link.target = '_blank';
    link.rel = 'noopener';
    link.textContent = `open as ${name} in another window`;
    $('others').append(' · ', link);
  }
  for (const id of ['who', 'status', 'log-toggle', 'waiting']) show($(id), true);
}

/** Shows how the connection is doing. */
function followState(socket, users) {
  const say = (state, text) => {
    $('status').dataset.state = state;
    setText($('status-text'), text);
    toggle($('board'), 'data-stale', state !== 'connected');
  };
  const sayConnected = () => say('connected', `Connected · ${socket.io.engine.transport.name}`);
  socket.on('connect', () => {
    sayConnected();
    socket.io.engine.on('upgrade', sayConnected);
  });
  socket.on('disconnect', (reason) => {
    if (reason === 'io server disconnect') say('closed', 'Closed by the gateway');
    else say('reconnecting', 'Reconnecting');
  });
  socket.on('connect_error', (error) => {
    if (error.message !== 'unauthorized') {
      say('reconnecting', 'Reconnecting');
      return;
    }
    socket.close();
    say('refused', 'Refused');
    show($('who'), false);
    show($('log-toggle'), false);
    showSignIn(users, 'The gateway does not know this user.');
  });
}

function toast(error) {
  const message = document.createElement('div');
  message.className = 'toast';
  if (error.code) {
    const code = document.createElement('code');
    code.textContent = error.code;
    message.append(code);
  }
  const sentence = document.createElement('span');
  sentence.textContent = error.message;
  message.append(sentence);
  $('toasts').append(message);
  setTimeout(() => message.remove(), 7000);
}

function say(sentence) {
  $('said').textContent = sentence;
}

/**
 * Calls to the gateway: each ends with the ack, or fails with a sentence.
 *
 * Nothing is queued while the connection is away: an edit that goes out
 * minutes later is no longer what anybody meant.
 */
class Calls {
  constructor(capsule, seen) {
    this.capsule = capsule;
    this.seen = seen;
  }

  call(event, data) {
    const started = performance.now();
    return new Promise((resolve, reject) => {
      this.capsule.call(event, data, (ack) => {
        this.seen(event, data, ack, performance.now() - started);
        if (ack.code >= 200 && ack.code < 300) resolve(ack);
        else reject(Object.assign(new Error(sentence(ack)), { code: ack.code }));
      });
    });
  }
}

function sentence({ code, error }) {
  if (code === 0) return 'There is no connection. Try again in a moment.';
  return error || 'The gateway said no.';
}

// ----------------------------------------------------------------- The log

/** The drawer that lists what came and went, newest first. */
class Log {
  constructor() {
    this.lines = $('log-lines');
    $('log-toggle').addEventListener('click', () => this.open($('log').hidden));
    $('log-close').addEventListener('click', () => this.open(false));
    $('log-clear').addEventListener('click', () => this.lines.replaceChildren());
    document.addEventListener('keydown', ({ key: pressed }) => {
      if (pressed === 'Escape' && $('log').contains(document.activeElement)) this.open(false);
    });
  }

  open(visible) {
    const hadFocus = $('log').contains(document.activeElement);
    show($('log'), visible);
    toggle(document.body, 'data-log', visible);
    $('log-toggle').setAttribute('aria-expanded', visible);
    if (visible) $('log-close').focus();
    else if (hadFocus) $('log-toggle').focus();
  }

  event(name, data) {
    const where = [data.feed, data.id].filter(Boolean).join(' · ');
    this.line('event', `↓ ${name}`, where, data.v, data);
  }

  call(name, data, ack, ms) {
    const where = [data.feed, data.id || ack.id].filter(Boolean).join(' · ');
    this.line(ack.code >= 200 && ack.code < 300 ? 'call' : 'failed', `↑ ${name}`, where, `${ack.code}, ${Math.round(ms)} ms`, { data, ack });
  }

  /** How the state came in step after a connect. */
  ready({ initial, resumed, reset }) {
    const how = initial ? 'the whole state came' : `${resumed} feeds went on, ${reset} came anew`;
    this.line('event', '⇅ ready', how, '', { initial, resumed, reset });
  }

  line(kind, name, where, aside, data) {
    const line = fromTemplate('line-template');
    line.dataset.kind = kind;
    setText(line.querySelector('time'), new Date().toTimeString().slice(0, 8));
    setText(line.querySelector('.event'), name);
    line.querySelector('.event').title = name;
    // A long name breaks behind its dots.
    for (const part of where.match(/[^.]+\.?|\./g) || []) line.querySelector('.feed').append(part, document.createElement('wbr'));
    const isCall = kind !== 'event';
    setText(line.querySelector('.v'), isCall ? aside : aside ? `v ${aside.slice(0, 8)}` : '');
    setText(line.querySelector('pre'), JSON.stringify(data, null, 2));
    this.lines.prepend(line);
    while (this.lines.children.length > LOG_LINES) this.lines.lastElementChild.remove();
  }
}

start();
