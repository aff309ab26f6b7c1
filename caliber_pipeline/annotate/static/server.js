// Talks to the server. A failed connection is an Unreachable, an answer other than success a Refused.

const csrfToken = document.querySelector('meta[name="csrf-token"]').content;

export class Unreachable extends Error {}
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let response, content;
  try {
    response = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(20000), ...options });
    content = await response.json();
  } catch (error) {
    throw new Unreachable(String(error));
  }
  if (response.ok) return content;
  if (response.status >= 500 || response.status === 429) throw new Unreachable(`the server answers ${response.status}`);
  throw new Refused(response.status, content.error ?? `the server answers ${response.status}`);
}

export const get = (path, query = {}) => ask(`${path}?${new URLSearchParams(query)}`, {});
export const post = (path, content) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrfToken },
    body: JSON.stringify(content),
  });
