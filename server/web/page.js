// The page's whole behaviour. It uses the public API only: /v1/models, /props, /v1/completions, /v1/chat/completions, /map.
// Text from the model and the user is put in with textContent, never as HTML.

const $ = (id) => document.getElementById(id);
const SETTINGS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop_text"];
const STORE = "thermocline";
const DECIMALS = 1;

const state = { model: null, mode: "completion", chat: true, turns: [], text: [], running: null };

// ---- what is kept when the page is reloaded; the API key only as long as the tab

function keep() {
  const settings = Object.fromEntries(SETTINGS.map((name) => [name, $(name).value]));
  const kept = { settings, mode: state.mode, turns: state.turns, text: state.text, prompt: $("prompt").value };
  try {
    localStorage.setItem(STORE, JSON.stringify(kept));
    sessionStorage.setItem(STORE, $("key").value);
  } catch { /* a private window, or a full store: the page works without */ }
}

function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(STORE)) ?? {};
    $("key").value = sessionStorage.getItem(STORE) ?? "";
  } catch { /* nothing kept, or not ours */ }
  for (const name of SETTINGS) if (typeof kept.settings?.[name] === "string") $(name).value = kept.settings[name];
  if (Array.isArray(kept.turns)) state.turns = kept.turns.filter((turn) => typeof turn?.content === "string");
  if (Array.isArray(kept.text)) state.text = kept.text.filter((piece) => typeof piece?.text === "string");
  if (typeof kept.prompt === "string") $("prompt").value = kept.prompt;
  setMode(kept.mode === "chat" ? "chat" : "completion");
}

// ---- asking

function headers() {
  const key = $("key").value;
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function get(path) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw new Error(await complaint(answer));
  return answer.json();
}

async function complaint(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// Server-sent events of a fetched answer, as objects; ends at [DONE] or at the end of the stream.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

function number(name) {
  const value = $(name).value.trim();
  return value === "" ? undefined : Number(value);
}

function body() {
  const asked = { model: state.model, stream: true, stream_options: { include_usage: true } };
  for (const name of ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"]) asked[name] = number(name);
  if ($("stop_text").value) asked.stop = $("stop_text").value;
  return asked;
}

// ---- writing

async function write() {
  if (state.running) return;
  const prompt = $("prompt").value;
  if (!prompt && !(state.mode === "completion" && state.text.length)) return;
  const chat = state.mode === "chat";
  if (chat) state.turns.push({ role: "user", content: prompt }, { role: "assistant", content: "" });
  else state.text.push({ text: prompt, given: true }, { text: "", given: false });
  $("prompt").value = "";
  draw();
  const running = (state.running = new AbortController());
  busy(true);
  try {
    await (chat ? answerChat(running.signal) : answerCompletion(running.signal));
  } catch (error) {
    if (!running.signal.aborted) trouble(error.message);
  } finally {
    state.running = null;
    busy(false);
    keep();
  }
}

async function answerCompletion(signal) {
  const pieces = state.text.slice(0, -1), last = state.text.at(-1);
  const prompt = pieces.map((piece) => piece.text).join("");
  await follow("v1/completions", { ...body(), prompt }, signal, (choice) => { last.text += choice.text ?? ""; });
}

async function answerChat(signal) {
  const last = state.turns.at(-1);
  await follow("v1/chat/completions", { ...body(), messages: state.turns.slice(0, -1) }, signal, (choice) => {
    last.content += choice.delta?.content ?? "";
  });
}

// Streams one answer; `take` puts what a choice brings where it belongs.
async function follow(path, asked, signal, take) {
  const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(asked), signal });
  if (!answer.ok) throw new Error(await complaint(answer));
  let tokens = 0, began = 0, finished = false;
  for await (const piece of events(answer)) {
    if (piece.error) throw new Error(piece.error.message);
    if (piece.choices?.length) {
      take(piece.choices[0]);
      finished ||= Boolean(piece.choices[0].finish_reason);
      tokens += 1;
      began ||= performance.now();
      refresh();
      if (tokens > 1) $("speed").value = `${(((tokens - 1) * 1000) / (performance.now() - began)).toFixed(DECIMALS)} tokens/s`;
    }
    if (piece.timings) tell(piece.timings);
  }
  if (!finished) throw new Error("the server went away in the middle of the text");
}

function tell(timings) {
  const expected = timings.expected_per_second;
  const measured = `${timings.predicted_n} tokens, ${timings.predicted_per_second.toFixed(DECIMALS)} tokens/s`;
  $("speed").value = expected ? `${measured} (expected ${expected.toFixed(DECIMALS)})` : measured;
}

function trouble(message) {
  const line = document.createElement("p");
  line.className = "trouble";
  line.setAttribute("role", "alert");
  line.textContent = message;
  $("log").append(line);
  line.scrollIntoView({ block: "nearest" });
}

// ---- showing

let awaited = false; // a frame has been asked for
function refresh() {
  if (awaited) return;
  awaited = true;
  requestAnimationFrame(() => {
    awaited = false;
    const last = $("log").querySelector(".newest");
    const text = state.mode === "chat" ? state.turns.at(-1)?.content : state.text.at(-1)?.text;
    if (last && text !== undefined) last.textContent = text;
    const log = $("log");
    if (log.scrollHeight - log.scrollTop - log.clientHeight < 80) log.scrollTop = log.scrollHeight;
  });
}

function draw() {
  const parts = state.mode === "chat" ? state.turns.map(drawTurn) : state.text.map(drawPiece);
  parts.at(-1)?.querySelector("span")?.classList.add("newest");
  $("log").replaceChildren(...parts);
  $("log").scrollTop = $("log").scrollHeight;
}

