// Asks the server that this page came from. Its key stays in the tab.

const KEY = "thinktune.key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function refused(response) {
  let message = `the server answers with status ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // No JSON: the status says it.
  }
  return new ApiError(response.status, message);
}

/** The models of the server: `{id, thinktune: {arm, …}}`. */
export async function models() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) throw await refused(response);
  return (await response.json()).data;
}

/** Whether the model is loaded. */
export async function ready() {
  try {
    return (await fetch("/readyz")).ok;
  } catch {
    return false;
  }
}

/** The events of an answer, as objects of OpenAI's streaming API. */
export async function* answer(body, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refused(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(0, "the answer broke off");
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new ApiError(503, event.error.message);
      yield event;
    }
  }
}
