// What has to survive a reload, in localStorage: answers in progress, and submissions that the
// server has not acknowledged. A full or forbidden store only means that a reload forgets.

const WEEK = 7 * 24 * 3600 * 1000;

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const draftKey = (turn) => `oneloop-draft-${turn}`;

export const draft = {
  get: (turn) => read(draftKey(turn), null)?.answers ?? null,
  set: (turn, answers) => write(draftKey(turn), { at: Date.now(), answers }),
  drop: (turn) => write(draftKey(turn), null),
};

export function forgetOldDrafts() {
  for (const key of Object.keys(localStorage)) {
    if (key.startsWith("oneloop-draft-") && Date.now() - (read(key, {}).at ?? 0) > WEEK) write(key, null);
  }
}

// Entries: { id, url, body, turn, campaign, refused? }. Kept per person: somebody else who logs in
// in this browser does not send them.
export function outboxOf(user) {
  const key = `oneloop-outbox-${user}`;
  const all = () => read(key, []);
  return {
    key,
    all,
    waiting: () => all().filter((entry) => !entry.refused),
    has: (turn) => all().some((entry) => entry.turn === turn && !entry.refused),
    put: (entry) => write(key, [...all().filter((other) => other.id !== entry.id), entry]),
    change: (id, values) =>
      write(key, all().map((entry) => (entry.id === id ? { ...entry, ...values } : entry))),
    drop: (id) => write(key, all().filter((entry) => entry.id !== id)),
  };
}
