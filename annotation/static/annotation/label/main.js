// The labelling page at work. Sets that come next are kept ready; a submission goes into the outbox
// and the next set is on the screen at once. Without this script the page is a plain form.

import { createAnswers } from "./answers.js";
import { createCompare } from "./compare.js";
import { post } from "./net.js";
import { createOutbox } from "./outbox.js";
import { draft, forgetOldDrafts } from "./store.js";
import { createViewer } from "./viewer.js";
import { announce, clearNotice, notice, quietNotice, word } from "./words.js";

const LETTERS = "qwertyui";
const IDLE_MS = 5 * 60 * 1000;
const NEAR = 3; // sets whose pictures are fetched at once; the others when there is time

let page = null; // what belongs to the set on the screen
let ready = []; // sets that come next: { turn, html }
let empty = null; // what to show when there is no next set
const shown = new Map(); // sets that were on the screen, for taking a submission back
const pictures = new Map(); // keeps fetched pictures in memory
let worked = { since: Date.now(), last: Date.now(), told: false };
let sets = { count: 0, seconds: 0 };
let today = Number(document.getElementById("today")?.textContent) || 0;
let outbox = null;
let waiting = false; // for the next set to arrive
let submitted = null; // when the last submission was made

document.documentElement.classList.add("js");

const root = () => document.getElementById("label");

// One set ----------------------------------------------------------------------------------------

function open(element) {
  page?.end();
  const form = element.querySelector("#answers");
  page = form ? openSet(element, form) : openEmpty(element);
  outbox?.show();
  element.focus({ preventScroll: true });
  window.htmx?.process(element);
  element.dataset.ready = "";
}

