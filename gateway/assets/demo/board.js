'use strict';

/** Whether things are to keep still. */
const STILL = matchMedia('(prefers-reduced-motion: reduce)');

/** Draws the state and turns what hands do into calls; the state alone decides what is shown. */
class Board {
  constructor(capsule, calls, user) {
    this.capsule = capsule;
    this.calls = calls;
    this.user = user;
    this.root = $('board');
    this.touched = new Set();
    this.busy = new Set();
    this.shipping = new Set();
    this.drag = null;
    this.listen();
  }

  /** Notes what has changed and draws once per frame. */
  changed({ type, feed, id }) {
    if (type === 'initial') this.touched.clear();
    else if (id) this.touched.add(key(feed, id));
    this.draw();
  }

  draw() {
    if (this.scheduled) return;
    this.scheduled = true;
    const now = () => {
      if (!this.scheduled) return;
      this.scheduled = false;
      this.drawNow();
    };
    requestAnimationFrame(now);
    // A window in the background is given no frames.
    setTimeout(now, 100);
  }

  drawNow() {
    if (!this.capsule.attrs.id) return;
    const collection = this.capsule.collections.teams || { models: [] };
    const names = collection.models.map(nameOf);
    document.title = names.join(', ') || 'Team board';
    setText($('heading'), names.join(', ') || 'No team yet');
    show($('waiting'), false);
    show(this.root, true);
    keyed(this.root, collection.models, ({ id }) => id, 'team-template', (node, team) => {
      this.drawTeam(node, team, collection.models.length > 1);
    });
    this.touched.clear();
  }

  drawTeam(node, team, named) {
    if (team.attrs.color) document.documentElement.style.setProperty('--team', team.attrs.color);
    setText(node.querySelector('.team-name'), nameOf(team));
    show(node.querySelector('.team-name'), named);
    const members = team.collections && team.collections.members;
    // A plain feed promises no order, so the names give one.
    const inOrder = members ? members.models.slice().sort((a, b) => nameOf(a).localeCompare(nameOf(b))) : [];
    keyed(node.querySelector('.columns'), inOrder, ({ id }) => id, 'column-template', (column, member) => {
      this.drawColumn(column, member, members.id);
    });
    explain(node.querySelector(':scope > .empty'), members, 'This team has no members yet.');
  }

  drawColumn(node, member, feed) {
    const { attrs } = member;
    const name = nameOf(member);
    const tasks = member.collections && member.collections.tasks;
    const models = tasks ? tasks.models : [];
    const done = models.filter((task) => task.attrs.done === true).length;

    node.dataset.member = member.id;
    node.dataset.feed = tasks ? tasks.id : '';
    node.setAttribute('aria-label', name);
    if (attrs.color) node.style.setProperty('--tint', attrs.color);
    setText(node.querySelector('.avatar'), attrs.emoji || name.slice(0, 1));
    setText(node.querySelector('.name'), name);
    show(node.querySelector('.you'), member.id === this.user);
    setText(node.querySelector('.count'), `${done} of ${models.length}`);
    node.querySelector('.count').setAttribute('aria-label', `${done} of ${models.length} tasks done`);
    node.querySelector('.progress span').style.width = models.length ? `${100 * done / models.length}%` : '0';
    node.querySelector('[data-add]').setAttribute('aria-label', `Add a task for ${name}`);
    const readable = Boolean(tasks && !tasks.unavailable);
    for (const part of ['.count', '.progress', '.add']) show(node.querySelector(part), readable);
    explain(node.querySelector('.empty'), tasks, 'Nothing to do.');
    if (this.touched.has(key(feed, member.id))) flash(node.querySelector('.member'));

    keyed(node.querySelector('.tasks'), models, ({ id }) => id, 'task-template', (card, task) => {
      this.drawTask(card, task, tasks);
    });
  }

