// Sends submissions in the background, in order, until the server has acknowledged each. The form's
// id makes a second try harmless: the server stores it once.

import { post } from "./net.js";
import { draft, outboxOf } from "./store.js";
import { notice, word } from "./words.js";

const PATIENCE = [1, 2, 5, 10, 20, 30]; // seconds between tries
const CLOSED_SECONDS = 60;

export function createOutbox({ user, extra, onStored, onGone }) {
  const store = outboxOf(user);
  let sending = null;
  let tries = 0;
  let timer = null;
  let offline = !navigator.onLine;
  let inFlight = null;
  let unstored = false;

  function show() {
    const place = document.getElementById("sync");
    if (!place) return;
    const n = store.waiting().length;
    place.dataset.state = offline ? "offline" : n ? "unsaved" : "saved";
    place.textContent = offline ? word(n ? "offline" : "offline_none", { n }) : n ? word("unsaved", { n }) : "";
  }

  function later(seconds) {
    clearTimeout(timer);
    timer = setTimeout(flush, seconds * 1000);
  }

  async function sendAll() {
    for (;;) {
      const entry = store.waiting()[0];
      if (!entry) return true;
      inFlight = entry.id;
      const answer = await post(entry.url, `${entry.body}&${extra()}`);
      inFlight = null;
      if (answer.ok) {
        tries = 0;
        offline = false;
        store.drop(entry.id);
        draft.drop(entry.turn);
        show();
        onStored(entry, answer.data);
        continue;
      }
      if (!failed(entry, answer)) return false;
    }
  }

  // True when the others can be sent all the same.
  function failed(entry, answer) {
    offline = answer.kind === "offline";
    if (answer.kind === "refused") {
      if (answer.code === "closed") {
        notice(word("held_back", { reason: answer.reason }));
        later(CLOSED_SECONDS);
        return false;
      }
      store.change(entry.id, { refused: answer.reason });
      tellRefused(entry, answer.reason);
      show();
      return true;
    }
    if (answer.kind === "out") {
      const back = encodeURIComponent(location.pathname);
      notice(word("logged_out", { n: store.waiting().length }), [
        word("log_in"),
        () => location.assign(`/login/?next=${back}`),
      ]);
      return false;
    }
    if (answer.kind === "busy" && tries >= 1) notice(word("server_error", { status: answer.status }));
    later(PATIENCE[Math.min(tries, PATIENCE.length - 1)]);
    tries += 1;
    show();
    return false;
  }

  function tellRefused(entry, reason) {
    notice(
      word("refused", { reason }),
      [
        word("look"),
        () => {
          draft.set(entry.turn, Object.fromEntries(new URLSearchParams(entry.body)));
          store.drop(entry.id);
          location.assign(entry.url);
        },
      ],
      [
        word("discard"),
        () => {
          store.drop(entry.id);
          draft.drop(entry.turn);
          location.reload();
        },
      ],
    );
  }

  // One window sends at a time; the others wait and then find nothing left to send.
  async function flush() {
    if (sending) return sending;
    const run = () => sendAll();
    sending = navigator.locks ? navigator.locks.request(store.key, run) : run();
    let all = false;
    try {
      all = await sending;
    } finally {
      sending = null;
      show();
    }
    // Something may have come in after the last look and before the lock was given back.
    return all && store.waiting().length ? flush() : all;
  }

  window.addEventListener("online", () => {
    offline = false;
    tries = 0;
    flush();
  });
  window.addEventListener("offline", () => {
    offline = true;
    show();
  });
  // Another window submitted something.
  window.addEventListener("storage", (event) => {
    if (event.key !== store.key) return;
    show();
    onGone(store.all().map((entry) => entry.turn));
  });
  window.addEventListener("beforeunload", (event) => {
    // Everything is in the store; only a store that could not be written is worth a question.
    if (unstored) event.preventDefault();
  });

  return {
    put(entry) {
      unstored = !store.put(entry);
      show();
      flush();
    },
    // The newest submission, if it has not left the browser.
    takeBack() {
      const newest = store.waiting().at(-1);
      if (!newest || newest.id === inFlight) return null;
      store.drop(newest.id);
      show();
      return newest;
    },
    flush,
    has: store.has,
    count: () => store.waiting().length,
    isOffline: () => offline,
    setOffline(value) {
      offline = value;
      show();
    },
    remindOfRefused() {
      const entry = store.all().find((other) => other.refused);
      if (entry) tellRefused(entry, entry.refused);
    },
    show,
  };
}
