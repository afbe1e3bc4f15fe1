// The live page.  Every text from elsewhere is put in place by textContent or drawn on a canvas: nothing is made markup.
"use strict";

const NUMBER = 0, HOST = 1, STATE = 2, DOING = 3, TASK = 4, FOR = 5, DONE = 6, BUSY = 7, MEMORY = 8, HEARD = 9, LOST = 10;
const MOST_POINTS = 1200, MOST_LINES = 400, MOST_FAILURES = 50, MOST_BARS = 20000, ROWS = 200;
const RETRY = 2000, SPEAK = 15000;  // milliseconds

const byId = (id) => document.getElementById(id);
const store = { since: 0, points: [], bars: new Map(), failures: [], told: null };
let rows = ROWS, chosen = null, spoken = 0, failed = false;

function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function put(element, text) {  // only what changes is touched: a reader or a selection is not disturbed
  if (element.textContent !== text) element.textContent = text;
}

function time(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 9.95) return seconds < 0.05 ? "0 s" : seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min " + String(whole % 60).padStart(2, "0") + " s";
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return Math.floor(minutes / 60) + " h " + String(minutes % 60).padStart(2, "0") + " min";
  return Math.floor(minutes / 1440) + " d " + Math.floor(minutes / 60) % 24 + " h";
}

function size(bytes) {
  if (!bytes) return "";
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (bytes >= 1024 && place < 4) { bytes /= 1024; place += 1; }
  return bytes.toPrecision(bytes < 1000 ? 3 : 4).replace(/\.0+$/, "") + " " + units[place];
}

const count = (number) => number.toLocaleString("en");
const rate = (number) => number >= 100 ? count(Math.round(number)) : number ? String(Number(number.toPrecision(3))) : "";

// -- getting it

async function get() {
  let pause = RETRY;
  try {
    const answer = await fetch("data?since=" + store.since, { cache: "no-store" });
    if (!answer.ok) throw new Error("it answers " + answer.status);
    take(await answer.json());
    pause = Math.max(500, 1000 * store.told.pause);
    failed = false;
  } catch (error) {
    if (!failed || !store.told) gone("The program that serves this page does not answer; what is below is what was known last. Trying again.");
    failed = true;
  }
  window.setTimeout(next, pause);
}

function next() {
  if (document.hidden) document.addEventListener("visibilitychange", next, { once: true });
  else get();
}

function take(told) {
  if (told.since !== store.since || told.look < store.since || (store.told && told.master !== store.told.master)) forget();
  store.told = told;
  store.since = told.look;
  store.points.push(...told.points);
  while (store.points.length > MOST_POINTS) store.points = store.points.filter((_, place) => place % 2 || place > MOST_POINTS / 2);
  takeBars(told);
  for (const failure of told.failures) addFailure(failure);
  addLines(told.lines);
  gone(told.gone ? "No news of the master: " + told.gone : told.closing ? "The manager shuts down." : "");
  show();
}

function forget() {
  store.points = [];
  store.bars.clear();
  byId("failures").replaceChildren();
  byId("output").replaceChildren();
  store.failures = [];
}

function takeBars(told) {
  let total = 0;
  for (const [number, changed] of Object.entries(told.bars)) {
    if (!store.bars.has(number)) store.bars.set(number, new Map());
    const known = store.bars.get(number);
    for (const bar of changed) known.set(bar[0], bar);
  }
  for (const [number, known] of store.bars) {
    for (const [id, bar] of known) if (bar[4] < told.now - 900 || known.size > 300) known.delete(id); else break;
    if (!known.size) store.bars.delete(number);
    total += known.size;
  }
  if (total > 2 * MOST_BARS) store.bars.clear();
}

function gone(text) {
  put(byId("gone"), text);
  byId("gone").hidden = !text;
}

// -- showing it

function show() {
  const told = store.told;
  if (!told.total) return;
  document.title = percent(told.total) + " " + told.master;
  put(byId("title"), told.master);
  put(byId("summary"), summary(told));
  byId("all").max = Math.max(1, told.total.known);
  byId("all").value = told.total.done;
  speak(told);
  list(byId("trouble"), told.trouble.map((text) => make("li", text)));
  byId("trouble").hidden = !told.trouble.length;
  contexts(told);
  slaves(told);
  events(told);
  drawCourse();
  drawTimeline();
}

