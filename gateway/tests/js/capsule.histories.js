// Histories made by dice, for `capsule.test.js`: whatever happens, capsule.js holds what the
// gateway holds and what a literal client holds, and tells of each change once.

var Histories = (function (World) {
  'use strict';

  var each = World.each;
  var eachOwn = World.eachOwn;
  var has = World.has;
  var USERS = ['ann', 'bob'];
  var TEAMS = ['red', 'blue', 'x:y'];
  var IDS = ['1', '2', '3', 'ann', 'constructor', '__proto__', 'a b'];
  var ITEMS = [{ n: 1 }, { n: 2 }, { n: 2, list: [1, { a: null }] }, { id: 7, n: 1 }, 'words', 5, null, [1], {}];

  /** A collection as text; `says.v` with versions, `says.sets` where a plain feed has no order. */
  function textOf(collection, says) {
    var models = [];
    each(collection.models, function (model) { models.push(textOfModel(model, says)); });
    if (says.sets && /members$|^teams$/.test(collection.id)) models.sort();
    var v = says.v && has(collection, 'v') ? collection.v : '';
    return collection.id + '@' + v + (collection.unavailable ? '!' : '') + '[' + models.join(',') + ']';
  }

  function textOfModel(model, says) {
    var below = [];
    eachOwn(model.collections, function (collection, name) { below.push(name + '=' + textOf(collection, says)); });
    below.sort();
    var v = says.v && has(model, 'v') ? model.v : '';
    return model.id + '@' + v + World.text(model.attrs) + '{' + below.join(',') + '}';
  }

  function textOfState(root, says) {
    var models = [];
    eachOwn(root.models, function (model, name) { models.push(name + '=' + textOfModel(model, says)); });
    return models.join() + textOfModel({ id: '', attrs: root.attrs, collections: root.collections }, says);
  }

  function textOfBackbone(model, isRoot) {
    var below = [];
    eachOwn(model.collections, function (collection, name) {
      var models = [];
      each(collection.models, function (one) { models.push(textOfBackbone(one)); });
      below.push(name + '=' + collection.feed + '[' + models.join(',') + ']');
    });
    below.sort();
    return (isRoot ? '' : model.id) + World.text(model.attributes) + '{' + below.join(',') + '}';
  }

  /** What Backbone should show of a model: the id is the item's, whatever its attributes say. */
  function backboneTextOf(model, isRoot) {
    var below = [];
    eachOwn(model.collections, function (collection, name) {
      var models = [];
      each(collection.models, function (one) { models.push(backboneTextOf(one)); });
      below.push(name + '=' + collection.id + '[' + models.join(',') + ']');
    });
    below.sort();
    var attrs = World.copy(model.attrs);
    if (!isRoot) attrs.id = model.id;
    return (isRoot ? '' : model.id) + World.text(attrs) + '{' + below.join(',') + '}';
  }

  /** One page, its connection, and the gateway behind it. */
  function History(Capsule, Backbone, seed) {
    var history = this;
    history.dice = new World.Dice(seed);
    history.gateway = new World.Gateway(history.dice);
    history.literal = new World.Literal();
    history.outbox = [];
    history.on = {};
    history.resumes = history.dice.below(5) !== 0;
    history.connected = false;
    history.told = [];
    history.events = 0;
    history.socket = {
      io: { engine: { query: history.resumes ? { resume: '1' } : {} } },
      on: function (name, listener) { history.on[name] = listener; },
      emit: function (name, data, ack) { history.outbox.push({ name: name, data: data, ack: ack }); }
    };
    history.ids = Backbone ? IDS.slice(0, 4) : IDS;
    history.capsule = Capsule.connect(history.socket, { Backbone: Backbone || false });
    history.capsule.on('change', function (change) { history.told.push(change); });
    history.fill();
  }

  History.prototype.fill = function () {
    for (var at = 0; at < 25; at += 1) this.mutate();
  };

  History.prototype.play = function (steps) {
    this.connect();
    this.pump();
    for (var at = 0; at < steps; at += 1) {
      this.step();
      this.pump();
      if (this.connected) this.compare('step ' + at);
    }
    this.connect();
    this.pump();
    this.compare('the end');
  };

  History.prototype.step = function () {
    var roll = this.dice.below(100);
    if (!this.connected && roll < 25) roll = 99;
    if (roll < 60) this.mutate();
    else if (roll < 66) this.single();
    else if (roll < 72) this.changeTeams();
    else if (roll < 76) this.talk();
    else if (roll < 80) this.changeRight();
    else if (roll < 88) this.noise();
    else if (roll < 90) this.forgetLogs();
    else if (roll < 95) this.disconnect();
    else this.connect();
  };

  History.prototype.feedName = function () {
    var team = this.dice.one(TEAMS);
    switch (this.dice.below(6)) {
      case 0: return 'team.' + team + '.members';
      case 1: return 'news';
      case 2: return 'public.talk';
      case 3: return 'user.' + this.dice.one(USERS) + '.notes';
      default: return 'team.' + team + '.members.' + this.dice.one(this.ids) + '.tasks';
    }
  };

  History.prototype.mutate = function () {
    var dice = this.dice;
    var feed = this.gateway.feed(this.feedName());
    var length = feed.items.length;
    var said;
    if (length && dice.below(4) === 0) {
      said = feed.retract(dice.below(length));
    } else if (length && feed.isSorted && dice.below(3) === 0) {
      var from = dice.below(length);
      var to = dice.below(length);
      if (from === to) return;
      said = feed.move(from, to);
    } else {
      said = this.write(feed);
    }
    if (!said) return;
    var event = this.otherwise(feed, said);
    // A change that was dropped for a newer one costs the version.
    if (event.verb === 'change' && dice.below(6) === 0) event.data.v = null;
    this.gateway.tell(event);
  };

  History.prototype.write = function (feed) {
    var id = this.dice.one(this.ids);
    var item = this.dice.one(ITEMS);
    var at = World.placeOf(feed.items, id);
    if (at !== -1 && World.text(feed.items[at].item) === World.text(item)) return null;
    return feed.write(id, item, feed.isSorted ? this.dice.below(feed.items.length + 1) : feed.items.length);
  };

  /** Says the same position in one of the four forms. */
  History.prototype.otherwise = function (feed, said) {
    var data = World.copy(said.data);
    if (data.position) {
      var at = World.placeOf(feed.items, data.id);
      var next = feed.items[at + 1];
      if (this.dice.below(2)) data.position = next ? ':' + next.id : ':end';
    }
    return { verb: said.verb, data: data };
  };

  /** The attributes of a team or of the user change. */
  History.prototype.single = function () {
    var isTeam = this.dice.below(2) === 0;
    var name = isTeam ? 'teams' : 'users';
    var id = this.dice.one(isTeam ? TEAMS : USERS);
    var feed = this.gateway.feed(name);
    var at = World.placeOf(feed.items, id);
    var item = { name: this.dice.below(5) };
    if (at !== -1 && World.text(feed.items[at].item) === World.text(item)) return;
    feed.write(id, item, 0);
    var isShown = isTeam ? this.gateway.teams.join('|').indexOf(id) !== -1 : id === this.gateway.user;
    if (!isShown) return;
    this.gateway.say('change', { feed: name, id: id, item: item, v: this.gateway.itemVersion(name, id) });
  };

  History.prototype.changeTeams = function () {
    var gateway = this.gateway;
    var team = this.dice.one(TEAMS);
    var rest = [];
    each(gateway.teams, function (own) { if (own !== team) rest.push(own); });
    var isLost = rest.length < gateway.teams.length;
    if (!isLost) rest.push(team);
    gateway.teams = rest;
    if (isLost) {
      gateway.say('retract', { feed: 'teams', id: team, v: null });
      return;
    }
    var now = gateway.single('teams', team);
    gateway.say('publish', { feed: 'teams', id: team, item: now.attrs, v: now.v });
    gateway.resetBelow('teams', team);
  };

  History.prototype.talk = function () {
    var history = this;
    if (!history.talks) {
      history.talks = true;
      history.capsule.subscribe('public.talk', function (ack) {
        if (ack.code !== 200) history.talks = false;
      });
    } else {
      history.talks = false;
      history.capsule.unsubscribe('public.talk');
      if (!history.connected) delete history.literal.subscriptions['public.talk'];
    }
  };

  History.prototype.changeRight = function () {
    var gateway = this.gateway;
    gateway.mayTalk = !gateway.mayTalk;
    var at = World.placeOf(gateway.subscribed, 'public.talk');
    if (gateway.mayTalk || at === -1 || !this.connected) return;
    gateway.subscribed.splice(at, 1);
    gateway.say('reset', { feed: 'public.talk', parent: null, name: null, collection: null });
  };

  /** What says nothing new, or speaks of what is not held. */
  History.prototype.noise = function () {
    var gateway = this.gateway;
    var feed = gateway.feed(this.feedName());
    gateway.say('change', { feed: 'elsewhere', id: '1', item: 1, v: 'v' });
    gateway.say('retract', { feed: feed.name, id: 'nobody', v: 'v' });
    gateway.say('reset', { feed: 'x', parent: { feed: feed.name, id: 'nobody' }, name: 'x', collection: { id: 'x', v: 'v', models: [] } });
    if (!feed.items.length || !gateway.isHeard(feed.name)) return;
    var at = this.dice.below(feed.items.length);
    var one = feed.items[at];
    gateway.say('change', { feed: feed.name, id: one.id, item: one.item, v: feed.v() });
    if (!feed.isSorted) return;
    var position = at === 0 ? 'begin:' : feed.items[at - 1].id + ':';
    gateway.say('position', { feed: feed.name, id: one.id, position: position, v: feed.v() });
    if (!/members$/.test(feed.name)) {
      gateway.say('publish', { feed: feed.name, id: one.id, item: one.item, position: position, v: feed.v() });
    }
  };

  History.prototype.forgetLogs = function () {
    var dice = this.dice;
    eachOwn(this.gateway.feeds, function (feed) {
      if (dice.below(3) === 0) feed.log = feed.log.slice(-1 - dice.below(4));
    });
  };

  History.prototype.connect = function () {
    var history = this;
    if (history.connected) return;
    history.connected = true;
    history.greeted = false;
    history.outbox = [];
    history.gateway.send = function (verb, data) { history.deliver(verb, data); };
    history.on.connect();
    if (history.resumes) return;
    history.greeted = true;
    history.gateway.greet();
  };

  History.prototype.disconnect = function () {
    if (!this.connected) return;
    this.connected = false;
    this.gateway.send = null;
    this.gateway.subscribed = [];
    this.on.disconnect();
    if (this.dice.below(6) === 0) this.gateway.user = this.dice.one(USERS);
  };

  /** Lets the gateway answer what was asked. */
  History.prototype.pump = function () {
    var gateway = this.gateway;
    while (this.connected && this.outbox.length) {
      var asked = this.outbox.shift();
      var ack;
      if (asked.name === 'resume') {
        ack = this.greeted ? { code: 409 } : gateway.onResume(World.copy(asked.data.feeds));
        this.greeted = true;
      } else if (asked.name === 'subscribe') {
        ack = gateway.onSubscribe(asked.data.feed);
        if (ack.code === 200) this.literal.subscriptions[asked.data.feed] = World.copy(ack.collection);
        else this.talks = false;
      } else {
        ack = gateway.onUnsubscribe(asked.data.feed);
        delete this.literal.subscriptions[asked.data.feed];
      }
      asked.ack(World.copy(ack));
    }
  };

  /** Lets an event arrive: what it changes is told once, what changes nothing is not told. */
  History.prototype.deliver = function (verb, data) {
    this.events += 1;
    if (verb === 'reset' && data.feed === 'public.talk' && !data.collection) this.talks = false;
    var before = this.held({});
    var told = this.told.length;
    this.on[verb](World.copy(data));
    this.literal.apply(verb, data);
    var changed = this.held({}) !== before;
    var count = this.told.length - told;
    if (verb === 'initial' ? count !== 1 : count !== (changed ? 1 : 0)) {
      throw new Error(count + ' changes told of ' + verb + ' ' + World.text(data) + ', changed: ' + changed);
    }
  };

  History.prototype.held = function (says) {
    var talk = this.capsule.feed('public.talk');
    return textOfState(this.capsule, says) + (talk ? textOf(talk, says) : '');
  };

  History.prototype.compare = function (when) {
    var literal = this.literal;
    var talk = literal.subscriptions['public.talk'];
    var expected = textOfState(literal.root, { v: true }) + (talk ? textOf(talk, { v: true }) : '');
    same(this.held({ v: true }), expected, when + ': as a literal client');
    var now = textOfState(this.gateway.state(), { sets: true });
    same(textOfState(this.capsule, { sets: true }), now, when + ': as the gateway');
    same(String(this.capsule.feed('public.talk') !== null), String(this.talks === true), when + ': what is wanted');
    this.compareVersions(when);
    if (!this.capsule.backbone) return;
    var root = this.capsule.backbone;
    same(textOfBackbone(root, true), backboneTextOf(this.capsule, true), when + ': Backbone');
    same(textOfBackbone(root.models.user), backboneTextOf(this.capsule.models.user), when + ': Backbone, the user');
  };

  /** A version that is held is the right one, or none. */
  History.prototype.compareVersions = function (when) {
    var history = this;
    function look(collection) {
      if (has(collection, 'v') && collection.v !== null) {
        same(collection.v, history.gateway.feed(collection.id).v(), when + ': v of ' + collection.id);
      }
      each(collection.models, function (model) { eachOwn(model.collections, look); });
    }
    eachOwn(history.capsule.collections, look);
    eachOwn(history.capsule.models.user.collections, look);
  };

  function same(found, expected, what) {
    if (found !== expected) throw new Error(what + '\n   found    ' + found + '\n   expected ' + expected);
  }

  return { History: History };
})(typeof World === 'undefined' ? require('./capsule.world.js') : World);

if (typeof module !== 'undefined' && module.exports) module.exports = Histories;
