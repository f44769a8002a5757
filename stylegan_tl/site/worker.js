// The generator, off the page's own thread. In: {id, start} once, then {id, model, seed, psi}.
let ort;
const sessions = {};

async function start({ module, wasm, models }) {
  ort = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1;  // more need a server that sends cross-origin isolation headers
  ort.env.logLevel = "error";
  for (const [key, bytes] of Object.entries(models))
    sessions[key] = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
}

async function images({ model, seed, psi, z: size }) {
  const session = sessions[model], began = performance.now();
  const feeds = { z: new ort.Tensor("float32", latent(seed, size), [1, size]) };
  if (session.inputNames.includes("psi")) feeds.psi = new ort.Tensor("float32", Float32Array.of(psi), []);
  const { images } = await session.run(feeds), [, , side] = images.dims, x = images.data;
  const pixels = new Uint8ClampedArray(4 * side * side), plane = side * side;
  for (let i = 0; i < plane; i++) {  // from [-1, 1], rounded as PyTorch's pictures are
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = Math.floor(Math.min(255, Math.max(0, x[c * plane + i] * 127.5 + 128)));
    pixels[4 * i + 3] = 255;
  }
  return { pixels, side, ms: performance.now() - began };
}

let last = Promise.resolve();  // one at a time
onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      postMessage({ id: data.id, ...(data.start ? await start(data.start) : await images(data)) });
    } catch (error) {
      postMessage({ id: data.id, error: String(error && error.message || error) });
    }
  });
};
