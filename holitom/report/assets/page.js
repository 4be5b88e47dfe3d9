"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const full = data.grid[0] * data.grid[1]; // patches of a frame as the LLM sees it; the vision tower has a grid of its own
  let [rows, columns] = data.grid, patches = full;
  const strip = document.getElementById("strip"), panel = document.getElementById("panel"), live = document.getElementById("live");
  const images = new Array(data.frames), cells = [];
  let view = "outcome", when = "0", held = false, size = null, printing = false;
  let point = null; // {run, source}: the patch that is pointed at

  const percent = (share) => (share >= 0.0995 ? (100 * share).toFixed(0) : (100 * share).toPrecision(2)) + " %";
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : word.endsWith("ch") ? "es" : "s"}`;
  const place = (source) => ({ frame: Math.floor(source / patches), row: Math.floor((source % patches) / columns), column: source % columns });
  const dark = () => !printing && matchMedia("(prefers-color-scheme: dark)").matches;

  // Each stage's sources by token, and tokens by source: first the target, then further shares.
  const all = data.tower ? Array.from({ length: data.frames * data.tower.grid[0] * data.tower.grid[1] }, (_, n) => n) : [];
  for (const run of data.runs) {
    run.routed = Boolean(run.tower); // where not, the tower computed every patch
    run.tower = run.tower || { target: all, anchor: all, weight: all.map(() => 1), colour: all.map(() => -1), shares: null };
    for (const stage of [...run.stages, run.tower]) {
      stage.sources = stage.anchor.map(() => []);
      stage.tokens = stage.target.map(() => []);
      const edge = (source, token, weight) => {
        stage.sources[token].push([source, weight]);
        stage.tokens[source].push(token);
      };
      stage.target.forEach((token, source) => { if (token >= 0) edge(source, token, stage.weight[source]); });
      if (stage.shares) stage.shares[0].forEach((source, n) => edge(source, stage.shares[1][n], stage.shares[2][n]));
      stage.at = new Map();
      stage.anchor.forEach((source, token) => { if (source >= 0) stage.at.set(source, token); });
    }
  }
  const stageOf = (run) => (when === "tower" ? run.tower : run.stages[when === "1" ? run.stages.length - 1 : 0]);

  // By place of the LLM's grid the patches of the tower that become it, and by patch the places.
  const poolOf = Array.from({ length: full }, () => []), placesOf = data.tower ? Array.from({ length: data.tower.grid[0] * data.tower.grid[1] }, () => []) : [];
  if (data.tower) data.tower.patch.forEach((patch, n) => { poolOf[data.tower.place[n]].push(patch); placesOf[patch].push(data.tower.place[n]); });

  // The tokens that the pointed patch went to, for each run.
  const litTokens = (run) => (point ? stageOf(run).tokens[point.source] : []);
  const litSources = (run) => {
    const found = new Map();
    for (const token of litTokens(run)) for (const [source, weight] of stageOf(run).sources[token]) found.set(source, (found.get(source) || 0) + weight);
    return found;
  };

  function picture(frame) {
    if (!images[frame]) {
      images[frame] = new Image();
      images[frame].onload = () => cells.filter((cell) => cell.frame === frame && cell.seen).forEach(draw);
      images[frame].src = data.pictures[frame];
    }
    return images[frame];
  }

  function heat(value) {
    const at = Math.max(0, Math.min(1, value)) * (data.scale.length - 1), low = Math.min(Math.floor(at), data.scale.length - 2);
    const mix = [1, 3, 5].map((n) => {
      const [from, to] = [low, low + 1].map((step) => parseInt(data.scale[step].slice(n, n + 2), 16));
      return Math.round(from + (to - from) * (at - low));
    });
    return `rgb(${mix.join(",")})`;
  }

  function draw(cell) {
    const image = picture(cell.frame);
    if (!image.complete || !image.naturalWidth) return;
    const canvas = cell.canvas, scale = Math.min(3, Math.max(1, devicePixelRatio || 1)) * (printing ? 2 : 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * scale)), height = Math.round(width * image.naturalHeight / image.naturalWidth);
    const key = [view, when, width, height, dark()].join();
    if (!cell.base || cell.base.key !== key) cell.base = { key, canvas: paint(cell, image, width, height, scale) };
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const pen = canvas.getContext("2d");
    pen.globalAlpha = 1;
    pen.drawImage(cell.base.canvas, 0, 0);
    if (point) highlight(pen, cell, boxesOf(width, height, [rows, columns]), lineOf(width / scale, scale));
  }

  const lineOf = (shown, scale) => Math.max(1, Math.round(scale * Math.min(1, shown / columns / 9)));

  function boxesOf(width, height, [rows, columns]) {
    const x = (column) => Math.round(column * width / columns), y = (row) => Math.round(row * height / rows);
    return Array.from({ length: rows * columns }, (_, n) => {
      const row = Math.floor(n / columns), column = n % columns;
      return [x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row)];
    });
  }

  // A frame as it looks while nothing is pointed at; kept until it goes out of sight or another view is chosen.
  function paint(cell, image, width, height, scale) {
    const canvas = document.createElement("canvas"), stage = stageOf(cell.run), first = cell.frame * patches;
    canvas.width = width;
    canvas.height = height;
    const pen = canvas.getContext("2d"), line = lineOf(width / scale, scale);
    pen.imageSmoothingEnabled = image.naturalWidth > 160;
    pen.drawImage(image, 0, 0, width, height);
    if (view === "outcome") outcomes(pen, stage, first, boxesOf(width, height, [rows, columns]), line);
    else if (view !== "picture") values(pen, cell.run, cell.frame * full, boxesOf(width, height, data.grid), line);
    return canvas;
  }

  function outcomes(pen, stage, first, boxes, line) {
    boxes.forEach(([left, top, wide, high], n) => {
      const token = stage.target[first + n];
      if (token < 0) {
        pen.globalAlpha = 0.8;
        pen.fillStyle = dark() ? "#14171c" : "#ffffff";
        pen.fillRect(left, top, wide, high);
        pen.globalAlpha = 0.8;
        pen.strokeStyle = dark() ? "#7d8691" : "#8b949e";
        pen.lineWidth = Math.max(1, line * 0.7);
        pen.beginPath();
        pen.moveTo(left + wide * 0.25, top + high * 0.75);
        pen.lineTo(left + wide * 0.75, top + high * 0.25);
        pen.stroke();
      } else if (stage.colour[token] >= 0) {
        pen.globalAlpha = 1; // the picture in grey, so that the colour is the token's alone
        pen.globalCompositeOperation = "saturation";
        pen.fillStyle = "#808080";
        pen.fillRect(left, top, wide, high);
        pen.globalCompositeOperation = "source-over";
        pen.globalAlpha = data.fill;
        pen.fillStyle = data.palette[stage.colour[token]];
        pen.fillRect(left, top, wide, high);
      }
    });
    pen.globalAlpha = 1;
    pen.fillStyle = "#111";
    const step = (n, other, vertical) => { // a border between patches of different merged tokens
      const one = stage.target[first + n], two = stage.target[first + other];
      if (one === two || !((one >= 0 && stage.colour[one] >= 0) || (two >= 0 && stage.colour[two] >= 0))) return;
      const [left, top, wide, high] = boxes[other];
      if (vertical) pen.fillRect(left - line / 2, top, line, high); else pen.fillRect(left, top - line / 2, wide, line);
    };
    for (let n = 0; n < patches; n++) {
      if ((n + 1) % columns) step(n, n + 1, true);
      if (n + columns < patches) step(n, n + columns, false);
    }
    boxes.forEach((box, n) => { if (stage.at.has(first + n)) outline(pen, box, line, "#fff"); });
  }

  function outline(pen, [left, top, wide, high], line, colour) {
    pen.globalAlpha = 1;
    for (const [thick, ink] of [[line * 3, "#000"], [line * 1.5, colour]]) {
      pen.lineWidth = thick;
      pen.strokeStyle = ink;
      pen.strokeRect(left + line * 1.5, top + line * 1.5, wide - line * 3, high - line * 3);
    }
  }

  function values(pen, run, first, boxes, line) {
    const tau = run.threshold;
    boxes.forEach(([left, top, wide, high], n) => {
      let value = -1;
      if (view === "scores" && data.scores) value = Math.sqrt(data.scores[first + n]);
      if (view === "similarity" && first) value = data.similarity[first - full + n];
      if (view === "attention") {
        const last = run.stages[run.stages.length - 1];
        if (last.attention) value = last.attention[first + n] < 0 ? -1 : Math.sqrt(last.attention[first + n]);
      }
      pen.globalAlpha = 0.85;
      pen.fillStyle = value < 0 && (view !== "similarity" || !first) ? (dark() ? "#14171c" : "#fff") : heat(value);
      pen.fillRect(left, top, wide, high);
      if (view === "similarity" && first && tau !== null && value > tau) {
        pen.globalAlpha = 1;
        pen.fillStyle = "#000";
        pen.fillRect(left + wide / 2 - line, top + high / 2 - line, 2 * line + 1, 2 * line + 1);
      }
    });
  }

  function highlight(pen, cell, boxes, line) {
    const first = cell.frame * patches;
    pen.globalAlpha = 0.55;
    pen.fillStyle = dark() ? "#000" : "#fff";
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    for (const source of cell.mine) {
      const [left, top, wide, high] = boxes[source - first];
      pen.globalAlpha = 1;
      pen.drawImage(cell.base.canvas, left, top, wide, high, left, top, wide, high);
      pen.globalAlpha = 0.25 + 0.5 * (cell.largest ? cell.lit.get(source) / cell.largest : 1);
      pen.fillStyle = "#00e5c8";
      pen.fillRect(left, top, wide, high);
      outline(pen, [left, top, wide, high], line * 0.8, "#00e5c8");
      if (cell.stands.has(source)) {
        pen.fillStyle = "#fff";
        pen.strokeStyle = "#000";
        pen.lineWidth = line;
        pen.beginPath();
        pen.arc(left + wide / 2, top + high / 2, Math.min(wide, high) / 4, 0, 7);
        pen.fill();
        pen.stroke();
      }
    }
    const n = point.source - first;
    if (n >= 0 && n < patches) outline(pen, boxes[n], line, cell.run === point.run ? "#ff2fd0" : "#ffb3ee");
  }

  // What the pointed patch became, in words.
  function tell() {
    const run = point.run, stage = stageOf(run), at = place(point.source), tokens = litTokens(run);
    const where = `${data.runs.length > 1 ? `${run.letter}: ` : ""}frame ${at.frame + 1}, row ${at.row + 1}, column ${at.column + 1}`;
    if (when === "tower") return `${where}: ${inTower(run)}`;
    const values = [];
    if (at.frame && (view === "similarity")) values.push(`similarity to the frame before ${data.similarity[point.source - patches].toFixed(2)}`);
    if (data.scores && view === "scores") values.push(`attention in the vision tower ${percent(data.scores[point.source])} of the largest`);
    if (view === "attention") {
      const seen = run.stages[run.stages.length - 1].attention;
      if (seen && seen[point.source] >= 0) values.push(`attention to this question ${percent(seen[point.source])} of the largest`);
    }
    const more = values.length ? ` (${values.join("; ")})` : "";
    if (!tokens.length) return `${where}${more}: dropped, no token holds any of it.`;
    const sources = litSources(run), frames = new Set([...sources.keys()].map((source) => Math.floor(source / patches)));
    const mine = stage.sources[tokens[0]].find(([source]) => source === point.source)[1];
    const below = run.routed ? ` The vision tower computed ${plural(rowsBelow(run, sources).size, "state")} for it.` : "";
    if (sources.size === 1) return `${where}${more}: stays as it is, as token ${tokens[0] + 1} of ${stage.anchor.length}.${below}`;
    const names = tokens.length === 1 ? `token ${tokens[0] + 1} of ${stage.anchor.length}` : plural(tokens.length, "token");
    const low = Math.min(...frames) + 1, high = Math.max(...frames) + 1;
    const anchor = stage.anchor[tokens[0]];
    const stands = tokens.length > 1 ? "" : anchor < 0 ? " It stands at the end of a line." : (({ frame, row, column }) => ` It stands at frame ${frame + 1}, row ${row + 1}, column ${column + 1}.`)(place(anchor));
    return `${where}${more}: ${percent(mine)} of ${names}, which is made of ${plural(sources.size, "patch")} in ${low === high ? `frame ${low}` : `frames ${low} to ${high}`}.${stands}${below}`;
  }

  // The rows of the vision tower that became these places of the LLM's grid.
  function rowsBelow(run, sources) {
    const found = new Set(), each = placesOf.length;
    for (const source of sources.keys()) for (const patch of poolOf[source % full]) found.add(run.tower.target[Math.floor(source / full) * each + patch]);
    return found;
  }

  // What the vision tower did with the pointed patch, and where that goes.
  function inTower(run) {
    const sources = [...litSources(run).keys()], frames = sources.map((source) => Math.floor(source / patches)), tokens = new Set();
    for (const source of sources) for (const cell of placesOf[source % patches]) for (const token of run.stages[0].tokens[Math.floor(source / patches) * full + cell]) tokens.add(token);
    const low = Math.min(...frames) + 1, high = Math.max(...frames) + 1, { frame } = place(run.tower.anchor[litTokens(run)[0]]);
    const what = sources.length === 1 ? "computed for itself." : `computed once, in frame ${frame + 1}, for ${plural(sources.length, "patch")} in ${low === high ? `frame ${low}` : `frames ${low} to ${high}`}.`;
    const into = !tokens.size ? "Nothing of it enters the LLM." : `It goes into ${tokens.size === 1 ? `token ${[...tokens][0] + 1}` : plural(tokens.size, "token")} of the ${run.stages[0].anchor.length} that enter the LLM.`;
    return `${what} ${into}`;
  }

  function show() {
    for (const run of data.runs) {
      const lit = litSources(run), byFrame = new Map();
      const largest = [...lit.values()].reduce((most, weight) => Math.max(most, weight), 0);
      const stands = new Set(litTokens(run).map((token) => stageOf(run).anchor[token]));
      for (const source of lit.keys()) {
        const frame = Math.floor(source / patches);
        if (!byFrame.has(frame)) byFrame.set(frame, []);
        byFrame.get(frame).push(source);
      }
      for (const cell of cells) {
        if (cell.run !== run) continue;
        const mine = byFrame.get(cell.frame);
        Object.assign(cell, { lit, largest, stands, mine: mine || [] });
        if (mine) {
          cell.canvas.dataset.sources = mine.join(" ");
          cell.canvas.dataset.weights = mine.map((source) => lit.get(source)).join(" ");
        } else {
          delete cell.canvas.dataset.sources;
          delete cell.canvas.dataset.weights;
        }
        if (cell.seen) draw(cell);
      }
    }
    panel.replaceChildren();
    const words = document.createElement("p");
    panel.append(words);
    if (!point) { words.textContent = "Point at a patch to see what it became."; words.className = "hint"; return; }
    words.textContent = tell() + (held ? " Held: press Escape, or point and click again, to let go." : "");
    const lit = litSources(point.run);
    if (lit.size > 1) {
      const shares = new Array(data.frames).fill(0);
      for (const [source, weight] of lit) shares[Math.floor(source / patches)] += weight;
      const top = Math.max(...shares), chart = document.createElement("div");
      chart.className = "shares";
      for (const share of shares) {
        const bar = document.createElement("i");
        bar.style.height = `${top ? 100 * share / top : 0}%`;
        chart.append(bar);
      }
      const note = document.createElement("p");
      note.className = "hint";
      note.textContent = `share of each frame, 1 to ${data.frames}`;
      panel.append(chart, note);
    }
  }

  // The strip: one figure a frame, one canvas for each method in it.
  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      unroll(entry.target, entry.isIntersecting);
      for (const cell of cells) {
        if (cell.figure !== entry.target) continue;
        cell.seen = entry.isIntersecting;
        if (cell.seen) draw(cell); else if (!printing) { cell.canvas.width = cell.canvas.height = 1; cell.base = null; }
      }
    }
  }, { rootMargin: "400px" });

  function unroll(figure, seen) {
    const film = figure.querySelector(".film");
    if (seen) film.style.backgroundImage = `url(${data.pictures[figure.dataset.frame]})`;
    else if (!printing) film.style.backgroundImage = "";
  }

  const shape = new Image();
  shape.onload = () => {
    const ratio = `${shape.naturalWidth} / ${shape.naturalHeight}`;
    for (const shown of strip.querySelectorAll("canvas, .film")) shown.style.aspectRatio = ratio;
  };
  for (let frame = 0; frame < data.frames; frame++) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    figure.className = "frame";
    figure.id = `frame-${frame + 1}`;
    figure.dataset.frame = frame;
    for (const [text] of [[`${frame + 1}`], [`${data.times[frame].toFixed(1)} s`]]) {
      const span = document.createElement("span");
      span.textContent = text;
      caption.append(span);
    }
    const film = document.createElement("div"); // the frame as it is, above what became of it
    film.className = "film";
    figure.append(caption, film);
    for (const run of data.runs) {
      const holder = document.createElement("div"), bar = document.createElement("div"), canvas = document.createElement("canvas");
      holder.className = "cell";
      bar.className = "segment none";
      const number = run.spans ? run.spans.findIndex(([from, to]) => from <= frame && frame <= to) : -1;
      if (number >= 0) {
        const [from, to] = run.spans[number];
        bar.className = `segment${number % 2 ? " odd" : ""}${frame === to ? " ends" : ""}`;
        bar.textContent = frame === from ? `segment ${number + 1}` : "\u00a0";
        if (frame === from && frame && run === data.runs[0]) figure.classList.add("starts");
      }
      canvas.width = canvas.height = 1; // until it comes into sight
      canvas.setAttribute("role", "img");
      holder.append(bar, canvas);
      if (data.runs.length > 1) {
        const letter = document.createElement("span");
        letter.className = "letter";
        letter.textContent = run.letter;
        letter.setAttribute("aria-hidden", "true");
        holder.append(letter);
      }
      figure.append(holder);
      cells.push({ run, frame, figure, canvas, seen: false, base: null, lit: new Map(), largest: 0, stands: new Set(), mine: [], number });
    }
    strip.append(figure);
    sight.observe(figure);
  }
  shape.src = data.pictures[0];

  function label() {
    for (const cell of cells) {
      const stage = stageOf(cell.run), first = cell.frame * patches;
      let alone = 0, merged = 0, dropped = 0;
      for (let source = first; source < first + patches; source++) {
        const token = stage.target[source];
        if (token < 0) dropped++; else if (stage.colour[token] >= 0) merged++; else alone++;
      }
      const computed = when === "tower" ? cell.run.tower.anchor.filter((source) => source >= first && source < first + patches).length : 0;
      const outcome = when === "tower" ? `${computed} computed, ${patches - computed} reused` : `${alone} stay, ${merged} merged, ${dropped} dropped`;
      cell.canvas.setAttribute("aria-label", `${data.runs.length > 1 ? `${cell.run.letter}, ` : ""}frame ${cell.frame + 1}${cell.number >= 0 ? `, segment ${cell.number + 1}` : ""}: ${outcome}`);
    }
  }
  const redraw = () => cells.filter((cell) => cell.seen).forEach(draw);

  const cellAt = (event) => cells.find((cell) => cell.canvas === event.target);
  function pointed(event) {
    const cell = cellAt(event);
    if (!cell) return null;
    const box = cell.canvas.getBoundingClientRect();
    const column = Math.min(columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * columns)));
    const row = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows)));
    return { run: cell.run, source: cell.frame * patches + row * columns + column };
  }
  const same = (one, other) => one && other && one.run === other.run && one.source === other.source;
  strip.addEventListener("pointermove", (event) => {
    if (held || event.pointerType === "touch") return;
    const next = pointed(event);
    if (!same(next, point) && (next || point)) { point = next; show(); }
  });
  strip.addEventListener("pointerleave", () => { if (!held && point) { point = null; show(); } });
  strip.addEventListener("click", (event) => {
    const next = pointed(event);
    if (!next) return;
    held = !(held && same(next, point));
    point = next;
    show();
  });
  strip.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const start = point || { run: data.runs[0], source: 0 }, at = place(start.source);
    const steps = { ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], PageUp: [-1, 0, 0], PageDown: [1, 0, 0] };
    let run = start.run, next = null;
    if (event.key in steps) {
      if (point) { const step = steps[event.key]; at.frame += step[0]; at.row += step[1]; at.column += step[2]; }
      if (at.column < 0 && at.frame > 0) { at.frame--; at.column = columns - 1; }
      if (at.column >= columns && at.frame < data.frames - 1) { at.frame++; at.column = 0; }
      const inside = (value, end) => Math.max(0, Math.min(end - 1, value));
      next = inside(at.frame, data.frames) * patches + inside(at.row, rows) * columns + inside(at.column, columns);
    } else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = data.frames * patches - 1;
    else if (event.key === "Enter") { if (point) { held = !held; show(); } event.preventDefault(); return; }
    else if (event.key === "Escape") { held = false; point = null; show(); live.textContent = ""; return; }
    else {
      const other = data.runs.find((each) => each.letter === event.key.toUpperCase());
      if (!other || data.runs.length < 2) return;
      run = other;
      next = start.source;
    }
    event.preventDefault();
    point = { run, source: next };
    show();
    live.textContent = tell();
    const figure = document.getElementById(`frame-${place(next).frame + 1}`), box = figure.getBoundingClientRect();
    if (box.top < 0 || box.bottom > innerHeight - panel.offsetHeight) figure.scrollIntoView({ block: "center", behavior: "instant" });
  });

  document.querySelectorAll("input[name=view]").forEach((input) => input.addEventListener("change", () => { view = input.value; strip.classList.toggle("picture", view === "picture"); show(); }));
  document.querySelectorAll("input[name=stage]").forEach((input) => input.addEventListener("change", () => {
    const before = patches;
    when = input.value;
    [rows, columns] = when === "tower" ? data.tower.grid : data.grid;
    patches = rows * columns;
    if (patches !== before) { point = null; held = false; }
    label();
    show();
  }));
  const slider = document.getElementById("size");
  const resize = () => { if (size !== slider.value) { size = slider.value; strip.style.setProperty("--cell", `${size}rem`); requestAnimationFrame(redraw); } };
  slider.addEventListener("input", resize);
  addEventListener("resize", () => requestAnimationFrame(redraw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; strip.querySelectorAll(".frame").forEach((figure) => unroll(figure, true)); cells.forEach((cell) => { cell.seen = true; draw(cell); }); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  resize();
  label();
})();
