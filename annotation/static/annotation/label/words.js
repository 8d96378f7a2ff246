// What the scripts say, in the reader's language; the page carries it.

const said = JSON.parse(document.getElementById("words")?.textContent ?? "{}");

export function word(name, values = {}) {
  return (said[name] ?? name).replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

// Read out by screen readers.
export function announce(text) {
  const region = document.getElementById("announce");
  if (region) region.textContent = text;
}

// One sentence where the progress stands, with the one button that helps.
export function notice(text, ...buttons) {
  const place = document.getElementById("notice");
  if (!place) return announce(text);
  place.classList.remove("quiet", "blank");
  place.textContent = text;
  for (const [label, act] of buttons) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = label;
    button.addEventListener("click", act);
    place.append(" ", button);
  }
}

export function quietNotice(text, ...buttons) {
  notice(text, ...buttons);
  document.getElementById("notice")?.classList.add("quiet");
}

export function clearNotice() {
  const place = document.getElementById("notice");
  if (!place) return;
  place.textContent = "";
  place.classList.add("blank");
}