  drawTask(node, task, tasks) {
    const { attrs } = task;
    const name = key(tasks.id, task.id);
    const title = titleOf(task);
    const at = tasks.models.indexOf(task);
    const busy = this.busy.has(name);
    const shipping = this.shipping.has(name);
    const act = (what) => node.querySelector(`[data-act="${what}"]`);

    node.dataset.task = task.id;
    toggle(node, 'data-busy', busy);
    toggle(node, 'data-is-done', attrs.done === true);
    setText(node.querySelector('.title'), title);
    const check = node.querySelector('[data-done]');
    const keepsClick = busy && !shipping;
    if (!keepsClick) check.checked = attrs.done === true;
    check.setAttribute('aria-label', `Done: ${title}`);

    const due = dueOf(attrs.due);
    setText(node.querySelector('.due'), due);
    show(node.querySelector('.due'), due !== '' && attrs.done !== true);
    show(node.querySelector('.shipped'), attrs.shipped === true);
    show(act('ship'), attrs.shipped !== true);
    act('ship').setAttribute('aria-disabled', shipping);
    setText(node.querySelector('.ship-text'), shipping ? 'Shipping …' : 'Ship');
    act('up').setAttribute('aria-disabled', at === 0);
    act('down').setAttribute('aria-disabled', at === tasks.models.length - 1);
    act('up').setAttribute('aria-label', `Move up: ${title}`);
    act('down').setAttribute('aria-label', `Move down: ${title}`);
    act('edit').setAttribute('aria-label', `Edit: ${title}`);
    act('delete').setAttribute('aria-label', `Delete: ${title}`);
    act('ship').setAttribute('aria-label', `${shipping ? 'Shipping' : 'Ship'}: ${title}`);
    if (this.touched.has(name)) flash(node);
  }

  // ----- What hands do

  listen() {
    const { root } = this;
    root.addEventListener('click', (event) => this.onClick(event));
    root.addEventListener('change', (event) => this.onChange(event));
    root.addEventListener('submit', (event) => this.onSubmit(event));
    root.addEventListener('keydown', (event) => this.onKey(event));
    root.addEventListener('focusout', (event) => {
      if (event.target.matches('.title-input')) this.endEdit(event.target.closest('.task'), 'left');
    });
    root.addEventListener('dblclick', (event) => {
      if (event.target.matches('.title, .words')) this.edit(event.target.closest('.task'));
    });
    root.addEventListener('dragstart', (event) => this.onDragStart(event));
    root.addEventListener('dragover', (event) => this.onDragOver(event));
    root.addEventListener('drop', (event) => this.onDrop(event));
    root.addEventListener('dragend', () => this.endDrag());
  }

  onClick(event) {
    const button = event.target.closest('button[data-act]');
    if (!button || button.getAttribute('aria-disabled') === 'true') return;
    const card = button.closest('.task');
    const { feed, id } = this.of(card);
    switch (button.dataset.act) {
      case 'edit': this.edit(card); break;
      case 'delete': this.send('delete', { feed, id }); break;
      case 'ship': this.ship(card); break;
      case 'up': this.step(card, -1); break;
      case 'down': this.step(card, 1); break;
    }
  }

  onChange(event) {
    if (!event.target.matches('[data-done]')) return;
    const { feed, id } = this.of(event.target.closest('.task'));
    this.send('set', { feed, id, change: { done: event.target.checked } });
  }

  async onSubmit(event) {
    event.preventDefault();
    const input = event.target.querySelector('[data-add]');
    const title = input.value.trim();
    if (!title) return;
    input.value = '';
    const feed = input.closest('.column').dataset.feed;
    const added = await this.send('add', { feed, item: { title, done: false } });
    if (!added && input.value === '') input.value = title;
  }

  onKey(event) {
    // Enter and Escape end a composition first, where one is open.
    if (!event.target.matches('.title-input') || event.isComposing) return;
    if (event.key !== 'Enter' && event.key !== 'Escape') return;
    event.preventDefault();
    const card = event.target.closest('.task');
    this.endEdit(card, event.key === 'Enter' ? 'entered' : 'cancelled');
    card.querySelector('[data-act="edit"]').focus();
  }

