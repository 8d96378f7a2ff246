// How pictures are looked at: one zoom and one pan for all of them, mask layers, the source in their
// place, two on top of each other. Scale and offset are custom properties of the stage, as shares of
// a picture's width and height, so that every picture moves together.

import { announce, word } from "./words.js";

const MOST = 32;
const STEP = 1.25;
const CLICK_PIXELS = 5;

// What stays the same from set to set.
const kept = { outline: false, dim: false, zoom: false };
const boxes = new Map();

export function createViewer(root, { onPick }) {
  const stage = root.querySelector(".stage");
  const surfaces = [stage]; // the stage and, while it is open, the comparison
  let [scale, left, top] = [1, 0, 0];
  let pointers = new Map();
  let dragged = 0;

  const tool = (name) => root.querySelector(`[data-do="${name}"]`);
  const pressed = (name) => tool(name)?.getAttribute("aria-pressed") === "true";
  const press = (name, on) => tool(name)?.setAttribute("aria-pressed", String(on));
  const view = (surface = surfaces.at(-1)) => surface.querySelector(".view");
  const size = () => view().getBoundingClientRect(); // not rounded to whole pixels
  const picture = () => view().querySelector("img.picture");

  // Scale at which a pixel of the picture takes one pixel of the screen.
  function exactScale() {
    const width = Number(picture().getAttribute("width"));
    return width / (size().width * devicePixelRatio);
  }

  function look(nextScale, nextLeft, nextTop) {
    scale = Math.min(Math.max(nextScale, Math.min(1, exactScale())), Math.max(MOST, exactScale()));
    const limit = (value) => (scale <= 1 ? (1 - scale) / 2 : Math.min(0, Math.max(1 - scale, value)));
    // Whole pixels of the screen, so that pixels of the picture stay sharp.
    const { width, height } = size();
    const snap = (value, side) => Math.round(value * side * devicePixelRatio) / (side * devicePixelRatio);
    left = snap(limit(nextLeft), width);
    top = snap(limit(nextTop), height);
    for (const surface of surfaces) {
      surface.style.setProperty("--zoom", scale);
      surface.style.setProperty("--x", left);
      surface.style.setProperty("--y", top);
      surface.classList.toggle("zoomed", scale > 1);
    }
    sharpen();
    const percent = Math.round((100 * scale) / exactScale());
    root.querySelector("#scale").textContent = `${percent} %`;
    press("exact", percent === 100);
  }

  // Keeps the point under the pointer where it is; x and y are shares of the view.
  function zoomAt(factor, x = 0.5, y = 0.5) {
    const before = scale;
    const after = Math.min(Math.max(scale * factor, Math.min(1, exactScale())), MOST);
    look(after, x - ((x - left) / before) * after, y - ((y - top) / before) * after);
    setZoomToMask(false);
  }

  function fit() {
    look(1, 0, 0);
    setZoomToMask(false);
  }

  function exact() {
    if (pressed("exact")) return fit();
    const target = exactScale();
    const centre = kept.zoom || scale > 1 ? [(0.5 - left) / scale, (0.5 - top) / scale] : [0.5, 0.5];
    look(target, 0.5 - target * centre[0], 0.5 - target * centre[1]);
    setZoomToMask(false);
  }

  function pan(x, y) {
    look(scale, left + x, top + y);
  }

  // The reduced copies are enough until they are shown larger than they are. Above 100 % pixels are
  // shown as they are rather than smoothed.
  function sharpen() {
    for (const surface of surfaces) {
      const shown = (view(surface).clientWidth || 1) * scale * devicePixelRatio;
      for (const image of surface.querySelectorAll("img[data-full]")) {
        const own = Number(image.getAttribute("width")) || Number(picture().getAttribute("width"));
        if (shown > 512 && own > 512 && image.dataset.full && !image.src.endsWith(image.dataset.full)) {
          image.src = image.dataset.full;
        }
        image.classList.toggle("pixels", shown > own * 1.001);
      }
    }
  }

  function setZoomToMask(on) {
    kept.zoom = on;
    press("zoom", on);
  }

  async function zoomToMask(on, tell) {
    if (!on) return fit();
    const box = await maskBox(root.dataset.mask);
    const wanted = Math.min(8, 1 / (1.25 * Math.max(box.width, box.height)));
    if (wanted <= 1.05) {
      if (tell) {
        root.querySelector("#still").textContent = word("wide_mask");
        announce(word("wide_mask"));
      }
      return look(1, 0, 0);
    }
    look(wanted, 0.5 - wanted * box.x, 0.5 - wanted * box.y);
    setZoomToMask(true);
  }

  function showSource(on) {
    press("source", on);
    for (const layer of stage.querySelectorAll(".under")) layer.hidden = !on;
  }

  function showLayer(name, selector, on) {
    kept[name] = on;
    press(name, on);
    for (const surface of surfaces) {
      for (const layer of surface.querySelectorAll(selector)) layer.hidden = !on;
    }
  }

  // Pointers: drag pans, two fingers pinch, a tap picks ------------------------------------------

  function place(event) {
    const bounds = (event.target.closest(".view") ?? view()).getBoundingClientRect();
    return [(event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height];
  }

  const spread = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

  function down(event) {
    if (!event.target.closest(".view") || event.button > 0) return;
    if (pointers.size === 0) dragged = 0;
    pointers.set(event.pointerId, place(event));
  }

  function move(event) {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const { width } = size();
    const now = place(event);
    const old = [...pointers.values()];
    pointers.set(event.pointerId, now);
    dragged += Math.hypot(now[0] - before[0], now[1] - before[1]) * width;
    if (pointers.size === 2) {
      const fingers = [...pointers.values()];
      const [x, y] = middle(fingers);
      const [oldX, oldY] = middle(old);
      pan(x - oldX, y - oldY);
      zoomAt(spread(fingers) / Math.max(spread(old), 1e-3), x, y);
      event.preventDefault();
    } else if (scale > 1 && dragged > CLICK_PIXELS) {
      event.target.closest(".view")?.setPointerCapture?.(event.pointerId);
      pan(now[0] - before[0], now[1] - before[1]);
      event.preventDefault();
    }
  }

  function up(event) {
    pointers.delete(event.pointerId);
  }

  function wheel(event) {
    if (!event.target.closest(".view")) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomAt(Math.exp(-event.deltaY * lines * 0.0018), ...place(event));
  }

  function attach(surface) {
    surface.addEventListener("pointerdown", down);
    surface.addEventListener("pointermove", move);
    surface.addEventListener("pointerup", up);
    surface.addEventListener("pointercancel", up);
    surface.addEventListener("pointerleave", up);
    surface.addEventListener("wheel", wheel, { passive: false });
  }

  attach(stage);
  stage.addEventListener("click", (event) => {
    const frame = event.target.closest(".candidate");
    if (frame && dragged <= CLICK_PIXELS) onPick(frame.dataset.place, event.shiftKey);
  });

  const viewer = {
    stage,
    showSource,
    fit,
    exact,
    pan,
    zoomIn: () => zoomAt(STEP),
    zoomOut: () => zoomAt(1 / STEP),
    isZoomed: () => scale > 1,
    toggleSource: () => showSource(!pressed("source")),
    toggleOutline: () => showLayer("outline", ".candidate .outline", !kept.outline),
    toggleDim: () => showLayer("dim", ".shade", !kept.dim),
    toggleZoom: () => zoomToMask(!kept.zoom, true),
    resize: () => look(scale, left, top),
    open(surface) {
      surfaces.push(surface);
      attach(surface);
      look(scale, left, top);
    },
    close() {
      if (surfaces.length > 1) surfaces.pop();
      look(scale, left, top);
    },
    start() {
      showLayer("outline", ".candidate .outline", kept.outline);
      showLayer("dim", ".shade", kept.dim);
      if (kept.zoom) zoomToMask(true, false);
      else look(1, 0, 0);
    },
  };
  return viewer;
}

// The mask's box as shares of the picture: its centre and its sides.
async function maskBox(url) {
  if (boxes.has(url)) return boxes.get(url);
  // Fetched, not shown: an image that the object store sent could not be read here.
  const image = await createImageBitmap(await (await fetch(url)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
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
