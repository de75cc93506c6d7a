// What there is to see, what is seen of it, in which order, and what was said of it. Others listen to changes.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($('data').textContent);
const count = data.thumbnails.lengths.length;
const columns = new Map(data.columns.map((column) => [column.name, column]));
const everything = Array.from({ length: count }, (_, i) => i);
const collator = new Intl.Collator('en', { numeric: true });

const state = {
  order: everything, // numbers of the images that are shown
  focus: -1, // number of the chosen image, and the place where a range of chosen ones began
  anchor: 0,
  chosen: new Set(),
  sort: data.sort,
  descending: data.sort !== 'row',
  search: '',
  only: new Map(), // by column: the names of categories that are shown
  ranges: new Map(), // by column: [lowest, highest] that is shown
  heat: false,
  tags: new Map(data.tagged.map(([i, tag, label]) => [i, { tag, label }])),
};

const listeners = {};
const on = (event, listen) => (listeners[event] ??= []).push(listen);
const emit = (event) => (listeners[event] ?? []).forEach((listen) => listen());

function element(tag, { text, title, ...properties } = {}, ...inner) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  if (title) made.title = title;
  made.append(...inner);
  return made;
}

// Three digits, and none of them for show: 0.92, 10.5, 1.2e-4.
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  return size < 10 ? String(Number(value.toFixed(3))) : String(Number(value.toPrecision(4)));
}

for (const column of columns.values()) {
  column.whole = column.kind === 'number' && column.values.every((value) => value === null || Number.isInteger(value));
}

function textOf(column, i) {
  const value = column.values[i];
  if (column.kind === 'category') return column.names[value];
  if (column.kind === 'text') return value;
  if (value === null) return 'unknown';
  return column.whole ? String(value) : short(value);
}

const textAt = (name, i) => (columns.has(name) ? textOf(columns.get(name), i) : '');
const numberAt = (name, i) => columns.get(name)?.values[i] ?? null;
const nameOf = (i) => (columns.has('galaxy_id') ? `galaxy ${textAt('galaxy_id', i)}` : `row ${textAt('row', i)}`);
const isMerger = (i) => textAt('label', i) === 'merger';
const isWrong = (i) => numberAt('probability', i) !== null && columns.has('label')
  && (numberAt('probability', i) >= 0.5) !== isMerger(i);
const tagOf = (i) => state.tags.get(i)?.tag ?? 'none';

const sameGalaxy = new Map(); // numbers of the images by galaxy
for (const i of columns.has('galaxy_id') ? everything : []) {
  const galaxy = textAt('galaxy_id', i);
  if (!sameGalaxy.has(galaxy)) sameGalaxy.set(galaxy, []);
  sameGalaxy.get(galaxy).push(i);
}

function isShown(i) {
  for (const [name, names] of state.only) {
    if (!names.has(name === 'tag' ? tagOf(i) : textAt(name, i))) return false;
  }
  for (const [name, [low, high]] of state.ranges) {
    const value = numberAt(name, i);
    if (value === null || value < low || value > high) return false;
  }
  if (!state.search) return true;
  return [...columns.values()].some((column) => (
    (column.kind === 'text' && column.values[i].toLowerCase().includes(state.search))
    || (column.name === 'row' && String(column.values[i]) === state.search)));
}

function comparison() {
  const column = columns.get(state.sort);
  const sign = state.descending ? -1 : 1;
  const { values } = column;
  if (column.kind === 'text') return (a, b) => sign * collator.compare(values[a], values[b]) || a - b;
  if (column.kind === 'category') {
    return (a, b) => sign * collator.compare(column.names[values[a]], column.names[values[b]]) || a - b;
  }
  return (a, b) => { // what is unknown comes last
    if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
    return sign * (values[a] - values[b]) || a - b;
  };
}

function arrange() {
  state.order = everything.filter(isShown).sort(comparison());
  emit('order');
}

function choose(i, { extend = false, add = false } = {}) {
  const place = state.order.indexOf(i);
  if (extend && place >= 0) {
    const [from, to] = [state.anchor, place].sort((a, b) => a - b);
    state.chosen = new Set(state.order.slice(from, to + 1));
  } else {
    if (!add) state.chosen.clear();
    if (add && state.chosen.has(i)) state.chosen.delete(i);
    else state.chosen.add(i);
    state.anchor = Math.max(place, 0);
  }
  state.focus = i;
  emit('focus');
}

// Tags stay in the browser, by row, where it lets a page remember anything: a frame without an origin may not.
const memory = {
  read() {
    try {
      const places = new Map(everything.map((i) => [numberAt('row', i), i]));
      const known = JSON.parse(localStorage.getItem(data.key) ?? '[]').filter(([row]) => places.has(row));
      for (const [row, said] of known) state.tags.set(places.get(row), said);
    } catch { /* nothing is remembered */ }
  },
  write() {
    const tags = [...state.tags].map(([i, said]) => [numberAt('row', i), said]);
    try { localStorage.setItem(data.key, JSON.stringify(tags)); } catch { /* kept in the page alone */ }
  },
};

function say(tag) {
  const chosen = [...state.chosen];
  const all = chosen.length > 0 && chosen.every((i) => tagOf(i) === tag);
  for (const i of chosen) {
    if (all || tag === null) state.tags.delete(i);
    else state.tags.set(i, { tag, label: textAt('label', i) });
  }
  memory.write();
  emit('tags');
}
