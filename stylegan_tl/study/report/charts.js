
// ---- pictures ----------------------------------------------------------------------------------

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { load(entry.target); watcher.unobserve(entry.target); }
}, { rootMargin: "400px" });
function load(img) {
  const held = data.pictures ? null : document.getElementById(img.dataset.file);
  img.src = held ? `data:image/webp;base64,${held.textContent}` : data.pictures + img.dataset.file;
}
function later(file, attributes) {
  const img = h("img", { ...attributes, "data-file": file, decoding: "async" });
  watcher.observe(img);
  return img;
}
function frameAt(trial) {  // the last frame up to the slider
  let i = 0;
  trial.strip.kimg.forEach((k, j) => { if (k <= steps[state.step] + 1e-9) i = j; });
  return i;
}
const shownCards = new Set();
function valueAt(trial, kimg) {
  const rows = (trial.metrics[state.metric] || []).filter((r) => known(r[1]) && r[0] <= kimg + 1e-9);
  return rows.length ? rows[rows.length - 1][1] : null;
}
function card(trial, name) {
  const label = h("span"), caption = h("figcaption", name, label);
  if (!trial.strip) return h("figure.card", h("div.card.empty", `${trial.state}, no pictures`), caption);
  const { file, size: [w, high], kimg, pixelated } = trial.strip;
  const img = later(file, { alt: "", class: pixelated ? "pixels" : null, width: w, height: high * kimg.length });
  const button = h("button.frame", { type: "button", style: { "aspect-ratio": `${w} / ${high}` },
    onclick: () => openCell(trial.cell) }, img);
  const update = () => {
    const i = frameAt(trial), at = valueAt(trial, kimg[i]);
    img.style.transform = `translateY(${-100 * i / kimg.length}%)`;
    const when = kimg[i] > 0 ? kimgText(kimg[i]) : trial.scratch ? "untrained" : "source, 0 kimg";
    label.textContent = known(at) ? `${when} \u00b7 ${three(at)}` : when;
    const who = `${trial.source} to ${trial.target}, ${trial.freeze}, seed ${trial.seed}`;
    button.setAttribute("aria-label", `${who}, ${label.textContent}. Open its trials.`);
  };
  const node = h("figure.card", { "data-trial": trial.id }, button, caption);
  node.update = update;
  shownCards.add(node);
  update();
  return node;
}
function setStep(i) {
  state.step = Math.min(Math.max(i, 0), steps.length - 1);
  for (const node of shownCards) if (node.isConnected) node.update(); else shownCards.delete(node);
  for (const node of document.querySelectorAll(".slider")) node.update();
}
let playing = null;
function stop() {
  clearInterval(playing);
  playing = null;
}
function play() {
  const step = () => { if (state.step >= steps.length - 2) stop(); setStep(state.step + 1); };
  if (playing) stop(); else { playing = setInterval(step, 650); state.step = 0; }
  setStep(state.step);
}
function slider() {
  const every = Math.ceil(steps.length / 8);
  const out = h("output"), button = h("button.quiet", { type: "button", onclick: play });
  const range = h("input", { type: "range", min: 0, max: steps.length - 1, step: 1,
    "aria-label": "kimg shown in every picture", oninput: (e) => setStep(+e.target.value) });
  const ticks = steps.map((k, i) => h("span", i % every && i < steps.length - 1 ? "" : number(k)));
  const node = h("div.slider", out, range, button, h("div.ticks", { "aria-hidden": "true" }, ticks));
  node.update = () => {
    out.textContent = steps[state.step] === 0 ? "source" : kimgText(steps[state.step]);
    range.value = state.step;
    range.setAttribute("aria-valuetext", out.textContent);
    button.textContent = playing ? "Stop" : "Play";
    ticks.forEach((t, i) => t.classList.toggle("on", i === state.step));
  };
  node.update();
  return node;
}

// ---- charts ------------------------------------------------------------------------------------

const DASH = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "1 2", "6 2 1 2"];
const colour = (i) => i < 0 ? "var(--faint)" : `var(--s${i % 8})`;  // below 0: in the background
const stroke = (i) => ({ stroke: colour(i), "stroke-dasharray": DASH[Math.floor(i / 8 + i) % 8] || null });