function openSet(element, form) {
  const answers = createAnswers(element, form);
  const viewer = createViewer(element, { onPick: (place, shift) => answers.pick(place, shift) });
  const compare = createCompare(element, viewer);
  const letters = LETTERS.slice(0, Math.min(answers.count, 6));
  const ends = [];
  const listen = (target, kind, act) => {
    target.addEventListener(kind, act);
    ends.push(() => target.removeEventListener(kind, act));
  };

  let spent = 0;
  let since = document.hidden ? null : performance.now();
  const tick = () => {
    if (since !== null) spent += performance.now() - since;
    since = document.hidden ? null : performance.now();
  };

  const menu = (name) => element.querySelector(`[data-menu="${name}"]`);
  function toggleMenu(name, on) {
    for (const other of element.querySelectorAll("[data-menu]")) if (other !== menu(name)) other.open = false;
    if (!menu(name)) return;
    menu(name).open = on ?? !menu(name).open;
    if (menu(name).open) menu(name).querySelector(".panel input:not([type=hidden])")?.focus();
    else element.focus({ preventScroll: true });
  }

  const actions = {
    source: viewer.toggleSource,
    compare: () => compare.open(/^[1-8]$/.test(answers.best()) ? answers.best() : ""),
    outline: viewer.toggleOutline,
    dim: viewer.toggleDim,
    zoom: viewer.toggleZoom,
    exact: viewer.exact,
    clear: answers.clear,
  };

  function place(event) {
    return /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1] ?? null;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    alive();
    if (compare.isOpen()) {
      if (compare.key(event, place(event)) || zoomKey(event)) event.preventDefault();
      return;
    }
    const opened = element.querySelector("[data-menu][open]");
    if (event.key === "Escape" && opened) return done(event, () => toggleMenu(opened.dataset.menu, false));
    if (event.target.closest?.(".panel, input[type=text], textarea, select")) return;
    if (event.key === "Enter") {
      if (event.target.closest?.("button, a, summary")) return;
      return event.repeat ? event.preventDefault() : done(event, submit);
    }
    if (event.key === " ") return space(event);
    if (judgeKey(event) || zoomKey(event) || otherKey(event)) event.preventDefault();
  }

  function judgeKey(event) {
    const number = place(event);
    const letter = event.key.toLowerCase();
    if (answers.rating) {
      if (letter === "y" || letter === "n") return yes(answers.usable(letter === "y" ? "yes" : "no"));
      return number !== null && number !== "0" && yes(answers.score(number));
    }
    if (number === "0") return yes(answers.say("best", "no_difference"));
    if (number !== null) {
      return Number(number) <= answers.count && yes(answers.say(event.shiftKey ? "worst" : "best", number));
    }
    if (letter === "x") return yes(answers.say("best", "cannot_judge"));
    if (!answers.pair && letter.length === 1 && letters.includes(letter)) {
      return yes(answers.say("worst", String(letters.indexOf(letter) + 1)));
    }
    if (answers.pair && !event.shiftKey && !event.target.closest?.("input[type=radio]")) {
      const side = { ArrowLeft: "1", ArrowRight: "2" }[event.key];
      if (side) return yes(answers.say("best", side));
    }
    return false;
  }

  function zoomKey(event) {
    const step = 0.08;
    const pan = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.shiftKey && pan[event.key]) return yes(viewer.pan(...pan[event.key]));
    if (event.key === "+" || event.key === "=") return yes(viewer.zoomIn());
    if (event.key === "-") return yes(viewer.zoomOut());
    const act = { z: actions.zoom, p: actions.exact, m: actions.outline, d: actions.dim }[event.key.toLowerCase()];
    return Boolean(act) && !event.repeat && yes(act());
  }

  function otherKey(event) {
    if (event.key === "ArrowDown") return yes(answers.next());
    if (event.key === "ArrowUp") return yes(answers.previous());
    if (event.repeat) return false;
    const act = {
      c: actions.compare,
      u: undo,
      s: () => toggleMenu("skip"),
      f: () => toggleMenu("flag"),
      g: () => toggleMenu("help"),
      "?": () => toggleMenu("help"),
      backspace: actions.clear,
    }[event.key.toLowerCase()];
    return Boolean(act) && yes(act());
  }

  const yes = () => true;

  function done(event, act) {
    event.preventDefault();
    act();
  }

  // Held, it flickers between source and candidates; on a button or an unchecked choice it is theirs.
  function space(event) {
    const target = event.target;
    if (target.closest?.("button, a, summary") || (target.type === "radio" && !target.checked)) return;
    event.preventDefault();
    if (!event.repeat) viewer.showSource(true);
  }

  function keyUp(event) {
    if (compare.isOpen()) return compare.keyUp(event);
    if (event.key === " " && !event.target.closest?.("button, a, summary")) viewer.showSource(false);
  }

  function submit() {
    if (element.hasAttribute("data-preview")) return announce(word("all_answered"));
    const missing = answers.missing();
    if (missing) return announce(word("needs", { dimension: missing }));
    tick();
    form.elements.seconds.value = (spent / 1000).toFixed(1);
    // The answers of a practice set are shown on a page of their own.
    if (element.hasAttribute("data-practice")) {
      return HTMLFormElement.prototype.submit.call(form); // a button is called “submit”, too
    }
    sets = { count: sets.count + 1, seconds: sets.seconds + spent / 1000 };
    submitted = performance.now();
    leave(element, form);
  }

  listen(document, "keydown", key);
  listen(document, "keyup", keyUp);
  listen(document, "visibilitychange", tick);
  listen(document, "pointerdown", alive);
  listen(window, "blur", () => viewer.showSource(false));
  listen(window, "resize", viewer.resize);
  form.addEventListener("submit", (event) => done(event, submit));
  for (const button of element.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]?.());
  }
  for (const other of element.querySelectorAll("[data-form]")) {
    other.addEventListener("submit", (event) => done(event, () => others[other.dataset.form](other)));
  }

  viewer.start();
  answers.restore();
  answers.fill(currentAnswers(form));
  return { answers, turn: element.dataset.turn, end: () => ends.splice(0).forEach((end) => end()) };
}

function currentAnswers(form) {
  return Object.fromEntries(
    [...form.querySelectorAll("input[type=radio]:checked")].map((radio) => [radio.name, radio.value]),
  );
}

