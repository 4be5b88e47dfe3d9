// Draws HoliTom's steps.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent), example = data.steps;
  if (!example) return;
  const [rows, columns] = data.grid, patches = rows * columns, run = data.runs[example.run], [first, last] = example.segment;
  const canvases = [...document.querySelectorAll("canvas.mini")], images = new Map(), still = new Set(example.static);
  const first_stage = run.stages[0], last_stage = run.stages[run.stages.length - 1];
  const sizes = new Array(first_stage.anchor.length).fill(0);
  first_stage.target.forEach((token) => { if (token >= 0) sizes[token]++; });
  const shared = new Set(first_stage.anchor.filter((source, token) => sizes[token] > 1)); // where a merged token stands
  const standing = (stage) => new Set(stage.anchor.filter((source) => source >= 0));
  let printing = false;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function image(frame) {
    if (!images.has(frame)) {
      const made = new Image();
      images.set(frame, made);
      made.onload = () => canvases.forEach(draw);
      made.src = data.pictures[frame];
    }
    const made = images.get(frame);
    return made.complete && made.naturalWidth ? made : null;
  }

  // A part of a frame as wide as the box, from its middle.
  function put(pen, frame, left, top, wide, high) {
    const made = image(frame);
    if (!made) return;
    const scale = Math.max(wide / made.naturalWidth, high / made.naturalHeight), w = wide / scale, h = high / scale;
    pen.drawImage(made, (made.naturalWidth - w) / 2, (made.naturalHeight - h) / 2, w, h, left, top, wide, high);
  }

  // One frame with its grid; paint(n, x, y, w, h) colours a patch.
  function grid(pen, frame, left, top, wide, high, paint) {
    put(pen, frame, left, top, wide, high);
    const x = (column) => Math.round(left + column * wide / columns), y = (row) => Math.round(top + row * high / rows);
    for (let n = 0; n < patches; n++) {
      const row = Math.floor(n / columns), column = n % columns;
      paint(n, x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row));
    }
    pen.globalAlpha = 0.25;
    pen.fillStyle = "#000";
    for (let column = 1; column < columns; column++) pen.fillRect(x(column), top, 1, high);
    for (let row = 1; row < rows; row++) pen.fillRect(left, y(row), wide, 1);
    pen.globalAlpha = 1;
  }

  function tint(pen, colour, alpha, box) {
    pen.globalAlpha = alpha;
    pen.fillStyle = colour;
    pen.fillRect(...box);
    pen.globalAlpha = 1;
  }

  const steps = {
    cut(pen, width, height, line) {
      const gap = 3 * line, bar = 6 * line;
      run.spans.forEach(([from, to], number) => {
        const left = Math.round(width * from / data.frames) + (number ? gap : 0), right = Math.round(width * (to + 1) / data.frames);
        const wide = right - left, high = height - bar - line, some = Math.max(1, Math.min(to - from + 1, Math.round(wide / high / 0.6)));
        tint(pen, number % 2 ? style("--soft") : style("--accent"), 1, [left, 0, wide, bar]);
        for (let n = 0; n < some; n++) {
          const start = Math.round(left + wide * n / some), end = Math.round(left + wide * (n + 1) / some);
          put(pen, from + Math.floor((to - from + 1) * n / some), start, bar + line, end - start - (n < some - 1 ? 1 : 0), high);
        }
      });
    },
    time(pen, width, height, line) {
      const behind = Math.min(4, last - first), step = 9 * line, ratio = shape(), high = height - behind * step, wide = Math.min(high * ratio, width - behind * step);
      const tall = wide / ratio, left = (width - wide - behind * step) / 2, top = (height - tall - behind * step) / 2;
      for (let n = behind; n >= 0; n--) {
        const frame = first + Math.round((last - first) * (behind ? n / behind : 0)), box = [left + n * step, top + (behind - n) * step, wide, tall];
        grid(pen, frame, ...box, (patch, ...cell) => { if (still.has(patch)) tint(pen, style("--merged"), n ? 0.8 : 0.6, cell); });
        pen.lineWidth = line;
        pen.strokeStyle = style("--paper");
        pen.strokeRect(...box);
      }
    },
    space: (pen, width, height, line) => left(pen, width, height, line, first_stage),
    inside: (pen, width, height, line) => left(pen, width, height, line, last_stage),
  };

  const shape = () => { const made = image(first); return made ? made.naturalWidth / made.naturalHeight : 1; };

  // The frames in which most of the tokens stand, the first of some segments, and of them only what the model reads.
  function left(pen, width, height, line, stage) {
    const ratio = shape(), gap = 5 * line, here = standing(stage), spans = run.spans;
    const many = spans.length === 1 ? 2 : Math.min(spans.length, ratio > 1.3 ? 2 : 3);
    const frames = Array.from({ length: many }, (_, n) => (spans.length === 1 ? n * spans[0][1] : spans[Math.round(n * (spans.length - 1) / (many - 1))][0]));
    const wide = Math.min((width - gap * (many - 1)) / many, height * ratio), high = wide / ratio;
    const start = (width - many * wide - (many - 1) * gap) / 2, top = (height - high) / 2;
    frames.forEach((frame, n) => {
      const outlines = [];
      grid(pen, frame, start + n * (wide + gap), top, wide, high, (patch, ...cell) => {
        const source = frame * patches + patch;
        if (!here.has(source)) tint(pen, style("--paper"), 0.82, cell);
        else {
          if (shared.has(source)) tint(pen, style("--merged"), 0.5, cell);
          outlines.push([shared.has(source) ? style("--merged") : style("--stays"), cell]);
        }
      });
      for (const [colour, [x, y, w, h]] of outlines) {
        pen.lineWidth = 2 * line;
        pen.strokeStyle = colour;
        pen.strokeRect(x + line, y + line, w - 2 * line, h - 2 * line);
      }
    });
  }

  function draw(canvas) {
    const scale = printing ? 3 : Math.min(3, Math.max(1, devicePixelRatio || 1));
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(width / 2.2);
    if (!width) return;
    canvas.width = width;
    canvas.height = height;
    steps[canvas.dataset.step](canvas.getContext("2d"), width, height, Math.max(1, Math.round(scale)));
  }

  const redraw = () => canvases.forEach(draw);
  addEventListener("resize", () => requestAnimationFrame(redraw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  redraw();
})();