function percent(total) {
  return total.known ? Math.floor(100 * total.done / total.known) + "%" : "";
}

function summary(told) {
  const total = told.total;
  const parts = [count(total.done) + " of " + count(total.known) + (total.complete ? "" : "+") + " tasks done"];
  if (total.failed) parts.push(count(total.failed) + " failed");
  if (total.rate) parts.push(rate(total.rate) + " a second");
  if (total.left) parts.push(time(total.left) + " left");
  parts.push(count(told.working) + " of " + count(told.connected) + " slaves busy");
  parts.push("up " + time(told.uptime));
  return parts.join(", ");
}

function speak(told) {
  const now = Date.now();
  if (now - spoken < SPEAK) return;
  spoken = now;
  put(byId("spoken"), summary(told));
}

function list(parent, children) {
  const texts = children.map((child) => child.textContent).join("\n");
  if (parent.dataset.texts === texts) return;
  parent.dataset.texts = texts;
  parent.replaceChildren(...children);
}

function fill(body, wanted) {  // rows of texts; cells are kept, so that what is focused or selected stays
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((row, place) => {
    const line = body.rows[place] || body.insertRow();
    if (line.className !== row.name) line.className = row.name;
    row.cells.forEach(([text, name], column) => {
      let cell = line.cells[column];
      if (!cell) { cell = line.insertCell(); cell.className = name; }
      put(cell, text);
    });
  });
}

function contexts(told) {
  const made = told.contexts.map((one) => ({ name: "", cells: [
    [one.label || "context " + one.id, "wide"], [count(one.done), "number"],
    [count(one.known) + (one.complete ? "" : "+"), "number"], [count(one.failed), "number"], [count(one.running), "number"],
    [rate(one.rate), "number"], [one.done < one.known ? time(one.left) : "", "number"]] }));
  fill(byId("contexts").tBodies[0], made);
  put(byId("more-contexts"), told.more_contexts ? "and " + count(told.more_contexts) + " more" : "");
  byId("more-contexts").hidden = !told.more_contexts;
}

const RANK = { stopped: 0, lost: 1, draining: 2, busy: 3, idle: 4, expected: 5, ended: 6 };

function slaves(told) {
  const state = byId("state").value, words = byId("filter").value.toLowerCase();
  const found = told.slaves.filter((one) => (!state || one[STATE] === state) &&
    (!words || (one[NUMBER] + " " + one[HOST] + " " + one[DOING]).toLowerCase().includes(words)));
  const shown = found.length > rows
    ? found.slice().sort((one, other) => RANK[one[STATE]] - RANK[other[STATE]] || one[NUMBER] - other[NUMBER]).slice(0, rows)
    : found;
  fill(byId("rows").tBodies[0], shown.map((one) => ({ name: one[STATE], cells: [
    [String(one[NUMBER]), "number"], [one[HOST], ""], [one[STATE], ""], [one[DOING], "wide"],
    [one[TASK] ? time(one[FOR]) : "", "number"], [count(one[DONE]), "number"], [Math.round(100 * one[BUSY]) + "%", "number"],
    [size(one[MEMORY]), "number"], [one[HEARD] === null || one[STATE] === "ended" ? "" : time(one[HEARD]), "number"],
    [one[LOST] ? String(one[LOST]) : "", "number"]] })));
  const hidden = found.length - shown.length + told.more_slaves, former = told.ended;
  const texts = [];
  if (hidden) texts.push(count(hidden) + " more are not shown");
  if (former) texts.push(count(former) + " have ended so far");
  put(byId("more-slaves"), texts.join("; "));
  byId("more-slaves").hidden = !texts.length;
  byId("more").hidden = found.length <= shown.length;
}

function events(told) {
  const made = told.events.slice().reverse().map(([at, level, text]) => {
    const item = make("li", undefined, level >= 30 ? "bad" : "");
    item.append(make("time", time(Math.max(0, told.now - at)) + " ago"), " ", text);
    return item;
  });
  list(byId("events"), made);
}

