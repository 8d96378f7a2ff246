// Paint the area to edit over the chosen picture. What is painted is sent as the mask's file; a
// rectangle in numbers and a mask file work without this script, too.

const form = document.getElementById("edit");
const painter = document.getElementById("painter");
const picture = document.getElementById("picture");
const mask = document.getElementById("mask");
const size = document.getElementById("brush-size");
const painted = document.getElementById("painted");
const paper = mask.getContext("2d", { willReadFrequently: true });
const RED = "rgb(255 0 80)"; // seen on most pictures; only its opacity counts
const KEPT = 30; // steps that can be undone

let tool = "brush";
let undo = [];
let from = null; // where the pointer went down, in the picture's pixels

// What stands on the board ----------------------------------------------------------------------

async function show(blob, maskBlob = null) {
  let shown;
  try {
    shown = await createImageBitmap(blob);
  } catch {
    painter.hidden = true; // the server says what is wrong with the file
    return;
  }
  for (const canvas of [picture, mask]) {
    canvas.width = shown.width;
    canvas.height = shown.height;
    canvas.classList.toggle("pixels", shown.width <= 128);
  }
  picture.getContext("2d").drawImage(shown, 0, 0);
  size.max = Math.max(4, Math.round(Math.max(shown.width, shown.height) / 4));
  size.value = Math.max(2, Math.round(Math.max(shown.width, shown.height) / 12));
  undo = [];
  if (maskBlob) {
    await load(maskBlob);
  }
  painter.hidden = false;
  form.querySelector("[data-do=add-rectangle]").hidden = false;
  tell();
}

// White of a mask file becomes paint.
async function load(blob) {
  let given;
  try {
    given = await createImageBitmap(blob);
  } catch {
    return;
  }
  if (given.width !== mask.width || given.height !== mask.height) {
    return; // the server says what does not fit
  }
  keep();
  const seen = new OffscreenCanvas(mask.width, mask.height).getContext("2d");
  seen.drawImage(given, 0, 0);
  const values = seen.getImageData(0, 0, mask.width, mask.height);
  for (let k = 0; k < values.data.length; k += 4) {
    const white = values.data[k] >= 128 && values.data[k + 3] >= 128;
    values.data.set(white ? [255, 0, 80, 255] : [0, 0, 0, 0], k);
  }
  paper.putImageData(values, 0, 0);
  tell();
}

function pixels() {
  return paper.getImageData(0, 0, mask.width, mask.height);
}

function share() {
  const { data } = pixels();
  let count = 0;
  for (let k = 3; k < data.length; k += 4) {
    count += data[k] >= 128;
  }
  return count / (data.length / 4);
}

function tell() {
  painted.value = share().toLocaleString(document.documentElement.lang, {
    style: "percent",
    maximumFractionDigits: 1,
  });
}

// Painting --------------------------------------------------------------------------------------

function keep() {
  undo.push(pixels());
  undo = undo.slice(-KEPT);
}

function place(event) {
  const box = mask.getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * mask.width,
    ((event.clientY - box.top) / box.height) * mask.height,
  ];
}

function stroke(start, end) {
  paper.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
  paper.strokeStyle = RED;
  paper.lineWidth = Number(size.value);
  paper.lineCap = "round";
  paper.beginPath();
  paper.moveTo(...start);
  paper.lineTo(...end);
  paper.stroke();
  paper.globalCompositeOperation = "source-over";
}

function fill(left, top, width, height) {
  paper.fillStyle = RED;
  paper.fillRect(left, top, width, height);
}

function rectangle(start, end) {
  const [left, right] = [start[0], end[0]].sort((a, b) => a - b).map(Math.round);
  const [top, bottom] = [start[1], end[1]].sort((a, b) => a - b).map(Math.round);
  paper.putImageData(undo.at(-1), 0, 0);
  fill(left, top, right - left, bottom - top);
}

mask.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) {
    return;
  }
  mask.setPointerCapture(event.pointerId);
  keep();
  from = place(event);
  if (tool !== "rectangle") {
    stroke(from, from);
  }
});

mask.addEventListener("pointermove", (event) => {
  if (!from) {
    return;
  }
  const here = place(event);
  if (tool === "rectangle") {
    rectangle(from, here);
  } else {
    stroke(from, here);
    from = here;
  }
});

for (const ended of ["pointerup", "pointercancel"]) {
  mask.addEventListener(ended, () => {
    from = null;
    tell();
  });
}

const acts = {
  undo() {
    const before = undo.pop();
    if (before) {
      paper.putImageData(before, 0, 0);
    }
  },
  invert() {
    keep();
    const values = pixels();
    for (let k = 0; k < values.data.length; k += 4) {
      const now = values.data[k + 3] >= 128;
      values.data.set(now ? [0, 0, 0, 0] : [255, 0, 80, 255], k);
    }
    paper.putImageData(values, 0, 0);
  },
  clear() {
    keep();
    paper.clearRect(0, 0, mask.width, mask.height);
  },
  "add-rectangle"() {
    keep();
    fill(...["left", "top", "width", "height"].map((side) => Number(form.elements[side].value)));
    for (const side of ["left", "top", "width", "height"]) {
      form.elements[side].value = "";
    }
  },
};

form.addEventListener("click", (event) => {
  const button = event.target.closest("[data-tool], [data-do]");
  if (!button) {
    return;
  }
  if (button.dataset.tool) {
    tool = button.dataset.tool;
    for (const other of form.querySelectorAll("[data-tool]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    return;
  }
  acts[button.dataset.do]();
  tell();
});

// Files in and out ------------------------------------------------------------------------------

form.elements.image.addEventListener("change", () => {
  const [file] = form.elements.image.files;
  if (file) {
    form.elements.source.value = "";
    paper.clearRect(0, 0, mask.width, mask.height);
    show(file);
  }
});

form.elements.mask.addEventListener("change", () => {
  const [file] = form.elements.mask.files;
  if (file && !painter.hidden) {
    load(file);
  }
});

// Black and white, as the server wants it.
async function file() {
  const sent = new OffscreenCanvas(mask.width, mask.height);
  const context = sent.getContext("2d");
  const values = pixels();
  for (let k = 0; k < values.data.length; k += 4) {
    const white = values.data[k + 3] >= 128 ? 255 : 0;
    values.data.set([white, white, white, 255], k);
  }
  context.putImageData(values, 0, 0);
  return new File([await sent.convertToBlob({ type: "image/png" })], "painted.png", {
    type: "image/png",
  });
}

form.addEventListener("submit", async (event) => {
  if (painter.hidden || share() === 0) {
    return; // what is wrong or missing the server says
  }
  event.preventDefault();
  const carried = new DataTransfer();
  carried.items.add(await file());
  form.elements.mask.files = carried.files;
  form.submit();
});

if (form.dataset.picture) {
  const found = await Promise.all([form.dataset.picture, form.dataset.mask].map((url) => fetch(url)));
  await show(...(await Promise.all(found.map((response) => response.blob()))));
} else if (form.elements.image.files.length) {
  await show(form.elements.image.files[0]); // after going back
}
form.dataset.ready = "1";