function ticksOf(low, high, count = 4) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) list.push(Number((i * step).toPrecision(10)));
  return list;
}
function logTicks(low, high) {  // 1, 2, 5 of every decade; only 1 where that is too many
  const decades = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
  const all = decades.flatMap((d) => [d, 2 * d, 5 * d]).filter((v) => v >= low * 0.999 && v <= high * 1.001);
  const few = all.length > 6 ? all.filter((v) => /^1e/.test(v.toExponential())) : all;
  return (few.length > 1 ? few : unique([low, high])).map((v) => Number(v.toPrecision(3)));
}
function kimgScale(xs, left, right) {  // log, with a place of its own for 0
  const positive = xs.filter((x) => x > 0), low = Math.min(...positive), high = Math.max(...positive);
  const start = xs.some((x) => x === 0) ? left + (right - left) * 0.1 : left;
  const at = (x) => x <= 0 ? left : high === low ? right : start + (right - start) * partOf(low, high, true)(x);
  const ticks = positive.length ? (high === low ? [low] : logTicks(low, high)) : [];
  return { at, ticks: xs.some((x) => x === 0) ? [0, ...ticks] : ticks };
}
function axes(width, height, box, xticks, yticks, x, y, xlabel) {
  return [
    yticks.map((v) => [h("line.grid", { x1: box.left, x2: box.right, y1: y(v), y2: y(v) }),
      h("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v))]),
    h("line.axis", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    xticks.map((v) => [h("line.axis", { x1: x(v), x2: x(v), y1: box.bottom, y2: box.bottom + 4 }),
      h("text", { x: x(v), y: box.bottom + 17, "text-anchor": "middle" }, number(v))]),
    h("text", { x: box.right, y: height - 2, "text-anchor": "end" }, xlabel),
  ];
}
// series: [{ name, label, faint, index, points: [[kimg, mean, low, high, seeds]] }]
function lineChart(series, width, height, describe) {
  const points = series.flatMap((s) => s.points), longest = Math.max(...series.map((s) => s.label.length));
  const box = { left: 48, right: width - Math.min(120, 14 + 6.4 * longest), top: 8, bottom: height - 36 };
  let low = Math.min(...points.map((p) => p[2])), high = Math.max(...points.map((p) => p[3]));
  const log = low > 0 && high / low > 12, pad = (high - low || Math.abs(high) || 1) * 0.05;
  if (log) { low *= 0.85; high *= 1.1; } else { low = low >= 0 && low < high - low ? 0 : low - pad; high += pad; }
  const { at, ticks } = kimgScale(unique(points.map((p) => p[0])), box.left + 6, box.right - 4);
  const part = partOf(low, high, log), y = (v) => box.bottom - (box.bottom - box.top) * part(v);
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": describe },
    axes(width, height, box, ticks, log ? logTicks(low, high) : ticksOf(low, high), at, y, "kimg"));
  svg.append(...[...series].sort((a, b) => Boolean(b.faint) - Boolean(a.faint)).map((s) => oneLine(s, at, y)),
    ...endLabels(series.filter((s) => s.label), at, y, box.bottom - 5));
  return svg;
}
function oneLine(s, at, y) {
  const place = (i) => (p) => `${at(p[0]).toFixed(1)} ${y(p[i]).toFixed(1)}`;
  const band = [...s.points.map(place(3)), ...[...s.points].reverse().map(place(2))].join("L");
  const range = (p) => p[4] > 1 ? ` (${number(p[2])} to ${number(p[3])}, ${p[4]} seeds)` : "";
  const dot = (p) => h("circle", { cx: at(p[0]), cy: y(p[1]), r: 3, fill: colour(s.index) },
    h("title", `${s.name}, ${kimgText(p[0])}: ${number(p[1])}${range(p)}`));
  return h("g", s.faint ? null : h("path", { d: `M${band}Z`, fill: colour(s.index), opacity: 0.16 }),
    h("path", { d: `M${s.points.map(place(1)).join("L")}`, fill: "none", "stroke-width": s.faint ? 1 : 2,
      opacity: s.faint ? 0.45 : 1, "stroke-linejoin": "round", ...stroke(s.index) }),
    s.faint || s.points.length > 30 ? null : s.points.map(dot));
}
function endLabels(series, at, y, bottom) {  // beside the ends of the lines, pushed apart
  const ends = series.map((s) => ({ s, p: last(s.points) })).map(({ s, p }) => ({ s, x: at(p[0]), y: y(p[1]) })).sort((a, b) => a.y - b.y);
  ends.forEach((e, i) => { if (i) e.y = Math.max(e.y, ends[i - 1].y + 14); });
  ends.reverse().forEach((e, i) => { e.y = Math.min(e.y, i ? ends[i - 1].y - 14 : bottom); });
  return ends.map((e) => h("text", { x: e.x + 9, y: e.y + 4, style: { fill: colour(e.s.index) } }, e.s.label));
}
const SHAPES = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z", "M-4.5-4.5h9v9h-9Z", "M0-6L5.5 4.5h-11Z", "M0-6L5.5 0L0 6L-5.5 0Z",
  "M-5.5-4.5h11L0 6Z", "M-5-5L5 5M5-5L-5 5", "M0-6V6M-6 0H6", "M-6-2h12v4h-12Z"];
function mark(target, x, y, title) {
  const i = targets.indexOf(target);
  return h("path", { d: SHAPES[i % 8], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, fill: colour(i),
    stroke: colour(i), "stroke-width": 1.5, "fill-opacity": 0.75 }, h("title", title));
}
const targetKey = () => h("div.legend.marks", targets.map((t) => (
  h("span", h("svg", { width: 14, height: 14, "aria-hidden": "true" }, mark(t, 7, 7, t)), `to ${short(t)}`))));
function scatter(c, width) {
  const height = 220, box = { left: 48, right: width - 10, top: 8, bottom: height - 36 };
  const range = (list) => {
    const low = Math.min(...list), high = Math.max(...list), pad = (high - low || Math.abs(high) || 1) * 0.07;
    return [low - pad, high + pad];
  };
  const xs = range(c.points.map((q) => q.x)), ys = range(c.points.map((q) => q.y));
  const x = (v) => box.left + (box.right - box.left) * partOf(...xs)(v), y = (v) => box.bottom - (box.bottom - box.top) * partOf(...ys)(v);
  const title = (q) => `${short(q.s)} \u2192 ${short(q.t)}: ${number(q.x)}, ${number(q.y)}`;
  return h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${c.p.name} against the outcome: ${c.points.map(title).join("; ")}` },
  axes(width, height, box, ticksOf(...xs), ticksOf(...ys), x, y, c.p.metric), c.points.map((q) => mark(q.t, x(q.x), y(q.y), title(q))));
}
function curveOf(list, name) {  // mean and range over the seeds at each kimg where all were measured
  const rows = new Map();
  for (const t of list) for (const [k, v] of (t.metrics[name] || t.logs[name] || []))
    if (known(v)) rows.set(k, [...(rows.get(k) || []), v]);
  const most = Math.max(0, ...[...rows.values()].map((r) => r.length));
  return [...rows].filter(([, r]) => r.length === most).sort((a, b) => a[0] - b[0])
    .map(([k, r]) => [k, mean(r), Math.min(...r), Math.max(...r), r.length]);
}
const complete = (list) => list.some((t) => t.state === "complete") ? list.filter((t) => t.state === "complete") : list;
function panels(count, least, make) {  // columns as even as they come, drawn at their real width
  const page = document.getElementById("page"), gap = 38;
  const whole = Math.max(280, page.clientWidth - 2 * parseFloat(getComputedStyle(page).paddingLeft));
  let columns = Math.max(1, Math.min(count, Math.floor((whole + gap) / (least + gap))));
  if (columns > 2 && count % columns === 1) columns -= 1;
  const width = Math.min(620, Math.floor((whole - gap * (columns - 1)) / columns));
  return h("div.panels", { style: { "grid-template-columns": `repeat(${columns}, minmax(0, 1fr))` } }, make(width));
}