function openEmpty(element) {
  const key = (event) => {
    if (event.key.toLowerCase() !== "u" || event.ctrlKey || event.metaKey) return;
    if (element.querySelector('[data-form="undo"]')) undo();
  };
  document.addEventListener("keydown", key);
  element.querySelector('[data-form="undo"]')?.addEventListener("submit", (event) => {
    event.preventDefault();
    undo();
  });
  return { turn: null, end: () => document.removeEventListener("keydown", key) };
}

// From set to set --------------------------------------------------------------------------------

function leave(element, form) {
  const fields = new URLSearchParams(new FormData(form));
  // The token in the form ends with the log-in; the request's header carries the one of the day.
  fields.delete("csrfmiddlewaretoken");
  const body = fields.toString();
  const { turn, campaign } = element.dataset;
  const wasCorrection = Boolean(form.elements.correction);
  remember(element);
  outbox.put({ id: form.elements.submission.value, url: form.getAttribute("action"), body, turn, campaign });
  if (!wasCorrection) count(1);
  next();
}

function remember(element) {
  shown.set(element.dataset.turn, element.outerHTML);
  if (shown.size > 40) shown.delete(shown.keys().next().value);
}

function count(by) {
  today += by;
}

function next() {
  const following = ready.shift();
  if (following) return show(following.html, following.turn);
  waiting = true;
  if (outbox.isOffline()) {
    return quietNotice(word("no_more_offline", { n: outbox.count() }), [word("go_on"), () => outbox.flush()]);
  }
  if (empty && outbox.count() === 0) return show(empty, null);
  announce(word("loading"));
  root().classList.add("waiting");
  if (outbox.count() === 0) more();
}

function show(html, turn) {
  waiting = false;
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = template.content.querySelector("#label");
  root().replaceWith(fresh);
  if (turn) history.pushState({}, "", `/label/${turn}/`);
  const number = document.getElementById("today");
  if (number) number.textContent = today;
  const pace = document.getElementById("pace");
  if (pace && sets.count) pace.textContent = `· ${(sets.seconds / sets.count).toFixed(1)} s`;
  open(fresh);
  announce(fresh.querySelector("h1")?.textContent.trim() ?? "");
  suggestBreak(fresh);
  measure(fresh);
  fetchPictures();
}

// How long it took from the submission until the next set's pictures were there.
async function measure(fresh) {
  const start = submitted;
  submitted = null;
  if (start === null) return;
  const images = [...fresh.querySelectorAll("img.picture")];
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  if (fresh === root()) performance.measure("oneloop-next", { start });
}

// What the server sent: sets to keep ready, and what to show when there are none.
function receive(data) {
  const gone = new Set((data.gone ?? []).map(String));
  ready = ready.filter((one) => !gone.has(String(one.turn)));
  const known = new Set([...ready.map((one) => String(one.turn)), page?.turn]);
  for (const one of data.sets) {
    if (!known.has(String(one.turn)) && !outbox.has(String(one.turn))) ready.push(one);
  }
  empty = data.empty;
  if (waiting) {
    if (ready.length) next();
    else if (empty && outbox.count() === 0) show(empty, null);
  }
  fetchPictures();
}

async function more() {
  const answer = await post(root().dataset.ahead ?? `${location.pathname}ahead/`, have());
  if (answer.ok) {
    outbox.setOffline(false);
    return receive(answer.data);
  }
  if (answer.kind === "offline") {
    outbox.setOffline(true);
    setTimeout(() => waiting && more(), 3000);
  } else if (answer.kind === "out") {
    notice(word("logged_out", { n: outbox.count() }), [word("log_in"), () => location.reload()]);
  }
}

function have() {
  const body = new URLSearchParams();
  for (const one of ready) body.append("have", one.turn);
  if (page?.turn && !outbox?.has(page.turn)) body.append("have", page.turn);
  return body.toString();
}

