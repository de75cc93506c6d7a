// A list of any length: tiles are there for what is in sight alone, and are used again as it moves.

const grid = $('grid');
const rail = $('rail');
const GAP = 8;
const CAPTION = 22;
const AHEAD = 2; // lines above and below what is in sight
const inSight = new Map(); // tiles by place in the order
const spare = [];
let tileSize = 112;
let across = 1;

const pictureHeight = () => Math.round((tileSize * thumbnails.height) / thumbnails.width);
const lineHeight = () => pictureHeight() + CAPTION + GAP;

function makeTile() {
  const tile = element('div', { className: 'tile' });
  tile.setAttribute('role', 'option');
  tile.picture = element('img', { className: 'picture', alt: '', draggable: false, decoding: 'sync' });
  tile.heat = element('img', { className: 'heat', alt: '', draggable: false });
  tile.tag = element('span', { className: 'tag' });
  tile.frame = element('div', { className: 'frame' }, tile.picture, tile.heat, tile.tag);
  tile.dot = element('span', { className: 'dot' });
  tile.caption = element('span', { className: 'value' });
  tile.append(tile.frame, element('div', { className: 'caption' }, tile.dot, tile.caption));
  return tile;
}

function describe(i) {
  const parts = [nameOf(i)];
  for (const name of ['label', 'probability', 'split']) {
    if (columns.has(name)) parts.push(`${columns.get(name).title} ${textAt(name, i)}`);
  }
  if (state.tags.has(i)) parts.push(`tagged ${tagOf(i)}`);
  return parts.join(', ');
}

function mark(tile) {
  const { i } = tile;
  tile.classList.toggle('focus', i === state.focus);
  tile.classList.toggle('chosen', state.chosen.has(i));
  tile.setAttribute('aria-selected', state.chosen.has(i));
  const tag = state.tags.get(i)?.tag;
  tile.tag.textContent = tag ?? '';
  tile.dataset.tag = tag ?? '';
  tile.setAttribute('aria-label', describe(i));
}

function warm(tile) {
  if (heats && tile.heat.number !== tile.i) {
    tile.heat.src = heats.address(tile.i);
    tile.heat.number = tile.i;
  }
}

function fill(tile, place) {
  const i = state.order[place];
  tile.i = i;
  tile.id = `tile-${i}`;
  tile.picture.src = thumbnails.address(i);
  const name = state.sort === 'row' && columns.has('probability') ? 'probability' : state.sort;
  tile.caption.textContent = textAt(name, i);
  tile.dot.className = `dot ${columns.has('label') ? (isMerger(i) ? 'merger' : 'other') : 'nothing'}`;
  tile.classList.toggle('wrong', isWrong(i));
  if (state.heat) warm(tile);
  mark(tile);
  const line = Math.floor(place / across);
  const gap = (grid.clientWidth - across * tileSize) / (across + 1);
  const left = Math.round(gap + (place % across) * (tileSize + gap));
  tile.style.transform = `translate(${left}px, ${GAP + line * lineHeight()}px)`;
}

function draw(anew = false) {
  if (!grid.clientHeight) return;
  const lines = Math.ceil(state.order.length / across);
  rail.style.height = `${lines * lineHeight() + GAP}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / lineHeight()) - AHEAD) * across;
  const seen = Math.ceil(grid.clientHeight / lineHeight()) + 2 * AHEAD + 1;
  const last = Math.min(state.order.length, first + seen * across);
  for (const [place, tile] of inSight) {
    if (place < first || place >= last) {
      inSight.delete(place);
      tile.hidden = true;
      spare.push(tile);
    }
  }
  for (let place = first; place < last; place += 1) {
    let tile = inSight.get(place);
    if (!tile) {
      tile = spare.pop() ?? rail.appendChild(makeTile());
      tile.hidden = false;
      inSight.set(place, tile);
      fill(tile, place);
    } else if (anew) {
      fill(tile, place);
    }
  }
}

function measure() {
  const style = document.documentElement.style;
  style.setProperty('--tile', `${tileSize}px`);
  style.setProperty('--tall', `${pictureHeight()}px`);
  across = Math.max(1, Math.floor((grid.clientWidth - GAP) / (tileSize + GAP)));
}

function resize() {
  const top = state.order[Math.floor(grid.scrollTop / lineHeight()) * across];
  measure();
  const place = state.order.indexOf(top);
  if (place > 0) grid.scrollTop = Math.floor(place / across) * lineHeight();
  draw(true);
}

function reveal(i) {
  const place = state.order.indexOf(i);
  if (place < 0) return;
  const top = Math.floor(place / across) * lineHeight();
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + lineHeight() + GAP > grid.scrollTop + grid.clientHeight) {
    grid.scrollTop = top + lineHeight() + GAP - grid.clientHeight;
  }
}

function step(distance, extend) {
  const place = state.order.indexOf(state.focus);
  if (!state.order.length) return;
  const start = place >= 0 || Math.abs(distance) >= count ? place + distance : 0; // the first step leads to the first
  const next = Math.max(0, Math.min(state.order.length - 1, start));
  choose(state.order[next], { extend });
  reveal(state.order[next]);
}

let asked = false;
grid.addEventListener('scroll', () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}, { passive: true });
grid.addEventListener('click', (event) => {
  const tile = event.target.closest('.tile');
  if (tile) choose(tile.i, { extend: event.shiftKey, add: event.ctrlKey || event.metaKey });
});
grid.addEventListener('pointerover', (event) => {
  const tile = event.target.closest('.tile');
  if (tile) warm(tile);
});
new ResizeObserver(resize).observe(grid);
$('size').addEventListener('input', () => { tileSize = Number($('size').value); resize(); });

on('order', () => {
  grid.scrollTop = 0;
  $('shown').textContent = state.order.length.toLocaleString('en');
  $('empty').hidden = state.order.length > 0;
  draw(true);
});
on('focus', () => {
  inSight.forEach(mark);
  grid.setAttribute('aria-activedescendant', `tile-${state.focus}`);
});
on('tags', () => inSight.forEach(mark));

function showHeat(wanted) {
  if (!heats) return;
  state.heat = wanted;
  document.body.classList.toggle('heats', wanted);
  $('heat').setAttribute('aria-pressed', wanted);
  if (wanted) inSight.forEach(warm);
}
$('heat').hidden = !heats;
if (heats) $('heat').title = `${data.mapsTitle}: orange speaks for a merger, blue against`;
$('heat').addEventListener('click', () => showHeat(!state.heat));
