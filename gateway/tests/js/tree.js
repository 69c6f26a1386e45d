// The literal client: applies what the gateway sends, word by word.
//
// It checks nothing against Redis and repairs nothing; what it holds after any
// number of events is exactly what a page would show. Where an event names a
// neighbour that is not held, it says so in `problems` instead of guessing.
'use strict';

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const copy = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
const has = (object, key) => Object.prototype.hasOwnProperty.call(object, key);

class Tree {
  /** @param {{userFeed?: string}} [options] the feed behind `[tree.user] attrs`, if there is one */
  constructor(options = {}) {
    this.userFeed = options.userFeed;
    this.root = null;
    this.subscriptions = {};
    this.problems = [];
  }

  /** Applies one event by name; true if the name is one of the tree's. */
  apply(name, payload) {
    const verbs = ['initial', 'publish', 'change', 'retract', 'position', 'reset'];
    if (!verbs.includes(name)) return false;
    this[name](copy(payload));
    return true;
  }

  /** Takes the answer of `subscribe {feed}`. */
  subscribed(feed, collection) {
    this.subscriptions[feed] = copy(collection);
  }

  /** Takes the answer of `unsubscribe {feed}`. */
  unsubscribed(feed) {
    delete this.subscriptions[feed];
  }

  toJSON() {
    return copy(this.root);
  }

  initial(root) {
    this.root = root;
    this.subscriptions = {};
  }

  publish({ feed, id, item, position, v }) {
    for (const collection of this.collections(feed)) {
      const models = collection.models.filter((model) => model.id !== id);
      const model = { id, attrs: attrs(id, item), collections: {} };
      this.place(models, model, position, { feed, id });
      collection.models = models;
      note(collection, model, v);
    }
  }

  change({ feed, id, item, v }) {
    for (const collection of this.collections(feed)) {
      const model = collection.models.find((each) => each.id === id);
      if (!model) continue;
      model.attrs = attrs(id, item);
      note(collection, model, v);
    }
    const user = this.user(feed, id);
    if (user) {
      user.attrs = attrs(id, item);
      user.v = v;
    }
  }

  retract({ feed, id, v }) {
    for (const collection of this.collections(feed)) {
      if (!collection.models.some((model) => model.id === id)) continue;
      collection.models = collection.models.filter((model) => model.id !== id);
      note(collection, null, v);
    }
  }

  position({ feed, id, position, v }) {
    for (const collection of this.collections(feed)) {
      const model = collection.models.find((each) => each.id === id);
      if (!model) continue;
      const models = collection.models.filter((each) => each !== model);
      this.place(models, model, position, { feed, id });
      collection.models = models;
      note(collection, model, v);
    }
  }

  reset({ feed, parent, name, collection }) {
    if (parent) {
      for (const model of this.models(parent.feed, parent.id)) {
        model.collections = model.collections || {};
        put(model.collections, name, collection);
      }
    } else if (this.root && name && has(this.root.collections || {}, name)) {
      put(this.root.collections, name, collection);
    } else if (has(this.subscriptions, feed)) {
      put(this.subscriptions, feed, collection);
    }
    if (!collection) return;
    // One feed is one collection, so it looks the same wherever else it hangs.
    const whole = copy(collection);
    for (const shown of this.collections(whole.id)) {
      for (const key of Object.keys(shown)) delete shown[key];
      Object.assign(shown, copy(whole));
    }
  }

  /** Every place where a feed hangs; it is one collection, shown at each. */
  collections(feed) {
    const found = [];
    const walk = (holder) => {
      if (!holder) return;
      for (const collection of Object.values(holder.collections || {})) look(collection);
      for (const model of Object.values(holder.models || {})) walk(model);
    };
    const look = (collection) => {
      if (!collection) return;
      if (collection.id === feed) found.push(collection);
      for (const model of collection.models || []) walk(model);
    };
    walk(this.root);
    Object.values(this.subscriptions).forEach(look);
    return found;
  }

  models(feed, id) {
    const found = this.collections(feed).flatMap((collection) =>
      collection.models.filter((model) => model.id === id),
    );
    const user = this.user(feed, id);
    return user ? [...found, user] : found;
  }

  user(feed, id) {
    const user = this.root && this.root.models && this.root.models.user;
    const named = feed === (this.userFeed || 'user');
    return user && named && user.id === id ? user : null;
  }

  /** `begin:`, `ID:` (after ID), `:ID` (before ID) or `:end`; without one, the end. */
  place(models, model, position, where) {
    const index = this.index(models, position);
    if (index === null) this.problems.push({ ...where, position, problem: 'unknown neighbour' });
    models.splice(index === null ? models.length : index, 0, model);
  }

  index(models, position) {
    if (position === undefined || position === null || position === ':end') return models.length;
    if (position === 'begin:') return 0;
    const after = position.endsWith(':');
    const neighbour = after ? position.slice(0, -1) : position.slice(1);
    const at = models.findIndex((model) => model.id === neighbour);
    if (at < 0) return null;
    return after ? at + 1 : at;
  }
}

/** What an item looks like as a model's attributes. */
function attrs(id, item) {
  if (!isObject(item)) return { id, value: item };
  return has(item, 'id') ? item : { id, ...item };
}

/** A version belongs to the collection, or to the model where the collection has none. */
function note(collection, model, v) {
  if (has(collection, 'v')) collection.v = v;
  else if (model) model.v = v;
}

function put(holder, name, collection) {
  if (collection === null || collection === undefined) delete holder[name];
  else holder[name] = collection;
}

module.exports = { Tree };