function addFailure(failure) {
  const parent = byId("failures"), made = make("details");
  const name = failure.label || "task " + failure.task;
  made.append(make("summary", name + " (task " + failure.task + "): " + failure.error.split("\n")[0]));
  made.append(make("p", failure.slave, "quiet"), make("pre", failure.traceback || failure.error));
  parent.prepend(made);
  while (parent.childElementCount > MOST_FAILURES) parent.lastElementChild.remove();
  byId("no-failures").hidden = true;
}

function addLines(lines) {
  if (!lines.length) return;
  const box = byId("output");
  byId("no-output").hidden = true;
  box.hidden = false;
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 20;
  for (const [slave, text] of lines) {
    const line = make("div");
    line.append(make("span", slave + ": "), text);
    box.append(line);
  }
  while (box.childElementCount > MOST_LINES) box.firstElementChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// -- drawing

function canvasOf(id, height) {
  const canvas = byId(id), scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
  const wanted = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height };
}

function colors() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue("--" + name).trim();
}

function drawCourse() {
  const { pen, width, height } = canvasOf("course", byId("course").clientHeight), color = colors();
  const points = store.points, told = store.told, label = byId("course");
  if (points.length < 2) return;
  const first = points[0][0], last = points[points.length - 1][0], span = Math.max(1, last - first);
  const x = (at) => 4 + (width - 8) * (at - first) / span, low = height - 16;
  const rates = points.slice(1).map((point, place) =>
    [point[0], Math.max(0, point[1] - points[place][1]) / Math.max(0.1, point[0] - points[place][0])]);
  const most = Math.max(1e-9, ...rates.map((one) => one[1])), known = Math.max(1, told.total.known);
  const slaveMost = Math.max(1, ...points.map((point) => point[4]));
  const curve = (values, top, name, dashed) => {
    pen.strokeStyle = color(name);
    pen.lineWidth = 1.5;
    pen.setLineDash(dashed ? [4, 3] : []);
    pen.beginPath();
    values.forEach(([at, value], place) => pen[place ? "lineTo" : "moveTo"](x(at), low - (low - 18) * Math.min(1, value / top)));
    pen.stroke();
    pen.setLineDash([]);
  };
  curve(points.map((point) => [point[0], point[3]]), slaveMost, "busy", true);
  curve(rates, most, "rate");
  curve(points.map((point) => [point[0], point[1]]), known, "done");
  if (points[points.length - 1][2]) curve(points.map((point) => [point[0], point[2]]), known, "bad");
  pen.fillStyle = color("quiet");
  pen.fillText("most " + rate(most) + " a second", 6, 12);
  pen.fillText(time(span) + " ago", 4, height - 4);
  pen.textAlign = "right";
  pen.fillText(count(told.total.done) + " of " + count(told.total.known) + " done", width - 6, 12);
  pen.fillText("now", width - 4, height - 4);
  pen.textAlign = "left";
  label.setAttribute("aria-label", "Over the last " + time(span) + ": at most " + rate(most) + " tasks a second, now " +
    (rate(told.total.rate) || "0") + "; " + summary(told));
}

const LEFT = 46;

function spanShown() {  // seconds; of a run that has just begun no more than there is
  const wanted = Number(document.querySelector("input[name=window]:checked").value);
  return Math.min(wanted, Math.max(20, store.told.uptime));
}

let places = [];  // of the timeline: the slaves' numbers, from above

function drawTimeline() {
  const told = store.told, color = colors();
  const span = spanShown();
  places = told.slaves.map((one) => String(one[NUMBER])).filter((number) => store.bars.has(number));
  const row = places.length > 200 ? 4 : places.length > 40 ? 9 : 18;
  const height = Math.max(48, places.length * row + 18);
  byId("timeline").style.height = height + "px";
  const { pen, width } = canvasOf("timeline", height);
  const x = (at) => LEFT + (width - LEFT - 2) * (at - told.now + span) / span;
  places.forEach((number, place) => {
    const top = place * row;
    if (row > 8 && (row > 9 || place % 2 === 0)) {
      pen.fillStyle = color("quiet");
      pen.fillText(number, 4, top + Math.min(row, 14) - 2);
    }
    for (const bar of store.bars.get(number).values()) drawBar(pen, color, bar, x, top, row, width);
  });
  pen.fillStyle = color("quiet");
  pen.fillText(time(span) + " ago", LEFT, height - 4);
  pen.textAlign = "right";
  pen.fillText("now", width - 4, height - 4);
  pen.textAlign = "left";
  byId("timeline").setAttribute("aria-label",
    "Which slave ran what in the last " + time(span) + ": " + count(places.length) + " slaves; the table below tells what they run now.");
}