function drawTurn(turn) {
  const part = document.createElement("div"), who = document.createElement("b"), text = document.createElement("span");
  part.className = "turn";
  who.textContent = turn.role === "user" ? "You" : state.model;
  text.textContent = turn.content;
  part.append(who, text);
  return part;
}

function drawPiece(piece) {
  const part = document.createElement("span"), text = document.createElement("span");
  if (piece.given) part.className = "given";
  text.textContent = piece.text;
  part.append(text);
  return part;
}

function busy(running) {
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.disabled = running || (radio.value === "chat" && !state.chat);
  $("send").disabled = running;
  $("stop").disabled = !running;
  document.body.toggleAttribute("data-running", running);
}

function setMode(mode) {
  state.mode = mode === "chat" && !state.chat ? "completion" : mode;
  document.body.dataset.mode = state.mode;
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.checked = radio.value === state.mode;
  $("prompt").placeholder = state.mode === "chat" ? "Say something" : "A text to go on with";
  draw();
}

// ---- the map

const canvas = $("cells"), glow = { rows: 0, columns: 0, edges: [], hot: [], values: null, tokens: 0 };
const FADE = 0.6;

function colour(name) {
  const probe = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(probe.slice(at, at + 2), 16));
}

function layMap(layout) {
  Object.assign(glow, { rows: layout.hot.length, columns: layout.edges.length - 1, edges: layout.edges, hot: layout.hot, tokens: 0 });
  glow.values = new Float32Array(glow.rows * glow.columns);
  canvas.width = glow.columns;
  canvas.height = glow.rows;
  canvas.style.aspectRatio = `${Math.max(glow.columns, 64)} / ${Math.min(Math.max(glow.rows * 4, 48), 160)}`;
  paint();
  const neurons = layout.layers * layout.experts * layout.neurons, hot = layout.hot.reduce((sum, each) => sum + each, 0);
  glow.about = `${layout.layers} layers${layout.experts > 1 ? ` of ${layout.experts} experts` : ""}, ${neurons.toLocaleString("en")} neurons, ${((100 * hot) / neurons).toFixed(DECIMALS)} % of them on the GPU.`;
  $("map-text").textContent = `${glow.about} No token yet.`;
}

function fire(step) {
  const cells = Uint8Array.from(atob(step.cells), (letter) => letter.charCodeAt(0));
  for (let i = 0; i < cells.length; i++) glow.values[i] = Math.max(cells[i] / 255, glow.values[i] * FADE);
  glow.tokens += step.tokens;
  paint();
  const all = step.fired_gpu + step.fired_cpu, per = Math.round(all / step.tokens);
  const served = all ? ((100 * step.fired_gpu) / all).toFixed(DECIMALS) : "0.0";
  $("map-text").textContent = `${glow.about} In the last step looked at ${per.toLocaleString("en")} neurons fired per token, ${served} % of them on the GPU.`;
  canvas.dataset.steps = String(Number(canvas.dataset.steps ?? 0) + 1);
}

function paint() {
  if (!glow.values) return;
  const context = canvas.getContext("2d"), image = context.createImageData(glow.columns, glow.rows), [gpu, cpu] = [colour("--gpu"), colour("--cpu")];
  for (let row = 0; row < glow.rows; row++) {
    for (let column = 0; column < glow.columns; column++) {
      const at = row * glow.columns + column, side = glow.edges[column] < glow.hot[row] ? gpu : cpu;
      const light = 0.16 + 0.84 * Math.sqrt(glow.values[at]);
      for (let part = 0; part < 3; part++) image.data[4 * at + part] = side[part] * light;
      image.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

async function followMap() {
  for (let wait = 1000; ; wait = Math.min(2 * wait, 30000)) {
    try {
      const answer = await fetch("map", { headers: headers() });
      if (!answer.ok) throw new Error(await complaint(answer));
      for await (const piece of events(answer)) {
        wait = 1000;
        if (piece.type === "layout") layMap(piece);
        if (piece.type === "firing") fire(piece);
      }
    } catch (error) {
      $("map-text").textContent = `No map: ${error.message}`;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

// ---- beginning

async function connect() {
  try {
    state.model = (await get("v1/models")).data[0].id;
    const props = await get("props");
    state.chat = props.chat;
    const facts = [state.model, props.format, `${props.context} tokens of context`, props.device === "cpu" ? "no GPU" : props.device];
    $("model").textContent = facts.filter(Boolean).join(" · ");
    document.querySelector("input[value=chat]").disabled = !state.chat;
    $("mode-note").textContent = state.chat ? "" : "This model has no chat template.";
    setMode(state.mode);
  } catch (error) {
    $("model").textContent = error.message;
  }
}

$("ask").addEventListener("submit", (happening) => { happening.preventDefault(); write(); });
$("stop").addEventListener("click", () => state.running?.abort());
$("clear").addEventListener("click", () => {
  if (state.running) return;
  state.mode === "chat" ? (state.turns = []) : (state.text = []);
  draw();
  keep();
  $("prompt").focus();
});
document.addEventListener("keydown", (pressed) => {
  if (pressed.key === "Escape") state.running?.abort();
  if (pressed.target !== $("prompt") || pressed.key !== "Enter" || pressed.isComposing) return;
  if (pressed.ctrlKey || pressed.metaKey || (state.mode === "chat" && !pressed.shiftKey)) {
    pressed.preventDefault();
    write();
  }
});
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", () => { setMode(radio.value); keep(); });
for (const name of [...SETTINGS, "prompt", "key"]) $(name).addEventListener("change", keep);
$("key").addEventListener("change", connect);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

restore();
connect();
followMap();
