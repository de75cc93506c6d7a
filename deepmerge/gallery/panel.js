// The chosen image, large, with all that is known of it, its galaxy's other images and those most like it.

const panel = $('panel');

function strip(title, numbers, help) {
  if (!numbers.length) return [];
  const row = element('div', { className: 'strip' });
  for (const i of numbers) {
    const button = element('button', { type: 'button', title: describe(i) }, thumbnails.image(i, 'picture'));
    button.setAttribute('aria-label', describe(i));
    button.append(element('span', { className: `dot ${isMerger(i) ? 'merger' : 'other'}` }));
    if (columns.has('probability')) button.append(element('span', { className: 'value', text: (numberAt('probability', i) ?? NaN).toFixed(2) }));
    button.addEventListener('click', () => { choose(i); reveal(i); });
    row.append(button);
  }
  return [element('h3', { text: title, title: help }), row];
}

// Large in colour, with the map under the pointer; below, the map and each filter by itself.
function large(i) {
  const layers = () => [thumbnails.image(i, 'picture'), ...(heats ? [heats.image(i, 'heat')] : [])];
  const small = [];
  if (heats) {
    const title = `${data.mapsTitle}: orange speaks for a merger, blue against`;
    small.push(element('figure', { className: 'heated', title }, ...layers(), element('figcaption', { text: 'saliency' })));
  }
  for (const name of bands.names.length > 1 ? bands.names : []) {
    const className = `only-${data.filters.indexOf(name)}`;
    small.push(element('figure', { className }, thumbnails.image(i, 'picture'), element('figcaption', { text: name })));
  }
  return [element('div', { className: 'large' }, ...layers()), element('div', { className: 'smalls' }, ...small)];
}

function verdict(i) {
  if (!columns.has('probability')) return [];
  const p = numberAt('probability', i);
  if (p === null) return [];
  const bar = element('div', { className: 'bar' });
  const needle = element('span', { className: isMerger(i) ? 'merger' : 'other' });
  needle.style.left = `${100 * p}%`;
  bar.append(needle);
  const text = element('p', { className: 'verdict' });
  text.append(element('strong', { text: `P(merger) ${p.toFixed(2)}` }));
  if (columns.has('label')) {
    text.append(' · ', element('span', { className: isWrong(i) ? 'alarm' : '', text: `label ${textAt('label', i)}` }));
  }
  return [text, bar];
}

function showPanel() {
  const i = state.focus;
  if (i < 0) {
    panel.replaceChildren(element('p', { className: 'quiet', text: 'Choose an image: click it, or move with the arrow keys.' }));
    return;
  }
  const facts = element('dl');
  for (const column of columns.values()) {
    if (['probability', 'galaxy_id'].includes(column.name)) continue;
    facts.append(element('dt', { text: column.title, title: column.help }), element('dd', { text: textOf(column, i) }));
  }
  const others = (sameGalaxy.get(textAt('galaxy_id', i)) ?? []).filter((other) => other !== i).slice(0, 11);
  const alike = data.neighbours?.[i] ?? [];
  const more = state.chosen.size > 1 ? [element('p', { className: 'quiet', text: `${state.chosen.size} images chosen` })] : [];
  panel.replaceChildren(
    element('h2', { text: nameOf(i) }), ...more, ...large(i), ...verdict(i),
    ...strip('Other images of this galaxy', others),
    ...strip('Most like it to the network', alike, 'Nearest images of other galaxies in the features of the last hidden layer'),
    facts,
  );
}
on('focus', showPanel);