  /** Opens the title for typing, with the words that were refused where there are any. */
  edit(card, refused) {
    const input = card.querySelector('.title-input');
    const title = card.querySelector('.title').textContent;
    if (!input.hidden) return;
    // A field inside something draggable cannot be selected in with a mouse.
    card.draggable = false;
    toggle(card, 'data-editing', true);
    input.value = refused || title;
    input.dataset.from = input.value;
    show(card.querySelector('.title'), false);
    show(input, true);
    input.focus();
    input.select();
  }

  async endEdit(card, how) {
    const input = card.querySelector('.title-input');
    if (input.hidden) return;
    const title = input.value.trim();
    show(input, false);
    show(card.querySelector('.title'), true);
    toggle(card, 'data-editing', false);
    card.draggable = true;
    const isOld = title === card.querySelector('.title').textContent;
    const isUntouched = how === 'left' && title === input.dataset.from;
    if (how === 'cancelled' || !title || isOld || isUntouched) return;
    const { feed, id } = this.of(card);
    const changed = await this.send('set', { feed, id, change: { title } });
    if (!changed && how === 'entered' && card.isConnected) this.edit(card, title);
  }

  async ship(card) {
    const { feed, id, title } = this.of(card);
    const name = key(feed, id);
    this.shipping.add(name);
    this.draw();
    const shipped = await this.send('shipTask', { feed, id, title });
    this.shipping.delete(name);
    this.draw();
    if (shipped) say(`Shipped: ${title}`);
  }

  step(card, by) {
    const { feed, id, at, models } = this.of(card);
    const neighbour = models[at + by];
    if (neighbour) this.move(feed, id, by < 0 ? `:${neighbour.id}` : `${neighbour.id}:`);
  }

  async move(feed, id, where) {
    if (!await this.send('move', { feed, id, position: where })) return;
    const collection = this.capsule.feed(feed);
    const at = collection ? collection.models.findIndex((task) => task.id === id) : -1;
    if (at !== -1) say(`Now at place ${at + 1} of ${collection.models.length}`);
  }

  /** Calls, marks the task while it waits, and returns whether it went well. */
  async send(event, data) {
    const name = key(data.feed, data.id);
    this.busy.add(name);
    this.draw();
    let ok = true;
    try {
      await this.calls.call(event, data);
    } catch (error) {
      toast(error);
      ok = false;
    }
    this.busy.delete(name);
    // The ack may overtake the event: what was clicked stays until then.
    if (ok) setTimeout(() => this.draw(), 150);
    else this.draw();
    return ok;
  }

  /** The task that a card shows. */
  of(card) {
    const { feed } = card.closest('.column').dataset;
    const id = card.dataset.task;
    const collection = this.capsule.feed(feed);
    const models = collection ? collection.models : [];
    const at = models.findIndex((task) => task.id === id);
    return { feed, id, at, models, title: at === -1 ? '' : titleOf(models[at]) };
  }

  // ----- Dragging

  onDragStart(event) {
    const card = event.target.closest && event.target.closest('.task');
    if (!card) return;
    this.drag = { card, list: card.parentElement, target: null };
    event.dataTransfer.effectAllowed = 'move';
    event.dataTransfer.setData('text/plain', this.of(card).title);
    requestAnimationFrame(() => this.drag && card.classList.add('dragged'));
  }

  onDragOver(event) {
    if (!this.drag) return;
    const column = event.target.closest('.column');
    if (!column || !column.contains(this.drag.list)) {
      this.aim(null);
      return;
    }
    event.preventDefault();
    event.dataTransfer.dropEffect = 'move';
    const cards = Array.from(this.drag.list.children);
    const below = cards.find((card) => {
      const box = card.getBoundingClientRect();
      return event.clientY < box.top + box.height / 2;
    });
    this.aim(below ? { card: below, side: 'before' } : { card: cards[cards.length - 1], side: 'after' });
  }

