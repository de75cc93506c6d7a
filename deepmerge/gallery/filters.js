// Sort and filter: categories as words to switch on and off, numbers as ranges below their histogram.

const BINS = 40;
const MOST = 12; // categories that are worth a switch each

function sortBy(name, descending) {
  state.sort = name;
  state.descending = descending;
  $('sort').value = name;
  $('direction').textContent = descending ? '↓' : '↑';
  arrange();
}

for (const column of columns.values()) {
  $('sort').append(element('option', { value: column.name, text: column.title, title: column.help }));
}
$('sort').addEventListener('change', () => {
  const { kind } = columns.get($('sort').value);
  sortBy($('sort').value, kind === 'number' && $('sort').value !== 'row');
});
$('direction').addEventListener('click', () => sortBy(state.sort, !state.descending));

let waiting;
$('search').addEventListener('input', () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { state.search = $('search').value.trim().toLowerCase(); arrange(); }, 120);
});

function switches(name, title, help, names, countOf) {
  const group = element('fieldset', { title: help }, element('legend', { text: title }));
  const buttons = names.map((text) => {
    const number = element('span', { className: 'count' });
    const button = element('button', { type: 'button', className: 'chip' }, element('span', { text: text || 'none' }), number);
    button.dataset.column = name;
    button.dataset.name = text;
    button.addEventListener('click', () => {
      const only = state.only.get(name) ?? new Set();
      if (!only.delete(text)) only.add(text);
      if (only.size) state.only.set(name, only);
      else state.only.delete(name);
      arrange();
    });
    group.append(button);
    return { text, number, button };
  });
  const renew = () => {
    for (const { text, number, button } of buttons) {
      number.textContent = countOf(text).toLocaleString('en');
      button.classList.toggle('none', !countOf(text));
      button.setAttribute('aria-pressed', state.only.get(name)?.has(text) ?? false);
    }
  };
  on('order', renew);
  on('tags', renew);
  $('filters').append(group);
}

function histogram(canvas, values, low, high) {
  const counts = new Array(BINS).fill(0);
  for (const value of values) {
    counts[Math.min(BINS - 1, Math.floor(((value - low) / (high - low)) * BINS))] += 1;
  }
  const most = Math.max(...counts);
  const context = canvas.getContext('2d');
  const step = canvas.width / BINS;
  return ([from, to]) => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    counts.forEach((number, bin) => {
      const centre = low + ((bin + 0.5) / BINS) * (high - low);
      context.fillStyle = centre >= from && centre <= to ? '#8fb4d9' : '#3a4350';
      const tall = number ? Math.max(2, Math.sqrt(number / most) * canvas.height) : 0;
      context.fillRect(bin * step, canvas.height - tall, step - 1, tall);
    });
  };
}

function range(column) {
  const values = column.values.filter((value) => value !== null);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(low < high)) return;
  const canvas = element('canvas', { width: 220, height: 34 });
  const redraw = histogram(canvas, values, low, high);
  const said = element('output');
  const slider = (label, value) => {
    const input = element('input', { type: 'range', min: 0, max: 1000, step: 1, value });
    input.setAttribute('aria-label', `${label} ${column.title}`);
    return input;
  };
  const [from, to] = [slider('lowest', 0), slider('highest', 1000)];
  const at = (input) => low + (Number(input.value) / 1000) * (high - low);
  const show = () => {
    const ends = [at(from), at(to)];
    redraw(ends);
    said.textContent = ends.map(short).join(' – ');
  };
  const changed = () => {
    if (Number(from.value) > Number(to.value)) [from.value, to.value] = [to.value, from.value];
    // The ends themselves stay in, whatever rounding does.
    const [first, last] = [from.value === '0' ? -Infinity : at(from), to.value === '1000' ? Infinity : at(to)];
    if (first === -Infinity && last === Infinity) state.ranges.delete(column.name);
    else state.ranges.set(column.name, [first, last]);
    show();
    requestAnimationFrame(arrange);
  };
  from.addEventListener('input', changed);
  to.addEventListener('input', changed);
  on('reset', () => { from.value = 0; to.value = 1000; show(); });
  show();
  const legend = element('legend', { text: column.title });
  $('filters').append(element('fieldset', { className: 'range', title: column.help }, legend, said, canvas,
    element('div', { className: 'ends' }, from, to)));
}

const kept = [...columns.values()];
for (const column of kept.filter(({ kind, names }) => kind === 'category' && names.length > 1 && names.length <= MOST)) {
  const totals = new Array(column.names.length).fill(0);
  column.values.forEach((code) => { totals[code] += 1; });
  switches(column.name, column.title, column.help, column.names, (name) => totals[column.names.indexOf(name)]);
}
switches('tag', 'tag', 'What was said of the images here', [...data.tags.map(([tag]) => tag), 'none'], (name) => {
  let tagged = 0;
  for (const { tag } of state.tags.values()) tagged += tag === name;
  return name === 'none' ? count - state.tags.size : tagged;
});
kept.filter(({ kind, name }) => kind === 'number' && name !== 'row').forEach(range);

$('total').textContent = count.toLocaleString('en');
$('reset').addEventListener('click', () => {
  state.only.clear();
  state.ranges.clear();
  state.search = $('search').value = '';
  emit('reset');
  arrange();
});
on('order', () => { $('reset').hidden = !(state.only.size || state.ranges.size || state.search); });
