// Drives the labelling form by keyboard. The form's own radio buttons hold the answers: this only
// checks them, shows them on the pictures and sends the form. Without it the form works as it is.

const LETTERS = "qwertyui";
const WITHOUT_PICK = ["no_difference", "cannot_judge"];
const cleanups = [];
// How the pictures are looked at stays the same from set to set.
const view = { outline: false, dim: false, zoom: false };

document.documentElement.classList.add("js");

function announce(text) {
  const region = document.getElementById("announce");
  if (region) region.textContent = text;
}

function notice(text, label, act) {
  const place = document.getElementById("notice");
  if (!place) return announce(text);
  place.classList.remove("quiet", "blank");
  place.textContent = text;
  if (label) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = label;
    button.addEventListener("click", act);
    place.append(" ", button);
  }
}

function start(root) {
  const form = root.querySelector("#answers");
  if (!form) return startEmpty(root);
  const stage = root.querySelector(".stage");
  const dimensions = [...form.querySelectorAll(".dimension")];
  const candidates = [...root.querySelectorAll(".candidate")];
  const count = candidates.length;
  const letters = LETTERS.slice(0, Math.min(count, 6));
  const keep = `oneloop-turn-${root.dataset.turn}`;
  let active = 0;

  // Answers ------------------------------------------------------------------------------------

  const radios = (dimension, part) => [
    ...dimension.querySelectorAll(`input[name="${part}-${dimension.dataset.dimension}"]`),
  ];
  const value = (dimension, part) =>
    radios(dimension, part).find((radio) => radio.checked)?.value ?? "";
  const check = (dimension, part, wanted) => {
    for (const radio of radios(dimension, part)) radio.checked = radio.value === wanted;
  };
  const touched = (dimension) => value(dimension, "best") || value(dimension, "worst");
  const complete = (dimension) =>
    WITHOUT_PICK.includes(value(dimension, "best")) ||
    (value(dimension, "best") !== "" && value(dimension, "worst") !== "");
  const settled = (dimension) =>
    complete(dimension) || (!("required" in dimension.dataset) && !touched(dimension));

  function say(part, wanted) {
    const dimension = dimensions[active];
    const before = complete(dimension);
    check(dimension, part, wanted);
    settle(dimension, part);
    const name = dimension.dataset.name;
    announce(
      wanted === "no_difference" ? `${name}: no difference`
      : wanted === "cannot_judge" ? `${name}: can’t judge`
      : `${name}: ${part} is ${wanted}`,
    );
    if (complete(dimension) && !before) advance();
  }

  // One candidate is not both best and worst, and without a pick there is no worst.
  function settle(dimension, part) {
    const best = value(dimension, "best");
    const worst = value(dimension, "worst");
    if (part === "best" && WITHOUT_PICK.includes(best)) check(dimension, "worst", "");
    if (part === "worst" && WITHOUT_PICK.includes(best)) check(dimension, "best", "");
    if (best !== "" && best === worst) check(dimension, part === "best" ? "worst" : "best", "");
    changed();
  }

  function changed() {
    show();
    const answers = {};
    for (const radio of form.querySelectorAll("input[type=radio]:checked")) {
      answers[radio.name] = radio.value;
    }
    try {
      sessionStorage.setItem(keep, JSON.stringify(answers));
    } catch { /* a full or forbidden store only means that a reload forgets */ }
  }

  function restore() {
    if (form.querySelector("input[type=radio]:checked")) return;
    let answers = {};
    try {
      answers = JSON.parse(sessionStorage.getItem(keep) ?? "{}");
    } catch { /* as above */ }
    for (const radio of form.querySelectorAll("input[type=radio]")) {
      radio.checked = answers[radio.name] === radio.value;
    }
  }

  function advance() {
    for (let step = 1; step <= dimensions.length; step += 1) {
      const index = (active + step) % dimensions.length;
      if (!complete(dimensions[index])) return activate(index);
    }
    announce("Every dimension has an answer. Press Enter to submit.");
  }

  function activate(index) {
    active = (index + dimensions.length) % dimensions.length;
    show();
  }

  function show() {
    dimensions.forEach((dimension, index) => {
      dimension.classList.toggle("active", index === active);
      if (index === active) dimension.setAttribute("aria-current", "true");
      else dimension.removeAttribute("aria-current");
    });
    const best = value(dimensions[active], "best");
    const worst = value(dimensions[active], "worst");
    for (const frame of candidates) {
      const verdict = frame.dataset.place === best ? "best" : frame.dataset.place === worst ? "worst" : "";
      frame.dataset.verdict = verdict;
      frame.querySelector(".verdict").textContent = verdict;
    }
    const left = dimensions.filter((dimension) => !settled(dimension)).length;
    root.querySelector("#still").textContent =
      left === 0 ? "" : left === 1 ? "1 dimension to go" : `${left} dimensions to go`;
  }

  // Views --------------------------------------------------------------------------------------

  const tool = (name) => root.querySelector(`[data-do="${name}"]`);
  const pressed = (name) => tool(name).getAttribute("aria-pressed") === "true";
  const press = (name, on) => tool(name).setAttribute("aria-pressed", String(on));

  function showSource(on) {
    press("source", on);
    for (const layer of root.querySelectorAll(".under")) layer.hidden = !on;
  }

  function showLayer(name, selector, on) {
    press(name, on);
    for (const layer of root.querySelectorAll(selector)) layer.hidden = !on;
  }

  async function zoom(on, tell) {
    const box = on ? await maskBox(root.dataset.mask) : null;
    const scale = box ? Math.min(8, 1 / (1.25 * Math.max(box.width, box.height))) : 1;
    if (on && scale <= 1.05) {
      if (!tell) return;
      view.zoom = false;
      root.querySelector("#still").textContent = "The edited area reaches across the picture.";
      announce("The edited area reaches across the picture.");
    }
    const zoomed = scale > 1.05;
    press("zoom", zoomed);
    const offset = (centre) => Math.min(0, Math.max(1 - scale, 0.5 - scale * centre));
    stage.style.setProperty("--zoom", zoomed ? scale : 1);
    stage.style.setProperty("--x", zoomed ? offset(box.x) : 0);
    stage.style.setProperty("--y", zoomed ? offset(box.y) : 0);
    crisp();
  }

  // Above 100 % pixels are shown as they are rather than smoothed.
  function crisp() {
    for (const image of stage.querySelectorAll("img[width], img.under")) {
      if (!image.naturalWidth) continue;
      const shown = image.getBoundingClientRect().width || image.parentElement.clientWidth;
      image.classList.toggle("pixels", shown * devicePixelRatio > image.naturalWidth * 1.001);
    }
  }

  const actions = {
    source: () => showSource(!pressed("source")),
    outline: () => showLayer("outline", ".candidate .outline", (view.outline = !view.outline)),
    dim: () => showLayer("dim", ".shade", (view.dim = !view.dim)),
    zoom: () => zoom((view.zoom = !view.zoom), true),
    clear: () => {
      check(dimensions[active], "best", "");
      check(dimensions[active], "worst", "");
      changed();
      announce(`${dimensions[active].dataset.name}: cleared`);
    },
  };

  // Events -------------------------------------------------------------------------------------

  let spent = 0;
  let since = document.hidden ? null : performance.now();
  const tick = () => {
    if (since !== null) spent += performance.now() - since;
    since = document.hidden ? null : performance.now();
  };

  function submit() {
    const missing = dimensions.findIndex((dimension) => !settled(dimension));
    if (missing >= 0) {
      activate(missing);
      announce(`${dimensions[missing].dataset.name} needs a best and a worst, no difference, or can’t judge.`);
      return;
    }
    form.requestSubmit();
  }

  function openMenu(name, on) {
    const menu = root.querySelector(`[data-menu="${name}"]`);
    for (const other of root.querySelectorAll("[data-menu]")) if (other !== menu) other.open = false;
    menu.open = on ?? !menu.open;
    if (menu.open) menu.querySelector(".panel input:not([type=hidden])")?.focus();
    else root.focus({ preventScroll: true });
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const open = root.querySelector("[data-menu][open]");
    if (event.key === "Escape" && open) return done(event, () => openMenu(open.dataset.menu, false));
    if (event.target.closest?.(".panel, input[type=text], textarea, select")) return;
    const place = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
    if (place) {
      if (Number(place) > count) return;
      return done(event, () => say(event.shiftKey ? "worst" : "best", place));
    }
    if (/^(Digit|Numpad)0$/.test(event.code)) return done(event, () => say("best", "no_difference"));
    if (event.key === " ") return space(event);
    if (event.key === "Enter") {
      if (event.target.closest?.("button, a, summary")) return;
      return event.repeat ? event.preventDefault() : done(event, submit);
    }
    if (event.repeat && !event.key.startsWith("Arrow")) return;
    const letter = event.key.toLowerCase();
    if (letter.length === 1 && letters.includes(letter)) {
      return done(event, () => say("worst", String(letters.indexOf(letter) + 1)));
    }
    const act = {
      x: () => say("best", "cannot_judge"),
      z: actions.zoom,
      m: actions.outline,
      d: actions.dim,
      u: () => root.querySelector('[data-form="undo"]').requestSubmit(),
      s: () => openMenu("skip"),
      "?": () => openMenu("help"),
      g: () => openMenu("help"),
      backspace: actions.clear,
      arrowdown: () => activate(active + 1),
      arrowup: () => activate(active - 1),
    }[letter];
    if (act) done(event, act);
  }

  function done(event, act) {
    event.preventDefault();
    act();
  }

  // Held, it flickers between source and candidates; on a button or an unchecked choice it is theirs.
  function space(event) {
    const target = event.target;
    if (target.closest?.("button, a, summary") || (target.type === "radio" && !target.checked)) return;
    event.preventDefault();
    if (!event.repeat) showSource(true);
  }

  function keyUp(event) {
    if (event.key === " " && !event.target.closest?.("button, a, summary")) showSource(false);
  }

  function pick(event) {
    const frame = event.target.closest(".candidate");
    if (!frame) return;
    const dimension = dimensions[active];
    const best = value(dimension, "best");
    const part = best === "" || WITHOUT_PICK.includes(best) || best === frame.dataset.place ? "best" : "worst";
    say(event.shiftKey ? "worst" : part, frame.dataset.place);
  }

  const listen = (target, kind, act) => {
    target.addEventListener(kind, act);
    cleanups.push(() => target.removeEventListener(kind, act));
  };
  listen(document, "keydown", key);
  listen(document, "keyup", keyUp);
  listen(document, "visibilitychange", tick);
  listen(window, "blur", () => showSource(false));
  listen(window, "resize", crisp);
  stage.addEventListener("click", pick);
  form.addEventListener("change", (event) => {
    const dimension = event.target.closest(".dimension");
    const index = dimensions.indexOf(dimension);
    active = index;
    settle(dimension, event.target.name.startsWith("worst-") ? "worst" : "best");
  });
  form.addEventListener("focusin", (event) => {
    const index = dimensions.indexOf(event.target.closest(".dimension"));
    if (index >= 0) activate(index);
  });
  form.addEventListener("submit", () => {
    tick();
    form.elements.seconds.value = (spent / 1000).toFixed(1);
  });
  for (const button of root.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }

  showLayer("outline", ".candidate .outline", view.outline);
  showLayer("dim", ".shade", view.dim);
  if (view.zoom) zoom(true, false);
  restore();
  activate(Math.max(0, dimensions.findIndex((dimension) => !complete(dimension))));
  crisp();
  for (const url of root.dataset.next.split(/\s+/).filter(Boolean)) new Image().src = url;
}

