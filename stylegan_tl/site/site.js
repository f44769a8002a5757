"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const R = data.resolution, models = data.source ? ["source", "target"] : ["target"];
const LAST = 4294967295;  // what a seed of PyTorch's generator can be
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
function h(tag, attributes, ...children) {  // no text is ever read as HTML
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {}))
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value); else if (value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- the pictures that came with the page ------------------------------------------------------

const perSheet = data.columns ** 2, opened = new Map();
function sheet(name) {
  if (!opened.has(name)) opened.set(name, new Promise((done, fail) => {
    const held = $(name), image = new Image();
    image.onload = () => done(image);
    image.onerror = () => fail(new Error(`${data.files}${name} is missing: it belongs beside this page.`));
    image.src = held ? URL.createObjectURL(new Blob([unbase64(held.textContent)], { type: "image/webp" })) : data.files + name;
  }));
  return opened.get(name);
}
function unbase64(text) {
  const plain = atob(text), bytes = new Uint8Array(plain.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = plain.charCodeAt(i);
  return bytes;
}
function tileOf(seed, psi) {  // as Plan.tile; psi a number; null where it is not there
  const place = seed - data.first, near = nearest(psi);
  if (place < 0 || place >= data.count) return null;
  if (!data.psis.length || near === data.base) return place;
  if (near === 0) return data.count;
  const others = data.psis.map((_, i) => i).filter((i) => i && i !== data.base);
  return place < data.full ? data.count + 1 + others.indexOf(near) * data.full + place : null;
}
const nearest = (psi) => data.psis.reduce((best, p, i) => Math.abs(p - psi) < Math.abs(data.psis[best] - psi) ? i : best, 0);
const walksAt = data.count + (data.psis.length ? 1 + (data.psis.length - 2) * data.full : 0);

async function paint(canvas, model, tile) {  // the latest call wins, whatever comes in first
  canvas.wanted = `${model} ${tile}`;
  const wanted = canvas.wanted;
  const image = await sheet(data.sheets[model][Math.floor(tile / perSheet)]).catch(problem);
  if (!image || canvas.wanted !== wanted) return;
  const place = tile % perSheet;
  put(canvas, image, (place % data.columns) * R, Math.floor(place / data.columns) * R);
  canvas.dataset.shown = wanted;
}
function put(canvas, image, x = 0, y = 0) {  // enlarged smoothly, as finely as the screen shows it
  const small = canvas.classList.contains("thumb");
  const shown = small ? R : Math.min(1536, Math.max(R, Math.round(canvas.clientWidth * devicePixelRatio)));
  canvas.width = canvas.height = shown;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = R >= 48;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, x, y, R, R, 0, 0, shown, shown);
}
const canvas = (label, kind = "") => h("canvas", { class: `${kind}${R < 48 ? " pixels" : ""}`, width: R, height: R, role: "img", "aria-label": label });

// ---- the generator, where there is one ---------------------------------------------------------

const live = { ready: false, failed: false, waiting: new Map(), next: 0, cost: null };
const arrived = new Map();
function received(name, files) { arrived.get(name)(files); }  // called by the scripts beside the page
function fetched(name) {
  return new Promise((done, fail) => {
    arrived.set(name, done);
    const missing = () => fail(new Error(`${data.files}${name}.js is missing: it belongs beside this page.`));
    document.head.append(h("script", { src: `${data.files}${name}.js`, onerror: missing }));
  });
}
const unzipped = async (text) => new Response(
  new Blob([unbase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
function ask(message) {
  return new Promise((done, fail) => {
    const id = live.next++;
    live.waiting.set(id, [done, fail]);
    live.worker.postMessage({ id, ...message });
  });
}
async function startLive() {
  const code = $("random-source").textContent + $("worker-source").textContent;
  live.worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  live.worker.onmessage = ({ data: answer }) => {
    const [done, fail] = live.waiting.get(answer.id);
    live.waiting.delete(answer.id);
    if (answer.error) fail(new Error(answer.error)); else done(answer);
  };
  live.worker.onerror = (event) => problem(event);
  const [runtime, ...given] = await Promise.all(["onnxruntime", ...models].map(fetched));
  const own = {};
  for (const [i, key] of models.entries()) own[key] = await unzipped(given[i].model);
  await ask({ start: { module: await unzipped(runtime.module), wasm: await unzipped(runtime.wasm), models: own } });
  live.ready = true;
  describe();
  show();
}
async function generated(model, seed, psi) {  // {pixels: RGBA, side, ms}
  return ask({ model, seed, psi, z: data.z });
}

// ---- one image ---------------------------------------------------------------------------------

const base = data.psis.length ? data.psis[data.base] : 1;
const state = { seed: data.first, psi: base, past: [], ahead: [], drawn: 0 };
const inSet = (seed) => seed >= data.first && seed < data.first + data.count;
const endless = () => Boolean(data.live) && !live.failed;
const allowed = (seed) => endless() ? seed >= 0 && seed <= LAST : inSet(seed);
const frames = Object.fromEntries(models.map((m) => [m, canvas("")]));
const title = (m) => m === "source" ? `Before: ${data.source}` : data.source ? `After: ${data.name}` : "";

async function show() {
  const { seed, psi } = state;
  state.drawn++;
  $("seed").value = seed;
  $("psi-value").textContent = `\u03c8 ${psi.toFixed(2)}`;
  $("psi").value = live.ready ? psi : nearest(psi);
  const fixed = data.psis.length && !endless() && seed - data.first >= data.full;
  $("psi").disabled = fixed;
  $("back").disabled = !state.past.length;
  link(`#seed=${seed}${psi !== base ? `&psi=${Number(psi.toFixed(2))}` : ""}`);
  $("command").textContent = `${data.command} seeds=${seed}${data.psis.length ? ` truncation=${Number(psi.toFixed(2))}` : ""}`;
  const about = `${data.psis.length ? `, truncation ${psi.toFixed(2)}` : ""}`;
  for (const m of models) frames[m].setAttribute("aria-label", `${m === "source" ? data.source : data.name}, seed ${seed}${about}`);
  if (live.ready) return showLive();
  const tile = tileOf(seed, psi) ?? tileOf(seed, base);
  if (tile === null) return;  // the generator is on its way
  await Promise.all(models.map((m) => paint(frames[m], m, tile)));
}
async function showLive() {  // while one is drawn, all later wishes but the last are passed over
  if (live.busy) return;
  live.busy = true;
  try {
    for (let turn = 0; turn !== state.drawn;) {
      turn = state.drawn;
      const { seed, psi } = state, drawn = [];
      for (const m of models) drawn.push(await generated(m, seed, psi));
      models.forEach((m, i) => putPixels(frames[m], drawn[i], `${m} live ${seed} ${psi}`));
      live.cost = drawn[0].ms;
    }
    describe();
  } catch (error) { problem(error); } finally { live.busy = false; }
}
function putPixels(canvas, { pixels, side }, shown) {
  const held = new OffscreenCanvas(side, side);
  held.getContext("2d").putImageData(new ImageData(pixels, side), 0, 0);
  canvas.wanted = null;
  put(canvas, held);
  canvas.dataset.shown = shown;
}
function go(seed, remember = true) {
  if (!allowed(seed) || seed === state.seed) return;
  if (remember) state.past.push(state.seed);
  state.seed = seed;
  show();
}
function link(hash) {
  try { history.replaceState(null, "", hash); } catch { /* Safari allows a hundred in half a minute */ }
}
function another() {  // each of the set once before any comes again; live: any of ten million
  if (live.ready) return go(Math.floor(Math.random() * 1e7));
  if (!state.ahead.length) {
    state.ahead = Array.from({ length: data.count }, (_, i) => data.first + i).filter((s) => s !== state.seed);
    for (let i = state.ahead.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [state.ahead[i], state.ahead[j]] = [state.ahead[j], state.ahead[i]];
    }
  }
  if (state.ahead.length) go(state.ahead.pop());
}
function step(by) {
  const seed = state.seed + by;
  go(endless() ? Math.min(LAST, Math.max(0, seed)) : data.first + (seed - data.first + data.count) % data.count);
}
const back = () => { if (state.past.length) go(state.past.pop(), false); };
function fromHash() {
  const given = new URLSearchParams(location.hash.slice(1)), psi = parseFloat(given.get("psi"));
  const seed = Number(given.get("seed") ?? NaN);
  if (!given.has("seed")) return false;
  if (Number.isInteger(seed) && allowed(seed)) state.seed = seed;
  state.psi = data.psis.length && psi >= 0 && psi <= 1 ? (endless() ? psi : data.psis[nearest(psi)]) : base;
  return true;
}
function problem(error) { $("status").textContent = error.message || String(error); $("status").classList.add("warn"); }
function describe() {
  if (!endless()) {
    const some = data.psis.length && data.full < data.count;
    $("status").textContent = some ? `Other truncations were drawn for the first ${data.full} seeds.` : "";
    return;
  }
  $("range").textContent = live.ready ? "any whole number" : `${data.first} to ${data.first + data.count - 1}`;
  if (live.ready && data.psis.length) Object.assign($("psi"), { max: 1, step: 0.05, value: state.psi });
  $("status").textContent = !live.ready ? `Loading the generator (${(data.live.bytes / 1e6).toFixed(1)} MB) \u2026`
    : `The generator runs here, in your browser${live.cost ? `: ${Math.max(1, Math.round(live.cost))} ms an image` : ""}.`;
}

// ---- walks -------------------------------------------------------------------------------------

const walk = { which: 0, at: 0, timer: null, frames: Object.fromEntries(models.map((m) => [m, canvas("")])) };
const lengthOf = (i) => data.walks[i].length * data.frames;
const tileOnWalk = (i, at) => walksAt + data.walks.slice(0, i).reduce((n, w) => n + w.length * data.frames, 0) + at;
function showWalk() {
  const seeds = data.walks[walk.which], from = Math.floor(walk.at / data.frames);
  const a = seeds[from], b = seeds[(from + 1) % seeds.length], part = (walk.at % data.frames) / data.frames;
  for (const m of models) {
    walk.frames[m].setAttribute("aria-label", `${Math.round(100 * part)} % of the way from seed ${a} to seed ${b}`);
    paint(walk.frames[m], m, tileOnWalk(walk.which, walk.at));
  }
  $("walk").value = walk.at;
  $("walk").setAttribute("aria-valuetext", part ? `between seeds ${a} and ${b}` : `seed ${a}`);
  for (const node of $("film").children) node.setAttribute("aria-pressed", String(+node.dataset.at === Math.floor(walk.at / walk.every) * walk.every));
}
function chooseWalk(i) {
  Object.assign(walk, { which: i, at: 0, every: Math.max(1, Math.ceil(lengthOf(i) / 16)) });
  $("walk").max = lengthOf(i) - 1;
  [...$("walk-tabs").children].forEach((node, j) => node.setAttribute("aria-pressed", String(i === j)));
  const film = [];
  for (let at = 0; at < lengthOf(i); at += walk.every) {
    const small = canvas("", "thumb");
    paint(small, "target", tileOnWalk(i, at));
    film.push(h("button", { type: "button", "data-at": at, "aria-label": `Frame ${at + 1}`, onclick: () => { pause(); walk.at = at; showWalk(); } }, small));
  }
  $("film").replaceChildren(...film);
  showWalk();
}
function pause() { clearInterval(walk.timer); walk.timer = null; playing(); }
function play() {
  if (walk.timer) return pause();
  walk.timer = setInterval(() => { walk.at = (walk.at + 1) % lengthOf(walk.which); showWalk(); }, 90);
  playing();
}
function playing() {
  $("play").textContent = walk.timer ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(Boolean(walk.timer)));
}

// ---- all of them -------------------------------------------------------------------------------

let onWall = 0;
function wall(more) {
  const until = Math.min(data.count, onWall + more), tiles = [];
  for (; onWall < until; onWall++) {
    const seed = data.first + onWall, small = canvas("", "thumb");
    paint(small, "target", onWall);
    tiles.push(h("button", { type: "button", "aria-label": `Seed ${seed}`, title: `seed ${seed}`, onclick: () => {
      go(seed);
      $("stage").scrollIntoView({ block: "center", behavior: still ? "instant" : "smooth" });
    } }, small));
  }
  $("wall").append(...tiles);
  $("wall-more").hidden = onWall >= data.count;
}

// ---- the page ----------------------------------------------------------------------------------

function theme(next) {
  const dark = next ? next === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (next) document.documentElement.dataset.theme = next;
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").onclick = () => theme(dark ? "light" : "dark");
}
function fill() {
  const article = /^[aeiou]/i.test(data.name) ? "an" : "a";
  const both = data.source ? ` On the left, the ${data.source} that the same numbers gave before the transfer.` : "";
  $("lead").textContent = `A neural network draws ${article} ${data.name} from ${data.z} random numbers and nothing else. A seed stands for one draw of them.${both}`;
  $("another").textContent = `Another ${data.name}`;
  $("range").textContent = `${data.first} to ${data.first + data.count - 1}`;
  $("frames").classList.toggle("two", models.length > 1);
  const figure = (m, of) => h("figure", null, of[m], title(m) ? h("figcaption", null, title(m)) : "");
  $("frames").append(...models.map((m) => figure(m, frames)));
  $("walk-frames").append(...models.map((m) => figure(m, walk.frames)));
  $("walk-frames").classList.toggle("two", models.length > 1);
  $("truncation").hidden = !data.psis.length;
  Object.assign($("psi"), { max: data.psis.length - 1, step: 1 });
  $("wall-title").textContent = `${data.count} of them`;
  $("wall-lead").textContent = `Seeds ${data.first} to ${data.first + data.count - 1}, none left out. Choose one to see it large.`;
  $("facts").append(...data.about.map(([key, value]) => h("div", null, h("dt", null, key), h("dd", null, value))));
  const check = data.live && data.live.difference !== null ? `; it was checked against PyTorch to ${data.live.difference.toExponential(0)}` : "";
  $("made").textContent = (data.live ? `The generator runs in your browser by onnxruntime-web ${data.live.version} (MIT License)${check}. Nothing is sent anywhere. If your browser does not load it from disk, type python -m http.server beside this page and open http://localhost:8000. ` : "")
    + `Made with stylegan_tl ${data.version}; the same image there:`;
}
function listen() {
  $("another").onclick = another; $("back").onclick = back;
  $("less").onclick = () => step(-1); $("more").onclick = () => step(1);
  $("seed").onchange = () => {
    const seed = Number($("seed").value.trim());
    if ($("seed").value.trim() && Number.isInteger(seed) && allowed(seed)) go(seed); else $("seed").value = state.seed;
  };
  $("psi").oninput = () => { state.psi = live.ready ? +$("psi").value : data.psis[+$("psi").value]; show(); };
  $("copy").onclick = async () => {
    const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    $("copy").textContent = done ? "Copied" : "It is in the address bar";
    setTimeout(() => { $("copy").textContent = "Copy link"; }, 1600);
  };
  addEventListener("hashchange", () => { if (fromHash()) show(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    if (event.key === " " && event.target.matches("button, a")) return;  // it presses that
    const act = { " ": another, n: another, ArrowRight: () => step(1), ArrowLeft: () => step(-1), b: back }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; show(); if (data.walks.length) showWalk(); } });
}

fill();
listen();
theme();
fromHash();
describe();
show();
if (data.walks.length) {
  $("walks-lead").textContent = `${data.walks[0].length} seeds in a circle, ${data.frames} steps from each to the next: what lies between two images is an image too.`;
  if (data.walks.length > 1) $("walk-tabs").append(...data.walks.map((seeds, i) => h("button", { type: "button", class: "tab", onclick: () => { pause(); chooseWalk(i); } }, `Seeds ${seeds[0]}\u2013${seeds[seeds.length - 1]}`)));
  $("play").onclick = play;
  $("walk").oninput = () => { pause(); walk.at = +$("walk").value; showWalk(); };
  chooseWalk(0);
} else { $("walks").hidden = $("to-walks").hidden = true; }
const rowful = innerWidth > 640 ? 96 : 48;
wall(rowful);
$("wall-more").onclick = () => wall(rowful);
if (endless()) startLive().catch((error) => {  // the set that came with the page is left
  live.failed = true;
  if (!inSet(state.seed)) state.seed = data.first;
  describe();
  show();
  problem(error);
});
