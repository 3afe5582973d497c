/** The page: frames of a video or camera in, their classes over them. */

import { Network } from "./network.js";

const LARGEST_STAGE = 1280;
const RATE_OVER_MS = 3000;

const by = (id) => document.getElementById(id);
const video = document.createElement("video");
video.muted = video.loop = video.playsInline = true;
const stage = by("stage").getContext("2d");
const shown = document.createElement("canvas").getContext("2d"); // the frame that is segmented
const input = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const classes = document.createElement("canvas").getContext("2d");

let network;
let isNew = true; // the next frame does not follow the one before it
let area = { x: 0, y: 0, width: 1, height: 1 }; // of the input, where the frame lies
const times = []; // when the last frames were done

function tell(text, failed = false) {
  by("told").textContent = text;
  by("told").classList.toggle("failed", failed);
}

async function start() {
  try {
    network = await Network.load(new URLSearchParams(location.search).get("engine"));
  } catch (error) {
    tell(`The network cannot be loaded: ${error.message}`, true);
    return;
  }
  const [, height, width] = network.about.frames;
  for (const context of [input, classes]) Object.assign(context.canvas, { width, height });
  showLegend();
  for (const id of ["file", "webcam"]) by(id).disabled = false;
  tell(`Ready: frames of ${height}x${width} pixels on ${engineInWords()}.`);
  follow();
}

function engineInWords() {
  if (network.engine === "webgpu") return "the GPU (WebGPU)";
  if (self.crossOriginIsolated) return `the CPU, ${network.threads} threads`;
  return "the CPU, one thread only: python serve.py in this folder serves it with more";
}

function showLegend() {
  for (const [name, colour] of Object.entries(network.about.classes)) {
    const swatch = document.createElement("span");
    swatch.style.background = `rgb(${colour})`;
    const item = document.createElement("li");
    item.append(swatch, name);
    by("legend").append(item);
  }
}

/** Segments the newest frame whenever the network is free. */
async function follow() {
  const newFrame = () => new Promise((done) => video.requestVideoFrameCallback(done));
  let next = newFrame();
  for (;;) {
    await next;
    next = newFrame(); // may come before this one is done
    try {
      await segment();
    } catch (error) {
      video.pause();
      tell(`The network stopped: ${error.message}. Reload the page.`, true);
      return;
    }
  }
}

async function segment() {
  const reset = isNew;
  isNew = false;
  const pixels = grab();
  const before = performance.now();
  const labels = await network.segment(pixels, reset);
  const ms = performance.now() - before;
  paint(labels);
  draw();
  by("rate").textContent = `${rate().toFixed(1)} frames/s, ${ms.toFixed(0)} ms each`;
  if (!by("place").matches(":active")) by("place").value = video.currentTime;
}

/** The frame at the network's size, HxWx3: its ratio is kept, the rest is the mean colour. */
function grab() {
  const { width, height } = input.canvas;
  const { videoWidth, videoHeight } = video;
  const scale = Math.min(width / videoWidth, height / videoHeight);
  area = { width: Math.round(videoWidth * scale), height: Math.round(videoHeight * scale) };
  area.x = (width - area.width) >> 1;
  area.y = (height - area.height) >> 1;
  input.fillStyle = `rgb(${network.about.normalisation.mean.map(Math.round)})`;
  input.fillRect(0, 0, width, height);
  input.drawImage(video, area.x, area.y, area.width, area.height);
  const larger = Math.min(1, LARGEST_STAGE / Math.max(videoWidth, videoHeight));
  shown.canvas.width = Math.round(videoWidth * larger);
  shown.canvas.height = Math.round(videoHeight * larger);
  shown.drawImage(video, 0, 0, shown.canvas.width, shown.canvas.height);
  return withoutAlpha(input.getImageData(0, 0, width, height).data);
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4, j += 3) {
    rgb[j] = rgba[i];
    rgb[j + 1] = rgba[i + 1];
    rgb[j + 2] = rgba[i + 2];
  }
  return rgb;
}

function paint(labels) {
  const picture = new ImageData(classes.canvas.width, classes.canvas.height);
  const colours = Object.values(network.about.classes);
  const pixels = new Uint32Array(colours.length);
  for (let i = 0, j = 0; i < labels.length; i += 1) {
    pixels[labels[i]] += 1;
    const [red, green, blue] = colours[labels[i]];
    picture.data[j++] = red;
    picture.data[j++] = green;
    picture.data[j++] = blue;
    picture.data[j++] = 255;
  }
  classes.putImageData(picture, 0, 0);
  [...by("legend").children].forEach((item, index) => {
    item.classList.toggle("absent", pixels[index] < labels.length / 1000);
  });
}

function draw() {
  const { width, height } = shown.canvas;
  if (stage.canvas.width !== width || stage.canvas.height !== height) {
    Object.assign(stage.canvas, { width, height });
  }
  const opacity = Number(by("opacity").value);
  stage.globalAlpha = 1;
  stage.drawImage(shown.canvas, 0, 0);
  if (opacity > 0) pale();
  stage.globalAlpha = opacity;
  stage.imageSmoothingEnabled = false;
  stage.drawImage(classes.canvas, area.x, area.y, area.width, area.height, 0, 0, width, height);
}

/** Grey, of half the contrast: mixed with the frame's colours a class's would be taken for another. */
function pale() {
  const { width, height } = stage.canvas;
  stage.globalCompositeOperation = "saturation";
  stage.fillStyle = "gray";
  stage.fillRect(0, 0, width, height);
  stage.globalCompositeOperation = "source-over";
  stage.globalAlpha = 0.5;
  stage.fillStyle = "white";
  stage.fillRect(0, 0, width, height);
}

function rate() {
  const now = performance.now();
  times.push(now);
  while (now - times[0] > RATE_OVER_MS && times.length > 2) times.shift();
  return times.length > 1 ? (1000 * (times.length - 1)) / (now - times[0]) : 0;
}

async function show(source, name) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  URL.revokeObjectURL(video.src);
  video.srcObject = source instanceof MediaStream ? source : null;
  if (video.srcObject) video.removeAttribute("src");
  else video.src = URL.createObjectURL(source);
  isNew = true;
  try {
    await video.play();
  } catch (error) {
    const isReplaced = error.name === "AbortError"; // by another video
    if (!isReplaced) tell(`This browser cannot play ${name}.`, true);
    return;
  }
  tell(`${name}, on ${engineInWords()}.`);
  by("play").disabled = false;
  by("place").disabled = !Number.isFinite(video.duration);
  by("place").max = video.duration;
}

by("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) show(file, file.name);
});

by("webcam").addEventListener("click", async () => {
  if (!navigator.mediaDevices) {
    tell("Browsers give the camera to pages from https or localhost alone.", true);
    return;
  }
  try {
    const wanted = { facingMode: "environment", width: { ideal: LARGEST_STAGE } };
    show(await navigator.mediaDevices.getUserMedia({ video: wanted }), "The camera");
  } catch (error) {
    tell(`There is no camera to use: ${error.message}`, true);
  }
});

by("play").addEventListener("click", () => (video.paused ? video.play() : video.pause()));
by("place").addEventListener("input", (event) => (video.currentTime = event.target.value));
by("opacity").addEventListener("input", () => times.length && draw());
video.addEventListener("seeking", () => (isNew = true)); // also where it begins again
for (const event of ["play", "pause"]) {
  video.addEventListener(event, () => (by("play").textContent = video.paused ? "Play" : "Pause"));
}

start();
