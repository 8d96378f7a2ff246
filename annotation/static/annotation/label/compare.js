// Two pictures on top of each other with a divider between them; Space shows the right one alone.

import { word } from "./words.js";

export function createCompare(root, viewer) {
  let dialog = null;
  const frames = () => [...root.querySelectorAll(".frame")];
  // The source, where there is one, is number 0.
  const number = (frame) => frame?.dataset.place ?? "0";
  const name = (frame) => frame.dataset.place ?? word("source");
  const [first, second] = frames();
  const chosen = { left: number(first), right: number(second) };

  function build() {
    dialog = document.createElement("dialog");
    dialog.className = "compare canvas";
    dialog.tabIndex = -1;
    dialog.setAttribute("aria-label", word("compare"));
    dialog.innerHTML = `
      <div class="view"><div class="layers"></div><div class="divider" aria-hidden="true"></div></div>
      <div class="row choose"></div>
      <label class="split"><span></span> <input type="range" min="0" max="100" value="50"></label>`;
    dialog.querySelector(".split span").textContent = word("divider");
    const slider = dialog.querySelector("input[type=range]");
    slider.addEventListener("input", () => split(Number(slider.value)));
    for (const side of ["left", "right"]) dialog.querySelector(".choose").append(choices(side));
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = `${word("close")} `;
    close.append(Object.assign(document.createElement("kbd"), { textContent: "Esc" }));
    close.addEventListener("click", () => dialog.close());
    dialog.querySelector(".choose").append(close);
    const ratio = getComputedStyle(viewer.stage).getPropertyValue("--ratio");
    dialog.style.setProperty("--ratio", ratio);
    dialog.querySelector(".layers").append(...["under-left", "over-right"].map((kind) => {
      const image = first.querySelector("img.picture").cloneNode();
      image.classList.add(kind);
      return image;
    }), outlineOf(first));
    dialog.addEventListener("close", () => {
      viewer.close();
      dialog.remove();
      dialog = null;
      root.focus({ preventScroll: true });
    });
    root.append(dialog);
  }

  function outlineOf(source) {
    const outline = source.querySelector("img.outline").cloneNode();
    outline.hidden = true;
    return outline;
  }

  function choices(side) {
    const group = document.createElement("span");
    group.className = "choices";
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", word(side));
    const sort = Object.assign(document.createElement("span"), { className: "sort", textContent: word(side) });
    group.append(sort);
    frames().forEach((frame) => {
      const label = document.createElement("label");
      label.className = "chip";
      label.innerHTML = `<input type="radio" name="compare-${side}" value="${number(frame)}"><span></span>`;
      label.querySelector("span").textContent = name(frame);
      label.querySelector("input").addEventListener("change", () => show(side, number(frame)));
      group.append(label);
    });
    return group;
  }

  function show(side, index) {
    const frame = frames().find((one) => number(one) === index);
    if (!frame) return;
    chosen[side] = index;
    const from = frame.querySelector("img.picture");
    const to = dialog.querySelector(side === "left" ? ".under-left" : ".over-right");
    to.src = from.src;
    to.dataset.full = from.dataset.full;
    to.alt = from.alt;
    dialog.querySelector(`input[name="compare-${side}"][value="${index}"]`).checked = true;
    viewer.resize();
  }

  function split(percent) {
    dialog.style.setProperty("--split", `${percent}%`);
    dialog.querySelector("input[type=range]").value = percent;
  }

  function alone(on) {
    dialog.classList.toggle("alone", on);
  }

  function move(event) {
    if (event.buttons !== 1 || viewer.isZoomed()) return;
    const bounds = dialog.querySelector(".view").getBoundingClientRect();
    const percent = (100 * (event.clientX - bounds.left)) / bounds.width;
    split(Math.round(Math.min(100, Math.max(0, percent))));
  }

  return {
    isOpen: () => dialog !== null,
    open(right) {
      build();
      dialog.showModal();
      dialog.focus();
      viewer.open(dialog);
      show("left", chosen.left);
      show("right", right || chosen.right);
      split(50);
      const stage = dialog.querySelector(".view");
      stage.addEventListener("pointerdown", move);
      stage.addEventListener("pointermove", move);
    },
    close: () => dialog?.close(),
    // True when the key was for the comparison.
    key(event, place) {
      if (event.key === " ") {
        alone(true);
        return true;
      }
      if (place !== null) {
        show(event.shiftKey ? "left" : "right", place);
        return true;
      }
      const step = { ArrowLeft: -5, ArrowRight: 5 }[event.key];
      if (step && event.target.type !== "radio" && !event.shiftKey) {
        const now = Number(dialog.querySelector("input[type=range]").value);
        split(Math.min(100, Math.max(0, now + step)));
        return true;
      }
      if (event.key.toLowerCase() === "c") {
        dialog.close();
        return true;
      }
      return false;
    },
    keyUp: (event) => {
      if (event.key === " ") alone(false);
    },
  };
}
