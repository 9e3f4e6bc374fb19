// One answer on the page: reasoning that folds, the answer itself, the final answer, passages.

import { show } from "./render.js";

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
    this.pieces = 0;
    this.drawing = 0;
  }

  begin() {
    this.root.setAttribute("aria-busy", "true");
    this.foot.hidden = false;
    this.foot.textContent = "waiting …";
  }

  add(delta) {
    this.foot.hidden = true;
    if (delta.reasoning) {
      this.said.reasoning += delta.reasoning;
      this.pieces += 1;
    }
    this.said.content += delta.content ?? "";
    this.drawing ||= requestAnimationFrame(() => this.draw());
  }

  /** Draws what there is; `facts` once the answer is whole. */
  draw(facts) {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    const { reasoning, content } = this.said;
    this.details.hidden = !reasoning;
    const thinks = !facts && !content;
    this.details.classList.toggle("thinking", thinks);
    const tokens = facts?.reasoning_tokens ?? this.pieces;
    this.summary.textContent = thinks
      ? `Thinking, ${tokens} tokens`
      : `Thought for ${tokens} ${tokens === 1 ? "token" : "tokens"}`;
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
  }

  end(facts, reason) {
    this.root.removeAttribute("aria-busy");
    this.draw(facts ?? { reasoning_tokens: this.pieces, final_answer: null, passages: [] });
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
