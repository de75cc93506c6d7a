// Tags by key, and as a table; keys; and the first look.

for (const [number, [tag, meaning]] of data.tags.entries()) {
  const button = element('button', { type: 'button', title: meaning }, element('kbd', { text: number + 1 }), tag);
  button.dataset.tag = tag;
  button.addEventListener('click', () => say(tag));
  $('tags').append(button);
}
const erase = element('button', { type: 'button', title: 'Take the tag away' }, element('kbd', { text: '0' }), 'no tag');
erase.addEventListener('click', () => say(null));
$('tags').append(erase);

const quoted = (text) => (/[",\r\n;|\t]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function table() {
  const named = columns.has('galaxy_id');
  const labelled = columns.has('label');
  const lines = [['row', ...(named ? ['galaxy_id'] : []), ...(labelled ? ['label'] : []), 'tag']];
  const tagged = [...state.tags].sort(([a], [b]) => numberAt('row', a) - numberAt('row', b));
  for (const [i, { tag, label }] of tagged) {
    lines.push([textAt('row', i), ...(named ? [textAt('galaxy_id', i)] : []), ...(labelled ? [label] : []), tag]);
  }
  return lines.map((line) => `${line.map(quoted).join(',')}\n`).join('');
}

function renewTags() {
  $('tag-count').textContent = state.tags.size;
  const now = new Set([...state.chosen].map(tagOf));
  for (const button of $('tags').children) {
    button.setAttribute('aria-pressed', now.size === 1 && now.has(button.dataset.tag));
    button.disabled = state.chosen.size === 0;
  }
}
on('tags', renewTags);
on('focus', renewTags);

function openExport() {
  $('csv').value = table();
  $('export-text').textContent = state.tags.size
    ? `${state.tags.size} of ${count.toLocaleString('en')} images are tagged.` : 'No image is tagged yet: choose some, and press 1.';
  $('export-dialog').showModal();
}
$('export').addEventListener('click', openExport);
$('download').addEventListener('click', () => {
  const link = element('a', { href: URL.createObjectURL(new Blob([$('csv').value], { type: 'text/csv' })), download: 'tags.csv' });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
$('copy').addEventListener('click', () => {
  $('csv').select();
  document.execCommand('copy'); // where a frame has no clipboard, the text is at least selected
});
$('forget').addEventListener('click', () => {
  state.tags.clear();
  memory.write();
  emit('tags');
  openAgain($('export-dialog'), openExport);
});
const openAgain = (dialog, open) => { dialog.close(); open(); };
for (const button of document.querySelectorAll('dialog .close')) {
  button.addEventListener('click', () => button.closest('dialog').close());
}

const KEYS = [
  ['← → ↑ ↓', 'move; with Shift, choose a range', null],
  [`1 – ${data.tags.length}`, 'tag what is chosen; the same key again takes it away', null],
  ['0', 'no tag', () => say(null)],
  ['m', 'saliency maps over all images', () => showHeat(!state.heat)],
  ['c', 'next filter', nextBand],
  ['g', 'grid or map', () => showView($('map').hidden ? 'map' : 'grid')],
  ['r', 'turn the order around', () => sortBy(state.sort, !state.descending)],
  ['+ −', 'larger, smaller', null],
  ['/', 'find an id or a row', () => $('search').focus()],
  ['e', 'export the tags', openExport],
  ['?', 'this list', () => $('help-dialog').showModal()],
];
for (const [key, meaning] of KEYS) {
  $('keys').append(element('dt', {}, element('kbd', { text: key })), element('dd', { text: meaning }));
}
$('help').addEventListener('click', () => $('help-dialog').showModal());

function zoom(factor) {
  $('size').value = Math.round(tileSize * factor);
  $('size').dispatchEvent(new Event('input'));
}

const MOVES = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -across, ArrowDown: () => across,
  Home: () => -count, End: () => count, PageUp: () => -across * 4, PageDown: () => across * 4 };

document.addEventListener('keydown', (event) => {
  const writing = event.target.matches('input[type=search], textarea, select');
  if (event.key === 'Escape' && writing) grid.focus();
  if (writing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (event.key in MOVES && !event.target.matches('input')) step(MOVES[event.key](), event.shiftKey);
  else if (/^[1-9]$/.test(event.key) && data.tags[event.key - 1]) say(data.tags[event.key - 1][0]);
  else if (event.key === '+' || event.key === '=') zoom(1.2);
  else if (event.key === '-') zoom(1 / 1.2);
  else {
    const known = KEYS.find(([key, , act]) => act && key === event.key);
    if (!known) return;
    known[2]();
  }
  event.preventDefault();
});

memory.read();
measure();
sortBy(state.sort, state.descending);
showPanel();
renewTags();
emit('tags');
grid.focus({ preventScroll: true });
document.documentElement.dataset.ready = 'yes';
