// The sample on a plane, each image a point where the network sees it: near to those that are alike to it.

const sky = $('sky');
const PALETTE = ['#56b4e9', '#e69f00', '#009e73', '#cc79a7', '#f0e442', '#d55e00', '#9aa5b1', '#0072b2'];
const LABELS = { merger: '#ff9d3b', 'non-merger': '#5fa8ff', 'wrong label': '#ff5d5d', none: '#59626e' };
const scale = { x: 0, y: 0, k: 1, ratio: 1 };
let xs;
let ys;

// From blue over grey to orange: what speaks against a merger, and for one.
function warmth(t) {
  const stops = [[56, 122, 223], [120, 168, 226], [165, 168, 172], [244, 170, 88], [255, 128, 20]];
  const place = Math.min(0.9999, Math.max(0, t)) * (stops.length - 1);
  const [low, high] = [stops[Math.floor(place)], stops[Math.floor(place) + 1]];
  return `rgb(${low.map((from, k) => Math.round(from + (place % 1) * (high[k] - from))).join(',')})`;
}

function painter(name) {
  const key = $('legend');
  key.replaceChildren();
  const entry = (colour, text) => {
    const dot = element('span', { className: 'swatch' });
    dot.style.background = colour;
    key.append(element('span', {}, dot, text));
  };
  if (name === 'tag' || columns.get(name).kind === 'category') {
    const names = name === 'tag' ? [...data.tags.map(([tag]) => tag), 'none'] : columns.get(name).names;
    const colours = new Map(names.map((text, k) => [text, LABELS[text] ?? PALETTE[k % PALETTE.length]]));
    colours.forEach((colour, text) => entry(colour, text));
    return (i) => colours.get(name === 'tag' ? tagOf(i) : textAt(name, i));
  }
  const values = columns.get(name).values.filter((value) => value !== null).sort((a, b) => a - b);
  const unit = name === 'probability';
  const [low, high] = unit ? [0, 1] : [values[Math.floor(values.length * 0.02)], values[Math.floor((values.length - 1) * 0.98)]];
  [0, 0.5, 1].forEach((t) => entry(warmth(t), short(low + t * (high - low))));
  return (i) => (numberAt(name, i) === null ? '#333' : warmth((numberAt(name, i) - low) / (high - low || 1)));
}

const at = (i) => [scale.x + scale.k * xs[i], scale.y - scale.k * ys[i]];

function paintMap() {
  if ($('map').hidden) return;
  const box = $('map').getBoundingClientRect();
  scale.ratio = window.devicePixelRatio || 1;
  sky.width = box.width * scale.ratio;
  sky.height = box.height * scale.ratio;
  const ends = (values) => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const [[left, right], [bottom, top]] = [ends(xs), ends(ys)];
  scale.k = 0.92 * Math.min(box.width / (right - left || 1), (box.height - 60) / (top - bottom || 1));
  scale.x = box.width / 2 - (scale.k * (left + right)) / 2;
  scale.y = box.height / 2 + (scale.k * (bottom + top)) / 2;
  const context = sky.getContext('2d');
  context.setTransform(scale.ratio, 0, 0, scale.ratio, 0, 0);
  const colour = painter($('paint').value);
  const radius = Math.max(1.6, Math.min(4, 160 / Math.sqrt(count)));
  const shown = new Set(state.order);
  const dot = (i, r) => { context.beginPath(); context.arc(...at(i), r, 0, 7); context.fill(); };
  context.fillStyle = '#2a3038';
  everything.forEach((i) => { if (!shown.has(i)) dot(i, radius * 0.7); });
  state.order.forEach((i) => { context.fillStyle = colour(i); dot(i, radius); });
  context.strokeStyle = '#fff';
  context.lineWidth = 1.5;
  for (const i of state.chosen) { context.beginPath(); context.arc(...at(i), radius + 4, 0, 7); context.stroke(); }
}

function nearest(event) {
  const box = sky.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = -1;
  let least = 18 ** 2;
  for (const i of state.order) {
    const [px, py] = at(i);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < least) [best, least] = [i, away];
  }
  return best;
}

function showView(name) {
  if (!data.places) return;
  const map = name === 'map';
  $('map').hidden = !map;
  grid.hidden = map;
  $('view-map').setAttribute('aria-pressed', map);
  $('view-grid').setAttribute('aria-pressed', !map);
  if (map) paintMap();
  else resize();
}

if (data.places) {
  [xs, ys] = data.places;
  $('views').hidden = false;
  for (const name of ['probability', 'label', 'split', 'stage', 'tag', ...[...columns.values()].filter(({ kind }) => kind === 'number').map((c) => c.name)]) {
    const known = name === 'tag' || columns.has(name);
    if (known && ![...$('paint').options].some((option) => option.value === name)) {
      $('paint').append(element('option', { value: name, text: name === 'tag' ? 'tag' : columns.get(name).title }));
    }
  }
  $('paint').addEventListener('change', paintMap);
  sky.addEventListener('click', (event) => {
    const i = nearest(event);
    if (i >= 0) choose(i, { add: event.ctrlKey || event.metaKey });
  });
  sky.addEventListener('pointermove', (event) => {
    const i = nearest(event);
    $('hover').hidden = i < 0;
    if (i < 0) return;
    $('hover').replaceChildren(thumbnails.image(i, 'picture'), element('span', { text: describe(i) }));
    const [x, y] = at(i);
    $('hover').style.transform = `translate(${Math.min(x + 12, sky.clientWidth - 160)}px, ${Math.max(0, Math.min(y - 60, sky.clientHeight - 170))}px)`;
  });
  sky.addEventListener('pointerleave', () => { $('hover').hidden = true; });
  new ResizeObserver(paintMap).observe($('map'));
  ['order', 'focus', 'tags'].forEach((event) => on(event, paintMap));
  $('view-map').addEventListener('click', () => showView('map'));
  $('view-grid').addEventListener('click', () => showView('grid'));
}