function startEmpty(root) {
  const undo = root.querySelector('[data-form="undo"]');
  if (!undo) return;
  const key = (event) => {
    if (event.key.toLowerCase() === "u" && !event.ctrlKey && !event.metaKey) undo.requestSubmit();
  };
  document.addEventListener("keydown", key);
  cleanups.push(() => document.removeEventListener("keydown", key));
}

// The mask's box as shares of the picture: its centre and its sides.
const boxes = new Map();
async function maskBox(url) {
  if (boxes.has(url)) return boxes.get(url);
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let index = 0; index < data.length; index += 4) {
    if (data[index] < 128) continue;
    const x = (index / 4) % width;
    const y = Math.floor(index / 4 / width);
    left = Math.min(left, x);
    right = Math.max(right, x + 1);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y + 1);
  }
  const box = {
    x: (left + right) / 2 / width,
    y: (top + bottom) / 2 / height,
    width: (right - left) / width,
    height: (bottom - top) / height,
  };
  boxes.set(url, box);
  return box;
}

// Swapping --------------------------------------------------------------------------------------

let current = null;
function refresh() {
  const root = document.getElementById("label");
  if (!root || root === current) return;
  while (cleanups.length) cleanups.pop()();
  current = root;
  start(root);
  root.focus({ preventScroll: true });
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (!xhr.responseText.includes('id="label"')) {
    // Somewhere else answered, such as the login page: what is on this page is kept.
    event.detail.shouldSwap = false;
    if (xhr.responseURL.includes("/login/")) {
      notice("You are logged out. Your answers are kept on this page.", "Log in again", () => {
        location.reload();
      });
    }
    return;
  }
  // Refusals come with the form as it was sent and the reason above it.
  if ([403, 409, 422].includes(xhr.status)) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});
document.addEventListener("htmx:afterSettle", () => {
  refresh();
  const told = document.querySelector("#notice.notice:not(.quiet)")?.textContent.trim();
  const heading = document.querySelector("#label h1")?.textContent.trim();
  announce(told || heading || "");
});
document.addEventListener("htmx:historyRestore", refresh);
document.addEventListener("htmx:sendError", () => {
  notice("The server cannot be reached. Your answers are kept on this page.", "Try again", () => {
    document.getElementById("answers")?.requestSubmit();
  });
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.responseText.includes('id="label"')) return;
  const expired = event.detail.xhr.status === 403;
  notice(
    expired
      ? "Your session changed, so nothing was sent. Your answers are kept."
      : `The server could not store this (error ${event.detail.xhr.status}). Your answers are kept on this page.`,
    expired ? "Reload" : "Try again",
    () => (expired ? location.reload() : document.getElementById("answers")?.requestSubmit()),
  );
});

refresh();
