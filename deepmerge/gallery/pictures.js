// Pictures as addresses of data: each is a header that all share, and a scan of its own in a block of many.

class Pictures {
  constructor(name, { header, lengths, pack, width, height }) {
    Object.assign(this, { name, lengths, pack, width, height });
    this.header = `data:image/jpeg;base64,${header}`;
    this.blocks = new Map();
    this.starts = new Uint32Array(lengths.length); // of each scan in its block
    for (let i = 1; i < lengths.length; i += 1) {
      this.starts[i] = i % pack ? this.starts[i - 1] + lengths[i - 1] : 0;
    }
  }

  block(number) {
    if (!this.blocks.has(number)) {
      const script = $(`${this.name}-${number}`);
      this.blocks.set(number, script.textContent);
      script.remove();
    }
    return this.blocks.get(number);
  }

  address(i) {
    const block = this.block(Math.floor(i / this.pack));
    return this.header + block.slice(this.starts[i], this.starts[i] + this.lengths[i]);
  }

  image(i, className) {
    return element('img', { src: this.address(i), className, alt: '', draggable: false });
  }
}

const thumbnails = new Pictures('thumbnails', data.thumbnails);
const heats = data.maps && new Pictures('maps', data.maps);

// Which filters the pictures show: all in colour, or one in grey.
const bands = { names: [...new Set(data.filters)].filter((name) => name !== 'mean'), now: 'colour' };

function showBand(name) {
  bands.now = name;
  const channel = data.filters.indexOf(name); // none for colour
  for (const number of [0, 1, 2]) document.body.classList.toggle(`only-${number}`, channel === number);
  for (const button of $('bands').children) button.setAttribute('aria-pressed', button.dataset.band === name);
}

function nextBand() {
  const all = ['colour', ...bands.names];
  showBand(all[(all.indexOf(bands.now) + 1) % all.length]);
}

if (bands.names.length > 1) {
  for (const name of ['colour', ...bands.names]) {
    const button = element('button', { type: 'button', text: name, title: 'Next: key c' });
    button.dataset.band = name;
    button.addEventListener('click', () => showBand(name));
    $('bands').append(button);
  }
  showBand('colour');
} else {
  $('bands').hidden = true;
}
