// One answer on the page: reasoning that folds, the answer itself, the final answer, passages.

import { show } from "./render.js";

const FRAME_MS = 16;
const TIMES_IDLE = 4; // a long text is drawn less often, so that the page stays usable

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

/** Markdown without the line of the final answer, which is shown apart. */
function withoutFinal(content, marker) {
  if (!marker) return content;
  const words = marker.trim().replace(/[:.\s]+$/, "");
  const lines = content.split("\n");
  for (let n = lines.length - 1; n >= 0; n -= 1) {
    if (lines[n].replace(/^[ \t>#*_-]*/, "").startsWith(words)) {
      lines.splice(n, 1);
      return lines.join("\n").trimEnd();
    }
  }
  return content;
}

export class AnswerView {
  constructor(label, marker) {
    this.marker = marker;
    this.root = element("article");
    this.root.append(element("h2", "", label));
    this.details = element("details");
    this.summary = element("summary", "", "Thinking");
    this.thoughts = element("div", "body");
    this.details.append(this.summary, this.thoughts);
    this.details.hidden = true;
    this.content = element("div", "content");
    this.final = element("div", "final");
    this.final.hidden = true;
    this.foot = element("p", "foot");
    this.foot.hidden = true;
    this.root.append(this.details, this.content, this.final, this.foot);
    this.said = { reasoning: "", content: "" };
    this.drawing = 0;
    this.cost = 0; // of the last drawing, in milliseconds
  }

  begin() {
    this.root.setAttribute("aria-busy", "true");
    this.foot.hidden = false;
    this.foot.textContent = "waiting …";
  }

  add(delta) {
    this.foot.hidden = true;
    this.said.reasoning += delta.reasoning ?? "";
    this.said.content += delta.content ?? "";
    this.drawing ||= setTimeout(() => this.draw(), Math.max(FRAME_MS, TIMES_IDLE * this.cost));
  }

  /** Draws what there is; `facts` once the answer is whole. */
  draw(facts) {
    clearTimeout(this.drawing);
    this.drawing = 0;
    const began = performance.now();
    const { reasoning, content } = this.said;
    this.details.hidden = !reasoning;
    const thinks = !facts && !content;
    this.details.classList.toggle("thinking", thinks);
    // Only the end of an answer says how many tokens there were.
    const tokens = facts?.reasoning_tokens;
    const length = tokens === undefined ? "" : ` for ${tokens} ${tokens === 1 ? "token" : "tokens"}`;
    this.summary.textContent = thinks ? "Thinking" : `Thought${length}`;
    if (this.details.open || facts) this.thoughts.replaceChildren();
    if (this.details.open || facts) show(this.thoughts, reasoning);
    const final = facts?.final_answer ?? null;
    show(this.content, final === null ? content : withoutFinal(content, this.marker));
    this.final.hidden = final === null;
    if (final !== null) {
      const value = element("span");
      show(value, final);
      this.final.replaceChildren(element("small", "", "Final answer"), value);
    }
    this.cost = performance.now() - began;
  }

  end(facts, reason) {
    this.root.removeAttribute("aria-busy");
    this.draw(facts ?? { final_answer: null, passages: [] });
    const notes = { length: "Cut off at the token limit.", stopped: "Stopped." };
    const empty = this.said.content ? "" : "The model gave no answer after its reasoning.";
    const note = notes[reason] ?? empty;
    this.foot.hidden = !note;
    this.foot.textContent = note;
    if (facts?.passages?.length) this.root.append(passages(facts.passages));
  }

  fail(message) {
    this.end(undefined, undefined);
    this.foot.hidden = false;
    this.foot.classList.add("bad");
    this.foot.textContent = message;
  }
}

function passages(found) {
  const details = element("details");
  const count = found.length === 1 ? "1 passage" : `${found.length} passages`;
  details.append(element("summary", "", `Asked with ${count} of documents`));
  const list = element("ol", "body passages");
  for (const passage of found) {
    const item = element("li");
    item.append(element("strong", "", `${passage.name}, passage ${passage.number}`));
    item.append(element("div", "", passage.text));
    list.append(item);
  }
  details.append(list);
  return details;
}

export { element };
