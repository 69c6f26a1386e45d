// Capsule: keeps the state that a gateway sends in step, and resumes it after a lost connection.
//
//   var capsule = Capsule.connect(io({ query: Capsule.query }));
//   capsule.on('change', function (change) { … });
//
// Works with the socket of any socket.io client from 0.9 to 4.x, in any browser that runs one:
// it is written in the language of 1999 and uses nothing that came later.

var Capsule = (function () {
  'use strict';

  /** What a message of `resume` may measure; the gateway closes a client over 64 KiB. */
  var MAX_RESUME_BYTES = 48000;
  /** Seconds until a subscription is asked for again where the gateway gives no number. */
  var ASK_AGAIN = 5;
  var VERBS = ['initial', 'publish', 'change', 'retract', 'position', 'reset'];

  // ------------------------------------------------------------------ Values

  function has(object, name) {
    return Object.prototype.hasOwnProperty.call(object, name);
  }

  function isList(value) {
    return Object.prototype.toString.call(value) === '[object Array]';
  }

  function isObject(value) {
    return typeof value === 'object' && value !== null && !isList(value);
  }

  function each(list, visit) {
    for (var at = 0; at < list.length; at += 1) visit(list[at], at);
  }

  function eachOwn(object, visit) {
    for (var name in object) if (has(object, name)) visit(object[name], name);
  }

  function copyInto(target, source) {
    eachOwn(source, function (value, name) {
      // Assigned, this name would change what the object is.
      if (name !== '__proto__') target[name] = value;
    });
    return target;
  }

  function isEqual(one, other) {
    if (one === other) return true;
    if (isList(one)) {
      if (!isList(other) || one.length !== other.length) return false;
      for (var at = 0; at < one.length; at += 1) if (!isEqual(one[at], other[at])) return false;
      return true;
    }
    return isObject(one) && isObject(other) && holds(one, other) && holds(other, one);
  }

  function holds(one, other) {
    for (var name in other) {
      if (has(other, name) && !(has(one, name) && isEqual(one[name], other[name]))) return false;
    }
    return true;
  }

  /** Anything by a text; `__proto__` and `toString` are texts like others. */
  function Table() {
    this.entries = {};
  }

  Table.prototype.get = function (key) {
    return has(this.entries, '$' + key) ? this.entries['$' + key] : null;
  };

  Table.prototype.put = function (key, value) {
    this.entries['$' + key] = value;
  };

  Table.prototype.drop = function (key) {
    delete this.entries['$' + key];
  };

  Table.prototype.each = function (visit) {
    eachOwn(this.entries, visit);
  };

  /** An item as attributes: with an id of its own, and `{id, value}` where it is no object. */
  function attrsOf(id, item) {
    if (!isObject(item)) return { id: id, value: item };
    return has(item, 'id') ? item : copyInto({ id: id }, item);
  }

  function placeOf(models, id) {
    for (var at = 0; at < models.length; at += 1) if (models[at].id === id) return at;
    return -1;
  }

  /** The index that a position names; the end where there is none, or its neighbour is not held. */
  function placeNamed(models, position) {
    if (position === 'begin:') return 0;
    if (typeof position !== 'string' || position === ':end') return models.length;
    var isBefore = position.charAt(0) === ':';
    var neighbour = isBefore ? position.substring(1) : position.substring(0, position.length - 1);
    var at = placeOf(models, neighbour);
    if (at === -1) return models.length;
    return isBefore ? at : at + 1;
  }

  function isSameShown(held, fresh, isFlat) {
    if (held.id !== fresh.id || !held.unavailable !== !fresh.unavailable) return false;
    if (held.models.length !== fresh.models.length) return false;
    for (var at = 0; at < held.models.length; at += 1) {
      var one = held.models[at];
      var other = fresh.models[at];
      if (one.id !== other.id || !isEqual(one.attrs, other.attrs)) return false;
      if (!isFlat && !isSameBelow(one.collections, other.collections || {})) return false;
    }
    return true;
  }

  function isSameBelow(held, fresh) {
    for (var gone in held) if (has(held, gone) && !has(fresh, gone)) return false;
    for (var name in fresh) {
      if (has(fresh, name) && !(has(held, name) && isSameShown(held[name], fresh[name]))) return false;
    }
    return true;
  }

  // -------------------------------------------------------------------- Tree

  /**
   * The state: `initial`, then each event applied literally.
   *
   * A feed is one collection however many places show it, and is held while any place or
   * subscription does. Ids and feeds that are not held are ignored. `root` is given its
   * `attrs`, `models` and `collections`; `userFeed` names the feed that the user's model answers
   * to, without it that is any feed that is not held. Each verb returns what it changed, and
   * nothing where all was so already. A feed may carry what it is `shown` as elsewhere; `gone`
   * gathers those of feeds that were let go.
   */
  function Tree(root, userFeed) {
    this.root = root;
    this.userFeed = userFeed;
    this.isFilled = false;
    this.feeds = new Table();
    this.before = new Table();
    this.gone = [];
    copyInto(root, { attrs: {}, models: {}, collections: {} });
  }

  /** The collection of a feed, null where it is not held. */
  Tree.prototype.collection = function (name) {
    var feed = this.feeds.get(name);
    return feed ? feed.collection : null;
  };

  /** The model of an item, null where it is not held. */
  Tree.prototype.model = function (name, id) {
    var collection = this.collection(name);
    var at = collection ? placeOf(collection.models, id) : -1;
    return at === -1 ? this.userModel(name, id) : collection.models[at];
  };

  Tree.prototype.userModel = function (name, id) {
    var user = has(this.root.models, 'user') ? this.root.models.user : null;
    if (!user || user.id !== id) return null;
    var answers = this.userFeed ? name === this.userFeed : !this.feeds.get(name);
    return answers ? user : null;
  };

  Tree.prototype.initial = function (state) {
    var tree = this;
    var seen = new Table();
    tree.before = tree.feeds;
    tree.feeds = new Table();
    tree.isFilled = true;
    tree.root.attrs = state.attrs || {};
    tree.root.models = {};
    eachOwn(state.models || {}, function (model, name) {
      tree.root.models[name] = tree.adoptModel(model, seen);
    });
    tree.root.collections = tree.adoptAll(state.collections, seen);
    tree.before.each(function (feed) {
      if (feed.shown && !tree.feeds.get(feed.collection.id)) tree.gone.push(feed.shown);
    });
    tree.before = new Table();
    return { type: 'initial' };
  };

  Tree.prototype.publish = function (data) {
    var collection = this.collection(data.feed);
    if (!collection) return null;
    var model = { id: data.id, attrs: attrsOf(data.id, data.item), collections: {} };
    var at = placeOf(collection.models, data.id);
    var old = at === -1 ? null : collection.models.splice(at, 1)[0];
    var to = placeNamed(collection.models, data.position);
    var isSame = old && at === to && isEqual(old.attrs, model.attrs);
    if (isSame) model = old;
    collection.models.splice(to, 0, model);
    noteVersion(collection, model, data.v);
    if (isSame) return null;
    if (old) this.releaseModel(old);
    return changeOf('publish', data, collection, model);
  };

  Tree.prototype.change = function (data) {
    var model = this.model(data.feed, data.id);
    if (!model) return null;
    var collection = this.collection(data.feed);
    var attrs = attrsOf(data.id, data.item);
    var isSame = isEqual(model.attrs, attrs);
    if (!isSame) model.attrs = attrs;
    noteVersion(this.userModel(data.feed, data.id) === model ? {} : collection, model, data.v);
    return isSame ? null : changeOf('change', data, collection, model);
  };

  Tree.prototype.retract = function (data) {
    var collection = this.collection(data.feed);
    var at = collection ? placeOf(collection.models, data.id) : -1;
    if (at === -1) return null;
    var model = collection.models.splice(at, 1)[0];
    noteVersion(collection, model, data.v);
    this.releaseModel(model);
    return changeOf('retract', data, collection, model);
  };

  Tree.prototype.position = function (data) {
    var collection = this.collection(data.feed);
    var at = collection ? placeOf(collection.models, data.id) : -1;
    if (at === -1) return null;
    var model = collection.models.splice(at, 1)[0];
    var to = placeNamed(collection.models, data.position);
    collection.models.splice(to, 0, model);
    noteVersion(collection, model, data.v);
    return at === to ? null : changeOf('position', data, collection, model);
  };

  Tree.prototype.reset = function (data) {
    if (data.parent) {
      var model = this.model(data.parent.feed, data.parent.id);
      return model ? this.hang(model, data) : null;
    }
    if (typeof data.name === 'string') {
      return has(this.root.collections, data.name) ? this.hang(this.root, data) : null;
    }
    if (!data.collection) return this.forget(data.feed);
    var feed = this.feeds.get(data.feed);
    if (!feed) return null;
    var isSame = isSameShown(feed.collection, data.collection, true);
    this.fill(feed, data.collection, new Table(), true);
    return isSame ? null : { type: 'reset', feed: data.feed, collection: feed.collection, model: null };
  };

  /** Replaces what hangs at a name under a model. */
  Tree.prototype.hang = function (model, data) {
    var old = has(model.collections, data.name) ? model.collections[data.name] : null;
    var fresh = data.collection;
    var isSame = old && fresh ? isSameShown(old, fresh) : !old && !fresh;
    // What stays is held by its new place before it loses the old one.
    if (fresh) model.collections[data.name] = this.adopt(fresh, new Table());
    else delete model.collections[data.name];
    if (old) this.release(old);
    if (isSame) return null;
    return {
      type: 'reset', feed: data.feed, parent: data.parent, name: data.name,
      collection: fresh ? model.collections[data.name] : null, model: model
    };
  };

  /** Lets a feed go wherever it is held. */
  Tree.prototype.forget = function (name) {
    var tree = this;
    var feed = tree.feeds.get(name);
    if (!feed) return null;
    tree.everyHolder(function (holder) {
      eachOwn(holder.collections, function (collection, at) {
        if (collection !== feed.collection) return;
        delete holder.collections[at];
        tree.release(collection);
      });
    });
    tree.unsubscribe(name);
    return { type: 'reset', feed: name, collection: null, model: null };
  };

  /** Holds a feed by its name, as the answer to `subscribe` brings it. */
  Tree.prototype.subscribe = function (fresh) {
    var feed = this.feeds.get(fresh.id);
    if (feed && feed.isSubscribed && isSameShown(feed.collection, fresh, true)) {
      this.fill(feed, fresh, new Table(), true);
      return null;
    }
    if (!feed) {
      this.adopt(fresh, new Table());
      feed = this.feeds.get(fresh.id);
      feed.places = 0;
    } else {
      this.fill(feed, fresh, new Table(), true);
    }
    feed.isSubscribed = true;
    return { type: 'subscribe', feed: fresh.id, collection: feed.collection, model: null };
  };

  /** Holds a feed no longer by its name. */
  Tree.prototype.unsubscribe = function (name) {
    var feed = this.feeds.get(name);
    if (!feed || !feed.isSubscribed) return null;
    feed.isSubscribed = false;
    this.letGo(feed);
    return { type: 'unsubscribe', feed: name, collection: this.collection(name), model: null };
  };

  /** Takes a collection over at one place, and returns the one of its feed. */
  Tree.prototype.adopt = function (fresh, seen) {
    var feed = this.feeds.get(fresh.id);
    if (!feed) {
      var before = this.before.get(fresh.id);
      feed = { collection: { models: [] }, places: 0, isSubscribed: false, shown: before && before.shown };
      this.feeds.put(fresh.id, feed);
    }
    feed.places += 1;
    if (!seen.get(fresh.id)) this.fill(feed, fresh, seen, false);
    return feed.collection;
  };

  /** Makes a feed's collection what was brought; a flat one says nothing of what hangs below. */
  Tree.prototype.fill = function (feed, fresh, seen, isFlat) {
    var tree = this;
    var held = feed.collection;
    var old = held.models;
    var models = [];
    seen.put(fresh.id, true);
    each(fresh.models, function (model) {
      var at = isFlat ? placeOf(old, model.id) : -1;
      var next = tree.adoptModel(model, seen);
      if (at !== -1) {
        next.collections = old[at].collections;
        old.splice(at, 1);
      }
      models.push(next);
    });
    delete held.v;
    delete held.unavailable;
    copyInto(held, fresh);
    held.models = models;
    each(old, function (model) { tree.releaseModel(model); });
  };

  Tree.prototype.adoptModel = function (fresh, seen) {
    var model = copyInto({}, fresh);
    model.collections = this.adoptAll(fresh.collections, seen);
    return model;
  };

  Tree.prototype.adoptAll = function (collections, seen) {
    var tree = this;
    var adopted = {};
    eachOwn(collections || {}, function (collection, name) {
      if (collection) adopted[name] = tree.adopt(collection, seen);
    });
    return adopted;
  };

  Tree.prototype.release = function (collection) {
    var feed = this.feeds.get(collection.id);
    feed.places -= 1;
    this.letGo(feed);
  };

  Tree.prototype.letGo = function (feed) {
    var tree = this;
    if (feed.places > 0 || feed.isSubscribed) return;
    tree.feeds.drop(feed.collection.id);
    if (feed.shown) tree.gone.push(feed.shown);
    each(feed.collection.models, function (model) { tree.releaseModel(model); });
  };

  Tree.prototype.releaseModel = function (model) {
    var tree = this;
    eachOwn(model.collections, function (collection) { tree.release(collection); });
  };

  /** Visits the root and every model; those nearer to the root first. */
  Tree.prototype.everyHolder = function (visit) {
    var seen = new Table();
    var queue = [this.root];
    function enter(collection) {
      if (seen.get(collection.id)) return;
      seen.put(collection.id, true);
      each(collection.models, function (model) { queue.push(model); });
    }
    eachOwn(this.root.models, function (model) { queue.push(model); });
    this.feeds.each(function (feed) { if (feed.isSubscribed) enter(feed.collection); });
    for (var at = 0; at < queue.length; at += 1) {
      visit(queue[at]);
      eachOwn(queue[at].collections, enter);
    }
  };

  /** The change that an event about one item made. */
  function changeOf(type, data, collection, model) {
    return { type: type, feed: data.feed, id: data.id, collection: collection, model: model };
  }

  /** A version is the collection's, or the one item's where each model has its own. */
  function noteVersion(collection, model, v) {
    var holder = has(collection, 'v') ? collection : model;
    holder.v = typeof v === 'string' ? v : null;
  }

  // ------------------------------------------------------------------ Resume

  /** A text as JSON, counted high: what is not ASCII may be escaped on its way. */
  function bytesOf(text) {
    var bytes = 2;
    for (var at = 0; at < text.length; at += 1) {
      var code = text.charCodeAt(at);
      if (code < 0x20 || code > 0x7e) bytes += 6;
      else bytes += code === 0x22 || code === 0x5c ? 2 : 1;
    }
    return bytes;
  }

  function versionOf(holder) {
    return typeof holder.v === 'string' ? holder.v : null;
  }

  /**
   * What is held, as `resume` says it: user and teams item by item, every feed with its version.
   *
   * Feeds that would make it too long are left out, the deepest first; the gateway sends those
   * anew. Where user, teams and subscriptions alone are too long, or nothing is held, it is
   * empty, which asks for `initial`.
   */
  function versions(tree, limit) {
    var said = {};
    var bytes = 12;
    var isFull = false;
    var seen = new Table();
    function entry(into, name, value) {
      var more = bytesOf(name) + 2 + (value === null ? 4 : bytesOf(value));
      if (isFull || bytes + more > limit) {
        isFull = true;
        return;
      }
      bytes += more;
      into[name] = value;
    }
    function single(name, models) {
      var items = said[name] = {};
      bytes += bytesOf(name) + 4;
      each(models, function (model) { entry(items, model.id, versionOf(model)); });
    }
    function feed(collection) {
      if (seen.get(collection.id)) return;
      seen.put(collection.id, true);
      if (has(collection, 'v')) entry(said, collection.id, versionOf(collection));
      else single(collection.id, collection.models);
    }
    if (!tree.isFilled) return said;
    var user = has(tree.root.models, 'user') ? tree.root.models.user : { v: null };
    single('user', [{ id: String(tree.root.attrs.id), v: user.v }]);
    eachOwn(tree.root.collections, feed);
    tree.feeds.each(function (held) { if (held.isSubscribed) feed(held.collection); });
    if (isFull) return {};
    tree.everyHolder(function (holder) { eachOwn(holder.collections, feed); });
    return said;
  }

  var ASKED = /(^|[?&])resume=1(&|$)/;

  /** Tells whether a connection was opened with `resume=1`, as far as its client shows it. */
  function wasAsked(socket) {
    var manager = socket.io || {};
    var engine = manager.engine || {};
    var old = socket.socket || {};
    var isAsked = ASKED.test(String(manager.uri || ''));
    each([
      engine.query, engine.opts && engine.opts.query, manager.opts && manager.opts.query,
      socket.query, socket.auth, old.options && old.options.query
    ], function (query) {
      if (typeof query === 'string') isAsked = isAsked || ASKED.test(query);
      else if (isObject(query)) isAsked = isAsked || String(query.resume) === '1';
    });
    return isAsked;
  }

  // ---------------------------------------------------------------- Backbone

  /**
   * Backbone models and collections in step with a tree.
   *
   * `root` is a model with the root's attributes; each model has `collections` and each
   * collection `feed`. One feed is one collection here too, and stays the same object for as
   * long as the feed is held, also across `initial`. A model's `id` is the item's in Redis.
   */
  function Shown(tree, Backbone) {
    this.tree = tree;
    this.Backbone = Backbone;
    this.root = this.newModel('', {});
    this.root.models = {};
  }

  Shown.prototype.newModel = function (id, attrs) {
    var model = new this.Backbone.Model(shownAttrs(id, attrs));
    model.collections = {};
    return model;
  };

  /** Follows one change of the tree. */
  Shown.prototype.apply = function (change) {
    var feed = change.feed ? this.tree.feeds.get(change.feed) : null;
    var collection = feed && feed.shown;
    switch (change.type) {
      case 'publish':
        this.remove(collection, change.id);
        this.put(collection, change.model, placeOf(change.collection.models, change.id), new Table());
        break;
      case 'retract':
        this.remove(collection, change.id);
        break;
      case 'position':
        this.sort(collection, change.collection);
        break;
      case 'change':
        setAttrs(this.modelOf(change.feed, change.model), change.model);
        break;
      case 'reset':
      case 'subscribe':
        if (change.model) this.hang(this.holderOf(change), change.model.collections, new Table());
        else if (change.collection) this.collection(change.collection, new Table());
        else this.follow();
        break;
      case 'initial':
        this.follow();
    }
    // Whoever still shows what is gone, or may not be seen any more, shows nothing.
    each(this.tree.gone.splice(0, this.tree.gone.length), function (gone) {
      gone.remove(gone.models.slice(0));
    });
  };

  Shown.prototype.holderOf = function (change) {
    return change.parent ? this.modelOf(change.parent.feed, change.model) : this.root;
  };

  /** The Backbone model of a model that is held. */
  Shown.prototype.modelOf = function (name, model) {
    var feed = this.tree.feeds.get(name);
    var found = feed && feed.shown && feed.shown.get(model.id);
    return found || this.root.models.user;
  };

  /** Makes everything what the tree is; what is so already is left alone. */
  Shown.prototype.follow = function () {
    var shown = this;
    var root = shown.tree.root;
    var seen = new Table();
    setAttrs(shown.root, { id: root.attrs.id, attrs: root.attrs });
    eachOwn(root.models, function (model, name) {
      var own = has(shown.root.models, name) ? shown.root.models[name] : null;
      if (!own || own.id !== model.id) own = shown.root.models[name] = shown.newModel(model.id, model.attrs);
      shown.fill(own, model, seen);
    });
    eachOwn(shown.root.models, function (model, name) {
      if (!has(root.models, name)) delete shown.root.models[name];
    });
    shown.hang(shown.root, root.collections, seen);
    shown.tree.feeds.each(function (feed) {
      if (feed.isSubscribed) shown.collection(feed.collection, seen);
    });
  };

  Shown.prototype.fill = function (own, model, seen) {
    setAttrs(own, model);
    this.hang(own, model.collections, seen);
  };

  Shown.prototype.hang = function (own, collections, seen) {
    var shown = this;
    var isNew = false;
    eachOwn(collections, function (collection, name) {
      var held = shown.collection(collection, seen);
      if (own.collections[name] !== held) isNew = true;
      own.collections[name] = held;
    });
    eachOwn(own.collections, function (collection, name) {
      if (has(collections, name)) return;
      isNew = true;
      delete own.collections[name];
    });
    if (isNew) own.trigger('collections', own);
  };

  /** The Backbone collection of a feed, in step. */
  Shown.prototype.collection = function (collection, seen) {
    var shown = this;
    var feed = shown.tree.feeds.get(collection.id);
    if (!feed.shown) {
      feed.shown = new shown.Backbone.Collection();
      feed.shown.feed = collection.id;
    }
    if (seen.get(collection.id)) return feed.shown;
    seen.put(collection.id, true);
    var kept = new Table();
    var gone = [];
    each(collection.models, function (model) { kept.put(model.id, true); });
    each(feed.shown.models, function (own) { if (!kept.get(own.id)) gone.push(own); });
    if (gone.length) feed.shown.remove(gone);
    feed.shown.unavailable = collection.unavailable === true;
    each(collection.models, function (model, at) { shown.put(feed.shown, model, at, seen); });
    shown.sort(feed.shown, collection);
    return feed.shown;
  };

  Shown.prototype.remove = function (collection, id) {
    var own = collection.get(id);
    if (own) collection.remove(own);
  };

  Shown.prototype.put = function (collection, model, at, seen) {
    var own = collection.get(model.id);
    if (own) {
      this.fill(own, model, seen);
      return;
    }
    own = this.newModel(model.id, model.attrs);
    this.hang(own, model.collections, seen);
    collection.add(own, { at: at });
  };

  Shown.prototype.sort = function (shown, collection) {
    var isSorted = true;
    each(collection.models, function (model, at) {
      if (shown.models[at].id !== model.id) isSorted = false;
    });
    if (isSorted) return;
    var models = [];
    each(collection.models, function (model) { models.push(shown.get(model.id)); });
    shown.models = models;
    shown.trigger('sort', shown, {});
  };

  function shownAttrs(id, attrs) {
    var shown = copyInto({}, attrs);
    shown.id = id;
    return shown;
  }

  /** Replaces the attributes of a Backbone model, with one `change` at most. */
  function setAttrs(own, model) {
    var attrs = shownAttrs(model.id, model.attrs);
    var gone = {};
    var isGone = false;
    eachOwn(own.attributes, function (value, name) {
      if (has(attrs, name)) return;
      gone[name] = undefined;
      isGone = true;
    });
    if (!isGone) {
      own.set(attrs);
      return;
    }
    if (holds(own.attributes, attrs)) {
      own.set(gone, { unset: true });
      return;
    }
    own.set(gone, { unset: true, silent: true });
    eachOwn(gone, function (value, name) { own.trigger('change:' + name, own, undefined, {}); });
    own.set(attrs);
  }

  // -------------------------------------------------------------- Connection

  /** One socket's capsule; `Capsule.connect` makes it. */
  function Kept(socket, options) {
    this.socket = socket;
    this.options = options;
    this.tree = new Tree(this, options.user);
    this.listeners = new Table();
    this.wanted = new Table();
    this.calls = [];
    this.connected = false;
    this.ready = false;
    this.epoch = 0;
    var here = typeof window === 'undefined' ? {} : window;
    var Backbone = options.Backbone === undefined ? here.Backbone : options.Backbone;
    this.shown = Backbone ? new Shown(this.tree, Backbone) : null;
    this.backbone = this.shown && this.shown.root;
    this.listen();
  }

  Kept.prototype.listen = function () {
    var kept = this;
    each(VERBS, function (verb) {
      kept.socket.on(verb, function (data) { kept.apply(verb, data); });
    });
    kept.socket.on('connect', function () { kept.enter(); });
    kept.socket.on('disconnect', function () { kept.leave(); });
    var old = kept.socket.socket;
    if (kept.socket.connected === true || (old && old.connected === true)) kept.enter();
  };

  /** Says what is held, where the gateway waits for that. */
  Kept.prototype.enter = function () {
    var kept = this;
    kept.leave();
    kept.connected = true;
    var resumes = kept.options.resume === undefined ? wasAsked(kept.socket) : kept.options.resume;
    if (!resumes) return;
    var epoch = kept.epoch;
    var said = versions(kept.tree, kept.options.resumeBytes || MAX_RESUME_BYTES);
    kept.socket.emit('resume', { feeds: said }, function (ack) {
      // Without state it is `initial` that makes it ready, and 409 says that it came anyway.
      if (epoch !== kept.epoch || !ack || ack.code !== 200 || kept.ready || !has(said, 'user')) return;
      kept.enterReady({ resumed: ack.resumed, reset: ack.reset }, said);
    });
  };

  Kept.prototype.leave = function () {
    var calls = this.calls;
    this.epoch += 1;
    this.connected = false;
    this.ready = false;
    this.calls = [];
    each(calls, function (answer) {
      answer({ code: 0, error: 'the connection was lost before the answer came' });
    });
  };

  Kept.prototype.apply = function (verb, data) {
    if (!isObject(data)) return;
    if (verb === 'reset' && !data.collection && !data.parent) {
      this.drop(data.feed, { code: 403, error: 'the feed is gone, or you may not hear it' });
    }
    this.tell(this.tree[verb](data));
    if (verb === 'initial') this.enterReady({ initial: true }, {});
  };

  /** Subscribes again to what the gateway has not kept, and says that everything is in step. */
  Kept.prototype.enterReady = function (how, said) {
    var kept = this;
    kept.ready = true;
    kept.wanted.each(function (wish) {
      var feed = kept.tree.feeds.get(wish.feed);
      var isKept = feed && feed.isSubscribed && feed.places === 0 && has(said, wish.feed);
      if (!isKept) kept.ask(wish);
    });
    kept.fire('ready', how);
  };

  Kept.prototype.tell = function (change) {
    var kept = this;
    if (!change) return;
    if (kept.shown) safely(function () { kept.shown.apply(change); });
    kept.fire('change', change);
  };

  /** Calls `listener` on each `change`, or each time the state is in step (`ready`). */
  Kept.prototype.on = function (name, listener) {
    this.listeners.put(name, (this.listeners.get(name) || []).concat([listener]));
    return this;
  };

  Kept.prototype.off = function (name, listener) {
    var rest = [];
    each(this.listeners.get(name) || [], function (one) { if (one !== listener) rest.push(one); });
    this.listeners.put(name, rest);
    return this;
  };

  Kept.prototype.fire = function (name, value) {
    each(this.listeners.get(name) || [], function (listener) {
      safely(function () { listener(value); });
    });
  };

  /** The collection of a feed, wherever it hangs, or null. */
  Kept.prototype.feed = function (name) {
    return this.tree.collection(name);
  };

  /** The model of an item, or null. */
  Kept.prototype.model = function (feed, id) {
    return this.tree.model(feed, id);
  };

  /**
   * Calls the gateway; `answered` gets the ack, once.
   *
   * Nothing waits for a connection: without one, and when it is lost before the answer, the
   * `code` is 0.
   */
  Kept.prototype.call = function (name, data, answered) {
    var kept = this;
    var isOpen = true;
    function answer(ack) {
      if (!isOpen) return;
      isOpen = false;
      var rest = [];
      each(kept.calls, function (one) { if (one !== answer) rest.push(one); });
      kept.calls = rest;
      var said = isObject(ack) ? ack : { code: 0, error: 'the answer could not be read' };
      if (answered) safely(function () { answered(said); });
    }
    if (!kept.connected) {
      setTimeout(function () { answer({ code: 0, error: 'not connected' }); }, 0);
      return;
    }
    kept.calls.push(answer);
    kept.socket.emit(name, data, answer);
  };

  /**
   * Holds a feed by its name for as long as the gateway lets it, across connections.
   *
   * `answered` gets the ack of the first time, as soon as there is a connection.
   */
  Kept.prototype.subscribe = function (feed, answered) {
    var kept = this;
    var wish = kept.wanted.get(feed);
    var held = wish && wish.wasHeld ? kept.feed(feed) : null;
    if (held) {
      if (answered) setTimeout(function () { answered({ code: 200, collection: held }); }, 0);
      return;
    }
    if (!wish) {
      wish = { feed: feed, answered: [], wasHeld: false };
      kept.wanted.put(feed, wish);
    }
    wish.answered.push(answered);
    if (kept.ready && wish.answered.length === 1) kept.ask(wish);
  };

  Kept.prototype.ask = function (wish) {
    var kept = this;
    var epoch = kept.epoch;
    function isWanted() {
      return epoch === kept.epoch && kept.wanted.get(wish.feed) === wish;
    }
    kept.call('subscribe', { feed: wish.feed }, function (ack) {
      if (!isWanted()) return;
      if (ack.code === 200) {
        wish.wasHeld = true;
        kept.tell(kept.tree.subscribe(ack.collection));
        kept.answer(wish, ack);
      } else if (wish.wasHeld && (ack.code === 429 || ack.code === 503)) {
        setTimeout(function () { if (isWanted()) kept.ask(wish); }, 1000 * (ack.retry_after || ASK_AGAIN));
      } else {
        kept.drop(wish.feed, ack);
        kept.tell(kept.tree.unsubscribe(wish.feed));
      }
    });
  };

  Kept.prototype.answer = function (wish, ack) {
    var waiting = wish.answered;
    wish.answered = [];
    each(waiting, function (answered) { if (answered) safely(function () { answered(ack); }); });
  };

  /** Wants a feed no longer; who still waits for it is told why. */
  Kept.prototype.drop = function (feed, why) {
    var wish = this.wanted.get(feed);
    this.wanted.drop(feed);
    if (wish) this.answer(wish, why);
  };

  /** Holds a feed no longer by its name. */
  Kept.prototype.unsubscribe = function (feed, answered) {
    var kept = this;
    function drop(ack) {
      // It may have been wanted again meanwhile.
      if (!kept.wanted.get(feed)) kept.tell(kept.tree.unsubscribe(feed));
      if (answered) safely(function () { answered(ack); });
    }
    kept.drop(feed, { code: 0, error: 'unsubscribed before it came' });
    // Until the answer its events still come. The next connection begins without it.
    if (kept.connected) kept.call('unsubscribe', { feed: feed }, drop);
    else drop({ code: 200 });
  };

  /** Runs what others wrote; what it throws is reported, and stops nothing here. */
  function safely(run) {
    try {
      run();
    } catch (error) {
      setTimeout(function () { throw error; }, 0);
    }
  }

  return {
    /** What a socket is opened with so that it resumes: `io({ query: Capsule.query })`. */
    query: 'resume=1',

    /**
     * Keeps a socket's state in step, from now on; to be called in the turn that opens it.
     *
     * `options.resume` says whether the socket was opened with `resume=1`, where that cannot be
     * seen; `options.user` names the feed behind `[tree.user] attrs`; `options.resumeBytes` bounds
     * what `resume` says; `options.Backbone` is used instead of the page's own, `false` for none.
     */
    connect: function (socket, options) {
      return new Kept(socket, options || {});
    }
  };
})();

if (typeof module !== 'undefined' && module.exports) module.exports = Capsule;
