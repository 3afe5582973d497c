/**
 * Runs an exported network with its memory, on onnxruntime-web and nothing else.
 *
 *     const network = await Network.load();
 *     const labels = await network.segment(pixels);       // the first frame
 *     const next = await network.segment(others);         // what is remembered stays in `network`
 *     const anew = await network.segment(others, true);   // forgets its past before, as at a cut
 *
 * One frame at a time: wait for a frame's labels before the next one goes in.
 */

const here = (path) => new URL(path, import.meta.url).href;
const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array };
const MAX_THREADS = 4;

export class Network {
  /**
   * Loads the program and the runtime for it: WebGPU where there is one, else the CPU.
   *
   * @param {"webgpu" | "wasm" | null} engine which one, instead.
   */
  static async load(engine = null) {
    const response = await fetch(here("network/export.json"));
    if (!response.ok) throw new Error(`network/export.json: ${response.status}`);
    const about = await response.json();
    engine ??= (await hasGpu()) ? "webgpu" : "wasm";
    try {
      return await open(about, engine);
    } catch (error) {
      if (engine === "wasm") throw error;
      console.warn("WebGPU cannot run this network; the CPU does.", error);
      return open(about, "wasm");
    }
  }

  constructor(about, engine, threads, ort, session) {
    /** What the export says of itself: classes and their colours, shapes. */
    this.about = about;
    this.engine = engine;
    this.threads = threads;
    /** Of the newest frame, as they come out of the network. */
    this.logits = null;
    this._ort = ort;
    this._session = session;
    this._state = [];
    this.restart();
  }

  /** Forgets all frames. */
  restart() {
    for (const [, tensor] of this._state) tensor.dispose();
    this._state = Object.entries(this.about.state).map(([name, { shape, type }]) => {
      const size = shape.reduce((product, n) => product * n, 1);
      return [name, new this._ort.Tensor(type, new ARRAYS[type](size), shape)];
    });
  }

  /**
   * Labels of the newest frame, HxW, one byte each.
   *
   * @param {Uint8Array} pixels HxWx3, RGB.
   * @param {boolean} reset whether the frames before are forgotten.
   */
  async segment(pixels, reset = false) {
    const { Tensor } = this._ort;
    const outputs = await this._session.run({
      frames: new Tensor("uint8", pixels, this.about.frames),
      reset: new Tensor("bool", Uint8Array.of(reset), [1]),
      ...Object.fromEntries(this._state),
    });
    for (const [, tensor] of this._state) tensor.dispose();
    this._state = this._state.map(([name]) => [name, outputs[`new_${name}`]]);
    this.logits = outputs.logits.data;
    return outputs.labels.data;
  }
}

async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

async function open(about, engine) {
  const ort = await import(here(`runtime/ort.${engine}.min.mjs`));
  const cores = navigator.hardwareConcurrency ?? 1;
  const threads = self.crossOriginIsolated ? Math.min(cores, MAX_THREADS) : 1;
  ort.env.wasm.wasmPaths = here("runtime/");
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.proxy = engine === "wasm"; // so that the page does not wait for the network
  const options = { executionProviders: [engine] };
  if (engine === "webgpu") options.preferredOutputLocation = staysOnGpu(about);
  const session = await ort.InferenceSession.create(here(`network/${about.file}`), options);
  return new Network(about, engine, threads, ort, session);
}

function staysOnGpu(about) {
  const large = Object.entries(about.state).filter(([, { type }]) => type === "float32");
  return Object.fromEntries(large.map(([name]) => [`new_${name}`, "gpu-buffer"]));
}