function drawBar(pen, color, bar, x, top, row, width) {
  const [id, kind, label, begins, ends, tasks] = bar;
  const left = Math.max(LEFT, x(begins)), right = Math.min(width - 2, x(ends));
  if (right <= LEFT) return;
  const wide = Math.max(1, right - left - (row > 9 ? 1 : 0)), high = row - (row > 8 ? 2 : 1);
  pen.fillStyle = color(kind === "task" ? (id % 2 ? "task" : "task2") : kind === "lost" ? "bad" : "stopped");
  pen.fillRect(left, top + 1, wide, high);
  if (chosen && chosen[1] === id) {
    pen.strokeStyle = color("text");
    pen.lineWidth = 2;
    pen.strokeRect(left, top + 1, wide, high);
  }
  if (row > 9 && wide > 40) {
    pen.save();
    pen.beginPath();
    pen.rect(left, top, wide, row);
    pen.clip();
    pen.fillStyle = color("back");
    pen.fillText(tasks > 1 ? count(tasks) + " tasks, last " + label : label, left + 4, top + 13);
    pen.restore();
  }
}

function tell(number, bar) {
  chosen = bar ? [number, bar[0]] : null;
  if (bar) {
    const [, kind, label, begins, ends, tasks] = bar;
    const what = kind === "task" ? (tasks > 1 ? count(tasks) + " tasks, the last one " : "") + (label || "a task") : kind;
    put(byId("bar"), "slave " + number + ": " + what + ", " + time(ends - begins) + ", until " +
      time(Math.max(0, store.told.now - ends)) + " ago");
  }
  drawTimeline();
}

function pointed(event) {
  if (!store.told || !places.length) return;
  const box = byId("timeline").getBoundingClientRect();
  const row = places.length > 200 ? 4 : places.length > 40 ? 9 : 18;
  const number = places[Math.floor((event.clientY - box.top) / row)];
  const span = spanShown();
  const at = store.told.now - span + span * (event.clientX - box.left - LEFT) / (box.width - LEFT - 2);
  if (number === undefined) return;
  for (const bar of store.bars.get(number).values()) if (bar[3] <= at && at <= bar[4]) { tell(number, bar); return; }
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function pressed(event) {
  const move = MOVES[event.key];
  if (!move || !store.told || !places.length) return;
  event.preventDefault();
  let place = chosen ? Math.max(0, places.indexOf(chosen[0])) : 0;
  if (chosen) place = Math.min(places.length - 1, Math.max(0, place + move[0]));
  const bars = [...store.bars.get(places[place]).values()];
  let at = bars.length - 1;
  if (chosen && !move[0]) {
    at = bars.findIndex((bar) => bar[0] === chosen[1]);
    at = at < 0 ? bars.length - 1 : Math.min(bars.length - 1, Math.max(0, at + move[1]));
  }
  tell(places[place], bars[at]);
}

// -- begin

byId("timeline").addEventListener("pointermove", pointed);
byId("timeline").addEventListener("pointerdown", pointed);
byId("timeline").addEventListener("keydown", pressed);
byId("more").addEventListener("click", () => { rows += ROWS; slaves(store.told); });
byId("state").addEventListener("change", () => { if (store.told) slaves(store.told); });
byId("filter").addEventListener("input", () => { if (store.told) slaves(store.told); });
for (const one of document.querySelectorAll("input[name=window]")) one.addEventListener("change", () => { if (store.told) drawTimeline(); });
window.addEventListener("resize", () => { if (store.told && store.told.total) { drawCourse(); drawTimeline(); } });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (store.told && store.told.total) { drawCourse(); drawTimeline(); } });
get();
