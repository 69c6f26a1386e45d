// A gateway's side of a conversation with capsule.js, and a client that applies words literally.
//
// For `capsule.test.js`; in the language of capsule.js itself, so that it runs where that runs.

var World = (function () {
  'use strict';

  function has(object, name) {
    return Object.prototype.hasOwnProperty.call(object, name);
  }

  function isList(value) {
    return Object.prototype.toString.call(value) === '[object Array]';
  }

  function each(list, visit) {
    for (var at = 0; at < list.length; at += 1) visit(list[at], at);
  }

  function eachOwn(object, visit) {
    for (var name in object) if (has(object, name)) visit(object[name], name);
  }

  function copy(value) {
    var made;
    if (isList(value)) {
      made = [];
      each(value, function (one) { made.push(copy(one)); });
      return made;
    }
    if (typeof value !== 'object' || value === null) return value;
    made = {};
    eachOwn(value, function (one, name) { made[name] = copy(one); });
    return made;
  }

  /** A value as text that is equal for equal values. */
  function text(value) {
    var parts = [];
    if (isList(value)) {
      each(value, function (one) { parts.push(text(one)); });
      return '[' + parts.join(',') + ']';
    }
    if (typeof value !== 'object' || value === null) {
      return typeof value === 'string' ? '"' + value + '"' : String(value);
    }
    eachOwn(value, function (one, name) { parts.push(name + ':' + text(one)); });
    parts.sort();
    return '{' + parts.join(',') + '}';
  }

  /** The same numbers for the same seed, everywhere. */
  function Dice(seed) {
    this.state = seed % 2147483646 + 1;
  }

  Dice.prototype.below = function (bound) {
    this.state = this.state * 16807 % 2147483647;
    return this.state % bound;
  };

  Dice.prototype.one = function (list) {
    return list[this.below(list.length)];
  };

  function placeOf(list, id) {
    for (var at = 0; at < list.length; at += 1) if (list[at].id === id) return at;
    return -1;
  }

  function attrsOf(id, item) {
    var isObject = typeof item === 'object' && item !== null && !isList(item);
    if (!isObject) return { id: id, value: item };
    var attrs = copy(item);
    if (!has(attrs, 'id')) attrs.id = id;
    return attrs;
  }

  // ------------------------------------------------------------------ Feeds

  /** A feed in Redis, as far as a gateway's mirror knows it, with what happened lately. */
  function Feed(name, isSorted) {
    this.name = name;
    this.isSorted = isSorted;
    this.items = [];
    this.log = [];
  }

  /** A version by the content: some digest, not the gateway's own. */
  Feed.prototype.v = function () {
    var words = [0, 0, 0];
    var before = '';
    var isSorted = this.isSorted;
    each(this.items, function (one) {
      var said = (isSorted ? before : '') + '\u0000' + one.id + '\u0000' + text(one.item);
      before = one.id;
      each(words, function (sum, at) {
        var hash = 7 + at;
        for (var index = 0; index < said.length; index += 1) {
          hash = (hash * 131 + said.charCodeAt(index)) % 4294967291;
        }
        words[at] = (sum + hash) % 4294967296;
      });
    });
    var digits = '';
    each(words, function (sum) { digits += ('0000000' + sum.toString(16)).slice(-8); });
    return digits;
  };

  Feed.prototype.write = function (id, item, to) {
    var at = placeOf(this.items, id);
    var from = this.v();
    var event;
    if (at === -1) {
      this.items.splice(to, 0, { id: id, item: item });
      event = { feed: this.name, id: id, item: item };
      if (this.isSorted) event.position = to === 0 ? 'begin:' : this.items[to - 1].id + ':';
    } else {
      this.items[at].item = item;
      event = { feed: this.name, id: id, item: item };
    }
    return this.note(at === -1 ? 'publish' : 'change', event, from);
  };

  Feed.prototype.retract = function (at) {
    var from = this.v();
    var one = this.items.splice(at, 1)[0];
    return this.note('retract', { feed: this.name, id: one.id }, from);
  };

  Feed.prototype.move = function (at, to) {
    var from = this.v();
    var one = this.items.splice(at, 1)[0];
    this.items.splice(to, 0, one);
    var position = to === 0 ? 'begin:' : this.items[to - 1].id + ':';
    return this.note('position', { feed: this.name, id: one.id, position: position }, from);
  };

  Feed.prototype.note = function (verb, event, from) {
    event.v = this.v();
    var said = { verb: verb, data: event, from: from };
    this.log.push(said);
    return said;
  };

  /** What happened since a version, null where that is not known. */
  Feed.prototype.since = function (v) {
    for (var at = this.log.length - 1; at >= 0; at -= 1) {
      if (this.log[at].from === v) return this.log.slice(at);
    }
    return null;
  };

  // ---------------------------------------------------------------- Gateway

  /**
   * Two users, three teams; `news` hangs in several places, `public.talk` may be subscribed to.
   */
  function Gateway(dice) {
    this.dice = dice;
    this.feeds = {};
    this.user = 'ann';
    this.teams = ['red'];
    this.mayTalk = true;
    this.subscribed = [];
    /** Who listens: `function (verb, data)`, null while nobody is connected. */
    this.send = null;
    this.resumed = 0;
    this.reset = 0;
  }

  Gateway.prototype.feed = function (name) {
    if (!has(this.feeds, name)) this.feeds[name] = new Feed(name, !/members$|^teams$|^users$/.test(name));
    return this.feeds[name];
  };

  /** The feeds below a model of a feed or of a team or user, by name. */
  Gateway.prototype.below = function (feed, id) {
    if (feed === 'teams') return { members: 'team.' + id + '.members', news: 'news' };
    if (feed === 'users') return { notes: 'user.' + id + '.notes', news: 'news' };
    if (/members$/.test(feed)) return { tasks: feed + '.' + id + '.tasks' };
    return {};
  };

  Gateway.prototype.shown = function (name, isFlat) {
    var gateway = this;
    var feed = gateway.feed(name);
    var models = [];
    each(feed.items, function (one) {
      var model = { id: one.id, attrs: attrsOf(one.id, copy(one.item)), collections: {} };
      if (!isFlat) model.collections = gateway.shownBelow(name, one.id);
      models.push(model);
    });
    return { id: name, v: feed.v(), models: models };
  };

  Gateway.prototype.shownBelow = function (feed, id) {
    var gateway = this;
    var shown = {};
    eachOwn(gateway.below(feed, id), function (name, at) { shown[at] = gateway.shown(name); });
    return shown;
  };

  Gateway.prototype.single = function (feed, id) {
    var at = placeOf(this.feed(feed).items, id);
    var item = at === -1 ? {} : this.feed(feed).items[at].item;
    return { id: id, v: this.itemVersion(feed, id), attrs: attrsOf(id, item), collections: this.shownBelow(feed, id) };
  };

  Gateway.prototype.itemVersion = function (feed, id) {
    var alone = new Feed('', false);
    var at = placeOf(this.feed(feed).items, id);
    alone.items.push({ id: id, item: at === -1 ? {} : this.feed(feed).items[at].item });
    return alone.v();
  };

  /** The state as `initial` has it. */
  Gateway.prototype.state = function () {
    var gateway = this;
    var teams = [];
    each(gateway.teams, function (team) { teams.push(gateway.single('teams', team)); });
    return {
      attrs: { id: gateway.user },
      models: { user: gateway.single('users', gateway.user) },
      collections: { teams: { id: 'teams', models: teams } }
    };
  };

  /** The feeds in the tree, those above first: `{feed, parent, name}`. */
  Gateway.prototype.places = function () {
    var gateway = this;
    var places = [];
    function under(feed, id) {
      eachOwn(gateway.below(feed, id), function (name, at) {
        places.push({ feed: name, parent: { feed: feed, id: id }, name: at });
      });
    }
    each(gateway.teams, function (team) { under('teams', team); });
    under('users', gateway.user);
    for (var at = 0; at < places.length; at += 1) {
      var name = places[at].feed;
      if (/members$/.test(name)) each(gateway.feed(name).items, function (one) { under(name, one.id); });
    }
    return places;
  };

  Gateway.prototype.isHeard = function (feed) {
    var isHeard = placeOf(this.subscribed, feed) !== -1;
    each(this.places(), function (place) { if (place.feed === feed) isHeard = true; });
    return isHeard;
  };

  Gateway.prototype.say = function (verb, data) {
    if (this.send) this.send(verb, copy(data));
  };

  /** Sends what happened to a feed, and what hangs below an item that is new. */
  Gateway.prototype.tell = function (said) {
    var gateway = this;
    if (!gateway.isHeard(said.data.feed)) return;
    gateway.say(said.verb, said.data);
    if (said.verb === 'publish') gateway.resetBelow(said.data.feed, said.data.id);
  };

  Gateway.prototype.resetBelow = function (feed, id, answered) {
    var gateway = this;
    eachOwn(gateway.below(feed, id), function (name, at) {
      if (answered) gateway.answerWithin(name, answered);
      gateway.say('reset', { feed: name, parent: { feed: feed, id: id }, name: at, collection: gateway.shown(name) });
    });
  };

  /** A feed inside a `reset` needs no answer of its own. */
  Gateway.prototype.answerWithin = function (feed, answered) {
    var gateway = this;
    answered[feed] = true;
    each(gateway.feed(feed).items, function (one) {
      eachOwn(gateway.below(feed, one.id), function (name) { gateway.answerWithin(name, answered); });
    });
  };

  /** Answers `initial` to who comes anew. */
  Gateway.prototype.greet = function () {
    this.subscribed = [];
    this.say('initial', this.state());
  };

  Gateway.prototype.mayHear = function (name) {
    return this.mayTalk && name === 'public.talk';
  };

  Gateway.prototype.onSubscribe = function (name) {
    if (!this.mayHear(name)) return { code: 403, error: 'you may not hear this feed' };
    if (placeOf(this.subscribed, name) === -1) this.subscribed.push({ id: name });
    return { code: 200, collection: this.shown(name, true) };
  };

  Gateway.prototype.onUnsubscribe = function (name) {
    var at = placeOf(this.subscribed, name);
    if (at === -1) return { code: 404, error: 'not subscribed' };
    this.subscribed.splice(at, 1);
    return { code: 200 };
  };

  /** Answers `resume` as docs/protocol.md says. */
  Gateway.prototype.onResume = function (held) {
    var gateway = this;
    var user = has(held, 'user') ? held.user : {};
    gateway.resumed = 0;
    gateway.reset = 0;
    if (!has(user, gateway.user)) {
      gateway.greet();
      return { code: 200, resumed: 0, reset: 0 };
    }
    gateway.subscribed = [];
    var answered = { user: true, teams: true };
    var places = gateway.places();
    var seen = {};
    each(places, function (place) { seen[place.feed] = true; });
    eachOwn(held, function (v, name) {
      if (has(answered, name) || has(seen, name) || gateway.mayHear(name)) return;
      answered[name] = true;
      gateway.say('reset', { feed: name, parent: null, name: null, collection: null });
    });
    gateway.resumeSingles(held, answered);
    each(places, function (place) {
      if (has(answered, place.feed)) return;
      answered[place.feed] = true;
      gateway.resumeFeed(place, held, answered);
    });
    eachOwn(held, function (v, name) {
      if (!has(answered, name)) gateway.resumeOutside(name, v);
    });
    return { code: 200, resumed: gateway.resumed, reset: gateway.reset };
  };

  Gateway.prototype.resumeSingles = function (held, answered) {
    var gateway = this;
    eachOwn(held.teams, function (v, id) {
      var isLost = true;
      each(gateway.teams, function (team) { if (team === id) isLost = false; });
      if (isLost) gateway.say('retract', { feed: 'teams', id: id, v: null });
    });
    each(gateway.teams, function (team) {
      var now = gateway.single('teams', team);
      if (!has(held.teams, team)) {
        gateway.say('publish', { feed: 'teams', id: team, item: now.attrs, v: now.v });
        gateway.resetBelow('teams', team, answered);
      } else if (held.teams[team] !== now.v) {
        gateway.say('change', { feed: 'teams', id: team, item: now.attrs, v: now.v });
      }
    });
    var own = gateway.single('users', gateway.user);
    if (held.user[gateway.user] !== own.v) {
      gateway.say('change', { feed: 'users', id: gateway.user, item: own.attrs, v: own.v });
    }
  };

  Gateway.prototype.resumeFeed = function (place, held, answered) {
    var gateway = this;
    var feed = gateway.feed(place.feed);
    var v = has(held, place.feed) ? held[place.feed] : null;
    var since = v === null ? null : feed.since(v);
    if (v === feed.v()) {
      gateway.resumed += 1;
    } else if (since) {
      gateway.resumed += 1;
      each(since, function (said) {
        gateway.say(said.verb, said.data);
        if (said.verb === 'publish') gateway.resetBelow(place.feed, said.data.id, answered);
      });
    } else {
      gateway.reset += 1;
      gateway.answerWithin(place.feed, answered);
      gateway.say('reset', { feed: place.feed, parent: place.parent, name: place.name, collection: gateway.shown(place.feed) });
    }
  };

  Gateway.prototype.resumeOutside = function (name, v) {
    var gateway = this;
    gateway.onSubscribe(name);
    var feed = gateway.feed(name);
    var since = v === null ? null : feed.since(v);
    if (v === feed.v()) return;
    if (since) {
      each(since, function (said) { gateway.say(said.verb, said.data); });
      return;
    }
    gateway.say('reset', { feed: name, parent: null, name: null, collection: gateway.shown(name, true) });
  };

  // ------------------------------------------------------ The literal client

  /** What a client holds that applies each word as docs/protocol.md has it, everywhere it fits. */
  function Literal() {
    this.root = null;
    this.subscriptions = {};
  }

  Literal.prototype.everywhere = function (visit) {
    function look(collection) {
      visit(collection);
      each(collection.models, below);
    }
    function below(model) {
      eachOwn(model.collections, look);
    }
    if (this.root) {
      eachOwn(this.root.models, below);
      below(this.root);
    }
    eachOwn(this.subscriptions, look);
  };

  Literal.prototype.apply = function (verb, data) {
    var literal = this;
    data = copy(data);
    if (verb === 'initial') {
      literal.root = data;
      literal.subscriptions = {};
    } else if (verb === 'reset') {
      literal.reset(data);
    } else {
      var user = literal.root.models.user;
      if (verb === 'change' && data.feed === 'users' && user.id === data.id) {
        user.attrs = attrsOf(data.id, data.item);
        user.v = data.v;
      }
      literal.everywhere(function (collection) {
        if (collection.id === data.feed) literal.one(verb, collection, copy(data));
      });
    }
  };

  Literal.prototype.one = function (verb, collection, data) {
    var models = collection.models;
    var at = placeOf(models, data.id);
    var model = at === -1 ? null : models[at];
    if (!model && verb !== 'publish') return;
    if (verb === 'change') model.attrs = attrsOf(data.id, data.item);
    else if (model) models.splice(at, 1);
    if (verb === 'publish') model = { id: data.id, attrs: attrsOf(data.id, data.item), collections: {} };
    if (verb === 'publish' || verb === 'position') {
      var where = data.position || ':end';
      var to = models.length;
      if (where === 'begin:') to = 0;
      else if (where.charAt(0) !== ':') to = placeOf(models, where.slice(0, -1)) + 1;
      else if (where !== ':end') to = placeOf(models, where.slice(1));
      models.splice(to, 0, model);
    }
    if (has(collection, 'v')) collection.v = data.v;
    else model.v = data.v;
  };

  Literal.prototype.reset = function (data) {
    var literal = this;
    var user = literal.root.models.user;
    var holders = [];
    if (data.parent) {
      if (data.parent.feed === 'users' && user.id === data.parent.id) holders.push(user);
      literal.everywhere(function (collection) {
        var at = collection.id === data.parent.feed ? placeOf(collection.models, data.parent.id) : -1;
        if (at !== -1) holders.push(collection.models[at]);
      });
      each(holders, function (model) {
        if (data.collection) model.collections[data.name] = copy(data.collection);
        else delete model.collections[data.name];
      });
    } else if (!data.collection) {
      delete literal.subscriptions[data.feed];
    } else if (has(literal.subscriptions, data.feed)) {
      literal.subscriptions[data.feed] = copy(data.collection);
    }
    if (!data.collection || (data.parent && !holders.length)) return;
    literal.everywhere(function (collection) {
      if (collection.id !== data.collection.id) return;
      eachOwn(copy(data.collection), function (value, name) { collection[name] = value; });
    });
  };

  return { Dice: Dice, Gateway: Gateway, Literal: Literal, copy: copy, each: each, eachOwn: eachOwn, has: has, placeOf: placeOf, text: text };
})();

if (typeof module !== 'undefined' && module.exports) module.exports = World;
