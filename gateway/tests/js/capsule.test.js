// What capsule.js promises, told by a scripted socket; no gateway is needed.
//
//   node capsule.test.js [HISTORIES]
//
// `capsule.browser.js` runs the same in a browser without the built-ins of ES5, so it is written
// in ES3 and uses none of them.

var runCapsuleTests = function (Capsule, Backbone, World, Histories, histories, say, clock) {
  'use strict';

  var each = World.each;
  var failures = 0;
  var timers = [];

  clock.setTimeout = function (run, after) { timers.push({ run: run, after: after }); };

  /** Lets all timers end, whatever they wait for. */
  function later() {
    while (timers.length) timers.shift().run();
  }

  function fact(sentence, prove) {
    try {
      timers = [];
      prove();
      later();
      say('ok    ' + sentence);
    } catch (error) {
      failures += 1;
      say('FAILS ' + sentence + ': ' + (error.message || error));
    }
  }

  function same(found, expected, what) {
    if (World.text(found) === World.text(expected)) return;
    throw new Error((what || '') + '\n   found    ' + World.text(found) + '\n   expected ' + World.text(expected));
  }

  /** A socket that says what it is told to, and keeps what it was asked. */
  function Socket(fields) {
    this.listeners = {};
    this.asked = [];
    for (var name in fields) if (World.has(fields, name)) this[name] = fields[name];
  }

  Socket.prototype.on = function (name, listener) {
    (this.listeners[name] = this.listeners[name] || []).push(listener);
  };

  Socket.prototype.emit = function (name, data, ack) {
    this.asked.push({ name: name, data: World.copy(data), ack: ack });
  };

  Socket.prototype.say = function (name, data) {
    each(this.listeners[name] || [], function (listener) { listener(World.copy(data)); });
  };

  /** The last thing that was asked. */
  Socket.prototype.last = function () {
    return this.asked[this.asked.length - 1];
  };

  function collection(id, v, models) {
    return { id: id, v: v, models: models || [] };
  }

  function model(id, collections) {
    return { id: id, attrs: { id: id }, collections: collections || {} };
  }

  /** Two teams with members and tasks, `news` in both, and the user's notes. */
  function state() {
    function team(id) {
      var members = collection('team.' + id + '.members', id + '1', [
        model('ann', { tasks: collection('team.' + id + '.members.ann.tasks', id + '2', [model('1'), model('2'), model('3')]) }),
        model('bob', { tasks: collection('team.' + id + '.members.bob.tasks', id + '3') })
      ]);
      return { id: id, v: id + '0', attrs: { id: id }, collections: { members: members, news: collection('news', 'n1', [model('a')]) } };
    }
    return {
      attrs: { id: 'ann' },
      models: { user: { id: 'ann', v: 'u1', attrs: { id: 'ann' }, collections: { notes: collection('user.ann.notes', 'o1') } } },
      collections: { teams: { id: 'teams', models: [team('red'), team('blue')] } }
    };
  }

  /** A page with that state: its socket, its capsule and what it was told. */
  function page(options) {
    var socket = new Socket({ io: { engine: { query: { resume: '1' } } } });
    var capsule = Capsule.connect(socket, options);
    var told = [];
    capsule.on('change', function (change) { told.push(change); });
    socket.say('connect');
    socket.say('initial', state());
    told.length = 0;
    return { socket: socket, capsule: capsule, told: told };
  }

  function ids(held) {
    var found = [];
    each(held.models, function (one) { found.push(one.id); });
    return found.join(' ');
  }

  var TASKS = 'team.red.members.ann.tasks';

  fact('the state has the shape of initial', function () {
    var capsule = page().capsule;
    var expected = state();
    same([capsule.attrs, capsule.models, capsule.collections], [expected.attrs, expected.models, expected.collections]);
  });

  fact('each form of position is understood', function () {
    each([['begin:', '3 1 2'], [':end', '1 2 3'], [':1', '3 1 2'], [':2', '1 3 2'], ['1:', '1 3 2'], ['2:', '1 2 3']], function (pair) {
      var here = page();
      here.socket.say('position', { feed: TASKS, id: '3', position: pair[0], v: 'x' });
      same(ids(here.capsule.feed(TASKS)), pair[1], pair[0]);
    });
    each([['begin:', '4 1 2 3'], [undefined, '1 2 3 4'], [null, '1 2 3 4'], [':end', '1 2 3 4'], [':2', '1 4 2 3'], ['2:', '1 2 4 3'], ['9:', '1 2 3 4']], function (pair) {
      var here = page();
      here.socket.say('publish', { feed: TASKS, id: '4', item: {}, position: pair[0], v: 'x' });
      same(ids(here.capsule.feed(TASKS)), pair[1], String(pair[0]));
    });
  });

  fact('an item becomes attributes', function () {
    each([
      [{ n: 1 }, { id: '1', n: 1 }], [{ id: 7 }, { id: 7 }], ['x', { id: '1', value: 'x' }],
      [null, { id: '1', value: null }], [[1], { id: '1', value: [1] }], [0, { id: '1', value: 0 }]
    ], function (pair) {
      var here = page();
      here.socket.say('change', { feed: TASKS, id: '1', item: pair[0], v: 'x' });
      same(here.capsule.model(TASKS, '1').attrs, pair[1]);
    });
  });

  fact('no name is too odd for an id or a feed', function () {
    each(['__proto__', 'constructor', 'hasOwnProperty', 'toString', '$', ''], function (odd) {
      var here = page();
      here.socket.say('publish', { feed: TASKS, id: odd, item: { n: 1 }, v: 'x' });
      same(here.capsule.model(TASKS, odd).attrs.n, 1);
      here.socket.say('reset', { feed: odd, parent: { feed: TASKS, id: odd }, name: 'below', collection: collection(odd, 'v') });
      same(here.capsule.feed(odd).v, 'v');
      here.socket.say('retract', { feed: TASKS, id: odd, v: 'y' });
      same(here.capsule.feed(odd), null);
    });
  });

  fact('what was so already is not told again, and its version is kept', function () {
    var here = page();
    here.socket.say('change', { feed: TASKS, id: '1', item: {}, v: 'v2' });
    here.socket.say('publish', { feed: TASKS, id: '1', item: { id: '1' }, position: ':2', v: 'v3' });
    here.socket.say('publish', { feed: TASKS, id: '3', item: {}, v: 'v4' });
    here.socket.say('position', { feed: TASKS, id: '2', position: '1:', v: 'v5' });
    here.socket.say('reset', {
      feed: TASKS, parent: { feed: 'team.red.members', id: 'ann' }, name: 'tasks',
      collection: collection(TASKS, 'v6', [model('1'), model('2'), model('3')])
    });
    same(here.told.length, 0);
    same(here.capsule.feed(TASKS).v, 'v6');
    here.socket.say('change', { feed: TASKS, id: '1', item: { n: 1 }, v: 'v7' });
    here.socket.say('change', { feed: TASKS, id: '1', item: { n: 1 }, v: 'v7' });
    same(here.told.length, 1);
    same([here.told[0].type, here.told[0].feed, here.told[0].id, here.told[0].model.attrs.n], ['change', TASKS, '1', 1]);
  });

  fact('a publish of what is held in other words drops what hung below it', function () {
    var here = page();
    here.socket.say('publish', { feed: 'team.red.members', id: 'ann', item: { n: 1 }, v: 'x' });
    same(here.capsule.model('team.red.members', 'ann').collections, {});
    same(here.capsule.feed(TASKS), null);
  });

  fact('a feed in several places is one collection at each, held while one is left', function () {
    var here = page();
    var teams = here.capsule.collections.teams.models;
    here.socket.say('publish', { feed: 'news', id: 'b', item: {}, v: 'n2' });
    same([ids(teams[0].collections.news), ids(teams[1].collections.news)], ['a b', 'a b']);
    same(here.told.length, 1);
    here.socket.say('reset', { feed: 'news', parent: { feed: 'teams', id: 'red' }, name: 'news', collection: collection('news', 'n3', [model('c')]) });
    same(ids(teams[1].collections.news), 'c');
    here.socket.say('reset', { feed: 'news', parent: { feed: 'teams', id: 'red' }, name: 'news', collection: null });
    same(here.capsule.feed('news').v, 'n3');
    here.socket.say('retract', { feed: 'teams', id: 'blue', v: null });
    same(here.capsule.feed('news'), null);
  });

  fact('a reset with nothing but nulls lets a feed go wherever it is held', function () {
    var here = page();
    here.socket.say('reset', { feed: 'news', parent: null, name: null, collection: null });
    each(here.capsule.collections.teams.models, function (team) { same(World.has(team.collections, 'news'), false); });
    same([here.told.length, here.told[0].type, here.told[0].collection], [1, 'reset', null]);
    here.socket.say('reset', { feed: 'team.red.members', parent: null, name: null, collection: null });
    same(here.capsule.feed(TASKS), null);
    here.socket.say('publish', { feed: TASKS, id: '9', item: {}, v: 'x' });
    same(here.told.length, 2);
  });

  fact('the user answers to any feed that is not held, or to the one that is named', function () {
    var here = page();
    here.socket.say('change', { feed: 'users', id: 'ann', item: { n: 1 }, v: 'u2' });
    here.socket.say('reset', { feed: 'user.ann.notes', parent: { feed: 'users', id: 'ann' }, name: 'notes', collection: collection('user.ann.notes', 'o2', [model('1')]) });
    same([here.capsule.models.user.attrs.n, here.capsule.models.user.v, ids(here.capsule.models.user.collections.notes)], [1, 'u2', '1']);
    here.socket.say('change', { feed: 'team.red.members', id: 'ann', item: { n: 2 }, v: 'x' });
    same(here.capsule.models.user.attrs.n, 1);
    here = page({ user: 'people' });
    here.socket.say('change', { feed: 'users', id: 'ann', item: { n: 1 }, v: 'u2' });
    here.socket.say('change', { feed: 'people', id: 'ann', item: { n: 2 }, v: 'u3' });
    same([here.told.length, here.capsule.models.user.attrs.n], [1, 2]);
  });

  fact('what cannot be read is shown as such', function () {
    var here = page();
    var reset = { feed: TASKS, parent: { feed: 'team.red.members', id: 'ann' }, name: 'tasks', collection: { id: TASKS, v: null, models: [], unavailable: true } };
    here.socket.say('reset', reset);
    same(here.capsule.feed(TASKS).unavailable, true);
    reset.collection = collection(TASKS, '0');
    here.socket.say('reset', reset);
    same([World.has(here.capsule.feed(TASKS), 'unavailable'), here.told.length], [false, 2]);
  });

  // ------------------------------------------------------------------ Resume

  fact('the first connect asks with nothing and is ready with initial', function () {
    var socket = new Socket({ io: { engine: { query: { resume: '1' } } } });
    var capsule = Capsule.connect(socket);
    var ready = [];
    capsule.on('ready', function (how) { ready.push(how); });
    socket.say('connect');
    same([socket.asked.length, socket.last().name, socket.last().data], [1, 'resume', { feeds: {} }]);
    socket.last().ack({ code: 200, resumed: 0, reset: 0 });
    same([capsule.ready, ready.length], [false, 0]);
    socket.say('initial', state());
    same([capsule.ready, ready], [true, [{ initial: true }]]);
  });

  fact('a reconnect says every version that is held, none where it was forgotten', function () {
    var here = page();
    here.capsule.subscribe('public.talk');
    here.socket.last().ack({ code: 200, collection: collection('public.talk', 'p1') });
    here.socket.say('change', { feed: TASKS, id: '1', item: { n: 1 }, v: null });
    here.socket.say('change', { feed: 'news', id: 'a', item: { n: 1 }, v: 'n2' });
    here.socket.say('retract', { feed: 'teams', id: 'blue', v: null });
    here.socket.say('disconnect');
    here.socket.say('connect');
    same(here.socket.last().name, 'resume');
    same(here.socket.last().data.feeds, {
      user: { ann: 'u1' }, teams: { red: 'red0' }, 'user.ann.notes': 'o1', 'public.talk': 'p1', news: 'n2',
      'team.red.members': 'red1', 'team.red.members.ann.tasks': null, 'team.red.members.bob.tasks': 'red3'
    });
    var asked = here.socket.asked.length;
    here.socket.last().ack({ code: 200, resumed: 7, reset: 1 });
    same([here.capsule.ready, here.socket.asked.length], [true, asked]);
  });

  fact('a reconnect without a user model names the user all the same', function () {
    var socket = new Socket({ io: { engine: { query: { resume: '1' } } } });
    Capsule.connect(socket);
    socket.say('connect');
    socket.say('initial', { attrs: { id: 'ann' }, models: {}, collections: {} });
    socket.say('disconnect');
    socket.say('connect');
    same(socket.last().data, { feeds: { user: { ann: null } } });
  });

  fact('initial replaces everything, whoever it is for', function () {
    var here = page();
    here.capsule.subscribe('public.talk');
    here.socket.last().ack({ code: 200, collection: collection('public.talk', 'p1') });
    here.socket.say('disconnect');
    here.socket.say('connect');
    var resume = here.socket.last();
    here.socket.say('initial', { attrs: { id: 'bob' }, models: {}, collections: { teams: { id: 'teams', models: [] } } });
    same([here.capsule.attrs, here.capsule.models, here.capsule.collections], [{ id: 'bob' }, {}, { teams: { id: 'teams', models: [] } }]);
    same([here.capsule.feed(TASKS), here.capsule.feed('public.talk')], [null, null]);
    resume.ack({ code: 200, resumed: 0, reset: 0 });
    same([here.socket.last().name, here.socket.last().data], ['subscribe', { feed: 'public.talk' }]);
    here.socket.last().ack({ code: 403, error: 'no' });
    same(here.capsule.feed('public.talk'), null);
  });

  fact('409 and answers of an earlier connection do no harm', function () {
    var here = page();
    here.socket.say('disconnect');
    here.socket.say('connect');
    var late = here.socket.last();
    here.socket.say('disconnect');
    here.socket.say('connect');
    late.ack({ code: 200, resumed: 1, reset: 0 });
    same(here.capsule.ready, false);
    here.socket.last().ack({ code: 409, error: 'too late' });
    same(here.capsule.ready, false);
    here.socket.say('initial', state());
    same(here.capsule.ready, true);
  });

  /** How many bytes JSON in UTF-8 has, as the gateway counts them. */
  function utf8(value) {
    if (typeof value !== 'object' || value === null) {
      var bytes = value === null ? 4 : 2;
      for (var at = 0; value !== null && at < value.length; at += 1) {
        var code = value.charCodeAt(at);
        if (code < 0x80) bytes += code === 34 || code === 92 ? 2 : 1;
        else bytes += code < 0x800 ? 2 : code >= 0xd800 && code < 0xe000 ? 2 : 3;
      }
      return bytes;
    }
    var sum = 2;
    World.eachOwn(value, function (one, name) { sum += utf8(name) + utf8(one) + 2; });
    return sum;
  }

  fact('what is said stays below the bound: the deepest feeds are left out', function () {
    each(['x', '"', '\u6771', '\ud83d\ude00'], function (letter) {
      var here = page();
      var members = [];
      for (var at = 0; at < 900; at += 1) {
        members.push(model('m' + at, { tasks: collection(letter + at + letter + letter + letter + letter, '0123456789abcdef01234567') }));
      }
      here.socket.say('reset', { feed: 'team.red.members', parent: { feed: 'teams', id: 'red' }, name: 'members', collection: collection('team.red.members', 'w', members) });
      here.socket.say('disconnect');
      here.socket.say('connect');
      var said = here.socket.last().data;
      var bytes = utf8(said);
      if (bytes > 48000) throw new Error(bytes + ' bytes');
      if (bytes < 20000 && letter !== '\u6771') throw new Error('only ' + bytes + ' bytes of ' + letter);
      same([said.feeds['team.red.members'], said.feeds['team.blue.members'], said.feeds['user.ann.notes']], ['w', 'blue1', 'o1']);
    });
  });

  fact('a page may bound it further', function () {
    var here = page({ resumeBytes: 180 });
    here.socket.say('disconnect');
    here.socket.say('connect');
    same(here.socket.last().data.feeds, { user: { ann: 'u1' }, teams: { red: 'red0', blue: 'blue0' }, 'team.red.members': 'red1', news: 'n1', 'team.blue.members': 'blue1', 'user.ann.notes': 'o1' });
  });

  fact('with more teams than can be said, initial is asked for', function () {
    var here = page();
    for (var at = 0; at < 3000; at += 1) here.socket.say('publish', { feed: 'teams', id: 'team' + at, item: {}, v: '0123456789abcdef01234567' });
    here.socket.say('disconnect');
    here.socket.say('connect');
    same(here.socket.last().data, { feeds: {} });
  });

  fact('it is seen of each client how its socket was opened', function () {
    function asks(fields, options) {
      var socket = new Socket(fields);
      Capsule.connect(socket, options);
      if (!fields.isThere) socket.say('connect');
      return socket.asked.length === 1;
    }
    each([
      { io: { engine: { query: { resume: '1' } } } }, { io: { engine: { opts: { query: { resume: 1 } } } } },
      { io: { opts: { query: 'a=b&resume=1' } } }, { io: { uri: 'http://host/?resume=1' } },
      { query: 'resume=1' }, { auth: { resume: 1 } }, { socket: { options: { query: 'resume=1&x=y' } } }
    ], function (fields) { same(asks(fields), true, World.text(fields)); });
    each([
      {}, { io: {} }, { io: { engine: { query: { resume: '0' } } } }, { io: { opts: { query: 'noresume=1' } } },
      { io: { uri: 'http://host/?resume=12' } }, { socket: { options: { query: '' } } }, { auth: function () {} }
    ], function (fields) { same(asks(fields), false, World.text(fields)); });
    same([asks({}, { resume: true }), asks({ query: Capsule.query }, { resume: false })], [true, false]);
    same(asks({ isThere: true, connected: true, query: Capsule.query }), true, 'it is connected already');
    same(asks({ isThere: true, socket: { connected: true, options: { query: Capsule.query } } }), true, '0.9 is connected already');
  });

  // ------------------------------------------------------------------- Calls

  fact('a call is answered once, also without a connection', function () {
    var socket = new Socket();
    var capsule = Capsule.connect(socket);
    var answers = [];
    function note(ack) { answers.push(ack.code); }
    capsule.call('set', { feed: 'f' }, note);
    same(answers, []);
    later();
    socket.say('connect');
    capsule.call('set', { feed: 'f' }, note);
    same([socket.last().name, socket.last().data], ['set', { feed: 'f' }]);
    socket.last().ack({ code: 200 });
    socket.last().ack({ code: 200 });
    capsule.call('set', {}, note);
    socket.say('disconnect');
    socket.last().ack({ code: 200 });
    socket.say('connect');
    capsule.call('set', {});
    socket.last().ack();
    capsule.call('set', {}, note);
    socket.last().ack();
    same(answers, [0, 200, 0, 0]);
  });

  fact('a subscription is asked for when there is a state, and kept across connections', function () {
    var socket = new Socket();
    var capsule = Capsule.connect(socket);
    var answers = [];
    capsule.subscribe('public.talk', function (ack) { answers.push(ack.code); });
    capsule.subscribe('public.talk', function (ack) { answers.push(ack.code); });
    socket.say('connect');
    same(socket.asked.length, 0);
    socket.say('initial', state());
    same([socket.asked.length, socket.last().data], [1, { feed: 'public.talk' }]);
    socket.say('disconnect');
    socket.say('connect');
    socket.say('initial', state());
    same(socket.asked.length, 2);
    socket.asked[0].ack({ code: 200, collection: collection('public.talk', 'p0') });
    same(answers, []);
    socket.last().ack({ code: 200, collection: collection('public.talk', 'p1', [model('1')]) });
    same([answers, ids(capsule.feed('public.talk'))], [[200, 200], '1']);
    socket.say('publish', { feed: 'public.talk', id: '2', item: {}, v: 'p2' });
    capsule.subscribe('public.talk', function (ack) { answers.push(ids(ack.collection)); });
    later();
    same([answers, socket.asked.length], [[200, 200, '1 2'], 2]);
    socket.say('disconnect');
    socket.say('connect');
    socket.say('initial', state());
    same(capsule.feed('public.talk'), null);
    socket.last().ack({ code: 503, retry_after: 2 });
    same(timers[0].after, 2000);
    later();
    socket.last().ack({ code: 200, collection: collection('public.talk', 'p3') });
    same([capsule.feed('public.talk').v, socket.asked.length], ['p3', 4]);
  });

  fact('a subscription that is refused, lost or ended is gone', function () {
    var here = page();
    var answers = [];
    function note(ack) { answers.push(ack.code); }
    here.capsule.subscribe('secret', note);
    here.socket.last().ack({ code: 403, error: 'no' });
    here.capsule.subscribe('public.talk', note);
    here.socket.last().ack({ code: 200, collection: collection('public.talk', 'p1') });
    here.capsule.unsubscribe('public.talk', note);
    here.socket.say('publish', { feed: 'public.talk', id: '1', item: {}, v: 'p2' });
    here.socket.last().ack({ code: 200 });
    same([answers, here.capsule.feed('public.talk')], [[403, 200, 200], null]);
    here.capsule.subscribe('public.talk', note);
    here.socket.last().ack({ code: 200, collection: collection('public.talk', 'p1') });
    here.socket.say('reset', { feed: 'public.talk', parent: null, name: null, collection: null });
    same(here.capsule.feed('public.talk'), null);
    here.capsule.subscribe('public.talk', note);
    var asked = here.socket.last();
    here.socket.say('reset', { feed: 'public.talk', parent: null, name: null, collection: null });
    asked.ack({ code: 403 });
    here.capsule.subscribe('public.talk', note);
    asked = here.socket.last();
    here.capsule.unsubscribe('public.talk', note);
    asked.ack({ code: 200, collection: collection('public.talk', 'p1') });
    here.socket.say('disconnect');
    same([answers, here.capsule.feed('public.talk')], [[403, 200, 200, 200, 403, 0, 0], null]);
    here.capsule.unsubscribe('public.talk', note);
    same(answers.length, 8);
    here.socket.say('connect');
    same(World.has(here.socket.last().data.feeds, 'public.talk'), false);
    here.socket.last().ack({ code: 200, resumed: 1, reset: 0 });
    same(here.socket.last().name, 'resume');
  });

  fact('a subscription to a feed of the tree leaves what hangs below it', function () {
    var here = page();
    here.capsule.subscribe('team.red.members');
    here.socket.last().ack({ code: 200, collection: collection('team.red.members', 'red9', [model('ann'), model('zoe')]) });
    same([ids(here.capsule.feed('team.red.members')), ids(here.capsule.feed(TASKS))], ['ann zoe', '1 2 3']);
    here.socket.say('reset', { feed: 'team.red.members', parent: null, name: null, collection: collection('team.red.members', 'red10', [model('ann')]) });
    same([ids(here.capsule.feed('team.red.members')), ids(here.capsule.feed(TASKS))], ['ann', '1 2 3']);
    here.socket.say('retract', { feed: 'teams', id: 'red', v: null });
    same(ids(here.capsule.feed('team.red.members')), 'ann');
  });

  fact('a listener that throws stops nobody, and its error is reported', function () {
    var here = page();
    var heard = 0;
    here.capsule.on('change', function () { throw new Error('mine'); });
    here.capsule.on('change', function () { heard += 1; });
    here.socket.say('change', { feed: TASKS, id: '1', item: { n: 1 }, v: 'x' });
    same([heard, timers.length], [1, 1]);
    var reported = '';
    try {
      timers.shift().run();
    } catch (error) {
      reported = error.message;
    }
    same(reported, 'mine');
  });

  fact('who left is not called', function () {
    var here = page();
    var heard = 0;
    function listener() { heard += 1; }
    here.capsule.on('change', listener);
    here.capsule.off('change', listener);
    here.socket.say('change', { feed: TASKS, id: '1', item: { n: 1 }, v: 'x' });
    same(heard, 0);
  });

  // ---------------------------------------------------------------- Backbone

  if (Backbone) {
    fact('Backbone is told what it is used to hear', function () {
      var here = page({ Backbone: Backbone });
      var tasks = here.capsule.backbone.collections.teams.get('red').collections.members.get('ann').collections.tasks;
      var heard = [];
      tasks.on('all', function (name) { heard.push(name); });
      function hears(verb, data, expected) {
        heard.length = 0;
        data.feed = TASKS;
        here.socket.say(verb, data);
        same(heard.join(' '), expected, verb);
      }
      hears('publish', { id: '4', item: { n: 1, gone: 2 }, position: 'begin:', v: 'x' }, 'add update');
      same(tasks.indexOf(tasks.get('4')), 0);
      hears('change', { id: '4', item: { n: 2, gone: 2 }, v: 'x' }, 'change:n change');
      hears('change', { id: '4', item: { n: 2, gone: 2 }, v: 'x' }, '');
      hears('change', { id: '4', item: { n: 3 }, v: 'x' }, 'change:gone change:n change');
      hears('change', { id: '4', item: {}, v: 'x' }, 'change:n change');
      hears('position', { id: '4', position: ':end', v: 'x' }, 'sort');
      hears('position', { id: '4', position: ':end', v: 'x' }, '');
      hears('retract', { id: '4', v: 'x' }, 'remove update');
      same(tasks.pluck('id'), ['1', '2', '3']);
    });

    fact('Backbone collections stay the same through reset and initial, and end empty', function () {
      var here = page({ Backbone: Backbone });
      var root = here.capsule.backbone;
      var teams = root.collections.teams;
      var red = teams.get('red');
      var tasks = red.collections.members.get('ann').collections.tasks;
      var heard = [];
      tasks.on('all', function (name) { heard.push(name); });
      var fresh = state();
      fresh.collections.teams.models[0].collections.members.models[0].collections.tasks.models.splice(0, 1);
      here.socket.say('initial', fresh);
      same([root.collections.teams === teams, teams.get('red') === red, tasks.pluck('id'), heard.join(' ')], [true, true, ['2', '3'], 'remove update']);
      same([red.collections.news === teams.get('blue').collections.news, root.models.user.id], [true, 'ann']);
      var news = [];
      red.on('collections', function (model) { news.push(model.id); });
      here.socket.say('reset', { feed: 'news', parent: { feed: 'teams', id: 'red' }, name: 'news', collection: null });
      same([news, World.has(red.collections, 'news')], [['red'], false]);
      here.socket.say('retract', { feed: 'teams', id: 'red', v: null });
      same([teams.pluck('id'), tasks.length], [['blue'], 0]);
      here.socket.say('initial', { attrs: { id: 'bob' }, models: {}, collections: { teams: { id: 'teams', models: [] } } });
      same([root.get('id'), teams.length, World.has(root.models, 'user')], ['bob', 0, false]);
    });

    fact('a Backbone model has the id of its item', function () {
      var here = page({ Backbone: Backbone });
      here.socket.say('change', { feed: TASKS, id: '1', item: { id: 7 }, v: 'x' });
      here.socket.say('change', { feed: TASKS, id: '2', item: { id: 7 }, v: 'x' });
      var tasks = here.capsule.backbone.collections.teams.get('red').collections.members.get('ann').collections.tasks;
      same([tasks.pluck('id'), here.capsule.model(TASKS, '1').attrs.id], [['1', '2', '3'], 7]);
    });
  }

  fact(histories + ' histories made by dice end as the gateway and as a literal client', function () {
    var events = 0;
    for (var seed = 1; seed <= histories; seed += 1) {
      var history = new Histories.History(Capsule, seed % 4 === 0 ? Backbone : null, seed);
      try {
        history.play(60);
      } catch (error) {
        throw new Error('seed ' + seed + ', ' + error.message);
      }
      events += history.events;
    }
    say('      ' + events + ' events');
  });

  say(failures ? failures + ' facts fail' : 'all facts hold');
  return failures;
};

if (typeof module !== 'undefined' && module.exports) {
  process.exitCode = runCapsuleTests(
    require('../../assets/capsule.js'), require('backbone'), require('./capsule.world.js'),
    require('./capsule.histories.js'), Number(process.argv[2] || 3000), console.log, globalThis
  );
}
