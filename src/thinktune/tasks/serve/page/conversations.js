// Conversations, kept in this browser alone.

const PLACE = "thinktune.conversations";
const MOST = 50;

/** All conversations, the newest first. What cannot be read counts as none. */
export function load() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(found) ? found.filter((each) => Array.isArray(each?.turns)) : [];
  } catch {
    return [];
  }
}

/** Keeps them; where the browser has no more room, the oldest go. */
export function save(conversations) {
  let kept = conversations.filter((each) => each.turns.length).slice(0, MOST);
  for (;;) {
    try {
      localStorage.setItem(PLACE, JSON.stringify(kept));
      return;
    } catch {
      if (!kept.length) return;
      kept = kept.slice(0, -1);
    }
  }
}

export function begin() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()), title: "", turns: [] };
}

/** The messages of a conversation as one arm has them, and a question. */
export function messages(conversation, arm, question) {
  const found = [];
  for (const turn of conversation.turns) {
    const said = turn.answers[arm] ?? Object.values(turn.answers)[0];
    if (!said?.content) continue;
    found.push({ role: "user", content: turn.question });
    found.push({ role: "assistant", content: said.content });
  }
  return [...found, { role: "user", content: question }];
}

export function asMarkdown(conversation, names) {
  const parts = [`# ${conversation.title}`];
  for (const turn of conversation.turns) {
    parts.push(`## Question\n\n${turn.question}`);
    for (const [arm, said] of Object.entries(turn.answers)) {
      const length = Number.isInteger(said.tokens) ? `, ${said.tokens} tokens` : "";
      const thought = said.reasoning
        ? `<details><summary>Reasoning${length}</summary>\n\n${said.reasoning}\n\n</details>\n\n`
        : "";
      parts.push(`## ${names[arm] ?? arm}\n\n${thought}${said.content}`);
    }
  }
  return parts.join("\n\n") + "\n";
}

export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
