// Requests of the labelling page. Each gives { ok, data } or { ok: false, kind, … }:
// offline (no answer), busy (5xx, 429), refused (with the server's reason), out (logged out).

const SECONDS = 20;

function csrf() {
  const cookie = /(?:^|;\s*)(?:__Host-)?csrftoken=([^;]+)/.exec(document.cookie)?.[1];
  return cookie ?? document.querySelector("input[name=csrfmiddlewaretoken]")?.value ?? "";
}

export async function post(url, body) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      body: new URLSearchParams(body),
      headers: { Accept: "application/json", "X-CSRFToken": csrf() },
      signal: AbortSignal.timeout(SECONDS * 1000),
    });
  } catch {
    return { ok: false, kind: "offline" };
  }
  const json = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  if (response.redirected && response.url.includes("/login/")) return { ok: false, kind: "out" };
  let data = null;
  try {
    if (json) data = await response.json();
  } catch {
    return { ok: false, kind: "offline" };
  }
  if (response.ok && data) return { ok: true, data };
  if (data?.error) {
    return { ok: false, kind: "refused", code: data.code, reason: data.error, status: response.status };
  }
  if (response.status === 403) return { ok: false, kind: "out" };
  return { ok: false, kind: "busy", status: response.status };
}