  /** Shows where the card would go. */
  aim(target) {
    const { drag } = this;
    if (drag.target) drag.target.card.classList.remove('drop-before', 'drop-after');
    drag.target = target;
    if (target && target.card !== drag.card) target.card.classList.add(`drop-${target.side}`);
  }

  onDrop(event) {
    if (!this.drag || !this.drag.target) return;
    event.preventDefault();
    const { card, target } = this.drag;
    this.endDrag();
    if (!card.isConnected || !target.card.isConnected || target.card === card) return;
    const stays = target.side === 'before' && target.card.previousElementSibling === card;
    if (stays) return;
    const { feed, id } = this.of(card);
    const neighbour = target.card.dataset.task;
    this.move(feed, id, target.side === 'before' ? `:${neighbour}` : ':end');
  }

  endDrag() {
    if (!this.drag) return;
    this.aim(null);
    this.drag.card.classList.remove('dragged');
    this.drag = null;
  }
}

function key(feed, id) {
  return `${feed}\n${id}`;
}

function nameOf({ id, attrs }) {
  return String(attrs.name || id);
}

function titleOf({ id, attrs }) {
  return String(attrs.title || attrs.value || id);
}

/** A date as people say it; other words as they are. */
function dueOf(due) {
  if (due === undefined || due === null || due === '') return '';
  const isDate = /^\d{4}-\d\d-\d\d/.test(due);
  if (!isDate) return String(due);
  return new Date(`${due.slice(0, 10)}T12:00`).toLocaleDateString(undefined, { day: 'numeric', month: 'short' });
}

function explain(element, collection, nothing) {
  const unavailable = !collection || collection.unavailable;
  setText(element, unavailable ? 'Cannot be read right now. It will appear here as soon as it can.' : nothing);
  show(element, unavailable || collection.models.length === 0);
}

function flash(element) {
  element.classList.remove('flash');
  void element.offsetWidth;
  element.classList.add('flash');
  clearTimeout(element.flashing);
  element.flashing = setTimeout(() => element.classList.remove('flash'), 1200);
}

/**
 * Makes the children of `parent` those of `list`, one node per key.
 *
 * The node that holds the focus is never taken out of the page, so typing,
 * selections and compositions go on undisturbed while others move around it.
 */
function keyed(parent, list, keyOf, template, update) {
  const held = parent.held || (parent.held = new Map());
  const nodes = list.map((entry) => held.get(keyOf(entry)) || fromTemplate(template));
  const tops = new Map(Array.from(held.values(), (node) => [node, node.offsetTop]));

  const kept = new Set(nodes);
  for (const node of held.values()) if (!kept.has(node)) drop(node);
  held.clear();
  list.forEach((entry, index) => held.set(keyOf(entry), nodes[index]));

  let next = parent.firstElementChild;
  for (const node of nodes) {
    if (node !== next && node.contains(document.activeElement)) {
      while (next !== node) {
        const later = next.nextElementSibling;
        parent.append(next);
        next = later;
      }
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  list.forEach((entry, index) => update(nodes[index], entry));
  if (!STILL.matches && parent.matches('.tasks')) slide(nodes, tops);
}

/** Lets each node glide from where it was. */
function slide(nodes, tops) {
  for (const node of nodes) {
    const by = tops.has(node) ? tops.get(node) - node.offsetTop : 0;
    if (by) node.animate([{ transform: `translateY(${by}px)` }, { transform: 'none' }], { duration: 180, easing: 'ease-out' });
  }
}

/** Takes a card out; a focus inside it goes to the card beside it. */
function drop(node) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  const beside = node.nextElementSibling || node.previousElementSibling;
  const column = node.closest('.column');
  if (focused && focused.matches('.title-input')) toast(new Error('The task that you were editing is gone.'));
  if (focused && node.matches('.task')) {
    const act = focused.dataset.act || 'delete';
    const target = (beside && beside.querySelector(`[data-act="${act}"]:not([hidden])`)) || column.querySelector('[data-add]');
    node.querySelector('.title-input').hidden = true;
    target.focus();
  }
  node.remove();
}
