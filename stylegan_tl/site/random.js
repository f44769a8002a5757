// The latents of torch.randn(1, n, generator=torch.Generator().manual_seed(seed)) on a CPU.

function mersenne(seed) {  // MT19937 (Matsumoto & Nishimura 1998): a function of 32-bit draws
  const N = 624, M = 397, state = new Uint32Array(N);
  state[0] = seed >>> 0;
  for (let i = 1; i < N; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = N;
  const twist = () => {
    for (let i = 0; i < N; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
      state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    at = 0;
  };
  return () => {
    if (at === N) twist();
    let y = state[at++];
    y ^= y >>> 11; y ^= (y << 7) & 0x9d2c5680; y ^= (y << 15) & 0xefc60000; y ^= y >>> 18;
    return y >>> 0;
  };
}

function latent(seed, n) {  // Float32Array [n]
  const draw = mersenne(seed), z = new Float32Array(n);
  if (n < 16) return few(draw, z);
  const uniform = () => (draw() & 0xffffff) / 0x1000000;
  const sixteen = (o) => {  // Box & Muller (1958) on eight pairs
    for (let j = o; j < o + 8; j++) {
      const r = Math.sqrt(-2 * Math.log(1 - z[j])), a = 2 * Math.PI * z[j + 8];
      z[j] = r * Math.cos(a); z[j + 8] = r * Math.sin(a);
    }
  };
  for (let i = 0; i < n; i++) z[i] = uniform();
  for (let i = 0; i + 16 <= n; i += 16) sixteen(i);
  if (n % 16) {  // the last sixteen are drawn again
    for (let i = n - 16; i < n; i++) z[i] = uniform();
    sixteen(n - 16);
  }
  return z;
}

function few(draw, z) {  // in double precision, two by two
  const uniform = () => {  // 53 bits of two draws
    const high = draw(), low = draw();
    return ((high & 0x1fffff) * 4294967296 + low) / 9007199254740992;
  };
  for (let i = 0; i < z.length; i += 2) {
    const a = 2 * Math.PI * uniform(), r = Math.sqrt(-2 * Math.log1p(-uniform()));
    z[i] = r * Math.cos(a);
    if (i + 1 < z.length) z[i + 1] = r * Math.sin(a);
  }
  return z;
}