function fetchPictures() {
  const fetch = (one) => {
    if (one.fetched) return;
    one.fetched = true;
    const content = document.createElement("template");
    content.innerHTML = one.html;
    for (const image of content.content.querySelectorAll("img[src]")) {
      const url = image.getAttribute("src");
      if (pictures.has(url)) continue;
      const ahead = new Image();
      ahead.src = url;
      pictures.set(url, ahead);
    }
    while (pictures.size > 400) pictures.delete(pictures.keys().next().value);
  };
  ready.slice(0, NEAR).forEach(fetch);
  const rest = () => ready.forEach(fetch);
  if (window.requestIdleCallback) requestIdleCallback(rest, { timeout: 2000 });
  else setTimeout(rest, 200);
}

// Undo, skip, flag -------------------------------------------------------------------------------

async function undo() {
  const taken = outbox.takeBack();
  if (taken && shown.has(taken.turn)) {
    putBack();
    count(-1);
    draft.set(taken.turn, Object.fromEntries(new URLSearchParams(taken.body)));
    show(shown.get(taken.turn), taken.turn);
    return quietNotice(word("undone"));
  }
  if (outbox.count()) await outbox.flush();
  const answer = await post(root().dataset.undo, "");
  if (answer.ok) {
    const [back] = answer.data.sets;
    putBack();
    count(-1);
    show(back.html, back.turn);
    return quietNotice(word("undone"));
  }
  notice(answer.kind === "refused" ? answer.reason : word("nothing_to_undo"));
}

// The set on the screen comes next again.
function putBack() {
  const element = root();
  if (!element?.dataset.turn) return;
  ready.unshift({ turn: Number(element.dataset.turn), html: element.outerHTML, fetched: true });
}

const others = {
  undo,
  async skip(form) {
    const body = `${new URLSearchParams(new FormData(form))}&${have()}`;
    const answer = await post(form.getAttribute("action"), body);
    if (!answer.ok) return told(answer);
    receive(answer.data);
    next();
  },
  async flag(form) {
    const answer = await post(form.getAttribute("action"), new URLSearchParams(new FormData(form)));
    if (!answer.ok) return told(answer);
    form.reset();
    form.closest("details").open = false;
    root().focus({ preventScroll: true });
    quietNotice(word("flagged"));
  },
};

function told(answer) {
  notice(answer.kind === "refused" ? answer.reason : word("offline_none"));
}

// Breaks -----------------------------------------------------------------------------------------

function alive() {
  const now = Date.now();
  if (now - worked.last > IDLE_MS) worked = { since: now, last: now, told: false };
  worked.last = now;
}

function suggestBreak(element) {
  const minutes = Number(element.dataset.break);
  const now = Date.now();
  if (!minutes || worked.told || now - worked.since < minutes * 60000) return;
  worked.told = true;
  quietNotice(word("break", { n: Math.round((now - worked.since) / 60000) }), [
    word("go_on"),
    () => {
      worked = { since: Date.now(), last: Date.now(), told: false };
      clearNotice();
    },
  ]);
}

// Start ------------------------------------------------------------------------------------------

function start() {
  const element = root();
  if (!element) return;
  if (element.matches("[data-preview], [data-practice]")) return open(element);
  outbox = createOutbox({
    user: element.dataset.user,
    extra: have,
    onStored(entry, data) {
      receive(data);
      if (page?.turn === entry.turn && !waiting) {
        // It was sent before this page was loaded: go on with the next one.
        waiting = true;
        if (ready.length || empty) next();
        else more();
      }
    },
    onGone(turns) {
      ready = ready.filter((one) => !turns.includes(String(one.turn)));
      if (page?.turn && turns.includes(page.turn) && root().dataset.state === "open") {
        next();
        quietNotice(word("elsewhere"));
      }
    },
  });
  forgetOldDrafts();
  open(element);
  outbox.remindOfRefused();
  if (outbox.count()) outbox.flush();
  else if (element.dataset.ahead) more();
}

// Back and forward show what the server has of that set.
window.addEventListener("popstate", () => location.reload());
start();
